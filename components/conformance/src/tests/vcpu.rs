//! Virtual CPUs: exits, state, halting, destruction.

use core::sync::atomic::Ordering::SeqCst;

use ipc::cap::{MemRights, Range, Rights};
use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};
use ipc::state::{Activity, Inject, Mtd, State};
use sysroot::cap::{Cap, Guest};
use sysroot::{process, selector, syscall, time, utcb};

use super::event::{FLOAT, Prober, vector};
use crate::check::{Failure, Outcome, patience};
use crate::domain::{empty, other_cpu, own, with_rights};
use crate::guest::{CODE, MONITOR, Machine, RESULT};
use crate::runner::{group, used};

group!("vcpu":
    it_starts_in_the_state_after_reset,
    cpuid_exits_and_takes_registers,
    port_access_exits,
    missing_memory_exits,
    read_only_memory_exits,
    model_specific_registers_exit,
    hlt_and_recall,
    a_deadline_ends_a_halt,
    a_deadline_ends_a_loop,
    a_deadline_ends_a_loop_with_interrupts_off,
    an_interrupt_is_injected,
    an_interrupt_changes_no_length,
    a_window_for_interrupts_is_an_exit,
    a_window_that_is_open_is_an_exit_at_once,
    a_window_for_nmis_is_an_exit,
    the_offset_of_its_clock,
    a_triple_fault_is_a_shutdown,
    state_that_makes_no_sense_is_an_exit,
    each_group_that_makes_no_sense_is_named,
    an_event_that_cannot_be_delivered_is_an_exit,
    what_the_processor_refuses_is_an_exit,
    each_way_in_which_an_entry_fails_is_an_exit,
    state_can_be_read_and_written,
    registers_of_system_calls_are_the_guests,
    vector_registers_are_the_guests,
    rights,
    destinations_in_use,
    without_virtualization,
    only_memory_goes_into_a_guest_space,
    revoked_memory_is_gone_for_the_guest,
    revoked_memory_is_gone_for_a_guest_elsewhere,
    destroyed_while_it_runs,
    destroyed_while_it_runs_elsewhere,
    a_vcpu_elsewhere,
    state_of_vcpus_elsewhere,
);

fn cpu() -> u16 {
    process::start().cpu
}

/// A machine that has run its program until it halted.
fn run(program: u64) -> core::result::Result<Machine, Failure> {
    let mut machine = Machine::new(cpu(), program)?;
    machine.start()?;
    Ok(machine)
}

fn it_starts_in_the_state_after_reset() -> Outcome {
    run(0)?;
    same!(MONITOR.exit(0).0, Some(Exit::Startup));
    let [rip, base, cr0, rflags] = MONITOR.reset.each_ref().map(|w| w.load(SeqCst));
    // Whether its cache is on is the kernel's choice.
    same!((rip, base, cr0 & !0x6000_0000, rflags), (0xfff0, 0xffff_0000, 0x10, 2));
    Ok(())
}

fn cpuid_exits_and_takes_registers() -> Outcome {
    let machine = run(0)?;
    same!(MONITOR.exit(1).0, Some(Exit::Cpuid));
    same!(MONITOR.exit(2).0, Some(Exit::Cpuid));
    same!(MONITOR.exit(3).0, Some(Exit::Hlt));
    same!(MONITOR.count.load(SeqCst), 4);
    same!((machine.word(RESULT), machine.word(RESULT + 4)), (0x1111_1111, 0x2222_2222));
    Ok(())
}

fn port_access_exits() -> Outcome {
    let machine = run(0x80)?;
    let (exit, word, _) = MONITOR.exit(1);
    same!(exit, Some(Exit::Io));
    let io = Io::from_word(word);
    same!((io.port, io.size, io.input, io.string, io.rep), (0x42, 1, false, false, false));
    let io = Io::from_word(MONITOR.exit(2).1);
    same!((io.port, io.size, io.input, io.string, io.rep), (0x1234, 2, true, false, false));
    same!(machine.word(RESULT) & 0xffff, 0xbeef);
    Ok(())
}

fn missing_memory_exits() -> Outcome {
    let _machine = run(0x100)?;
    let (exit, access, address) = MONITOR.exit(1);
    same!(exit, Some(Exit::Memory));
    same!(address, 0x3010);
    let access = MemoryAccess::from_bits_truncate(access);
    check!(access.contains(MemoryAccess::WRITE) && !access.contains(MemoryAccess::MAPPED));
    Ok(())
}

