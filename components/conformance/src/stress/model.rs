//! What every domain of the stress holds, naively: a list of capabilities, each with its parent.

use alloc::vec::Vec;

use ipc::cap::{ObjectType, Rights};
use ipc::status::{Result, Status};

/// Domains with somebody in them: the component's own and those of the stress.
pub(super) const OWNERS: usize = 4;
/// A domain without anybody in it, or a guest space, is the owner with this number and its own as
/// an object.
const EMPTY_DOMAINS: usize = 64;
/// Reading, of memory.
const READ: u8 = 1;

/// What a capability is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Memory,
    Port,
}

/// A capability.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cap {
    id: u64,
    /// 0 for none.
    parent: u64,
    pub(super) owner: usize,
    pub(super) kind: Kind,
    pub(super) base: u64,
    pub(super) order: u8,
    pub(super) rights: u8,
    /// Number of the object, page of the shared memory, or port.
    pub(super) target: u64,
    pub(super) badge: u64,
}

impl Cap {
    fn end(&self) -> u64 {
        self.base + (1 << self.order)
    }

    fn size(&self) -> u64 {
        1 << self.order
    }
}

/// An object: its type, how many capabilities there are; of a semaphore, counter and badges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thing {
    pub(super) kind: ObjectType,
    caps: u32,
    pub(super) count: u64,
    pub(super) pending: u64,
}

/// A range of somebody's space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) owner: usize,
    pub(super) kind: Kind,
    pub(super) base: u64,
    pub(super) order: u8,
}

impl Place {
    fn end(&self) -> u64 {
        self.base + (1 << self.order)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Model {
    /// Sorted by number, so that parents come first.
    caps: Vec<Cap>,
    last: u64,
    things: Vec<Option<Thing>>,
}

impl Model {
    pub(super) fn caps(&self) -> &[Cap] {
        &self.caps
    }

    /// The capability that a range lies in.
    pub(super) fn find(&self, p: &Place) -> Option<&Cap> {
        self.caps.iter().find(|c| {
            c.owner == p.owner && c.kind == p.kind && c.base <= p.base && p.end() <= c.end()
        })
    }

    /// The capability for an object at a selector, and the object.
    pub(super) fn object(&mut self, owner: usize, base: u64) -> Option<(Cap, &mut Thing)> {
        let cap = *self.find(&Place { owner, kind: Kind::Object, base, order: 0 })?;
        let thing = self.things.get_mut(usize::try_from(cap.target).ok()?)?;
        Some((cap, thing.as_mut()?))
    }

    /// The object at a selector where it is one of this type and the right is held.
    pub(super) fn used(
        &mut self,
        owner: usize,
        base: u64,
        kind: ObjectType,
        right: Rights,
    ) -> Result<(Cap, &mut Thing)> {
        let found = self.object(owner, base).filter(|(_, thing)| thing.kind == kind);
        let (cap, thing) = found.ok_or(Status::BadCap)?;
        if cap.rights & right.bits() == 0 { Err(Status::BadRight) } else { Ok((cap, thing)) }
    }

    /// The owner that the domain or guest space at a selector is, to delegate to.
    pub(super) fn receiver(&mut self, owner: usize, base: u64, kind: Kind) -> Result<usize> {
        let (cap, thing) = self.object(owner, base).ok_or(Status::BadCap)?;
        let need = match thing.kind {
            ObjectType::Pd => Rights::PD_DELEGATE,
            ObjectType::Guest => Rights::GUEST_MAP,
            _ => return Err(Status::BadCap),
        };
        if cap.rights & need.bits() == 0 {
            return Err(Status::BadRight);
        }
        if thing.kind == ObjectType::Guest && kind != Kind::Memory {
            return Err(Status::BadParam);
        }
        Ok(EMPTY_DOMAINS + usize::try_from(cap.target).unwrap_or(0))
    }

    /// Whether nothing is in a range.
    pub(super) fn is_vacant(&self, p: &Place) -> bool {
        let hit = |c: &Cap| {
            c.owner == p.owner && c.kind == p.kind && c.base < p.end() && p.base < c.end()
        };
        !self.caps.iter().any(hit)
    }

    fn add(&mut self, cap: Cap) {
        self.last += 1;
        self.caps.push(Cap { id: self.last, ..cap });
        if cap.kind == Kind::Object
            && let Some(thing) = self.thing(cap.target)
        {
            thing.caps += 1;
        }
    }

    fn thing(&mut self, target: u64) -> Option<&mut Thing> {
        self.things.get_mut(usize::try_from(target).ok()?)?.as_mut()
    }

    /// A first capability, for memory or ports.
    pub(super) fn found(&mut self, p: Place, rights: u8, target: u64) {
        let Place { owner, kind, base, order } = p;
        self.add(Cap { id: 0, parent: 0, owner, kind, base, order, rights, target, badge: 0 });
    }

    /// A new object with its first capability.
    pub(super) fn create(&mut self, owner: usize, base: u64, kind: ObjectType, count: u64) {
        let thing = Some(Thing { kind, caps: 0, count, pending: 0 });
        let at = match self.things.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                self.things.push(None);
                self.things.len() - 1
            }
        };
        if let Some(place) = self.things.get_mut(at) {
            *place = thing;
        }
        let place = Place { owner, kind: Kind::Object, base, order: 0 };
        self.found(place, Rights::FULL.bits(), sysroot::num::u64_of(at));
    }

