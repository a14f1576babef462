#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod check;
mod index;
mod model;
mod revocation;
mod world;

use ipc::cap::{Held, MemRights, ObjectType, Range, Rights, Space};
use ipc::status::Status;
use ipc::utcb::Item;

use self::world::{EcObject, PtObject, SmObject, World};
use super::{Delegation, Owner, install_memory, query, translate};
use crate::mem::frames::PageList;
use crate::mem::paging::MemoryType;
use crate::mem::pool;
use crate::mem::tests::Region;

const ALL: Rights = Rights::FULL;
const R: MemRights = MemRights::READ;
const RW: MemRights = MemRights::RW;
const RX: MemRights = MemRights::READ.union(MemRights::EXECUTE);
const RWX: MemRights = MemRights::all();

#[test]
fn lookup() {
    let mut w = World::new(1, 0);
    let sm = w.install::<SmObject>(0, 5, ALL);
    let pt = w.install::<PtObject>(0, 65535, Rights::PT_CALL);
    let objects = &w.pds[0].objects;
    assert_eq!(objects.lookup::<SmObject>(5, ALL).unwrap().id, sm);
    assert_eq!(objects.lookup::<PtObject>(65535, Rights::PT_CALL).unwrap().id, pt);
    let lookup = |sel, rights| objects.lookup::<PtObject>(sel, rights).map(|o| o.id);
    assert_eq!(lookup(65535, Rights::empty()), Ok(pt));
    assert_eq!(lookup(65535, Rights::PT_CTRL), Err(Status::BadRight));
    assert_eq!(lookup(65535, Rights::PT_CALL | Rights::PT_CTRL), Err(Status::BadRight));
    for empty in [0, 4, 5, 6, 1000, 65534, 65536, 1 << 40, u64::MAX] {
        assert_eq!(lookup(empty, Rights::PT_CALL), Err(Status::BadCap), "{empty}");
    }
    w.finish();
}

#[test]
fn badges() {
    let mut w = World::new(2, 0);
    w.install::<SmObject>(0, 5, ALL);
    w.install::<PtObject>(0, 6, ALL);
    let range = Range::object(Rights::SM_UP);
    assert_eq!(w.delegate(0, 1, Range::object(ALL), 6, 9, 1), Err(Status::BadParam));
    w.delegate(0, 1, range, 5, 10, 0x80).unwrap();
    w.delegate(0, 1, range, 5, 11, 0).unwrap();
    assert_eq!(w.delegate(1, 1, range, 10, 12, 1), Err(Status::BadParam));
    // A badge is no memory type.
    w.delegate(0, 1, range, 5, 13, 1).unwrap();
    let combining = w.delegate(1, 1, range.write_combining(), 13, 14, 0);
    assert_eq!(combining, Err(Status::BadParam));
    w.delegate(1, 1, range, 10, 12, 0).unwrap();
    w.delegate(1, 0, range, 11, 7, 0x40).unwrap();
    let badge = |pd: usize, sel| {
        w.pds[pd].objects.lookup_badged::<SmObject>(sel, Rights::SM_UP).map(|(_, badge)| badge)
    };
    assert_eq!(
        [badge(1, 10), badge(1, 11), badge(1, 12), badge(0, 7)].map(Result::unwrap),
        [0x80, 0, 0x80, 0x40]
    );
    assert_eq!(badge(0, 6), Err(Status::BadCap));
    let down = w.pds[1].objects.lookup_badged::<SmObject>(10, Rights::SM_DOWN).map(|_| ());
    assert_eq!(down, Err(Status::BadRight));
    assert_eq!(
        query(&w.pds[1], Space::Object, 10).unwrap(),
        (Held::new(ObjectType::Sm, Rights::SM_UP.bits(), 0), 0x80)
    );
    w.finish();
}