fn read_only_memory_exits() -> Outcome {
    let _machine = run(0x180)?;
    let (exit, access, address) = MONITOR.exit(1);
    same!((exit, address), (Some(Exit::Memory), 0x1ff0));
    let access = MemoryAccess::from_bits_truncate(access);
    check!(access.contains(MemoryAccess::WRITE | MemoryAccess::MAPPED));
    Ok(())
}

fn model_specific_registers_exit() -> Outcome {
    let machine = run(0x200)?;
    same!((MONITOR.exit(1).0, MONITOR.exit(1).1), (Some(Exit::MsrRead), 0x1234));
    same!((MONITOR.exit(2).0, MONITOR.exit(2).1), (Some(Exit::MsrWrite), 0x1234));
    same!((machine.word(RESULT), machine.word(RESULT + 4)), (0xaaaa, 0xbbbb));
    Ok(())
}

fn hlt_and_recall() -> Outcome {
    let machine = run(0x380)?;
    same!(MONITOR.exit(1).0, Some(Exit::Hlt));
    same!(MONITOR.count.load(SeqCst), 2);
    // It stays halted through recalls that it does not answer by going on.
    ok!(syscall::recall(machine.vcpu));
    same!((MONITOR.exit(2).0, MONITOR.count.load(SeqCst)), (Some(Exit::Recall), 3));
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!((MONITOR.exit(3).0, MONITOR.exit(4).0), (Some(Exit::Recall), Some(Exit::Hlt)));
    Ok(())
}

fn a_deadline_ends_a_halt() -> Outcome {
    let mut machine = Machine::new(cpu(), 0x380)?;
    let deadline = time::deadline_in_ms(20);
    ok!(machine.start());
    MONITOR.deadline.store(deadline, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(MONITOR.exit(2).0, Some(Exit::Recall));
    eventually!(MONITOR.count.load(SeqCst) == 4);
    same!(MONITOR.exit(3).0, Some(Exit::Deadline));
    Ok(())
}

fn a_deadline_ends_a_loop() -> Outcome {
    a_deadline_ends(0x280)
}

fn a_deadline_ends_a_loop_with_interrupts_off() -> Outcome {
    a_deadline_ends(0x500)
}

/// A deadline ends a program that never ends by itself.
fn a_deadline_ends(program: u64) -> Outcome {
    let mut machine = Machine::new(cpu(), program)?;
    let deadline = time::deadline_in_ms(20);
    MONITOR.deadline.store(deadline, SeqCst);
    // It has a higher priority, so this returns when the guest has been stopped.
    ok!(machine.start());
    check!(time::now() >= deadline);
    same!(MONITOR.exit(1).0, Some(Exit::Deadline));
    check!(machine.word(RESULT) > 0);
    Ok(())
}

fn an_interrupt_is_injected() -> Outcome {
    let machine = run(0x380)?;
    // The handler of vector 0x20 in real mode: offset, segment.
    machine.set_word(0x20 * 4, 0x13c0);
    same!(machine.word(0x820), 0);
    MONITOR.inject.store(Inject::interrupt(0x20).0, SeqCst);
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(machine.word(0x820), 1);
    // It went on behind the first HLT, to the second.
    same!(MONITOR.exit(3).0, Some(Exit::Hlt));
    Ok(())
}

/// Where the processor does not tell the length of instructions, none is made of where an event was
/// injected.
fn an_interrupt_changes_no_length() -> Outcome {
    let machine = run(0x780)?;
    machine.set_word(0x20 * 4, 0x13c0);
    MONITOR.inject.store(Inject::interrupt(0x20).0, SeqCst);
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(machine.word(0x820), 1);
    same!((MONITOR.exit(3).0, MONITOR.length(3)), (Some(Exit::Cpuid), 2));
    same!((MONITOR.exit(4).0, MONITOR.length(4)), (Some(Exit::Hlt), 1));
    Ok(())
}

const WINDOW: u64 = Inject::NONE.with_interrupt_window().0;

fn a_window_for_interrupts_is_an_exit() -> Outcome {
    // Interrupts are never let in here, so there is none before the deadline.
    let mut closed = Machine::new(cpu(), 0x280)?;
    MONITOR.inject.store(WINDOW, SeqCst);
    MONITOR.deadline.store(time::deadline_in_ms(5), SeqCst);
    ok!(closed.start());
    same!(MONITOR.exit(1).0, Some(Exit::Deadline));
    drop(closed);
    let mut opens = Machine::new(cpu(), 0x700)?;
    MONITOR.inject.store(WINDOW, SeqCst);
    ok!(opens.start());
    same!((MONITOR.exit(1).0, MONITOR.count.load(SeqCst)), (Some(Exit::InterruptWindow), 2));
    // Behind the instruction after STI.
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(opens.vcpu, Mtd::RIP)) };
    same!(utcb::with_state(|s| s.rip), CODE + 0x702);
    // It was asked for once.
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(opens.vcpu));
    same!((MONITOR.exit(2).0, MONITOR.exit(3).0), (Some(Exit::Recall), Some(Exit::Hlt)));
    Ok(())
}

