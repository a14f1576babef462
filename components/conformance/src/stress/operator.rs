//! One operator: random operations on its world and on the model, and what both say.

use alloc::format;
use alloc::string::String;
use core::fmt::Debug;

use ipc::cap::{Held, MemRights, ObjectType, Range, Rights};
use ipc::status::{Result as Called, Status};
use ipc::syscall::{Call, DOWN_ZERO, Number};
use sysroot::cap::{Cap as Named, Pd};
use sysroot::{process, syscall};

use super::model::{Cap, Kind, Model, OWNERS, Place};
use super::random::Random;
use super::world::{HEAP, INPUT, READ, SELECTORS, SHARED, WINDOW, WRITE, World, held};

/// What an operation came to, or how world and model differ.
type Checked = Result<(), String>;

/// Ports that are handed around: the timer's.
const PORTS: (u64, u8) = (0x40, 2);
/// A page that cannot be accessed.
const PAGE_FAULT: u64 = 14;
const PROTECTION_FAULT: u64 = 13;
/// With as many pages to spare no call fails for want of memory, even one that makes a domain.
const ENOUGH: u64 = 32;

/// An operator.
pub(super) struct Operator {
    pub(super) world: World,
    model: Model,
    random: Random,
    ports: bool,
}

fn wrong(what: &str, got: impl Debug, expected: impl Debug) -> String {
    format!("{what}: {got:?}, not {expected:?}")
}

fn equal<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Checked {
    if got == expected { Ok(()) } else { Err(wrong(what, got, expected)) }
}

/// For calls that have to succeed.
fn done<T>(what: &str, result: Called<T>) -> Result<T, String> {
    result.map_err(|status| format!("{what}: {status}"))
}

fn space(kind: Kind) -> Range {
    match kind {
        Kind::Object => Range::object(Rights::FULL),
        Kind::Memory => Range::memory(0, MemRights::READ),
        Kind::Port => Range::port(0),
    }
}

fn range(kind: Kind, order: u8, rights: u8) -> Range {
    match kind {
        Kind::Object => Range::object(Rights::from_bits_retain(rights)),
        Kind::Memory => Range::memory(order, MemRights::from_bits_retain(rights)),
        Kind::Port => Range::port(order),
    }
}

impl Operator {
    /// On a CPU; the first one has the ports.
    pub(super) fn new(cpu: u16, seed: u64, ports: bool) -> Result<Self, String> {
        let world = done("domains", World::new(cpu))?;
        let mut model = Model::default();
        let memory =
            Place { owner: 0, kind: Kind::Memory, base: world.shared.page(), order: SHARED };
        model.found(memory, HEAP, 0);
        let (base, order) = PORTS;
        let (it, first) = done("ports", syscall::query(Range::port(0), base))?;
        let ports = ports && it.order() >= order && first <= base;
        if ports {
            model.found(Place { owner: 0, kind: Kind::Port, base, order }, 1, base);
        }
        for n in 0..1 << SHARED {
            let at = (world.shared.page() + n) << 12;
            let word: *mut u64 = core::ptr::with_exposed_provenance_mut(sysroot::num::usize_of(at));
            // SAFETY: pages of this operator, which others have not got yet.
            unsafe { word.write(content(&world, n)) };
        }
        Ok(Self { world, model, random: Random::new(seed), ports })
    }

    /// One random operation. Those that other CPUs have to wait for come less often.
    pub(super) fn step(&mut self) -> Checked {
        match self.random.below(8) {
            0 => self.change(),
            1..5 => self.signal(),
            5 => self.portal(),
            6 => self.access(),
            _ => self.query(),
        }
    }

    fn change(&mut self) -> Checked {
        match self.random.below(100) {
            0..28 => self.delegate(Kind::Object),
            28..44 => self.delegate(Kind::Memory),
            44..56 => self.revoke(Kind::Object),
            56..64 => self.revoke(Kind::Memory),
            64..80 => self.create(),
            80..84 if self.ports => self.delegate(Kind::Port),
            84..86 if self.ports => self.revoke(Kind::Port),
            86..90 if self.ports => self.input(),
            90..94 => self.quota(),
            94 if self.random.below(8) == 0 => self.replace(),
            _ => self.query(),
        }
    }

    fn owner(&mut self) -> usize {
        self.random.index(OWNERS)
    }

