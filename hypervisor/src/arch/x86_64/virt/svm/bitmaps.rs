//! Which ports and MSRs exit. All guests share one pair of bitmaps.

use super::super::Page;

/// Bytes of the port bitmap (APM volume 2, 15.10.1).
const IO_BYTES: usize = 3 * 4096;
/// Bytes of the MSR bitmap (15.11).
const MSR_BYTES: usize = 2 * 4096;

/// MSRs that the guest accesses itself: VMLOAD and VMSAVE switch them, and no value that WRMSR
/// takes can harm the host.
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

/// Byte and bit of the read intercept of an MSR; the write intercept is the next bit. MSRs without
/// a place always exit.
pub(super) const fn position(msr: u32) -> Option<(usize, u32)> {
    let (base, index) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (0x800, msr & 0x1fff),
        0xc001_0000..=0xc001_1fff => (0x1000, msr & 0x1fff),
        _ => return None,
    };
    Some((base + crate::num::usize_of(index as u64 / 4), index % 4 * 2))
}

/// Marks the accesses in `bitmap` that exit.
pub(super) fn fill_msr(bitmap: &mut [u8]) {
    bitmap.fill(0xff);
    for (byte, bit) in DIRECT.into_iter().filter_map(position) {
        if let Some(byte) = bitmap.get_mut(byte) {
            *byte &= !(3 << bit);
        }
    }
}

/// Fills both bitmaps: every port exits, every MSR but a few.
///
/// # Safety
/// The pages begin runs of memory of at least the sizes above that nobody else refers to.
pub(in super::super) unsafe fn fill(io: Page, msr: Page) {
    // SAFETY: the caller gives the memory.
    unsafe {
        core::slice::from_raw_parts_mut(io.ptr().as_ptr(), IO_BYTES).fill(0xff);
        fill_msr(core::slice::from_raw_parts_mut(msr.ptr().as_ptr(), MSR_BYTES));
    }
}