fn a_window_that_is_open_is_an_exit_at_once() -> Outcome {
    let machine = run(0x380)?;
    MONITOR.inject.store(WINDOW, SeqCst);
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!((MONITOR.exit(3).0, MONITOR.count.load(SeqCst)), (Some(Exit::InterruptWindow), 4));
    Ok(())
}

fn a_window_for_nmis_is_an_exit() -> Outcome {
    let machine = run(0x380)?;
    // As the handler of NMIs, which counts and returns.
    machine.set_word(2 * 4, 0x13c0);
    MONITOR.inject.store(Inject::nmi().with_nmi_window().0, SeqCst);
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    // Not before it has returned, and before anything else.
    same!((MONITOR.exit(3).0, machine.word(0x820)), (Some(Exit::NmiWindow), 1));
    ok!(syscall::recall(machine.vcpu));
    same!((MONITOR.exit(4).0, MONITOR.exit(5).0), (Some(Exit::Recall), Some(Exit::Hlt)));
    Ok(())
}

fn the_offset_of_its_clock() -> Outcome {
    const OFFSET: u64 = 1 << 50;
    for offset in [0, OFFSET, OFFSET.wrapping_neg()] {
        let mut machine = Machine::new(cpu(), 0x600)?;
        // SAFETY: no reference into the state area is held.
        unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::TSC)) };
        utcb::with_state(|s| s.tsc_offset = offset);
        ok!(syscall::set_state(machine.vcpu, Mtd::TSC));
        let before = time::now().wrapping_add(offset);
        ok!(machine.start());
        same!(MONITOR.exit(1).0, Some(Exit::Hlt));
        let [low, high] = [RESULT, RESULT + 4].map(|at| u64::from(machine.word(at)));
        let passed = (high << 32 | low).wrapping_sub(before);
        check!(passed <= time::now().wrapping_add(offset).wrapping_sub(before));
    }
    Ok(())
}

fn a_triple_fault_is_a_shutdown() -> Outcome {
    let _machine = run(0x300)?;
    same!(MONITOR.exit(1).0, Some(Exit::Shutdown));
    same!(MONITOR.count.load(SeqCst), 2);
    Ok(())
}

fn state_that_makes_no_sense_is_an_exit() -> Outcome {
    // Paging without protection; bits above 31.
    for cr0 in [0x8000_0010, 0x1_0000_0010] {
        let mut machine = Machine::new(cpu(), 0)?;
        MONITOR.cr0.store(cr0, SeqCst);
        ok!(machine.start());
        same!((cr0, MONITOR.exit(1).0), (cr0, Some(Exit::EntryFailed)));
    }
    Ok(())
}

/// Spoils a state.
type Spoil = fn(&mut State);

/// Values that no processor has, and the groups that they are in.
const NONSENSE: [(Mtd, Spoil); 16] = [
    (Mtd::RIP, |s| s.rflags |= 1 << 15),
    (Mtd::RIP, |s| s.rflags |= 1 << 17),
    (Mtd::DATA_SEG, |s| s.fs.base = 1 << 60),
    (Mtd::SYS_SEG, |s| s.tr.base = 1 << 60),
    (Mtd::SYS_SEG, |s| s.idtr.limit = 1 << 16),
    (Mtd::CR, |s| s.cr0 |= 1 << 31),
    (Mtd::CR, |s| s.cr4 |= 1 << 13),
    (Mtd::CR8, |s| s.cr8 = 16),
    (Mtd::DR, |s| s.dr7 |= 1 << 32),
    (Mtd::EFER_PAT, |s| s.efer |= 1 << 12),
    (Mtd::EFER_PAT, |s| s.pat = 2),
    (Mtd::SYSCALL_MSR, |s| s.lstar = 1 << 60),
    (Mtd::SYSENTER_MSR, |s| s.sysenter_eip = 1 << 60),
    (Mtd::XSTATE, |s| s.xcr0 = 0),
    (Mtd::INJECT, |s| s.inject = 1 << 14),
    (Mtd::ACTIVITY, |s| s.activity = 1 << 3),
];