#[test]
fn refused_delegations() {
    let mut w = World::new(2, 1);
    w.install::<SmObject>(0, 5, Rights::SM_UP);
    w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
    w.install_memory(0, 2 << 9, 3 << 20, 9, MemoryType::Uncached);
    w.install_ports(0, 0, 10);
    let object = Range::object(ALL);
    let page = Range::memory(0, RW);
    let cases = [
        // Malformed ranges.
        (Range(object.0 | 3), 5, 9, 0, Status::BadParam),
        (Range(object.0 | 1 << 19), 5, 9, 0, Status::BadParam),
        (Range(object.0 | 1 << 2), 4, 8, 0, Status::BadParam),
        (Range(object.0 | 0x20 << 8), 5, 9, 0, Status::BadParam),
        (Range(page.0 | 8 << 8), 512, 512, 0, Status::BadParam),
        (Range(Range::port(0).0 | 2 << 8), 1, 1, 0, Status::BadParam),
        (Range::object(Rights::empty()), 5, 9, 0, Status::BadParam),
        (object.translate(), 5, 9, 0, Status::BadParam),
        (object.include_self(), 5, 9, 0, Status::BadParam),
        (object.write_combining(), 5, 9, 0, Status::BadParam),
        (Range::memory(0, MemRights::WRITE), 512, 512, 0, Status::BadParam),
        (Range::memory(19, RW), 512, 512, 0, Status::BadParam),
        (Range::port(17), 0, 0, 0, Status::BadParam),
        // Misaligned or out of the space.
        (Range::memory(1, RW), 513, 512, 0, Status::BadParam),
        (Range::memory(1, RW), 512, 513, 0, Status::BadParam),
        (Range::port(1), 1, 1, 0, Status::BadParam),
        (Range::port(0), 1, 2, 0, Status::BadParam),
        (Range::port(0), 65536, 65536, 0, Status::BadParam),
        (page, u64::MAX, 512, 0, Status::BadParam),
        (page, 512, 0, 0, Status::BadParam),
        (page, 512, 0x7_ffff_ffff, 0, Status::BadParam),
        (page, 512, u64::MAX, 0, Status::BadParam),
        (object, 65536, 9, 0, Status::BadCap),
        (object, 5, 65536, 0, Status::BadCap),
        (object, 5, 0, 0, Status::BadCap),
        // Nothing there, or not in one piece.
        (object, 6, 9, 0, Status::BadCap),
        (object, 0, 9, 0, Status::BadCap),
        (page, 511, 512, 0, Status::BadCap),
        (Range::memory(10, RW), 1024, 1024, 0, Status::BadCap),
        (Range::port(0), 1024, 1024, 0, Status::BadCap),
        (Range::port(11), 0, 0, 0, Status::BadCap),
        // No right left.
        (Range::object(Rights::SM_DOWN), 5, 9, 0, Status::BadRight),
        // Badge or memory type where they cannot be.
        (page, 512, 512, 1, Status::BadParam),
        (page.write_combining(), 512, 512, 0, Status::BadParam),
        (Range::port(0).write_combining(), 1, 1, 0, Status::BadParam),
    ];
    for (range, from, to, badge, status) in cases {
        let case = format!("{range:?} {from:#x} {to:#x} {badge}");
        assert_eq!(w.delegate(0, 1, range, from, to, badge), Err(status), "{case}");
    }
    // A guest takes memory only.
    for range in [object, Range::port(0)] {
        let refused = w.delegate_guest(0, 0, range, 5, 5);
        assert_eq!(refused, Err(Status::BadParam));
    }
    assert_eq!(w.delegate_guest(0, 0, page, 512, 1 << 36), Err(Status::BadParam));
    // In use.
    w.delegate(0, 1, object, 5, 9, 0).unwrap();
    assert_eq!(w.delegate(0, 1, object, 5, 9, 0), Err(Status::Exists));
    w.delegate(0, 1, page, 512, 512, 0).unwrap();
    for (order, to) in [(0, 512), (1, 512), (9, 512)] {
        let refused = w.delegate(0, 1, Range::memory(order, RW), 512, to, 0);
        assert_eq!(refused, Err(Status::Exists));
    }
    w.delegate(0, 1, Range::port(4), 16, 16, 0).unwrap();
    for (order, port) in [(0, 16), (0, 31), (4, 16), (5, 0)] {
        let refused = w.delegate(0, 1, Range::port(order), port, port, 0);
        assert_eq!(refused, Err(Status::Exists));
    }
    w.delegate(0, 1, Range::port(4), 0, 0, 0).unwrap();
    w.delegate(0, 1, Range::port(4), 32, 32, 0).unwrap();
    w.finish();
}

