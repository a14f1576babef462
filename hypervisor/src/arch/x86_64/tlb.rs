//! Address-space switch and TLB invalidation.

use x86_64::VirtAddr;

/// CR3 bit: keep what the TLB holds for the PCID.
const NO_FLUSH: u64 = 1 << 63;

/// Switches the address space.
///
/// # Safety
/// `root` is a page-table root with the kernel's part in it; a PCID other than 0 needs CR4.PCIDE;
/// with `keep`, no mapping changed under this PCID on this CPU since it was flushed.
pub unsafe fn set_cr3(root: u64, pcid: u16, keep: bool) {
    let value = root | u64::from(pcid & 0xfff) | if keep { NO_FLUSH } else { 0 };
    // SAFETY: the caller vouches for root and PCID; kernel mappings stay the same.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags));
    }
}

/// Forgets one page of the current address space, and of the kernel's global ones.
pub fn flush_page(address: u64) {
    x86_64::instructions::tlb::flush(VirtAddr::new_truncate(address));
}

/// The address of the last page fault.
pub fn cr2() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}
