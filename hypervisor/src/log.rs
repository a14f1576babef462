//! The kernel's log: lines on the serial port until user space takes the port over.

use crate::arch::{entry, instr, serial, tsc};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::mutex::SpinMutex;

/// Keeps lines of different CPUs apart.
static PORT: SpinMutex<serial::Port> = SpinMutex::new(serial::Port);
/// Relaxed: a line more or less around the hand-over does no harm.
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Switches output on or off; off once a driver in user space owns the serial port.
pub fn set_enabled(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

/// Writes one line, prefixed with the seconds since boot. Used through [`crate::log!`].
pub fn line(text: fmt::Arguments) {
    if ENABLED.load(Ordering::Relaxed) {
        write(&mut PORT.lock(), text);
    }
}

/// Writes one line whatever the state of the log: the lock is waited for only so long, since its
/// holder may be the CPU that panics, and a port that was given away is used all the same.
pub fn emergency(text: fmt::Arguments) {
    let guard = (0..1_000_000).find_map(|_| {
        core::hint::spin_loop();
        PORT.try_lock()
    });
    match guard {
        Some(mut port) => write(&mut port, text),
        None => write(&mut serial::Port, text),
    }
}

/// Writes such a line, and how the kernel came there, and stops this CPU.
pub fn fatal(why: fmt::Arguments) -> ! {
    emergency(why);
    stop(entry::frame_pointer())
}

/// Writes the return addresses on the stack, from the frame at `frame` on, and stops this CPU. The
/// host's tools put names to the addresses.
pub fn stop(frame: u64) -> ! {
    entry::return_addresses(frame, |address| emergency(format_args!("  at {address:#018x}")));
    instr::halt_forever()
}

fn write(port: &mut serial::Port, text: fmt::Arguments) {
    let ms = tsc::since_boot_ms();
    // The port itself never fails; a Display that does loses the rest of its line.
    let _ = writeln!(port, "[{:5}.{:03}] {text}", ms / 1000, ms % 1000);
}

/// Logs one line, formatted as by `format!`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::line(core::format_args!($($arg)*)) };
}