/// Changes groups of a halted vCPU's state and lets it go on; it has stopped again by then.
fn go_on_with(machine: &Machine, mtd: Mtd, change: impl FnOnce(&mut State)) -> Outcome {
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::all())) };
    utcb::with_state(change);
    ok!(syscall::set_state(machine.vcpu, mtd));
    MONITOR.count.store(0, SeqCst);
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(MONITOR.exit(0).0, Some(Exit::Recall));
    Ok(())
}

fn each_group_that_makes_no_sense_is_named() -> Outcome {
    let machine = run(0x380)?;
    for (mtd, spoil) in NONSENSE {
        go_on_with(&machine, mtd, spoil)?;
        same!(MONITOR.exit(1), (Some(Exit::EntryFailed), u64::MAX, mtd.bits()));
    }
    // An event beside it is judged by itself: real mode has no error codes.
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::all())) };
    utcb::with_state(|s| {
        s.cr0 = u64::MAX;
        s.inject = Inject::exception(13, Some(0)).0;
    });
    MONITOR.count.store(0, SeqCst);
    ok!(syscall::set_state(machine.vcpu, Mtd::CR | Mtd::INJECT));
    same!(MONITOR.exit(0), (Some(Exit::EntryFailed), u64::MAX, Mtd::CR.bits()));
    same!(MONITOR.exit(1), (Some(Exit::EntryFailed), u64::MAX, Mtd::INJECT.bits()));
    // Nothing of it has changed anything: the second HLT is next.
    go_on_with(&machine, Mtd::empty(), |_| {})?;
    same!(MONITOR.exit(1).0, Some(Exit::Hlt));
    Ok(())
}

fn an_event_that_cannot_be_delivered_is_an_exit() -> Outcome {
    // Interrupts are off; real mode has no error codes; there are 32 exceptions; kinds without a
    // meaning; NMIs have one vector.
    let valid = |bits| Inject(Inject::VALID | bits);
    for event in [
        Inject::interrupt(0x20),
        Inject::exception(14, Some(0)),
        Inject::exception(32, None),
        Inject::exception(2, None),
        valid(1 << 8),
        valid(7 << 8),
        valid(2 << 8 | 3),
    ] {
        let mut machine = Machine::new(cpu(), 0)?;
        MONITOR.inject.store(event.0, SeqCst);
        ok!(machine.start());
        same!(MONITOR.exit(1), (Some(Exit::EntryFailed), u64::MAX, Mtd::INJECT.bits()));
        same!(MONITOR.count.load(SeqCst), 2);
    }
    Ok(())
}

/// Segments that no guest can have loaded. Processors differ in what of it they check; whatever
/// they do is an exit, and the vCPU is as good as before.
fn what_the_processor_refuses_is_an_exit() -> Outcome {
    const SEGMENTS: Mtd = Mtd::RIP.union(Mtd::CS_SS).union(Mtd::DATA_SEG).union(Mtd::SYS_SEG);
    let machine = run(0x380)?;
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::all())) };
    let good = utcb::with_state(|s| s.clone());
    let mut random = 1_u64;
    for round in 0..64 {
        go_on_with(&machine, SEGMENTS, |s| {
            s.rip = good.rip;
            let State { cs, ss, ds, es, fs, gs, tr, ldtr, .. } = s;
            for (n, segment) in [tr, cs, ss, ds, es, fs, gs, ldtr].into_iter().enumerate() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
                // The first one tries each segment by itself: one that is not there.
                if round == n as u64 {
                    segment.attributes = 0;
                } else if round >= 8 && random >> 62 == 0 {
                    let [limit @ .., a, b, _, _] = random.to_le_bytes();
                    segment.attributes = u16::from_le_bytes([a, b]) & 0xf0ff;
                    segment.limit = u32::from_le_bytes(limit);
                }
            }
            MONITOR.deadline.store(time::deadline_in_ms(5), SeqCst);
        })?;
        let (exit, raw, groups) = MONITOR.exit(1);
        check!(exit.is_some());
        if exit == Some(Exit::EntryFailed) {
            // Not the kernel's word, which names groups; the state is that after reset.
            check!(raw != 0 && !(raw == u64::MAX && groups != 0));
            // SAFETY: as above.
            unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::RIP)) };
            same!(utcb::with_state(|s| s.rip), 0xfff0);
        }
        go_on_with(&machine, Mtd::all(), |s| *s = good.clone())?;
        same!((round, MONITOR.exit(1).0), (round, Some(Exit::Hlt)));
    }
    Ok(())
}

