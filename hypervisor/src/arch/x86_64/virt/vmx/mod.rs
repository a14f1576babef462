//! Intel VT-x with EPT.

mod caps;
mod enter;
mod exit;
mod instr;
mod run;
#[cfg(test)]
pub(super) mod tests;
mod vcpu;
mod vmcs;

use core::ptr::NonNull;

use raw_cpuid::cpuid;
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::tag::Tags;
use super::{Platform, SWITCHED_OFF, Unavailable};
use crate::arch::msr;
use crate::mem::pool::{self, Page};

pub use caps::Caps;
pub(super) use vcpu::Vcpu;
pub(super) use vmcs::msr_bits;

/// MSRs that the host needs whenever the guest does not run. Writes exit, so that they need not be
/// read at each exit.
const SWITCHED: [u32; 3] = [msr::STAR, msr::LSTAR, msr::SFMASK];
/// MSRs that stay in the CPU while the VMM handles an exit: user code of the host has no use for them.
const ATTACHED: [u32; 2] = [msr::CSTAR, msr::KERNEL_GS_BASE];

/// Whether the processor has VT-x.
pub(super) fn is_present() -> bool {
    cpuid!(1u32).ecx & 1 << 5 != 0
}

/// What a CPU keeps for its guests.
pub struct Cpu {
    tags: Tags,
    /// Virtual-APIC page of the guest that is attached, of which only the task priority is in use.
    apic: NonNull<Page>,
    /// The host's values of [`SWITCHED`].
    switched: [u64; 3],
}

impl Cpu {
    /// Begins VMX operation on this CPU.
    ///
    /// # Safety
    /// The pages are for this CPU alone, for ever; descriptor tables and system call MSRs are set.
    pub(super) unsafe fn enable(
        platform: &Platform,
        [region, apic]: [NonNull<Page>; 2],
    ) -> Result<Self, Unavailable> {
        let caps = Caps::detect()?;
        if caps != platform.vmx {
            return Err("its VT-x differs from that of the boot CPU");
        }
        // SAFETY: VT-x is there, and firmware either allows it or left the choice to us; the
        // processor may use the page. The MSRs are those of every 64-bit processor.
        let (begun, switched) = unsafe {
            let control = msr::read(caps::FEATURE_CONTROL);
            if control & caps::FEATURE_LOCKED == 0 {
                let allowed = control | caps::FEATURE_VMX | caps::FEATURE_LOCKED;
                msr::write(caps::FEATURE_CONTROL, allowed);
            }
            Cr4::write_raw(Cr4::read_raw() | Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits());
            region.cast::<u32>().write(caps.revision);
            (instr::vmxon(pool::phys(region)), SWITCHED.map(|register| msr::read(register)))
        };
        if !begun {
            return Err(SWITCHED_OFF);
        }
        let tags = Tags::new(pool::phys(region), 1 << 16);
        Ok(Self { tags, apic, switched })
    }

    /// Task priority of the attached guest, as CR8 has it in its upper half.
    fn task_priority(&self) -> NonNull<u8> {
        // SAFETY: offset 0x80 is inside the page.
        unsafe { self.apic.cast::<u8>().add(0x80) }
    }
}