    /// A selector, page or port in somebody's window, with an order.
    fn place(&mut self, owner: usize, kind: Kind) -> Place {
        let (base, order) = match kind {
            Kind::Object => (self.world.selector(owner, self.random.below(1 << SELECTORS)), 0),
            Kind::Memory => {
                let order = self.random.order(3);
                let shared = owner == 0 && self.random.below(2) == 0;
                let (first, count) = match shared {
                    true => (self.world.shared.page(), 1 << SHARED),
                    false => (self.world.pages, WINDOW),
                };
                (first + (self.random.below(count) >> order << order), order)
            }
            Kind::Port => {
                let order = self.random.order(PORTS.1);
                (PORTS.0 + (self.random.below(4) >> order << order), order)
            }
        };
        Place { owner, kind, base, order }
    }

    fn rights(&mut self, kind: Kind) -> u8 {
        match kind {
            Kind::Object if self.random.below(2) == 0 => Rights::FULL.bits(),
            Kind::Object => 1 + self.random.byte(31),
            Kind::Memory => 1 | self.random.byte(4) << 1,
            Kind::Port => 1,
        }
    }

    fn delegate(&mut self, kind: Kind) -> Checked {
        let from_owner = self.owner();
        let from = self.place(from_owner, kind);
        let rights = self.rights(kind);
        // To a domain that is known by a name of its own, or to one that is in the window.
        let within = self.random.below(6) == 0;
        let (to, named) = if within {
            let at = self.world.selector(from_owner, self.random.below(1 << SELECTORS));
            (self.model.receiver(from_owner, at, kind), at)
        } else {
            let to = self.owner();
            (Ok(to), self.world.name(from_owner, to))
        };
        let window = to.ok().filter(|to| *to < OWNERS).unwrap_or(1);
        let mut base = self.place(window, kind).base >> from.order << from.order;
        // The shared memory is there already, and nothing goes where it is.
        if window == 0 && kind == Kind::Memory && base < self.world.pages {
            base = self.world.pages;
        }
        let base = if kind == Kind::Port { from.base } else { base };
        let badge = match kind {
            Kind::Object if self.random.below(4) == 0 => 1 << self.random.below(64),
            _ => 0,
        };
        let before = self.used_of(to)?;
        let arguments = [named, range(kind, from.order, rights).0, from.base, base, badge];
        let got = self.world.call(from_owner, Number::new(Call::Delegate), arguments).map(drop);
        if got == Err(Status::Quota) {
            return self.short_of_memory(to, before);
        }
        let expected = to.and_then(|to| self.model.delegate(&from, to, base, rights, badge));
        let what = || format!("delegate {from:?} rights {rights:#x} to {to:?} at {base:#x}");
        equal(&what(), got, expected)?;
        match to {
            Ok(to) if to < OWNERS => self.compare(to, kind, base),
            _ => Ok(()),
        }
    }

    /// Pages in use of the domain that a call charges, where nobody else charges it.
    fn used_of(&mut self, to: Called<usize>) -> Result<u64, String> {
        match to {
            Ok(to @ 1..OWNERS) => Ok(done("account", self.world.account(to))?.used),
            _ => Ok(0),
        }
    }

    /// A call failed for want of memory: was there too little, and did nothing happen?
    fn short_of_memory(&mut self, to: Called<usize>, used: u64) -> Checked {
        let Ok(to @ 1..OWNERS) = to else { return Ok(()) };
        let account = done("account", self.world.account(to))?;
        equal("used after a call that failed", account.used, used)?;
        if account.limit - account.used > ENOUGH {
            return Err(format!("domain {to}: no memory, but {account:?}"));
        }
        Ok(())
    }

    fn revoke(&mut self, kind: Kind) -> Checked {
        let owner = self.owner();
        let place = self.place(owner, kind);
        let all = if kind == Kind::Object { Rights::FULL.bits() } else { 7 };
        let mask = match kind {
            Kind::Port => 1,
            _ if self.random.below(2) == 0 => all,
            _ => 1 + self.random.byte(all),
        };
        // What everything comes from stays.
        let root = owner == 0
            && (kind == Kind::Port || kind == Kind::Memory && place.base < self.world.pages);
        let own = !root && self.random.below(2) == 0;
        let order = if kind == Kind::Memory { place.order } else { 0 };
        let place = Place { order, ..place };
        let range = range(kind, order, mask);
        let range = if own { range.include_self() } else { range };
        let number = Number::new(Call::Revoke);
        let got = self.world.call(owner, number, [range.0, place.base, 0, 0, 0]).map(drop);
        let expected = self.model.revoke(&place, mask, own);
        equal(&format!("revoke {place:?} mask {mask:#x} own {own}"), got, expected)?;
        let other = self.owner();
        let unit = self.place(other, kind).base;
        self.compare(owner, kind, place.base)?;
        self.compare(other, kind, unit)
    }