/// What a kernel that is built for it takes as the order to let the next entry fail; the lowest byte
/// says how.
const SABOTAGE: u64 = 0x5ab0_7a9e_0000_0000;

fn each_way_in_which_an_entry_fails_is_an_exit() -> Outcome {
    if !process::has_argument("sabotage") {
        return Err(Failure::Skip("this kernel lets no entry fail on demand"));
    }
    let machine = run(0x380)?;
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::all())) };
    let good = utcb::with_state(|s| s.clone());
    // A control; the control structure itself; its launch state; the host's state. Twice: what was
    // wrong leaves no trace.
    for kind in (1..=4).chain(1..=4) {
        go_on_with(&machine, Mtd::TSC, |s| s.tsc_offset = SABOTAGE + kind)?;
        let (exit, raw, groups) = MONITOR.exit(1);
        same!((kind, exit), (kind, Some(Exit::EntryFailed)));
        check!(!(raw == u64::MAX && groups != 0));
        // SAFETY: as above.
        unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::RIP)) };
        same!(utcb::with_state(|s| s.rip), 0xfff0);
        go_on_with(&machine, Mtd::all(), |s| *s = good.clone())?;
        same!((kind, MONITOR.exit(1).0), (kind, Some(Exit::Hlt)));
    }
    Ok(())
}

fn state_can_be_read_and_written() -> Outcome {
    let machine = run(0x380)?;
    let mtd = Mtd::RIP | Mtd::GPR_ACDB | Mtd::GPR_BSD;
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, mtd)) };
    let (rip, sp) = utcb::with_state(|s| (s.rip, s.rsp));
    same!((rip, sp & 0xffff), (CODE + 0x380 + 5, 0x700));
    utcb::with_state(|s| {
        s.rip = CODE + 0x80;
        s.rax = 0;
    });
    ok!(syscall::set_state(machine.vcpu, Mtd::RIP | Mtd::GPR_ACDB));
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    let ports = [2, 3, 4, 5].map(|n| MONITOR.exit(n).0 == Some(Exit::Io));
    check!(ports.iter().filter(|p| **p).count() == 2);
    // SAFETY: refused.
    unsafe {
        let ec = Cap::new(ipc::cap::Selector(process::start().objects.ec.into()));
        refused!(syscall::get_state(ec, mtd), BadCap);
        refused!(syscall::get_state(machine.vcpu, Mtd::from_bits_retain(1 << 40)), BadParam);
    }
    Ok(())
}

fn registers_of_system_calls_are_the_guests() -> Outcome {
    let mut machine = Machine::new(cpu(), 0x580)?;
    machine.set_word(13 * 4, u32::try_from(CODE + 0x5f0).unwrap_or(0));
    ok!(machine.start());
    // Nobody but the guest has a part in it.
    same!((MONITOR.exit(1).0, MONITOR.count.load(SeqCst)), (Some(Exit::Hlt), 2));
    same!(machine.word(RESULT), 0x82);
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::SYSCALL_MSR)) };
    utcb::with_state(|s| {
        same!((s.star, s.cstar, s.fmask, s.kernel_gs_base), (0x81, 0x83, 0x84, 0x02));
        // An emulator may take any address.
        same!(s.lstar == 0x82, machine.word(0x820) == 1);
        Ok(())
    })?;
    // And what the VMM sets is what the guest sees.
    utcb::with_state(|s| (s.lstar, s.rip) = (0x1234, CODE + 0x580 + 3 + 5 * 15));
    ok!(syscall::set_state(machine.vcpu, Mtd::SYSCALL_MSR | Mtd::RIP));
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(machine.word(RESULT), 0x1234);
    Ok(())
}

