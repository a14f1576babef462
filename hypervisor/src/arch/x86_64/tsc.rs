//! The time-stamp counter: the kernel's clock.

use super::instr::{inb, outb, pause, rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};
use raw_cpuid::CpuId;

/// TSC when the kernel was entered. Written by the entry code before Rust runs.
pub static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
/// Ticks per millisecond; 0 until [`init`]. Relaxed: written before other CPUs start.
static KHZ: AtomicU64 = AtomicU64::new(0);

/// Where the frequency came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 15h: ratio to the crystal.
    Crystal,
    /// CPUID leaf 4000_0010h of a hypervisor.
    Hypervisor,
    /// Measured against the 8254 timer.
    Measured,
    /// Nothing to go by: 1 GHz is assumed and time will be wrong.
    Assumed,
}

/// Finds the frequency.
///
/// # Safety
/// Nobody else uses the 8254 timer. Called once at boot.
pub unsafe fn init() -> Source {
    let cpuid = CpuId::new();
    let crystal = || cpuid.get_tsc_info()?.tsc_frequency().map(|hz| hz / 1000);
    let hypervisor = || cpuid.get_hypervisor_info()?.tsc_frequency().map(u64::from);
    let (khz, source) = if let Some(khz) = crystal().filter(|&khz| khz != 0) {
        (khz, Source::Crystal)
    } else if let Some(khz) = hypervisor().filter(|&khz| khz != 0) {
        (khz, Source::Hypervisor)
    // SAFETY: the caller hands over the timer.
    } else if let Some(khz) = unsafe { measure() } {
        (khz, Source::Measured)
    } else {
        (1_000_000, Source::Assumed)
    };
    KHZ.store(khz, Ordering::Relaxed);
    source
}

/// Ticks per millisecond; 0 before [`init`].
#[inline]
#[must_use]
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// TSC when the kernel was entered.
#[must_use]
pub fn boot() -> u64 {
    BOOT_TSC.load(Ordering::Relaxed)
}

/// Milliseconds since the kernel was entered; 0 while the frequency is unknown.
#[must_use]
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

/// Ticks per millisecond by channel 2 of the 8254: the best of three measurements of 10 ms, since
/// a disturbance (SMI, a busy emulator) only ever makes one longer.
unsafe fn measure() -> Option<u64> {
    // SAFETY: the caller owns the timer.
    (0..3).filter_map(|_| unsafe { measure_once() }).min()
}

unsafe fn measure_once() -> Option<u64> {
    const COUNT: u16 = 11_932;
    const POLLS: u32 = 10_000_000;
    let [low, high] = COUNT.to_le_bytes();
    // SAFETY: gate and counter of channel 2 drive the speaker only, whose data bit is cleared.
    unsafe {
        let gate = inb(SPEAKER) & !SPEAKER_DATA | SPEAKER_GATE;
        outb(SPEAKER, gate & !SPEAKER_GATE);
        // Channel 2, both bytes, mode 0: the output rises when the count is over.
        outb(PIT_COMMAND, 0xb0);
        outb(PIT_CHANNEL_2, low);
        outb(PIT_CHANNEL_2, high);
        outb(SPEAKER, gate);
        let start = rdtsc();
        if inb(SPEAKER) & SPEAKER_OUT != 0 {
            return None; // no timer here: the output cannot be high yet
        }
        for _ in 0..POLLS {
            if inb(SPEAKER) & SPEAKER_OUT != 0 {
                let ticks = rdtsc().wrapping_sub(start);
                return Some(ticks.saturating_mul(PIT_HZ) / (u64::from(COUNT) * 1000));
            }
        }
    }
    None
}
