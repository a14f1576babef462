//! The ACPI tables that the kernel reads (ACPI specification 6.5, chapter 5): processors,
//! interrupt controllers, and where firmware keeps its tables. No AML.

use super::Result;
use super::bytes::{Physical, byte, half, long, word};
use super::machine::Machine;
use crate::arch::ioapic::Description;
use crate::num::u64_of;

/// A longer table is taken for garbage.
const MAX_TABLE: u32 = 16 << 20;
const HEADER: usize = 36;

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)) == 0
}

/// The table at a physical address, header and all; `None` where it cannot be read or is damaged.
fn table(memory: &impl Physical, address: u64) -> Option<&[u8]> {
    let length = word(memory.bytes(address, u64_of(HEADER))?, 4)?;
    if !(36..=MAX_TABLE).contains(&length) {
        return None;
    }
    memory.bytes(address, length.into()).filter(|bytes| sums_to_zero(bytes))
}

/// The MADT, and the address of the list that names it: the XSDT where there is a good one, else the
/// RSDT. A damaged table elsewhere does not matter.
///
/// # Errors
/// Says what is missing or damaged.
pub fn find_madt<'a>(memory: &'a impl Physical, rsdp: &[u8]) -> Result<(u64, &'a [u8])> {
    let list = |address, signature, entry_size| {
        let list = table(memory, address).filter(|list| list.starts_with(signature))?;
        Some((address, list.get(HEADER..)?.chunks_exact(entry_size)))
    };
    let old = rsdp
        .get(..20)
        .filter(|old| old.starts_with(b"RSD PTR ") && sums_to_zero(old))
        .ok_or("ACPI root pointer is damaged")?;
    let xsdt = || {
        let new = rsdp.get(..36).filter(|new| byte(new, 15) >= Some(2) && sums_to_zero(new))?;
        list(long(new, 24)?, b"XSDT", 8)
    };
    let rsdt = || list(word(old, 16)?.into(), b"RSDT", 4);
    let (root, entries) =
        xsdt().or_else(rsdt).ok_or("ACPI list of tables (RSDT) is missing or damaged")?;
    let madt = entries
        .filter_map(|entry| long(entry, 0).or_else(|| word(entry, 0).map(u64::from)))
        .find(|&address| memory.bytes(address, 4).is_some_and(|name| name == b"APIC"))
        .and_then(|address| table(memory, address));
    Ok((root, madt.ok_or("ACPI table MADT is missing or damaged")?))
}

/// Interrupt of an ISA line besides its GSI: level-triggered.
pub const IRQ_LEVEL: u32 = 1 << 16;
/// Interrupt of an ISA line besides its GSI: active low.
pub const IRQ_ACTIVE_LOW: u32 = 1 << 17;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
const LOCAL_X2APIC: u8 = 9;
/// CPUs with a larger id need x2APIC mode.
const MAX_XAPIC_ID: u32 = 254;

/// The entries of a MADT, kind and content, up to the first that is damaged.
pub fn madt_entries(madt: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = madt.get(HEADER + 8..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let kind = byte(rest, 0)?;
        let length = byte(rest, 1).map(usize::from).filter(|&length| length >= 2)?;
        let entry = rest.get(..length)?;
        rest = rest.get(length..)?;
        Some((kind, entry))
    })
}

impl Machine {
    /// Takes what an entry of the MADT describes; `None` where it is too short for its kind.
    pub(super) fn take(&mut self, kind: u8, entry: &[u8]) -> Option<()> {
        let enabled = |at| Some(word(entry, at)? & 1 != 0);
        match kind {
            LOCAL_APIC if enabled(4)? => self.add_cpu(byte(entry, 3)?.into()),
            LOCAL_X2APIC if enabled(8)? => self.add_cpu(word(entry, 4)?),
            IO_APIC => {
                let (base, gsi) = (word(entry, 4)?.into(), word(entry, 8)?);
                // Lines of one too many stay without interrupts.
                let _ = self.ioapics.push(Description { base, gsi });
            }
            OVERRIDE => {
                // Polarity in bits 0 and 1, trigger in bits 2 and 3: 3 is low or level; 0 is what
                // the bus does, which for ISA is high and edge.
                let flags = half(entry, 8)?;
                let level = if flags >> 2 & 3 == 3 { IRQ_LEVEL } else { 0 };
                let low = if flags & 3 == 3 { IRQ_ACTIVE_LOW } else { 0 };
                let slot = self.isa_irqs.get_mut(usize::from(byte(entry, 3)?))?;
                *slot = word(entry, 4)? & 0xffff | level | low;
            }
            _ => {}
        }
        Some(())
    }

    fn add_cpu(&mut self, id: u32) {
        let reachable = self.x2apic || id <= MAX_XAPIC_ID;
        if !self.cpus.contains(&id) && (!reachable || self.cpus.push(id).is_err()) {
            crate::log!("warning: the CPU with APIC id {id} is not used");
        }
    }
}

#[cfg(test)]
mod tests;
