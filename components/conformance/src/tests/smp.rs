//! More than one CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Selector};
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::{page, usize_of};
use sysroot::{process, syscall, time, utcb};

use super::ipc::{Echo, call};
use crate::check::{Failure, Outcome, patience};
use crate::domain::{Domain, other_cpu, own};
use crate::runner::group;

group!("smp":
    threads_run_on_every_cpu,
    signals_go_back_and_forth,
    calls_on_the_other_cpu,
    revocation_reaches_the_other_cpu,
    a_timeout_against_a_signal,
    many_signals_from_everywhere,
);

static WORDS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn cell(n: usize) -> &'static AtomicU64 {
    static OTHER: AtomicU64 = AtomicU64::new(0);
    WORDS.get(n).unwrap_or(&OTHER)
}

fn semaphore(n: usize) -> Cap<Semaphore> {
    Cap::new(Selector(cell(n).load(Ordering::SeqCst)))
}

fn wait_for(n: usize, value: u64) -> bool {
    let limit = patience();
    while cell(n).load(Ordering::SeqCst) != value {
        if time::now() > limit {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

extern "sysv64" fn counts(_utcb: u64) -> ! {
    cell(0).fetch_add(1, Ordering::SeqCst);
    super::never(0)
}

fn threads_run_on_every_cpu() -> Outcome {
    let mut d = own();
    cell(0).store(0, Ordering::SeqCst);
    let cpus = process::start().cpus;
    for cpu in 0..cpus {
        ok!(d.spawn(cpu, crate::runner::priority() + 1, counts));
    }
    check!(wait_for(0, cpus.into()));
    Ok(())
}

extern "sysv64" fn answers(_utcb: u64) -> ! {
    loop {
        let _ = semaphore(0).down();
        let _ = semaphore(1).up();
    }
}

fn signals_go_back_and_forth() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let mut d = own();
    for n in 0..2 {
        cell(n).store(ok!(d.semaphore(0)).raw(), Ordering::SeqCst);
    }
    ok!(d.spawn(other, crate::runner::priority(), answers));
    for _ in 0..2000 {
        ok!(semaphore(0).up());
        ok!(semaphore(1).down_until(patience()));
    }
    Ok(())
}

extern "sysv64" fn calls(_utcb: u64) -> ! {
    let portal: Cap<Portal> = Cap::new(Selector(cell(0).load(Ordering::SeqCst)));
    let mut good = 0;
    for n in 0..1000 {
        good += u64::from(call(portal, &[n]).is_ok_and(|(_, [answer, ..])| answer == n + 1));
    }
    cell(1).store(good, Ordering::SeqCst);
    super::never(0)
}

fn calls_on_the_other_cpu() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let (mut here, mut server) = (own(), ok!(Domain::new(200)));
    let portal = ok!(server.serve::<Echo>(other, 0));
    cell(0).store(portal.raw(), Ordering::SeqCst);
    cell(1).store(0, Ordering::SeqCst);
    ok!(here.spawn(other, crate::runner::priority(), calls));
    // Meanwhile this CPU does the same.
    let local = ok!(server.serve::<Echo>(process::start().cpu, 0));
    for n in 0..1000 {
        same!(ok!(call(local, &[n])).1[0], n + 1);
    }
    check!(wait_for(1, 1000));
    Ok(())
}

const ALIAS: u64 = super::FREE_ADDRESSES + 0x40_0000;

/// Reads the alias for as long as it can: its first page fault stops it, as nobody handles it.
extern "sysv64" fn reads(_utcb: u64) -> ! {
    let place: *const AtomicU64 = core::ptr::with_exposed_provenance(usize_of(ALIAS));
    loop {
        // SAFETY: mapped when the thread starts; the fault that comes later is what is tested.
        let value = unsafe { &*place }.load(Ordering::Relaxed);
        cell(1).store(value, Ordering::SeqCst);
        cell(0).fetch_add(1, Ordering::SeqCst);
    }
}

fn revocation_reaches_the_other_cpu() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let memory = ok!(Pages::new(0));
    // SAFETY: atomic, and valid with any content.
    let content: &AtomicU64 = unsafe { memory.view() }.ok_or(Failure::Skip("no pages"))?;
    for round in 1..20 {
        let mut d = ok!(Domain::new(200));
        content.store(round, Ordering::SeqCst);
        cell(0).store(0, Ordering::SeqCst);
        // SAFETY: the other domain reads it only.
        unsafe {
            let range = Range::memory(0, MemRights::READ);
            ok!(syscall::delegate_memory(d.pd, range, memory.page(), page(ALIAS)));
        }
        ok!(d.spawn(other, crate::runner::priority(), reads));
        check!(wait_for(1, round));
        // SAFETY: as above.
        unsafe { ok!(syscall::revoke_memory(Range::memory(0, MemRights::all()), memory.page())) };
        // From here on it cannot have read the page any more.
        content.store(0xdead, Ordering::SeqCst);
        time::sleep_ms(1);
        let turns = cell(0).load(Ordering::SeqCst);
        time::sleep_ms(1);
        same!(cell(0).load(Ordering::SeqCst), turns);
        same!(cell(1).load(Ordering::SeqCst), round);
    }
    Ok(())
}

extern "sysv64" fn waits_briefly(_utcb: u64) -> ! {
    loop {
        // About as long as the signal takes to come: now one, now the other is first.
        match semaphore(0).down_until(time::now() + time::ticks_of_ms(1) / 50) {
            Ok(_) => cell(2).fetch_add(1, Ordering::SeqCst),
            Err(_) => cell(3).fetch_add(1, Ordering::SeqCst),
        };
    }
}

fn a_timeout_against_a_signal() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let mut d = own();
    cell(0).store(ok!(d.semaphore(0)).raw(), Ordering::SeqCst);
    cell(2).store(0, Ordering::SeqCst);
    cell(3).store(0, Ordering::SeqCst);
    ok!(d.spawn(other, crate::runner::priority(), waits_briefly));
    for n in 1..=500 {
        ok!(semaphore(0).up());
        // No signal is lost, whatever it raced with.
        check!(wait_for(2, n));
        let pause = time::now() + time::ticks_of_ms(1) / 50;
        while time::now() < pause {
            core::hint::spin_loop();
        }
    }
    Ok(())
}

extern "sysv64" fn signals(_utcb: u64) -> ! {
    for _ in 0..500 {
        let _ = semaphore(0).up();
    }
    cell(1).fetch_add(1, Ordering::SeqCst);
    super::never(0)
}

fn many_signals_from_everywhere() -> Outcome {
    let mut d = own();
    cell(0).store(ok!(d.semaphore(0)).raw(), Ordering::SeqCst);
    cell(1).store(0, Ordering::SeqCst);
    let cpus = process::start().cpus;
    for cpu in 0..cpus {
        for _ in 0..2 {
            ok!(d.spawn(cpu, crate::runner::priority() - 1, signals));
        }
    }
    for _ in 0..u64::from(cpus) * 1000 {
        ok!(semaphore(0).down_until(patience()));
    }
    refused!(semaphore(0).down_until(1), Timeout);
    same!(utcb::cpu(), process::start().cpu);
    Ok(())
}
