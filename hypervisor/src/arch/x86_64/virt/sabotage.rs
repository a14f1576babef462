//! Entries that fail on demand, in ways that no VMM can bring about: for the conformance suite, on a
//! kernel that is built for that.
//!
//! The order is a TSC offset that nobody else would set. What is wrong with the next entry differs by
//! vendor; afterwards everything is as before.

use super::Outcome;
use super::guest::Common;
use super::registers::{Backend, Reg};

/// The upper bytes of an order; the lowest one says what is to be wrong.
const ORDER: u64 = 0x5ab0_7a9e_0000_0000;

/// [`Backend::run`], which fails where that was ordered.
pub(super) fn run<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    cpu: &mut B::Cpu,
    space: u64,
) -> Outcome {
    let order = vcpu.get(Reg::TscOffset).checked_sub(ORDER).filter(|kind| *kind < 0x100);
    let Some(kind) = order else { return vcpu.run(common, cpu, space) };
    vcpu.set(Reg::TscOffset, 0);
    let mend = vcpu.sabotage(kind);
    let outcome = vcpu.run(common, cpu, space);
    mend(vcpu);
    outcome
}
