//! Every allocation of every call fails in turn: the account that is charged has no page to spare,
//! then one, then two, until the call succeeds. What fails leaves nothing behind.

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::proto::start::layout;
use ipc::status::{Result, Status};
use ipc::syscall::EC_FPU;
use ipc::utcb::{Item, Message, Window};
use sysroot::arch::{Entry, portal_entry};
use sysroot::cap::{Cap, Ec, Guest, Pd};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::syscall::{self, EcStart, MemoryTarget};
use sysroot::{process, selector, utcb};

use super::ipc::Echo;
use crate::check::{Failure, Outcome};
use crate::domain::{Domain, own};
use crate::runner::group;

group!("quota":
    create_pd,
    create_ec,
    create_vcpu,
    create_sc,
    create_pt,
    create_sm,
    create_guest,
    delegate_objects,
    delegate_memory,
    delegate_ports,
    delegate_to_a_guest,
    call_with_items,
    reply_with_items,
    the_callers_own_tables,
);

/// No call needs more pages than this.
const MOST: u64 = 24;

/// Two domains: one that is charged, and one that keeps what the other shall not have.
struct Scarce {
    charged: Domain,
    rest: Domain,
}

impl Scarce {
    fn new() -> Result<Self> {
        Ok(Self { charged: Domain::new(200)?, rest: Domain::bare(20)? })
    }

    /// Leaves a domain exactly `spare` pages.
    fn leave(&self, pd: Cap<Pd>, spare: u64) -> Result {
        let account = syscall::account(pd)?;
        let unused = account.limit - account.used;
        let (to, pages, from) = match unused.checked_sub(spare) {
            Some(more) => (self.rest.pd, more, pd),
            None => (pd, spare - unused, self.rest.pd),
        };
        syscall::move_quota(to, pages, from).map(drop)
    }

    /// Lets the call fail at each of its allocations. `at` stays empty while it does.
    fn in_turn(
        &self,
        pd: Cap<Pd>,
        at: Selector,
        call: impl FnMut() -> Result,
        undo: impl FnMut() -> Result,
    ) -> Outcome {
        self.in_turn_but(0, pd, at, call, undo)
    }

    /// The same for a call of which some pages stay.
    fn in_turn_but(
        &self,
        kept: u64,
        pd: Cap<Pd>,
        at: Selector,
        mut call: impl FnMut() -> Result,
        mut undo: impl FnMut() -> Result,
    ) -> Outcome {
        let whole = ok!(syscall::account(self.charged.pd)).limit;
        for spare in 0..MOST {
            ok!(self.leave(pd, spare));
            let before = ok!(syscall::account(pd));
            match call() {
                Err(Status::Quota) => {
                    same!((spare, ok!(syscall::account(pd))), (spare, before));
                    let (held, _) = ok!(syscall::query(Range::object(Rights::FULL), at.0));
                    same!(held.0, 0);
                }
                Err(status) => {
                    return Err(Failure::Wrong(alloc::format!(
                        "{status} with {spare} spare pages"
                    )));
                }
                Ok(()) => {
                    // It needed memory, it used what there was, and it gives it back.
                    check!(spare > 0);
                    ok!(undo());
                    same!(ok!(syscall::account(pd)).used, before.used + kept);
                    let used = ok!(syscall::account(self.charged.pd)).used;
                    ok!(self.leave(self.charged.pd, whole - used));
                    return Ok(());
                }
            }
        }
        Err(Failure::Wrong("it never succeeds".into()))
    }

    /// A call that creates something at a selector.
    fn creates(&self, mut call: impl FnMut(Selector) -> Result) -> Outcome {
        let at = room()?;
        self.in_turn(self.charged.pd, at, || call(at), || delete(at))
    }

    fn start(global: bool) -> EcStart {
        let cpu = process::start().cpu;
        let (utcb, stack) = (page(layout::GUEST_RAM.base) << 12, layout::GUEST_RAM.base);
        EcStart { cpu, utcb, stack, events: 0, entry: global.then_some(layout::PARK) }
    }

    fn ec(&self, at: Selector, global: bool) -> Result<Cap<Ec>> {
        self.ec_with(at, global, 0)
    }

    fn ec_with(&self, at: Selector, global: bool, flags: u8) -> Result<Cap<Ec>> {
        // SAFETY: it never runs.
        unsafe { syscall::create_ec_with(at, self.charged.pd, Self::start(global), flags) }
    }
}

/// A selector; the caller's object space has its tables.
fn room() -> Result<Selector> {
    let at = selector::alloc_range(0)?;
    syscall::create_sm(at, process::pd(), 0)?;
    delete(at).map(|()| at)
}

