#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    COUNT_SHIFT, Format, LEVEL_BITS, LeafSize, Mapping, MemoryType, PAGE_SHIFT, PageTable,
    ROOT_LEVEL, child, is_leaf, load, table_at,
};
use crate::mem::frames::PageList;
use crate::mem::pool::Page;
use crate::mem::tests::Region;
use crate::num::u64_of;
use ipc::cap::MemRights;

thread_local! {
    /// Called after every store to a table.
    static OBSERVER: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

pub(super) fn observe() {
    OBSERVER.with_borrow(|observer| {
        if let Some(observer) = observer {
            observer();
        }
    });
}

impl PageTable {
    /// Calls `visit` with page, level and leaf entry of every user mapping, and checks the counts
    /// of all tables on the way.
    pub(crate) fn check(&self, visit: &mut dyn FnMut(u64, u8, u64)) -> Result<(), &'static str> {
        // The upper half of a host table is the kernel's.
        let entries = if self.format == Format::Host { Page::WORDS / 2 } else { Page::WORDS };
        check_in(table_at(self.root), ROOT_LEVEL, 0, entries, visit).map(|_| ())
    }

    /// The entry that a leaf of `mapping` at `level` must have for page `page` of the range.
    pub(crate) fn expected(&self, mapping: &Mapping, level: u8, page: u64) -> u64 {
        let frame = mapping.phys + (page - mapping.page);
        frame << PAGE_SHIFT | self.format.leaf(mapping, level)
    }

    /// Whether a leaf entry maps a page of the kernel.
    pub(crate) fn is_kernel(entry: u64) -> bool {
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
            if entry >> COUNT_SHIFT != below {
                return Err("page table with a wrong count");
            }
        }
    }
    Ok(count)
}

const R: MemRights = MemRights::READ;
const RW: MemRights = MemRights::RW;
const RX: MemRights = MemRights::READ.union(MemRights::EXECUTE);
const RWX: MemRights = MemRights::all();

fn mapping(page: u64, order: u8, phys: u64, rights: MemRights) -> Mapping {
    Mapping { page, order, phys, rights, memory: MemoryType::WriteBack, kernel: false }
}

fn table(region: &mut Region, format: Format, max_leaf: LeafSize) -> PageTable {
    let root = region.root.alloc_page(&mut region.frames).unwrap();
    PageTable { root, format, max_leaf }
}

fn map(region: &mut Region, table: &PageTable, mapping: &Mapping) {
    table.map(&mut region.frames, &region.root, mapping).unwrap();
}

/// Unmaps and returns the number of tables that fell out of use.
fn unmap(region: &mut Region, table: &PageTable, page: u64, order: u8) -> u64 {
    let mut out = PageList::new();
    table.unmap(&region.root, page, order, &mut out);
    let used = region.root.used();
    // SAFETY: no hardware walks the tables of a test.
    unsafe { out.free(&mut region.frames) };
    used - region.root.used()
}

#[test]
fn leaves_are_as_large_as_possible() {
    for (max, order, level, tables) in [
        (LeafSize::Huge, 18, 2, 1),
        (LeafSize::Huge, 20, 2, 1),
        (LeafSize::Huge, 17, 1, 2),
        (LeafSize::Huge, 9, 1, 2),
        (LeafSize::Huge, 8, 0, 3),
        (LeafSize::Large, 18, 1, 2),
        (LeafSize::Large, 20, 1, 5),
        (LeafSize::Large, 12, 1, 2),
        (LeafSize::Small, 9, 0, 3),
        (LeafSize::Small, 11, 0, 6),
        (LeafSize::Huge, 27, 2, 1),
        (LeafSize::Huge, 28, 2, 2),
    ] {
        let mut region = Region::new(64);
        let t = table(&mut region, Format::Npt, max);
        let page = 5 << 28;
        map(&mut region, &t, &mapping(page, order, 3 << 28, RW));
        assert_eq!(region.root.used(), 1 + tables, "{max:?} {order}");
        for probe in [page, page + 1, page + (1 << order) - 1] {
            let (phys, _, found) = t.lookup(probe).unwrap();
            assert_eq!((phys, found), (probe - page + (3 << 28), level), "{max:?} {order}");
            assert!(!t.is_vacant(probe, 0));
        }
        assert!(t.lookup(page - 1).is_none() && t.lookup(page + (1 << order)).is_none());
        assert!(t.is_vacant(page + (1 << order), order) && !t.is_vacant(page, order + 1));
        t.check(&mut |_, _, _| ()).unwrap();
        assert_eq!(unmap(&mut region, &t, page, order), tables);
        assert!(t.is_vacant(0, 36));
    }
}

