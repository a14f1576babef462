//! Kernel memory.
//!
//! The kernel owns one stretch of physical memory, the [`pool`]. [`frames`] hands out its pages,
//! [`account`] charges them to a protection domain and cuts small objects from them, [`paging`]
//! builds page tables in them, and [`space`] is what a domain or a guest sees of all memory.

pub mod account;
pub mod frames;
pub mod paging;
pub mod pool;
pub mod space;

#[cfg(test)]
pub(crate) mod tests;
