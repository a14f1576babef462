//! Fields of the virtual machine control structure (SDM volume 3, appendix B), and the bits of
//! those that control what the guest does.

/// Encodings of fields.
pub(super) mod field {
    // The guest's segments: the n-th is 2n further. See `Seg`'s numbers in `vcpu`.
    pub(in super::super) const GUEST_SELECTOR: u32 = 0x0800;
    pub(in super::super) const GUEST_LIMIT: u32 = 0x4800;
    pub(in super::super) const GUEST_RIGHTS: u32 = 0x4814;
    pub(in super::super) const GUEST_BASE: u32 = 0x6806;
    // Other state of the guest.
    pub(in super::super) const LINK: u32 = 0x2800;
    pub(in super::super) const GUEST_PAT: u32 = 0x2804;
    pub(in super::super) const GUEST_EFER: u32 = 0x2806;
    pub(in super::super) const INTERRUPTIBILITY: u32 = 0x4824;
    pub(in super::super) const GUEST_SYSENTER_CS: u32 = 0x482a;
    pub(in super::super) const TIMER: u32 = 0x482e;
    pub(in super::super) const GUEST_CR0: u32 = 0x6800;
    pub(in super::super) const GUEST_CR3: u32 = 0x6802;
    pub(in super::super) const GUEST_CR4: u32 = 0x6804;
    pub(in super::super) const GUEST_DR7: u32 = 0x681a;
    pub(in super::super) const GUEST_RSP: u32 = 0x681c;
    pub(in super::super) const GUEST_RIP: u32 = 0x681e;
    pub(in super::super) const GUEST_RFLAGS: u32 = 0x6820;
    pub(in super::super) const PENDING_DEBUG: u32 = 0x6822;
    pub(in super::super) const GUEST_SYSENTER_ESP: u32 = 0x6824;
    pub(in super::super) const GUEST_SYSENTER_EIP: u32 = 0x6826;
    // Controls.
    pub(in super::super) const VPID: u32 = 0x0000;
    pub(in super::super) const IO_BITMAP_A: u32 = 0x2000;
    pub(in super::super) const IO_BITMAP_B: u32 = 0x2002;
    pub(in super::super) const MSR_BITMAP: u32 = 0x2004;
    pub(in super::super) const TSC_OFFSET: u32 = 0x2010;
    pub(in super::super) const VIRTUAL_APIC: u32 = 0x2012;
    pub(in super::super) const EPT_POINTER: u32 = 0x201a;
    pub(in super::super) const ENCLS_BITMAP: u32 = 0x202e;
    pub(in super::super) const PIN: u32 = 0x4000;
    pub(in super::super) const PROCESSOR: u32 = 0x4002;
    pub(in super::super) const EXCEPTIONS: u32 = 0x4004;
    pub(in super::super) const EXIT: u32 = 0x400c;
    pub(in super::super) const ENTRY: u32 = 0x4012;
    pub(in super::super) const ENTRY_EVENT: u32 = 0x4016;
    pub(in super::super) const ENTRY_ERROR: u32 = 0x4018;
    pub(in super::super) const ENTRY_LENGTH: u32 = 0x401a;
    pub(in super::super) const SECONDARY: u32 = 0x401e;
    pub(in super::super) const CR0_MASK: u32 = 0x6000;
    pub(in super::super) const CR4_MASK: u32 = 0x6002;
    pub(in super::super) const CR0_SHADOW: u32 = 0x6004;
    pub(in super::super) const CR4_SHADOW: u32 = 0x6006;
    // What the last exit left.
    pub(in super::super) const GUEST_PHYSICAL: u32 = 0x2400;
    pub(in super::super) const INSTRUCTION_ERROR: u32 = 0x4400;
    pub(in super::super) const REASON: u32 = 0x4402;
    pub(in super::super) const EXCEPTION: u32 = 0x4404;
    pub(in super::super) const EXCEPTION_ERROR: u32 = 0x4406;
    pub(in super::super) const VECTORING: u32 = 0x4408;
    pub(in super::super) const VECTORING_ERROR: u32 = 0x440a;
    pub(in super::super) const LENGTH: u32 = 0x440c;
    pub(in super::super) const INSTRUCTION: u32 = 0x440e;
    pub(in super::super) const QUALIFICATION: u32 = 0x6400;
    // The host.
    pub(in super::super) const HOST_CS: u32 = 0x0c02;
    pub(in super::super) const HOST_SS: u32 = 0x0c04;
    pub(in super::super) const HOST_TR: u32 = 0x0c0c;
    pub(in super::super) const HOST_PAT: u32 = 0x2c00;
    pub(in super::super) const HOST_EFER: u32 = 0x2c02;
    pub(in super::super) const HOST_CR0: u32 = 0x6c00;
    pub(in super::super) const HOST_CR3: u32 = 0x6c02;
    pub(in super::super) const HOST_CR4: u32 = 0x6c04;
    pub(in super::super) const HOST_GS_BASE: u32 = 0x6c08;
    pub(in super::super) const HOST_TR_BASE: u32 = 0x6c0a;
    pub(in super::super) const HOST_GDTR_BASE: u32 = 0x6c0c;
    pub(in super::super) const HOST_IDTR_BASE: u32 = 0x6c0e;
    pub(in super::super) const HOST_RSP: u32 = 0x6c14;
    pub(in super::super) const HOST_RIP: u32 = 0x6c16;
}

