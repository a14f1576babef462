//! Layout of the virtual machine control block (APM volume 2, appendix B).

use core::mem::offset_of;

use ipc::state::Segment;

/// Bits of [`Vmcb::clean`]: what the processor may take from its cache (15.15.3).
pub(super) mod clean {
    /// Intercepts and TSC offset.
    pub(in super::super) const INTERCEPTS: u32 = 1 << 0;
    /// ASID.
    pub(in super::super) const ASID: u32 = 1 << 2;
    /// Virtual TPR and virtual interrupt.
    pub(in super::super) const VIRTUAL_INTERRUPT: u32 = 1 << 3;
    /// Nested paging root and PAT.
    pub(in super::super) const NESTED: u32 = 1 << 4;
    /// CR0, CR3, CR4, EFER.
    pub(in super::super) const CONTROL: u32 = 1 << 5;
    /// DR6, DR7.
    pub(in super::super) const DEBUG: u32 = 1 << 6;
    /// GDTR, IDTR.
    pub(in super::super) const TABLES: u32 = 1 << 7;
    /// CS, SS, DS, ES, CPL.
    pub(in super::super) const SEGMENTS: u32 = 1 << 8;
    /// CR2.
    pub(in super::super) const CR2: u32 = 1 << 9;
    /// Everything that this backend uses.
    pub(in super::super) const ALL: u32 = 0x3ff;
}

/// Bits of [`Vmcb::virtual_interrupt`].
pub(super) mod vintr {
    /// CR8 of the guest.
    pub(in super::super) const TPR: u32 = 0xf;
    /// A virtual interrupt is pending.
    pub(in super::super) const PENDING: u32 = 1 << 8;
    /// Its priority: the highest, and it is not compared with the TPR.
    pub(in super::super) const ALWAYS: u32 = 0xf << 16 | 1 << 20;
    /// The guest's IF and CR8 are virtual: physical interrupts obey the host's.
    pub(in super::super) const MASKING: u32 = 1 << 24;
}

/// Intercept bits, by the word that holds them (15.9 to 15.13).
pub(super) mod intercept {
    /// `debug_access`: DR0 to DR3, and writes of DR7 and its alias DR5.
    pub(in super::super) const DEBUG: u32 = 0xf | (0xf | 1 << 5 | 1 << 7) << 16;
    /// `exceptions`: machine check, which is the host's; debug and alignment check, because a
    /// guest can make their delivery raise them again without end and without an interrupt.
    pub(in super::super) const EXCEPTIONS: u32 = 1 << 18 | 1 << 1 | 1 << 17;
    /// `misc1`: virtual interrupt about to be taken.
    pub(in super::super) const VINTR: u32 = 1 << 4;
    /// `misc1`: IRET.
    pub(in super::super) const IRET: u32 = 1 << 20;
    /// `misc1`, always: INTR, NMI, SMI, INIT; RDPMC, CPUID, INVD, HLT, INVLPGA, ports, MSRs, task
    /// switch, shutdown.
    pub(in super::super) const MISC1: u32 = 0xf
        | 1 << 15
        | 1 << 18
        | 1 << 22
        | 1 << 24
        | 1 << 26
        | 1 << 27
        | 1 << 28
        | 1 << 29
        | 1 << 31;
    /// `misc2`, always: VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, WBINVD, MONITOR, MWAIT,
    /// XSETBV, RDPRU.
    pub(in super::super) const MISC2: u32 = 0x7f | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14;
    /// `misc3`, always: INVLPGB, illegal INVLPGB, MCOMMIT, TLBSYNC.
    pub(in super::super) const MISC3: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4;
}

/// EXITCODE of a VMRUN that refused the guest's state.
pub(super) const INVALID: u64 = u64::MAX;
/// EXITCODE of a VMRUN whose control block another CPU runs.
pub(super) const IN_USE: u64 = u64::MAX - 1;

