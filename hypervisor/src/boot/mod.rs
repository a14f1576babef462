//! From the boot loader to a described machine.
//!
//! | module | holds |
//! |---|---|
//! | [`multiboot2`] | the loader's boot information |
//! | [`acpi`] | the tables that describe processors and interrupt controllers |
//! | [`memory`] | whose each range of physical memory is |
//! | [`machine`] | [`Machine`], which all of that adds up to, and [`discover`] |
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
mod testing;

pub use bytes::Physical;
pub use machine::{BootError, Machine, discover};
