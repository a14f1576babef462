//! Revocation: what goes, what stays, and that steps may be interleaved.

use ipc::cap::{MemRights, Range, Rights, Space};
use ipc::status::Status;

use super::world::{PtObject, SmObject, World};
use super::{ALL, R, RW, RWX, RX};
use crate::cap::{Ticket, query};
use crate::mem::paging::MemoryType;

#[test]
fn objects_die_with_their_last_capability() {
    let mut w = World::new(3, 0);
    let sm = w.install::<SmObject>(0, 1, ALL);
    let pt = w.install::<PtObject>(0, 2, ALL);
    w.delegate(0, 1, Range::object(ALL), 1, 1, 0).unwrap();
    w.delegate(1, 2, Range::object(ALL), 1, 1, 0).unwrap();
    w.delegate(1, 2, Range::object(ALL), 1, 2, 0).unwrap();
    w.delegate(0, 2, Range::object(ALL), 2, 700, 0).unwrap();
    // Without the own capability; twice is harmless.
    assert_eq!(w.revoke(1, Range::object(ALL), 1, 1), Ok(vec![]));
    assert_eq!((w.nodes(1).len(), w.nodes(2).len()), (1, 1));
    assert_eq!(w.revoke(1, Range::object(ALL), 1, 1), Ok(vec![]));
    assert_eq!(w.revoke(1, Range::object(ALL).include_self(), 1, 1), Ok(vec![]));
    assert_eq!(w.nodes(1).len(), 0);
    assert_eq!(w.revoke(1, Range::object(ALL).include_self(), 1, 1), Ok(vec![]));
    assert_eq!(w.revoke(0, Range::object(ALL).include_self(), 1, 9), Ok(vec![sm]));
    assert_eq!(w.destroy(0, 1), vec![pt]);
    w.pds.remove(0);
    assert_eq!((w.nodes(0).len(), w.nodes(1).len()), (0, 0));
    w.finish();
}

#[test]
fn refused() {
    let mut w = World::new(1, 0);
    w.install_memory(0, 512, 512, 9, MemoryType::WriteBack);
    w.install_ports(0, 0, 16);
    for (range, base, status) in [
        (Range::object(ALL), 65536, Status::BadCap),
        (Range::object(Rights::empty()), 1, Status::BadParam),
        (Range::object(ALL).translate(), 1, Status::BadParam),
        (Range(3), 1, Status::BadParam),
        (Range::memory(1, RWX), 513, Status::BadParam),
        (Range::port(0), 65536, Status::BadParam),
        // Part of an own capability.
        (Range::memory(8, RWX).include_self(), 512, Status::BadParam),
        (Range::memory(8, MemRights::WRITE).include_self(), 512, Status::BadParam),
        (Range::port(15).include_self(), 0, Status::BadParam),
    ] {
        assert_eq!(w.revoke(0, range, base, 1), Err(status), "{range:?}");
    }
    assert_eq!(w.nodes(0).len(), 2);
    // Nothing held.
    assert_eq!(w.revoke(0, Range::object(ALL), 0, 1), Ok(vec![]));
    assert_eq!(w.revoke(0, Range::memory(4, RWX).include_self(), 16, 1), Ok(vec![]));
    w.finish();
}

#[test]
fn rights_are_taken_from_all_below() {
    for budget in [1, 2, 100] {
        let mut w = World::new(3, 0);
        w.install::<SmObject>(0, 1, ALL);
        let up = Rights::SM_UP;
        let down = Rights::SM_DOWN;
        for (dst, sel, rights) in [(1, 1, up | down), (1, 2, up), (1, 3, down), (2, 1, ALL)] {
            w.delegate(0, dst, Range::object(rights), 1, sel, 0).unwrap();
        }
        for sel in 1..=3 {
            w.delegate(1, 2, Range::object(ALL), sel, 10 + sel, 0).unwrap();
        }
        w.revoke(0, Range::object(up), 1, budget).unwrap();
        w.check();
        let rights = |pd, sel| held(&w, pd, sel);
        assert_eq!([rights(1, 1), rights(1, 2), rights(1, 3)], [down, Rights::empty(), down]);
        assert_eq!([rights(2, 11), rights(2, 12), rights(2, 13)], [down, Rights::empty(), down]);
        assert_eq!((rights(2, 1), rights(0, 1)), (ALL - up, ALL));
        w.revoke(0, Range::object(ALL - down).include_self(), 1, budget).unwrap();
        let rights = |pd, sel| held(&w, pd, sel);
        assert_eq!((rights(2, 1), rights(0, 1)), (down, down));
        w.finish();
    }
}

