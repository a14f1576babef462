//! A virtio PCI function as its driver sees it (virtio 1.2, 4.1).

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use ipc::cap::Selector;
use ipc::proto::start::{Area, Device, Interrupt as Line, Pci};
use ipc::status::Status;
use ipc::syscall::MESSAGE_SIGNALLED;
use sysroot::cap::{Cap, Interrupt};
use sysroot::num::usize_of;
use sysroot::{process, syscall, time};
use virtio_numbers::status;

use super::layout::{Layout, LayoutError, Msix, Place, SPACE};
use super::ring::{Dma, Ring};
use crate::num::{low16, low32};
use crate::queue::VERSION_1;
use crate::ram::Ram;

/// Registers of the common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_VECTOR: u64 = 16;
    pub const STATUS: u64 = 20;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const QUEUE_NOTIFY_OFF: u64 = 30;
    pub const QUEUE_DESCRIPTORS: u64 = 32;
    pub const QUEUE_AVAILABLE: u64 = 40;
    pub const QUEUE_USED: u64 = 48;
}

/// Command register of the function, and its bits: memory, bus master, no INTx.
const COMMAND: u64 = 4;
const COMMAND_ON: u64 = 1 << 1 | 1 << 2;
const COMMAND_NO_INTX: u64 = 1 << 10;
/// MSI-X control: on, and all vectors masked.
const MSIX_ON: u64 = 1 << 15;
const MSIX_MASKED: u64 = 1 << 14;
/// No vector.
const NO_VECTOR: u64 = 0xffff;
/// How long a reset may take.
const RESET_MS: u64 = 1000;

/// Why a function cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionError {
    /// The device of the configuration is no PCI function.
    NoFunction,
    /// The root task gave it no memory for DMA.
    NoMemory,
    /// Its registers are not as they should be.
    Layout(LayoutError),
    /// A BAR with registers is missing or too small.
    Bar(u8),
    /// It has no interrupt.
    NoInterrupt,
    /// Binding the interrupt failed.
    Bind(Status),
    /// It does not end its reset.
    Reset,
    /// It does not take the features.
    Features(u64),
    /// It does not have this queue, or one as large.
    Queue(u16),
    /// It does not take the interrupt vector.
    Vector,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFunction => write!(f, "no PCI function"),
            Self::NoMemory => write!(f, "no memory for DMA"),
            Self::Layout(e) => e.fmt(f),
            Self::Bar(n) => write!(f, "BAR {n} missing or too small"),
            Self::NoInterrupt => write!(f, "no interrupt"),
            Self::Bind(status) => write!(f, "interrupt: {status}"),
            Self::Reset => write!(f, "reset does not end"),
            Self::Features(bits) => write!(f, "features {bits:#x} refused"),
            Self::Queue(n) => write!(f, "no queue {n} of that size"),
            Self::Vector => write!(f, "interrupt vector refused"),
        }
    }
}

impl core::error::Error for FunctionError {}

impl From<LayoutError> for FunctionError {
    fn from(e: LayoutError) -> Self {
        Self::Layout(e)
    }
}

/// Mapped registers.
#[derive(Clone, Copy, Debug)]
struct Registers {
    base: NonNull<u8>,
    size: u64,
}

// SAFETY: an address range that stays mapped; each access is a single one of the machine.
unsafe impl Send for Registers {}

impl Registers {
    /// Registers that the root task mapped.
    fn new(area: Area) -> Option<Self> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(usize_of(area.base)))?;
        Some(Self { base, size: area.size })
    }

    fn part(self, place: Place) -> Option<Self> {
        let end = u64::from(place.offset) + u64::from(place.len);
        if end > self.size {
            return None;
        }
        // SAFETY: the offset lies in the range.
        let base = unsafe { self.base.add(usize_of(place.offset.into())) };
        Some(Self { base, size: place.len.into() })
    }

    /// Reads a register of `size` bytes, 1, 2 or 4. What does not exist reads as all ones.
    fn read(self, at: u64, size: u64) -> u64 {
        if at.saturating_add(size) > self.size || !at.is_multiple_of(size) {
            return u64::MAX;
        }
        // SAFETY: in range and aligned, as BARs are to pages and offsets were checked; `new`'s
        // caller knows that they are mapped.
        unsafe {
            let register = self.base.add(usize_of(at));
            match size {
                1 => register.read_volatile().into(),
                2 => register.cast::<u16>().read_volatile().into(),
                _ => register.cast::<u32>().read_volatile().into(),
            }
        }
    }

    /// Writes a register of `size` bytes, 1, 2 or 4. What does not exist is not written.
    fn write(self, at: u64, size: u64, value: u64) {
        if at.saturating_add(size) > self.size || !at.is_multiple_of(size) {
            return;
        }
        // SAFETY: as in `read`.
        unsafe {
            let register = self.base.add(usize_of(at));
            match size {
                1 => register.write_volatile(crate::num::low8(value)),
                2 => register.cast::<u16>().write_volatile(low16(value)),
                _ => register.cast::<u32>().write_volatile(low32(value)),
            }
        }
    }

    /// Writes a register of 8 bytes, in halves (virtio 1.2, 4.1.3.1).
    fn write_long(self, at: u64, value: u64) {
        self.write(at, 4, value & 0xffff_ffff);
        self.write(at + 4, 4, value >> 32);
    }
}

