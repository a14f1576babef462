//! Serial port with a 16550A (National Semiconductor PC16550D).
//!
//! The line is infinitely fast: a byte written is on the console at once, unless the console is
//! full, which the guest sees as a transmitter that is busy.

use alloc::boxed::Box;

use crate::console::Console;
use crate::num::u64_of;

/// First port of COM1.
pub const COM1: u16 = 0x3f8;
/// Number of ports.
pub const PORTS: u8 = 8;
/// Global system interrupt of COM1.
pub const COM1_GSI: u32 = 4;

const FIFO: usize = 16;

// Interrupt enable register.
const IER_RECEIVED: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;
// Interrupt identification register, in order of priority.
const IIR_LINE: u8 = 0x06;
const IIR_RECEIVED: u8 = 0x04;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_EMPTY: u8 = 0x02;
const IIR_MODEM: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_FIFO: u8 = 0xc0;
// FIFO control register.
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
// Line control register.
const LCR_DLAB: u8 = 1 << 7;
// Modem control register.
const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
/// Gates the interrupt line on a PC.
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
// Line status register.
const LSR_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_EMPTY: u8 = 1 << 5 | 1 << 6;
// Modem status register.
const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;

/// Received bytes that wait for the guest.
#[derive(Clone, Copy, Debug, Default)]
struct Fifo {
    bytes: [u8; FIFO],
    start: usize,
    len: usize,
}

