//! Vector registers of threads that may use them.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::event::Exit;
use ipc::exit::Exception;
use ipc::state::Mtd;
use ipc::syscall::EC_FPU;
use sysroot::cap::{Cap, Semaphore};
use sysroot::num::address;
use sysroot::{process, syscall, time, utcb};

use super::{FAULT, Fixes, never};
use crate::arch::{aligned_read, float_error, get_vector, set_vector, vector_error};
use crate::check::{Outcome, patience};
use crate::domain::{Domain, own};
use crate::guest::{MONITOR, Machine, RESULT};
use crate::runner::group;

group!("fpu":
    threads_keep_their_registers,
    a_thread_keeps_them_across_preemption,
    a_guest_and_a_thread_keep_theirs,
    an_unknown_flag_is_refused,
    errors_are_events,
);

/// What each of two threads waits for, and a third one that says that both are done.
static BELLS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Rounds that found the register as it was left.
static GOOD: AtomicU64 = AtomicU64::new(0);
/// Rounds that did not.
static BAD: AtomicU64 = AtomicU64::new(0);

const ROUNDS: u64 = 200;

fn bell(n: usize) -> Cap<Semaphore> {
    Cap::new(Selector(BELLS.get(n).map_or(0, |b| b.load(Ordering::Relaxed))))
}

fn value(id: u64, round: u64) -> [u64; 4] {
    [1, 2, 3, 4].map(|n| id << 48 | n << 32 | round)
}

fn note(expected: &[u64; 4]) {
    let mut found = *expected;
    // SAFETY: the callers' threads may use the FPU, and soft-float code leaves it alone.
    unsafe { get_vector(&mut found) };
    let count = if found == *expected { &GOOD } else { &BAD };
    count.fetch_add(1, Ordering::SeqCst);
}

fn takes_turns(own: usize, other: usize, id: u64) -> ! {
    for round in 0..ROUNDS {
        let left = value(id, round);
        // SAFETY: as in `note`.
        unsafe { set_vector(&left) };
        let _ = bell(other).up();
        let _ = bell(own).down();
        note(&left);
    }
    let _ = bell(2).up();
    never(0)
}

extern "sysv64" fn first(_utcb: u64) -> ! {
    takes_turns(0, 1, 0xa)
}

extern "sysv64" fn second(_utcb: u64) -> ! {
    takes_turns(1, 0, 0xb)
}

fn prepare(d: &mut Domain) -> Outcome {
    for place in &BELLS {
        place.store(ok!(d.semaphore(0)).raw(), Ordering::Relaxed);
    }
    GOOD.store(0, Ordering::SeqCst);
    BAD.store(0, Ordering::SeqCst);
    Ok(())
}

fn threads_keep_their_registers() -> Outcome {
    let (cpu, priority) = (process::start().cpu, crate::runner::priority());
    let mut d = own();
    prepare(&mut d)?;
    for entry in [first, second] {
        let ec = ok!(d.thread_with(cpu, 0, entry, EC_FPU));
        ok!(d.start(ec, priority));
    }
    for _ in 0..2 {
        ok!(bell(2).down_until(patience()));
    }
    same!((GOOD.load(Ordering::SeqCst), BAD.load(Ordering::SeqCst)), (2 * ROUNDS, 0));
    Ok(())
}

extern "sysv64" fn spins(_utcb: u64) -> ! {
    let left = value(0xc, 1);
    // SAFETY: as in `note`.
    unsafe { set_vector(&left) };
    loop {
        note(&left);
    }
}

extern "sysv64" fn overwrites(_utcb: u64) -> ! {
    loop {
        // SAFETY: as in `note`.
        unsafe { set_vector(&value(0xd, 2)) };
        let _ = bell(0).down_until(time::deadline_in_ms(1));
    }
}