#[test]
fn refused_first_capabilities() {
    let mut w = World::new(1, 0);
    for (page, phys, order, rights) in [
        (0, 0, 0, RW),
        (2, 1, 1, RW),
        (1, 2, 1, RW),
        (1, 1 << 40, 0, RW),
        (1 << 35, 1, 0, RW),
        (64, 64, 36, RW),
        (64, 64, 70, RW),
        (64, 64, 1, MemRights::EXECUTE),
    ] {
        let refused = install_memory(
            &mut w.region.frames,
            &w.pds[0],
            page,
            phys,
            order,
            MemoryType::WriteBack,
            rights,
        );
        assert_eq!(refused, Err(Status::BadParam), "{page} {phys} {order}");
    }
    w.finish();
}

#[test]
fn nothing_goes_over_a_kernel_page() {
    let mut w = World::new(2, 0);
    w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
    let utcb = w.region.root.alloc_page(&mut w.region.frames).unwrap();
    let phys = crate::mem::pool::phys(utcb);
    w.pds[1].map_kernel_frame(&mut w.region.frames, 513 << 12, phys, RW).unwrap();
    for (order, to) in [(0, 513), (1, 512), (9, 512)] {
        let refused = w.delegate(0, 1, Range::memory(order, RW), 512, to, 0);
        assert_eq!(refused, Err(Status::Exists));
    }
    // Nor can it be delegated, asked for or revoked.
    assert_eq!(w.delegate(1, 0, Range::memory(0, RW), 513, 5, 0), Err(Status::BadCap));
    assert_eq!(query(&w.pds[1], Space::Memory, 513).unwrap(), (Held(0), 0));
    w.delegate(0, 1, Range::memory(0, RW), 512, 512, 0).unwrap();
    w.revoke(1, Range::memory(9, RWX).include_self(), 512, 1).unwrap();
    w.check();
    assert_eq!(w.pds[1].memory.space.table.kernel_page(513), Some(phys >> 12));
    let mut out = super::Outcome::default();
    let World { pds, .. } = &mut w;
    let (memory, account) = (&pds[1].memory, &pds[1].account);
    memory.space.unmap_kernel_frame(account, 513 << 12, &mut out.pages);
    w.drain(out);
    // SAFETY: the page was unmapped and nothing walks the tables.
    unsafe { w.region.root.free_page(&mut w.region.frames, utcb) };
    w.finish();
}

