//! Fields of the virtual machine control structure (SDM volume 3, appendix B), and the bits of
//! those that control what the guest does.

use super::super::bitmaps::bits;
use super::super::registers::fields;
use super::SWITCHED;

/// Encodings of fields.
pub(super) mod field {
    super::fields! {
        // The guest's segments, of which each has its field at a distance from these: ES, CS, SS,
        // DS, FS, GS, LDTR, TR, GDTR, IDTR.
        SELECTOR 0x0800 LIMIT 0x4800 RIGHTS 0x4814 BASE 0x6806
        // Other state of the guest.
        LINK 0x2800 INTERRUPTIBILITY 0x4824 TIMER 0x482e
        CR0 0x6800 CR4 0x6804 PENDING_DEBUG 0x6822
        // Controls.
        VPID 0x0000 IO_BITMAP_A 0x2000 IO_BITMAP_B 0x2002 MSR_BITMAP 0x2004
        VIRTUAL_APIC 0x2012 EPT_POINTER 0x201a ENCLS_BITMAP 0x202e PIN 0x4000 PROCESSOR 0x4002
        EXCEPTIONS 0x4004 EXIT 0x400c ENTRY 0x4012 ENTRY_EVENT 0x4016 ENTRY_ERROR 0x4018
        ENTRY_LENGTH 0x401a SECONDARY 0x401e CR0_MASK 0x6000 CR4_MASK 0x6002 CR0_SHADOW 0x6004
        CR4_SHADOW 0x6006
        // What the last exit left.
        PHYSICAL 0x2400 ERROR 0x4400 REASON 0x4402 EXCEPTION 0x4404 EXCEPTION_ERROR 0x4406
        VECTORING 0x4408 VECTORING_ERROR 0x440a LENGTH 0x440c INSTRUCTION 0x440e
        QUALIFICATION 0x6400
        // The host.
        HOST_CS 0x0c02 HOST_SS 0x0c04 HOST_TR 0x0c0c HOST_PAT 0x2c00 HOST_EFER 0x2c02
        HOST_CR0 0x6c00 HOST_CR3 0x6c02 HOST_CR4 0x6c04 HOST_GS_BASE 0x6c08 HOST_TR_BASE 0x6c0a
        HOST_GDTR_BASE 0x6c0c HOST_IDTR_BASE 0x6c0e HOST_RSP 0x6c14 HOST_RIP 0x6c16
    }
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
    use super::bits;

    /// External interrupts exit, NMIs exit, NMIs of the guest are its own.
    pub(in super::super) const NEEDED: u64 = bits(&[0, 3, 5]);
    /// The preemption timer runs, where there is one.
    pub(in super::super) const TIMER: u64 = 1 << 6;
    /// Bits that are always one and say nothing.
    pub(in super::super) const RESERVED: u64 = 0x16;
}

/// Primary processor-based controls.
pub(super) mod processor {
    use super::bits;

    /// Exit when the guest can take an interrupt.
    pub(in super::super) const INTERRUPT_WINDOW: u64 = 1 << 2;
    /// Exit when the guest can take an NMI.
    pub(in super::super) const NMI_WINDOW: u64 = 1 << 22;
    /// Accesses to debug registers exit.
    pub(in super::super) const DEBUG: u64 = 1 << 23;
    /// TSC offset, HLT, MWAIT, RDPMC, virtual TPR, port bitmaps, MSR bitmap, MONITOR, secondary
    /// controls; and those above, which come and go.
    pub(in super::super) const NEEDED: u64 =
        INTERRUPT_WINDOW | NMI_WINDOW | DEBUG | bits(&[3, 7, 10, 11, 21, 25, 28, 29, 31]);
    pub(in super::super) const RESERVED: u64 = 0x0400_6172;
}

/// Secondary processor-based controls.
pub(super) mod secondary {
    use super::bits;

    pub(in super::super) const VPID: u64 = 1 << 5;
    /// EPT, unrestricted guest.
    pub(in super::super) const NEEDED: u64 = bits(&[1, 7]);
    /// RDTSCP and INVPCID work, WBINVD and ENCLS exit: where the processor has them.
    pub(in super::super) const WELCOME: u64 = VPID | bits(&[3, 6, 12, 15]);
}

/// Exit controls.
pub(super) mod exit {
    use super::bits;

    /// DR7 saved, host in 64-bit mode, PAT and EFER saved and loaded.
    pub(in super::super) const NEEDED: u64 = bits(&[2, 9, 18, 19, 20, 21]);
    pub(in super::super) const RESERVED: u64 = 0x0003_6dfb;
}

/// Entry controls.
pub(super) mod entry {
    use super::bits;

    /// The guest is in long mode.
    pub(in super::super) const LONG: u64 = 1 << 9;
    /// DR7, PAT and EFER loaded; and long mode, which comes and goes.
    pub(in super::super) const NEEDED: u64 = LONG | bits(&[2, 14, 15]);
    pub(in super::super) const RESERVED: u64 = 0x11fb;
}

/// Exceptions that exit: machine check, which is the host's; debug and alignment check, because a
/// guest can make their delivery raise them again without end and without an interrupt.
pub(super) const EXCEPTIONS: u64 = bits(&[1, 17, 18]);

/// Bits of the interruptibility state.
pub(super) mod blocking {
    /// By STI, by MOV SS.
    pub(in super::super) const SHADOW: u64 = 3;
    pub(in super::super) const MOV_SS: u64 = 1 << 1;
    pub(in super::super) const NMI: u64 = 1 << 3;
}

/// Bits of an MSR in the bitmap (25.6.9): a quarter each for reading low and high, writing low and
/// high. Of those that are [`SWITCHED`] only reading can be left to the guest.
pub(in super::super) const fn msr_bits(msr: u32) -> Option<[usize; 2]> {
    let base = match msr {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x2000,
        _ => return None,
    };
    let bit = base + (msr & 0x1fff) as usize;
    let switched = matches!(SWITCHED, [a, b, c] if msr == a || msr == b || msr == c);
    Some([bit, if switched { bit } else { bit + 0x4000 }])
}