#[test]
fn encodings() {
    let flags = |format, rights, memory, order| {
        let mut region = Region::new(16);
        let t = table(&mut region, format, LeafSize::Huge);
        map(&mut region, &t, &Mapping { memory, ..mapping(1 << 18, order, 1 << 18, rights) });
        t.lookup(1 << 18).unwrap().1
    };
    const NX: u64 = 1 << 63;
    let wb = MemoryType::WriteBack;
    assert_eq!(flags(Format::Host, R, wb, 0), NX | 0x65);
    assert_eq!(flags(Format::Host, RW, wb, 0), NX | 0x67);
    assert_eq!(flags(Format::Host, RX, wb, 0), 0x65);
    // Never both.
    assert_eq!(flags(Format::Host, RWX, wb, 0), NX | 0x67);
    assert_eq!(flags(Format::Npt, RWX, wb, 0), 0x67);
    assert_eq!(flags(Format::Npt, RWX, wb, 9), 0xe7);
    assert_eq!(flags(Format::Npt, RX, wb, 18), 0xe5);
    assert_eq!(flags(Format::Host, RW, MemoryType::Uncached, 0), NX | 0x7f);
    assert_eq!(flags(Format::Host, RW, MemoryType::WriteCombining, 9), NX | 0xef);
    assert_eq!(flags(Format::Ept, RWX, wb, 0), 0x37);
    assert_eq!(flags(Format::Ept, RX, wb, 9), 0xb5);
    assert_eq!(flags(Format::Ept, RW, MemoryType::Uncached, 18), 0x83);
    assert_eq!(flags(Format::Ept, R, MemoryType::WriteCombining, 0), 0x09);
}

#[test]
fn out_of_memory_at_every_point() {
    for (max, order, present) in [
        (LeafSize::Huge, 0, None),
        (LeafSize::Large, 19, None),
        (LeafSize::Small, 10, Some(0)),
        (LeafSize::Large, 27 - 9, Some(1 << 9)),
        (LeafSize::Small, 10, Some(1 << 20)),
    ] {
        let mut failures = 0;
        loop {
            let mut region = Region::new(64);
            let t = table(&mut region, Format::Ept, max);
            if let Some(page) = present {
                map(&mut region, &t, &mapping((1 << 27) + (1 << 18) + page, 0, 7, R));
            }
            let used = region.root.used();
            region.frames.fail_after = Some(failures);
            let m = mapping((1 << 27) + (1 << 20), order, 1 << 20, RW);
            if !t.is_vacant(m.page, order) {
                break;
            }
            let result = t.map(&mut region.frames, &region.root, &m);
            if result.is_ok() {
                region.frames.fail_after = None;
                break;
            }
            failures += 1;
            assert_eq!(region.root.used(), used);
            assert!(t.is_vacant(m.page, order));
            let mut leaves = 0;
            t.check(&mut |_, _, _| leaves += 1).unwrap();
            assert_eq!(leaves, usize::from(present.is_some()));
        }
        assert!(failures > 0 || present == Some(1 << 20));
    }
}

#[test]
fn kernel_pages_are_told_apart() {
    let mut region = Region::new(16);
    let t = table(&mut region, Format::Host, LeafSize::Huge);
    map(&mut region, &t, &Mapping { kernel: true, ..mapping(10, 0, 99, RW) });
    map(&mut region, &t, &mapping(11, 0, 98, RW));
    assert_eq!(t.kernel_page(10), Some(99));
    assert_eq!((t.kernel_page(11), t.kernel_page(12)), (None, None));
}

