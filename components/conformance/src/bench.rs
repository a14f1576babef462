//! What calls cost, in ticks of the TSC: instructions under an emulator with one tick each. All is
//! warm, from user code to user code, and without the instructions of the measuring itself.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Rights, Selector, Space};
use ipc::event::Exit;
use ipc::proto::start::layout;
use ipc::state::Mtd;
use ipc::status::Result;
use ipc::utcb::{Item, Message, Window};
use sysroot::arch::{Entry, tsc};
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::{log, process, selector, syscall, time, utcb};

use crate::arch::null_call;
use crate::check::Outcome;
use crate::devices::Timer;
use crate::domain::{Domain, other_cpu, own};
use crate::guest::Machine;

/// Turns of a measured loop.
const TURNS: u64 = 256;
/// How often something is measured that is prepared afresh each time.
const ROUNDS: usize = 12;

/// Ticks per turn of a loop, without the loop itself: the least of several runs, as a timer
/// interrupt may fall into one.
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

/// Ticks of an operation and of another that undoes it, one after the other: the least of several
/// rounds.
fn both(
    mut first: impl FnMut() -> Result,
    mut second: impl FnMut() -> Result,
) -> Result<(u64, u64)> {
    let mut best = (u64::MAX, u64::MAX);
    for _ in 0..ROUNDS {
        let start = tsc();
        let empty = tsc() - start;
        let start = tsc();
        let done = first();
        let there = tsc() - start;
        done?;
        let start = tsc();
        let done = second();
        let back = tsc() - start;
        done?;
        best.0 = best.0.min(there.saturating_sub(empty));
        best.1 = best.1.min(back.saturating_sub(empty));
    }
    Ok(best)
}

fn report(name: &str, value: u64) {
    log!("BENCH {name} instructions {value}");
}

/// Measures a group.
type Group = fn() -> Outcome;

/// What is measured, by group.
const ALL: [(&str, Group); 9] = [
    ("null", null),
    ("portals", portals),
    ("capability", capability),
    ("semaphores", semaphores),
    ("memory", memory),
    ("domains", domains),
    ("guest", guest),
    ("interrupt", interrupt),
    ("latency", latency),
];

/// Runs all of them, or those that the argument `only` names.
pub(crate) fn run() -> bool {
    let only = process::argument("only").unwrap_or("");
    let mut good = true;
    for (_, bench) in ALL.into_iter().filter(|(name, _)| name.contains(only)) {
        if let Err(failure) = bench() {
            good = false;
            log!("BENCH FAILED: {failure:?}");
        }
    }
    good
}

