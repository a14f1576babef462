//! The ACPI tables that the kernel reads (ACPI specification 6.5, chapter 5): processors,
//! interrupt controllers, and where firmware keeps its tables. No AML.

use super::bytes::{Physical, array, byte, half, long, word};
use crate::num::u64_of;
use core::fmt;

/// A longer table is taken for garbage.
const MAX_TABLE: u32 = 16 << 20;
const HEADER: usize = 36;

/// What is wrong with ACPI data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The root pointer is damaged.
    RootPointer,
    /// A table lies where the kernel cannot read it.
    Unreadable(u64),
    /// A table's length makes no sense.
    Length {
        /// Its signature.
        signature: Signature,
        /// What it says.
        length: u32,
    },
    /// A table's bytes do not add up to zero.
    Checksum(Signature),
    /// A table is not there.
    Missing(Signature),
}

/// Name of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    /// Multiple APIC description table.
    pub const MADT: Self = Self(*b"APIC");
    /// Fixed ACPI description table.
    pub const FADT: Self = Self(*b"FACP");
    const XSDT: Self = Self(*b"XSDT");
    const RSDT: Self = Self(*b"RSDT");
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::RootPointer => f.write_str("ACPI root pointer is damaged"),
            Self::Unreadable(address) => write!(f, "ACPI table at {address:#x} cannot be read"),
            Self::Length { signature, length } => {
                write!(f, "ACPI table {signature} claims a length of {length} bytes")
            }
            Self::Checksum(signature) => {
                write!(f, "ACPI table {signature} has a wrong checksum")
            }
            Self::Missing(signature) => write!(f, "ACPI table {signature} is missing"),
        }
    }
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)) == 0
}

/// A table: header and body, checksum verified.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its name.
    pub signature: Signature,
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads the table at a physical address.
    ///
    /// # Errors
    /// Unreadable, too long, too short, or damaged.
    pub fn read(memory: &'a impl Physical, address: u64) -> Result<Self, Error> {
        let unreadable = Error::Unreadable(address);
        let header = memory.bytes(address, u64_of(HEADER)).ok_or(unreadable)?;
        let signature = Signature(array(header, 0).ok_or(unreadable)?);
        let length = word(header, 4).ok_or(unreadable)?;
        if !(36..=MAX_TABLE).contains(&length) {
            return Err(Error::Length { signature, length });
        }
        let bytes = memory.bytes(address, length.into()).ok_or(unreadable)?;
        if !sums_to_zero(bytes) {
            return Err(Error::Checksum(signature));
        }
        Ok(Self { signature, bytes })
    }

    fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or(&[])
    }
}

/// The list of all tables.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a, M> {
    memory: &'a M,
    root: Table<'a>,
    /// Where the list itself lies.
    pub root_address: u64,
}

impl<'a, M: Physical> Tables<'a, M> {
    /// Follows a root pointer: to the XSDT where there is a good one, else to the RSDT.
    ///
    /// # Errors
    /// The root pointer or the list is damaged.
    pub fn from_root_pointer(memory: &'a M, rsdp: &[u8]) -> Result<Self, Error> {
        let old = rsdp.get(..20).ok_or(Error::RootPointer)?;
        if old.get(..8) != Some(b"RSD PTR ") || !sums_to_zero(old) {
            return Err(Error::RootPointer);
        }
        let xsdt = || {
            let new = rsdp.get(..36).filter(|new| sums_to_zero(new))?;
            let is_new = byte(rsdp, 15)? >= 2;
            long(new, 24).filter(|&address| is_new && address != 0)
        };
        let rsdt = u64::from(word(rsdp, 16).ok_or(Error::RootPointer)?);
        let list = |address, signature| {
            let root = Table::read(memory, address)?;
            if root.signature != signature {
                return Err(Error::Missing(signature));
            }
            Ok(Self { memory, root, root_address: address })
        };
        match xsdt().map(|address| list(address, Signature::XSDT)) {
            Some(Ok(tables)) => Ok(tables),
            _ => list(rsdt, Signature::RSDT),
        }
    }