impl Fifo {
    fn push(&mut self, byte: u8) -> bool {
        let end = (self.start + self.len) % FIFO;
        match self.bytes.get_mut(end) {
            Some(slot) if self.len < FIFO => {
                *slot = byte;
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    fn pop(&mut self) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let byte = self.bytes.get(self.start).copied();
        self.start = (self.start + 1) % FIFO;
        self.len -= 1;
        byte
    }
}

/// The serial port.
pub struct Uart {
    console: Box<dyn Console>,
    receiver: Fifo,
    divisor: [u8; 2],
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    overrun: bool,
    /// Change bits of the modem status register.
    modem_delta: u8,
    /// The transmitter ran empty and the guest has not been told.
    empty_pending: bool,
    /// The console was full when a byte was written.
    blocked: bool,
}

impl Uart {
    /// After reset, connected to a console.
    #[must_use]
    pub fn new(console: Box<dyn Console>) -> Self {
        Self {
            console,
            receiver: Fifo::default(),
            // 115200 baud.
            divisor: [1, 0],
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scratch: 0,
            overrun: false,
            modem_delta: 0,
            empty_pending: false,
            blocked: false,
        }
    }

    /// Connects another console.
    pub fn connect(&mut self, console: Box<dyn Console>) {
        self.console = console;
    }

    /// The console behind the line.
    pub fn console(&mut self) -> &mut dyn Console {
        &mut *self.console
    }

    /// Puts the registers into their reset state; the console keeps what it has.
    pub fn reset(&mut self) {
        self.receiver = Fifo::default();
        self.divisor = [1, 0];
        (self.ier, self.fcr, self.lcr, self.mcr, self.scratch) = (0, 0, 0, 0, 0);
        (self.overrun, self.empty_pending, self.blocked) = (false, false, false);
        self.modem_delta = 0;
    }

    /// Takes over what the console has: input into the receiver, room for the transmitter.
    pub fn poll(&mut self) {
        if self.mcr & MCR_LOOP == 0 {
            let room = if self.fcr & FCR_ENABLE != 0 { FIFO } else { 1 };
            while self.receiver.len < room
                && let Some(byte) = self.console.get()
            {
                self.receiver.push(byte);
            }
        }
        if self.blocked && self.console.is_ready() {
            self.blocked = false;
            self.empty_pending = true;
        }
    }

    /// Level of the interrupt line.
    #[must_use]
    pub fn line(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.interrupt() != IIR_NONE
    }

    fn interrupt(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if self.ier & IER_RECEIVED != 0 && self.receiver.len >= self.trigger() {
            IIR_RECEIVED
        } else if self.ier & IER_RECEIVED != 0 && self.receiver.len > 0 {
            // Four character times have always passed.
            IIR_TIMEOUT
        } else if self.ier & IER_EMPTY != 0 && self.empty_pending {
            IIR_EMPTY
        } else if self.ier & IER_MODEM != 0 && self.modem_delta != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn trigger(&self) -> usize {
        if self.fcr & FCR_ENABLE == 0 {
            return 1;
        }
        match self.fcr >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    /// Reads a register.
    pub fn read(&mut self, register: u16) -> u8 {
        match register & 7 {
            0 if self.divisor_latch() => self.divisor[0],
            1 if self.divisor_latch() => self.divisor[1],
            0 => {
                let byte = self.receiver.pop().unwrap_or(0);
                self.poll();
                byte
            }
            1 => self.ier,
            2 => {
                let id = self.interrupt();
                if id == IIR_EMPTY {
                    self.empty_pending = false;
                }
                if self.fcr & FCR_ENABLE != 0 { id | IIR_FIFO } else { id }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => self.line_status(),
            6 => {
                let status = self.modem_status() | self.modem_delta;
                self.modem_delta = 0;
                status
            }
            _ => self.scratch,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, register: u16, value: u8) {
        match register & 7 {
            0 if self.divisor_latch() => self.divisor[0] = value,
            1 if self.divisor_latch() => self.divisor[1] = value,
            0 => self.transmit(value),
            1 => {
                // Enabling the interrupt while the transmitter is empty raises it.
                if value & !self.ier & IER_EMPTY != 0 && !self.blocked {
                    self.empty_pending = true;
                }
                self.ier = value & 0xf;
            }
            2 => self.set_fifo_control(value),
            3 => self.lcr = value,
            4 => self.set_modem_control(value),
            7 => self.scratch = value,
            // The status registers are read-only.
            _ => {}
        }
    }

    fn divisor_latch(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn transmit(&mut self, byte: u8) {
        if self.mcr & MCR_LOOP != 0 {
            if !self.receiver.push(byte) {
                self.overrun = true;
            }
        } else {
            self.console.put(byte);
            self.blocked = !self.console.is_ready();
        }
        self.empty_pending = !self.blocked;
    }

    fn set_fifo_control(&mut self, value: u8) {
        // A change of mode clears the FIFO as well.
        if value & FCR_CLEAR_RECEIVER != 0 || (value ^ self.fcr) & FCR_ENABLE != 0 {
            self.receiver = Fifo::default();
        }
        // The other bits count only while FIFOs are enabled.
        self.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
        self.poll();
    }

    fn set_modem_control(&mut self, value: u8) {
        let before = self.modem_status();
        self.mcr = value & 0x1f;
        let after = self.modem_status();
        // Changes of CTS, DSR and DCD, and the end of a ring.
        let ring_ended = before & !after & MSR_RI;
        self.modem_delta |= ((before ^ after) & !MSR_RI | ring_ended) >> 4;
        self.poll();
    }

    fn line_status(&mut self) -> u8 {
        if self.blocked {
            self.poll();
        }
        let ready = if self.receiver.len > 0 { LSR_READY } else { 0 };
        let overrun = if self.overrun { LSR_OVERRUN } else { 0 };
        let empty = if self.blocked { 0 } else { LSR_EMPTY };
        self.overrun = false;
        ready | overrun | empty
    }

    /// In loopback the outputs are the inputs; otherwise somebody is always connected.
    fn modem_status(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_CTS | MSR_DSR | MSR_DCD;
        }
        [(MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)]
            .into_iter()
            .filter(|(output, _)| self.mcr & output != 0)
            .fold(0, |status, (_, input)| status | input)
    }

    /// Received bytes that wait in the FIFO.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        u64_of(self.receiver.len)
    }
}

#[cfg(test)]
mod tests;