#[test]
fn memory_rights_and_types() {
    let mut w = World::new(3, 1);
    w.install_memory(0, 1 << 18, 1 << 18, 18, MemoryType::WriteBack);
    w.install_memory(0, 1 << 9, 1 << 9, 9, MemoryType::Uncached);
    let entry = |w: &World, pd: usize, page| w.pds[pd].memory.space.table.lookup(page).unwrap();
    const NX: u64 = 1 << 63;
    w.delegate(0, 1, Range::memory(9, RX), 1 << 18, 1 << 10, 0).unwrap();
    w.delegate(1, 2, Range::memory(0, RWX), (1 << 10) + 3, 77, 0).unwrap();
    assert_eq!(entry(&w, 1, 1 << 10), (1 << 18, 0xe5, 1));
    assert_eq!(entry(&w, 2, 77), ((1 << 18) + 3, 0x65, 0));
    // Writable and executable is held, but not mapped so in a host space.
    w.delegate(0, 1, Range::memory(1, RWX), 1 << 18, 4, 0).unwrap();
    assert_eq!(entry(&w, 1, 5), ((1 << 18) + 1, NX | 0x67, 0));
    w.delegate_guest(1, 0, Range::memory(1, RWX), 4, 0).unwrap();
    assert_eq!(w.guests[0].memory.space.table.lookup(1).unwrap(), ((1 << 18) + 1, 0x67, 0));
    w.revoke(0, Range::memory(1, MemRights::WRITE), 1 << 18, 10).unwrap();
    assert_eq!(entry(&w, 1, 5), ((1 << 18) + 1, 0x65, 0));
    assert_eq!(w.guests[0].memory.space.table.lookup(1).unwrap(), ((1 << 18) + 1, 0x65, 0));
    // Uncached memory can be made write-combining, and stays so.
    w.delegate(0, 1, Range::memory(0, RW), 512, 512, 0).unwrap();
    w.delegate(0, 1, Range::memory(0, RW).write_combining(), 513, 513, 0).unwrap();
    w.delegate(1, 2, Range::memory(0, RW), 513, 513, 0).unwrap();
    assert_eq!(entry(&w, 1, 512).1, NX | 0x7f);
    assert_eq!(entry(&w, 1, 513).1, NX | 0x6f);
    assert_eq!(entry(&w, 2, 513).1, NX | 0x6f);
    w.check();
    assert_eq!(
        query(&w.pds[1], Space::Memory, (1 << 10) + 100).unwrap(),
        (Held::new(ObjectType::Null, RX.bits(), 9), 1 << 10)
    );
    w.finish();
}

#[test]
fn guest_leaves_are_large() {
    let mut w = World::new(1, 1);
    w.install_memory(0, 1 << 19, 1 << 19, 19, MemoryType::WriteBack);
    let used = w.pds[0].account.used();
    w.delegate_guest(0, 0, Range::memory(18, RWX), 1 << 19, 0).unwrap();
    w.delegate_guest(0, 0, Range::memory(9, RWX), 3 << 18, 3 << 18).unwrap();
    let table = &w.guests[0].memory.space.table;
    assert_eq!(table.lookup(5), Some(((1 << 19) + 5, 0xe7, 2)));
    assert_eq!(table.lookup((3 << 18) + 5), Some(((3 << 18) + 5, 0xe7, 1)));
    assert_eq!(w.pds[0].account.used(), used + 2, "two tables, nodes from the page of the first");
    w.finish();
}

#[test]
fn translation() {
    let mut w = World::new(3, 0);
    w.install::<SmObject>(0, 5, ALL);
    w.install::<EcObject>(0, 6, ALL);
    w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
    w.install_ports(0, 0, 16);
    w.delegate(0, 1, Range::object(Rights::SM_UP), 5, 50, 7).unwrap();
    w.delegate(1, 2, Range::object(ALL), 50, 60, 0).unwrap();
    w.delegate(0, 1, Range::memory(4, RW), 512 + 64, 32, 0).unwrap();
    w.delegate(1, 2, Range::memory(3, RW), 40, 8, 0).unwrap();
    w.delegate(0, 2, Range::port(4), 0x60, 0x60, 0).unwrap();
    let t = |from: usize, to: usize, range, base| translate(&w.pds[from], &w.pds[to], range, base);
    let found = |range: Range, base, offset| Ok(Item { range: range.0, base, offset, badge: 0 });
    let none = Ok(Item::default());
    let up = Range::object(Rights::SM_UP);
    assert_eq!(t(2, 0, Range::object(ALL).translate(), 60), found(up, 5, 7));
    assert_eq!(t(2, 1, Range::object(ALL), 60), found(up, 50, 7));
    assert_eq!(t(2, 2, Range::object(ALL), 60), found(up, 60, 7));
    assert_eq!(t(0, 2, Range::object(ALL), 6), none);
    assert_eq!(t(1, 2, Range::object(ALL), 50), none);
    assert_eq!(t(2, 0, Range::memory(1, R), 10), found(Range::memory(1, R), 512 + 64 + 10, 0));
    assert_eq!(t(2, 1, Range::memory(0, RWX), 15), found(Range::memory(0, RW), 47, 0));
    assert_eq!(t(2, 0, Range::port(1), 0x62), found(Range::port(1), 0x62, 0));
    assert_eq!(t(2, 1, Range::port(1), 0x62), none);
    assert_eq!(t(2, 0, Range::memory(4, R), 0), Err(Status::BadCap));
    assert_eq!(t(2, 0, Range::object(ALL), 61), Err(Status::BadCap));
    assert_eq!(t(2, 0, Range::memory(1, R), 9), Err(Status::BadParam));
    w.finish();
}

