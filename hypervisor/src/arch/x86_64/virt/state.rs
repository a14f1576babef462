//! Transfer of state between a vCPU and a message buffer, group by group.

use core::cell::UnsafeCell;

use ipc::state::{Activity, Inject, Mtd, State};

use super::allow::{self, Limits, Mode};
use super::guest::Common;
use super::registers::{Backend, Reg, Seg};
use crate::num::low32;

/// Writes a field of a message buffer's state area.
macro_rules! put {
    ($state:ident, $field:ident, $value:expr) => {
        // SAFETY: the area is valid, and whatever others do to it meanwhile, see `Area`.
        unsafe { (&raw mut (*$state.get()).$field).write_volatile($value) }
    };
}

/// Reads a field, exactly once: what was checked has to be what is used.
macro_rules! take {
    ($state:ident, $field:ident) => {
        // SAFETY: as in `put`; every field is an integer or made of them.
        unsafe { (&raw const (*$state.get()).$field).read_volatile() }
    };
}

/// Writes the fields of the groups that are asked for.
macro_rules! put_groups {
    ($mtd:ident $state:ident $from:ident: $($group:ident { $($field:ident)+ })+) => {
        $( if $mtd.contains(Mtd::$group) { $( put!($state, $field, $from.$field); )+ } )+
    };
}

/// Reads them.
macro_rules! take_groups {
    ($mtd:ident $to:ident $state:ident: $($group:ident { $($field:ident)+ })+) => {
        $( if $mtd.contains(Mtd::$group) { $( $to.$field = take!($state, $field); )+ } )+
    };
}

/// Copies registers of the vCPU to the groups that are asked for.
macro_rules! get {
    ($mtd:ident $state:ident $vcpu:ident: $($group:ident $get:ident $kind:ident
        { $($field:ident $name:ident)+ })+) => {
        $( if $mtd.contains(Mtd::$group) {
            $( put!($state, $field, $vcpu.$get($kind::$name)); )+
        } )+
    };
}

