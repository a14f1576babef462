//! The finished tables, walked as the processor would.

use super::super::machine::Machine;
use super::super::memory::{Plan, Range};
use super::{KernelSpace, build};
use crate::arch::io_bitmap;
use crate::arch::ioapic::Description;
use crate::arch::layout::{IMAGE_BASE, IOAPIC_BASE, LAPIC_BASE, POOL_BASE, in_window, window};
use crate::arch::start::ImageLayout;
use crate::mem::pool;
use crate::mem::tests::Region;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const UNCACHED: u64 = 3 << 3;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const USER: u64 = 1 << 2;
const POOL: Range = Range { start: 0x7000_0000, end: 0x7100_0000 };
const LAYOUT: ImageLayout =
    ImageLayout { rodata: 0xd000, data: 0x1_0000, boot: 0x2_0000, end: 0x2_5000 };

fn read(address: u64) -> u64 {
    // SAFETY: the callers follow the tables, which are in the pool.
    unsafe { pool::ptr::<AtomicU64>(address).as_ref() }.load(Ordering::Relaxed)
}

fn machine(cpus: u32) -> Machine {
    Machine {
        cpus: (0..cpus).collect(),
        ioapics: [0xfec0_0000, 0xfec0_1400]
            .into_iter()
            .map(|base| Description { base, gsi: 0 })
            .collect(),
        lapic: 0xfee0_0000,
        image: Range::new(0x160_0000, LAYOUT.end),
        memory: Plan { pool: POOL, ..Plan::default() },
        ..Machine::default()
    }
}

/// Every mapping: virtual address to entry, with the writability of all levels in it.
fn mappings(table: u64, level: u32, base: u64, all: &mut BTreeMap<u64, u64>) {
    for index in 0..512 {
        let entry = read(table + 8 * index);
        if entry & PRESENT == 0 {
            assert_eq!(entry, 0);
            continue;
        }
        assert_eq!(entry & USER, 0, "a user entry");
        let mut address = base | index << (3 + 9 * level);
        if level == 4 && index >= 256 {
            address |= 0xffff_0000_0000_0000;
        }
        if level == 1 || entry & LARGE != 0 {
            all.insert(address, entry);
        } else {
            mappings(entry & ADDRESS, level - 1, address, all);
        }
    }
}

fn built(cpus: u32) -> (Box<Region>, BTreeMap<u64, u64>) {
    let mut region = Region::new(1000);
    let space = build(&machine(cpus), LAYOUT, &mut region.frames).unwrap();
    let mut all = BTreeMap::new();
    mappings(space.root, 4, 0, &mut all);
    for (index, entry) in (509..).zip(space.entries) {
        assert_eq!(read(space.root + 8 * index), entry);
        assert_ne!(entry & PRESENT, 0);
    }
    assert!((0..509).all(|index| read(space.root + 8 * index) == 0));
    (region, all)
}

#[test]
fn nothing_is_writable_and_executable_and_all_is_global() {
    let (_region, all) = built(4);
    for (address, entry) in all {
        assert!(entry & WRITABLE == 0 || entry & NO_EXECUTE != 0, "{address:#x}");
        assert_ne!(entry & GLOBAL, 0, "{address:#x}");
    }
}

#[test]
fn the_image_has_the_permissions_of_its_segments() {
    let (_region, all) = built(1);
    for offset in (0..LAYOUT.boot).step_by(4096) {
        let entry = all[&(IMAGE_BASE + offset)];
        assert_eq!(entry & ADDRESS, 0x160_0000 + offset);
        assert_eq!(entry & NO_EXECUTE == 0, offset < LAYOUT.rodata);
        assert_eq!(entry & WRITABLE != 0, offset >= LAYOUT.data);
    }
    assert_eq!(all.range(IMAGE_BASE..).count(), 0x20);
}

#[test]
fn the_pool_is_linear_and_registers_are_uncached() {
    let (_region, all) = built(1);
    let pool: Vec<_> = all.range(POOL_BASE..IMAGE_BASE).collect();
    assert_eq!(pool.len(), 8);
    for (address, entry) in pool {
        assert_eq!(entry & ADDRESS, POOL.start + (address - POOL_BASE));
        assert_ne!(entry & LARGE, 0);
    }
    for (address, physical) in
        [(LAPIC_BASE, 0xfee0_0000), (IOAPIC_BASE, 0xfec0_0000), (IOAPIC_BASE + 4096, 0xfec0_1000)]
    {
        assert_eq!(all[&address] & (ADDRESS | UNCACHED), physical | UNCACHED);
    }
    assert!(all.range(..POOL_BASE).filter(|(_, entry)| *entry & UNCACHED != 0).count() == 3);
}

#[test]
fn windows_have_guards_and_private_frames() {
    let (_region, all) = built(20);
    let mut seen = std::collections::HashSet::new();
    for cpu in 0..20 {
        let at = |offset| in_window(cpu, offset);
        let mapped = |page: u64| all.contains_key(&at(page));
        for (start, end) in window::IST.into_iter().chain([window::STACK]) {
            assert!(!mapped(start - 4096) && !mapped(end));
            assert!((start..end).step_by(4096).all(mapped));
        }
        let private = all.range(at(0)..at(window::IO_BITMAP));
        for (address, entry) in private {
            assert!(seen.insert(entry & ADDRESS), "{address:#x} is shared");
        }
        for page in [window::IO_BITMAP, window::IO_BITMAP + 4096, window::IO_BITMAP_END] {
            let entry = all[&at(page)];
            assert_eq!(entry & WRITABLE, 0);
            assert_eq!(entry & !ADDRESS, io_bitmap::ENTRY_FLAGS);
            assert_eq!(read((entry & ADDRESS) + 4088), u64::MAX);
        }
    }
}

#[test]
fn running_out_of_frames_is_an_answer() {
    let with = |left| -> (Option<KernelSpace>, u64) {
        let mut region = Region::new(112);
        while region.frames.free_pages() > left {
            region.frames.alloc().unwrap();
        }
        let space = build(&machine(2), LAYOUT, &mut region.frames);
        (space, region.frames.free_pages())
    };
    let (space, left) = with(112);
    assert!(space.is_some());
    for left in 0..112 - left {
        assert_eq!(with(left).0, None);
    }
    assert!(with(112 - left).0.is_some());
}
