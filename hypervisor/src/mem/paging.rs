//! Page tables: four levels, four formats.
//!
//! What is mapped is always a naturally aligned range of `2^order` pages to an equally aligned
//! physical range, so a range is a run of leaves of one level, and it is unmapped as it was
//! mapped. Every change of a live table is one store of one word, so a concurrent walk of
//! the hardware finds each page as it was or as it will be.
//!
//! The entry that points to a table counts, in bits that the hardware ignores, the entries in
//! use there; a table is released with its last entry. Accessed and dirty are set from the start,
//! so that the hardware never writes to a table.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::MemRights;
use ipc::status::Status;

use super::account::Account;
use super::frames::{Frames, PageList};
use super::pool::{self, PAGE_SHIFT, Page};
use crate::num::{u64_of, usize_of};

/// Level of the root table.
const ROOT_LEVEL: u8 = 3;
/// Bits of the page number that a level translates.
const LEVEL_BITS: u8 = 9;

const PHYS_MASK: u64 = 0x000f_ffff_ffff_f000;
/// A leaf above level 0, in all formats.
const LARGE: u64 = 1 << 7;
const COUNT_SHIFT: u32 = 52;

/// How the caches treat a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    /// Write-back: RAM.
    WriteBack = 0,
    /// Uncached: device memory.
    Uncached = 1,
    /// Write-combining: device memory that only takes bulk data.
    WriteCombining = 2,
}

/// Size of the largest leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeafSize {
    /// 4 KiB.
    Small = 0,
    /// 2 MiB.
    Large = 1,
    /// 1 GiB.
    Huge = 2,
}

/// Encoding of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The processor's own, for user pages. Never writable and executable: a mapping with both
    /// rights is not executable.
    Host,
    /// The same for pages of the kernel, which every address space has.
    Kernel,
    /// AMD nested paging.
    Npt,
    /// Intel extended page tables.
    Ept,
}

impl Format {
    const PRESENT: u64 = 1 << 0;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const WRITE_THROUGH: u64 = 1 << 3;
    const CACHE_DISABLE: u64 = 1 << 4;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const GLOBAL: u64 = 1 << 8;
    const NO_EXECUTE: u64 = 1 << 63;
    /// Ignored by the hardware in every format: a page of the kernel, see [`Mapping::kernel`].
    const KERNEL: u64 = 1 << 11;

    /// Flags of an entry that points to a table.
    fn table(self) -> u64 {
        match self {
            Self::Host | Self::Npt => Self::PRESENT | Self::WRITE | Self::USER | Self::ACCESSED,
            Self::Kernel => Self::PRESENT | Self::WRITE | Self::ACCESSED,
            Self::Ept => 0b111,
        }
    }

    /// Flags of a leaf. Every mapping is readable.
    fn leaf(self, mapping: &Mapping, level: u8) -> u64 {
        let write = mapping.rights.contains(MemRights::WRITE);
        let execute = mapping.rights.contains(MemRights::EXECUTE);
        let mut flags = match self {
            // PAT entries: 0 is write-back, 1 (WRITE_THROUGH) is programmed to write-combining,
            // 3 (both bits) is uncached.
            Self::Host | Self::Kernel | Self::Npt => {
                let execute = execute && !(write && self != Self::Npt);
                let cache = match mapping.memory {
                    MemoryType::WriteBack => 0,
                    MemoryType::WriteCombining => Self::WRITE_THROUGH,
                    MemoryType::Uncached => Self::WRITE_THROUGH | Self::CACHE_DISABLE,
                };
                Self::PRESENT
                    | if self == Self::Kernel { Self::GLOBAL } else { Self::USER }
                    | Self::ACCESSED
                    | Self::DIRTY
                    | if write { Self::WRITE } else { 0 }
                    | if execute { 0 } else { Self::NO_EXECUTE }
                    | cache
            }
            Self::Ept => {
                let cache = match mapping.memory {
                    MemoryType::WriteBack => 6,
                    MemoryType::WriteCombining => 1,
                    MemoryType::Uncached => 0,
                };
                0b001 | u64::from(write) << 1 | u64::from(execute) << 2 | cache << 3
            }
        };
        if level > 0 {
            flags |= LARGE;
        }
        if mapping.kernel {
            flags |= Self::KERNEL;
        }
        flags
    }
}