fn delete(at: Selector) -> Result {
    syscall::revoke_object(at, Rights::FULL, true)
}

fn create_pd() -> Outcome {
    let s = ok!(Scarce::new());
    s.creates(|at| syscall::create_pd(at, s.charged.pd, 8).map(drop))
}

fn create_ec() -> Outcome {
    let s = ok!(Scarce::new());
    s.creates(|at| s.ec(at, false).map(drop))?;
    s.creates(|at| s.ec(at, true).map(drop))?;
    s.creates(|at| s.ec_with(at, true, EC_FPU).map(drop))
}

fn guest(s: &Scarce) -> core::result::Result<Cap<Guest>, Failure> {
    match syscall::create_guest(room()?, s.charged.pd) {
        Err(Status::NotSupported) => Err(Failure::Skip("the machine runs no guests")),
        other => Ok(other?),
    }
}

fn create_vcpu() -> Outcome {
    let s = ok!(Scarce::new());
    let space = guest(&s)?;
    let cpu = process::start().cpu;
    s.creates(|at| syscall::create_vcpu(at, s.charged.pd, space, cpu, 0).map(drop))?;
    ok!(delete(space.selector()));
    Ok(())
}

fn create_sc() -> Outcome {
    let s = ok!(Scarce::new());
    let ec = ok!(s.ec(room()?, true));
    s.creates(|at| {
        // At the lowest priority it never runs while this test does.
        syscall::create_sc(at, s.charged.pd, ec, 0, 1000).map(drop)
    })?;
    ok!(delete(ec.selector()));
    Ok(())
}

fn create_pt() -> Outcome {
    let s = ok!(Scarce::new());
    let ec = ok!(s.ec(room()?, false));
    let create = |at| {
        // SAFETY: it is never called.
        unsafe { syscall::create_pt(at, s.charged.pd, ec, portal_entry::<Echo>(), 0) }.map(drop)
    };
    // The page of small objects has room for some.
    ok!(s.leave(s.charged.pd, 0));
    let mut fillers = alloc::vec::Vec::new();
    loop {
        let at = room()?;
        match create(at) {
            Ok(()) => fillers.push(at),
            Err(Status::Quota) => break,
            Err(status) => return Err(status.into()),
        }
    }
    s.creates(create)?;
    for at in fillers {
        ok!(delete(at));
    }
    ok!(delete(ec.selector()));
    Ok(())
}

fn create_sm() -> Outcome {
    let s = ok!(Scarce::new());
    s.creates(|at| syscall::create_sm(at, s.charged.pd, 0).map(drop))
}

fn create_guest() -> Outcome {
    let s = ok!(Scarce::new());
    ok!(delete(guest(&s)?.selector()));
    s.creates(|at| syscall::create_guest(at, s.charged.pd).map(drop))
}

fn delegate_objects() -> Outcome {
    let (s, mut here) = (ok!(Scarce::new()), own());
    let sm = ok!(here.semaphore(0));
    let far = Selector::COUNT - 1;
    s.in_turn(
        s.charged.pd,
        room()?,
        || s.charged.give(sm, far, Rights::SM_UP),
        || syscall::revoke_object(sm.selector(), Rights::FULL, false),
    )
}

/// Pages of the own domain that nobody else has: the heap itself is shared with the others, and
/// revoking a part of it would take all of it from them.
struct Alias(u64, u8);

impl Alias {
    fn new(order: u8) -> Result<Self> {
        let (memory, at) = (Pages::new(order)?, page(super::FREE_ADDRESSES) + 0x800);
        // SAFETY: nobody uses it.
        unsafe {
            let range = Range::memory(order, MemRights::READ);
            syscall::delegate_memory(process::pd(), range, memory.page(), at)?;
        }
        Ok(Self(at, order))
    }

    fn delegate<K: MemoryTarget>(&self, to: Cap<K>, at: u64) -> Result {
        // SAFETY: nobody uses it.
        unsafe { syscall::delegate_memory(to, Range::memory(self.1, MemRights::READ), self.0, at) }
    }

    fn revoke(&self) -> Result {
        // SAFETY: nobody uses it.
        unsafe { syscall::revoke_memory(Range::memory(self.1, MemRights::all()), self.0) }
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        let range = Range::memory(self.1, MemRights::all()).include_self();
        // SAFETY: nobody uses it.
        let _ = unsafe { syscall::revoke_memory(range, self.0) };
    }
}

