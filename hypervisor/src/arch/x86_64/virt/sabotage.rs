//! Entries that fail on demand, in ways that no VMM can bring about: for the conformance suite, on a
//! kernel that is built for that.
//!
//! The order is a TSC offset that nobody else would set. What is wrong with the next entry differs by
//! vendor; afterwards everything is as before.

use super::registers::{Backend, Reg};

/// The upper bytes of an order; the lowest one says what is to be wrong.
const ORDER: u64 = 0x5ab0_7a9e_0000_0000;

/// The order that a vCPU was given, which is used up.
pub(super) fn ordered(vcpu: &mut impl Backend) -> Option<u64> {
    let kind = vcpu.get(Reg::TscOffset).checked_sub(ORDER).filter(|kind| *kind < 0x100)?;
    vcpu.set(Reg::TscOffset, 0);
    Some(kind)
}
