//! Tests the kernel's interface on the running kernel: each system call with each success form,
//! each error, each missing right; then, where asked for, what calls cost.
//!
//! It prints `START name` and then `TEST name ... ok` or `TEST name ... FAILED: why` for each test
//! and `N passed, N failed` at the end, and leaves the emulator with the result. With the argument
//! `bench` it prints `BENCH name unit value` instead; with `stress` it runs random operations
//! against a model; with `only=TEXT,TEXT` it runs the tests whose name contains one of these, with
//! `skip=NAME,NAME` all but these; with `crash=fault|overflow|panic|exit` it ends so, with
//! `poisoned` beside it once it is asked for something, and with `kill=NAME,NAME` it ends other
//! components in turn, for tests of the root task and of whoever depends on components that may die.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports, unused_macros))]

extern crate alloc;

#[macro_use]
mod check;
mod arch;
mod bench;
mod devices;
mod domain;
mod guest;
mod operator;
mod poisoned;
mod runner;
mod stress;
mod tests;

#[cfg(target_os = "none")]
sysroot::entry!(runner::main);

#[cfg(not(target_os = "none"))]
fn main() {}
