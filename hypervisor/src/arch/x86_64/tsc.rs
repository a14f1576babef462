//! The time-stamp counter: the kernel's clock.

use super::instr::{inb, outb, pause, rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};
use raw_cpuid::CpuId;

/// TSC when the kernel was entered. Written by the entry code before Rust runs.
pub static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
/// Ticks per millisecond; 0 until [`init`]. Relaxed: written before other CPUs start.
static KHZ: AtomicU64 = AtomicU64::new(0);

/// Finds the frequency; returns where from.
///
/// # Safety
/// Nobody else uses the 8254 timer. Called once at boot.
pub unsafe fn init() -> &'static str {
    let cpuid = CpuId::new();
    let crystal = || cpuid.get_tsc_info()?.tsc_frequency().map(|hz| hz / 1000);
    let hypervisor = || cpuid.get_hypervisor_info()?.tsc_frequency().map(u64::from);
    let (khz, source) = match crystal().or_else(hypervisor).filter(|&khz| khz != 0) {
        Some(khz) => (khz, "as CPUID says"),
        // SAFETY: the caller hands over the timer.
        None => unsafe { measure() }
            .map_or((1_000_000, "assumed: time is wrong"), |khz| (khz, "measured")),
    };
    KHZ.store(khz, Ordering::Relaxed);
    source
}

/// Ticks per millisecond; 0 before [`init`].
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// TSC when the kernel was entered.
pub fn boot() -> u64 {
    BOOT_TSC.load(Ordering::Relaxed)
}

/// Milliseconds since the kernel was entered; 0 while the frequency is unknown.
pub fn since_boot_ms() -> u64 {
    match khz() {
        0 => 0,
        khz => rdtsc().saturating_sub(boot()) / khz,
    }
}

/// Spins until `done` says so or the time is over; tells whether it was done.
pub fn wait_us(us: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = rdtsc();
    let ticks = us.saturating_mul(khz()) / 1000;
    loop {
        if done() {
            return true;
        }
        if rdtsc().wrapping_sub(start) >= ticks {
            return false;
        }
        pause();
    }
}

const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
const SPEAKER: u16 = 0x61;
const SPEAKER_GATE: u8 = 1 << 0;
const SPEAKER_DATA: u8 = 1 << 1;
const SPEAKER_OUT: u8 = 1 << 5;

/// Ticks per millisecond by channel 2 of the 8254. What disturbs (SMI, a busy emulator) shows as a
/// long register access at either end: measurements of 10 ms are repeated until both are short,
/// and what counts as short is less strict each time, as some machines are slow at that.
unsafe fn measure() -> Option<u64> {
    const ATTEMPTS: u64 = 100;
    let (mut ticks, mut doubt) = (0, u64::MAX);
    for attempt in 1..=ATTEMPTS {
        // SAFETY: the caller owns the timer.
        let new = unsafe { measure_once() }?;
        if new.1 < doubt {
            (ticks, doubt) = new;
        }
        if doubt.saturating_mul(1000) < ticks * attempt {
            break;
        }
    }
    Some(ticks.saturating_mul(PIT_HZ) / (u64::from(PIT_COUNT) * 1000))
}

/// About 10 ms.
const PIT_COUNT: u16 = 11_932;

/// The ticks that [`PIT_COUNT`] took, and those of the accesses within which that time started and
/// ended; `None` where there is no timer.
unsafe fn measure_once() -> Option<(u64, u64)> {
    const POLLS: u32 = 10_000_000;
    let [low, high] = PIT_COUNT.to_le_bytes();
    // SAFETY: gate and counter of channel 2 drive the speaker only, whose data bit is cleared.
    unsafe {
        let gate = inb(SPEAKER) & !SPEAKER_DATA | SPEAKER_GATE;
        outb(SPEAKER, gate & !SPEAKER_GATE);
        // Channel 2, both bytes, mode 0: the output rises when the count is over.
        outb(PIT_COMMAND, 0xb0);
        outb(PIT_CHANNEL_2, low);
        outb(PIT_CHANNEL_2, high);
        let before = rdtsc();
        outb(SPEAKER, gate);
        let start = rdtsc();
        // When the last poll that found the time not over began, and when it ended.
        let (mut began, mut ended) = (start, start);
        for poll in 0..POLLS {
            let over = inb(SPEAKER) & SPEAKER_OUT != 0;
            let now = rdtsc();
            if over {
                let (ticks, doubt) = (now - start, (now - began) + (start - before));
                // Over at once: there is no timer.
                return (poll > 0).then_some((ticks, doubt));
            }
            (began, ended) = (ended, now);
        }
    }
    None
}
