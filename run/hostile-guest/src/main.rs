//! A guest that breaks the rules of virtio, one after the other, with each of its devices. After
//! each it checks that the device asks for a reset, and that it works again after that.
//!
//! It says `HOSTILE ok: ...` or `HOSTILE BAD: ...` for each group, `HOSTILE-DONE` where all was as it
//! has to be, and switches the machine off. `seed=N` and `rounds=N` on the command line say what
//! random operations it does at the end. It has no other drivers, no interrupts and no heap.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports, unused_macros))]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod cases;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod race;
#[cfg(target_os = "none")]
mod receive;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod request;
#[cfg(target_os = "none")]
mod ring;
#[cfg(target_os = "none")]
mod run;

#[cfg(target_os = "none")]
use run::main;

#[cfg(not(target_os = "none"))]
fn main() {}
