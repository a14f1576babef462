//! Random sequences of all operations against a naive model.

use std::collections::BTreeMap;

use ipc::cap::{MemRights, Range, Rights, Space};
use ipc::status::Status;
use ipc::utcb::Item;
use proptest::prelude::*;

use super::world::{PtObject, SmObject, View, World};
use crate::cap::{query, translate};
use crate::mem::paging::MemoryType;

const PDS: usize = 3;
const GUESTS: usize = 1;
/// Owner number of the guest.
const GUEST: usize = PDS;

const OBJECT: u8 = 0;
const HOST: u8 = 1;
const NESTED: u8 = 2;
const PORT: u8 = 3;

const READ: u8 = MemRights::READ.bits();

#[derive(Clone, Debug)]
struct Cap {
    parent: Option<usize>,
    owner: usize,
    view: View,
}

impl Cap {
    fn covers(&self, owner: usize, kind: u8, from: u64, to: u64) -> bool {
        let end = self.view.base + (1 << self.view.order);
        self.owner == owner && self.view.kind == kind && self.view.base <= from && to <= end
    }

    fn overlaps(&self, owner: usize, kind: u8, from: u64, to: u64) -> bool {
        let end = self.view.base + (1 << self.view.order);
        self.owner == owner && self.view.kind == kind && self.view.base < to && from < end
    }
}

/// Every capability by a number that only grows.
#[derive(Clone, Default, Debug)]
struct Model {
    caps: BTreeMap<usize, Cap>,
    next: usize,
    semaphores: Vec<u64>,
}

impl Model {
    fn add(&mut self, cap: Cap) {
        self.caps.insert(self.next, cap);
        self.next += 1;
    }