/// They stay in the CPU while other code of the VMM's domain runs, which has no FPU.
fn vector_registers_are_the_guests() -> Outcome {
    let prober = ok!(Prober::within(own(), 0x8000));
    let _machine = run(0)?;
    same!(vector(&prober, FLOAT, 0)?, Some(7));
    Ok(())
}

fn rights() -> Outcome {
    let mut machine = Machine::new(cpu(), 0)?;
    let (space, vcpu) = (machine.space, machine.vcpu);
    let at = empty()?;
    let weak = ok!(with_rights(&mut machine.domain, space, Rights::GUEST_MAP));
    refused!(syscall::create_vcpu(at, process::pd(), weak, cpu(), 0), BadRight);
    let weak = ok!(with_rights(&mut machine.domain, space, Rights::GUEST_BIND));
    let range = Range::memory(0, MemRights::READ);
    // SAFETY: refused.
    unsafe { refused!(syscall::delegate_memory(weak, range, machine.data.page(), 8), BadRight) };
    let weak = ok!(with_rights(&mut machine.domain, vcpu, Rights::EC_BIND_SC));
    refused!(syscall::recall(weak), BadRight);
    refused!(syscall::set_state(weak, Mtd::RIP), BadRight);
    let weak = ok!(with_rights(&mut machine.domain, vcpu, Rights::EC_CTRL));
    refused!(syscall::create_sc(at, process::pd(), weak, 1, 1000), BadRight);
    refused!(
        syscall::create_vcpu(at, process::pd(), Cap::<Guest>::new(vcpu.selector()), 0, 0),
        BadCap
    );
    refused!(syscall::create_vcpu(at, process::pd(), space, u16::MAX, 0), BadCpu);
    refused!(syscall::create_vcpu(at, process::pd(), space, cpu(), u32::MAX), BadParam);
    Ok(())
}

fn destinations_in_use() -> Outcome {
    let machine = Machine::new(cpu(), 0)?;
    let (at, pd) = (machine.vcpu.selector(), process::pd());
    refused!(syscall::create_guest(at, pd), Exists);
    refused!(syscall::create_vcpu(at, pd, machine.space, cpu(), 0), Exists);
    Ok(())
}

fn without_virtualization() -> Outcome {
    let at = empty()?;
    match syscall::create_guest(at, process::pd()) {
        Err(ipc::status::Status::NotSupported) => {}
        other => {
            ok!(other);
            selector::delete(at);
            return Err(Failure::Skip("the machine runs guests"));
        }
    }
    let space = Cap::<Guest>::new(process::pd().selector());
    refused!(syscall::create_vcpu(at, process::pd(), space, cpu(), 0), NotSupported);
    Ok(())
}

fn only_memory_goes_into_a_guest_space() -> Outcome {
    let machine = Machine::new(cpu(), 0)?;
    let to = Cap::new(machine.space.selector());
    refused!(syscall::delegate_object(to, process::pd(), empty()?, Rights::FULL, 0), BadParam);
    refused!(syscall::delegate_ports(to, 0, 0xf4), BadParam);
    Ok(())
}

fn revoked_memory_is_gone_for_the_guest() -> Outcome {
    let mut machine = Machine::new(cpu(), 0x280)?;
    MONITOR.deadline.store(time::deadline_in_ms(5), SeqCst);
    ok!(machine.start());
    same!(MONITOR.exit(1).0, Some(Exit::Deadline));
    let range = Range::memory(0, MemRights::all());
    // SAFETY: only the guest loses it.
    unsafe { ok!(syscall::revoke_memory(range, machine.data.page())) };
    MONITOR.resume.store(1, SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!((MONITOR.exit(3).0, MONITOR.exit(3).2), (Some(Exit::Memory), RESULT as u64));
    Ok(())
}

/// The guest writes to the page all the time; once the call has returned it cannot any more.
fn revoked_memory_is_gone_for_a_guest_elsewhere() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    for _ in 0..10 {
        let machine = endless(other)?;
        let range = Range::memory(0, MemRights::all());
        // SAFETY: only the guest loses it.
        unsafe { ok!(syscall::revoke_memory(range, machine.data.page())) };
        let turns = machine.word(RESULT);
        eventually!(MONITOR.exit(1).0 == Some(Exit::Memory));
        same!((MONITOR.exit(1).2, machine.word(RESULT)), (RESULT as u64, turns));
    }
    Ok(())
}

