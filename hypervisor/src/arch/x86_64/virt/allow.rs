//! What a VMM may put into a vCPU.
//!
//! Each check is what the processor would demand on entry (APM volume 2, 15.5.1) or, where that
//! differs between vendors, what a guest could have brought about by itself. A value that passes
//! therefore neither harms the host nor fails the entry, and every value that a guest can reach
//! passes, so that storing and loading a vCPU changes nothing.

use ipc::state::{Activity, Inject, InjectKind};
use raw_cpuid::cpuid;

use super::registers::{Backend, Reg, Seg};
use crate::arch::fpu;

/// Bits of CR0.
pub(super) mod cr0 {
    pub(in super::super) const PE: u64 = 1 << 0;
    pub(in super::super) const ET: u64 = 1 << 4;
    pub(in super::super) const WP: u64 = 1 << 16;
    pub(in super::super) const NW: u64 = 1 << 29;
    pub(in super::super) const CD: u64 = 1 << 30;
    pub(in super::super) const PG: u64 = 1 << 31;
    /// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG.
    pub(in super::super) const ALL: u64 = 0x3f | WP | 1 << 18 | NW | CD | PG;
}

/// Bits of CR4.
mod cr4 {
    pub(super) const PAE: u64 = 1 << 5;
    pub(super) const PCIDE: u64 = 1 << 17;
    pub(super) const CET: u64 = 1 << 23;
}

/// Bits of EFER.
pub(super) mod efer {
    pub(in super::super) const LME: u64 = 1 << 8;
    pub(in super::super) const LMA: u64 = 1 << 10;
}

/// Bits of RFLAGS.
pub(super) mod rflags {
    /// Reads as one.
    pub(in super::super) const FIXED: u64 = 1 << 1;
    pub(in super::super) const TF: u64 = 1 << 8;
    pub(in super::super) const IF: u64 = 1 << 9;
    pub(in super::super) const VM: u64 = 1 << 17;
    /// Every defined bit.
    pub(in super::super) const ALL: u64 = 0x003f_7fd7;
}

/// Attribute bits of a code segment: 64-bit, 32-bit.
const LONG: u16 = 1 << 13;
const BIG: u16 = 1 << 14;

/// The allow-lists that depend on the processor.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Bits of CR4 that the processor has, and so a guest can set.
    pub(super) cr4: u64,
    /// Bits of EFER that a VMM may set.
    pub(super) efer: u64,
    /// State components that the host can switch.
    pub(super) xcr0: u64,
    /// Width of physical addresses in bits.
    pub(super) physical: u32,
    /// Width of linear addresses in bits.
    pub(super) linear: u32,
    /// Whether there is a TSC_AUX.
    pub(super) tsc_aux: bool,
}

impl Limits {
    /// Those of this processor.
    pub(super) fn detect() -> Self {
        let last = cpuid!(0x8000_0000u32).eax;
        let basic = cpuid!(1u32);
        let structured = cpuid!(7u32, 0u32);
        let extended = cpuid!(0x8000_0001u32);
        let widths = if last >= 0x8000_0008 { cpuid!(0x8000_0008u32).eax } else { 0x3024 };
        let bit = |word: u32, n: u32, to: u32| u64::from(word >> n & 1) << to;
        // From VME to PKS, in the order of CR4's bits: the feature's bit in EDX or ECX of leaf 1,
        // EBX or ECX of leaf 7; PCE is always there, and some are not for guests.
        const ALWAYS: u8 = 128;
        const NEVER: u8 = 129;
        const FEATURES: [u8; 25] = [
            1, 1, 4, 2, 3, 6, 7, 13, ALWAYS, 24, 25, 98, 112, NEVER, NEVER, NEVER, 64, 49, 58,
            NEVER, 71, 84, 99, 103, 127,
        ];
        let words = [basic.edx, basic.ecx, structured.ebx, structured.ecx];
        let cr4 = FEATURES.iter().zip(0..).fold(0, |cr4, (&feature, to)| {
            let word = words.get(usize::from(feature / 32)).copied();
            let word = word.unwrap_or(u32::from(feature == ALWAYS));
            cr4 | bit(word, u32::from(feature % 32), to)
        });
        // SCE, LME, LMA, NXE.
        let efer = bit(extended.edx, 11, 0)
            | bit(extended.edx, 29, 8)
            | bit(extended.edx, 29, 10)
            | bit(extended.edx, 20, 11);
        Self {
            cr4,
            efer,
            xcr0: fpu::components(),
            physical: widths & 0xff,
            linear: widths >> 8 & 0xff,
            // RDTSCP or RDPID.
            tsc_aux: extended.edx >> 27 & 1 != 0 || structured.ecx >> 22 & 1 != 0,
        }
    }