    /// Addresses of the tables in the list.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        let width = if self.root.signature == Signature::XSDT { 8 } else { 4 };
        self.root.body().chunks_exact(width).filter_map(move |entry| match width {
            8 => long(entry, 0),
            _ => word(entry, 0).map(u64::from),
        })
    }

    /// The first table of a name. A damaged table elsewhere does not matter.
    ///
    /// # Errors
    /// The table is missing or damaged.
    pub fn find(&self, signature: Signature) -> Result<Table<'a>, Error> {
        let named = |address: &u64| {
            let name = self.memory.bytes(*address, 4).and_then(|b| array(b, 0));
            name == Some(signature.0)
        };
        let address = self.addresses().find(named).ok_or(Error::Missing(signature))?;
        Table::read(self.memory, address)
    }

    /// Address of the DSDT, the table that is not in the list; 0 where there is none.
    #[must_use]
    pub fn dsdt(&self) -> u64 {
        let Ok(fadt) = self.find(Signature::FADT) else {
            return 0;
        };
        // ACPI 1.0 tables end after 116 bytes: before the 64-bit address.
        match long(fadt.bytes, 140) {
            Some(address) if address != 0 => address,
            _ => word(fadt.bytes, 40).map_or(0, u64::from),
        }
    }
}

/// An entry of the multiple APIC description table that the kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadtEntry {
    /// A CPU that can be used.
    Cpu {
        /// Its local APIC's id.
        apic_id: u32,
    },
    /// An I/O APIC.
    IoApic {
        /// Its registers.
        base: u64,
        /// Its first GSI.
        gsi: u32,
    },
    /// An ISA interrupt that is not on the GSI of its number, or not edge and active high.
    Override {
        /// ISA line.
        line: u8,
        /// GSI.
        gsi: u32,
        /// Level-triggered.
        level: bool,
        /// Active low.
        active_low: bool,
    },
    /// The local APIC pin that carries NMI on all CPUs.
    NmiPin(u8),
}

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
const LOCAL_NMI: u8 = 4;
const LOCAL_X2APIC: u8 = 9;
const LOCAL_X2APIC_NMI: u8 = 10;

/// The entries of a MADT that the kernel uses, up to the first that is damaged.
pub fn madt_entries<'a>(madt: &Table<'a>) -> impl Iterator<Item = MadtEntry> + use<'a> {
    let mut rest = madt.body().get(8..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let kind = byte(rest, 0)?;
        let length = byte(rest, 1).map(usize::from).filter(|&length| length >= 2)?;
        let entry = rest.get(..length)?;
        rest = rest.get(length..)?;
        Some(madt_entry(kind, entry))
    })
    .flatten()
}

/// `None` for an entry that is of no interest or too short for its kind.
fn madt_entry(kind: u8, entry: &[u8]) -> Option<MadtEntry> {
    match kind {
        LOCAL_APIC => {
            let enabled = word(entry, 4)? & 1 != 0;
            enabled.then_some(MadtEntry::Cpu { apic_id: byte(entry, 3)?.into() })
        }
        LOCAL_X2APIC => {
            let enabled = word(entry, 8)? & 1 != 0;
            enabled.then_some(MadtEntry::Cpu { apic_id: word(entry, 4)? })
        }
        IO_APIC => Some(MadtEntry::IoApic { base: word(entry, 4)?.into(), gsi: word(entry, 8)? }),
        OVERRIDE => {
            // Polarity in bits 0 and 1, trigger in bits 2 and 3: 3 is low or level; 0 is what the
            // bus does, which for ISA is high and edge.
            let flags = half(entry, 8)?;
            Some(MadtEntry::Override {
                line: byte(entry, 3)?,
                gsi: word(entry, 4)?,
                level: flags >> 2 & 3 == 3,
                active_low: flags & 3 == 3,
            })
        }
        LOCAL_NMI if byte(entry, 2)? == u8::MAX => Some(MadtEntry::NmiPin(byte(entry, 5)?)),
        LOCAL_X2APIC_NMI if word(entry, 4)? == u32::MAX => Some(MadtEntry::NmiPin(byte(entry, 8)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
