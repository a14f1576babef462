//! From exit reasons to what they mean (SDM volume 3, appendix C and 28.2).

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::exit::Meaning;
use super::enter::failure;
use super::vmcs::field;
use crate::num::low16;

/// Reasons that are looked at on their own.
pub(super) mod reason {
    /// An exception or an NMI.
    pub(in super::super) const EXCEPTION: u32 = 0;
    /// Access to a control register.
    pub(in super::super) const CONTROL_REGISTER: u32 = 28;
    /// A machine check came during the entry.
    pub(in super::super) const MACHINE_CHECK: u32 = 41;
    /// Access to a debug register.
    pub(in super::super) const DEBUG_REGISTER: u32 = 29;
    /// Access to memory that EPT does not allow.
    pub(in super::super) const MEMORY: u32 = 48;
    /// WRMSR.
    pub(in super::super) const MSR_WRITE: u32 = 32;
    /// The entry failed while it loaded the guest.
    pub(in super::super) const FAILED: u32 = 1 << 31;
}

/// What a reason means; [`Meaning::Own`] where the reason alone does not tell.
pub(super) const fn usual(reason: u32) -> Meaning {
    match reason {
        10 => Meaning::Plain(Exit::Cpuid, 2),
        12 => Meaning::Plain(Exit::Hlt, 1),
        30 => Meaning::Vmm(Exit::Io, 1),
        31 => Meaning::Vmm(Exit::MsrRead, 2),
        reason::MSR_WRITE => Meaning::Vmm(Exit::MsrWrite, 2),
        reason::MEMORY => Meaning::Vmm(Exit::Memory, 0),
        // External interrupt, INIT, start-up IPI, SMI, preemption timer.
        1 | 3..=6 | 52 => Meaning::Host,
        2 => Meaning::Vmm(Exit::Shutdown, 0),
        7 => Meaning::Window(Exit::InterruptWindow),
        8 => Meaning::Window(Exit::NmiWindow),
        9 => Meaning::Vmm(Exit::TaskSwitch, 0),
        // INVD, WBINVD.
        13 | 54 => Meaning::Plain(Exit::CacheControl, 2),
        15 => Meaning::Plain(Exit::Rdpmc, 2),
        18 => Meaning::Plain(Exit::Hypercall, 3),
        // GETSEC; VMCLEAR to VMXON; INVEPT, INVVPID; VMFUNC, ENCLS.
        11 | 19..=27 | 50 | 53 | 59 | 60 => Meaning::Plain(Exit::InvalidOpcode, 3),
        reason::EXCEPTION | reason::CONTROL_REGISTER | reason::DEBUG_REGISTER => Meaning::Own,
        // MWAIT, MONITOR.
        36 | 39 => Meaning::Plain(Exit::Monitor, 3),
        55 => Meaning::Plain(Exit::Xsetbv, 3),
        _ => Meaning::Vmm(Exit::Unknown, 0),
    }
}

/// What an exception means, by what describes it (25.9.2).
pub(super) const fn exception(word: u32) -> Meaning {
    match word & 0x7ff {
        // NMI; an exception that INT1 raises.
        0x202 => Meaning::Own,
        0x301 | 0x501 => Meaning::Debug,
        0x311 => Meaning::Alignment,
        0x312 => Meaning::MachineCheck,
        _ => Meaning::Vmm(Exit::Unknown, 0),
    }
}

/// Qualification of an entry that failed: the reason where it began, otherwise [`NOT_BEGUN`] with
/// the number of the error (31.4), which is 0 where there is no control structure.
pub(super) fn failed(failure: u64, reason: u32, detail: impl Fn(u32) -> u64) -> [u64; 3] {
    match failure {
        0 => [reason.into(), detail(field::QUALIFICATION), 0],
        failure::INVALID => [NOT_BEGUN, 0, 0],
        _ => [NOT_BEGUN | detail(field::ERROR), 0, 0],
    }
}

/// The instruction that enters the guest failed itself.
pub(super) const NOT_BEGUN: u64 = 1 << 32;

/// Qualification of a port access (28.2.1). `instruction` is the information about INS and OUTS.
pub(super) fn io(qualification: u64, instruction: impl FnOnce() -> u64) -> Io {
    let string = qualification & 1 << 4 != 0;
    Io {
        port: low16(qualification >> 16),
        size: match qualification & 7 {
            0 => 1,
            1 => 2,
            _ => 4,
        },
        input: qualification & 1 << 3 != 0,
        string,
        rep: qualification & 1 << 5 != 0,
        address_size: if string { 2 << (instruction() >> 7 & 3) } else { 0 },
    }
}

/// Qualification of an EPT violation: what the access was, what the entry allows, and whether it
/// was for a linear address or for a page table on the way there.
pub(super) fn memory(qualification: u64) -> MemoryAccess {
    let mut access = match qualification & 6 {
        0 => MemoryAccess::READ,
        4 => MemoryAccess::FETCH,
        _ => MemoryAccess::WRITE,
    };
    access.set(MemoryAccess::MAPPED, qualification & 7 << 3 != 0);
    access.set(MemoryAccess::PAGE_WALK, qualification >> 7 & 3 == 1);
    access
}