    /// CR3: reserved bits above the physical address are zero.
    pub(super) const fn cr3(&self, value: u64) -> bool {
        value >> self.physical == 0
    }

    /// An address with all unused upper bits equal.
    pub(super) const fn canonical(&self, address: u64) -> bool {
        let shift = 64 - self.linear;
        (address.cast_signed() << shift >> shift).cast_unsigned() == address
    }

    /// XCR0: rules of XSETBV, and nothing that the host could not switch.
    pub(super) const fn xcr0(&self, value: u64) -> bool {
        value & !self.xcr0 == 0 && fpu::consistent(value)
    }

    /// TSC_AUX: 32 bits.
    pub(super) const fn tsc_aux(&self, value: u64) -> bool {
        value == 0 || self.tsc_aux && value >> 32 == 0
    }
}

/// CR0 that takes effect; `None` for one that no processor can have. CD and NW are not virtual:
/// caching is the host's.
pub(super) const fn cr0(value: u64) -> Option<u64> {
    if value & !cr0::ALL != 0 {
        return None;
    }
    Some(value & !(cr0::CD | cr0::NW) | cr0::ET)
}

/// RFLAGS that takes effect.
pub(super) const fn rflags(value: u64) -> Option<u64> {
    if value & !rflags::ALL != 0 { None } else { Some(value | rflags::FIXED) }
}

/// DR6 that takes effect; its upper half is zero.
pub(super) const fn dr6(value: u64) -> u64 {
    value & !(1 << 12) | 0xffff_0ff0
}

/// DR7 that takes effect; its upper half is zero.
pub(super) const fn dr7(value: u64) -> u64 {
    value & 0xffff_27ff | 1 << 10
}

/// PAT: each of the eight bytes is a memory type, which is 0, 1 or 4 to 7.
pub(super) const fn pat(value: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    value & !(7 * ONES) == 0 && value >> 1 & !(value >> 2) & ONES == 0
}

/// The registers that decide the processor's mode. They are legal only together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub(super) cr0: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    pub(super) rflags: u64,
    pub(super) cs_attributes: u16,
}

impl Mode {
    /// The mode that a vCPU is in.
    pub(super) fn of<B: Backend>(vcpu: &B) -> Self {
        Self {
            cr0: vcpu.get(Reg::Cr0),
            cr4: vcpu.get(Reg::Cr4),
            efer: vcpu.get(Reg::Efer),
            rflags: vcpu.get(Reg::Rflags),
            cs_attributes: vcpu.segment(Seg::Cs).attributes,
        }
    }

    /// Whether it runs 64-bit code.
    pub(super) const fn is_64(&self) -> bool {
        self.efer & efer::LMA != 0 && self.cs_attributes & LONG != 0
    }

    /// EFER with the LMA that follows from the rest; `None` for a mode that does not exist.
    pub(super) const fn settle(&self) -> Option<u64> {
        let paging = self.cr0 & cr0::PG != 0;
        let long = paging && self.efer & efer::LME != 0;
        let both = LONG | BIG;
        let bad = paging && self.cr0 & cr0::PE == 0
            || long && self.cr4 & cr4::PAE == 0
            || long && self.cs_attributes & both == both
            || self.rflags & rflags::VM != 0 && (long || self.cr0 & cr0::PE == 0)
            || !long && self.cr4 & cr4::PCIDE != 0
            || self.cr4 & cr4::CET != 0 && self.cr0 & cr0::WP == 0;
        if bad {
            return None;
        }
        Some(self.efer & !efer::LMA | if long { efer::LMA } else { 0 })
    }
}

/// Whether exceptions with this vector have an error code in protected mode.
const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// Whether a VMM may inject `event` into a vCPU in this state (APM volume 2, 15.20). The guest must
/// be able to take it, which one vendor's processors check and the other's do not.
pub(super) const fn event(event: Inject, mode: &Mode, blocking: Activity) -> bool {
    let error = event.error().is_some();
    let shadow = blocking.contains(Activity::INTERRUPT_SHADOW);
    match event.kind() {
        Some(InjectKind::Interrupt) => !error && !shadow && mode.rflags & rflags::IF != 0,
        Some(InjectKind::Nmi) => {
            let blocked = blocking.contains(Activity::NMI_BLOCKED);
            !error && !shadow && !blocked && event.vector() == 2
        }
        Some(InjectKind::Exception) => {
            let vector = event.vector();
            let expected = has_error_code(vector) && mode.cr0 & cr0::PE != 0;
            // 64-bit code has neither INTO nor BOUND.
            let exists = vector < 32 && vector != 2 && !(mode.is_64() && matches!(vector, 4 | 5));
            exists && error == expected
        }
        Some(InjectKind::SoftwareInterrupt) => !error,
        None => false,
    }
}
