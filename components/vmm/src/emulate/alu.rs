//! Integer operations and the flags they leave (Intel SDM vol. 1, 3.4.3.1).

use crate::num::byte_mask;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

/// An operation on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// a & b
    And,
    /// a | b
    Or,
    /// a ^ b
    Xor,
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a + 1; the carry flag stays.
    Inc,
    /// a - 1; the carry flag stays.
    Dec,
}

/// Result and new flags of `op` on operands of `size` bytes.
#[must_use]
pub const fn compute(op: Op, a: u64, b: u64, size: u64, flags: u64) -> (u64, u64) {
    let mask = byte_mask(size);
    let sign = 1 << (size * 8 - 1);
    let (a, b) = (a & mask, b & mask);
    let b = if matches!(op, Op::Inc | Op::Dec) { 1 } else { b };
    let (result, carry, overflow, adjust) = match op {
        Op::And => (a & b, false, false, 0),
        Op::Or => (a | b, false, false, 0),
        Op::Xor => (a ^ b, false, false, 0),
        Op::Add | Op::Inc => {
            let r = a.wrapping_add(b) & mask;
            (r, r < a, (a ^ r) & (b ^ r) & sign != 0, (a ^ b ^ r) & AF)
        }
        Op::Sub | Op::Dec => {
            let r = a.wrapping_sub(b) & mask;
            (r, a < b, (a ^ b) & (a ^ r) & sign != 0, (a ^ b ^ r) & AF)
        }
    };
    let mut new = flags & !ALL | adjust;
    if matches!(op, Op::Inc | Op::Dec) {
        new |= flags & CF;
    } else if carry {
        new |= CF;
    }
    if overflow {
        new |= OF;
    }
    if result == 0 {
        new |= ZF;
    }
    if result & sign != 0 {
        new |= SF;
    }
    if (result & 0xff).count_ones() % 2 == 0 {
        new |= PF;
    }
    (result, new)
}

/// Flags with the carry flag as given: what the bit tests leave.
#[must_use]
pub const fn with_carry(flags: u64, carry: bool) -> u64 {
    flags & !CF | if carry { CF } else { 0 }
}
