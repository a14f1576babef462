//! Random operations over several domains on all CPUs at once, each checked against a naive model
//! of what everybody holds: what calls return, what queries tell, which memory and which ports can
//! be accessed, what accounts say; and that nothing is left in the end. Beside them somebody makes
//! calls that mean nothing.
//!
//! The sequence of operations of each operator follows from the seed; how operators interleave does
//! not. Arguments of the component: `seed=N` (any if left out), `seconds=N`.

mod model;
mod operator;
mod random;
mod wild;
mod world;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sysroot::{log, process, selector, thread, time};

use crate::runner::{priority, used};
use operator::Operator;

/// Operations between two complete comparisons.
const BETWEEN: u64 = 4096;
/// Least operations of all operators: before accounts are compared they have to have warmed up.
const WARM_UP: u64 = 2048;
/// Operations between two looks at the clock.
const GLANCE: u64 = 256;
/// How often the progress is told.
const TOLD_MS: u64 = 10_000;
/// Pages that may differ between start and end: tables of the object space with selectors in them
/// that the run-time library took meanwhile.
const SLACK: u64 = 8;

/// Operators that have ended, how many of them found something wrong; operations and calls of all.
static ENDED: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

fn number(key: &str) -> Option<u64> {
    process::argument(key).and_then(|value| value.parse().ok())
}

/// Runs it. Whether all was well.
pub(crate) fn run() -> bool {
    let seed = number("seed").unwrap_or_else(|| time::now() % 1_000_000);
    let seconds = number("seconds").unwrap_or(60);
    log!("STRESS seed {seed}, {seconds} s, {} CPUs", process::start().cpus);
    let mut passed = 0;
    let mut case = |name: &str, run: &mut dyn FnMut() -> Result<(), String>| {
        log!("START stress::{name}");
        match run() {
            Ok(()) => {
                passed += 1;
                log!("TEST stress::{name} ... ok");
            }
            Err(why) => log!("TEST stress::{name} ... FAILED: {why}"),
        }
    };
    let (mut before, cases) = (Ok(0), 3);
    case("warm_up", &mut || {
        round(seed, 0)?;
        before = used();
        Ok(())
    });
    case("operations", &mut || {
        round(seed + 1, seconds)?;
        let calls = CALLS.load(Ordering::Relaxed) + wild::calls();
        log!("STRESS {} operations, {calls} calls", OPERATIONS.load(Ordering::Relaxed));
        Ok(())
    });
    case("nothing_is_left", &mut || match (before, used()) {
        (Ok(before), Ok(after)) if after <= before + SLACK => {
            log!("STRESS {before} pages used before, {after} after");
            Ok(())
        }
        (before, after) => Err(format!("{after:?} pages used, {before:?} before")),
    });
    log!("{passed} passed, {} failed", cases - passed);
    passed == cases
}

/// One operator on each CPU for that long.
fn round(seed: u64, seconds: u64) -> Result<(), String> {
    ENDED.store(0, Ordering::SeqCst);
    let cpus = process::start().cpus;
    let end = time::deadline_in_ms(seconds * 1000);
    let mut threads = Vec::new();
    for cpu in 0..cpus {
        let config =
            thread::Config { stack_order: 4, priority: priority(), ..thread::Config::on(cpu) };
        let seed = seed.wrapping_mul(1000) + u64::from(cpu);
        let spawned = thread::spawn(config, move || {
            match operate(cpu, seed, end) {
                Ok(calls) => _ = CALLS.fetch_add(calls, Ordering::Relaxed),
                Err(why) => {
                    WRONG.fetch_add(1, Ordering::SeqCst);
                    log!("STRESS CPU {cpu}, seed {seed}: {why}");
                }
            }
            ENDED.fetch_add(1, Ordering::SeqCst);
        });
        threads.push(spawned.map_err(|status| format!("no operator on CPU {cpu}: {status}"))?);
    }
    let mut domains = Vec::new();
    for cpu in 0..cpus {
        let wild = wild::start(cpu, seed);
        domains.push(wild.map_err(|status| format!("nobody wild on CPU {cpu}: {status}"))?);
    }
    let mut told = time::uptime_ms();
    while ENDED.load(Ordering::SeqCst) < u32::from(cpus) {
        time::sleep_ms(50);
        if time::uptime_ms() > told + TOLD_MS {
            told = time::uptime_ms();
            let operations = OPERATIONS.load(Ordering::Relaxed);
            log!("STRESS {operations} operations, {} wild calls", wild::calls());
        }
    }
    wild::stop();
    drop(domains);
    for thread in threads {
        selector::delete(thread.sc.selector());
        selector::delete(thread.ec.selector());
    }
    match WRONG.load(Ordering::SeqCst) {
        0 => Ok(()),
        wrong => Err(format!("{wrong} operators found something wrong")),
    }
}

/// Random operations until the end; how many calls that were.
fn operate(cpu: u16, seed: u64, end: u64) -> Result<u64, String> {
    let mut operator = Operator::new(cpu, seed, cpu == 0)?;
    let mut operations = 0;
    loop {
        operator.step().map_err(|why| format!("operation {operations}: {why}"))?;
        operations += 1;
        if operations % BETWEEN == 0 {
            operator.compare_all().map_err(|why| format!("after {operations}: {why}"))?;
        }
        if operations % GLANCE == 0 {
            OPERATIONS.fetch_add(GLANCE, Ordering::Relaxed);
            if operations * u64::from(process::start().cpus) >= WARM_UP && time::now() > end {
                operator.compare_all().map_err(|why| format!("after {operations}: {why}"))?;
                return operator.close();
            }
        }
    }
}
