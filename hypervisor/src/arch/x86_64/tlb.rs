//! Address-space switch and TLB invalidation.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::VirtAddr;

use crate::num::{u64_of, usize_of};

/// CR3 bit: keep what the TLB holds for the PCID.
const NO_FLUSH: u64 = 1 << 63;
/// PCIDs that a CPU uses besides 0, which is that of the kernel's own tables.
const PCIDS: usize = 32;

/// Whether CR4.PCIDE is set. Relaxed: set on the boot CPU before others start.
static HAS_PCIDS: AtomicBool = AtomicBool::new(false);

/// Tells that CR4.PCIDE is set on every CPU.
pub(super) fn use_pcids() {
    HAS_PCIDS.store(true, Ordering::Relaxed);
}

/// Whether the TLB tells address spaces apart.
pub fn has_pcids() -> bool {
    HAS_PCIDS.load(Ordering::Relaxed)
}

/// For each PCID of a CPU from 1 on, the epoch whose translations the TLB may hold under it; 0 for
/// none.
#[derive(Default)]
pub struct Pcids([Cell<u64>; PCIDS]);

impl Pcids {
    /// Loads an address space. What the TLB holds of this epoch stays, where the processor can
    /// tell it from others; everything else of the user half is forgotten, now or when its PCID is
    /// used again.
    ///
    /// # Safety
    /// `root` is a page-table root with the kernel's part in it; the epoch is that of the space,
    /// and no mapping was taken away within it. These are the PCIDs of this CPU.
    pub unsafe fn load(&self, root: u64, epoch: u64) {
        let mut value = root;
        if has_pcids() {
            let index = epoch % u64_of(PCIDS);
            let owner = self.0.get(usize_of(index));
            let keep = owner.is_some_and(|owner| owner.replace(epoch) == epoch);
            value |= (index + 1) | if keep { NO_FLUSH } else { 0 };
        }
        // SAFETY: the caller vouches for the root; kernel mappings stay the same.
        unsafe { write_cr3(value) }
    }
}

/// Loads CR3: the root of page tables, and what is to become of their PCID.
///
/// # Safety
/// The tables map the kernel, and the user half of nobody else's than is to run.
pub unsafe fn write_cr3(value: u64) {
    // SAFETY: promised.
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
