//! Entry of the example.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
sysroot::entry!(counter::main);

#[cfg(not(target_os = "none"))]
fn main() {}
