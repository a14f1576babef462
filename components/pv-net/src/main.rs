//! Entry of the network component.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
sysroot::entry!(pv_net::component::main);

#[cfg(not(target_os = "none"))]
fn main() {}
