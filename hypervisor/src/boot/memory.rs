//! Who gets which physical memory: the kernel's pool, and the list for the information page.

use super::multiboot2::MemoryEntry;
use crate::arch::layout::{LARGE_PAGE, PAGE};
use core::fmt;
use heapless::Vec;
use ipc::info::{MAX_MEMORY, MemoryKind};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The kernel uses memory below this address only: 32-bit page-table roots of starting CPUs, and
/// the boot page tables.
const KERNEL_LIMIT: u64 = 4 * GIB;
/// 64-bit device windows are looked for below this address.
const DEVICE_LIMIT: u64 = 1 << 40;
/// A CPU starts in a page below this address.
const TRAMPOLINE_LIMIT: u64 = 0xa_0000;
/// Size of the pool where the command line does not set it: this part of RAM, at least and at most
/// so much. Devices need memory below 4 GiB too.
const POOL_SHARE: u64 = 32;
const POOL_DEFAULT: u64 = 16 * MIB;
const POOL_MOST: u64 = GIB;
/// With less the kernel does not start.
const POOL_LEAST: u64 = 4 * MIB;

const AVAILABLE: u32 = 1;
const ACPI_TABLES: u32 = 3;
const ACPI_NVS: u32 = 4;
const DEFECTIVE: u32 = 5;

/// Physical addresses from `start` up to but not including `end`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
}

impl Range {
    /// From first byte and size; an end beyond the last address is cut.
    #[must_use]
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The whole pages of which it holds a part.
    #[must_use]
    pub const fn outward(self) -> Self {
        Self { start: self.start & !(PAGE - 1), end: align_up(self.end, PAGE) }
    }

    /// The whole pages that it holds.
    const fn inward(self) -> Self {
        Self { start: align_up(self.start, PAGE), end: self.end & !(PAGE - 1) }
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

const fn align_up(address: u64, to: u64) -> u64 {
    address.saturating_add(to - 1) & !(to - 1)
}

/// What the layout of memory depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The kernel image with everything in it, page aligned.
    pub image: Range,
    /// The boot information, which holds a copy of the ACPI root pointer.
    pub boot_info: Range,
    /// Boot modules.
    pub modules: &'a [Range],
    /// Addresses of ACPI tables.
    pub tables: &'a [u64],
    /// Pages of registers that are the kernel's.
    pub registers: &'a [u64],
    /// Width of a physical address.
    pub physical_bits: u8,
    /// Size of the pool from the command line.
    pub pool_size: Option<u64>,
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
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sorted, without overlap; what is not in it belongs to nobody.
    pub regions: Vec<Region, MAX_MEMORY>,
    /// The kernel's memory: 2 MiB aligned, below 4 GiB.
    pub pool: Range,
    /// Page below 1 MiB where other CPUs start.
    pub trampoline: Option<u64>,
    /// Bytes of RAM that the loader reported available.
    pub ram: u64,
    /// Bytes left out because the list was full.
    pub left_out: u64,
}

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The memory map has no available RAM.
    NoRam,
    /// The memory map is in more pieces than the kernel can follow.
    TooFragmented,
    /// A module lies outside RAM, in the kernel, in another module, or not on a page boundary.
    Module(usize),
    /// No free stretch of RAM below 4 GiB is large enough for the pool.
    NoPool(u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NoRam => f.write_str("the memory map has no available RAM"),
            Self::TooFragmented => f.write_str("the memory map is in too many pieces"),
            Self::Module(index) => write!(
                f,
                "boot module {index} is not on a page boundary in RAM of its own: the loader must \
                 align modules"
            ),
            Self::NoPool(size) => {
                write!(f, "no free {} MiB below 4 GiB for kernel memory", size.div_ceil(MIB))
            }
        }
    }
}

/// Computes the layout from the loader's memory map.
///
/// # Errors
/// There is no RAM, no room, or a module is in the way.
pub fn plan(
    entries: impl Iterator<Item = MemoryEntry> + Clone,
    input: &Input,
) -> Result<Plan, Error> {
    let width = 1u64.checked_shl(input.physical_bits.into()).unwrap_or(u64::MAX);
    let ranges = entries
        .map(|entry| (Range::new(entry.base, entry.size), entry.kind))
        .filter(|(range, _)| range.end <= width);
    let available = ranges.clone().filter(|&(_, kind)| kind == AVAILABLE).map(|(r, _)| r.inward());
    let top = available.clone().map(|range| range.end).max().ok_or(Error::NoRam)?;
    let limit = top.max(4 * GIB).max(DEVICE_LIMIT.min(width));

    let mut map = Map::new(limit)?;
    for range in available {
        map.paint(range, Some(MemoryKind::Free))?;
    }
    let ram = map.total(MemoryKind::Free);
    for (range, kind) in ranges.filter(|&(_, kind)| kind != AVAILABLE) {
        let holds_tables = input.tables.iter().any(|&table| range.contains(table));
        let kind = match kind {
            ACPI_TABLES | ACPI_NVS => Some(MemoryKind::Firmware),
            DEFECTIVE => None,
            _ if holds_tables => Some(MemoryKind::Firmware),
            _ => Some(MemoryKind::Device),
        };
        map.paint(range.outward(), kind)?;
    }
    for &page in input.registers {
        map.paint(Range::new(page & !(PAGE - 1), PAGE), None)?;
    }
    // Whatever a page of RAM holds, page 0 and the image are the kernel's.
    let null_page = Range::new(0, PAGE);
    for (index, module) in input.modules.iter().enumerate() {
        let others = input.modules.get(..index).unwrap_or(&[]);
        let pages = module.outward();
        let good = module.start == pages.start
            && module.size() > 0
            && map.is(pages, MemoryKind::Free)
            && !pages.overlaps(input.image)
            && !pages.overlaps(null_page)
            && !others.iter().any(|other| other.outward().overlaps(pages));
        if !good {
            return Err(Error::Module(index));
        }
    }
    // The boot information may share a page with the end of a module, which then wins.
    map.paint(input.boot_info.outward(), Some(MemoryKind::Firmware))?;
    for module in input.modules {
        map.paint(module.outward(), Some(MemoryKind::Module))?;
    }
    map.paint(null_page, Some(MemoryKind::Kernel))?;
    map.paint(input.image, Some(MemoryKind::Kernel))?;

    let trampoline = map.highest_fit(PAGE, PAGE, TRAMPOLINE_LIMIT);
    if let Some(page) = trampoline {
        map.paint(Range::new(page, PAGE), Some(MemoryKind::Kernel))?;
    }
    let pool = map.choose_pool(ram, input.pool_size)?;
    map.paint(pool, Some(MemoryKind::Kernel))?;

    let (regions, left_out) = map.finish();
    Ok(Plan { regions, pool, trampoline, ram, left_out })
}