/// How the function interrupts.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Vector 0 of MSI-X.
    Message,
    /// A line, which others may share.
    Line(Cap<Interrupt>),
}

/// A function that is being driven.
#[derive(Debug)]
pub struct Function {
    common: Registers,
    notify: Registers,
    multiplier: u32,
    isr: Registers,
    device: Option<Registers>,
    source: Source,
    /// Notification register of each queue.
    doorbells: Vec<u64>,
}

impl Function {
    /// Resets the function and binds its interrupt to the component's semaphore with this badge:
    /// MSI-X where it can, else its line. Then come [`Self::negotiate`], [`Self::queue`] and
    /// [`Self::start`].
    ///
    /// # Errors
    /// [`FunctionError`]
    pub fn open(device: &Device<'_>, badge: u64) -> Result<Self, FunctionError> {
        let pci = device.pci.as_ref().ok_or(FunctionError::NoFunction)?;
        let config = Registers::new(pci.config).ok_or(FunctionError::NoFunction)?;
        let mut space = [0; SPACE];
        for (at, to) in (0..).step_by(4).zip(space.chunks_exact_mut(4)) {
            to.copy_from_slice(&low32(config.read(at, 4)).to_le_bytes());
        }
        let layout = Layout::parse(&space)?;
        let part = |place: Place| {
            let bar = bar(device, pci, place.bar);
            let part = bar.and_then(Registers::new).and_then(|bar| bar.part(place));
            part.ok_or(FunctionError::Bar(place.bar))
        };
        let command = config.read(COMMAND, 2) | COMMAND_ON;
        config.write(COMMAND, 2, command);
        let common = part(layout.common)?;
        reset(common)?;
        let message = pci.vectors.first().zip(layout.msix);
        let source = match (message, device.interrupts.first()) {
            (Some((vector, msix)), _) => {
                bind_message(*vector, config, msix, part(msix.table)?, badge)?;
                config.write(COMMAND, 2, command | COMMAND_NO_INTX);
                Source::Message
            }
            (None, Some(line)) => Source::Line(bind_line(*line, badge)?),
            (None, None) => return Err(FunctionError::NoInterrupt),
        };
        Ok(Self {
            common,
            notify: part(layout.notify)?,
            multiplier: layout.multiplier,
            isr: part(layout.isr)?,
            device: layout.device.map(part).transpose()?,
            source,
            doorbells: Vec::new(),
        })
    }

    /// The memory for DMA, all of it zero: after the reset the device does not use it.
    ///
    /// # Errors
    /// The root task gave the function none.
    pub fn memory(&self, device: &Device<'_>) -> Result<Dma, FunctionError> {
        let area = device.pci.as_ref().and_then(|p| p.dma).ok_or(FunctionError::NoMemory)?;
        let base = core::ptr::with_exposed_provenance_mut(usize_of(area.mapped.base));
        let base = NonNull::new(base).ok_or(FunctionError::NoMemory)?;
        // SAFETY: the root task mapped it there for good, aligned to pages, and nothing else is
        // placed there.
        let memory = unsafe { Ram::new(base, area.mapped.size) };
        let zero = [0; 4096];
        for page in (0..memory.size()).step_by(zero.len()) {
            memory.write(page, &zero).map_err(|_| FunctionError::NoMemory)?;
        }
        Ok(Dma { memory, physical: area.physical })
    }

    /// Agrees on those of the `wanted` features that the device offers; returns them. They do not
    /// include the one without which nothing works.
    ///
    /// # Errors
    /// The device has no modern interface, or takes fewer than it offers.
    pub fn negotiate(&mut self, wanted: u64) -> Result<u64, FunctionError> {
        let mut offered = 0;
        for half in [0, 1] {
            self.common.write(common::DEVICE_FEATURE_SELECT, 4, half);
            offered |= self.common.read(common::DEVICE_FEATURE, 4) << (32 * half);
        }
        let agreed = offered & (wanted | VERSION_1);
        for half in [0, 1] {
            self.common.write(common::DRIVER_FEATURE_SELECT, 4, half);
            self.common.write(common::DRIVER_FEATURE, 4, agreed >> (32 * half) & 0xffff_ffff);
        }
        self.add_status(status::FEATURES_OK);
        let taken = self.common.read(common::STATUS, 1) & u64::from(status::FEATURES_OK) != 0;
        if agreed & VERSION_1 == 0 || !taken {
            return Err(FunctionError::Features(agreed));
        }
        Ok(agreed & !VERSION_1)
    }

