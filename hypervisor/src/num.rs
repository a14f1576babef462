//! Conversions that cannot lose anything on this machine, in one place.

/// `usize` is 64 bits wide on every machine this kernel runs on.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
pub const fn usize_of(n: u64) -> usize {
    n as usize
}

/// The reverse of [`usize_of`].
pub const fn u64_of(n: usize) -> u64 {
    n as u64
}

/// Bits 0 to 31.
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low32(n: u64) -> u32 {
    n as u32
}

/// Bits 0 to 15.
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low16(n: u64) -> u16 {
    n as u16
}

/// Bits 0 to 7.
#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
pub const fn low8(n: u64) -> u8 {
    n as u8
}
