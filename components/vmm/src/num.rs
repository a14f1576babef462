//! Conversions between integer widths, in one place.

pub use sysroot::num::{u64_of, usize_of};
pub use virtio::num::{low8, low16, low32};

/// Bits 32 to 63.
#[inline]
#[must_use]
pub const fn high32(n: u64) -> u32 {
    low32(n >> 32)
}

/// A mask of the low `bytes` bytes.
#[inline]
#[must_use]
pub const fn byte_mask(bytes: u64) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 }
}

/// `value`, whose significant part is the low `bytes` bytes, sign-extended.
#[inline]
#[must_use]
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "two's complement is the purpose"
)]
pub const fn sign_extend(value: u64, bytes: u64) -> u64 {
    if bytes == 0 || bytes >= 8 {
        return value;
    }
    let shift = 64 - bytes * 8;
    ((value << shift) as i64 >> shift) as u64
}

/// `value` with the low `size` bytes of `new`: byte and word writes keep the rest of a register,
/// a doubleword write clears the upper half (AMD APM vol. 1, 3.1.2).
#[inline]
#[must_use]
pub const fn merge_register(old: u64, new: u64, size: u64) -> u64 {
    match size {
        1 | 2 => (old & !byte_mask(size)) | (new & byte_mask(size)),
        4 => new & 0xffff_ffff,
        _ => new,
    }
}
