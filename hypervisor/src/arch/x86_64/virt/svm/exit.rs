//! From exit codes to what they mean (APM volume 2, appendix C).

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::exit::Meaning;
use crate::num::{low8, low16, low32};

/// Port access.
pub(super) const IOIO: u64 = 0x7b;
/// A debug exception.
pub(super) const DEBUG: u64 = 0x41;
/// The guest shut down.
pub(super) const SHUTDOWN: u64 = 0x7f;

/// Translates an exit code. `info1` is EXITINFO1.
pub(super) const fn meaning(code: u64, info1: u64) -> Meaning {
    match code {
        0x72 => Meaning::Plain(Exit::Cpuid, 2),
        0x78 => Meaning::Plain(Exit::Hlt, 1),
        IOIO => Meaning::Vmm(Exit::Io, 1),
        0x7c if info1 & 1 == 0 => Meaning::Vmm(Exit::MsrRead, 2),
        0x7c => Meaning::Vmm(Exit::MsrWrite, 2),
        0x400 => Meaning::Vmm(Exit::Memory, 0),
        // INTR, NMI, SMI, INIT.
        0x60..=0x63 => Meaning::Host,
        0x64 => Meaning::Window(Exit::InterruptWindow),
        0x20..=0x3f => Meaning::DebugRegister,
        DEBUG => Meaning::Debug,
        0x51 => Meaning::Alignment,
        0x52 => Meaning::MachineCheck,
        0x6f => Meaning::Plain(Exit::Rdpmc, 2),
        // IRET, while NMIs are blocked.
        0x74 => Meaning::Own,
        // INVD, WBINVD.
        0x76 | 0x89 => Meaning::Plain(Exit::CacheControl, 2),
        0x7d => Meaning::Vmm(Exit::TaskSwitch, 0),
        SHUTDOWN => Meaning::Vmm(Exit::Shutdown, 0),
        0x81 => Meaning::Plain(Exit::Hypercall, 3),
        // INVLPGA; VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; RDPRU; INVLPGB, MCOMMIT, TLBSYNC.
        0x7a | 0x80 | 0x82..=0x86 | 0x8e | 0xa0 | 0xa1 | 0xa3 | 0xa4 => {
            Meaning::Plain(Exit::InvalidOpcode, 3)
        }
        // MONITOR, MWAIT.
        0x8a | 0x8b => Meaning::Plain(Exit::Monitor, 3),
        0x8d => Meaning::Plain(Exit::Xsetbv, 3),
        _ => Meaning::Vmm(Exit::Unknown, 0),
    }
}

/// EXITINFO1 of a port access (15.10.2). Emulators leave the address size out.
pub(super) fn io(info1: u64) -> Io {
    let string = info1 & 1 << 2 != 0;
    Io {
        port: low16(info1 >> 16),
        size: low8(info1 >> 4 & 7),
        input: info1 & 1 << 0 != 0,
        string,
        rep: info1 & 1 << 3 != 0,
        address_size: if string { low8(info1 >> 7 & 7) * 2 } else { 0 },
    }
}

/// EXITINFO1 of a nested page fault (15.25.6): an error code, and what was being accessed.
pub(super) fn memory(info1: u64) -> MemoryAccess {
    let mut access = match info1 & (1 << 1 | 1 << 4) {
        0 => MemoryAccess::READ,
        2 => MemoryAccess::WRITE,
        _ => MemoryAccess::FETCH,
    };
    access.set(MemoryAccess::MAPPED, info1 & 1 != 0);
    access.set(MemoryAccess::PAGE_WALK, info1 & 1 << 33 != 0);
    access
}

/// Length of an instruction at `rip` that is followed by one at `next`. `nominal` is taken where
/// the processor does not tell, which is then wrong for an instruction with prefixes.
pub(super) const fn length(rip: u64, next: u64, nominal: u64) -> u64 {
    match next.wrapping_sub(rip) {
        known @ 1..=15 => known,
        _ => nominal,
    }
}

/// Whether the processor refused the guest's state; or the control block is in use elsewhere, which
/// happens to encrypted guests only. Emulators leave the upper half of the code zero.
pub(super) const fn refused(code: u64) -> bool {
    low32(code) >= u32::MAX - 1
}