#[test]
fn queries_of_nothing() {
    let w = World::new(1, 0);
    assert_eq!(query(&w.pds[0], Space::Object, 1), Ok((Held(0), 0)));
    assert_eq!(query(&w.pds[0], Space::Memory, u64::MAX), Ok((Held(0), 0)));
    assert_eq!(query(&w.pds[0], Space::Port, 65535), Ok((Held(0), 0)));
    assert_eq!(query(&w.pds[0], Space::Object, 65536), Err(Status::BadCap));
    assert_eq!(query(&w.pds[0], Space::Port, 65536), Err(Status::BadParam));
    w.finish();
}

#[test]
fn chains_are_bounded() {
    let mut w = World::new(2, 0);
    w.install::<SmObject>(0, 1, ALL);
    for depth in 1..=255 {
        w.delegate(0, 0, Range::object(ALL), depth, depth + 1, 0).unwrap();
    }
    assert_eq!(w.delegate(0, 1, Range::object(ALL), 256, 9, 0), Err(Status::Overflow));
    w.check();
    w.revoke(0, Range::object(ALL), 1, 7).unwrap();
    assert_eq!(w.nodes(0).len(), 1);
    w.finish();
}

#[test]
fn items_are_undone() {
    let mut w = World::new(2, 0);
    w.install::<SmObject>(0, 1, ALL);
    w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
    let used = w.pds[1].account.used();
    let World { pds, region, revocations, .. } = &mut w;
    let to = Owner::Pd(&pds[1]);
    let items = [
        Delegation::check(&pds[0], to, Range::object(ALL), 1, 900, 0).unwrap(),
        Delegation::check(&pds[0], to, Range::memory(3, RWX), 512, 800, 0).unwrap(),
        Delegation::check(&pds[0], to, Range::object(Rights::SM_UP), 1, 900, 0).unwrap(),
    ];
    assert_eq!(items[1].granted(), Range::memory(3, RWX));
    let first = items[0].commit(&mut region.frames).unwrap();
    let second = items[1].commit(&mut region.frames).unwrap();
    assert_eq!(items[2].commit(&mut region.frames).map(|_| ()), Err(Status::Exists));
    let mut out = super::Outcome::default();
    super::remove(&mut region.frames, revocations, second, &mut out);
    super::remove(&mut region.frames, revocations, first, &mut out);
    assert!(out.flush && out.taken);
    w.drain(out);
    w.check();
    assert_eq!(w.pds[1].account.used(), used);
    w.finish();
}

/// Each kind of delegation with each of its allocations failing: nothing is left behind.
#[test]
fn out_of_memory_leaves_nothing() {
    let mut w = World::new(2, 1);
    w.install::<SmObject>(0, 1, ALL);
    w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
    w.install_ports(0, 0, 16);
    let accounts = |w: &World| {
        (w.pds[0].account.used(), w.pds[1].account.used(), w.region.frames.free_pages())
    };
    for (range, base, to_guest, points) in [
        (Range::object(ALL), 1, false, 2),
        (Range::memory(4, RWX), 512, false, 4),
        (Range::memory(9, RWX), 512, false, 3),
        (Range::port(3), 8, false, 3),
        (Range::memory(2, RWX), 512, true, 4),
    ] {
        let before = (accounts(&w), w.nodes(0), w.nodes(1));
        let delegate = |w: &mut World| match to_guest {
            false => w.delegate(0, 1, range, base, base, 0),
            true => w.delegate_guest(0, 0, range, base, base),
        };
        for point in 0..points {
            w.region.frames.fail_after = Some(point);
            assert_eq!(delegate(&mut w), Err(Status::Quota), "{range:?} {point}");
            assert_eq!((accounts(&w), w.nodes(0), w.nodes(1)), before, "{range:?} {point}");
            w.check();
        }
        w.region.frames.fail_after = Some(points);
        assert_eq!(delegate(&mut w), Ok(()));
        w.region.frames.fail_after = None;
        w.revoke(0, range, base, 1).unwrap();
        if range != Range::port(3) {
            // The bitmap stays.
            assert_eq!((accounts(&w), w.nodes(0), w.nodes(1)), before);
        }
    }
    w.finish();
}

