//! The tests, by what they are about.

mod basic;
mod destroy;
mod event;
mod fpu;
mod interrupt;
mod ipc;
mod memory;
mod object;
mod pd;
mod port;
mod quota;
mod race;
mod semaphore;
mod smp;
mod supervision;
mod time;
mod trace;
mod transfer;
mod vcpu;

pub(crate) use event::{FAULT, Fixes};
pub(crate) use ipc::Echo;

use crate::runner::Test;

/// Addresses that nothing is at in any domain of the tests.
const FREE_ADDRESSES: u64 = ::ipc::proto::start::layout::WINDOWS.base + 0x1000_0000;

/// Where a thread stays when its part is done.
pub(crate) extern "sysv64" fn never(_utcb: u64) -> ! {
    sysroot::process::park()
}

/// All groups, in the order they run.
pub(crate) const GROUPS: &[&[Test]] = &[
    basic::TESTS,
    pd::TESTS,
    quota::TESTS,
    object::TESTS,
    semaphore::TESTS,
    time::TESTS,
    ipc::TESTS,
    transfer::TESTS,
    memory::TESTS,
    port::TESTS,
    event::TESTS,
    fpu::TESTS,
    supervision::TESTS,
    destroy::TESTS,
    race::TESTS,
    smp::TESTS,
    interrupt::TESTS,
    vcpu::TESTS,
    trace::TESTS,
];
