//! Which port and which address belongs to which device, and the devices that all vCPUs share.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::boot::layout;
use crate::console::Console;
use crate::devices::interrupt::{ApicBus, Targets};
use crate::devices::ioapic::{IoApic, Routes};
use crate::devices::pm::{self, Power};
use crate::devices::uart16550::{COM1, COM1_GSI, PORTS, Uart};
use crate::devices::virtio::{self, page};
use crate::num::{low8, low32, u64_of, usize_of};
use crate::policy::ports;

/// Last port of COM1.
const COM1_END: u16 = COM1 + PORTS as u16 - 1;

/// The owner of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortDevice {
    /// Register of the serial port.
    Uart(u16),
    /// Power management.
    Pm,
    /// Nothing, as expected: what it reads as.
    Absent(u8),
    /// Nothing, unexpectedly.
    Unknown,
}

fn port_device(port: u16) -> PortDevice {
    match port {
        COM1..=COM1_END => PortDevice::Uart(port - COM1),
        pm::SLEEP_CONTROL..=pm::RESET => PortDevice::Pm,
        _ => match ports::lookup(port) {
            Some(absent) => PortDevice::Absent(absent.value),
            None => PortDevice::Unknown,
        },
    }
}

/// The owner of a guest-physical address that is not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryDevice {
    /// Offset into the I/O APIC's page.
    IoApic(u64),
    /// Offset into the local APIC's page.
    Lapic(u64),
    /// Index of a virtio device, and offset into its page.
    Virtio(usize, u64),
    /// Nothing: reads as ones.
    Nothing,
}

/// Finds it.
#[must_use]
pub fn memory_device(gpa: u64) -> MemoryDevice {
    const PAGE: u64 = page::SIZE;
    const VIRTIO: u64 = layout::VIRTIO;
    const VIRTIO_END: u64 = VIRTIO + u64_of(virtio::MAX_DEVICES) * PAGE;
    match gpa {
        VIRTIO..VIRTIO_END => {
            let offset = gpa - VIRTIO;
            MemoryDevice::Virtio(usize_of(offset / PAGE), offset % PAGE)
        }
        layout::IOAPIC.. if gpa - layout::IOAPIC < PAGE => {
            MemoryDevice::IoApic(gpa - layout::IOAPIC)
        }
        layout::LAPIC.. if gpa - layout::LAPIC < PAGE => MemoryDevice::Lapic(gpa - layout::LAPIC),
        _ => MemoryDevice::Nothing,
    }
}

/// What a port access led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortOutcome {
    /// What was read.
    pub value: u64,
    /// The guest asked for this.
    pub power: Option<Power>,
    /// Nobody is expected at the port: to be logged.
    pub unknown: bool,
}

/// Devices that all vCPUs share. Whoever changes them passes the resulting messages on by
/// [`Self::settle`].
pub struct Devices {
    uart: Uart,
    ioapic: IoApic,
    seen: Seen,
}

impl Devices {
    /// After reset.
    #[must_use]
    pub fn new(console: Box<dyn Console>) -> Self {
        Self { uart: Uart::new(console), ioapic: IoApic::new(), seen: Seen::default() }
    }

    /// How interrupts get past the I/O APIC's registers.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.ioapic.routes()
    }

    /// Connects the serial line to another console.
    pub fn connect(&mut self, console: Box<dyn Console>) {
        self.uart.connect(console);
    }

    /// Resets them; the console stays connected.
    pub fn reset(&mut self) {
        self.uart.reset();
        self.ioapic.reset();
    }

    /// Reads `size` bytes from `port` on.
    pub fn port_read(&mut self, port: u16, size: u8) -> PortOutcome {
        let mut outcome = PortOutcome::default();
        for n in (0..size.min(8)).rev() {
            let value = match port_device(port.wrapping_add(u16::from(n))) {
                PortDevice::Uart(register) => self.uart.read(register),
                PortDevice::Pm => pm::read(port),
                PortDevice::Absent(value) => value,
                PortDevice::Unknown => {
                    outcome.unknown = true;
                    0xff
                }
            };
            outcome.value = outcome.value << 8 | u64::from(value);
        }
        outcome
    }

    /// Writes `size` bytes from `port` on.
    pub fn port_write(&mut self, port: u16, size: u8, value: u64) -> PortOutcome {
        let mut outcome = PortOutcome::default();
        for n in 0..size.min(8) {
            let (port, byte) = (port.wrapping_add(u16::from(n)), low8(value >> (n * 8)));
            match port_device(port) {
                PortDevice::Uart(register) => self.uart.write(register, byte),
                PortDevice::Pm => outcome.power = outcome.power.or(pm::write(port, byte)),
                // Pulse the reset line, the oldest way to restart a PC.
                PortDevice::Absent(_) if port == 0x64 && byte == 0xfe => {
                    outcome.power = Some(Power::Reset);
                }
                PortDevice::Absent(_) => {}
                PortDevice::Unknown => outcome.unknown = true,
            }
        }
        outcome
    }

    /// Reads four bytes of the I/O APIC.
    #[must_use]
    pub fn ioapic_read(&self, offset: u64) -> u32 {
        self.ioapic.read(offset)
    }

    /// Writes four bytes of the I/O APIC.
    pub fn ioapic_write(&mut self, offset: u64, value: u64, bus: &ApicBus) -> Targets {
        match self.ioapic.write(offset, low32(value)) {
            Some(message) => bus.deliver(message),
            None => Targets::default(),
        }
    }

    /// A device drives a pin that has no way past the I/O APIC: a rise, or the end of it.
    pub fn drive(&mut self, pin: u32, high: bool, bus: &ApicBus) -> Targets {
        let fall = self.ioapic.set_line(pin, false);
        let rise = if high { self.ioapic.set_line(pin, true) } else { None };
        let messages = fall.into_iter().chain(rise);
        messages.fold(Targets::default(), |targets, m| targets.and(bus.deliver(m)))
    }

    /// A local APIC finished a level-triggered vector.
    pub fn eoi(&mut self, vector: u8, bus: &ApicBus) -> Targets {
        let mut targets = Targets::default();
        self.ioapic.eoi(vector, |message| targets = targets.and(bus.deliver(message)));
        targets
    }

    /// Passes the devices' interrupt lines on to the I/O APIC.
    pub fn settle(&mut self, bus: &ApicBus) -> Targets {
        match self.ioapic.set_line(COM1_GSI, self.uart.line()) {
            Some(message) => bus.deliver(message),
            None => Targets::default(),
        }
    }

    /// Takes over what came in from outside the VM.
    pub fn poll(&mut self, bus: &ApicBus) -> Targets {
        self.uart.poll();
        self.settle(bus)
    }

    /// The guest pauses: shows its output.
    pub fn flush(&mut self) {
        self.uart.console().flush();
    }

    /// Whether `what` has not been logged yet, nor too much else.
    pub fn is_news(&mut self, what: Wild) -> bool {
        self.seen.add(what)
    }
}

/// An access that nobody expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wild {
    /// To a port.
    Port(u16),
    /// To a page that is neither RAM nor a device.
    Page(u64),
    /// To a model-specific register.
    Msr(u32),
}

/// Wild accesses that have been logged: each once, and not without end.
#[derive(Debug, Default)]
struct Seen {
    list: heapless::Vec<Wild, 64>,
}

impl Seen {
    fn add(&mut self, what: Wild) -> bool {
        !self.list.contains(&what) && self.list.push(what).is_ok()
    }
}

#[cfg(test)]
mod tests;
