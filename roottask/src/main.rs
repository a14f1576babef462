//! Entry of the root task.
#![cfg_attr(target_os = "none", no_std, no_main)]

// The entry point is in the library.
#[cfg(target_os = "none")]
use roottask as _;

#[cfg(not(target_os = "none"))]
fn main() {}
