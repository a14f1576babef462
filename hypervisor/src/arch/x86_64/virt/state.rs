//! Transfer of state between a vCPU and a message buffer, group by group.

use ipc::state::{Activity, Inject, Mtd, State};

use super::allow::{self, Limits, Mode};
use super::guest::Common;
use super::registers::{Backend, Reg, Seg};
use crate::num::low32;

/// Copies fields of the same names.
macro_rules! copy {
    ($to:ident, $from:ident: $($field:ident)+) => { $( $to.$field = $from.$field; )+ };
}

/// Copies registers of the vCPU to fields of the state.
macro_rules! get {
    ($state:ident, $vcpu:ident: $($field:ident $reg:ident),+) => {
        $( $state.$field = $vcpu.get(Reg::$reg); )+
    };
}

/// The same with segment registers.
macro_rules! get_segments {
    ($state:ident, $vcpu:ident: $($field:ident $seg:ident),+) => {
        $( $state.$field = $vcpu.segment(Seg::$seg); )+
    };
}

/// The reverse of `get`.
macro_rules! set {
    ($vcpu:ident, $state:ident: $($field:ident $reg:ident),+) => {
        $( $vcpu.set(Reg::$reg, $state.$field); )+
    };
}

/// The reverse of `get_segments`.
macro_rules! set_segments {
    ($vcpu:ident, $state:ident: $($field:ident $seg:ident),+) => {
        $( $vcpu.set_segment(Seg::$seg, $state.$field); )+
    };
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

/// Flags that are legal in every mode.
const PLAIN_FLAGS: u64 = allow::rflags::ALL & !allow::rflags::VM;

/// Bits of the injection word that have a meaning.
const INJECT_BITS: u64 = 0xffff_ffff_8000_3fff;

/// Copies the groups in `mtd` into the message buffer.
#[inline]
pub(super) fn store<B: Backend>(vcpu: &B, common: &Common, mtd: Mtd, state: &mut State) {
    let g = &common.gprs;
    if mtd.contains(Mtd::GPR_ACDB) {
        copy!(state, g: rax rcx rdx rbx);
    }
    if mtd.contains(Mtd::GPR_BSD) {
        copy!(state, g: rsp rbp rsi rdi);
    }
    if mtd.contains(Mtd::GPR_R8) {
        copy!(state, g: r8 r9 r10 r11 r12 r13 r14 r15);
    }
    if mtd.contains(Mtd::RIP) {
        get!(state, vcpu: rip Rip, rflags Rflags);
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
        get_segments!(state, vcpu: cs Cs, ss Ss);
    }
    if mtd.contains(Mtd::DATA_SEG) {
        get_segments!(state, vcpu: ds Ds, es Es, fs Fs, gs Gs);
    }
    if mtd.contains(Mtd::SYS_SEG) {
        get_segments!(state, vcpu: tr Tr, ldtr Ldtr, gdtr Gdtr, idtr Idtr);
    }
    if mtd.contains(Mtd::CR) {
        get!(state, vcpu: cr0 Cr0, cr2 Cr2, cr3 Cr3, cr4 Cr4);
    }
    if mtd.contains(Mtd::CR8) {
        state.cr8 = vcpu.get(Reg::Cr8);
    }
    if mtd.contains(Mtd::DR) {
        get!(state, vcpu: dr6 Dr6, dr7 Dr7);
    }
    if mtd.contains(Mtd::EFER_PAT) {
        get!(state, vcpu: efer Efer, pat Pat);
    }
    if mtd.contains(Mtd::SYSCALL_MSR) {
        get!(state, vcpu: star Star, lstar Lstar, cstar Cstar, fmask Fmask, kernel_gs_base KernelGsBase);
    }
    if mtd.contains(Mtd::SYSENTER_MSR) {
        get!(state, vcpu: sysenter_cs SysenterCs, sysenter_esp SysenterEsp, sysenter_eip SysenterEip);
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

/// Reads a value exactly once. Other threads of the VMM can write to the message buffer at any
/// time, so that what was checked has to be what is used.
#[inline(always)]
fn once<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::from_ref(value).read_volatile() }
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
        copy!(g, state: rax rcx rdx rbx);
    }
    if mtd.contains(Mtd::GPR_BSD) {
        copy!(g, state: rsp rbp rsi rdi);
    }
    if mtd.contains(Mtd::GPR_R8) {
        copy!(g, state: r8 r9 r10 r11 r12 r13 r14 r15);
    }
    let mut refused = Mtd::empty();
    let flags = once(&state.rflags);
    if COMMON.contains(mtd) && flags & !PLAIN_FLAGS == 0 {
        if mtd.contains(Mtd::RIP) {
            set_rip(vcpu, state.rip, flags | allow::rflags::FIXED);
        }
    } else {
        refused = load_rare(vcpu, common, limits, mtd, state);
    }
    // After RIP, which ends a shadow by itself.
    if mtd.contains(Mtd::ACTIVITY) {
        match Activity::from_bits(once(&state.activity)) {
            Some(activity) => {
                vcpu.set_blocking(activity);
                common.halted = activity.contains(Activity::HALTED);
            }
            None => refused |= Mtd::ACTIVITY,
        }
    }
    if mtd.contains(Mtd::INJECT) {
        let inject = once(&state.inject);
        if inject & !INJECT_BITS == 0 {
            common.inject = Inject(inject);
            common.unchecked = true;
        } else {
            refused |= Mtd::INJECT;
        }
    }
    // Whoever has an event to take is not halted.
    common.halted &= !common.inject.is_valid();
    common.refused |= refused;
}

