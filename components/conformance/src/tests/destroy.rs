//! Destruction while in use, many times over.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::proto::start::layout;
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::{process, selector, syscall, time};

use super::ipc::{Echo, call};
use crate::check::{Failure, Outcome};
use crate::domain::{Domain, other_cpu, own};
use crate::runner::{group, used};

group!("destroy":
    running_threads,
    waiting_threads,
    threads_that_call_all_the_time,
    semaphores_that_are_signalled_all_the_time,
    memory_that_is_handed_on_all_the_time,
    domains_with_everything_in_them,
    deep_trees,
);

static TARGET: AtomicU64 = AtomicU64::new(0);
static TURNS: AtomicU64 = AtomicU64::new(0);

fn cpus() -> impl Iterator<Item = u16> {
    core::iter::once(process::start().cpu).chain(other_cpu())
}

extern "sysv64" fn spins(_utcb: u64) -> ! {
    loop {
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
}

extern "sysv64" fn sleeps(_utcb: u64) -> ! {
    let bell: Cap<Semaphore> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
    loop {
        let _ = bell.down_until(time::deadline_in_ms(1));
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts a thread in a domain of its own and destroys both, again and again.
fn repeat(rounds: u32, entry: extern "sysv64" fn(u64) -> !) -> Outcome {
    let mut here = own();
    let bell = ok!(here.semaphore(0));
    TARGET.store(bell.raw(), Ordering::SeqCst);
    for cpu in cpus() {
        for round in 0..rounds {
            let mut d = ok!(Domain::new(200));
            ok!(d.give(bell, bell.raw(), Rights::FULL));
            TURNS.store(0, Ordering::SeqCst);
            ok!(d.spawn(cpu, crate::runner::priority() - 1, entry));
            // Sometimes it has not even started.
            if round % 4 == 0 {
                time::sleep_ms(2);
            }
        }
    }
    Ok(())
}

fn running_threads() -> Outcome {
    repeat(40, spins)
}

fn waiting_threads() -> Outcome {
    repeat(40, sleeps)
}

extern "sysv64" fn calls(_utcb: u64) -> ! {
    let portal: Cap<Portal> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
    loop {
        if call(portal, &[1, 2, 3]).is_ok() {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn threads_that_call_all_the_time() -> Outcome {
    for cpu in cpus() {
        let (mut here, mut made) = (own(), 0);
        let mut server = ok!(Domain::new(200));
        for _ in 0..40 {
            let portal = ok!(server.serve::<Echo>(cpu, 0));
            TARGET.store(portal.raw(), Ordering::SeqCst);
            TURNS.store(0, Ordering::SeqCst);
            ok!(here.spawn(cpu, crate::runner::priority() - 1, calls));
            time::sleep_ms(1);
            // The portal goes, then its server, then the next server comes.
            server.delete(portal.selector());
            server = ok!(Domain::new(200));
            made += TURNS.load(Ordering::Relaxed);
            here = own();
        }
        check!(made > 0);
    }
    Ok(())
}

extern "sysv64" fn signals(_utcb: u64) -> ! {
    let bell: Cap<Semaphore> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
    loop {
        if bell.up().is_ok() {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn semaphores_that_are_signalled_all_the_time() -> Outcome {
    let Some(cpu) = other_cpu() else { return Err(Failure::Skip("one CPU")) };
    let mut d = own();
    let at = selector::alloc()?;
    TARGET.store(at.0, Ordering::SeqCst);
    ok!(d.spawn(cpu, crate::runner::priority(), signals));
    TURNS.store(0, Ordering::SeqCst);
    for _ in 0..300 {
        let bell = ok!(syscall::create_sm(at, process::pd(), 0));
        ok!(bell.down());
        ok!(syscall::revoke_object(at, Rights::FULL, true));
    }
    check!(TURNS.load(Ordering::SeqCst) >= 300);
    // Its thread goes before the selector is used for something else.
    drop(d);
    selector::free(at);
    Ok(())
}

/// Page that the thread below hands on: the source, of which it has an alias.
static PAGE: AtomicU64 = AtomicU64::new(0);

extern "sysv64" fn hands_on(_utcb: u64) -> ! {
    let target: Cap<sysroot::cap::Pd> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
    let mut next = page(layout::GUEST_RAM.base);
    loop {
        let range = Range::memory(0, MemRights::READ);
        // SAFETY: nobody runs in the target.
        let done =
            unsafe { syscall::delegate_memory(target, range, PAGE.load(Ordering::SeqCst), next) };
        if done.is_ok() {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
        next += 1;
        if next > page(layout::GUEST_RAM.base) + 200 {
            next = page(layout::GUEST_RAM.base);
        }
    }
}

fn memory_that_is_handed_on_all_the_time() -> Outcome {
    let Some(cpu) = other_cpu() else { return Err(Failure::Skip("one CPU")) };
    let (target, mut d) = (ok!(Domain::bare(100)), own());
    let memory = ok!(Pages::new(0));
    let alias = page(super::FREE_ADDRESSES) + 0x300;
    TARGET.store(target.pd.raw(), Ordering::SeqCst);
    PAGE.store(alias, Ordering::SeqCst);
    TURNS.store(0, Ordering::SeqCst);
    ok!(d.spawn(cpu, crate::runner::priority(), hands_on));
    for _ in 0..200 {
        // SAFETY: nobody uses the alias but to hand it on.
        unsafe {
            let range = Range::memory(0, MemRights::RW);
            ok!(syscall::delegate_memory(process::pd(), range, memory.page(), alias));
            ok!(syscall::revoke_memory(Range::memory(0, MemRights::all()), memory.page()));
        }
    }
    drop(d);
    // Whatever was handed on in between is gone with its source.
    let account = ok!(syscall::account(target.pd));
    for n in 0..=200 {
        let range = Range::memory(0, MemRights::READ);
        let at = page(layout::GUEST_RAM.base) + n;
        // SAFETY: nobody runs in the target.
        unsafe { ok!(syscall::delegate_memory(target.pd, range, memory.page(), at)) };
    }
    check!(ok!(syscall::account(target.pd)).used >= account.used);
    Ok(())
}

fn domains_with_everything_in_them() -> Outcome {
    let round = || -> Outcome {
        let mut d = ok!(Domain::new(400));
        let inner = selector::alloc()?;
        ok!(syscall::create_pd(inner, d.pd, 50));
        d.keep(inner);
        for cpu in cpus() {
            ok!(d.serve::<Echo>(cpu, 0));
            ok!(d.spawn(cpu, crate::runner::priority() - 1, spins));
        }
        // It holds itself, its parts and its child.
        ok!(d.give(d.pd, 600, Rights::FULL));
        ok!(d.give(Cap::<sysroot::cap::Pd>::new(inner), 601, Rights::FULL));
        let bell = ok!(d.semaphore(0));
        for n in 700..760 {
            ok!(d.give(bell, n, Rights::FULL));
        }
        Ok(())
    };
    round()?;
    round()?;
    let before = used()?;
    for _ in 0..10 {
        round()?;
    }
    check!(used()? <= before + 8);
    Ok(())
}

fn deep_trees() -> Outcome {
    let mut d = own();
    let bell = ok!(d.semaphore(0));
    let before = ok!(syscall::account(process::pd()));
    let mut at = bell.selector();
    let mut chain = alloc::vec::Vec::new();
    let end = loop {
        let next = selector::alloc()?;
        let cap: Cap<Semaphore> = Cap::new(at);
        match syscall::delegate_object(process::pd(), cap, next, Rights::SM_UP, 0) {
            Ok(()) => chain.push(next),
            Err(status) => {
                selector::free(next);
                break status;
            }
        }
        at = next;
        check!(chain.len() < 10_000);
    };
    check!(end == ipc::status::Status::Overflow || end == ipc::status::Status::Quota);
    check!(chain.len() >= 16);
    ok!(syscall::revoke_object(bell.selector(), Rights::FULL, false));
    refused!(Cap::<Semaphore>::new(at).up(), BadCap);
    ok!(bell.up());
    for selector in chain {
        selector::free(selector);
    }
    check!(ok!(syscall::account(process::pd())).used <= before.used + 8);
    Ok(())
}
