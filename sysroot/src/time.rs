//! Time by the TSC, which every CPU of the machine reads alike.

use ipc::cap::Selector;
use ipc::proto::start::PARK_SELECTOR;

use crate::cap::{Cap, Down, Semaphore};
use crate::{arch, process};

/// The TSC now.
#[inline]
#[must_use]
pub fn now() -> u64 {
    arch::tsc()
}

/// Milliseconds as TSC ticks.
#[must_use]
pub fn ticks_of_ms(ms: u64) -> u64 {
    ms.saturating_mul(process::try_start().map_or(1, |s| s.tsc_khz))
}

/// TSC ticks as milliseconds.
#[must_use]
pub fn ms_of_ticks(ticks: u64) -> u64 {
    process::try_start().and_then(|s| ticks.checked_div(s.tsc_khz)).unwrap_or(0)
}

/// The TSC value `ms` milliseconds from now: a deadline for semaphores.
#[must_use]
pub fn deadline_in_ms(ms: u64) -> u64 {
    now().saturating_add(ticks_of_ms(ms))
}

/// Milliseconds from machine start to a TSC value.
#[must_use]
pub fn ms_at(tsc: u64) -> u64 {
    process::try_start()
        .and_then(|s| tsc.saturating_sub(s.boot_tsc).checked_div(s.tsc_khz))
        .unwrap_or(0)
}

/// Milliseconds since the machine started.
#[must_use]
pub fn uptime_ms() -> u64 {
    ms_at(now())
}

/// Sleeps.
pub fn sleep_ms(ms: u64) {
    let never: Cap<Semaphore, Down> = Cap::new(Selector(u64::from(PARK_SELECTOR)));
    let _ = never.down_until(deadline_in_ms(ms));
}