fn null() -> Outcome {
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

fn portals() -> Outcome {
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

/// Opens its window and replies with nothing.
struct Takes;

/// Where it takes capabilities in its domain.
const WINDOW: u64 = 1024;

impl Entry for Takes {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        utcb::set_window(Space::Object, Window::open(WINDOW, 0));
        0
    }
}

/// A call that delegates a capability; it is revoked before the next one.
fn capability() -> Outcome {
    let (mut d, mut here) = (Domain::new(200)?, own());
    let portal = d.serve::<Takes>(process::start().cpu, 0)?;
    let sm = here.semaphore(0)?;
    utcb::with_message(|area| {
        let [first, ..] = area.items;
        *first = Item::delegate(Range::object(Rights::SM_UP), sm.raw(), 0);
    });
    // The item stays where it is: nothing comes back that would overwrite it.
    let send = |items| {
        // SAFETY: no reference into the message area is held.
        unsafe { syscall::call(portal, Message::new(0, items)) }.map(drop)
    };
    send(0)?;
    let (ticks, _) =
        both(|| send(1), || syscall::revoke_object(sm.selector(), Rights::FULL, false))?;
    report("call_cross_pd_1cap", ticks);
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

fn semaphores() -> Outcome {
    let mut d = own();
    let sm = d.semaphore(0)?;
    report("sm_up", measure(|| _ = sm.up()));
    let sm = d.semaphore(0)?;
    report("sm_up_down", measure(|| _ = sm.up().and_then(|()| sm.down())));
    if let Some(other) = other_cpu() {
        for place in &BELLS {
            place.store(d.semaphore(0)?.raw(), Ordering::Relaxed);
        }
        d.spawn(other, crate::runner::priority(), answers)?;
        time::sleep_ms(2);
        let (ask, answer) = (bell(0), bell(1));
        // Half of there and back: from a signal to the waiter's return on an idle CPU.
        let round = measure(|| _ = ask.up().and_then(|()| answer.down()));
        report("sm_wake_remote", round / 2);
    }
    Ok(())
}

/// Delegation of memory to another domain, whose page tables are there already, and revocation.
fn delegation(order: u8, source: u64) -> Outcome {
    let d = Domain::bare(1000)?;
    let at = page(layout::GUEST_RAM.base);
    let range = Range::memory(order, MemRights::READ);
    let all = Range::memory(order, MemRights::all());
    // SAFETY: nobody runs in the domain.
    let (there, back) = unsafe {
        let neighbour = Pages::new(0)?.page();
        let one = Range::memory(0, MemRights::READ);
        ok!(syscall::delegate_memory(d.pd, one, neighbour, at + (1 << order)));
        both(
            || syscall::delegate_memory(d.pd, range, source, at),
            || syscall::revoke_memory(all, source),
        )
    }?;
    report(&alloc::format!("delegate_{}", 1u64 << order), there);
    report(&alloc::format!("revoke_{}", 1u64 << order), back);
    Ok(())
}

fn memory() -> Outcome {
    for order in [0, 9] {
        delegation(order, Pages::new(order)?.page())?;
    }
    // The heap is one large piece. Stacks are derived from it, so its alias is what is revoked.
    const ALIAS: u64 = layout::WINDOWS.base + layout::WINDOWS.size / 2;
    let (heap, range) = (page(layout::HEAP.base), Range::memory(18, MemRights::READ));
    // SAFETY: nobody uses the alias.
    unsafe { ok!(syscall::delegate_memory(process::pd(), range, heap, page(ALIAS))) };
    delegation(18, page(ALIAS))
}

fn domains() -> Outcome {
    let at = selector::alloc()?;
    let (create, destroy) = both(
        || syscall::create_pd(at, process::pd(), 40).map(drop),
        || syscall::revoke_object(at, Rights::FULL, true),
    )?;
    report("pd_create", create);
    report("pd_destroy", destroy);
    Ok(())
}

/// End of the last visit, least time between two, and how many there were.
static VISITS: [AtomicU64; 3] = [AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0)];

/// Answers CPUID exits, and measures from the end of an answer to the next one: back into the
/// guest, two instructions there, and out again.
struct Answers;

impl Entry for Answers {
    extern "sysv64" fn enter(_id: u64, _mtd: u64) -> u64 {
        let now = tsc();
        let [last, least, count] = &VISITS;
        // Nobody else writes them: what they cost counts.
        let since = now - last.load(Ordering::Relaxed);
        if since < least.load(Ordering::Relaxed) {
            least.store(since, Ordering::Relaxed);
        }
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        utcb::with_state(|state| {
            state.rip += state.instruction_length;
            state.rax = 0x1234;
        });
        last.store(tsc(), Ordering::Relaxed);
        CPUID.bits()
    }
}

/// What a CPUID exit needs to carry.
const CPUID: Mtd = Mtd::GPR_ACDB.union(Mtd::RIP);

fn guest() -> Outcome {
    let cpu = process::start().cpu;
    // CPUID for ever, on a lower priority: it runs while this thread sleeps.
    let mut machine = Machine::new(cpu, 0x400)?;
    machine.answer::<Answers>(Exit::Cpuid, CPUID)?;
    let at = selector::alloc()?;
    let priority = crate::runner::priority() - 1;
    let budget = sysroot::thread::default_budget();
    syscall::create_sc(at, process::pd(), machine.vcpu, priority, budget)?;
    machine.domain.keep(at);
    time::sleep_ms(5);
    let [_, least, count] = VISITS.each_ref().map(|v| v.load(Ordering::Relaxed));
    check!(count > 100);
    let start = tsc();
    report("vm_exit_cpuid", least - (tsc() - start));
    Ok(())
}

/// When the interrupted thread last looked at the clock, least delay, and interrupts so far.
static INTERRUPTS: [AtomicU64; 3] =
    [AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0)];

