//! What every component links.
//!
//! | module | holds |
//! |---|---|
//! | [`start`] | entry of a component, panic handler, exit |
//! | [`process`] | what the start block says |
//! | [`cap`], [`syscall`] | typed capabilities and the system calls on them |
//! | [`utcb`] | the message buffer of the current thread |
//! | [`selector`], [`memory`] | free selectors, pages and windows |
//! | [`thread`], [`portal`] | threads with scheduling contexts, and handlers behind portals |
//! | [`service`] | typed clients and servers |
//! | [`log`], [`time`], [`sync`], [`heap`], [`port`] | the rest of a run-time library |
//!
//! A component is a binary with a `main`:
//!
//! ```ignore
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//!
//! #[cfg(target_os = "none")]
//! sysroot::entry!(main);
//!
//! fn main() {
//!     sysroot::log!("hello from {}", sysroot::process::start().name);
//! }
//! ```
//!
//! and a build script of one line, `include!("../../sysroot/component.rs");`, which links it to
//! the address that the root task loads it at. On the host everything compiles, so that tests of
//! pure logic run there, but system calls answer [`ipc::status::Status::NotSupported`].
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod cap;
pub mod heap;
pub mod log;
pub mod memory;
pub mod num;
pub mod port;
pub mod portal;
pub mod process;
pub mod selector;
pub mod service;
pub mod start;
pub mod sync;
pub mod syscall;
pub mod thread;
pub mod time;
pub mod utcb;
