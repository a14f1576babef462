//! Runs the tests and leaves the emulator with the result.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc::cap::Selector;
use ipc::status::Status;
use sysroot::cap::{Cap, Sc};
use sysroot::sync::Mutex;
use sysroot::{log, process, syscall, thread, time};

use crate::check::{Failure, Outcome};
use crate::devices::exit_ports;
use crate::{bench, operator, poisoned, stress, tests};

/// A test.
pub(crate) struct Test {
    /// Its name: group and property.
    pub name: &'static str,
    /// What it does.
    pub run: fn() -> Outcome,
}

/// Declares the tests of a group.
macro_rules! group {
    ($group:literal: $($name:ident),+ $(,)?) => {
        pub(super) const TESTS: &[$crate::runner::Test] = &[
            $( $crate::runner::Test { name: concat!($group, "::", stringify!($name)), run: $name } ),+
        ];
    };
}
pub(crate) use group;

/// How long a test may take.
const LIMIT_MS: u64 = 120_000;

/// Values that `isa-debug-exit` turns into exit codes of the emulator.
const PASSED: u8 = 0x10;
const FAILED: u8 = 0x11;

/// The running test's deadline in milliseconds since boot; 0 for none. Release: the name below is
/// that of this test.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// Name of the running test.
static RUNNING: Mutex<&str> = Mutex::new("");
/// Set when the result is out: the watchdog stands down.
static OVER: AtomicBool = AtomicBool::new(false);

/// Runs the component.
pub(crate) fn main() {
    // Components that start meanwhile shall not disturb what is measured.
    time::sleep_ms(50);
    if let Err(status) = watch() {
        log!("the watchdog cannot start: {status}");
    }
    process::ready();
    if let Some(how) = process::argument("crash") {
        if process::has_argument("poisoned") {
            let Err(status) = poisoned::serve(how);
            log!("cannot serve clients: {status}");
        }
        crash(how);
    }
    if let Some(name) = process::argument("kill") {
        operator::run(name);
    }
    let config = thread::Config {
        priority: priority(),
        stack_order: 4,
        ..thread::Config::on(process::start().cpu)
    };
    let spawned = thread::spawn(config, || {
        finish(if process::has_argument("bench") {
            bench::run()
        } else if process::has_argument("stress") {
            stress::run()
        } else {
            run_tests()
        })
    });
    match spawned {
        Ok(thread) => OWN_SC.store(thread.sc.raw(), Ordering::Release),
        Err(status) => {
            log!("the tests cannot start: {status}");
            finish(false)
        }
    }
    process::park()
}

/// Priority of the thread that tests. Those that are to preempt it need room below the component's,
/// which is the ceiling.
pub(crate) fn priority() -> u8 {
    process::start().priority - 8
}

/// Selector of that thread's scheduling context; it is there before the thread runs.
static OWN_SC: AtomicU64 = AtomicU64::new(0);

/// The scheduling context of the thread that tests.
pub(crate) fn own_sc() -> Cap<Sc> {
    Cap::new(Selector(OWN_SC.load(Ordering::Acquire)))
}

fn run_tests() -> bool {
    let only = process::argument("only").unwrap_or("");
    let (mut passed, mut failed, mut skipped) = (0u32, 0u32, 0u32);
    let all = tests::GROUPS.iter().flat_map(|g| g.iter());
    for test in all.filter(|t| only.split(',').any(|part| t.name.contains(part))) {
        if left_out(test.name) {
            skipped += 1;
            log!("TEST {} ... skipped: left out", test.name);
            continue;
        }
        *RUNNING.lock() = test.name;
        log!("START {}", test.name);
        DEADLINE.store(time::uptime_ms() + LIMIT_MS, Ordering::Release);
        let outcome = (test.run)();
        DEADLINE.store(0, Ordering::Release);
        match outcome {
            Ok(()) => {
                passed += 1;
                log!("TEST {} ... ok", test.name);
            }
            Err(Failure::Skip(why)) => {
                skipped += 1;
                log!("TEST {} ... skipped: {why}", test.name);
            }
            Err(Failure::Wrong(why)) => {
                failed += 1;
                log!("TEST {} ... FAILED: {why}", test.name);
            }
        }
    }
    if skipped > 0 {
        log!("{skipped} skipped");
    }
    log!("{passed} passed, {failed} failed");
    failed == 0
}

/// Whether whoever started us knows that the machine cannot do what a test needs.
fn left_out(name: &str) -> bool {
    process::argument("skip").is_some_and(|names| names.split(',').any(|n| n == name))
}

/// Ends the component in a way that its supervisor has to deal with.
pub(crate) fn crash(how: &str) -> ! {
    log!("about to crash: {how}");
    match how {
        // SAFETY: faults.
        "fault" => _ = unsafe { crate::arch::write(8, 0) },
        "overflow" => _ = overflow(1),
        "panic" => assert_eq!(how, "no panic"),
        _ => {}
    }
    process::exit(3)
}

/// Uses up the stack.
#[inline(never)]
fn overflow(n: u64) -> u64 {
    let words = core::hint::black_box([n; 64]);
    words.iter().sum::<u64>() + if n == 0 { 0 } else { overflow(n + 1) }
}

/// A thread that ends the run where a test hangs.
fn watch() -> Result<(), Status> {
    let start = process::start();
    let cpu = start.cpus - 1;
    thread::spawn(thread::Config::on(cpu), || {
        while !OVER.load(Ordering::Relaxed) {
            time::sleep_ms(500);
            let deadline = DEADLINE.load(Ordering::Acquire);
            if deadline != 0 && time::uptime_ms() > deadline {
                log!("TEST {} ... FAILED: it did not end in time", RUNNING.lock());
                finish(false);
            }
        }
    })
    .map(drop)
}

/// Leaves the emulator, or ends the component where there is none.
fn finish(good: bool) -> ! {
    if !OVER.swap(true, Ordering::Relaxed) {
        // The lines shall get out first.
        time::sleep_ms(200);
        if let Some(port) = exit_ports() {
            port.write8(0, if good { PASSED } else { FAILED });
        }
    }
    process::exit(u32::from(!good))
}

/// Kernel memory that the component uses, in pages.
pub(crate) fn used() -> Result<u64, Status> {
    syscall::account(process::pd()).map(|a| a.used)
}
