//! Who gets which physical memory: the kernel's pool, and the list for the information page.

use super::Result;
use super::machine::Machine;
use crate::arch::layout::{LARGE_PAGE, PAGE};
use heapless::Vec;
use ipc::info::{MAX_MEMORY, MemoryKind, Module};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The kernel uses memory below this address only: 32-bit page-table roots of starting CPUs, and
/// the boot page tables.
const KERNEL_LIMIT: u64 = 4 * GIB;
/// 64-bit device windows are looked for below this address.
const DEVICE_LIMIT: u64 = 1 << 40;
/// A CPU starts in a page below this address.
const TRAMPOLINE_LIMIT: u64 = 0xa_0000;
/// Size of the pool where the command line does not set it.
const POOL_DEFAULT: u64 = 16 * MIB;
/// With less the kernel does not start.
const POOL_LEAST: u64 = 4 * MIB;

const AVAILABLE: u32 = 1;
const ACPI_TABLES: u32 = 3;
const ACPI_NVS: u32 = 4;
const DEFECTIVE: u32 = 5;

/// Physical addresses from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

impl Range {
    /// From first byte and size; an end beyond the last address is cut.
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    /// Size in bytes.
    pub const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The whole pages of which it holds a part.
    pub const fn outward(self) -> Self {
        Self { start: self.start & !(PAGE - 1), end: align_up(self.end, PAGE) }
    }

    /// The whole pages that it holds.
    const fn inward(self) -> Self {
        Self { start: align_up(self.start, PAGE), end: self.end & !(PAGE - 1) }
    }
}

const fn align_up(address: u64, to: u64) -> u64 {
    address.saturating_add(to - 1) & !(to - 1)
}

/// A range of the list for the information page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where; page aligned.
    pub range: Range,
    /// Whose.
    pub kind: MemoryKind,
}

/// The layout of memory.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Sorted, without overlap; what is not in it belongs to nobody.
    pub regions: Vec<Region, MAX_MEMORY>,
    /// The kernel's memory: 2 MiB aligned, below 4 GiB.
    pub pool: Range,
    /// Page below 1 MiB where other CPUs start.
    pub trampoline: u64,
    /// Bytes of RAM that the loader reported available.
    pub ram: u64,
}

/// Computes the layout from the loader's memory map: ranges and their Multiboot2 kinds. The boot
/// information holds a copy of the ACPI root pointer; `tables` is an address among ACPI's tables,
/// `pool_size` what the command line asks for.
///
/// # Errors
/// There is no RAM, no room, or a module is in the way.
pub fn plan(
    map: impl Iterator<Item = (Range, u32)> + Clone,
    machine: &Machine,
    boot_info: Range,
    tables: u64,
    pool_size: Option<u64>,
) -> Result<Plan> {
    let width = 1u64.checked_shl(machine.physical_bits.into()).unwrap_or(u64::MAX);
    let ranges = map.filter(|(range, _)| range.end <= width);
    let available = ranges.clone().filter(|&(_, kind)| kind == AVAILABLE).map(|(r, _)| r.inward());
    let top = available.clone().map(|range| range.end).max();
    let top = top.ok_or("the memory map has no available RAM")?;
    let limit = top.max(4 * GIB).max(DEVICE_LIMIT.min(width));

    let mut map = Map::default();
    map.add(Range::new(0, limit), Some(MemoryKind::Device))?;
    for range in available {
        map.paint(range, Some(MemoryKind::Free))?;
    }
    let ram = map.of_kind(MemoryKind::Free).map(Range::size).sum();
    for (range, kind) in ranges.filter(|&(_, kind)| kind != AVAILABLE) {
        let kind = match kind {
            ACPI_TABLES | ACPI_NVS => Some(MemoryKind::Firmware),
            DEFECTIVE => None,
            _ if range.overlaps(Range::new(tables, 1)) => Some(MemoryKind::Firmware),
            _ => Some(MemoryKind::Device),
        };
        map.paint(range.outward(), kind)?;
    }
    for page in machine.ioapics.iter().map(|ioapic| ioapic.base).chain([machine.lapic]) {
        map.paint(Range::new(page & !(PAGE - 1), PAGE), None)?;
    }
    // Whatever a page of RAM holds, page 0 and the image are the kernel's.
    map.paint(Range::new(0, PAGE), Some(MemoryKind::Kernel))?;
    map.paint(machine.image, Some(MemoryKind::Kernel))?;
    // The first is the root task's image: nobody gets it at its physical address.
    let mut kind = MemoryKind::Kernel;
    for Module { base, size, .. } in &machine.modules {
        let pages = Range::new(*base, *size).outward();
        if pages.start != *base || *size == 0 || !map.is_free(pages) {
            crate::log!("boot module at {base:#x}, {size:#x} bytes");
            return Err("a boot module is not on a page boundary in RAM of its own: the loader \
                        must align modules");
        }
        map.paint(pages, Some(kind))?;
        kind = MemoryKind::Module;
    }
    // The boot information may share a page with the end of a module, which then keeps it.
    let own = boot_info.outward();
    for page in (own.start..own.end).step_by(4096).map(|page| Range::new(page, PAGE)) {
        if map.is_free(page) {
            map.paint(page, Some(MemoryKind::Firmware))?;
        }
    }

    let trampoline =
        map.highest_fit(PAGE, PAGE, TRAMPOLINE_LIMIT).ok_or("no free page below 1 MiB")?;
    map.paint(Range::new(trampoline, PAGE), Some(MemoryKind::Kernel))?;
    let size = align_up(pool_size.unwrap_or(POOL_DEFAULT), LARGE_PAGE).max(POOL_LEAST);
    // Devices need memory below 4 GiB too, so that is a person's choice.
    let start = map.highest_fit(size, LARGE_PAGE, KERNEL_LIMIT);
    let pool = Range::new(
        start.ok_or("no stretch of memory below 4 GiB is large enough for the kernel's pool")?,
        size,
    );
    map.paint(pool, Some(MemoryKind::Kernel))?;
    Ok(Plan { regions: map.finish()?, pool, trampoline, ram })
}