    fn create(&mut self) -> Checked {
        let owner = self.owner();
        let at = self.place(owner, Kind::Object);
        let pd = self.world.name(owner, owner);
        let before = self.used_of(Ok(owner))?;
        let count = self.random.below(4);
        let (kind, got) = match self.random.below(8) {
            0 => {
                let number = Number::new(Call::CreatePd);
                let pages = 8 + self.random.below(16);
                (ObjectType::Pd, self.world.call(owner, number, [at.base, pd, pages, 0, 0]))
            }
            1 => {
                let number = Number::new(Call::CreateGuest);
                (ObjectType::Guest, self.world.call(owner, number, [at.base, pd, 0, 0, 0]))
            }
            2 if owner == 0 => (ObjectType::Pt, self.world.portal(at.base).map(|()| (0, 0))),
            _ => {
                let number = Number::new(Call::CreateSm);
                (ObjectType::Sm, self.world.call(owner, number, [at.base, pd, count, 0, 0]))
            }
        };
        let got = got.map(drop);
        match got {
            Err(Status::Quota) => return self.short_of_memory(Ok(owner), before),
            Err(Status::NotSupported) => return Ok(()),
            _ => {}
        }
        let vacant = self.model.is_vacant(&at);
        let expected = if vacant { Ok(()) } else { Err(Status::Exists) };
        equal(&format!("create {kind:?} in {at:?}"), got, expected)?;
        if vacant {
            self.model.create(owner, at.base, kind, count);
        }
        self.compare(owner, Kind::Object, at.base)
    }

    /// Signals a semaphore, or takes a signal, without waiting.
    fn signal(&mut self) -> Checked {
        let owner = self.owner();
        let at = self.place(owner, Kind::Object).base;
        if self.random.below(2) == 0 {
            let got = self.world.call(owner, Number::new(Call::Up), [at, 0, 0, 0, 0]).map(drop);
            let used = self.model.used(owner, at, ObjectType::Sm, Rights::SM_UP);
            let expected = used.map(|(cap, sm)| {
                sm.count += 1;
                sm.pending |= cap.badge;
            });
            return equal("up", got, expected);
        }
        let zero = self.random.below(2) == 0;
        let number = Number::new(Call::Down).flags(if zero { DOWN_ZERO } else { 0 });
        let got = self.world.call(owner, number, [at, 1, 0, 0, 0]).map(|(badges, _)| badges);
        let used = self.model.used(owner, at, ObjectType::Sm, Rights::SM_DOWN);
        let expected = used.and_then(|(_, sm)| {
            let left = sm.count.checked_sub(1).ok_or(Status::Timeout)?;
            sm.count = if zero { 0 } else { left };
            Ok(core::mem::take(&mut sm.pending))
        });
        equal("down", got, expected)
    }

    /// Calls what may be a portal.
    fn portal(&mut self) -> Checked {
        let owner = self.owner();
        let at = self.place(owner, Kind::Object).base;
        let got = self.world.call(owner, Number::new(Call::Call), [at, 0, 0, 0, 0]).map(drop);
        let used = self.model.used(owner, at, ObjectType::Pt, Rights::PT_CALL);
        equal("call", got, used.map(drop))
    }

    /// Reads or writes a page of a window: whether it is there, and whether it is the right one.
    fn access(&mut self) -> Checked {
        let owner = 1 + self.random.index(OWNERS - 1);
        let at = Place { order: 0, ..self.place(owner, Kind::Memory) };
        let cap = self.model.find(&at).copied();
        let value = cap.map(|c| content(&self.world, c.target + (at.base - c.base)));
        let writes = self.random.below(2) == 0;
        let kind = if writes { WRITE } else { READ };
        let got = self.world.access(owner, kind, at.base << 12, value.unwrap_or(0));
        let may = |c: &Cap| !writes || c.rights & MemRights::WRITE.bits() != 0;
        let expected = match value.filter(|_| cap.as_ref().is_some_and(may)) {
            Some(_) if writes => Ok(0),
            Some(value) => Ok(value),
            None => Err(PAGE_FAULT),
        };
        equal(&format!("access {at:?} writes {writes}"), done("agent", got)?, expected)
    }

