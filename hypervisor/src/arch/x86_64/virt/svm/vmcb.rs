//! Layout of the virtual machine control block (APM volume 2, appendix B).

use super::super::registers::fields;

/// Offsets of words. Narrower fields that share one are named from the lowest up.
pub(super) mod field {
    super::fields! {
        // Intercepts: control and debug registers; exceptions and the first word; the other two.
        REGISTERS 0x00 INTERCEPTS 0x08 MORE_INTERCEPTS 0x10
        IO_BITMAP 0x40 MSR_BITMAP 0x48 TSC_OFFSET 0x50
        // ASID and TLB control.
        TAG 0x58
        VIRTUAL_INTERRUPT 0x60 SHADOW 0x68 CODE 0x70 INFO1 0x78 INFO2 0x80 INTERRUPTED 0x88
        NESTED_CONTROL 0x90 EVENT 0xa8 NESTED_ROOT 0xb0 CLEAN 0xc0 NEXT_RIP 0xc8
        // Two words for each segment: ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR.
        SEGMENTS 0x400
        // The privilege level is the top byte of the lower half.
        CPL 0x4c8
        EFER 0x4d0 CR4 0x548 CR0 0x558 DR7 0x560 DR6 0x568 RAX 0x5f8 CR2 0x640 PAT 0x668
    }
}

/// The bit of [`field::CLEAN`] that lets the processor take a field from its cache (15.15.3).
pub(super) const fn clean(field: u32) -> u64 {
    1 << match field {
        field::REGISTERS..=field::MORE_INTERCEPTS | field::TSC_OFFSET => 0,
        field::TAG => 2,
        field::VIRTUAL_INTERRUPT => 3,
        field::NESTED_ROOT | field::PAT => 4,
        field::EFER | field::CR4..=field::CR0 => 5,
        field::DR7 | field::DR6 => 6,
        // GDTR, IDTR.
        0x460 | 0x468 | 0x480 | 0x488 => 7,
        // ES to DS.
        field::SEGMENTS..0x440 | field::CPL => 8,
        field::CR2 => 9,
        // It is not cached: no such bit.
        _ => 63,
    }
}

/// Every bit that this backend uses.
pub(super) const CLEAN_ALL: u64 = 0x3ff;

/// Bits of [`field::VIRTUAL_INTERRUPT`].
pub(super) mod vintr {
    /// CR8 of the guest.
    pub(in super::super) const TPR: u64 = 0xf;
    /// A virtual interrupt is pending.
    pub(in super::super) const PENDING: u64 = 1 << 8;
    /// Where its vector begins.
    pub(in super::super) const VECTOR: u32 = 32;
    /// Its priority: the highest, and it is not compared with the TPR. The guest's IF and CR8 are
    /// virtual: physical interrupts obey the host's.
    pub(in super::super) const ALWAYS: u64 = 0xf << 16 | 1 << 20 | 1 << 24;
}

/// Intercept bits, by the word that holds them (15.9 to 15.13).
pub(super) mod intercept {
    use super::super::super::bitmaps::bits;

    /// `REGISTERS`: DR0 to DR3, and writes of DR7 and its alias DR5.
    pub(in super::super) const DEBUG: u64 = (0xf | 0xaf << 16) << 32;
    /// `INTERCEPTS`, always. Machine check, which is the host's; debug and alignment check, because
    /// a guest can make their delivery raise them again without end and without an interrupt.
    /// INTR, NMI, SMI, INIT; RDPMC, CPUID, INVD, HLT, INVLPGA, ports, MSRs, task switch, shutdown.
    pub(in super::super) const ALWAYS: u64 =
        bits(&[1, 17, 18]) | (0xf | bits(&[15, 18, 22, 24, 26, 27, 28, 29, 31])) << 32;
    /// `INTERCEPTS`: virtual interrupt about to be taken.
    pub(in super::super) const VINTR: u64 = 1 << 36;
    /// `INTERCEPTS`: IRET.
    pub(in super::super) const IRET: u64 = 1 << 52;
    /// `MORE_INTERCEPTS`, always: VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, WBINVD,
    /// MONITOR, MWAIT, XSETBV, RDPRU; INVLPGB, illegal INVLPGB, MCOMMIT, TLBSYNC.
    pub(in super::super) const MORE: u64 = 0x7f | bits(&[9, 10, 11, 13, 14]) | 0x1b << 32;
}

/// Attributes of the ABI (descriptor bits 40 to 56) in the VMCB's form, which has no gap.
pub(super) const fn pack(attributes: u16) -> u16 {
    attributes & 0xff | attributes >> 4 & 0xf00
}

/// The reverse of [`pack`].
pub(super) const fn unpack(attributes: u16) -> u16 {
    attributes & 0xff | (attributes & 0xf00) << 4
}

/// Bits of an MSR in the bitmap (15.11): reading and writing.
pub(in super::super) const fn msr_bits(msr: u32) -> Option<[usize; 2]> {
    let base = match msr {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x4000,
        0xc001_0000..=0xc001_1fff => 0x8000,
        _ => return None,
    };
    let bit = base + (msr & 0x1fff) as usize * 2;
    Some([bit, bit + 1])
}