    fn is_below(&self, mut at: usize, top: usize) -> bool {
        loop {
            if at == top {
                return true;
            }
            match self.caps[&at].parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Takes rights; what loses all of them goes. Children of what goes go too, as they have no
    /// more rights than it. Returns the objects that died.
    fn take(&mut self, affected: &[usize], mask: u8) -> Vec<usize> {
        let objects = self.objects();
        for id in affected {
            let Some(cap) = self.caps.get_mut(id) else {
                continue;
            };
            cap.view.rights &= !mask;
            let memory = cap.view.kind == HOST || cap.view.kind == NESTED;
            if cap.view.rights == 0 || memory && cap.view.rights & READ == 0 {
                self.caps.remove(id);
            }
        }
        let left = self.objects();
        objects.into_iter().filter(|id| !left.contains(id)).collect()
    }

    fn objects(&self) -> Vec<usize> {
        let objects = self.caps.values().filter(|c| c.view.kind == OBJECT);
        let mut ids: Vec<_> = objects.map(|c| c.view.target as usize).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn find(&self, owner: usize, kind: u8, from: u64, to: u64) -> Option<(usize, &Cap)> {
        let mut found = self.caps.iter().filter(|(_, c)| c.covers(owner, kind, from, to));
        found.next().map(|(id, cap)| (*id, cap))
    }

    /// `None`: the operation is one that the strategy should not produce.
    fn delegate(&mut self, d: &Delegate) -> Result<(), Status> {
        let kind = d.kind;
        let (from, to) = (d.from, d.from + (1 << d.order));
        let (id, source) = self.find(d.src, kind, from, to).ok_or(Status::BadCap)?;
        let rights = source.view.rights & d.rights;
        if rights == 0 {
            return Err(Status::BadRight);
        }
        let semaphore = kind == OBJECT && self.semaphores.contains(&source.view.target);
        if d.badge != 0 && (!semaphore || source.view.badge != 0) {
            return Err(Status::BadParam);
        }
        if d.combine && (kind != HOST || source.view.memory == MemoryType::WriteBack as u8) {
            return Err(Status::BadParam);
        }
        let depth = core::iter::successors(Some(id), |id| self.caps[id].parent).count();
        assert!(depth < 200);
        let target = match kind {
            OBJECT => source.view.target,
            _ => source.view.target + (from - source.view.base),
        };
        let view = View {
            kind: if d.dst == GUEST { NESTED } else { kind },
            base: d.to,
            order: d.order,
            rights,
            target,
            badge: source.view.badge | d.badge,
            memory: if d.combine { MemoryType::WriteCombining as u8 } else { source.view.memory },
        };
        let end = view.base + (1 << view.order);
        let (kind, base) = (view.kind, view.base);
        if self.caps.values().any(|c| c.overlaps(d.dst, kind, base, end)) {
            return Err(Status::Exists);
        }
        self.add(Cap { parent: Some(id), owner: d.dst, view });
        Ok(())
    }

    fn revoke(&mut self, r: &Revoke) -> Result<Vec<usize>, Status> {
        let (from, to) = (r.base, r.base + (1 << r.order));
        let mut affected = Vec::new();
        for (&root, cap) in &self.caps {
            if !cap.overlaps(r.pd, r.kind, from, to) {
                continue;
            }
            let view = &cap.view;
            if r.own && view.order > r.order {
                return Err(Status::BadParam);
            }
            let start = view.target + from.saturating_sub(view.base);
            let size = 1 << r.order.min(view.order);
            for (&child, below) in &self.caps {
                let b = &below.view;
                let hit = b.kind == OBJECT
                    || (b.target < start + size && start < b.target + (1 << b.order));
                if below.parent == Some(root) && hit {
                    affected
                        .extend(self.caps.keys().copied().filter(|&id| self.is_below(id, child)));
                }
            }
            if r.own {
                affected.push(root);
            }
        }
        Ok(self.take(&affected, r.rights))
    }

    fn destroy(&mut self, owner: usize) -> Vec<usize> {
        let caps = self.caps.iter();
        let roots: Vec<_> = caps.filter(|(_, c)| c.owner == owner).map(|(id, _)| *id).collect();
        let ids = self.caps.keys().copied();
        let affected: Vec<_> =
            ids.filter(|&id| roots.iter().any(|&root| self.is_below(id, root))).collect();
        self.take(&affected, 0xff)
    }

    fn translate(&self, from: usize, to: usize, d: &Delegate) -> Result<Item, Status> {
        let (id, cap) =
            self.find(from, d.kind, d.from, d.from + (1 << d.order)).ok_or(Status::BadCap)?;
        let rights = cap.view.rights & d.rights;
        let target = cap.view.target + (d.from - cap.view.base);
        let mut at = Some(id);
        while let Some(ancestor) = at.map(|id| &self.caps[&id]) {
            if ancestor.owner == to && ancestor.view.kind == d.kind {
                let base = ancestor.view.base + (target - ancestor.view.target);
                let range = range(d.kind, d.order, rights).0;
                return Ok(Item { range, base, offset: cap.view.badge, badge: 0 });
            }
            at = ancestor.parent;
        }
        Ok(Item::default())
    }

    fn views(&self, owner: usize) -> Vec<View> {
        let mut views: Vec<_> =
            self.caps.values().filter(|c| c.owner == owner).map(|c| c.view.clone()).collect();
        views.sort();
        views
    }
}

fn range(kind: u8, order: u8, rights: u8) -> Range {
    match kind {
        OBJECT => Range::object(Rights::from_bits_retain(rights)),
        HOST => Range::memory(order, MemRights::from_bits_retain(rights)),
        _ => Range::port(order),
    }
}

#[derive(Clone, Debug)]
struct Delegate {
    src: usize,
    dst: usize,
    kind: u8,
    order: u8,
    rights: u8,
    from: u64,
    to: u64,
    badge: u64,
    combine: bool,
    /// Which allocation fails.
    fail: Option<u32>,
}

#[derive(Clone, Debug)]
struct Revoke {
    pd: usize,
    kind: u8,
    order: u8,
    rights: u8,
    base: u64,
    own: bool,
    budget: u32,
}

#[derive(Clone, Debug)]
enum Operation {
    Delegate(Delegate),
    Revoke(Revoke),
    Translate(usize, Delegate),
    Destroy(usize),
}

/// A few selectors, in two leaves.
fn selector() -> impl Strategy<Value = u64> {
    prop_oneof![1..8_u64, 126..130_u64]
}

/// Pages in two tables, at the start of the host space of domain 0's memory.
fn page() -> impl Strategy<Value = (u64, u8)> {
    (0..32_u64, 0..3_u64, 0..6_u8, prop::bool::weighted(0.05)).prop_map(
        |(page, table, order, large)| {
            let order = if large { 9 } else { order.min(4) };
            ((1 << 10 | table << 9 | page) >> order << order, order)
        },
    )
}

fn port() -> impl Strategy<Value = (u64, u8)> {
    (0..256_u64, 0..9_u8).prop_map(|(port, order)| (port >> order << order, order))
}

/// Kind, order, rights, source and destination unit.
fn place() -> impl Strategy<Value = (u8, u8, u8, u64, u64)> {
    prop_oneof![
        (1..32_u8, selector(), selector()).prop_map(|(r, a, b)| (OBJECT, 0, r, a, b)),
        (0..4_u8, page(), page()).prop_map(|(r, (a, order), (b, _))| {
            (HOST, order, r << 1 | READ, a, b >> order << order)
        }),
        port().prop_map(|(port, order)| (PORT, order, 1, port, port)),
    ]
}

fn delegation() -> impl Strategy<Value = Delegate> {
    let owner = || 0..PDS;
    let flags = (0..12_u64, prop::bool::weighted(0.1), prop::option::weighted(0.2, 0..5_u32));
    (owner(), 0..=GUEST, place(), flags).prop_map(
        |(src, dst, (kind, order, rights, from, to), (badge, combine, fail))| Delegate {
            src,
            // A guest takes memory only.
            dst: if kind == HOST { dst } else { dst % PDS },
            kind,
            order,
            rights,
            from,
            to,
            badge: if dst == GUEST { 0 } else { badge.saturating_sub(9) },
            combine,
            fail,
        },
    )
}

fn revocation() -> impl Strategy<Value = Revoke> {
    let rights = prop_oneof![Just(0xff_u8), 1..32_u8];
    (0..PDS, place(), rights, any::<bool>(), 1..20_u32, 0..3_u8).prop_map(
        |(pd, (kind, order, _, base, _), rights, own, budget, larger)| {
            let (limit, all) = match kind {
                OBJECT => (0, Rights::FULL.bits()),
                HOST => (12, MemRights::all().bits()),
                _ => (16, 1),
            };
            let order = (order + larger * larger).min(limit);
            let rights = rights & all;
            let rights = if rights == 0 { all } else { rights };
            Revoke { pd, kind, order, rights, base: base >> order << order, own, budget }
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => delegation().prop_map(Operation::Delegate),
        4 => revocation().prop_map(Operation::Revoke),
        2 => (0..PDS, delegation()).prop_map(|(to, d)| Operation::Translate(to, d)),
        1 => (0..PDS).prop_map(Operation::Destroy),
    ]
}

/// Gives domain 0 first capabilities.
fn found(w: &mut World, model: &mut Model) {
    let mut root = |kind, base, order, rights, target, memory| {
        let view = View { kind, base, order, rights, target, badge: 0, memory };
        model.add(Cap { parent: None, owner: 0, view });
    };
    let all = Rights::FULL;
    for sel in 1..4 {
        let id = w.install::<SmObject>(0, sel, all) as u64;
        root(OBJECT, sel, 0, all.bits(), id, 0);
    }
    let id = w.install::<PtObject>(0, 127, Rights::PT_CALL | Rights::PT_CTRL) as u64;
    root(OBJECT, 127, 0, 3, id, 0);
    w.install_memory(0, 1 << 10, 1 << 20, 9, MemoryType::WriteBack);
    root(HOST, 1 << 10, 9, 7, 1 << 20, MemoryType::WriteBack as u8);
    w.install_memory(0, 1 << 11, 1 << 10, 4, MemoryType::Uncached);
    root(HOST, 1 << 11, 4, 7, 1 << 10, MemoryType::Uncached as u8);
    w.install_ports(0, 0, 16);
    root(PORT, 0, 16, 1, 0, 0);
    model.semaphores.extend(
        model.caps.values().filter(|c| c.view.kind == OBJECT).map(|c| c.view.target).take(3),
    );
}

fn compare(w: &World, model: &Model) {
    for pd in 0..PDS {
        assert_eq!(w.nodes(pd), model.views(pd), "domain {pd}");
    }
    assert_eq!(w.guest_nodes(0), model.views(GUEST), "guest");
    for cap in model.caps.values().filter(|c| c.owner != GUEST) {
        let view = &cap.view;
        let (space, base) = match view.kind {
            OBJECT => (Space::Object, view.badge),
            HOST => (Space::Memory, view.base),
            _ => (Space::Port, view.base),
        };
        let last = view.base + (1 << view.order) - 1;
        let (held, first) = query(&w.pds[cap.owner], space, last).unwrap();
        assert_eq!((held.rights(), held.order(), first), (view.rights, view.order, base));
    }
}

fn accounts(w: &World) -> Vec<u64> {
    w.pds.iter().map(|pd| pd.account.used()).collect()
}

fn run(w: &mut World, model: &mut Model, operation: Operation) {
    match operation {
        Operation::Delegate(d) => {
            let range = range(d.kind, d.order, d.rights);
            let range = if d.combine { range.write_combining() } else { range };
            let before = (model.clone(), accounts(w));
            let expected = model.delegate(&d);
            w.region.frames.fail_after = d.fail;
            let result = match d.dst {
                GUEST => w.delegate_guest(d.src, 0, range, d.from, d.to),
                dst => w.delegate(d.src, dst, range, d.from, d.to, d.badge),
            };
            w.region.frames.fail_after = None;
            if result == Err(Status::Quota) && d.fail.is_some() {
                *model = before.0;
                assert_eq!(accounts(w), before.1);
            } else {
                assert_eq!(result, expected, "{d:?}");
            }
        }
        Operation::Revoke(r) => {
            let mut range = range(r.kind, r.order, r.rights);
            if r.own {
                range = range.include_self();
            }
            let expected = model.revoke(&r);
            assert_eq!(w.revoke(r.pd, range, r.base, r.budget), expected, "{r:?}");
        }
        Operation::Translate(to, d) => {
            let range = range(d.kind, d.order, d.rights);
            let result = translate(&w.pds[d.src], &w.pds[to], range, d.from);
            assert_eq!(result, model.translate(d.src, to, &d), "{d:?} to {to}");
        }
        Operation::Destroy(0) => {
            // It pays for the guest, so it is emptied; its capabilities are the first ones.
            for (sel, page) in [(1, 1 << 10), (2, 1 << 11)] {
                let whole = Range::object(Rights::FULL).include_self();
                let order = if sel == 1 { 9 } else { 4 };
                let r = |kind, order, rights, base| Revoke {
                    pd: 0,
                    kind,
                    order,
                    rights,
                    base,
                    own: true,
                    budget: 1,
                };
                let expected = model.revoke(&r(OBJECT, 0, Rights::FULL.bits(), sel));
                assert_eq!(w.revoke(0, whole, sel, 5), expected);
                let expected = model.revoke(&r(HOST, order, 2, page));
                let writing = Range::memory(order, MemRights::WRITE).include_self();
                assert_eq!(w.revoke(0, writing, page, 5), expected);
            }
        }
        Operation::Destroy(pd) => {
            let expected = model.destroy(pd);
            assert_eq!(w.replace(pd, 2), expected);
        }
    }
    w.check();
    compare(w, model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn like_a_naive_forest(operations in prop::collection::vec(operation(), 1..120)) {
        let mut w = World::new(PDS, GUESTS);
        let mut model = Model::default();
        found(&mut w, &mut model);
        for operation in operations {
            run(&mut w, &mut model, operation);
        }
        w.finish();
    }
}
