//! What calls cost, in ticks of the TSC: instructions under an emulator with one tick each.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Rights, Selector, Space};
use ipc::status::Result;
use ipc::utcb::{Item, Message, Window};
use sysroot::arch::{Entry, tsc};
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::memory::Pages;
use sysroot::{log, process, selector, syscall, time, utcb};

use crate::arch::null_call;
use crate::check::Failure;
use crate::domain::{Domain, other_cpu, own};
use crate::guest::{MONITOR, Machine};

/// Turns of a measured loop.
const TURNS: u64 = 256;

/// Ticks per turn of a loop, without the loop itself: the least of several runs.
fn measure(mut turn: impl FnMut()) -> u64 {
    let mut best = u64::MAX;
    for _ in 0..5 {
        let start = tsc();
        for n in 0..TURNS {
            core::hint::black_box(n);
        }
        let empty = tsc() - start;
        let start = tsc();
        for n in 0..TURNS {
            core::hint::black_box(n);
            turn();
        }
        let full = tsc() - start;
        best = best.min(full.saturating_sub(empty) / TURNS);
    }
    best
}

fn report(name: &str, value: u64) {
    log!("BENCH {name} ticks {value}");
}

/// Runs all of them.
pub(crate) fn run() -> bool {
    let all: [fn() -> core::result::Result<(), Failure>; 6] =
        [null, portals, capability, semaphores, memory, guest];
    let mut good = true;
    for bench in all {
        match bench() {
            Ok(()) => {}
            Err(Failure::Skip(why)) => log!("skipped: {why}"),
            Err(Failure::Wrong(why)) => {
                good = false;
                log!("BENCH FAILED: {why}");
            }
        }
    }
    good
}

fn null() -> core::result::Result<(), Failure> {
    report("null_call", measure(null_call));
    Ok(())
}

/// Replies with as many words as came.
struct Echo;

impl Entry for Echo {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        descriptor
    }
}

fn call(portal: Cap<Portal>, words: usize) -> u64 {
    let message = Message::new(words, 0);
    measure(|| {
        // SAFETY: no reference into the message area is held.
        let _ = unsafe { syscall::call(portal, message) };
    })
}

fn portals() -> core::result::Result<(), Failure> {
    let cpu = process::start().cpu;
    let (mut same, mut cross) = (own(), Domain::new(200)?);
    let same = same.serve::<Echo>(cpu, 0)?;
    report("call_same_pd_0w", call(same, 0));
    report("call_same_pd_4w", call(same, 4));
    report("call_same_pd_64w", call(same, 64));
    let cross = cross.serve::<Echo>(cpu, 0)?;
    report("call_cross_pd_0w", call(cross, 0));
    report("call_cross_pd_4w", call(cross, 4));
    report("call_cross_pd_64w", call(cross, 64));
    Ok(())
}

/// Takes a capability and is ready for the next one.
struct Takes;

/// Where it takes them in its domain.
const WINDOW: u64 = 1024;

impl Entry for Takes {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        if Message(descriptor).items() > 0 {
            let _ = syscall::revoke_object(Selector(WINDOW), Rights::FULL, true);
        }
        utcb::set_window(Space::Object, Window::open(WINDOW, 0));
        0
    }
}

/// A call that delegates a capability, and the revocation of it by the callee.
fn capability() -> core::result::Result<(), Failure> {
    let (mut d, mut here) = (Domain::new(200)?, own());
    let portal = d.serve::<Takes>(process::start().cpu, 0)?;
    let sm = here.semaphore(0)?;
    let item = Item::delegate(Range::object(Rights::SM_UP), sm.raw(), 0);
    let mut failed = None;
    let mut call = |items: usize| {
        let done = utcb::call(
            portal,
            |area| {
                let [first, ..] = area.items;
                *first = item;
                Message::new(0, items)
            },
            |_, _| (),
        );
        failed = failed.or(done.err());
    };
    call(0);
    let ticks = measure(|| call(1));
    match failed {
        None => report("call_cross_pd_1cap_revoke", ticks),
        Some(status) => return Err(status.into()),
    }
    Ok(())
}

static BELLS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn bell(n: usize) -> Cap<Semaphore> {
    Cap::new(Selector(BELLS.get(n).map_or(0, |b| b.load(Ordering::Relaxed))))
}

extern "sysv64" fn answers(_utcb: u64) -> ! {
    let (ask, answer) = (bell(0), bell(1));
    loop {
        let _ = ask.down();
        let _ = answer.up();
    }
}

fn semaphores() -> core::result::Result<(), Failure> {
    let mut d = own();
    let sm = d.semaphore(0)?;
    report("sm_up", measure(|| _ = sm.up()));
    let sm = d.semaphore(0)?;
    report("sm_up_down", measure(|| _ = sm.up().and_then(|()| sm.down())));
    if let Some(other) = other_cpu() {
        for place in &BELLS {
            place.store(d.semaphore(0)?.raw(), Ordering::Relaxed);
        }
        d.spawn(other, process::start().priority, answers)?;
        time::sleep_ms(2);
        let (ask, answer) = (bell(0), bell(1));
        let round = measure(|| _ = ask.up().and_then(|()| answer.down()));
        report("sm_wake_remote", round / 2);
    }
    Ok(())
}

fn delegation(order: u8) -> Result<u64> {
    let d = Domain::bare(1000)?;
    let memory = Pages::new(order)?;
    let range = Range::memory(order, MemRights::READ);
    let all = Range::memory(order, MemRights::all());
    let mut failed = None;
    let ticks = measure(|| {
        // SAFETY: nobody runs in the domain.
        let done = unsafe {
            syscall::delegate_memory(d.pd, range, memory.page(), 0x10_0000)
                .and_then(|()| syscall::revoke_memory(all, memory.page()))
        };
        failed = failed.or(done.err());
    });
    failed.map_or(Ok(ticks), Err)
}

fn memory() -> core::result::Result<(), Failure> {
    report("delegate_revoke_1", delegation(0)?);
    report("delegate_revoke_512", delegation(9)?);
    let mut failed = None;
    let ticks = measure(|| {
        let done = selector::alloc()
            .and_then(|at| syscall::create_pd(at, process::pd(), 40))
            .map(|pd| selector::delete(pd.selector()));
        failed = failed.or(done.err());
    });
    match failed {
        None => report("pd_create_destroy", ticks),
        Some(status) => return Err(status.into()),
    }
    Ok(())
}

fn guest() -> core::result::Result<(), Failure> {
    let cpu = process::start().cpu;
    // CPUID for ever, on a lower priority: it runs while this thread sleeps.
    let mut machine = Machine::new(cpu, 0x400)?;
    let at = selector::alloc()?;
    let priority = process::start().priority - 1;
    let budget = sysroot::thread::default_budget();
    let sc = syscall::create_sc(at, process::pd(), machine.vcpu, priority, budget)?;
    machine.domain.keep(at);
    time::sleep_ms(5);
    let (exits, ticks) = (MONITOR.count.load(Ordering::SeqCst), syscall::consumed(sc)?);
    time::sleep_ms(20);
    let exits = MONITOR.count.load(Ordering::SeqCst) - exits;
    let ticks = syscall::consumed(sc)? - ticks;
    if exits > 0 {
        report("vm_exit_cpuid", ticks / sysroot::num::u64_of(exits));
    }
    Ok(())
}