/// A guest that never stops by itself, at a lower priority than this thread.
pub(super) fn endless(cpu: u16) -> core::result::Result<Machine, Failure> {
    let mut machine = Machine::new(cpu, 0x280)?;
    let at = selector::alloc()?;
    let priority = crate::runner::priority() - 1;
    let budget = sysroot::thread::default_budget();
    syscall::create_sc(at, process::pd(), machine.vcpu, priority, budget)?;
    machine.domain.keep(at);
    eventually!(machine.word(RESULT) > 0);
    Ok(machine)
}

fn destroyed_while_it_runs() -> Outcome {
    drop(endless(cpu())?);
    let before = used()?;
    for _ in 0..10 {
        drop(endless(cpu())?);
    }
    // Selectors are used up as this goes on, and with them pages of the object space.
    check!(used()? <= before + 8);
    Ok(())
}

fn destroyed_while_it_runs_elsewhere() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    for _ in 0..20 {
        drop(endless(other)?);
    }
    Ok(())
}

/// A guest that runs on another CPU, and one there that does not: neither disturbs the other.
fn state_of_vcpus_elsewhere() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let running = endless(other)?;
    let fresh = Machine::new(other, 0x380)?;
    let get = |machine: &Machine| -> ipc::status::Result<(u64, u64, u64)> {
        // SAFETY: no reference into the state area is held.
        unsafe { syscall::get_state(machine.vcpu, Mtd::all()) }?;
        Ok(utcb::with_state(|s| (s.rip, s.rbx, s.dr[0])))
    };
    for n in 0..300 {
        let (rip, rbx, dr0) = get(&running)?;
        check!((CODE + 0x280..CODE + 0x290).contains(&rip));
        check!(n == 0 || (rbx, dr0) == (0x5555 + n - 1, n - 1));
        utcb::with_state(|s| (s.rbx, s.dr[0]) = (0x5555 + n, n));
        ok!(syscall::set_state(running.vcpu, Mtd::GPR_ACDB | Mtd::DR));
        let (rip, rbx, dr0) = get(&fresh)?;
        check!(rip == 0xfff0 && (n == 0 || (rbx, dr0) == (n - 1, 0)));
        utcb::with_state(|s| s.rbx = n);
        ok!(syscall::set_state(fresh.vcpu, Mtd::GPR_ACDB));
    }
    let turns = running.word(RESULT);
    eventually!(running.word(RESULT) != turns);
    // Elsewhere in its program, where it halts.
    utcb::with_state(|s| s.rip = CODE + 0x380);
    ok!(syscall::set_state(running.vcpu, Mtd::RIP));
    eventually!(MONITOR.exit(0).0 == Some(Exit::Hlt));
    // What is no longer halted runs on.
    eventually!({
        // SAFETY: as above.
        unsafe { ok!(syscall::get_state(running.vcpu, Mtd::ACTIVITY | Mtd::RIP)) };
        utcb::with_state(|s| s.activity) & Activity::HALTED.bits() != 0
    });
    utcb::with_state(|s| (s.rip, s.activity) = (CODE + 0x280, 0));
    let turns = running.word(RESULT);
    ok!(syscall::set_state(running.vcpu, Mtd::ACTIVITY | Mtd::RIP));
    eventually!(running.word(RESULT) != turns);
    Ok(())
}

fn a_vcpu_elsewhere() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let mut machine = Machine::new(other, 0x380)?;
    ok!(machine.start());
    eventually!(MONITOR.count.load(SeqCst) > 1);
    same!(MONITOR.exit(1).0, Some(Exit::Hlt));
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::RIP)) };
    same!(utcb::with_state(|s| s.rip), CODE + 0x380 + 5);
    // A guest in a loop is recalled from here.
    for n in 2..20 {
        ok!(syscall::recall(machine.vcpu));
        let limit = patience();
        while MONITOR.count.load(SeqCst) <= n && time::now() < limit {
            core::hint::spin_loop();
        }
        same!(MONITOR.count.load(SeqCst), n + 1);
    }
    Ok(())
}
