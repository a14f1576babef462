//! Transfer of state between a vCPU and a message buffer, group by group.

use ipc::state::{Activity, Inject, Mtd, Segment, State};

use super::allow::{self, Limits, Mode};
use super::guest::Common;
use super::registers::{Backend, Reg, Seg};
use crate::num::low32;

/// General-purpose registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Gprs {
    pub(super) rax: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) rbx: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    pub(super) r8: u64,
    pub(super) r9: u64,
    pub(super) r10: u64,
    pub(super) r11: u64,
    pub(super) r12: u64,
    pub(super) r13: u64,
    pub(super) r14: u64,
    pub(super) r15: u64,
}

/// Groups that nearly every exit transfers; the others are looked at only if one of them is there.
const COMMON: Mtd = Mtd::GPR_ACDB
    .union(Mtd::GPR_BSD)
    .union(Mtd::GPR_R8)
    .union(Mtd::RIP)
    .union(Mtd::QUAL)
    .union(Mtd::INJECT)
    .union(Mtd::ACTIVITY);

/// Groups that decide the processor's mode: legal only together, so all of them are taken or none.
const MODE: Mtd = Mtd::RIP.union(Mtd::CS_SS).union(Mtd::CR).union(Mtd::EFER_PAT);

/// Bits of the injection word that have a meaning.
const INJECT_BITS: u64 = 0xffff_ffff_8000_3fff;

/// Copies the groups in `mtd` into the message buffer.
#[inline]
pub(super) fn store<B: Backend>(vcpu: &B, common: &Common, mtd: Mtd, state: &mut State) {
    let g = &common.gprs;
    if mtd.contains(Mtd::GPR_ACDB) {
        state.rax = g.rax;
        state.rcx = g.rcx;
        state.rdx = g.rdx;
        state.rbx = g.rbx;
    }
    if mtd.contains(Mtd::GPR_BSD) {
        state.rsp = g.rsp;
        state.rbp = g.rbp;
        state.rsi = g.rsi;
        state.rdi = g.rdi;
    }
    if mtd.contains(Mtd::GPR_R8) {
        state.r8 = g.r8;
        state.r9 = g.r9;
        state.r10 = g.r10;
        state.r11 = g.r11;
        state.r12 = g.r12;
        state.r13 = g.r13;
        state.r14 = g.r14;
        state.r15 = g.r15;
    }
    if mtd.contains(Mtd::RIP) {
        state.rip = vcpu.get(Reg::Rip);
        state.rflags = vcpu.get(Reg::Rflags);
        state.instruction_length = common.exit.length;
    }
    if mtd.contains(Mtd::QUAL) {
        state.qualification = common.exit.qualification;
    }
    if mtd.contains(Mtd::INJECT) {
        state.inject = common.inject.0;
    }
    if mtd.contains(Mtd::ACTIVITY) {
        let halted = if common.halted { Activity::HALTED } else { Activity::empty() };
        state.activity = (vcpu.blocking() | halted).bits();
    }
    if !COMMON.contains(mtd) {
        store_system(vcpu, common, mtd, state);
    }
}

/// The groups outside [`COMMON`].
#[inline(never)]
fn store_system<B: Backend>(vcpu: &B, common: &Common, mtd: Mtd, state: &mut State) {
    if mtd.contains(Mtd::CS_SS) {
        state.cs = vcpu.segment(Seg::Cs);
        state.ss = vcpu.segment(Seg::Ss);
    }
    if mtd.contains(Mtd::DATA_SEG) {
        state.ds = vcpu.segment(Seg::Ds);
        state.es = vcpu.segment(Seg::Es);
        state.fs = vcpu.segment(Seg::Fs);
        state.gs = vcpu.segment(Seg::Gs);
    }
    if mtd.contains(Mtd::SYS_SEG) {
        state.tr = vcpu.segment(Seg::Tr);
        state.ldtr = vcpu.segment(Seg::Ldtr);
        state.gdtr = vcpu.segment(Seg::Gdtr);
        state.idtr = vcpu.segment(Seg::Idtr);
    }
    if mtd.contains(Mtd::CR) {
        state.cr0 = vcpu.get(Reg::Cr0);
        state.cr2 = vcpu.get(Reg::Cr2);
        state.cr3 = vcpu.get(Reg::Cr3);
        state.cr4 = vcpu.get(Reg::Cr4);
    }
    if mtd.contains(Mtd::CR8) {
        state.cr8 = vcpu.get(Reg::Cr8);
    }
    if mtd.contains(Mtd::DR) {
        state.dr6 = vcpu.get(Reg::Dr6);
        state.dr7 = vcpu.get(Reg::Dr7);
    }
    if mtd.contains(Mtd::EFER_PAT) {
        state.efer = vcpu.get(Reg::Efer);
        state.pat = vcpu.get(Reg::Pat);
    }
    if mtd.contains(Mtd::SYSCALL_MSR) {
        state.star = vcpu.get(Reg::Star);
        state.lstar = vcpu.get(Reg::Lstar);
        state.cstar = vcpu.get(Reg::Cstar);
        state.fmask = vcpu.get(Reg::Fmask);
        state.kernel_gs_base = vcpu.get(Reg::KernelGsBase);
    }
    if mtd.contains(Mtd::SYSENTER_MSR) {
        state.sysenter_cs = vcpu.get(Reg::SysenterCs);
        state.sysenter_esp = vcpu.get(Reg::SysenterEsp);
        state.sysenter_eip = vcpu.get(Reg::SysenterEip);
    }
    if mtd.contains(Mtd::XSTATE) {
        state.xcr0 = common.xcr0;
        state.xss = 0;
    }
    if mtd.contains(Mtd::TSC) {
        state.tsc_offset = vcpu.get(Reg::TscOffset);
        state.tsc_aux = common.tsc_aux;
    }
    if mtd.contains(Mtd::DEADLINE) {
        state.deadline = common.deadline;
    }
}