#[test]
fn parts_of_memory() {
    for budget in [1, 3, 100] {
        let mut w = World::new(3, 1);
        w.install_memory(0, 1 << 9, 1 << 20, 9, MemoryType::WriteBack);
        for i in 0..8 {
            w.delegate(0, 1, Range::memory(3, RWX), 512 + 8 * i, 64 + 8 * i, 0).unwrap();
            w.delegate(1, 2, Range::memory(1, RW), 64 + 8 * i, 2 + 2 * i, 0).unwrap();
        }
        w.delegate_guest(0, 0, Range::memory(9, RWX), 512, 512).unwrap();
        // Pages 8 to 15: one child and the guest's, which overlaps.
        w.revoke(0, Range::memory(3, RWX), 520, budget).unwrap();
        w.check();
        assert_eq!((w.nodes(1).len(), w.nodes(2).len(), w.guest_nodes(0).len()), (7, 7, 0));
        // Writing, from pages 16 to 31.
        w.revoke(0, Range::memory(4, MemRights::WRITE), 528, budget).unwrap();
        let rights: Vec<_> = w.nodes(1).iter().map(|n| n.rights).collect();
        assert_eq!(rights, [RWX, RX, RX, RWX, RWX, RWX, RWX].map(|r| r.bits()));
        let rights: Vec<_> = w.nodes(2).iter().map(|n| n.rights).collect();
        assert_eq!(rights, [RW, R, R, RW, RW, RW, RW].map(|r| r.bits()));
        // A range over many own capabilities, all or one in two steps.
        w.revoke(1, Range::memory(10, RWX), 0, budget).unwrap();
        assert_eq!((w.nodes(1).len(), w.nodes(2).len()), (7, 0));
        w.revoke(1, Range::memory(5, MemRights::READ).include_self(), 64, budget).unwrap();
        assert_eq!(w.nodes(1).len(), 4);
        w.revoke(1, Range::memory(36, RWX).include_self(), 0, budget).unwrap();
        assert_eq!(w.nodes(1).len(), 0);
        w.check();
        w.finish();
    }
}

#[test]
fn ports_are_closed() {
    let mut w = World::new(2, 0);
    w.install_ports(0, 0, 16);
    w.delegate(0, 1, Range::port(3), 0x3f8, 0x3f8, 0).unwrap();
    w.delegate(0, 1, Range::port(1), 0x60, 0x60, 0).unwrap();
    let used = w.pds[1].account.used();
    w.revoke(0, Range::port(8), 0x300, 1).unwrap();
    assert!(!w.pds[1].ports.space.allows(0x3f8) && w.pds[1].ports.space.allows(0x60));
    w.revoke(0, Range::port(16), 0, 1).unwrap();
    assert!(!w.pds[1].ports.space.allows(0x60));
    assert_eq!(w.pds[1].account.used(), used - 1, "the page of nodes; the bitmap stays");
    w.finish();
}

#[test]
fn closed_domains_take_nothing() {
    let mut w = World::new(2, 0);
    w.install::<SmObject>(0, 1, ALL);
    w.install_memory(0, 512, 512, 9, MemoryType::WriteBack);
    w.empty(1, 1);
    for range in [Range::object(ALL), Range::memory(0, RW)] {
        let base = if range == Range::object(ALL) { 1 } else { 512 };
        assert_eq!(w.delegate(0, 1, range, base, 9, 0), Err(Status::BadCap));
    }
    let frames = &mut w.region.frames;
    let refused = w.pds[1].map_kernel_frame(frames, 0x1000, 0x1000, RW);
    assert_eq!(refused, Err(Status::BadCap));
    w.finish();
}

/// Rights at a selector.
fn held(w: &World, pd: usize, sel: u64) -> Rights {
    let (held, _) = query(&w.pds[pd], Space::Object, sel).unwrap();
    Rights::from_bits_retain(held.rights())
}

/// A tree with as many children as `width` below a chain of `depth`, over three domains.
fn tree(w: &mut World, depth: u64, width: u64) {
    w.install::<SmObject>(0, 1, ALL);
    for i in 1..depth {
        w.delegate(0, 0, Range::object(ALL), i, i + 1, 0).unwrap();
    }
    for i in 0..width {
        w.delegate(0, 1, Range::object(ALL), depth, 100 + i, 0).unwrap();
        w.delegate(1, 2, Range::object(ALL), 100 + i, 100 + i, 0).unwrap();
    }
}

