//! Page tables: four levels, three formats.
//!
//! What is mapped is always a naturally aligned range of `2^order` pages to an equally aligned
//! physical range, so a range is a run of entries in tables of one level, and it is unmapped as
//! it was mapped. Every change of a live table is one store of one word, so a concurrent walk of
//! the hardware finds each page as it was or as it will be.
//!
//! The entry that points to a table counts, in bits that the hardware ignores, the entries in
//! use there; a table is released with its last entry. Accessed and dirty are set from the start,
//! so that the hardware never writes to a table.

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
const COUNT_MASK: u64 = 0x3ff << COUNT_SHIFT;

/// How the caches treat a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
#[repr(u8)]
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
    const NO_EXECUTE: u64 = 1 << 63;
    /// Ignored by the hardware in every format: a page of the kernel, see [`Mapping::kernel`].
    const KERNEL: u64 = 1 << 11;

    /// Flags of an entry that points to a table.
    const fn table(self) -> u64 {
        match self {
            Self::Host | Self::Npt => Self::PRESENT | Self::WRITE | Self::USER | Self::ACCESSED,
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
            Self::Host | Self::Npt => {
                let execute = execute && !(write && self == Self::Host);
                let cache = match mapping.memory {
                    MemoryType::WriteBack => 0,
                    MemoryType::WriteCombining => Self::WRITE_THROUGH,
                    MemoryType::Uncached => Self::WRITE_THROUGH | Self::CACHE_DISABLE,
                };
                Self::PRESENT
                    | Self::USER
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

impl Mapping {
    /// Level of the tables that hold the entries of a range, and the number of entries there.
    fn extent(order: u8) -> (u8, usize) {
        let level = (order / LEVEL_BITS).min(ROOT_LEVEL);
        (level, 1 << (order - level * LEVEL_BITS))
    }
}

/// A tree of page tables.
pub struct PageTable {
    root: NonNull<Page>,
    format: Format,
    max_leaf: LeafSize,
}

impl PageTable {
    /// An empty tree in a zeroed page. The caller keeps paying for the page.
    #[must_use]
    pub fn new(root: NonNull<Page>, format: Format, max_leaf: LeafSize) -> Self {
        Self { root, format, max_leaf }
    }

    /// The root table.
    #[must_use]
    pub fn root(&self) -> NonNull<Page> {
        self.root
    }

    /// The encoding.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether nothing of a range is mapped.
    #[must_use]
    pub fn is_vacant(&self, page: u64, order: u8) -> bool {
        let (top, count) = Mapping::extent(order);
        let mut table = self.root_table();
        let mut level = ROOT_LEVEL;
        while level > top {
            let entry = load(table.word(index(page, level)));
            if entry == 0 {
                return true;
            }
            if is_leaf(entry, level) {
                return false;
            }
            table = child(entry);
            level -= 1;
        }
        let first = index(page, top);
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
        let mut tables = PageList::new();
        for _ in 0..self.missing(mapping) {
            match account.alloc_page(frames) {
                Ok(page) => tables.push(page, account),
                Err(status) => {
                    // SAFETY: the tables were never linked.
                    unsafe { tables.free(frames) };
                    return Err(status);
                }
            }
        }
        self.map_in(&mut tables, self.root_table(), ROOT_LEVEL, mapping);
        debug_assert!(tables.is_empty());
        Ok(())
    }

    /// Unmaps a range that was mapped as such. Tables that are no longer needed go to `out`, to
    /// be freed when no TLB and no walk can use them any more.
    pub fn unmap(&self, account: &Account, page: u64, order: u8, out: &mut PageList) {
        self.unmap_in(account, self.root_table(), ROOT_LEVEL, page, order, out);
    }

    /// Rewrites the entries of a range that was mapped as such: other rights, same pages.
    pub fn protect(&self, mapping: &Mapping) {
        let (top, count) = Mapping::extent(mapping.order);
        let mut table = self.root_table();
        let mut level = ROOT_LEVEL;
        while level > top {
            let entry = load(table.word(index(mapping.page, level)));
            if entry == 0 || is_leaf(entry, level) {
                return;
            }
            table = child(entry);
            level -= 1;
        }
        self.protect_in(table, top, index(mapping.page, top), count, mapping);
    }

    /// The leaf that translates a page: its physical page number for this page, its flags, its
    /// level.
    #[must_use]
    pub fn lookup(&self, page: u64) -> Option<(u64, u64, u8)> {
        let mut table = self.root_table();
        let mut level = ROOT_LEVEL;
        loop {
            let entry = load(table.word(index(page, level)));
            if entry == 0 {
                return None;
            }
            if is_leaf(entry, level) {
                let within = page & ((1 << (level * LEVEL_BITS)) - 1);
                return Some((frame(entry) + within, entry & !PHYS_MASK, level));
            }
            table = child(entry);
            level -= 1;
        }
    }

    /// The physical page number of a kernel page mapped at `page`.
    #[must_use]
    pub fn kernel_page(&self, page: u64) -> Option<u64> {
        let (phys, flags, _) = self.lookup(page)?;
        (flags & Format::KERNEL != 0).then_some(phys)
    }

    /// Number of tables that mapping a range needs.
    fn missing(&self, mapping: &Mapping) -> usize {
        let (top, count) = Mapping::extent(mapping.order);
        let mut table = self.root_table();
        let mut level = ROOT_LEVEL;
        let mut missing = 0;
        while level > top {
            let entry = load(table.word(index(mapping.page, level)));
            if entry == 0 {
                missing = usize::from(level - top);
                break;
            }
            table = child(entry);
            level -= 1;
        }
        let mut entries = count;
        for _ in self.leaf_level(top)..top {
            missing += entries;
            entries *= Page::WORDS;
        }
        missing
    }

    fn leaf_level(&self, top: u8) -> u8 {
        top.min(self.max_leaf as u8)
    }

    /// Maps a range below a table. Returns how many entries of the table came into use.
    ///
    /// New tables are filled before they are linked. Depth of recursion: the levels.
    fn map_in(&self, tables: &mut PageList, table: &Page, level: u8, mapping: &Mapping) -> u64 {
        let (top, count) = Mapping::extent(mapping.order);
        if level == top {
            let first = index(mapping.page, level);
            self.fill(tables, table, level, first, count, mapping, mapping.phys);
            return u64_of(count);
        }
        let slot = table.word(index(mapping.page, level));
        let entry = load(slot);
        if entry != 0 {
            let added = self.map_in(tables, child(entry), level - 1, mapping);
            store(slot, entry + (added << COUNT_SHIFT));
            return 0;
        }
        // There is one: `missing` counted.
        let Some((page, _)) = tables.pop() else {
            return 0;
        };
        let added = self.map_in(tables, table_at(page), level - 1, mapping);
        store(slot, self.link(page, added));
        1
    }

    #[expect(clippy::too_many_arguments, reason = "a loop over entries, private")]
    fn fill(
        &self,
        tables: &mut PageList,
        table: &Page,
        level: u8,
        first: usize,
        count: usize,
        mapping: &Mapping,
        phys: u64,
    ) {
        let leaf = level <= self.max_leaf as u8;
        let flags = self.format.leaf(mapping, level);
        for i in 0..count {
            let frame = phys + (u64_of(i) << (level * LEVEL_BITS));
            let entry = if leaf {
                frame << PAGE_SHIFT | flags
            } else {
                let Some((page, _)) = tables.pop() else {
                    return;
                };
                self.fill(tables, table_at(page), level - 1, 0, Page::WORDS, mapping, frame);
                self.link(page, u64_of(Page::WORDS))
            };
            store(table.word(first + i), entry);
        }
    }

    /// Unmaps a range below a table. Returns how many entries of the table fell out of use.
    fn unmap_in(
        &self,
        account: &Account,
        table: &Page,
        level: u8,
        page: u64,
        order: u8,
        out: &mut PageList,
    ) -> u64 {
        let (top, count) = Mapping::extent(order);
        let first = index(page, level);
        if level == top {
            for slot in (first..first + count).map(|i| table.word(i)) {
                let entry = load(slot);
                store(slot, 0);
                if !is_leaf(entry, level) {
                    release(account, entry, level - 1, out);
                }
            }
            return u64_of(count);
        }
        let slot = table.word(first);
        let entry = load(slot);
        debug_assert!(entry != 0 && !is_leaf(entry, level));
        let gone = self.unmap_in(account, child(entry), level - 1, page, order, out);
        if (entry & COUNT_MASK) >> COUNT_SHIFT > gone {
            store(slot, entry - (gone << COUNT_SHIFT));
            return 0;
        }
        store(slot, 0);
        out.push(pool::ptr(entry & PHYS_MASK), account);
        1
    }

    fn protect_in(&self, table: &Page, level: u8, first: usize, count: usize, mapping: &Mapping) {
        let flags = self.format.leaf(mapping, level);
        for slot in (first..first + count).map(|i| table.word(i)) {
            let entry = load(slot);
            if is_leaf(entry, level) {
                store(slot, entry & PHYS_MASK | flags);
            } else {
                self.protect_in(child(entry), level - 1, 0, Page::WORDS, mapping);
            }
        }
    }

    fn link(&self, page: NonNull<Page>, count: u64) -> u64 {
        pool::phys(page) | self.format.table() | count << COUNT_SHIFT
    }

    fn root_table(&self) -> &Page {
        table_at(self.root)
    }

    /// Calls `visit` with page, level and leaf entry of every user mapping, and checks the counts
    /// of all tables on the way.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, visit: &mut dyn FnMut(u64, u8, u64)) -> Result<(), &'static str> {
        // The upper half of a host table is the kernel's.
        let entries = if self.format == Format::Host { Page::WORDS / 2 } else { Page::WORDS };
        check_in(self.root_table(), ROOT_LEVEL, 0, entries, visit).map(|_| ())
    }

    /// The entry that a leaf of `mapping` at `level` must have for page `page` of the range.
    #[must_use]
    pub fn expected(&self, mapping: &Mapping, level: u8, page: u64) -> u64 {
        let frame = mapping.phys + (page - mapping.page);
        frame << PAGE_SHIFT | self.format.leaf(mapping, level)
    }

    /// Whether a leaf entry maps a page of the kernel.
    #[must_use]
    pub fn is_kernel(entry: u64) -> bool {
        entry & Format::KERNEL != 0
    }
}

fn check_in(
    table: &Page,
    level: u8,
    base: u64,
    entries: usize,
    visit: &mut dyn FnMut(u64, u8, u64),
) -> Result<u64, &'static str> {
    let mut count = 0;
    for i in 0..entries {
        let entry = load(table.word(i));
        let page = base + (u64_of(i) << (level * LEVEL_BITS));
        if entry == 0 {
            continue;
        }
        count += 1;
        if is_leaf(entry, level) {
            visit(page, level, entry);
        } else {
            let below = check_in(child(entry), level - 1, page, Page::WORDS, visit)?;
            if below == 0 {
                return Err("page table without entries");
            }
            if (entry & COUNT_MASK) >> COUNT_SHIFT != below {
                return Err("page table with a wrong count");
            }
        }
    }
    Ok(count)
}

/// Puts the table that an unlinked entry pointed to, and all below it, on the list.
fn release(account: &Account, entry: u64, level: u8, out: &mut PageList) {
    if level > 0 {
        for below in child(entry).words().map(load).filter(|&e| e != 0 && !is_leaf(e, level)) {
            release(account, below, level - 1, out);
        }
    }
    out.push(pool::ptr(entry & PHYS_MASK), account);
}

fn is_leaf(entry: u64, level: u8) -> bool {
    level == 0 || entry & LARGE != 0
}

fn frame(entry: u64) -> u64 {
    (entry & PHYS_MASK) >> PAGE_SHIFT
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
    // Release: a walk that finds a new table finds it filled.
    slot.store(entry, Ordering::Release);
    #[cfg(test)]
    tests::observe();
}

#[cfg(test)]
mod tests;
