//! The Portico kernel: mechanisms in ring 0, no policy.
//!
//! It knows protection domains, execution contexts, scheduling contexts, portals, semaphores,
//! vCPUs and address spaces, all reached through capabilities. `main.rs` is the entry; everything
//! else is here, so that what needs no hardware runs under test on the host.
//!
//! Principles:
//! * one kernel stack per CPU, run to completion with interrupts off;
//! * decode before effect: nothing changes until every check has passed;
//! * errors are values; nothing user space can do panics;
//! * every byte the kernel allocates is charged to a protection domain.
#![cfg_attr(not(test), no_std)]
// A test may break its promises by failing.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::cast_sign_loss))]

pub mod arch;
pub mod boot;
pub mod cap;
pub mod cap_call;
pub mod destroy;
#[cfg(target_os = "none")]
pub mod init;
pub mod interrupt;
pub mod ipc;
pub mod log;
pub mod mem;
pub mod num;
pub mod object;
pub mod sched;
pub mod shared;
pub mod sync;
pub mod syscall;
pub mod trace;
pub mod transfer;
pub mod trap;
pub mod vcpu;
