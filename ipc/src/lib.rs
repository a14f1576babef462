//! The binary interface of Portico: everything the kernel and its components agree on.
//!
//! This crate is the only source of the ABI. The kernel decodes with it, components encode with
//! it, and `docs/abi.md` is checked against it.
//!
//! | module | holds |
//! |---|---|
//! | [`syscall`] | system call numbers, flags and the register convention |
//! | [`status`] | the result of a call |
//! | [`cap`] | selectors, object types, rights, delegation descriptors |
//! | [`utcb`] | the message buffer of an execution context |
//! | [`event`] | event numbers of host execution contexts and of vCPUs |
//! | [`state`] | architectural state in the UTCB and the MTD that selects groups of it |
//! | [`guest`] | what a guest can ask its VMM |
//! | [`exit`] | qualification of a vCPU exit in its vendor-neutral form |
//! | [`info`] | the information page that the root task finds at start |
//! | [`trace`] | counters and records of what each CPU does |
//! | [`proto`] | typed service protocols between components |
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod number;
pub mod cap;
pub mod event;
pub mod exit;
pub mod guest;
pub mod info;
pub mod proto;
pub mod state;
pub mod status;
pub mod syscall;
pub mod trace;
pub mod utcb;

/// Version of the interface. A change that a component can notice increments it; what changed is in
/// `docs/abi-changelog.md`.
pub const ABI_VERSION: u32 = 2;

/// Bytes of a page: the unit of memory delegation and of kernel memory quota.
pub const PAGE_SIZE: usize = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_BITS: u32 = 12;