#[test]
fn quota_of_new_spaces() {
    let mut w = World::new(1, 0);
    let World { pds, region, .. } = &mut w;
    let giver = &pds[0].account;
    let before = (giver.limit(), giver.used(), region.frames.free_pages());
    let layout = world::LAYOUT;
    for pages in [0, 1] {
        let refused = super::PdSpaces::new(&mut region.frames, giver, pages, &layout);
        assert_eq!(refused.map(|_| ()), Err(Status::Quota));
    }
    for point in 0..2 {
        region.frames.fail_after = Some(point);
        let refused = super::PdSpaces::new(&mut region.frames, giver, 10, &layout);
        assert_eq!(refused.map(|_| ()), Err(Status::Quota));
    }
    let refused = super::PdSpaces::new(&mut region.frames, giver, before.0 + 1, &layout);
    assert_eq!(refused.map(|_| ()), Err(Status::Quota));
    assert_eq!((giver.limit(), giver.used(), region.frames.free_pages()), before);
    let spaces = super::PdSpaces::new(&mut region.frames, giver, 10, &layout).unwrap();
    assert_eq!((spaces.account.limit(), spaces.account.used()), (10, 2));
    // SAFETY: the spaces were never used.
    unsafe { spaces.free_roots(&mut region.frames) };
    spaces.account.surrender(giver);
    assert_eq!((giver.limit(), giver.used(), region.frames.free_pages()), before);
    w.finish();
}

#[test]
fn kernel_frames() {
    let mut w = World::new(1, 0);
    let World { pds, region, .. } = &mut w;
    let Region { frames, root, .. } = &mut **region;
    let (pd, space) = (&pds[0], &pds[0].memory.space);
    let utcb = root.alloc_page(frames).unwrap();
    let phys = pool::phys(utcb);
    for (addr, status) in [
        (0, Status::BadParam),
        (0x1001, Status::BadParam),
        (0x7fff_ffff_f000, Status::BadParam),
        (0x8000_0000_0000, Status::BadParam),
        (0xffff_8000_0000_0000, Status::BadParam),
    ] {
        assert_eq!(pd.map_kernel_frame(frames, addr, phys, RW), Err(status));
    }
    let used = pd.account.used();
    for addr in [0x1000, 0x7fff_ffff_e000] {
        for n in 0..3 {
            frames.fail_after = Some(n);
            assert_eq!(pd.map_kernel_frame(frames, addr, phys, RW), Err(Status::Quota));
            assert_eq!(pd.account.used(), used);
        }
        frames.fail_after = None;
        pd.map_kernel_frame(frames, addr, phys, RW).unwrap();
        assert_eq!(pd.map_kernel_frame(frames, addr, phys, RW), Err(Status::Exists));
        assert_eq!(space.table.kernel_page(addr >> 12), Some(phys >> 12));
        let epoch = space.epoch.number();
        let mut out = PageList::new();
        space.unmap_kernel_frame(&pd.account, addr, &mut out);
        space.unmap_kernel_frame(&pd.account, addr, &mut out);
        assert_ne!(space.epoch.number(), epoch);
        // SAFETY: nothing walks these tables.
        unsafe { out.free(frames) };
        assert_eq!(pd.account.used(), used);
    }
    // SAFETY: it is mapped nowhere any more.
    unsafe { root.free_page(frames, utcb) };
    w.finish();
}
