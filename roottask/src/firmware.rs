//! What the ACPI tables say: how to switch the machine off (ACPI 6.5, chapters 4.8.3, 5.2, 7.4.2),
//! and where the configuration space of PCI functions is (PCI Firmware 3.3, 4.1.2).

use alloc::vec::Vec;

use crate::pci::Ecam;

/// Read access to physical memory; `None` where it cannot be read.
pub trait Physical {
    /// Bytes at an address.
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]>;
}

/// How to switch off: a register write each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerOff {
    /// Port of PM1a control and the value that enters S5.
    pub pm1a: Option<(u16, u16)>,
    /// The same for PM1b.
    pub pm1b: Option<(u16, u16)>,
    /// Port and value that switch the machine to ACPI mode first, where it starts in legacy mode.
    pub enable: Option<(u16, u8)>,
    /// Port of the sleep control register and its value, on hardware-reduced machines.
    pub sleep: Option<(u16, u8)>,
}

const HEADER: u64 = 36;
/// SLP_EN of the PM1 control registers.
const SLEEP_ENABLE: u16 = 1 << 13;
/// SLP_EN of the sleep control register.
const REDUCED_SLEEP_ENABLE: u8 = 1 << 5;
/// Largest table that is believed.
const MAX_TABLE: u64 = 4 << 20;
/// System I/O space of a generic address.
const SPACE_IO: u8 = 1;

fn le(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |n, b| n.wrapping_add(*b))
}

/// A table with a valid checksum.
fn table(memory: &impl Physical, address: u64) -> Option<&[u8]> {
    let size = le(memory.bytes(address, HEADER)?, 4, 4)?;
    if !(HEADER..=MAX_TABLE).contains(&size) {
        return None;
    }
    memory.bytes(address, size).filter(|t| sum(t) == 0)
}

/// Finds how to switch the machine off, from the RSDP on.
#[must_use]
pub fn power_off(memory: &impl Physical, rsdp: u64) -> Option<PowerOff> {
    let fadt = find(memory, rsdp, b"FACP")?;
    let dsdt = le(fadt, 140, 8)
        .filter(|&a| a != 0)
        .or_else(|| le(fadt, 40, 4))
        .and_then(|a| table(memory, a))?;
    let (a, b) = sleep_type(dsdt)?;
    let pm1 = |extended: usize, legacy: usize, kind: u8| {
        let port = io_register(fadt, extended)
            .or_else(|| le(fadt, legacy, 4).and_then(|p| u16::try_from(p).ok()))
            .filter(|&p| p != 0)?;
        Some((port, u16::from(kind & 7) << 10 | SLEEP_ENABLE))
    };
    let enable = le(fadt, 48, 4)
        .and_then(|p| u16::try_from(p).ok())
        .filter(|&p| p != 0)
        .zip(le(fadt, 52, 1).and_then(|v| u8::try_from(v).ok()))
        .filter(|&(_, value)| value != 0);
    let reduced = le(fadt, 112, 4).is_some_and(|flags| flags >> 20 & 1 != 0);
    let sleep = io_register(fadt, 244)
        .filter(|_| reduced)
        .map(|port| (port, (a & 7) << 2 | REDUCED_SLEEP_ENABLE));
    Some(PowerOff { pm1a: pm1(172, 64, a), pm1b: pm1(184, 68, b), enable, sleep })
}

/// The configuration space of segment 0.
#[must_use]
pub fn ecams(memory: &impl Physical, rsdp: u64) -> Vec<Ecam> {
    const ENTRIES: usize = 44;
    const ENTRY: usize = 16;
    let entries = find(memory, rsdp, b"MCFG").and_then(|t| t.get(ENTRIES..)).unwrap_or(&[]);
    let entry = |e: &[u8]| {
        let byte = |at| le(e, at, 1).and_then(|b| u8::try_from(b).ok());
        let ecam = Ecam { base: le(e, 0, 8)?, first: byte(10)?, last: byte(11)? };
        let fits = ecam.first <= ecam.last && ecam.start().checked_add(ecam.size()).is_some();
        (le(e, 8, 2)? == 0 && fits && ecam.base.is_multiple_of(1 << 20)).then_some(ecam)
    };
    entries.chunks_exact(ENTRY).filter_map(entry).collect()
}

/// A generic address structure that names a port.
fn io_register(fadt: &[u8], at: usize) -> Option<u16> {
    let space = le(fadt, at, 1)?;
    let port = le(fadt, at + 4, 8)?;
    (space == u64::from(SPACE_IO) && port != 0).then(|| u16::try_from(port).ok()).flatten()
}

/// Finds a table by its signature.
fn find<'a>(memory: &'a impl Physical, rsdp: u64, signature: &[u8; 4]) -> Option<&'a [u8]> {
    let pointer = memory.bytes(rsdp, 20)?;
    if pointer.get(..8)? != b"RSD PTR " || sum(pointer) != 0 {
        return None;
    }
    let xsdt = memory
        .bytes(rsdp, 36)
        .filter(|p| le(p, 15, 1).is_some_and(|revision| revision >= 2))
        .and_then(|p| le(p, 24, 8))
        .filter(|&a| a != 0)
        .and_then(|a| table(memory, a));
    let (list, width) = match xsdt {
        Some(list) => (list, 8),
        None => (table(memory, le(pointer, 16, 4)?)?, 4),
    };
    list.get(36..)?
        .chunks_exact(width)
        .filter_map(|entry| le(entry, 0, width))
        .filter_map(|address| table(memory, address))
        .find(|t| t.get(..4) == Some(signature))
}

/// The values of `\_S5` for PM1a and PM1b. The package is found by its name: its elements are
/// integers, so no interpreter is needed (ACPI 6.5, chapters 7.4.2.6 and 20.2.5.1).
fn sleep_type(aml: &[u8]) -> Option<(u8, u8)> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let at = aml.windows(5).position(|w| w.get(..4) == Some(b"_S5_") && w.get(4) == Some(&PACKAGE));
    let at = at?;
    let named = at.checked_sub(1).and_then(|i| aml.get(i)) == Some(&NAME)
        || at.checked_sub(2).and_then(|i| aml.get(i..at)) == Some(&[NAME, b'\\']);
    if !named {
        return None;
    }
    let package = aml.get(at + 5..)?;
    // The top two bits of the first byte say how many more bytes the length takes.
    let length_bytes = 1 + usize::from(package.first()? >> 6);
    let mut elements = package.get(length_bytes + 1..)?.iter().copied();
    let first = integer(&mut elements)?;
    let second = integer(&mut elements).unwrap_or(0);
    Some((first, second))
}

/// A small integer constant.
fn integer(aml: &mut impl Iterator<Item = u8>) -> Option<u8> {
    match aml.next()? {
        0 => Some(0),
        1 => Some(1),
        // BytePrefix.
        0x0a => aml.next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
