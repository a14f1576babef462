//! PCI functions: where they are, and what reaches them (PCI Local Bus 3.0, 6; PCI Express 5.0,
//! 7.2.2, 7.7.2).

use alloc::vec::Vec;

use config::Which;
use ipc::proto::start::MAX_RANGES;

use crate::memory::PAGE;

/// Memory-mapped configuration space of a range of buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address where bus 0 is, or would be.
    pub base: u64,
    /// First bus.
    pub first: u8,
    /// Last bus.
    pub last: u8,
}

/// A function's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bus.
    pub bus: u8,
    /// Device on the bus.
    pub device: u8,
    /// Function of the device.
    pub function: u8,
}

impl Ecam {
    /// Physical address of a function's configuration page.
    #[must_use]
    pub fn page(&self, place: Place) -> Option<u64> {
        if !(self.first..=self.last).contains(&place.bus) || place.device > 31 || place.function > 7
        {
            return None;
        }
        let page =
            u64::from(place.bus) << 8 | u64::from(place.device) << 3 | u64::from(place.function);
        Some(self.base + page * PAGE)
    }

    /// Physical address of the first bus of the range.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.base.saturating_add(u64::from(self.first) << 20)
    }

    /// Bytes of the whole range.
    #[must_use]
    pub fn size(&self) -> u64 {
        (u64::from(self.last.saturating_sub(self.first)) + 1) << 20
    }
}

/// Access to configuration space by the physical address of a register, a multiple of 4.
pub trait Registers {
    /// Reads.
    fn read(&self, address: u64) -> u32;
    /// Writes.
    fn write(&self, address: u64, value: u32);
}

const COMMAND: u64 = 4;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// Status, in the upper half of the register: there are capabilities.
const STATUS_CAPABILITIES: u32 = 1 << (16 + 4);
const HEADER: u64 = 0xc;
const BARS: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;
const MSIX: u32 = 0x11;

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its number.
    pub number: u8,
    /// Physical address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A function with what reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Physical address of its configuration page.
    pub config: u64,
    /// Its memory BARs.
    pub bars: Vec<Bar>,
    /// Number of its MSI-X vectors.
    pub vectors: u16,
}

/// Why a function cannot be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such function.
    Missing,
    /// It is a bridge.
    Bridge,
    /// The firmware gave this BAR no address.
    Unplaced(u8),
    /// This BAR shares a page with another function.
    Shared(u8),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing => write!(f, "no such PCI function"),
            Self::Bridge => write!(f, "a PCI bridge cannot be handed out"),
            Self::Unplaced(n) => write!(f, "the firmware gave BAR {n} no address"),
            Self::Shared(n) => write!(f, "BAR {n} shares a page with another function"),
        }
    }
}

/// Configuration pages of all functions that are there.
fn all<'a>(
    registers: &'a impl Registers,
    ecams: &'a [Ecam],
) -> impl Iterator<Item = (Place, u64)> + 'a {
    const MULTIPLE: u32 = 1 << 23;
    let buses = ecams.iter().flat_map(|e| (e.first..=e.last).map(move |bus| (e, bus)));
    let devices = buses.flat_map(|(e, bus)| (0..32).map(move |device| (e, bus, device)));
    devices.flat_map(move |(ecam, bus, device)| {
        let page = |function| {
            let place = Place { bus, device, function };
            Some((place, ecam.page(place).filter(|&page| exists(registers, page))?))
        };
        let first = page(0);
        let multiple = first.is_some_and(|f| registers.read(f.1 + HEADER) & MULTIPLE != 0);
        let others = (1..8).filter(move |_| multiple).filter_map(page).collect::<Vec<_>>();
        first.into_iter().chain(others)
    })
}

fn exists(registers: &impl Registers, page: u64) -> bool {
    registers.read(page) & 0xffff != 0xffff
}

/// Finds a function and what reaches it. Nothing may use it yet: its BARs are sized.
///
/// # Errors
/// [`Error`]
pub fn find(registers: &impl Registers, ecams: &[Ecam], which: Which) -> Result<Function, Error> {
    let wanted = |place: &Place, config: u64| match which {
        Which::Kind { vendor, device } => {
            registers.read(config) == u32::from(vendor) | u32::from(device) << 16
        }
        Which::Place { bus, device, function } => *place == Place { bus, device, function },
    };
    let pages: Vec<(Place, u64)> = all(registers, ecams).collect();
    let found = pages.iter().find(|(place, config)| wanted(place, *config));
    let config = found.ok_or(Error::Missing)?.1;
    if registers.read(config + HEADER) >> 16 & 0x7f != 0 {
        return Err(Error::Bridge);
    }
    let bars = bars(registers, config)?;
    for &(_, other) in pages.iter().filter(|(_, page)| *page != config) {
        let bases = placed(registers, other);
        let pages = |b: &Bar| b.base & !(PAGE - 1)..(b.base + b.size).next_multiple_of(PAGE);
        for base in bases {
            if let Some(bar) = bars.iter().find(|b| pages(b).contains(&base)) {
                return Err(Error::Shared(bar.number));
            }
        }
    }
    Ok(Function { config, bars, vectors: vectors(registers, config) })
}

