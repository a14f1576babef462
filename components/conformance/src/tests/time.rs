//! Time: deadlines, budgets, accounting, preemption.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc::trace::Counter;
use sysroot::{process, syscall, time};

use super::trace::counter;
use crate::check::Outcome;
use crate::domain::own;
use crate::runner::{group, own_sc};

group!("time":
    deadlines_are_kept,
    many_deadlines_at_once,
    a_signal_beats_the_deadline,
    consumed_time_grows_with_work_and_not_with_waiting,
    equal_priorities_share,
    a_higher_priority_is_never_kept_waiting,
    a_lower_priority_does_not_run,
    an_idle_cpu_is_left_alone,
);

/// Tries again where a test measures time: the emulator shares its machine with others and
/// stutters.
fn again(test: fn() -> Outcome) -> Outcome {
    for _ in 0..4 {
        if test().is_ok() {
            return Ok(());
        }
    }
    test()
}

fn deadlines_are_kept() -> Outcome {
    again(|| {
        let mut d = own();
        let sm = ok!(d.semaphore(0));
        for ms in [1, 3, 10, 50] {
            let deadline = time::deadline_in_ms(ms);
            refused!(sm.down_until(deadline), Timeout);
            let late = time::now().wrapping_sub(deadline);
            // Not before, and not by some other wake-up long after.
            check!(time::now() >= deadline);
            check!(late < time::ticks_of_ms(1000));
        }
        refused!(sm.down_until(time::now()), Timeout);
        refused!(sm.down_until(1), Timeout);
        Ok(())
    })
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

extern "sysv64" fn sleeper(_utcb: u64) -> ! {
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    // The later they start, the earlier they wake.
    let deadline = time::deadline_in_ms(80 - 10 * number);
    time::sleep_ms(80 - 10 * number);
    let in_time = u64::from(time::now() >= deadline);
    DONE.fetch_add(in_time, Ordering::SeqCst);
    super::never(0)
}

fn many_deadlines_at_once() -> Outcome {
    let mut d = own();
    COUNT.store(0, Ordering::SeqCst);
    DONE.store(0, Ordering::SeqCst);
    for _ in 0..8 {
        ok!(d.spawn(process::start().cpu, crate::runner::priority(), sleeper));
    }
    eventually!(DONE.load(Ordering::SeqCst) == 8);
    Ok(())
}

fn a_signal_beats_the_deadline() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(1));
    // Long ago, but the signal is there.
    same!(ok!(sm.down_until(1)), 0);
    refused!(sm.down_until(1), Timeout);
    ok!(sm.up());
    same!(ok!(sm.down_until(time::deadline_in_ms(10_000))), 0);
    Ok(())
}

fn spin_ms(ms: u64) {
    let deadline = time::deadline_in_ms(ms);
    while time::now() < deadline {
        core::hint::spin_loop();
    }
}

fn consumed_time_grows_with_work_and_not_with_waiting() -> Outcome {
    again(|| {
        let before = ok!(syscall::consumed(own_sc()));
        time::sleep_ms(50);
        let waited = ok!(syscall::consumed(own_sc()));
        spin_ms(50);
        let worked = ok!(syscall::consumed(own_sc()));
        check!(waited - before < time::ticks_of_ms(25));
        check!(worked - waited >= time::ticks_of_ms(10));
        check!(worked - waited <= time::ticks_of_ms(60));
        Ok(())
    })
}

static STOP: AtomicBool = AtomicBool::new(false);
static WORK: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn work(number: usize) -> ! {
    while !STOP.load(Ordering::Relaxed) {
        if let Some(counter) = WORK.get(number) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    super::never(0)
}

extern "sysv64" fn worker_0(_utcb: u64) -> ! {
    work(0)
}

extern "sysv64" fn worker_1(_utcb: u64) -> ! {
    work(1)
}

fn reset() {
    STOP.store(false, Ordering::SeqCst);
    for counter in &WORK {
        counter.store(0, Ordering::SeqCst);
    }
}

fn counters() -> [u64; 2] {
    let [a, b] = &WORK;
    [a, b].map(|c| c.load(Ordering::SeqCst))
}

fn equal_priorities_share() -> Outcome {
    again(|| {
        let mut d = own();
        reset();
        let (cpu, priority) = (process::start().cpu, crate::runner::priority() - 1);
        ok!(d.spawn(cpu, priority, worker_0));
        ok!(d.spawn(cpu, priority, worker_1));
        time::sleep_ms(200);
        STOP.store(true, Ordering::SeqCst);
        let [a, b] = counters();
        check!(a > 0 && b > 0);
        // Budgets are 10 ms and the emulator stutters.
        check!(a < 8 * b && b < 8 * a);
        time::sleep_ms(25);
        Ok(())
    })
}

fn a_higher_priority_is_never_kept_waiting() -> Outcome {
    again(|| {
        let mut d = own();
        reset();
        ok!(d.spawn(process::start().cpu, crate::runner::priority() - 1, worker_0));
        // This thread is higher: it gets the CPU back at its deadline, while the other computes.
        // Well before the budget of the other ends, most of the time: the emulator stutters.
        let mut early = 0;
        for _ in 0..10 {
            let deadline = time::deadline_in_ms(3);
            time::sleep_ms(3);
            early += u32::from(time::now().saturating_sub(deadline) < time::ticks_of_ms(8));
        }
        check!(early >= 5);
        STOP.store(true, Ordering::SeqCst);
        check!(counters()[0] > 0);
        time::sleep_ms(5);
        Ok(())
    })
}

fn a_lower_priority_does_not_run() -> Outcome {
    let mut d = own();
    reset();
    ok!(d.spawn(process::start().cpu, crate::runner::priority() - 1, worker_0));
    spin_ms(50);
    let none = counters()[0];
    STOP.store(true, Ordering::SeqCst);
    same!(none, 0);
    time::sleep_ms(5);
    Ok(())
}

/// No tick: where nobody has anything to do, only the ends of waits interrupt.
fn an_idle_cpu_is_left_alone() -> Outcome {
    let (interrupts, idle) = (counter(Counter::Interrupt)?, counter(Counter::Idle)?);
    time::sleep_ms(400);
    check!(counter(Counter::Idle)? > idle);
    // This wait, and the watchdog's on a machine with one CPU. A slow tick of 50 Hz would be 20.
    check!(counter(Counter::Interrupt)? - interrupts < 12);
    Ok(())
}
