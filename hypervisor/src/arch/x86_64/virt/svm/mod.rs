//! AMD SVM with nested paging.

mod enter;
mod exit;
mod run;
#[cfg(test)]
mod tests;
mod vcpu;
mod vmcb;

use core::ptr::NonNull;

use raw_cpuid::cpuid;

use super::tag::Tags;
use super::{SWITCHED_OFF, Unavailable};
use crate::arch::msr;
use crate::mem::pool::{self, Page};

pub(super) use vcpu::Vcpu;
pub(super) use vmcb::msr_bits;

/// VM_CR: SVM cannot be enabled.
const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
/// Physical address of the page where VMRUN keeps host state.
const VM_HSAVE_PA: u32 = 0xc001_0117;
const EFER_SVME: u64 = 1 << 12;

/// CPUID leaf of SVM.
const LEAF: u32 = 0x8000_000a;

/// Whether the processor has SVM.
pub(super) fn is_present() -> bool {
    cpuid!(0x8000_0000u32).eax >= LEAF && cpuid!(0x8000_0001u32).ecx & 1 << 2 != 0
}

/// Whether guests can run on this processor, which has SVM.
pub(super) fn detect() -> Result<(), Unavailable> {
    let features = cpuid!(LEAF);
    // SAFETY: a processor with SVM has the register.
    if unsafe { msr::read(VM_CR) } & VM_CR_SVMDIS != 0 {
        return Err(SWITCHED_OFF);
    }
    if features.edx & 1 == 0 || features.ebx < 2 {
        return Err("the processor's SVM lacks nested paging or ASIDs");
    }
    Ok(())
}

/// What a CPU keeps for its guests.
pub struct Cpu {
    /// Physical address of the control block with the host's state of VMSAVE.
    host: u64,
    tags: Tags,
    /// What the processor caches of a control block that it has run.
    clean: u64,
    /// The processor reads and writes [`vmcb::field::NEXT_RIP`].
    knows_next: bool,
    /// Guests get interrupts as virtual ones that are pending (15.21.4), and not as events.
    pends: bool,
}

/// Whether an event may be delivered twice. QEMU, at least up to 10.0, keeps the vector of an
/// injected interrupt as that of an exception, and raises it when its thread is called for something
/// else before the guest's next exit: in the middle of whatever the guest does by then.
fn delivers_twice() -> bool {
    const SIGNATURE: u32 = u32::from_le_bytes(*b"TCGT");
    cpuid!(1u32).ecx >> 31 != 0 && cpuid!(0x4000_0000u32).ebx == SIGNATURE
}

impl Cpu {
    /// Enables SVM on this CPU.
    ///
    /// # Safety
    /// The pages are for this CPU alone, for ever.
    pub(super) unsafe fn enable([save, host]: [NonNull<Page>; 2]) -> Result<Self, Unavailable> {
        detect()?;
        let features = cpuid!(LEAF);
        // SAFETY: SVM is there and may be enabled; the processor may use the page.
        unsafe {
            msr::write(msr::EFER, msr::read(msr::EFER) | EFER_SVME);
            msr::write(VM_HSAVE_PA, pool::phys(save));
        }
        Ok(Self {
            host: pool::phys(host),
            tags: Tags::new(pool::phys(save), features.ebx),
            clean: if features.edx & 1 << 5 != 0 { vmcb::CLEAN_ALL } else { 0 },
            knows_next: features.edx & 1 << 3 != 0,
            pends: delivers_twice(),
        })
    }
}