/// A few places that share tables at every level.
fn place() -> impl Strategy<Value = (u64, u8)> {
    (0..2_u64, 0..2_u64, 0..3_u64, 0..4_u64, 0..20_u8).prop_map(|(a, b, c, d, order)| {
        let page = a << 27 | b << 18 | c << 9 | d << 1;
        let order = [0, 0, 0, 1, 1, 2, 3, 5, 8, 9, 9, 10, 12, 17, 18, 18, 19, 21, 27, 28]
            [usize::from(order)];
        (page >> order << order, order)
    })
}

/// First and last pages of all places, and what is next to them.
fn probes() -> Vec<u64> {
    let mut probes = Vec::new();
    for a in 0..3 {
        for b in 0..3 {
            for c in 0..4 {
                for d in [0, 1, 2, 3, 4, 5, 6, 7, 8, 31, 32, 255, 511] {
                    probes.push(a << 27 | b << 18 | c << 9 | d);
                }
            }
        }
    }
    probes
}

type Model = BTreeMap<u64, Mapping>;

fn expected(model: &Model, t: &PageTable, page: u64) -> Option<(u64, u64)> {
    let (_, m) = model.range(..=page).next_back()?;
    let level = t.leaf_level(m.order);
    (page < m.page + (1 << m.order)).then(|| (m.phys + (page - m.page), t.format.leaf(m, level)))
}

fn found(t: &PageTable, page: u64) -> Option<(u64, u64)> {
    t.lookup(page).map(|(phys, flags, _)| (phys, flags))
}

/// Runs one operation and checks that each probe reads as before or as after at every store.
fn observed(t: &PageTable, before: &Model, after: &Model, operation: impl FnOnce()) {
    let table = PageTable { root: t.root, format: t.format, max_leaf: t.max_leaf };
    let views: Vec<_> = probes()
        .into_iter()
        .map(|page| (page, expected(before, t, page), expected(after, t, page)))
        .collect();
    let changed = views.iter().filter(|(_, old, new)| old != new).copied().collect::<Vec<_>>();
    OBSERVER.set(Some(Box::new(move || {
        for &(page, old, new) in &changed {
            let now = found(&table, page);
            assert!(
                now == old || now == new,
                "{page:#x}: {now:x?} is neither {old:x?} nor {new:x?}"
            );
        }
    })));
    operation();
    OBSERVER.set(None);
    for (page, _, new) in views {
        assert_eq!(found(t, page), new, "page {page:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn like_a_map(
        format in prop::sample::select(vec![Format::Host, Format::Npt, Format::Ept]),
        max in prop::sample::select(vec![LeafSize::Small, LeafSize::Large, LeafSize::Huge]),
        steps in prop::collection::vec((place(), 0..8_u64, any::<usize>(), 0..4_u8), 1..60),
    ) {
        OBSERVER.set(None);
        let mut region = Region::new(2048);
        let t = table(&mut region, format, max);
        let mut model = Model::new();
        for ((page, order), phys, pick, what) in steps {
            let limit = match max {
                LeafSize::Small => 11,
                LeafSize::Large => 20,
                LeafSize::Huge => 28,
            };
            let order = order.min(limit);
            let rights = [R, RW, RX, RWX][pick % 4];
            let overlaps = model
                .values()
                .any(|m| m.page < page + (1 << order) && page < m.page + (1 << m.order));
            prop_assert_eq!(t.is_vacant(page, order), !overlaps);
            let before = model.clone();
            if what < 2 {
                if overlaps {
                    continue;
                }
                let m = mapping(page, order, phys << order, rights);
                model.insert(page, m);
                observed(&t, &before, &model, || map(&mut region, &t, &m));
            } else if let Some(m) = model.values().nth(pick % model.len().max(1)).copied() {
                if what == 2 {
                    model.remove(&m.page);
                    observed(&t, &before, &model, || {
                        unmap(&mut region, &t, m.page, m.order);
                    });
                } else {
                    let m = Mapping { rights, ..m };
                    model.insert(m.page, m);
                    observed(&t, &before, &model, || t.protect(&m));
                }
            }
            let mut mapped = 0;
            t.check(&mut |_, level, _| mapped += 1_u64 << (9 * level)).unwrap();
            prop_assert_eq!(mapped, model.values().map(|m| 1 << m.order).sum::<u64>());
        }
        for m in model.values() {
            unmap(&mut region, &t, m.page, m.order);
        }
        prop_assert_eq!(region.root.used(), 1);
    }
}