    fn input(&mut self) -> Checked {
        let owner = 1 + self.random.index(OWNERS - 1);
        let at = Place { order: 0, ..self.place(owner, Kind::Port) };
        let got = done("agent", self.world.access(owner, INPUT, at.base, 0))?;
        let expected = if self.model.is_vacant(&at) { Err(PROTECTION_FAULT) } else { Ok(()) };
        equal("input", got.map(drop), expected)
    }

    /// Moves quota between the component and a domain.
    fn quota(&mut self) -> Checked {
        let owner = 1 + self.random.index(OWNERS - 1);
        let pages = self.random.below(64);
        let (theirs, pd): (_, Named<Pd>) =
            (done("account", self.world.account(owner))?, self.world.pd(owner));
        let give = theirs.limit < 200 && self.random.below(2) == 0;
        let got = match give {
            true => syscall::move_quota(pd, pages, process::pd()).map(drop),
            false => syscall::move_quota(process::pd(), pages, pd).map(drop),
        };
        let short = !give && theirs.limit - theirs.used < pages;
        let expected = if short { Err(Status::Quota) } else { Ok(()) };
        equal("move quota", got, expected)?;
        let limit = match got {
            Ok(()) if give => theirs.limit + pages,
            Ok(()) => theirs.limit - pages,
            Err(_) => theirs.limit,
        };
        equal("limit", done("account", self.world.account(owner))?.limit, limit)
    }

    /// The end of a domain in the middle of everything.
    fn replace(&mut self) -> Checked {
        let owner = 1 + self.random.index(OWNERS - 1);
        self.model.destroy(owner);
        done("replace", self.world.replace(owner))
    }

    fn query(&mut self) -> Checked {
        let owner = self.owner();
        let kind = if self.random.below(2) == 0 { Kind::Object } else { Kind::Memory };
        let at = self.place(owner, kind).base;
        self.compare(owner, kind, at)
    }

    /// Whether somebody holds what the model says at a unit.
    fn compare(&mut self, owner: usize, kind: Kind, at: u64) -> Checked {
        // What everything comes from is part of something larger.
        if owner == 0 && (kind == Kind::Port || kind == Kind::Memory && at < self.world.pages) {
            return Ok(());
        }
        let got = done("query", held(&mut self.world, owner, space(kind), at))?;
        let cap = self.model.find(&Place { owner, kind, base: at, order: 0 }).copied();
        let (ty, first) = match cap {
            Some(c) if kind == Kind::Object => {
                let thing = self.model.object(owner, at).map(|(_, thing)| thing.kind);
                (thing.unwrap_or(ObjectType::Null), c.badge)
            }
            Some(c) => (ObjectType::Null, c.base),
            None => (ObjectType::Null, 0),
        };
        let it = cap.map_or(Held::new(ty, 0, 0), |c| Held::new(ty, c.rights, c.order));
        equal(&format!("held by {owner} at {kind:?} {at:#x}"), got, (it.0, first))
    }

    /// Compares everything.
    pub(super) fn compare_all(&mut self) -> Checked {
        for owner in 0..OWNERS {
            for n in 0..1 << SELECTORS {
                self.compare(owner, Kind::Object, self.world.selector(owner, n))?;
            }
            for n in 0..WINDOW {
                self.compare(owner, Kind::Memory, self.world.pages + n)?;
            }
            let account = done("account", self.world.account(owner))?;
            if account.used > account.limit {
                return Err(format!("domain {owner} uses more than it may: {account:?}"));
            }
        }
        let held = self.model.caps().len();
        if held == 0 { Err("nothing is held".into()) } else { Ok(()) }
    }

    /// Gives up everything in the component's own window; the domains go with their world.
    pub(super) fn close(mut self) -> Result<u64, String> {
        for n in 0..1 << SELECTORS {
            let at = self.world.selector(0, n);
            let range = Range::object(Rights::FULL).include_self();
            let got = self.world.call(0, Number::new(Call::Revoke), [range.0, at, 0, 0, 0]);
            done("close", got)?;
        }
        let range = Range::memory(SHARED, MemRights::all());
        let page = self.world.shared.page();
        let got = self.world.call(0, Number::new(Call::Revoke), [range.0, page, 0, 0, 0]);
        done("close", got)?;
        Ok(self.world.calls)
    }
}

/// What the first word of a shared page holds.
fn content(world: &World, page: u64) -> u64 {
    0x5eed_0000_0000_0000 | (world.shared.page() + page)
}
