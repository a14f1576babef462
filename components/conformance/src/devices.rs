//! The devices that the configuration gives to the suite.

use ipc::cap::Selector;
use ipc::proto::start::Area;
use sysroot::cap::{Cap, Interrupt};
use sysroot::num::usize_of;
use sysroot::port::Ports;
use sysroot::process;

use crate::check::Failure;

/// Ports of the emulator's exit device, by whatever name it was given.
pub(crate) fn exit_ports() -> Option<Ports> {
    const FIRST: u16 = 0xf4;
    let mut devices = process::start().devices.iter();
    devices.find_map(|d| Ports::of(d, 0).filter(|p| p.first() == FIRST))
}

/// Ports of the programmable interval timer: channel 0 is ISA interrupt 0.
pub(crate) struct Timer(Ports);

impl Timer {
    /// The timer, its interrupt and that one's trigger flags.
    pub(crate) fn find() -> Result<(Self, Cap<Interrupt>, u64), Failure> {
        let (device, interrupt) = process::start()
            .devices
            .iter()
            .find_map(|d| d.interrupts.iter().find(|i| i.line == 0).map(|i| (d, i)))
            .ok_or(Failure::Skip("no timer in the configuration"))?;
        let ports = Ports::of(device, 0).ok_or(Failure::Skip("the timer has no ports"))?;
        let source = Cap::new(Selector(interrupt.selector.into()));
        Ok((Self(ports), source, interrupt.trigger))
    }

    /// One interrupt after about a millisecond.
    pub(crate) fn fire(&self) {
        self.fire_after(0x04a9);
    }

    /// One interrupt after so many ticks of 838 ns. The line is low until then, and high from then
    /// on.
    pub(crate) fn fire_after(&self, ticks: u16) {
        let [low, high] = ticks.to_le_bytes();
        // Channel 0, both bytes, mode 0 (8254 data sheet).
        self.0.write8(3, 0x30);
        self.0.write8(0, low);
        self.0.write8(0, high);
    }
}

/// A 32-bit register of a device, at an offset of memory that the root task mapped for good.
fn register(area: Area, at: u32) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(usize_of(area.base + u64::from(at)))
}

fn read(area: Area, at: u32) -> u32 {
    // SAFETY: callers name registers of the card where the root task, or a case, has mapped them.
    unsafe { register(area, at).read_volatile() }
}

fn write(area: Area, at: u32, value: u32) {
    // SAFETY: as in `read`; nobody tells the card of memory that it could write to.
    unsafe { register(area, at).write_volatile(value) }
}

/// How a card interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// The one message that all causes share (PCI Local Bus 3.0, 6.8.1).
    Msi,
    /// An entry of the table (PCI Local Bus 3.0, 6.8.2).
    MsiX(u32),
}

/// A network card whose causes of interrupts software can raise: an 82574.
pub(crate) struct Card {
    config: Area,
    /// Its own registers.
    pub(crate) registers: Area,
    /// Entries of 16 bytes: address, data, control.
    table: Area,
    msi: u32,
    msi_x: u32,
    /// What its messages are bound with.
    vectors: &'static [u32],
}

/// Device status (82574L data sheet, 10.2.2).
const STATUS: u32 = 8;
/// Cause read and clear, cause set, mask set, mask clear, vectors (82574L data sheet, 10.2.4).
const ICR: u32 = 0xc0;
const ICS: u32 = 0xc8;
const IMS: u32 = 0xd0;
const IMC: u32 = 0xd8;
const IVAR: u32 = 0xe4;
/// The cause that is used: receive queue 0, whose vector is in the lowest bits of `IVAR`.
const CAUSE: u32 = 1 << 20;
const IVAR_VALID: u32 = 1 << 3;
/// On, in the upper half of the first register of either capability.
const MSI_ON: u32 = 1 << 16;
const MSI_X_ON: u32 = 1 << 31;

impl Card {
    /// The card, silent.
    pub(crate) fn find() -> Result<Self, Failure> {
        let find = || {
            let device = process::device("card")?;
            let pci = device.pci.as_ref()?;
            let bar = |number| {
                let n = pci.bars.iter().position(|n| u32::from(*n) == number)?;
                device.mmio.get(n).map(|m| m.mapped)
            };
            let config = pci.config;
            let (msi, msi_x) = (capability(config, 0x05)?, capability(config, 0x11)?);
            let place = read(config, msi_x + 4);
            let mut table = bar(place & 7)?;
            table.base += u64::from(place & !7);
            Some(Self { config, registers: bar(0)?, table, msi, msi_x, vectors: &pci.vectors })
        };
        let card = find().ok_or(Failure::Skip("no card with messages in the configuration"))?;
        // Memory, bus master, no line.
        let command = read(card.config, 4);
        write(card.config, 4, command | 1 << 1 | 1 << 2 | 1 << 10);
        card.quiet();
        Ok(card)
    }

    /// An interrupt of its own.
    pub(crate) fn vector(&self, n: usize) -> Result<Cap<Interrupt>, Failure> {
        let selector = self.vectors.get(n).ok_or(Failure::Skip("too few vectors"))?;
        Ok(Cap::new(Selector((*selector).into())))
    }

    /// The status register, where its registers are mapped at that address.
    pub(crate) fn status_at(&self, base: u64) -> u32 {
        read(Area { base, ..self.registers }, STATUS)
    }

    /// Lets it send a message.
    pub(crate) fn aim(&self, how: Message, (address, data): (u64, u64)) {
        let [address, high, data] =
            [address, address >> 32, data].map(|v| u32::try_from(v & 0xffff_ffff).unwrap_or(0));
        self.quiet();
        let control = |at, on: u32, off: u32| {
            write(self.config, at, read(self.config, at) & !off | on);
        };
        match how {
            Message::Msi => {
                control(self.msi_x, 0, MSI_X_ON);
                // Its addresses have 64 bits.
                for (at, value) in [(4, address), (8, high), (12, data)] {
                    write(self.config, self.msi + at, value);
                }
                control(self.msi, MSI_ON, 0);
            }
            Message::MsiX(n) => {
                control(self.msi, 0, MSI_ON);
                for (at, value) in [(0, address), (4, high), (8, data), (12, 0)] {
                    write(self.table, 16 * n + at, value);
                }
                write(self.registers, IVAR, IVAR_VALID | n);
                control(self.msi_x, MSI_X_ON, 0);
            }
        }
    }

    /// Raises the cause. The card may repeat its message until [`Self::quiet`].
    pub(crate) fn fire(&self) {
        write(self.registers, IMS, CAUSE);
        write(self.registers, ICS, CAUSE);
    }

    /// Ends the cause.
    pub(crate) fn quiet(&self) {
        write(self.registers, IMC, u32::MAX);
        write(self.registers, ICR, u32::MAX);
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.quiet();
    }
}

/// Where a capability is in configuration space.
fn capability(config: Area, id: u32) -> Option<u32> {
    let mut at = read(config, 0x34) & 0xfc;
    // More do not fit.
    for _ in 0..48 {
        let header = read(config, at);
        match (at, header & 0xff) {
            (0, _) => return None,
            (_, found) if found == id => return Some(at),
            _ => at = header >> 8 & 0xfc,
        }
    }
    None
}