fn delegate_memory() -> Outcome {
    let s = ok!(Scarce::new());
    for order in [0, 3, 9] {
        let alias = ok!(Alias::new(order));
        // Far from everything: tables of all levels.
        let target = page(layout::GUEST_RAM.base) + (0x10_0000 << order);
        let pd = s.charged.pd;
        s.in_turn(pd, room()?, || alias.delegate(pd, target), || alias.revoke())?;
    }
    Ok(())
}

fn exit_port() -> core::result::Result<u16, Failure> {
    let ports = crate::devices::exit_ports().ok_or(Failure::Skip("no exit device"))?;
    Ok(ports.first())
}

fn delegate_ports() -> Outcome {
    let (s, port) = (ok!(Scarce::new()), exit_port()?);
    // The bitmap of ports stays with the domain.
    const BITMAP: u64 = 2;
    s.in_turn_but(
        BITMAP,
        s.charged.pd,
        room()?,
        || syscall::delegate_ports(s.charged.pd, 0, port),
        || syscall::revoke_ports(0, port, false),
    )
}

fn delegate_to_a_guest() -> Outcome {
    let s = ok!(Scarce::new());
    let space = guest(&s)?;
    for order in [0, 3, 9] {
        let alias = ok!(Alias::new(order));
        let to = 0x1_0000 << order;
        s.in_turn(s.charged.pd, room()?, || alias.delegate(space, to), || alias.revoke())?;
    }
    ok!(delete(space.selector()));
    Ok(())
}

/// First selector and first page of the window that capabilities of messages arrive in.
const OBJECTS: u64 = Selector::COUNT - 64;
const PAGES: u64 = layout::GUEST_RAM.base >> 12;

/// Opens its windows.
struct Opens;

impl Entry for Opens {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        open();
        0
    }
}

fn open() {
    utcb::set_window(ipc::cap::Space::Object, Window::open(OBJECTS, 6));
    utcb::set_window(ipc::cap::Space::Memory, Window::open(PAGES, 8));
}

/// Two items: the first one arrives before the second one fails.
fn put(sm: u64, memory: u64) -> u64 {
    utcb::with_message(|area| {
        let [first, second, ..] = area.items;
        *first = Item::delegate(Range::object(Rights::SM_UP), sm, 3);
        *second = Item::delegate(Range::memory(0, MemRights::READ), memory, 5);
    });
    Message::new(0, 2).0
}

fn call_with_items() -> Outcome {
    let (mut s, mut here) = (ok!(Scarce::new()), own());
    let portal = ok!(s.charged.serve::<Opens>(process::start().cpu, 0));
    let sm = ok!(here.semaphore(0));
    let alias = ok!(Alias::new(0));
    ok!(super::ipc::call(portal, &[]));
    s.in_turn(
        s.charged.pd,
        room()?,
        || {
            let message = Message(put(sm.raw(), alias.0));
            // SAFETY: no reference into the message area is held.
            unsafe { syscall::call(portal, message) }.map(drop)
        },
        || {
            syscall::revoke_object(sm.selector(), Rights::FULL, false)?;
            alias.revoke()
        },
    )
}

/// Replies with capabilities of its own: the semaphore at its id, and a page of the heap.
struct Gives;

impl Entry for Gives {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        put(id, page(layout::HEAP.base))
    }
}

fn reply_with_items() -> Outcome {
    let (mut s, mut here) = (ok!(Scarce::new()), own());
    let sm = ok!(here.semaphore(0));
    ok!(s.charged.give(sm, 700, Rights::FULL));
    let portal = ok!(s.charged.serve::<Gives>(process::start().cpu, 700));
    // What arrives is charged to the caller.
    let at = Selector(OBJECTS + 3);
    open();
    let outcome = s.in_turn(
        process::pd(),
        at,
        || utcb::call(portal, |_| Message::EMPTY, |_, _| ()),
        || {
            delete(at)?;
            let range = Range::memory(0, MemRights::all()).include_self();
            // SAFETY: the alias was never used.
            unsafe { syscall::revoke_memory(range, PAGES + 5) }
        },
    );
    utcb::set_window(ipc::cap::Space::Object, Window::CLOSED);
    utcb::set_window(ipc::cap::Space::Memory, Window::CLOSED);
    outcome
}

fn the_callers_own_tables() -> Outcome {
    let s = ok!(Scarce::new());
    // Selectors that nothing is near to.
    let at = Selector(Selector::COUNT - 200);
    s.in_turn(
        process::pd(),
        at,
        || syscall::create_sm(at, s.charged.pd, 0).map(drop),
        || delete(at),
    )?;
    s.in_turn(
        process::pd(),
        at,
        || syscall::create_pd(at, s.charged.pd, 8).map(drop),
        || delete(at),
    )
}
