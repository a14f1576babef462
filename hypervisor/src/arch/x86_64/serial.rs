//! The first serial port (16550), polled: where the kernel's log goes.

use super::instr::{inb, outb, pause};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// First port of the serial port.
pub const COM1: u16 = 0x3f8;
const DATA: u16 = COM1;
const INTERRUPTS: u16 = COM1 + 1;
const FIFO: u16 = COM1 + 2;
const LINE: u16 = COM1 + 3;
const MODEM: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;

const LINE_8N1: u8 = 0x03;
const LINE_DIVISOR: u8 = 0x80;
const MODEM_DTR_RTS_OUT2: u8 = 0x0b;
const STATUS_CAN_SEND: u8 = 1 << 5;

/// A port that stopped sending must not stop the kernel: polls per character.
const PATIENCE: u32 = 100_000;

/// Set when the port was found. Relaxed: written by the boot CPU before others start.
static PRESENT: AtomicBool = AtomicBool::new(false);

/// Sets the port to 115200 baud, 8N1, no interrupts, where there is one.
///
/// # Safety
/// Nobody else uses the port.
pub unsafe fn init() {
    // SAFETY: the caller hands over the port; writes to an absent one go nowhere.
    unsafe {
        for (port, value) in [
            (INTERRUPTS, 0),
            (LINE, LINE_DIVISOR),
            (DATA, 1),
            (INTERRUPTS, 0),
            (LINE, LINE_8N1),
            (FIFO, 0xc7),
            (MODEM, MODEM_DTR_RTS_OUT2),
        ] {
            outb(port, value);
        }
        // An absent port reads as ones.
        PRESENT.store(inb(LINE_STATUS) != 0xff, Ordering::Relaxed);
    }
}

/// The port as a text sink. Two of them may interleave characters but do no other harm.
pub struct Port;

impl Port {
    fn send(byte: u8) {
        // SAFETY: the port was found at boot; reading its status and sending touch no memory.
        unsafe {
            for _ in 0..PATIENCE {
                if inb(LINE_STATUS) & STATUS_CAN_SEND != 0 {
                    break;
                }
                pause();
            }
            outb(DATA, byte);
        }
    }
}

impl fmt::Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if PRESENT.load(Ordering::Relaxed) {
            for byte in text.bytes() {
                if byte == b'\n' {
                    Self::send(b'\r');
                }
                Self::send(byte);
            }
        }
        Ok(())
    }
}
