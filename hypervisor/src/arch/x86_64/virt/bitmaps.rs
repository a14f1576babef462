//! Which ports and MSRs exit. All guests share one pair of bitmaps.

use core::ptr::NonNull;

use crate::mem::pool::Page;

/// MSRs that the guest accesses itself: they are switched with it, and no value that WRMSR takes
/// can harm the host.
const DIRECT: [u32; 10] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

/// A word with these bits set.
pub(super) const fn bits(mut list: &[u32]) -> u64 {
    let mut word = 0;
    while let [bit, rest @ ..] = list {
        word |= 1 << *bit;
        list = rest;
    }
    word
}

/// Where a vendor has the bits of an MSR for reads and writes. MSRs without a place always exit.
pub(super) type Place = fn(u32) -> Option<[usize; 2]>;

/// Marks the accesses in `bitmap` that exit.
pub(super) fn fill_msr(bitmap: &mut [u8], place: Place) {
    bitmap.fill(0xff);
    for bit in DIRECT.into_iter().filter_map(place).flatten() {
        if let Some(byte) = bitmap.get_mut(bit / 8) {
            *byte &= !(1 << (bit % 8));
        }
    }
}

/// Fills both bitmaps: every port exits, every MSR but a few.
///
/// # Safety
/// The pages begin a run with room for bitmaps of these sizes in pages, one behind the other, that
/// nobody else refers to.
pub(super) unsafe fn fill(pages: NonNull<Page>, [io, msr]: [usize; 2], place: Place) {
    // SAFETY: the caller gives the memory.
    unsafe {
        pages.write_bytes(0xff, io);
        let msrs = pages.add(io).cast::<u8>().as_ptr();
        fill_msr(core::slice::from_raw_parts_mut(msrs, msr * size_of::<Page>()), place);
    }
}
