//! From the boot loader to a described machine.
//!
//! | module | holds |
//! |---|---|
//! | [`multiboot2`] | the loader's boot information |
//! | [`acpi`] | the tables that describe processors and interrupt controllers |
//! | [`memory`] | whose each range of physical memory is |
//! | [`machine`] | [`machine::Machine`], which all of that adds up to |
//! | [`root`] | the root task's image |
//! | [`identity`] | physical memory through the boot page tables |
//! | [`kernel_space`] | the kernel's own page tables |

mod bytes;

pub mod acpi;
pub mod identity;
pub mod kernel_space;
pub mod machine;
pub mod memory;
pub mod multiboot2;
pub mod root;

#[cfg(test)]
mod tests;

pub use bytes::Physical;

/// Errors here end up on the log, for a person to read: nothing but the text matters.
pub type Result<T> = core::result::Result<T, &'static str>;
