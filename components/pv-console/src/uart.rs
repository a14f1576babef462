//! A 16550 UART (PC16550D data sheet).

/// Access to its eight registers.
pub trait Registers {
    /// Reads one.
    fn read(&self, register: u16) -> u8;
    /// Writes one.
    fn write(&self, register: u16, value: u8);
}

impl Registers for sysroot::port::Ports {
    fn read(&self, register: u16) -> u8 {
        self.read8(register)
    }

    fn write(&self, register: u16, value: u8) {
        self.write8(register, value);
    }
}

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_ID: u16 = 2;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;

const ENABLE_RECEIVE: u8 = 1 << 0;
const ENABLE_TRANSMIT: u8 = 1 << 1;
const NO_INTERRUPT: u8 = 1 << 0;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes that the transmit FIFO takes when it is empty.
const FIFO: usize = 16;

/// The UART.
#[derive(Debug)]
pub struct Uart<R> {
    registers: R,
    transmit_interrupt: bool,
}

impl<R: Registers> Uart<R> {
    /// Sets it up: 115200 baud, 8 data bits, no parity, FIFOs, receive interrupts.
    pub fn new(registers: R) -> Self {
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, 0x80);
        registers.write(DATA, 1);
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, 0x03);
        // FIFOs on; what was received before stays.
        registers.write(FIFO_CONTROL, 0x01);
        // DTR, RTS, and OUT2, which lets interrupts through.
        registers.write(MODEM_CONTROL, 0x0b);
        registers.write(INTERRUPT_ENABLE, ENABLE_RECEIVE);
        Self { registers, transmit_interrupt: false }
    }

    /// Whether a UART answers at all.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.registers.read(LINE_STATUS) != 0xff
    }

    /// The next byte that came in.
    pub fn receive(&mut self) -> Option<u8> {
        let ready = self.registers.read(LINE_STATUS) & DATA_READY != 0;
        ready.then(|| self.registers.read(DATA))
    }

    /// Sends as many bytes as the transmitter takes now, and says so after each; how many.
    pub fn send(&mut self, bytes: &[u8], mut took: impl FnMut()) -> usize {
        if self.registers.read(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            return 0;
        }
        let chunk = bytes.get(..FIFO).unwrap_or(bytes);
        for &byte in chunk {
            self.registers.write(DATA, byte);
            took();
        }
        chunk.len()
    }

    /// Whether to interrupt when the transmitter is empty.
    pub fn set_transmit_interrupt(&mut self, on: bool) {
        if self.transmit_interrupt != on {
            self.transmit_interrupt = on;
            let transmit = if on { ENABLE_TRANSMIT } else { 0 };
            self.registers.write(INTERRUPT_ENABLE, ENABLE_RECEIVE | transmit);
        }
    }

    /// Acknowledges everything but received data, so that the edge of the next interrupt comes.
    pub fn acknowledge(&mut self) {
        const LINE: u8 = 0b0110;
        const MODEM: u8 = 0b0000;
        // A bound, as a broken device could go on for ever.
        for _ in 0..16 {
            match self.registers.read(INTERRUPT_ID) & 0x0f {
                id if id & NO_INTERRUPT != 0 => break,
                LINE => _ = self.registers.read(LINE_STATUS),
                MODEM => _ = self.registers.read(MODEM_STATUS),
                // Reading the register acknowledged the transmitter; data is read elsewhere.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
