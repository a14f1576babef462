//! What each CPU counts and records, in pages that the root task holds: see [`ipc::trace`].

use core::sync::atomic::Ordering::{Relaxed, Release};

use ipc::trace::{Counter, Kind};

use crate::arch::instr::rdtsc;
use crate::arch::layout::POOL_BASE;
use crate::arch::percpu::PerCpu;
use crate::num::u64_of;
use crate::object::Obj;
use crate::object::ec::Ec;

/// Counts one more.
#[inline(always)]
pub fn count(cpu: &PerCpu, counter: Counter) {
    if let Some(counter) = cpu.ring().counter(counter) {
        // Only this CPU writes it.
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Sets what is not counted.
pub fn set(cpu: &PerCpu, counter: Counter, value: u64) {
    if let Some(counter) = cpu.ring().counter(counter) {
        counter.store(value, Relaxed);
    }
}

/// Records something, where somebody wants records.
#[inline(always)]
pub fn note(cpu: &PerCpu, kind: Kind, words: impl FnOnce() -> [u64; 2]) {
    if cpu.is_traced() {
        record(cpu, kind, words());
    }
}

/// The number that an execution context has in records.
pub fn number(ec: Obj<Ec>) -> u64 {
    u64_of(ec.pointer().addr().get()) - POOL_BASE
}

#[cold]
fn record(cpu: &PerCpu, kind: Kind, words: [u64; 2]) {
    let ring = cpu.ring();
    let number = ring.head.load(Relaxed);
    let values = [rdtsc(), kind.number().into(), words[0], words[1]];
    for (slot, value) in ring.record(number).into_iter().flatten().zip(values) {
        slot.store(value, Relaxed);
    }
    // Release: whoever sees the new head sees the record.
    ring.head.store(number.wrapping_add(1), Release);
}