/// A range of pages and what it is to be mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First page number, a multiple of `2^order`.
    pub page: u64,
    /// log2 of the number of pages.
    pub order: u8,
    /// First physical page number, a multiple of `2^order`.
    pub phys: u64,
    /// Rights; reading is always allowed.
    pub rights: MemRights,
    /// Memory type.
    pub memory: MemoryType,
    /// The page belongs to the kernel (UTCB, information page) and to no capability.
    pub kernel: bool,
}

/// A tree of page tables.
pub struct PageTable {
    /// The root table, a zeroed page at first. Whoever made the tree pays for it.
    pub(crate) root: NonNull<Page>,
    /// The encoding.
    pub(crate) format: Format,
    /// The largest leaf to use.
    pub(crate) max_leaf: LeafSize,
}

impl PageTable {
    /// Whether nothing of a range is mapped.
    pub fn is_vacant(&self, page: u64, order: u8) -> bool {
        let (table, level) = self.descend(page, (order / LEVEL_BITS).min(ROOT_LEVEL));
        let first = index(page, level);
        let count = 1 << order.saturating_sub(level * LEVEL_BITS);
        (first..first + count).all(|i| load(table.word(i)) == 0)
    }

    /// Maps a vacant range. Tables are charged to `account`.
    ///
    /// # Errors
    /// `Quota`; nothing has changed then.
    pub fn map(
        &self,
        frames: &mut Frames,
        account: &Account,
        mapping: &Mapping,
    ) -> Result<(), Status> {
        debug_assert!(self.is_vacant(mapping.page, mapping.order));
        let level = self.leaf_level(mapping.order);
        let mut tables = PageList::new();
        for _ in 0..self.missing(mapping, level) {
            match account.alloc_page(frames) {
                Ok(page) => tables.push(page, account),
                Err(status) => {
                    // SAFETY: the tables were never linked.
                    unsafe { tables.free(frames) };
                    return Err(status);
                }
            }
        }
        let flags = self.format.leaf(mapping, level);
        for (page, entries) in self.runs(mapping.page, mapping.order) {
            let Some(table) = self.grow(&mut tables, page, level, entries.len()) else { break };
            let first = mapping.phys + (page - mapping.page);
            for (n, entry) in entries.enumerate() {
                let frame = first + (u64_of(n) << (level * LEVEL_BITS));
                store(table.word(entry), frame << PAGE_SHIFT | flags);
            }
        }
        debug_assert!(tables.is_empty());
        Ok(())
    }

    /// Unmaps a range that was mapped as such. Tables that are no longer needed go to `out`, to
    /// be freed when no TLB and no walk can use them any more.
    pub fn unmap(&self, account: &Account, page: u64, order: u8, out: &mut PageList) {
        let level = self.leaf_level(order);
        for (page, entries) in self.runs(page, order) {
            let mut gone = u64_of(entries.len());
            let table = self.table(page, level);
            entries.for_each(|entry| store(table.word(entry), 0));
            for above in level + 1..=ROOT_LEVEL {
                let slot = self.table(page, above).word(index(page, above));
                let entry = load(slot);
                if entry >> COUNT_SHIFT > gone {
                    store(slot, entry - (gone << COUNT_SHIFT));
                    break;
                }
                store(slot, 0);
                out.push(pool::ptr(entry & PHYS_MASK), account);
                gone = 1;
            }
        }
    }

    /// Rewrites the entries of a range that was mapped as such: other rights, same pages.
    pub fn protect(&self, mapping: &Mapping) {
        let level = self.leaf_level(mapping.order);
        let flags = self.format.leaf(mapping, level);
        for (page, entries) in self.runs(mapping.page, mapping.order) {
            let table = self.table(page, level);
            for slot in entries.map(|entry| table.word(entry)) {
                store(slot, load(slot) & PHYS_MASK | flags);
            }
        }
    }

    /// The leaf that translates a page: its physical page number for this page, its flags, its
    /// level.
    pub fn lookup(&self, page: u64) -> Option<(u64, u64, u8)> {
        let (table, level) = self.descend(page, 0);
        let entry = load(table.word(index(page, level)));
        let within = page & ((1 << (level * LEVEL_BITS)) - 1);
        let frame = (entry & PHYS_MASK) >> PAGE_SHIFT;
        (entry != 0).then_some((frame + within, entry & !PHYS_MASK, level))
    }

