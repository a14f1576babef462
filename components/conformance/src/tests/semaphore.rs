//! Semaphores: counter, badges, waiting.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::Rights;
use ipc::syscall::{Call, Number};
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::{process, selector, syscall};

use crate::check::{Outcome, patience};
use crate::domain::{Domain, own, raw, with_rights};
use crate::runner::group;

group!("semaphore":
    ups_are_counted,
    down_all_takes_all,
    badges_are_gathered_and_taken_once,
    badges_cannot_be_changed_or_put_elsewhere,
    a_full_counter,
    rights,
    unknown_flags,
    a_waiter_is_woken_with_the_badge,
    waiters_are_woken_in_order,
    the_higher_priority_runs_first,
    a_dying_semaphore_wakes_its_waiters,
);

fn none(semaphore: Cap<Semaphore>) -> Outcome {
    refused!(semaphore.down_until(1), Timeout);
    Ok(())
}

fn ups_are_counted() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(2));
    ok!(sm.up());
    for _ in 0..3 {
        same!(ok!(sm.down()), 0);
    }
    none(sm)
}

fn down_all_takes_all() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(5));
    ok!(sm.up());
    same!(ok!(sm.down_all(None)), 0);
    none(sm)?;
    refused!(sm.down_all(Some(1)), Timeout);
    Ok(())
}

/// A capability to signal with a badge.
fn badged(
    d: &mut Domain,
    sm: Cap<Semaphore>,
    badge: u64,
) -> ipc::status::Result<Cap<Semaphore, Up>> {
    let at = selector::alloc()?;
    let cap = syscall::derive(process::pd(), sm, at, badge)?;
    d.keep(at);
    Ok(cap)
}

fn badges_are_gathered_and_taken_once() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let one = ok!(badged(&mut d, sm, 1));
    let high = ok!(badged(&mut d, sm, 1 << 63));
    ok!(one.up());
    ok!(high.up());
    ok!(one.up());
    same!(ok!(sm.down()), 1 | 1 << 63);
    same!(ok!(sm.down()), 0);
    same!(ok!(sm.down()), 0);
    ok!(high.up());
    same!(ok!(sm.down_all(None)), 1 << 63);
    none(sm)
}

fn badges_cannot_be_changed_or_put_elsewhere() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let one = ok!(badged(&mut d, sm, 1));
    let at = selector::alloc()?;
    refused!(syscall::delegate_object(process::pd(), one, at, Rights::SM_UP, 2), BadParam);
    refused!(syscall::delegate_object(process::pd(), process::pd(), at, Rights::FULL, 2), BadParam);
    // Without a badge it is handed on.
    ok!(syscall::delegate_object(process::pd(), one, at, Rights::SM_UP, 0));
    ok!(Cap::<Semaphore, Up>::new(at).up());
    same!(ok!(sm.down()), 1);
    let range = ipc::cap::Range::object(Rights::FULL);
    same!(ok!(syscall::query(range, at.0)).1, 1);
    same!(ok!(syscall::query(range, sm.raw())).1, 0);
    selector::delete(at);
    Ok(())
}

fn a_full_counter() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(u64::from(u32::MAX)));
    let one = ok!(badged(&mut d, sm, 4));
    refused!(one.up(), Overflow);
    // The badge is noted all the same.
    same!(ok!(sm.down_all(None)), 4);
    none(sm)
}

fn rights() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(1));
    let weak = ok!(with_rights(&mut d, sm, Rights::SM_DOWN | Rights::SM_BIND));
    refused!(weak.up(), BadRight);
    let weak = ok!(with_rights(&mut d, sm, Rights::SM_UP | Rights::SM_BIND));
    refused!(weak.down(), BadRight);
    refused!(weak.down_all(Some(1)), BadRight);
    Ok(())
}

fn unknown_flags() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(1));
    for flags in [2, 3, 0x80] {
        refused!(raw(Number::new(Call::Down).flags(flags).0, [sm.raw(), 0, 0, 0, 0]), BadParam);
    }
    same!(ok!(sm.down()), 0);
    Ok(())
}