    /// Delegates a range to the place `base` of `to`.
    pub(super) fn delegate(
        &mut self,
        from: &Place,
        to: usize,
        base: u64,
        rights: u8,
        badge: u64,
    ) -> Result {
        let source = *self.find(from).ok_or(Status::BadCap)?;
        let rights = source.rights & rights;
        if rights == 0 {
            return Err(Status::BadRight);
        }
        let semaphore = from.kind == Kind::Object
            && self.thing(source.target).is_some_and(|t| t.kind == ObjectType::Sm);
        if badge != 0 && (!semaphore || source.badge != 0) {
            return Err(Status::BadParam);
        }
        let place = Place { owner: to, base, ..*from };
        if !self.is_vacant(&place) {
            return Err(Status::Exists);
        }
        let offset = if from.kind == Kind::Object { 0 } else { from.base - source.base };
        self.add(Cap {
            parent: source.id,
            owner: to,
            base,
            order: from.order,
            rights,
            target: source.target + offset,
            badge: source.badge | badge,
            ..source
        });
        Ok(())
    }

    /// Takes rights from everything that was derived from a range, and from the holder too.
    pub(super) fn revoke(&mut self, p: &Place, mask: u8, own: bool) -> Result {
        let within = |c: &Cap| {
            c.owner == p.owner && c.kind == p.kind && c.base < p.end() && p.base < c.end()
        };
        if own && self.caps.iter().any(|c| within(c) && c.order > p.order) {
            return Err(Status::BadParam);
        }
        let mut affected: Vec<bool> = Vec::with_capacity(self.caps.len());
        for cap in &self.caps {
            let parent = self.index(cap.parent);
            let inherited = parent.and_then(|at| affected.get(at)).is_some_and(|a| *a);
            let below = parent.and_then(|at| self.caps.get(at)).is_some_and(|root| {
                let start = root.target + p.base.saturating_sub(root.base);
                let end = start + (1 << p.order.min(root.order));
                let hit = cap.target < end && start < cap.target + cap.size();
                within(root) && (cap.kind == Kind::Object || hit)
            });
            affected.push(inherited || below || own && within(cap));
        }
        self.take(&affected, mask);
        Ok(())
    }

    fn index(&self, id: u64) -> Option<usize> {
        self.caps.binary_search_by_key(&id, |c| c.id).ok()
    }

    /// The end of a domain: what it held and what came from that.
    pub(super) fn destroy(&mut self, owner: usize) {
        let mut affected: Vec<bool> = Vec::with_capacity(self.caps.len());
        for cap in &self.caps {
            let parent = self.index(cap.parent).and_then(|at| affected.get(at));
            affected.push(cap.owner == owner || parent.is_some_and(|a| *a));
        }
        self.take(&affected, u8::MAX);
    }

    /// Takes rights; what has none left goes, and memory that cannot be read. A domain that dies of
    /// it takes with it what it holds, and so does a guest space.
    fn take(&mut self, affected: &[bool], mask: u8) {
        let mut affected = affected.iter();
        let mut gone = Vec::new();
        self.caps.retain_mut(|cap| {
            if affected.next() != Some(&true) {
                return true;
            }
            cap.rights &= !mask;
            let left = match cap.kind {
                Kind::Memory => cap.rights & READ,
                _ => cap.rights,
            };
            if left == 0 && cap.kind == Kind::Object {
                gone.push(cap.target);
            }
            left != 0
        });
        for target in gone {
            let Some(thing) = self.thing(target) else { continue };
            thing.caps -= 1;
            let last = (thing.caps == 0).then_some(thing.kind);
            if last.is_some()
                && let Some(place) =
                    usize::try_from(target).ok().and_then(|t| self.things.get_mut(t))
            {
                *place = None;
            }
            if matches!(last, Some(ObjectType::Pd | ObjectType::Guest)) {
                self.destroy(EMPTY_DOMAINS + usize::try_from(target).unwrap_or(0));
            }
        }
    }
}