/// The reverse, for groups that fulfil a condition.
macro_rules! set {
    ($vcpu:ident $state:ident: $($condition:expr => $set:ident $kind:ident
        { $($field:ident $name:ident)+ })+) => {
        $( if $condition { $( $vcpu.$set($kind::$name, $state.$field); )+ } )+
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

/// The state area of a message buffer. Other threads of the VMM can write to it at any time, so it
/// is accessed by volatile reads and writes only.
pub(super) type Area = UnsafeCell<State>;

/// Copies the groups in `mtd` into the message buffer.
pub(super) fn store<B: Backend>(vcpu: &B, common: &Common, mtd: Mtd, state: &Area) {
    let g = &common.gprs;
    put_groups! { mtd state g:
        GPR_ACDB { rax rcx rdx rbx } GPR_R8 { r8 r9 r10 r11 r12 r13 r14 r15 }
    }
    if mtd.contains(Mtd::GPR_BSD) {
        put_groups! { mtd state g: GPR_BSD { rbp rsi rdi } }
        put!(state, rsp, vcpu.get(Reg::Rsp));
    }
    get! { mtd state vcpu: RIP get Reg { rip Rip rflags Rflags } }
    if mtd.contains(Mtd::RIP) {
        put!(state, instruction_length, common.exit.length);
    }
    if mtd.contains(Mtd::QUAL) {
        put!(state, qualification, common.exit.qualification);
    }
    if mtd.contains(Mtd::INJECT) {
        put!(state, inject, common.inject.0);
    }
    if mtd.contains(Mtd::ACTIVITY) {
        let halted = if common.halted { Activity::HALTED } else { Activity::empty() };
        put!(state, activity, (vcpu.blocking() | halted).bits());
    }
    if !COMMON.contains(mtd) {
        store_system(vcpu, common, mtd, state);
    }
}

/// The groups outside [`COMMON`].
#[inline(never)]
fn store_system<B: Backend>(vcpu: &B, common: &Common, mtd: Mtd, state: &Area) {
    get! { mtd state vcpu:
        CS_SS segment Seg { cs Cs ss Ss }
        DATA_SEG segment Seg { ds Ds es Es fs Fs gs Gs }
        SYS_SEG segment Seg { tr Tr ldtr Ldtr gdtr Gdtr idtr Idtr }
        CR get Reg { cr0 Cr0 cr2 Cr2 cr3 Cr3 cr4 Cr4 }
        CR8 get Reg { cr8 Cr8 }
        DR get Reg { dr6 Dr6 dr7 Dr7 }
        EFER_PAT get Reg { efer Efer pat Pat }
        SYSCALL_MSR get Reg {
            star Star lstar Lstar cstar Cstar fmask Fmask kernel_gs_base KernelGsBase
        }
        SYSENTER_MSR get Reg {
            sysenter_cs SysenterCs sysenter_esp SysenterEsp sysenter_eip SysenterEip
        }
        TSC get Reg { tsc_offset TscOffset }
    }
    if mtd.contains(Mtd::DR) {
        put!(state, dr, common.debug);
    }
    if mtd.contains(Mtd::XSTATE) {
        put!(state, xcr0, common.xcr0);
        put!(state, xss, 0);
    }
    if mtd.contains(Mtd::TSC) {
        put!(state, tsc_aux, common.tsc_aux);
    }
    if mtd.contains(Mtd::DEADLINE) {
        put!(state, deadline, common.deadline);
    }
}

/// Takes the groups in `mtd` from the message buffer. A group with a value that is not allowed
/// changes nothing and is named in [`Common::refused`].
pub(super) fn load<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    limits: &Limits,
    mtd: Mtd,
    state: &Area,
) {
    let g = &mut common.gprs;
    take_groups! { mtd g state:
        GPR_ACDB { rax rcx rdx rbx } GPR_R8 { r8 r9 r10 r11 r12 r13 r14 r15 }
    }
    if mtd.contains(Mtd::GPR_BSD) {
        take_groups! { mtd g state: GPR_BSD { rbp rsi rdi } }
        vcpu.set(Reg::Rsp, take!(state, rsp));
    }
    let mut refused = Mtd::empty();
    let flags = take!(state, rflags);
    if COMMON.contains(mtd) && flags & !PLAIN_FLAGS == 0 {
        if mtd.contains(Mtd::RIP) {
            set_rip(vcpu, take!(state, rip), flags | allow::rflags::FIXED);
        }
    } else {
        refused = load_rare(vcpu, common, limits, mtd, state);
    }
    // After RIP, which ends a shadow by itself.
    if mtd.contains(Mtd::ACTIVITY) {
        match Activity::from_bits(take!(state, activity)) {
            Some(activity) => {
                vcpu.set_blocking(activity);
                common.halted = activity.contains(Activity::HALTED);
            }
            None => refused |= Mtd::ACTIVITY,
        }
    }
    if mtd.contains(Mtd::INJECT) {
        let inject = take!(state, inject);
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
    state: &Area,
) -> Mtd {
    // SAFETY: as in `take`.
    let mut state = unsafe { state.get().read_volatile() };
    let mut refused = Mtd::empty();
    if mtd.intersects(MODE) {
        refused |= load_mode(vcpu, limits, mtd & MODE, &mut state);
    }
    if !COMMON.union(MODE).contains(mtd) {
        refused |= load_system(vcpu, common, limits, mtd, &mut state);
    }
    refused
}

/// Sets RIP and RFLAGS. Whoever moves RIP has completed an instruction, so a shadow is over.
pub(super) fn set_rip<B: Backend>(vcpu: &mut B, rip: u64, rflags: u64) {
    let blocking = vcpu.blocking();
    if blocking.contains(Activity::INTERRUPT_SHADOW) && rip != vcpu.get(Reg::Rip) {
        vcpu.set_blocking(blocking - Activity::INTERRUPT_SHADOW);
    }
    vcpu.set(Reg::Rip, rip);
    vcpu.set(Reg::Rflags, rflags);
}

/// The groups of [`MODE`], in any combination.
fn load_mode<B: Backend>(vcpu: &mut B, limits: &Limits, mtd: Mtd, state: &mut State) -> Mtd {
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
    state.cr0 = mode.cr0;
    set! { vcpu state:
        mtd.contains(Mtd::CS_SS) => set_segment Seg { cs Cs ss Ss }
        mtd.contains(Mtd::CR) => set Reg { cr0 Cr0 cr2 Cr2 cr3 Cr3 cr4 Cr4 }
        mtd.contains(Mtd::EFER_PAT) => set Reg { pat Pat }
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
    state: &mut State,
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

    let bases = [state.tr.base, state.ldtr.base, state.gdtr.base, state.idtr.base];
    let small = (state.gdtr.limit | state.idtr.limit) >> 16 == 0;
    let debug = (state.dr6 | state.dr7) >> 32 == 0;
    (state.dr6, state.dr7) = (allow::dr6(state.dr6), allow::dr7(state.dr7));
    let addresses = [state.lstar, state.cstar, state.kernel_gs_base];
    (state.fmask, state.sysenter_cs) = (low32(state.fmask).into(), low32(state.sysenter_cs).into());
    set! { vcpu state:
        take(Mtd::DATA_SEG, canonical(&[state.fs.base, state.gs.base])) => set_segment Seg {
            ds Ds es Es fs Fs gs Gs
        }
        take(Mtd::SYS_SEG, small && canonical(&bases)) => set_segment Seg {
            tr Tr ldtr Ldtr gdtr Gdtr idtr Idtr
        }
        take(Mtd::CR8, state.cr8 <= 0xf) => set Reg { cr8 Cr8 }
        take(Mtd::DR, debug) => set Reg { dr6 Dr6 dr7 Dr7 }
        take(Mtd::SYSCALL_MSR, canonical(&addresses)) => set Reg {
            star Star lstar Lstar cstar Cstar fmask Fmask kernel_gs_base KernelGsBase
        }
        take(Mtd::SYSENTER_MSR, canonical(&[state.sysenter_esp, state.sysenter_eip])) => set Reg {
            sysenter_cs SysenterCs sysenter_esp SysenterEsp sysenter_eip SysenterEip
        }
    }
    if mtd.contains(Mtd::DR) && debug {
        common.debug = state.dr;
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