/// The groups outside [`COMMON`], and RIP.
#[inline(never)]
fn load_rare<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    limits: &Limits,
    mtd: Mtd,
    state: &State,
) -> Mtd {
    // SAFETY: a reference is valid for reads, and the state is nothing but integers. See `once`.
    let state = unsafe { core::ptr::from_ref(state).read_volatile() };
    let mut refused = Mtd::empty();
    if mtd.intersects(MODE) {
        refused |= load_mode(vcpu, limits, mtd & MODE, &state);
    }
    if !COMMON.union(MODE).contains(mtd) {
        refused |= load_system(vcpu, common, limits, mtd, &state);
    }
    refused
}

/// Sets RIP and RFLAGS. Whoever moves RIP has completed an instruction, so a shadow is over.
#[inline]
fn set_rip<B: Backend>(vcpu: &mut B, rip: u64, rflags: u64) {
    if rip != vcpu.get(Reg::Rip) {
        let blocking = vcpu.blocking();
        if blocking.contains(Activity::INTERRUPT_SHADOW) {
            vcpu.set_blocking(blocking - Activity::INTERRUPT_SHADOW);
        }
    }
    vcpu.set(Reg::Rip, rip);
    vcpu.set(Reg::Rflags, rflags);
}

/// The groups of [`MODE`], in any combination.
fn load_mode<B: Backend>(vcpu: &mut B, limits: &Limits, mtd: Mtd, state: &State) -> Mtd {
    let mut mode = Mode::of(vcpu);
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
    let Some(efer) = mode.settle() else {
        return mtd;
    };
    let old = Mode::of(vcpu);
    if (old.cr0, old.cr4, old.efer) != (mode.cr0, mode.cr4, efer)
        || mtd.contains(Mtd::CR) && vcpu.get(Reg::Cr3) != state.cr3
    {
        vcpu.flush();
    }

    if mtd.contains(Mtd::RIP) {
        set_rip(vcpu, state.rip, mode.rflags);
    }
    if mtd.contains(Mtd::CS_SS) {
        set_segments!(vcpu, state: cs Cs, ss Ss);
    }
    if mtd.contains(Mtd::CR) {
        vcpu.set(Reg::Cr0, mode.cr0);
        set!(vcpu, state: cr2 Cr2, cr3 Cr3);
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
fn load_system<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    limits: &Limits,
    mtd: Mtd,
    state: &State,
) -> Mtd {
    let mut refused = Mtd::empty();
    // Whether a group is to be taken.
    let mut take = |group: Mtd, allowed: bool| {
        let wanted = mtd.contains(group);
        if wanted && !allowed {
            refused |= group;
        }
        wanted && allowed
    };
    let canonical = |addresses: &[u64]| addresses.iter().all(|&a| limits.canonical(a));

    if take(Mtd::DATA_SEG, canonical(&[state.fs.base, state.gs.base])) {
        set_segments!(vcpu, state: ds Ds, es Es, fs Fs, gs Gs);
    }
    let bases = [state.tr.base, state.ldtr.base, state.gdtr.base, state.idtr.base];
    let small = (state.gdtr.limit | state.idtr.limit) >> 16 == 0;
    if take(Mtd::SYS_SEG, small && canonical(&bases)) {
        set_segments!(vcpu, state: tr Tr, ldtr Ldtr, gdtr Gdtr, idtr Idtr);
    }
    if take(Mtd::CR8, state.cr8 <= 0xf) {
        vcpu.set(Reg::Cr8, state.cr8);
    }
    if take(Mtd::DR, (state.dr6 | state.dr7) >> 32 == 0) {
        vcpu.set(Reg::Dr6, allow::dr6(state.dr6));
        vcpu.set(Reg::Dr7, allow::dr7(state.dr7));
    }
    let addresses = [state.lstar, state.cstar, state.kernel_gs_base];
    if take(Mtd::SYSCALL_MSR, canonical(&addresses)) {
        set!(vcpu, state: star Star, lstar Lstar, cstar Cstar, kernel_gs_base KernelGsBase);
        vcpu.set(Reg::Fmask, u64::from(low32(state.fmask)));
    }
    if take(Mtd::SYSENTER_MSR, canonical(&[state.sysenter_esp, state.sysenter_eip])) {
        set!(vcpu, state: sysenter_esp SysenterEsp, sysenter_eip SysenterEip);
        vcpu.set(Reg::SysenterCs, u64::from(low32(state.sysenter_cs)));
    }
    // No supervisor component is switched, so XSS stays zero.
    if take(Mtd::XSTATE, limits.xcr0(state.xcr0) && state.xss == 0) {
        common.xcr0 = state.xcr0;
    }
    if take(Mtd::TSC, limits.tsc_aux(state.tsc_aux)) {
        vcpu.set(Reg::TscOffset, state.tsc_offset);
        common.tsc_aux = state.tsc_aux;
    }
    if mtd.contains(Mtd::DEADLINE) {
        common.deadline = state.deadline;
    }
    refused
}