/// Pieces while the map is worked on.
const MAX_PIECES: usize = 160;

#[derive(Clone, Copy)]
struct Piece {
    range: Range,
    kind: Option<MemoryKind>,
}

/// All addresses below a limit, each with a kind or belonging to nobody.
struct Map {
    pieces: Vec<Piece, MAX_PIECES>,
}

impl Map {
    fn new(limit: u64) -> Result<Self, Error> {
        let mut pieces = Vec::new();
        let all = Piece { range: Range::new(0, limit), kind: Some(MemoryKind::Device) };
        pieces.push(all).map_err(|_| Error::TooFragmented)?;
        Ok(Self { pieces })
    }

    fn split(&mut self, at: u64) -> Result<(), Error> {
        let inside = |piece: &Piece| piece.range.start < at && at < piece.range.end;
        if let Some(index) = self.pieces.iter().position(inside)
            && let Some(piece) = self.pieces.get_mut(index)
        {
            let mut tail = *piece;
            piece.range.end = at;
            tail.range.start = at;
            self.pieces.insert(index + 1, tail).map_err(|_| Error::TooFragmented)?;
        }
        Ok(())
    }

    /// Gives a range a kind, whatever it had before.
    fn paint(&mut self, range: Range, kind: Option<MemoryKind>) -> Result<(), Error> {
        if range.size() == 0 {
            return Ok(());
        }
        self.split(range.start)?;
        self.split(range.end)?;
        for piece in self.pieces.iter_mut().filter(|piece| piece.range.overlaps(range)) {
            piece.kind = kind;
        }
        // Neighbours of one kind become one piece.
        let mut merged: Vec<Piece, MAX_PIECES> = Vec::new();
        for &piece in &self.pieces {
            match merged.last_mut() {
                Some(last) if last.kind == piece.kind => last.range.end = piece.range.end,
                _ => merged.push(piece).map_err(|_| Error::TooFragmented)?,
            }
        }
        self.pieces = merged;
        Ok(())
    }

    fn of_kind(&self, kind: MemoryKind) -> impl Iterator<Item = Range> {
        self.pieces.iter().filter(move |piece| piece.kind == Some(kind)).map(|piece| piece.range)
    }

    fn total(&self, kind: MemoryKind) -> u64 {
        self.of_kind(kind).map(Range::size).sum()
    }

    fn is(&self, range: Range, kind: MemoryKind) -> bool {
        self.of_kind(kind).any(|free| free.start <= range.start && range.end <= free.end)
    }

    /// The highest free aligned stretch below a limit.
    fn highest_fit(&self, size: u64, align: u64, limit: u64) -> Option<u64> {
        let fit = |free: Range| {
            let start = free.end.min(limit).checked_sub(size)? & !(align - 1);
            (start >= free.start).then_some(start)
        };
        self.of_kind(MemoryKind::Free).filter_map(fit).max()
    }

    fn choose_pool(&self, ram: u64, wanted: Option<u64>) -> Result<Range, Error> {
        let size = wanted.unwrap_or_else(|| (ram / POOL_SHARE).clamp(POOL_DEFAULT, POOL_MOST));
        let size = align_up(size, LARGE_PAGE).max(POOL_LEAST);
        let fit = |size| Some(Range::new(self.highest_fit(size, LARGE_PAGE, KERNEL_LIMIT)?, size));
        // A size that a person asked for is not made smaller behind their back.
        let smaller = |&size: &u64| (wanted.is_none() && size > POOL_LEAST).then_some(size / 2);
        core::iter::successors(Some(size), smaller)
            .map(|size| align_up(size, LARGE_PAGE))
            .find_map(fit)
            .ok_or(Error::NoPool(size))
    }

    /// The list; where it is too long, the smallest free and device ranges are given up. Returns
    /// the bytes that this costs too.
    fn finish(mut self) -> (Vec<Region, MAX_MEMORY>, u64) {
        self.pieces.retain(|piece| piece.kind.is_some());
        let mut left_out = 0;
        while self.pieces.len() > MAX_MEMORY {
            let dispensable =
                |piece: &Piece| matches!(piece.kind, Some(MemoryKind::Free | MemoryKind::Device));
            let smallest = self
                .pieces
                .iter()
                .enumerate()
                .filter(|(_, piece)| dispensable(piece))
                .min_by_key(|(_, piece)| piece.range.size())
                .map(|(index, _)| index);
            let Some(index) = smallest else { break };
            left_out += self.pieces.remove(index).range.size();
        }
        let region = |piece: &Piece| Some(Region { range: piece.range, kind: piece.kind? });
        (self.pieces.iter().filter_map(region).take(MAX_MEMORY).collect(), left_out)
    }
}

#[cfg(test)]
mod tests;