extern "sysv64" fn waits_for_interrupts(_utcb: u64) -> ! {
    let [last, least, count] = &INTERRUPTS;
    // The semaphore goes before its thread does.
    while bell(0).down().is_ok() {
        let now = tsc();
        least.fetch_min(now - last.load(Ordering::Relaxed), Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
    }
    process::park()
}

/// From user code that is interrupted to the thread that waited for the interrupt.
fn interrupt() -> Outcome {
    let (timer, source, trigger) = Timer::find()?;
    let mut d = own();
    let cpu = process::start().cpu;
    let sm = d.semaphore(0)?;
    let [first, ..] = &BELLS;
    first.store(sm.raw(), Ordering::Relaxed);
    ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
    ok!(d.spawn(cpu, crate::runner::priority() + 1, waits_for_interrupts));
    let [last, least, count] = &INTERRUPTS;
    for _ in 0..16 {
        let before = count.load(Ordering::Relaxed);
        timer.fire();
        while count.load(Ordering::Relaxed) == before {
            last.store(tsc(), Ordering::Relaxed);
        }
    }
    report("interrupt_to_ec", least.load(Ordering::Relaxed));
    ok!(syscall::unbind_interrupt(source));
    Ok(())
}

/// When a thread of the highest priority wants to run, and how late it was at most.
static ALARM: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "sysv64" fn waits_for_alarms(_utcb: u64) -> ! {
    let [due, latest] = &ALARM;
    // The semaphore goes before its thread does.
    while bell(0).down().is_ok() {
        let due = due.load(Ordering::Relaxed);
        let _ = bell(1).down_until(due);
        latest.fetch_max(tsc() - due, Ordering::Relaxed);
    }
    process::park()
}

/// Steps at which an operation is interrupted, and what they grow by.
const STEPS: u64 = 60;
/// Pages and capabilities that are taken away in one call.
const MANY: u64 = 1 << 9;

/// How late a thread is whose time comes somewhere within `work`, at worst.
fn delay(mut prepare: impl FnMut() -> Outcome, mut work: impl FnMut() -> Outcome) -> Outcome {
    let [due, _] = &ALARM;
    prepare()?;
    let start = tsc();
    work()?;
    let whole = tsc() - start;
    for step in 0..STEPS {
        prepare()?;
        due.store(tsc() + 4000 + whole * step / STEPS, Ordering::Relaxed);
        ok!(bell(0).up());
        work()?;
        // It has had its time when this thread has it again.
        while tsc() < due.load(Ordering::Relaxed) {}
    }
    Ok(())
}

/// From the time that a thread waits for to its return, while the kernel is at its longest work:
/// revocation of memory in many pieces, of one capability with many copies, and the end of a domain
/// that holds them.
fn latency() -> Outcome {
    let (mut here, cpu) = (own(), process::start().cpu);
    for place in &BELLS {
        place.store(here.semaphore(0)?.raw(), Ordering::Relaxed);
    }
    here.spawn(cpu, crate::runner::priority() + 1, waits_for_alarms)?;
    let [_, latest] = &ALARM;
    let memory = Pages::new(9)?;
    let (base, all) = (page(layout::GUEST_RAM.base), Range::memory(9, MemRights::all()));
    let at = selector::alloc()?;
    let fill = |pd| {
        for n in 0..MANY {
            let one = Range::memory(0, MemRights::READ);
            // SAFETY: nobody runs in the domain.
            unsafe { ok!(syscall::delegate_memory(pd, one, memory.page() + n, base + n)) };
            ok!(syscall::delegate_object(pd, bell(0), Selector(64 + n), Rights::SM_UP, 0));
        }
        Ok(())
    };
    let d = Domain::bare(1000)?;
    let revoke = || {
        // SAFETY: as above.
        unsafe { ok!(syscall::revoke_memory(all, memory.page())) };
        ok!(syscall::revoke_object(bell(0).selector(), Rights::FULL, false));
        Ok(())
    };
    let report_delay = |name: &str, outcome: Outcome| {
        report(name, latest.swap(0, Ordering::Relaxed));
        outcome
    };
    let first = delay(|| fill(d.pd), revoke);
    report_delay("delay_by_revoke", first)?;
    let create = || fill(ok!(syscall::create_pd(at, process::pd(), 1000)));
    let destroy = || {
        ok!(syscall::revoke_object(at, Rights::FULL, true));
        Ok(())
    };
    let second = delay(create, destroy);
    report_delay("delay_by_pd_destroy", second)
}