fn a_thread_keeps_them_across_preemption() -> Outcome {
    let (cpu, priority) = (process::start().cpu, crate::runner::priority());
    let mut d = own();
    prepare(&mut d)?;
    let ec = ok!(d.thread_with(cpu, 0, spins, EC_FPU));
    ok!(d.start(ec, priority - 2));
    let ec = ok!(d.thread_with(cpu, 0, overwrites, EC_FPU));
    ok!(d.start(ec, priority - 1));
    time::sleep_ms(30);
    check!(GOOD.load(Ordering::SeqCst) > 0);
    same!(BAD.load(Ordering::SeqCst), 0);
    Ok(())
}

extern "sysv64" fn waits(_utcb: u64) -> ! {
    let left = value(0xe, 3);
    // SAFETY: as in `note`.
    unsafe { set_vector(&left) };
    let _ = bell(2).up();
    let _ = bell(0).down();
    note(&left);
    let _ = bell(2).up();
    never(0)
}

fn a_guest_and_a_thread_keep_theirs() -> Outcome {
    let cpu = process::start().cpu;
    let mut machine = Machine::new(cpu, 0x680)?;
    // SSE is on (SDM vol. 3, 2.5: OSFXSR).
    // SAFETY: no reference into the state area is held.
    unsafe { ok!(syscall::get_state(machine.vcpu, Mtd::CR)) };
    utcb::with_state(|s| s.cr4 |= 1 << 9);
    ok!(syscall::set_state(machine.vcpu, Mtd::CR));
    ok!(machine.start());
    same!(MONITOR.exit(1).0, Some(Exit::Hlt));
    let mut d = own();
    prepare(&mut d)?;
    let ec = ok!(d.thread_with(cpu, 0, waits, EC_FPU));
    ok!(d.start(ec, crate::runner::priority() - 1));
    ok!(bell(2).down_until(patience()));
    MONITOR.resume.store(1, Ordering::SeqCst);
    ok!(syscall::recall(machine.vcpu));
    same!(machine.word(RESULT), 0x1234_abcd);
    ok!(bell(0).up());
    ok!(bell(2).down_until(patience()));
    same!((GOOD.load(Ordering::SeqCst), BAD.load(Ordering::SeqCst)), (1, 0));
    Ok(())
}

fn an_unknown_flag_is_refused() -> Outcome {
    let mut d = own();
    refused!(d.thread_with(process::start().cpu, 0, first, 1 << 2), BadParam);
    Ok(())
}

/// What attempts of a thread with an FPU came to.
static FAULTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

extern "sysv64" fn makes_errors(_utcb: u64) -> ! {
    let at = address(&FAULTS);
    // SAFETY: exceptions are handled; what is read is there.
    let faults = unsafe {
        [float_error(0, 0), vector_error(0, 0), aligned_read(at, 0), aligned_read(at + 1, 0)]
    };
    for (to, from) in FAULTS.iter().zip(faults) {
        to.store(from.fault, Ordering::SeqCst);
    }
    let _ = bell(2).up();
    never(0)
}

fn errors_are_events() -> Outcome {
    const EVENTS: u32 = 512;
    const VECTORS: [u64; 3] = [16, 17, 19];
    let cpu = process::start().cpu;
    let (mut here, mut d) = (own(), ok!(Domain::new(400)));
    prepare(&mut here)?;
    ok!(d.give(bell(2), bell(2).raw(), Rights::FULL));
    let portal = ok!(d.serve::<Fixes>(cpu, 0));
    ok!(d.route(EVENTS, &VECTORS, portal, Mtd::HOST, 0));
    let ec = ok!(d.thread_with(cpu, EVENTS, makes_errors, EC_FPU));
    ok!(d.start(ec, crate::runner::priority() - 1));
    ok!(bell(2).down_until(patience()));
    let [float, vector, aligned, unaligned] = FAULTS.each_ref().map(|f| f.load(Ordering::SeqCst));
    let raised =
        |word: u64| (word & FAULT != 0).then(|| Exception::from_word(word & !FAULT).vector);
    same!((raised(float), raised(aligned)), (Some(16), None));
    // QEMU reports no errors of vector registers, and checks no alignment; Bochs does both.
    check!(
        matches!(raised(vector), None | Some(19)) && matches!(raised(unaligned), None | Some(17))
    );
    Ok(())
}