/// Takes the groups in `mtd` from the message buffer. A group with a value that is not allowed
/// changes nothing and is named in [`Common::refused`].
#[inline]
pub(super) fn load<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    limits: &Limits,
    mtd: Mtd,
    state: &State,
) {
    let g = &mut common.gprs;
    if mtd.contains(Mtd::GPR_ACDB) {
        g.rax = state.rax;
        g.rcx = state.rcx;
        g.rdx = state.rdx;
        g.rbx = state.rbx;
    }
    if mtd.contains(Mtd::GPR_BSD) {
        g.rsp = state.rsp;
        g.rbp = state.rbp;
        g.rsi = state.rsi;
        g.rdi = state.rdi;
    }
    if mtd.contains(Mtd::GPR_R8) {
        g.r8 = state.r8;
        g.r9 = state.r9;
        g.r10 = state.r10;
        g.r11 = state.r11;
        g.r12 = state.r12;
        g.r13 = state.r13;
        g.r14 = state.r14;
        g.r15 = state.r15;
    }
    let mut refused = Mtd::empty();
    let mode = mtd & MODE;
    if mode == Mtd::RIP
        && let Some(rflags) = allow::rflags(state.rflags)
        && rflags & allow::rflags::VM == 0
    {
        set_rip(vcpu, state.rip, rflags);
    } else if !mode.is_empty() {
        refused |= load_mode(vcpu, limits, mode, state);
    }
    if !COMMON.union(MODE).contains(mtd) {
        refused |= load_system(vcpu, common, limits, mtd, state);
    }
    // After RIP, which ends a shadow by itself.
    if mtd.contains(Mtd::ACTIVITY) {
        match Activity::from_bits(state.activity) {
            Some(activity) => {
                vcpu.set_blocking(activity);
                common.halted = activity.contains(Activity::HALTED);
            }
            None => refused |= Mtd::ACTIVITY,
        }
    }
    if mtd.contains(Mtd::INJECT) {
        if state.inject & !INJECT_BITS == 0 {
            common.inject = Inject(state.inject);
            common.unchecked = true;
            common.halted &= !common.inject.is_valid();
        } else {
            refused |= Mtd::INJECT;
        }
    }
    common.refused |= refused;
}

/// Sets RIP and RFLAGS. Whoever moves RIP has completed an instruction, so a shadow is over.
#[inline]
fn set_rip<B: Backend>(vcpu: &mut B, rip: u64, rflags: u64) {
    if rip != vcpu.get(Reg::Rip) {
        vcpu.set_blocking(vcpu.blocking() - Activity::INTERRUPT_SHADOW);
    }
    vcpu.set(Reg::Rip, rip);
    vcpu.set(Reg::Rflags, rflags);
}