/// Pieces while the map is worked on.
const MAX_PIECES: usize = 160;

/// All addresses below a limit, in order, each with a kind or belonging to nobody.
#[derive(Default)]
struct Map {
    pieces: Vec<(Range, Option<MemoryKind>), MAX_PIECES>,
}

impl Map {
    /// Adds a range at the end. Neighbours of one kind are one piece.
    fn add(&mut self, range: Range, kind: Option<MemoryKind>) -> Result<()> {
        match self.pieces.last_mut() {
            _ if range.size() == 0 => {}
            Some((last, same)) if *same == kind => last.end = range.end,
            _ => self
                .pieces
                .push((range, kind))
                .map_err(|_| "the memory map is in too many pieces")?,
        }
        Ok(())
    }

    /// Gives a range a kind, whatever it had before.
    fn paint(&mut self, range: Range, kind: Option<MemoryKind>) -> Result<()> {
        for (piece, old) in core::mem::take(&mut self.pieces) {
            let from = range.start.clamp(piece.start, piece.end);
            let to = range.end.clamp(from, piece.end);
            self.add(Range { start: piece.start, end: from }, old)?;
            self.add(Range { start: from, end: to }, kind)?;
            self.add(Range { start: to, end: piece.end }, old)?;
        }
        Ok(())
    }

    fn of_kind(&self, kind: MemoryKind) -> impl Iterator<Item = Range> {
        self.pieces.iter().filter(move |piece| piece.1 == Some(kind)).map(|piece| piece.0)
    }

    fn is_free(&self, range: Range) -> bool {
        let mut free = self.of_kind(MemoryKind::Free);
        free.any(|free| free.start <= range.start && range.end <= free.end)
    }

    /// The highest free aligned stretch below a limit.
    fn highest_fit(&self, size: u64, align: u64, limit: u64) -> Option<u64> {
        let fit = |free: Range| {
            let start = free.end.min(limit).checked_sub(size)? & !(align - 1);
            (start >= free.start).then_some(start)
        };
        self.of_kind(MemoryKind::Free).filter_map(fit).max()
    }

    /// The list; where it is too long, nobody gets the devices.
    fn finish(mut self) -> Result<Vec<Region, MAX_MEMORY>> {
        self.pieces.retain(|piece| piece.1.is_some());
        if self.pieces.len() > MAX_MEMORY {
            crate::log!("warning: too many memory ranges: those of devices are left out");
            self.pieces.retain(|piece| piece.1 != Some(MemoryKind::Device));
        }
        if self.pieces.len() > MAX_MEMORY {
            return Err("the memory map has too many ranges");
        }
        let region = |&(range, kind): &(Range, _)| Some(Region { range, kind: kind? });
        Ok(self.pieces.iter().filter_map(region).collect())
    }
}

#[cfg(test)]
mod tests;