    /// The physical page number of a kernel page mapped at `page`.
    pub fn kernel_page(&self, page: u64) -> Option<u64> {
        let (phys, flags, _) = self.lookup(page)?;
        (flags & Format::KERNEL != 0).then_some(phys)
    }

    /// The entry of the last level for a page that is mapped there.
    pub fn entry(&self, page: u64) -> &AtomicU64 {
        self.table(page, 0).word(index(page, 0))
    }

    /// Level of the leaves that map a range.
    fn leaf_level(&self, order: u8) -> u8 {
        (order / LEVEL_BITS).min(self.max_leaf as u8)
    }

    /// The leaves of a range by table: the first page that a table maps, and its entries.
    fn runs(&self, page: u64, order: u8) -> impl Iterator<Item = (u64, Range<usize>)> + use<> {
        let level = self.leaf_level(order);
        let per_table = order.min((level + 1) * LEVEL_BITS);
        let count = 1 << (per_table - level * LEVEL_BITS);
        (page..page + (1 << order)).step_by(1 << per_table).map(move |page| {
            let first = index(page, level);
            (page, first..first + count)
        })
    }

    /// Number of tables that mapping a vacant range with leaves of a level needs.
    fn missing(&self, mapping: &Mapping, leaf: u8) -> usize {
        let (_, existing) = self.descend(mapping.page, leaf);
        let tables = |level| 1 << mapping.order.saturating_sub((level + 1) * LEVEL_BITS);
        (leaf..existing).map(tables).sum()
    }

    /// The table of a level for a page, on the way to which missing ones are linked in, and where
    /// `more` entries come into use. `None` where `tables` are too few: see `missing`.
    fn grow(&self, tables: &mut PageList, page: u64, to: u8, more: usize) -> Option<&Page> {
        let mut table = table_at(self.root);
        let mut above: Option<&AtomicU64> = None;
        let count = |slot: Option<&AtomicU64>, more| {
            if let Some(slot) = slot {
                store(slot, load(slot) + (u64_of(more) << COUNT_SHIFT));
            }
        };
        for level in (to + 1..=ROOT_LEVEL).rev() {
            let slot = table.word(index(page, level));
            if load(slot) == 0 {
                let (new, _) = tables.pop()?;
                store(slot, pool::phys(new) | self.format.table());
                count(above, 1);
            }
            table = child(load(slot));
            above = Some(slot);
        }
        count(above, more);
        Some(table)
    }

    /// The table of a level that leads to a mapped page.
    fn table(&self, page: u64, level: u8) -> &Page {
        let (table, reached) = self.descend(page, level);
        debug_assert_eq!(reached, level, "not mapped as such");
        table
    }

    /// The table of a level that leads to a page, or the last one on the way there; its level.
    fn descend(&self, page: u64, to: u8) -> (&Page, u8) {
        let (mut table, mut level) = (table_at(self.root), ROOT_LEVEL);
        while level > to {
            let entry = load(table.word(index(page, level)));
            if entry == 0 || is_leaf(entry, level) {
                break;
            }
            table = child(entry);
            level -= 1;
        }
        (table, level)
    }
}

fn is_leaf(entry: u64, level: u8) -> bool {
    level == 0 || entry & LARGE != 0
}

fn index(page: u64, level: u8) -> usize {
    usize_of(page >> (level * LEVEL_BITS)) & (Page::WORDS - 1)
}

fn child<'a>(entry: u64) -> &'a Page {
    table_at(pool::ptr(entry & PHYS_MASK))
}

fn table_at<'a>(page: NonNull<Page>) -> &'a Page {
    // SAFETY: only tables of a tree come here: pages of the pool that stay allocated while they
    // are linked. They are accessed by atomic words only.
    unsafe { page.as_ref() }
}

fn load(slot: &AtomicU64) -> u64 {
    // Only the holder of the kernel lock writes and reads here; the hardware just reads.
    slot.load(Ordering::Relaxed)
}

fn store(slot: &AtomicU64, entry: u64) {
    // Release: a walk that finds a new table finds it zeroed.
    slot.store(entry, Ordering::Release);
    #[cfg(test)]
    tests::observe();
}

#[cfg(test)]
mod tests;