/// The bits of a BAR that are no address; `None` for ports.
fn memory_flags(bar: u32) -> Option<u32> {
    (bar & 1 == 0).then_some(bar & 0xf)
}

fn is_long(bar: u32) -> bool {
    bar >> 1 & 3 == 2
}

/// Where the memory BARs of a function begin that have an address.
fn placed(registers: &impl Registers, config: u64) -> Vec<u64> {
    let bridge = registers.read(config + HEADER) >> 16 & 0x7f != 0;
    let (mut bases, mut number) = (Vec::new(), 0);
    while number < if bridge { 2 } else { 6 } {
        let low = registers.read(config + BARS + number * 4);
        number += 1;
        let mut base = u64::from(low & !0xf);
        if memory_flags(low).is_none() {
            continue;
        }
        if is_long(low) {
            base |= u64::from(registers.read(config + BARS + number * 4)) << 32;
            number += 1;
        }
        if base != 0 {
            bases.push(base);
        }
    }
    bases
}

/// The memory BARs of a function, which does not decode addresses while they are sized.
fn bars(registers: &impl Registers, config: u64) -> Result<Vec<Bar>, Error> {
    let command = registers.read(config + COMMAND) & 0xffff;
    registers.write(config + COMMAND, command & !(COMMAND_MEMORY | COMMAND_BUS_MASTER | 1));
    let size = |register: u64| {
        let old = registers.read(register);
        registers.write(register, u32::MAX);
        let mask = registers.read(register);
        registers.write(register, old);
        (old, mask)
    };
    let (mut bars, mut number) = (Vec::new(), 0u8);
    while number < 6 {
        let register = config + BARS + u64::from(number) * 4;
        let (low, mask) = size(register);
        let this = number;
        number += 1;
        let (mut base, mut mask) = (u64::from(low & !0xf), u64::from(mask & !0xf));
        if is_long(low) && memory_flags(low).is_some() && this < 5 {
            let (high, high_mask) = size(register + 4);
            base |= u64::from(high) << 32;
            mask |= u64::from(high_mask) << 32;
            number += 1;
        } else {
            mask |= 0xffff_ffff << 32;
        }
        if memory_flags(low).is_none() || mask & 0xffff_ffff_ffff_fff0 == 0xffff_ffff << 32 {
            continue;
        }
        bars.push(Bar { number: this, base, size: (!mask).wrapping_add(1) });
    }
    registers.write(config + COMMAND, command & !COMMAND_BUS_MASTER);
    match bars.iter().find(|b| b.base == 0) {
        Some(bar) => Err(Error::Unplaced(bar.number)),
        None => Ok(bars),
    }
}

/// Number of MSI-X vectors (PCI Local Bus 3.0, 6.8.2); 0 where the function has none.
fn vectors(registers: &impl Registers, config: u64) -> u16 {
    if registers.read(config + COMMAND) & STATUS_CAPABILITIES == 0 {
        return 0;
    }
    let mut at = registers.read(config + CAPABILITIES) & 0xfc;
    // More do not fit into the space.
    for _ in 0..48 {
        if at < 0x40 {
            break;
        }
        let capability = registers.read(config + u64::from(at));
        if capability & 0xff == MSIX {
            return u16::try_from(capability >> 16 & 0x7ff).map_or(0, |n| n + 1);
        }
        at = capability >> 8 & 0xfc;
    }
    0
}

/// Number of vectors that a component gets of a function.
#[must_use]
pub fn granted(function: &Function) -> u16 {
    function.vectors.min(u16::try_from(MAX_RANGES).unwrap_or(0))
}

/// Ends all access of a function to memory.
pub fn silence(registers: &impl Registers, config: u64) {
    let command = registers.read(config + COMMAND) & 0xffff;
    registers.write(config + COMMAND, command & !COMMAND_BUS_MASTER);
    // The function has taken note when it answers.
    let _ = registers.read(config + COMMAND);
}

#[cfg(test)]
mod tests;
