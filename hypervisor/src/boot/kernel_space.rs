//! The kernel's own page tables: image, pool, a window for each CPU, interrupt controllers.
//! No page is writable and executable, none is a user page, nothing else is mapped.

use super::identity::PoolFront;
use super::machine::Machine;
use super::memory::Range;
use crate::arch::io_bitmap;
use crate::arch::layout::{
    FIRST_KERNEL_SLOT, IMAGE_BASE, IOAPIC_BASE, LAPIC_BASE, LARGE_PAGE, PAGE, POOL_BASE, in_window,
    window,
};
use crate::arch::start::ImageLayout;
use crate::num::u64_of;
use core::sync::atomic::Ordering;
use ipc::trace::PAGES;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// Page attribute 3 of the table that `arch::cpu` sets.
const UNCACHED: u64 = 3 << 3;
/// Set in advance, so that the processor never has to write these tables.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const TABLE: u64 = PRESENT | WRITABLE | ACCESSED;
const CODE: u64 = PRESENT | ACCESSED | GLOBAL;
const CONSTANT: u64 = CODE | NO_EXECUTE;
const DATA: u64 = CONSTANT | WRITABLE | DIRTY;
const REGISTERS: u64 = DATA | UNCACHED;

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
pub fn build(machine: &Machine, image: ImageLayout, memory: &mut PoolFront) -> Option<KernelSpace> {
    let root = memory.take()?;
    // Frames taken one after the other are adjacent.
    let trace = memory.take()?;
    for _ in 0..u64_of(machine.cpus.len()) * PAGES {
        memory.take()?;
    }
    let mut space = Builder { root, memory };

    let load_base = machine.image.start;
    for (range, flags) in [
        (Range { start: 0, end: image.rodata }, CODE),
        (Range { start: image.rodata, end: image.data }, CONSTANT),
        (Range { start: image.data, end: image.boot }, DATA),
    ] {
        for offset in pages(range, PAGE) {
            space.map(IMAGE_BASE + offset, (load_base + offset) | flags, 1)?;
        }
    }
    let pool = machine.memory.pool;
    for frame in pages(pool, LARGE_PAGE) {
        space.map(POOL_BASE + (frame - pool.start), frame | DATA | LARGE, 2)?;
    }
    space.map(LAPIC_BASE, machine.lapic | REGISTERS, 1)?;
    for (page, ioapic) in (IOAPIC_BASE..).step_by(4096).zip(&machine.ioapics) {
        space.map(page, ioapic.base & ADDRESS | REGISTERS, 1)?;
    }
    space.cpu_windows(machine, trace)?;

    let slot = |index| space.memory.read(space.root + 8 * u64_of(FIRST_KERNEL_SLOT + index));
    Some(KernelSpace { root: space.root, entries: core::array::from_fn(slot), trace })
}

fn pages(range: Range, size: u64) -> impl Iterator<Item = u64> {
    (0..range.size() / size).map(move |index| range.start + index * size)
}

struct Builder<'a> {
    root: u64,
    memory: &'a mut PoolFront,
}

impl Builder<'_> {
    /// The address of the entry for `address` in a table of the given level (1: 4 KiB pages),
    /// with all tables above it.
    fn entry(&mut self, address: u64, level: u32) -> Option<u64> {
        let mut table = self.root;
        for at in (1..=4).rev() {
            let entry = table + 8 * (address >> (3 + 9 * at) & 0x1ff);
            if at == level {
                return Some(entry);
            }
            let value = self.memory.read(entry);
            table = if value & PRESENT != 0 {
                value & ADDRESS
            } else {
                let frame = self.memory.take()?;
                self.memory.write(entry, frame | TABLE);
                frame
            };
        }
        None
    }

    fn map(&mut self, address: u64, value: u64, level: u32) -> Option<()> {
        let entry = self.entry(address, level)?;
        self.memory.write(entry, value);
        Some(())
    }

    fn cpu_windows(&mut self, machine: &Machine, trace: u64) -> Option<()> {
        let ones = self.memory.take()?;
        for word in (ones..ones + PAGE).step_by(8) {
            self.memory.write(word, u64::MAX);
        }
        for cpu in 0..machine.cpus.len() {
            let at = |offset| in_window(cpu, offset);
            let [nmi, double_fault, machine_check] = window::IST;
            let own = (window::PERCPU, window::TSS + PAGE);
            for (start, end) in [window::STACK, nmi, double_fault, machine_check, own] {
                for offset in pages(Range { start, end }, PAGE) {
                    let frame = self.memory.take()?;
                    self.map(at(offset), frame | DATA, 1)?;
                }
            }
            self.map(at(window::TRACE), trace | DATA, 1)?;
            let ring = Range::new(trace + PAGE * (1 + u64_of(cpu) * PAGES), PAGE * PAGES);
            for (frame, offset) in pages(ring, PAGE).zip((window::TRACE + PAGE..).step_by(4096)) {
                self.map(at(offset), frame | DATA, 1)?;
            }
            for page in [window::IO_BITMAP, window::IO_BITMAP + PAGE, window::IO_BITMAP_END] {
                self.map(at(page), ones | io_bitmap::ENTRY_FLAGS, 1)?;
            }
            let entries = self.entry(at(window::IO_BITMAP), 1)?;
            // The window does not cross a page table (asserted below), so both entries are adjacent.
            let entries = POOL_BASE + (entries - machine.memory.pool.start);
            io_bitmap::ENTRIES.get(cpu)?.store(entries, Ordering::Relaxed);
        }
        Some(())
    }
}

const _: () = assert!(LARGE_PAGE.is_multiple_of(window::SIZE));

#[cfg(test)]
mod tests;