/// Number of words in the image of a control structure that does not exist yet.
pub(super) const SLOTS: usize = 512;

/// The place of a field in the image: width, type and index, each in as many bits as are in use.
pub(super) const fn slot(field: u32) -> usize {
    (field >> 1 & 31 | (field >> 10 & 3) << 5 | (field >> 13 & 3) << 7) as usize
}

/// The reverse of [`slot`].
pub(super) const fn field_of(slot: usize) -> u32 {
    let slot = crate::num::low32(crate::num::u64_of(slot));
    (slot & 31) << 1 | (slot >> 5 & 3) << 10 | (slot >> 7) << 13
}

/// Pin-based controls.
pub(super) mod pin {
    /// External interrupts exit, NMIs exit, NMIs of the guest are its own.
    pub(in super::super) const NEEDED: u32 = 1 << 0 | 1 << 3 | 1 << 5;
    /// The preemption timer runs, where there is one.
    pub(in super::super) const TIMER: u32 = 1 << 6;
    /// Bits that are always one and say nothing.
    pub(in super::super) const RESERVED: u32 = 0x16;
}

/// Primary processor-based controls.
pub(super) mod processor {
    /// Exit when the guest can take an interrupt.
    pub(in super::super) const INTERRUPT_WINDOW: u32 = 1 << 2;
    /// Exit when the guest can take an NMI.
    pub(in super::super) const NMI_WINDOW: u32 = 1 << 22;
    /// Accesses to debug registers exit.
    pub(in super::super) const DEBUG: u32 = 1 << 23;
    /// TSC offset, HLT, MWAIT, RDPMC, virtual TPR, port bitmaps, MSR bitmap, MONITOR, secondary
    /// controls; and those above, which come and go.
    pub(in super::super) const NEEDED: u32 = INTERRUPT_WINDOW
        | NMI_WINDOW
        | DEBUG
        | 1 << 3
        | 1 << 7
        | 1 << 10
        | 1 << 11
        | 1 << 21
        | 1 << 25
        | 1 << 28
        | 1 << 29
        | 1 << 31;
    pub(in super::super) const RESERVED: u32 = 0x0400_6172;
}

/// Secondary processor-based controls.
pub(super) mod secondary {
    pub(in super::super) const VPID: u32 = 1 << 5;
    /// EPT, unrestricted guest.
    pub(in super::super) const NEEDED: u32 = 1 << 1 | 1 << 7;
    /// RDTSCP and INVPCID work, WBINVD and ENCLS exit: where the processor has them.
    pub(in super::super) const WELCOME: u32 = VPID | 1 << 3 | 1 << 6 | 1 << 12 | 1 << 15;
}

/// Exit controls.
pub(super) mod exit {
    /// DR7 saved, host in 64-bit mode, PAT and EFER saved and loaded.
    pub(in super::super) const NEEDED: u32 =
        1 << 2 | 1 << 9 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21;
    pub(in super::super) const RESERVED: u32 = 0x0003_6dfb;
}

/// Entry controls.
pub(super) mod entry {
    /// The guest is in long mode.
    pub(in super::super) const LONG: u32 = 1 << 9;
    /// DR7, PAT and EFER loaded; and long mode, which comes and goes.
    pub(in super::super) const NEEDED: u32 = LONG | 1 << 2 | 1 << 14 | 1 << 15;
    pub(in super::super) const RESERVED: u32 = 0x11fb;
}

/// Exceptions that exit: machine check, which is the host's; debug and alignment check, because a
/// guest can make their delivery raise them again without end and without an interrupt.
pub(super) const EXCEPTIONS: u32 = 1 << 18 | 1 << 1 | 1 << 17;

/// Bits of the interruptibility state.
pub(super) mod blocking {
    /// By STI, by MOV SS.
    pub(in super::super) const SHADOW: u64 = 3;
    pub(in super::super) const MOV_SS: u64 = 1 << 1;
    pub(in super::super) const NMI: u64 = 1 << 3;
}

/// Bits of an MSR in the bitmap (25.6.9): a quarter each for reading low and high, writing low and
/// high.
pub(in super::super) const fn msr_bits(msr: u32) -> Option<[usize; 2]> {
    let base = match msr {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x2000,
        _ => return None,
    };
    let bit = base + (msr & 0x1fff) as usize;
    Some([bit, bit + 0x4000])
}
