//! From exit codes to what they mean (APM volume 2, appendix C).

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::allow::{attribute, efer};
use super::super::exit::Meaning;
use super::super::state::Gprs;
use super::vmcb::{IN_USE, INVALID, Vmcb, unpack};
use crate::num::{low16, low32};

/// Port access.
pub(super) const IOIO: u64 = 0x7b;
/// A debug exception.
pub(super) const DEBUG: u64 = 0x41;

/// Translates an exit code. `info1` is EXITINFO1.
#[inline]
pub(super) const fn meaning(code: u64, info1: u64) -> Meaning {
    match code {
        0x72 => Meaning::Vmm(Exit::Cpuid, 2),
        0x78 => Meaning::Vmm(Exit::Hlt, 1),
        // The length is known from EXITINFO2.
        IOIO => Meaning::Vmm(Exit::Io, 0),
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
        0x6f => Meaning::Vmm(Exit::Rdpmc, 2),
        // IRET, while NMIs are blocked.
        0x74 => Meaning::Own,
        // INVD, WBINVD.
        0x76 | 0x89 => Meaning::Vmm(Exit::CacheControl, 2),
        0x7d => Meaning::Vmm(Exit::TaskSwitch, 0),
        0x7f => Meaning::Vmm(Exit::Shutdown, 0),
        0x81 => Meaning::Vmm(Exit::Hypercall, 3),
        // INVLPGA; VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT; RDPRU; INVLPGB, MCOMMIT, TLBSYNC.
        0x7a | 0x80 | 0x82..=0x86 | 0x8e | 0xa0 | 0xa1 | 0xa3 | 0xa4 => {
            Meaning::Vmm(Exit::InvalidOpcode, 3)
        }
        // MONITOR, MWAIT.
        0x8a | 0x8b => Meaning::Vmm(Exit::Monitor, 3),
        0x8d => Meaning::Vmm(Exit::Xsetbv, 3),
        _ => Meaning::Vmm(Exit::Unknown, 0),
    }
}

/// The qualification of an exit.
#[inline]
pub(super) fn qualification(exit: Exit, vmcb: &Vmcb, gprs: &Gprs) -> [u64; 3] {
    let (code, info1, info2) = (vmcb.exit_code, vmcb.exit_info1, vmcb.exit_info2);
    match exit {
        Exit::Io => [io(info1, || mode_size(vmcb)).to_word(), 0, 0],
        Exit::MsrRead | Exit::MsrWrite => [u64::from(low32(gprs.rcx)), 0, 0],
        Exit::Memory => [memory(info1).bits(), info2, 0],
        Exit::Unknown => [code, info1, info2],
        _ => [0; 3],
    }
}

/// Address size in bytes of an instruction without prefixes.
const fn mode_size(vmcb: &Vmcb) -> u8 {
    let attributes = unpack(vmcb.cs.attributes);
    if vmcb.efer & efer::LMA != 0 && attributes & attribute::LONG != 0 {
        8
    } else if attributes & attribute::BIG != 0 {
        4
    } else {
        2
    }
}

/// EXITINFO1 of a port access (15.10.2). Emulators leave the address size out, which `mode_size`
/// then tells.
fn io(info1: u64, mode_size: impl FnOnce() -> u8) -> Io {
    let string = info1 & 1 << 2 != 0;
    Io {
        port: low16(info1 >> 16),
        size: match info1 >> 4 & 7 {
            1 => 1,
            2 => 2,
            _ => 4,
        },
        input: info1 & 1 << 0 != 0,
        string,
        rep: info1 & 1 << 3 != 0,
        address_size: match info1 >> 7 & 7 {
            _ if !string => 0,
            1 => 2,
            2 => 4,
            4 => 8,
            _ => mode_size(),
        },
    }
}

/// EXITINFO1 of a nested page fault (15.25.6): an error code, and what was being accessed.
fn memory(info1: u64) -> MemoryAccess {
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
#[inline]
pub(super) const fn length(rip: u64, next: u64, nominal: u64) -> u64 {
    match next.wrapping_sub(rip) {
        known @ 1..=15 => known,
        _ => nominal,
    }
}

/// Whether the processor refused the guest's state; or the control block is in use elsewhere, which
/// happens to encrypted guests only.
pub(super) const fn refused(code: u64) -> bool {
    matches!(code, INVALID | IN_USE)
}
