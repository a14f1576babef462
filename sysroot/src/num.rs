//! Conversions that cannot lose anything on a 64-bit machine.

const _: () = assert!(usize::BITS == u64::BITS);

/// A `u64` as a `usize`.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "both have 64 bits")]
pub const fn usize_of(n: u64) -> usize {
    n as usize
}

/// A `usize` as a `u64`.
#[inline(always)]
#[must_use]
pub const fn u64_of(n: usize) -> u64 {
    n as u64
}

/// Address of a place.
#[inline(always)]
#[must_use]
pub fn address<T: ?Sized>(place: *const T) -> u64 {
    u64_of(place.cast::<()>().addr())
}

/// Number of the page that holds an address.
#[inline(always)]
#[must_use]
pub const fn page(address: u64) -> u64 {
    address >> ipc::PAGE_BITS
}
