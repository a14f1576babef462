//! The first serial port, polled: for lines before the console component runs, and when it is dead.

use core::sync::atomic::{AtomicBool, Ordering};

use sysroot::arch::{in8, out8};

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// Keeps lines of different CPUs apart, as far as possible. Acquire and release: orders the port
/// accesses of its holders.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Writes the parts of one line.
pub fn line(parts: &[&[u8]]) {
    // Its holder may be a thread that does not run while this one waits: then lines mix.
    let mine = (0..100_000).any(|_| {
        core::hint::spin_loop();
        !BUSY.swap(true, Ordering::Acquire)
    });
    for byte in parts.iter().flat_map(|p| p.iter()) {
        put(*byte);
    }
    put(b'\r');
    put(b'\n');
    if mine {
        BUSY.store(false, Ordering::Release);
    }
}

fn put(byte: u8) {
    // SAFETY: the root task holds all ports; this is a UART.
    unsafe {
        for _ in 0..100_000 {
            if in8(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
                break;
            }
            core::hint::spin_loop();
        }
        out8(DATA, byte);
    }
}
