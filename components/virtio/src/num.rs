//! Truncations on purpose.

/// Bits 0 to 31.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low32(n: u64) -> u32 {
    n as u32
}

/// Bits 0 to 15.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low16(n: u64) -> u16 {
    n as u16
}

/// Bits 0 to 7.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low8(n: u64) -> u8 {
    n as u8
}
