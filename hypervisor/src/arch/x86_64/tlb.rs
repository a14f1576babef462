//! Address-space switch and TLB invalidation.

use x86_64::VirtAddr;
use x86_64::instructions::tlb::{InvPcidCommand, Pcid, flush_pcid};
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};

/// CR3 bit: keep what the TLB holds for the PCID.
const NO_FLUSH: u64 = 1 << 63;

/// The current CR3: page-table root and PCID.
#[inline]
#[must_use]
pub fn cr3() -> u64 {
    let (frame, low) = Cr3::read_raw();
    frame.start_address().as_u64() | u64::from(low)
}

/// Switches the address space.
///
/// # Safety
/// `root` is a page-table root with the kernel's part in it; a PCID other than 0 needs CR4.PCIDE;
/// with `keep`, no mapping changed under this PCID on this CPU since it was flushed.
#[inline]
pub unsafe fn set_cr3(root: u64, pcid: u16, keep: bool) {
    let value = root | u64::from(pcid & 0xfff) | if keep { NO_FLUSH } else { 0 };
    // SAFETY: the caller vouches for root and PCID; kernel mappings stay the same.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags));
    }
}

/// Forgets one page of the current address space, and of the kernel's global ones.
#[inline]
pub fn flush_page(address: u64) {
    x86_64::instructions::tlb::flush(VirtAddr::new_truncate(address));
}

/// Forgets one page of the space with this PCID. Needs INVPCID.
///
/// # Safety
/// The CPU has INVPCID.
#[inline]
pub unsafe fn flush_pcid_page(pcid: u16, address: u64) {
    if let Ok(pcid) = Pcid::new(pcid & 0xfff) {
        // SAFETY: flushing forgets only what can be read again from the page tables.
        unsafe { flush_pcid(InvPcidCommand::Address(VirtAddr::new_truncate(address), pcid)) }
    }
}

/// Forgets all pages of the space with this PCID except global ones. Needs INVPCID.
///
/// # Safety
/// The CPU has INVPCID.
#[inline]
pub unsafe fn flush_pcid_all(pcid: u16) {
    if let Ok(pcid) = Pcid::new(pcid & 0xfff) {
        // SAFETY: flushing forgets only what can be read again from the page tables.
        unsafe { flush_pcid(InvPcidCommand::Single(pcid)) }
    }
}

/// Forgets everything, under every PCID, global pages included.
pub fn flush_all() {
    let flags = Cr4::read();
    // SAFETY: PGE is switched off and on again, which flushes and changes nothing else.
    unsafe {
        Cr4::write(flags.symmetric_difference(Cr4Flags::PAGE_GLOBAL));
        Cr4::write(flags);
    }
}

/// The address of the last page fault.
#[must_use]
pub fn cr2() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}
