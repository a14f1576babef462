//! The kernel's own page tables: image, pool, a window for each CPU, interrupt controllers.
//! No page is writable and executable, none is a user page, nothing else is mapped.

use super::machine::Machine;
use super::memory::Range;
use crate::arch::io_bitmap;
use crate::arch::layout::{
    FIRST_KERNEL_SLOT, IMAGE_BASE, LARGE_PAGE, MMIO_BASE, PAGE, POOL_BASE, in_window, window,
};
use crate::arch::start::ImageLayout;
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::mem::paging::{Format, LeafSize, Mapping, MemoryType, PageTable};
use crate::mem::pool::{self, PAGE_SHIFT};
use crate::num::{u64_of, usize_of};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use ipc::cap::MemRights;
use ipc::trace::PAGES;

/// The finished tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSpace {
    /// Physical address of the PML4.
    pub root: u64,
    /// Entries that the PML4 of every protection domain has in the slots from
    /// [`FIRST_KERNEL_SLOT`] on. They never change.
    pub entries: [u64; 3],
    /// Physical address of the trace: a control page, then the rings of all CPUs.
    pub trace: u64,
}

/// Builds the tables from frames of the pool; `None` where it is too small.
pub fn build(machine: &Machine, image: ImageLayout, frames: &mut Frames) -> Option<KernelSpace> {
    let account = Account::new(frames.free_pages());
    let root = account.alloc_page(frames).ok()?;
    let trace = pool::phys(frames.alloc_run(1 + machine.cpus.len() * usize_of(PAGES))?);
    let table = PageTable { root, format: Format::Kernel, max_leaf: LeafSize::Large };
    let mut space = Builder { table, account, frames };
    let load_base = machine.image.start;
    for (range, rights) in [
        (Range { start: 0, end: image.rodata }, MemRights::READ.union(MemRights::EXECUTE)),
        (Range { start: image.rodata, end: image.data }, MemRights::READ),
        (Range { start: image.data, end: image.boot }, MemRights::RW),
    ] {
        for offset in pages(range, PAGE) {
            space.map(IMAGE_BASE + offset, load_base + offset, rights)?;
        }
    }
    let pool = machine.memory.pool;
    for frame in pages(pool, LARGE_PAGE) {
        let at = POOL_BASE + (frame - pool.start);
        space.map_as(at, frame, 9, MemRights::RW, MemoryType::WriteBack)?;
    }
    let ioapics = machine.ioapics.iter().map(|ioapic| ioapic.base & !(PAGE - 1));
    let registers = [machine.lapic].into_iter().chain(ioapics);
    for (page, base) in (MMIO_BASE..).step_by(4096).zip(registers) {
        space.map_as(page, base, 0, MemRights::RW, MemoryType::Uncached)?;
    }
    space.cpu_windows(machine.cpus.len(), trace)?;
    // SAFETY: the root is a page of the pool that only the tables use.
    let slot = |at| unsafe { root.as_ref() }.word(FIRST_KERNEL_SLOT + at).load(Ordering::Relaxed);
    Some(KernelSpace { root: pool::phys(root), entries: core::array::from_fn(slot), trace })
}

fn pages(range: Range, size: u64) -> impl Iterator<Item = u64> {
    (0..range.size() / size).map(move |index| range.start + index * size)
}

struct Builder<'a> {
    table: PageTable,
    account: Account,
    frames: &'a mut Frames,
}

impl Builder<'_> {
    /// Maps `2^order` pages.
    fn map_as(
        &mut self,
        address: u64,
        frame: u64,
        order: u8,
        rights: MemRights,
        memory: MemoryType,
    ) -> Option<()> {
        let (page, phys) = (address >> PAGE_SHIFT, frame >> PAGE_SHIFT);
        let mapping = Mapping { page, order, phys, rights, memory, kernel: false };
        self.table.map(self.frames, &self.account, &mapping).ok()
    }

    fn map(&mut self, address: u64, frame: u64, rights: MemRights) -> Option<()> {
        self.map_as(address, frame, 0, rights, MemoryType::WriteBack)
    }

    fn cpu_windows(&mut self, cpus: usize, trace: u64) -> Option<()> {
        let ones = self.frames.alloc()?;
        // SAFETY: the page is fresh.
        unsafe { ones.write_bytes(0xff, 1) };
        for cpu in 0..cpus {
            let at = |offset| in_window(cpu, offset);
            let [nmi, double_fault, machine_check] = window::IST;
            let own = (window::PERCPU, window::TSS + PAGE);
            for (start, end) in [window::STACK, nmi, double_fault, machine_check, own] {
                for offset in pages(Range { start, end }, PAGE) {
                    let frame = pool::phys(self.frames.alloc()?);
                    self.map(at(offset), frame, MemRights::RW)?;
                }
            }
            self.map(at(window::TRACE), trace, MemRights::RW)?;
            let ring = Range::new(trace + PAGE * (1 + u64_of(cpu) * PAGES), PAGE * PAGES);
            for (frame, offset) in pages(ring, PAGE).zip((window::TRACE + PAGE..).step_by(4096)) {
                self.map(at(offset), frame, MemRights::RW)?;
            }
            for page in [window::IO_BITMAP, window::IO_BITMAP + PAGE, window::IO_BITMAP_END] {
                self.map(at(page), pool::phys(ones), MemRights::READ)?;
            }
            // The window does not cross a page table (asserted below), so both entries are adjacent.
            let first = NonNull::from_ref(self.table.entry(at(window::IO_BITMAP) >> PAGE_SHIFT));
            let entries = POOL_BASE + pool::offset(first);
            io_bitmap::ENTRIES.get(cpu)?.store(entries, Ordering::Relaxed);
        }
        Some(())
    }
}

const _: () = assert!(LARGE_PAGE.is_multiple_of(window::SIZE));

#[cfg(test)]
mod tests;