/// A virtual machine control block.
#[repr(C, align(4096))]
pub(super) struct Vmcb {
    pub(super) control_access: u32,
    pub(super) debug_access: u32,
    pub(super) exceptions: u32,
    pub(super) misc1: u32,
    pub(super) misc2: u32,
    pub(super) misc3: u32,
    reserved_18: [u32; 10],
    pub(super) io_bitmap: u64,
    pub(super) msr_bitmap: u64,
    pub(super) tsc_offset: u64,
    pub(super) asid: u32,
    pub(super) tlb_control: u32,
    pub(super) virtual_interrupt: u32,
    pub(super) virtual_vector: u32,
    pub(super) interrupt_shadow: u64,
    pub(super) exit_code: u64,
    pub(super) exit_info1: u64,
    pub(super) exit_info2: u64,
    pub(super) exit_event: u64,
    pub(super) nested_control: u64,
    reserved_98: [u64; 2],
    pub(super) event: u64,
    pub(super) nested_root: u64,
    pub(super) lbr_control: u64,
    pub(super) clean: u32,
    reserved_c4: u32,
    pub(super) next_rip: u64,
    reserved_d0: [u8; 0x400 - 0xd0],
    pub(super) es: Segment,
    pub(super) cs: Segment,
    pub(super) ss: Segment,
    pub(super) ds: Segment,
    pub(super) fs: Segment,
    pub(super) gs: Segment,
    pub(super) gdtr: Segment,
    pub(super) ldtr: Segment,
    pub(super) idtr: Segment,
    pub(super) tr: Segment,
    reserved_4a0: [u8; 0x2b],
    pub(super) cpl: u8,
    reserved_4cc: u32,
    pub(super) efer: u64,
    reserved_4d8: [u8; 0x70],
    pub(super) cr4: u64,
    pub(super) cr3: u64,
    pub(super) cr0: u64,
    pub(super) dr7: u64,
    pub(super) dr6: u64,
    pub(super) rflags: u64,
    pub(super) rip: u64,
    reserved_580: [u8; 0x58],
    pub(super) rsp: u64,
    reserved_5e0: [u64; 3],
    pub(super) rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) fmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: u64,
    reserved_648: [u8; 0x20],
    pub(super) pat: u64,
    reserved_670: [u8; 0x1000 - 0x670],
}

const _: () = {
    assert!(size_of::<Vmcb>() == 0x1000);
    assert!(offset_of!(Vmcb, io_bitmap) == 0x40);
    assert!(offset_of!(Vmcb, asid) == 0x58);
    assert!(offset_of!(Vmcb, tlb_control) == 0x5c);
    assert!(offset_of!(Vmcb, virtual_interrupt) == 0x60);
    assert!(offset_of!(Vmcb, interrupt_shadow) == 0x68);
    assert!(offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, exit_event) == 0x88);
    assert!(offset_of!(Vmcb, nested_control) == 0x90);
    assert!(offset_of!(Vmcb, event) == 0xa8);
    assert!(offset_of!(Vmcb, nested_root) == 0xb0);
    assert!(offset_of!(Vmcb, clean) == 0xc0);
    assert!(offset_of!(Vmcb, next_rip) == 0xc8);
    assert!(offset_of!(Vmcb, es) == 0x400);
    assert!(offset_of!(Vmcb, tr) == 0x490);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, rip) == 0x578);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, pat) == 0x668);
    // The segment of the ABI has the shape of the VMCB's; only the attributes differ.
    assert!(size_of::<Segment>() == 16 && offset_of!(Segment, attributes) == 2);
    assert!(offset_of!(Segment, limit) == 4 && offset_of!(Segment, base) == 8);
};

/// Attributes of the ABI (descriptor bits 40 to 56) in the VMCB's form, which has no gap.
#[inline]
pub(super) const fn pack(attributes: u16) -> u16 {
    attributes & 0xff | attributes >> 4 & 0xf00
}

/// The reverse of [`pack`].
#[inline]
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