static WAIT: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn wait() -> Cap<Semaphore> {
    Cap::new(ipc::cap::Selector(WAIT.load(Ordering::SeqCst)))
}

fn done() -> Cap<Semaphore> {
    Cap::new(ipc::cap::Selector(DONE.load(Ordering::SeqCst)))
}

/// Two semaphores that threads of the test know.
fn pair(d: &mut Domain) -> ipc::status::Result<()> {
    WAIT.store(d.semaphore(0)?.raw(), Ordering::SeqCst);
    DONE.store(d.semaphore(0)?.raw(), Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    Ok(())
}

extern "sysv64" fn waiter(_utcb: u64) -> ! {
    let seen = match wait().down() {
        Ok(badges) => badges,
        Err(status) => 0xe000 | u64::from(status.number()),
    };
    SEEN.store(seen, Ordering::SeqCst);
    let _ = done().up();
    super::never(0)
}

fn higher() -> u8 {
    crate::runner::priority() + 1
}

fn a_waiter_is_woken_with_the_badge() -> Outcome {
    let mut d = own();
    ok!(pair(&mut d));
    // It runs at once, up to where it waits.
    ok!(d.spawn(process::start().cpu, higher(), waiter));
    let bell = ok!(badged(&mut d, wait(), 0x40));
    same!(SEEN.load(Ordering::SeqCst), 0);
    ok!(bell.up());
    same!(SEEN.load(Ordering::SeqCst), 0x40);
    ok!(done().down());
    Ok(())
}

/// Appends its number to a list of bytes and waits again.
fn note(number: u64) -> ! {
    let _ = wait().down();
    let _ = SEEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n << 8 | number));
    let _ = done().up();
    super::never(0)
}

extern "sysv64" fn first(_utcb: u64) -> ! {
    note(1)
}

extern "sysv64" fn second(_utcb: u64) -> ! {
    note(2)
}

extern "sysv64" fn third(_utcb: u64) -> ! {
    note(3)
}

fn waiters_are_woken_in_order() -> Outcome {
    let mut d = own();
    ok!(pair(&mut d));
    let cpu = process::start().cpu;
    for entry in [first, second, third] {
        ok!(d.spawn(cpu, higher(), entry));
    }
    for _ in 0..3 {
        ok!(wait().up());
        ok!(done().down());
    }
    same!(SEEN.load(Ordering::SeqCst), 0x01_0203);
    Ok(())
}

extern "sysv64" fn low(_utcb: u64) -> ! {
    note(1)
}

extern "sysv64" fn high(_utcb: u64) -> ! {
    note(2)
}

fn the_higher_priority_runs_first() -> Outcome {
    let mut d = own();
    ok!(pair(&mut d));
    let cpu = process::start().cpu;
    let below = crate::runner::priority() - 1;
    let low = ok!(d.thread(cpu, 0, low));
    let high = ok!(d.thread(cpu, 0, high));
    ok!(d.start(low, below - 1));
    ok!(d.start(high, below));
    // Both are ready, and there are signals for both; they run when this thread waits.
    ok!(wait().up());
    ok!(wait().up());
    same!(SEEN.load(Ordering::SeqCst), 0);
    ok!(done().down());
    ok!(done().down());
    same!(SEEN.load(Ordering::SeqCst), 0x0201);
    Ok(())
}

fn a_dying_semaphore_wakes_its_waiters() -> Outcome {
    let mut d = own();
    let done = ok!(d.semaphore(0));
    let at = selector::alloc()?;
    ok!(syscall::create_sm(at, process::pd(), 0));
    WAIT.store(at.0, Ordering::SeqCst);
    DONE.store(done.raw(), Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    ok!(d.spawn(process::start().cpu, higher(), waiter));
    selector::delete(at);
    ok!(done.down_until(patience()));
    let aborted = u64::from(ipc::status::Status::Aborted.number());
    same!(SEEN.load(Ordering::SeqCst), 0xe000 | aborted);
    Ok(())
}
