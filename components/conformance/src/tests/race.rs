//! Everything destroyed while another CPU uses it, over and over: nobody hangs, and accounts are
//! the same afterwards.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::proto::start::layout;
use ipc::state::Mtd;
use ipc::status::Status;
use ipc::syscall::TRIGGER_LEVEL;
use ipc::trace::Counter;
use sysroot::cap::{Cap, Ec, Interrupt, Pd, Portal, Sc, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::{process, selector, syscall, time};

use super::ipc::{Echo, call};
use super::trace::counter;
use super::vcpu::endless;
use crate::check::{Failure, Outcome, patience};
use crate::devices::Timer;
use crate::domain::{Domain, other_cpu, own};
use crate::runner::{group, used};

group!("race":
    domains_whose_threads_create,
    domains_whose_threads_delegate,
    domains_whose_handlers_are_called,
    portals_that_are_called,
    contexts_that_are_recalled,
    semaphores_that_are_waited_on,
    memory_that_is_used,
    interrupts_that_are_acknowledged,
    time_of_callers,
    time_of_waiters_and_makers,
    guests_that_run,
);

/// Most rounds of a race, and how long it may go on. Where the emulator's CPUs are many and the
/// machine's are few, time is up first.
const ROUNDS: u64 = 3000;
const TIME_MS: u64 = 4000;

/// What the other CPU works on, and how often it did.
static TARGET: AtomicU64 = AtomicU64::new(0);
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Statuses that the other CPU saw, as bits.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn target<K>() -> Cap<K> {
    Cap::new(Selector(TARGET.load(Ordering::SeqCst)))
}

fn note(result: ipc::status::Result) {
    let status = result.err().unwrap_or(Status::Ok);
    SEEN.fetch_or(1 << status.number(), Ordering::Relaxed);
    TURNS.fetch_add(1, Ordering::Relaxed);
}

fn bits(statuses: &[Status]) -> u64 {
    statuses.iter().fold(0, |bits, status| bits | 1 << status.number())
}

/// Fails where the other CPU saw another status than these.
fn seen(allowed: &[Status]) -> Outcome {
    same!(SEEN.load(Ordering::SeqCst) & !bits(allowed), 0);
    Ok(())
}

fn reset() {
    TURNS.store(0, Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
}

/// Waits for a few turns of the other CPU, but not long.
fn some_turns() {
    let limit = time::deadline_in_ms(20);
    let before = TURNS.load(Ordering::Relaxed);
    while TURNS.load(Ordering::Relaxed) < before + 3 && time::now() < limit {
        core::hint::spin_loop();
    }
}

fn elsewhere() -> core::result::Result<u16, Failure> {
    other_cpu().ok_or(Failure::Skip("one CPU"))
}

/// Runs it twice as a warm-up, then again and again, and compares the account before and after.
fn without_loss(mut round: impl FnMut(u64) -> Outcome) -> Outcome {
    for n in 0..2 {
        round(n)?;
    }
    let before = used()?;
    let end = time::deadline_in_ms(TIME_MS);
    for n in 0..ROUNDS {
        round(n)?;
        if time::now() > end {
            break;
        }
    }
    // Tables of selectors that were taken meanwhile.
    check!(used()? <= before + 8);
    Ok(())
}

/// Selector of its own domain in a domain of these tests, and of a semaphore there.
const SELF: u64 = 600;

extern "sysv64" fn creates(_utcb: u64) -> ! {
    let (pd, at): (Cap<Pd>, _) = (Cap::new(Selector(SELF)), Selector(700));
    loop {
        note(syscall::create_sm(at, pd, 0).map(drop));
        note(syscall::create_pd(Selector(701), pd, 6).map(drop));
        let _ = syscall::revoke_object(at, Rights::FULL, true);
        let _ = syscall::revoke_object(Selector(701), Rights::FULL, true);
    }
}

extern "sysv64" fn delegates(_utcb: u64) -> ! {
    let (pd, bell): (Cap<Pd>, Cap<Semaphore>) = (Cap::new(Selector(SELF)), Cap::new(Selector(601)));
    loop {
        for n in 700..720 {
            note(syscall::delegate_object(pd, bell, Selector(n), Rights::FULL, 0));
        }
        let _ = syscall::revoke_object(bell.selector(), Rights::SM_UP, false);
        let _ = syscall::revoke_object(bell.selector(), Rights::FULL, false);
    }
}

fn domains(entry: extern "sysv64" fn(u64) -> !) -> Outcome {
    let cpu = elsewhere()?;
    let mut here = own();
    let bell = ok!(here.semaphore(0));
    reset();
    let round = |_| {
        let mut d = ok!(Domain::new(120));
        ok!(d.give(d.pd, SELF, Rights::FULL));
        ok!(d.give(bell, SELF + 1, Rights::FULL));
        ok!(d.spawn(cpu, crate::runner::priority() - 1, entry));
        some_turns();
        Ok(())
    };
    without_loss(round)?;
    seen(&[Status::Ok, Status::Exists])
}

fn domains_whose_threads_create() -> Outcome {
    domains(creates)
}

fn domains_whose_threads_delegate() -> Outcome {
    domains(delegates)
}

extern "sysv64" fn calls(_utcb: u64) -> ! {
    loop {
        note(call(target::<Portal>(), &[1, 2, 3]).map(drop));
    }
}

/// A thread on the other CPU that does something for ever, and stays while the rounds go on.
fn against(
    cpu: u16,
    entry: extern "sysv64" fn(u64) -> !,
    round: impl FnMut(u64) -> Outcome,
) -> Outcome {
    against_all(cpu..cpu + 1, entry, round)
}

/// The same with a thread on each of several CPUs.
fn against_all(
    cpus: core::ops::Range<u16>,
    entry: extern "sysv64" fn(u64) -> !,
    round: impl FnMut(u64) -> Outcome,
) -> Outcome {
    let mut here = own();
    reset();
    TARGET.store(0, Ordering::SeqCst);
    for cpu in cpus.filter(|cpu| *cpu != process::start().cpu) {
        ok!(here.spawn(cpu, crate::runner::priority() - 1, entry));
    }
    without_loss(round)?;
    check!(TURNS.load(Ordering::SeqCst) > 0);
    Ok(())
}

fn domains_whose_handlers_are_called() -> Outcome {
    let cpu = elsewhere()?;
    let round = |_| {
        let mut server = ok!(Domain::new(120));
        let portal = ok!(server.serve::<Echo>(cpu, 0));
        TARGET.store(portal.raw(), Ordering::SeqCst);
        some_turns();
        // The domain dies under the caller, then the portal goes.
        server.delete(server.pd.selector());
        Ok(())
    };
    against(cpu, calls, round)?;
    seen(&[Status::Ok, Status::Aborted, Status::BadCap])
}

fn portals_that_are_called() -> Outcome {
    let cpu = elsewhere()?;
    let mut server = ok!(Domain::new(120));
    let ec = ok!(server.handler(cpu));
    let at = selector::alloc()?;
    let entry = sysroot::arch::portal_entry::<Echo>();
    TARGET.store(at.0, Ordering::SeqCst);
    let round = |n| {
        TARGET.store(at.0, Ordering::SeqCst);
        // SAFETY: an entry of this program on the handler's own stack.
        let portal = unsafe { ok!(syscall::create_pt(at, process::pd(), ec, entry, 0)) };
        if n % 8 == 0 {
            some_turns();
            ok!(syscall::set_portal(portal, n, Mtd::empty()));
        }
        ok!(syscall::revoke_object(at, Rights::FULL, true));
        Ok(())
    };
    against(cpu, calls, round)?;
    selector::free(at);
    seen(&[Status::Ok, Status::Aborted, Status::BadCap])
}

extern "sysv64" fn recalls(_utcb: u64) -> ! {
    loop {
        note(syscall::recall(target::<Ec>()));
    }
}

fn contexts_that_are_recalled() -> Outcome {
    elsewhere()?;
    let own_cpu = process::start().cpu;
    let round = |n| {
        let mut d = own();
        let ec = ok!(d.thread(own_cpu, 0, super::never));
        TARGET.store(ec.raw(), Ordering::SeqCst);
        if n % 4 == 0 {
            // It runs into its recall, which nobody handles.
            let sc: Cap<Sc> = ok!(d.start(ec, crate::runner::priority() + 1));
            ok!(syscall::consumed(sc));
        }
        Ok(())
    };
    against_all(0..process::start().cpus, recalls, round)?;
    seen(&[Status::Ok, Status::BadCap, Status::BadState])
}

extern "sysv64" fn waits(_utcb: u64) -> ! {
    loop {
        let deadline = time::now() + time::ticks_of_ms(1) / 20;
        note(target::<Semaphore>().down_until(deadline).map(drop));
    }
}

fn semaphores_that_are_waited_on() -> Outcome {
    elsewhere()?;
    let at = selector::alloc()?;
    let round = |n| {
        let bell = ok!(syscall::create_sm(at, process::pd(), n % 2));
        TARGET.store(at.0, Ordering::SeqCst);
        if n % 3 == 0 {
            ok!(bell.up());
        }
        if n % 16 == 0 {
            some_turns();
        }
        ok!(syscall::revoke_object(at, Rights::FULL, true));
        Ok(())
    };
    against_all(0..process::start().cpus, waits, round)?;
    selector::free(at);
    seen(&[Status::Ok, Status::Timeout, Status::Aborted, Status::BadCap])
}

/// Pages that the thread below has, and hands on in its own domain.
const FROM: u64 = layout::GUEST_RAM.base >> 12;

extern "sysv64" fn hands_on(_utcb: u64) -> ! {
    let pd: Cap<Pd> = Cap::new(Selector(SELF));
    loop {
        for n in 1..64 {
            let range = Range::memory(0, MemRights::READ);
            // SAFETY: nobody uses the memory.
            note(unsafe { syscall::delegate_memory(pd, range, FROM, FROM + n) });
        }
    }
}

fn memory_that_is_used() -> Outcome {
    let cpu = elsewhere()?;
    let mut d = ok!(Domain::new(200));
    ok!(d.give(d.pd, SELF, Rights::FULL));
    let alias = page(super::FREE_ADDRESSES) + 0x700;
    let (memory, all) = (ok!(Pages::new(0)), Range::memory(0, MemRights::all()));
    // SAFETY: nobody uses the memory.
    unsafe {
        let range = Range::memory(0, MemRights::RW);
        ok!(syscall::delegate_memory(process::pd(), range, memory.page(), alias));
    }
    reset();
    ok!(d.spawn(cpu, crate::runner::priority() - 1, hands_on));
    let round = |n| {
        let range = Range::memory(0, MemRights::RW);
        // SAFETY: as above.
        unsafe {
            ok!(syscall::delegate_memory(d.pd, range, alias, FROM));
            if n % 8 == 0 {
                some_turns();
            }
            if n % 2 == 0 {
                ok!(syscall::revoke_memory(Range::memory(0, MemRights::WRITE), alias));
            }
            ok!(syscall::revoke_memory(all, alias));
        }
        Ok(())
    };
    without_loss(round)?;
    // SAFETY: as above.
    unsafe { ok!(syscall::revoke_memory(all.include_self(), alias)) };
    seen(&[Status::Ok, Status::BadCap, Status::Exists])
}

extern "sysv64" fn acknowledges(_utcb: u64) -> ! {
    loop {
        note(syscall::acknowledge(target::<Interrupt>()));
    }
}

/// A line that is high: were it not masked once it is unbound, it would interrupt for ever.
fn interrupts_that_are_acknowledged() -> Outcome {
    elsewhere()?;
    let (timer, source, _) = Timer::find()?;
    let mut here = own();
    let bell = ok!(here.semaphore(0));
    let bind =
        || syscall::bind_interrupt(source, process::start().cpu, bell, 1, TRIGGER_LEVEL).map(drop);
    ok!(bind());
    timer.fire();
    ok!(bell.down_until(patience()));
    ok!(syscall::unbind_interrupt(source));
    let round = |_| {
        TARGET.store(source.raw(), Ordering::SeqCst);
        ok!(bind());
        ok!(bell.down_until(patience()));
        ok!(syscall::unbind_interrupt(source));
        let before = counter(Counter::Interrupt)?;
        let wait = |ticks| {
            let until = time::now() + ticks;
            while time::now() < until {
                core::hint::spin_loop();
            }
        };
        wait(time::ticks_of_ms(1) / 20);
        // Those of clocks and of other CPUs are few.
        if counter(Counter::Interrupt)? > before + 1 {
            wait(time::ticks_of_ms(5));
            check!(counter(Counter::Interrupt)? < before + 100);
        }
        Ok(())
    };
    against_all(0..process::start().cpus, acknowledges, round)?;
    seen(&[Status::Ok, Status::BadState, Status::BadCap])
}

/// The scheduling context of a thread on the other CPU goes, and another one comes.
fn time_of(entry: extern "sysv64" fn(u64) -> !, target: u64) -> Outcome {
    let cpu = elsewhere()?;
    let mut here = own();
    let ec = ok!(here.thread(cpu, 0, entry));
    let (at, budget) = (selector::alloc()?, sysroot::thread::default_budget());
    reset();
    TARGET.store(target, Ordering::SeqCst);
    let round = |n| {
        let priority = crate::runner::priority() - 1;
        let sc = ok!(syscall::create_sc(at, process::pd(), ec, priority, budget));
        if n % 4 == 0 {
            some_turns();
            ok!(syscall::consumed(sc));
        }
        ok!(syscall::revoke_object(at, Rights::FULL, true));
        Ok(())
    };
    without_loss(round)?;
    check!(TURNS.load(Ordering::SeqCst) > 0);
    selector::free(at);
    Ok(())
}

fn time_of_callers() -> Outcome {
    let mut server = ok!(Domain::new(120));
    let portal = ok!(server.serve::<Echo>(elsewhere()?, 0));
    time_of(calls, portal.raw())?;
    seen(&[Status::Ok])
}

/// Where the thread below makes semaphores.
static MADE: AtomicU64 = AtomicU64::new(0);

extern "sysv64" fn makes(_utcb: u64) -> ! {
    let at = Selector(MADE.load(Ordering::SeqCst));
    loop {
        let deadline = time::now() + time::ticks_of_ms(1) / 20;
        note(target::<Semaphore>().down_until(deadline).map(drop));
        note(syscall::create_sm(at, process::pd(), 0).map(drop));
        note(syscall::revoke_object(at, Rights::FULL, true));
    }
}

fn time_of_waiters_and_makers() -> Outcome {
    let mut here = own();
    let bell = ok!(here.semaphore(0));
    let at = selector::alloc()?;
    MADE.store(at.0, Ordering::SeqCst);
    time_of(makes, bell.raw())?;
    selector::delete(at);
    // What it loses its time in comes to nothing.
    seen(&[Status::Ok, Status::Timeout, Status::Aborted, Status::Exists])
}

fn guests_that_run() -> Outcome {
    /// Each takes selectors that are not used again, and so pages of the object space.
    const GUESTS: u64 = 300;
    let cpu = elsewhere()?;
    without_loss(|n| if n < GUESTS { endless(cpu).map(drop) } else { Ok(()) })
}