/// The groups of [`MODE`], in any combination.
#[inline(never)]
fn load_mode<B: Backend>(vcpu: &mut B, limits: &Limits, mtd: Mtd, state: &State) -> Mtd {
    let mut mode = Mode {
        cr0: vcpu.get(Reg::Cr0),
        cr4: vcpu.get(Reg::Cr4),
        efer: vcpu.get(Reg::Efer),
        rflags: vcpu.get(Reg::Rflags),
        cs_attributes: vcpu.segment(Seg::Cs).attributes,
    };
    if mtd.contains(Mtd::RIP) {
        match allow::rflags(state.rflags) {
            Some(rflags) => mode.rflags = rflags,
            None => return mtd,
        }
    }
    if mtd.contains(Mtd::CS_SS) {
        mode.cs_attributes = state.cs.attributes;
    }
    if mtd.contains(Mtd::CR) {
        match allow::cr0(state.cr0) {
            Some(cr0) if state.cr4 & !limits.cr4 == 0 && limits.cr3(state.cr3) => {
                mode.cr0 = cr0;
                mode.cr4 = state.cr4;
            }
            _ => return mtd,
        }
    }
    if mtd.contains(Mtd::EFER_PAT) {
        if state.efer & !limits.efer != 0 || !allow::pat(state.pat) {
            return mtd;
        }
        mode.efer = state.efer;
    }
    let Some(efer) = mode.settle() else { return mtd };

    if mtd.contains(Mtd::RIP) {
        set_rip(vcpu, state.rip, mode.rflags);
    }
    if mtd.contains(Mtd::CS_SS) {
        vcpu.set_segment(Seg::Cs, state.cs);
        vcpu.set_segment(Seg::Ss, state.ss);
    }
    if mtd.contains(Mtd::CR) {
        vcpu.set(Reg::Cr0, mode.cr0);
        vcpu.set(Reg::Cr2, state.cr2);
        vcpu.set(Reg::Cr3, state.cr3);
        vcpu.set(Reg::Cr4, mode.cr4);
    }
    if mtd.contains(Mtd::EFER_PAT) {
        vcpu.set(Reg::Pat, state.pat);
    }
    if mtd.intersects(Mtd::CR | Mtd::EFER_PAT) {
        vcpu.set(Reg::Efer, efer);
    }
    Mtd::empty()
}

/// The groups outside [`COMMON`] and [`MODE`].
#[inline(never)]
fn load_system<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    limits: &Limits,
    mtd: Mtd,
    state: &State,
) -> Mtd {
    let mut refused = Mtd::empty();
    let based = |segments: &[Segment]| segments.iter().all(|s| limits.canonical(s.base));
    if mtd.contains(Mtd::DATA_SEG) {
        if based(&[state.fs, state.gs]) {
            vcpu.set_segment(Seg::Ds, state.ds);
            vcpu.set_segment(Seg::Es, state.es);
            vcpu.set_segment(Seg::Fs, state.fs);
            vcpu.set_segment(Seg::Gs, state.gs);
        } else {
            refused |= Mtd::DATA_SEG;
        }
    }
    if mtd.contains(Mtd::SYS_SEG) {
        if based(&[state.tr, state.ldtr, state.gdtr, state.idtr]) {
            vcpu.set_segment(Seg::Tr, state.tr);
            vcpu.set_segment(Seg::Ldtr, state.ldtr);
            vcpu.set_segment(Seg::Gdtr, state.gdtr);
            vcpu.set_segment(Seg::Idtr, state.idtr);
        } else {
            refused |= Mtd::SYS_SEG;
        }
    }
    if mtd.contains(Mtd::CR8) {
        if state.cr8 <= 0xf {
            vcpu.set(Reg::Cr8, state.cr8);
        } else {
            refused |= Mtd::CR8;
        }
    }
    if mtd.contains(Mtd::DR) {
        match (allow::dr6(state.dr6), allow::dr7(state.dr7)) {
            (Some(dr6), Some(dr7)) => {
                vcpu.set(Reg::Dr6, dr6);
                vcpu.set(Reg::Dr7, dr7);
            }
            _ => refused |= Mtd::DR,
        }
    }
    if mtd.contains(Mtd::SYSCALL_MSR) {
        let addresses = [state.lstar, state.cstar, state.kernel_gs_base];
        if addresses.iter().all(|&a| limits.canonical(a)) {
            vcpu.set(Reg::Star, state.star);
            vcpu.set(Reg::Lstar, state.lstar);
            vcpu.set(Reg::Cstar, state.cstar);
            vcpu.set(Reg::Fmask, u64::from(low32(state.fmask)));
            vcpu.set(Reg::KernelGsBase, state.kernel_gs_base);
        } else {
            refused |= Mtd::SYSCALL_MSR;
        }
    }
    if mtd.contains(Mtd::SYSENTER_MSR) {
        let addresses = [state.sysenter_esp, state.sysenter_eip];
        if addresses.iter().all(|&a| limits.canonical(a)) {
            vcpu.set(Reg::SysenterCs, u64::from(low32(state.sysenter_cs)));
            vcpu.set(Reg::SysenterEsp, state.sysenter_esp);
            vcpu.set(Reg::SysenterEip, state.sysenter_eip);
        } else {
            refused |= Mtd::SYSENTER_MSR;
        }
    }
    // No supervisor component is switched, so XSS stays zero.
    if mtd.contains(Mtd::XSTATE) {
        if limits.xcr0(state.xcr0) && state.xss == 0 {
            common.xcr0 = state.xcr0;
        } else {
            refused |= Mtd::XSTATE;
        }
    }
    if mtd.contains(Mtd::TSC) {
        if limits.tsc_aux(state.tsc_aux) {
            vcpu.set(Reg::TscOffset, state.tsc_offset);
            common.tsc_aux = state.tsc_aux;
        } else {
            refused |= Mtd::TSC;
        }
    }
    if mtd.contains(Mtd::DEADLINE) {
        common.deadline = state.deadline;
    }
    refused
}