    /// Sets up the next queue, whose ring is at offset `at` of the memory: of `size` descriptors,
    /// or as many as the device takes.
    ///
    /// # Errors
    /// The device does not have it, or not with the `parts` of one request; the ring does not fit
    /// there.
    pub fn queue(
        &mut self,
        dma: &Dma,
        at: u64,
        size: u16,
        parts: u16,
    ) -> Result<Ring, FunctionError> {
        let index = u16::try_from(self.doorbells.len()).unwrap_or(u16::MAX);
        let registers = self.common;
        registers.write(common::QUEUE_SELECT, 2, index.into());
        let most = low16(registers.read(common::QUEUE_SIZE, 2));
        // At reset it is a power of two, as sizes have to be.
        let size = size.min(most);
        if size < parts || !size.is_power_of_two() {
            return Err(FunctionError::Queue(index));
        }
        let ring = Ring::new(dma.clone(), at, size, parts);
        let ring = ring.map_err(|_| FunctionError::NoMemory)?;
        registers.write(common::QUEUE_SIZE, 2, size.into());
        if matches!(self.source, Source::Message) {
            registers.write(common::QUEUE_VECTOR, 2, 0);
            if registers.read(common::QUEUE_VECTOR, 2) != 0 {
                return Err(FunctionError::Vector);
            }
        }
        let place = ring.place();
        registers.write_long(common::QUEUE_DESCRIPTORS, place.descriptors);
        registers.write_long(common::QUEUE_AVAILABLE, place.available);
        registers.write_long(common::QUEUE_USED, place.used);
        registers.write(common::QUEUE_ENABLE, 2, 1);
        let offset = registers.read(common::QUEUE_NOTIFY_OFF, 2);
        self.doorbells.push(offset * u64::from(self.multiplier));
        Ok(ring)
    }

    /// Lets the device work.
    pub fn start(&mut self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Tells the device that a queue has something new.
    pub fn notify(&self, queue: u16) {
        if let Some(at) = self.doorbells.get(usize::from(queue)) {
            self.notify.write(*at, 2, queue.into());
        }
    }

    /// Lets the next interrupt come, after one.
    pub fn acknowledge(&self) {
        if let Source::Line(line) = self.source {
            // Reading it takes the line back.
            let _ = self.isr.read(0, 1);
            let _ = syscall::acknowledge(line);
        }
    }

    /// Reads a field of the device-specific configuration, of 1, 2 or 4 bytes.
    #[must_use]
    pub fn config(&self, at: u64, size: u64) -> u64 {
        self.device.map_or(0, |d| d.read(at, size))
    }

    fn add_status(&self, bit: u8) {
        let status = self.common.read(common::STATUS, 1);
        self.common.write(common::STATUS, 1, status | u64::from(bit));
    }
}

/// Resets a device and says that there is a driver (virtio 1.2, 3.1.1). What it was doing for an
/// earlier driver has ended then.
fn reset(registers: Registers) -> Result<(), FunctionError> {
    registers.write(common::STATUS, 1, 0);
    let deadline = time::deadline_in_ms(RESET_MS);
    while registers.read(common::STATUS, 1) != 0 {
        if time::now() > deadline {
            return Err(FunctionError::Reset);
        }
        time::sleep_ms(1);
    }
    registers.write(common::STATUS, 1, (status::ACKNOWLEDGE | status::DRIVER).into());
    registers.write(common::CONFIG_VECTOR, 2, NO_VECTOR);
    Ok(())
}

/// Binds a vector, and puts it into the first entry of the table.
fn bind_message(
    vector: u32,
    config: Registers,
    msix: Msix,
    table: Registers,
    badge: u64,
) -> Result<(), FunctionError> {
    let cpu = process::start().cpu;
    let interrupt: Cap<Interrupt> = Cap::new(Selector(vector.into()));
    let semaphore = process::semaphore();
    let bound = syscall::bind_interrupt(interrupt, cpu, semaphore, badge, MESSAGE_SIGNALLED);
    let (address, data) = bound.map_err(FunctionError::Bind)?;
    table.write_long(0, address);
    table.write(8, 4, data);
    // Not masked.
    table.write(12, 4, 0);
    let control = u64::from(msix.capability) + 2;
    let value = config.read(control, 2) & !MSIX_MASKED;
    config.write(control, 2, value | MSIX_ON);
    Ok(())
}

fn bind_line(line: Line, badge: u64) -> Result<Cap<Interrupt>, FunctionError> {
    let cpu = process::start().cpu;
    let interrupt: Cap<Interrupt> = Cap::new(Selector(line.selector.into()));
    let semaphore = process::semaphore();
    let bound = syscall::bind_interrupt(interrupt, cpu, semaphore, badge, line.trigger);
    bound.map(|_| interrupt).map_err(FunctionError::Bind)
}

/// Where a BAR is mapped.
fn bar(device: &Device<'_>, pci: &Pci, number: u8) -> Option<Area> {
    let index = pci.bars.iter().position(|n| *n == number)?;
    device.mmio.get(index).map(|m| m.mapped)
}