#[test]
fn steps_are_bounded() {
    let mut w = World::new(3, 0);
    tree(&mut w, 10, 300);
    for range in [Range::object(Rights::SM_UP), Range::object(ALL)] {
        let (mut steps, mut ticket) = (0, Ticket::default());
        while w.revoke_step(0, range, 1, &mut ticket, 10).unwrap().0 {
            w.check();
            steps += 1;
        }
        assert!((60..70).contains(&steps), "{steps}");
    }
    w.finish();
}

/// Two walks and a removal at the same time, with delegations in between.
#[test]
fn interleaved_steps() {
    for (a, b) in [(1, 1), (3, 1), (1, 3), (7, 5)] {
        let mut w = World::new(3, 0);
        tree(&mut w, 5, 40);
        let up = Range::object(Rights::SM_UP);
        let down = Range::object(Rights::SM_DOWN);
        let (mut first, mut second) = (Ticket::default(), Ticket::default());
        let mut done = [false; 3];
        let mut fresh = 200;
        for round in 0.. {
            if !done[0] {
                let (more, _) = w.revoke_step(0, up, 1, &mut first, a).unwrap();
                done[0] = !more;
            }
            if !done[1] {
                let (more, _) = w.revoke_step(0, down, 3, &mut second, b).unwrap();
                done[1] = !more;
            }
            if !done[2] && round % 3 == 0 {
                // Removes nodes that the walks may be at.
                let whole = Range::object(ALL).include_self();
                let mut ticket = Ticket::default();
                let sel = 100 + round;
                let _ = w.revoke_step(1, whole, sel, &mut ticket, 100).unwrap();
                // What is derived from a node that still has the right loses it all the same.
                let _ = w.delegate(2, 2, Range::object(ALL), 100 + 39 - round % 40, fresh, 0);
                fresh += 1;
                done[2] = round > 60;
            }
            w.check();
            if done == [true; 3] {
                break;
            }
        }
        assert!(!w.revocations.is_busy());
        for (pd, node) in (0..3).flat_map(|pd| w.nodes(pd).into_iter().map(move |n| (pd, n))) {
            let left = match (pd, node.base) {
                (0, 1) => ALL,
                (0, 2 | 3) => ALL - Rights::SM_UP,
                _ => ALL - Rights::SM_UP - Rights::SM_DOWN,
            };
            assert_eq!(node.rights, left.bits(), "{pd} {node:?}");
        }
        w.finish();
    }
}

/// A ticket that was left over from another revocation does not make this one look complete.
#[test]
fn stale_tickets_do_not_count() {
    let mut w = World::new(3, 0);
    tree(&mut w, 2, 20);
    let mut ticket = Ticket::default();
    let up = Range::object(Rights::SM_UP);
    let (more, _) = w.revoke_step(0, up, 1, &mut ticket, 3).unwrap();
    assert!(more);
    w.revoke(0, up, 1, 100).unwrap();
    let down = Range::object(Rights::SM_DOWN);
    let (more, _) = w.revoke_step(0, down, 1, &mut ticket, 100).unwrap();
    assert!(!more);
    let left = ALL - Rights::SM_UP - Rights::SM_DOWN;
    assert!(w.nodes(2).iter().all(|node| node.rights == left.bits()));
    w.finish();
}

/// The domain whose walk is under way goes, or its root does: the walk ends.
#[test]
fn abandoned_walks_end() {
    for whole in [true, false] {
        let mut w = World::new(3, 0);
        w.install::<SmObject>(0, 1, ALL);
        w.delegate(0, 1, Range::object(ALL), 1, 1, 0).unwrap();
        for i in 0..20 {
            w.delegate(1, 2, Range::object(ALL), 1, 10 + i, 0).unwrap();
        }
        let (mut ticket, mut other) = (Ticket::default(), Ticket::default());
        let up = Range::object(Rights::SM_UP);
        let (more, _) = w.revoke_step(1, up, 1, &mut ticket, 3).unwrap();
        assert!(more);
        assert!(w.revocations.is_busy());
        if whole {
            w.empty(1, 1);
            assert!(!w.revocations.is_busy());
        } else {
            w.revoke(0, Range::object(ALL), 1, 1).unwrap();
        }
        let (more, _) = w.revoke_step(0, up, 1, &mut other, 100).unwrap();
        assert_eq!((more, other), (false, Ticket::default()));
        let (more, _) = w.revoke_step(1, up, 1, &mut ticket, 3).unwrap();
        assert_eq!((more, ticket), (false, Ticket::default()));
        w.finish();
    }
}
