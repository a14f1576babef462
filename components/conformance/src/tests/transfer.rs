//! Capabilities in messages.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Held, MemRights, ObjectType, Range, Rights, Selector, Space};
use ipc::proto::start::layout;
use ipc::status::{Result, Status};
use ipc::utcb::{ITEMS, Item, Message, Window};
use sysroot::arch::Entry;
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::{process, selector, syscall, utcb};

use crate::check::{Failure, Outcome};
use crate::domain::{Domain, own};
use crate::runner::group;

group!("transfer":
    an_object_arrives_with_fewer_rights,
    a_badge_is_given_on_the_way,
    a_closed_window_takes_nothing,
    a_malformed_window_takes_nothing,
    offsets_are_wrapped_into_the_window,
    all_or_nothing,
    what_the_sender_does_not_hold,
    memory_arrives,
    a_port_keeps_its_number,
    a_reply_carries_capabilities,
    translation_names_what_the_receiver_owns,
    translation_across_domains,
    as_many_as_there_are_items,
    a_chain_that_is_too_long,
);

/// First selector of the receiver's window.
const AT: u64 = 1024;
const ORDER: u8 = 5;

/// Opens the windows that the words name: base and order for each space; answers with the first
/// item and the number of items.
struct Receiver;

/// What [`Receiver`] is to open before its next call: object base and order word, memory and ports
/// likewise.
static WINDOWS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

impl Entry for Receiver {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        let words = WINDOWS.each_ref().map(|w| w.load(Ordering::SeqCst));
        let spaces = [Space::Object, Space::Memory, Space::Port];
        for (space, window) in spaces.into_iter().zip(words.as_chunks::<2>().0) {
            let [base, order] = *window;
            utcb::set_window(space, Window { base, order });
        }
        utcb::with_message(|area| {
            let [first, ..] = *area.items;
            let answer =
                [Message(descriptor).items() as u64, first.range, first.base, first.offset];
            for (to, from) in area.words.iter_mut().zip(answer) {
                *to = from;
            }
        });
        Message::new(4, 0).0
    }
}

/// Sets the receiver's windows; they are open from the call after on.
fn open(portal: Cap<Portal>, object: Window, memory: Window) -> Result<()> {
    open_all(portal, [object, memory, Window::CLOSED])
}

fn open_all(portal: Cap<Portal>, windows: [Window; 3]) -> Result<()> {
    let words = windows.into_iter().flat_map(|w| [w.base, w.order]);
    for (to, from) in WINDOWS.iter().zip(words) {
        to.store(from, Ordering::SeqCst);
    }
    send(portal, &[]).map(drop)
}

/// Sends items; the number that arrived and the first one as the receiver sees it.
fn send(portal: Cap<Portal>, items: &[Item]) -> Result<(u64, Item)> {
    utcb::call(
        portal,
        |area| {
            for (to, from) in area.items.iter_mut().zip(items) {
                *to = *from;
            }
            Message::new(0, items.len())
        },
        |_, area| {
            let [count, range, base, offset, ..] = *area.words;
            (count, Item { range, base, offset, badge: 0 })
        },
    )
}

fn receiver(d: &mut Domain) -> Result<Cap<Portal>> {
    let portal = d.serve::<Receiver>(process::start().cpu, 0)?;
    open(portal, Window::open(AT, ORDER), Window::CLOSED)?;
    Ok(portal)
}

/// What the receiver's domain holds at a selector, asked by a handler in it.
struct Asks;

impl Entry for Asks {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        let (held, badge) =
            syscall::query(Range::object(Rights::FULL), id).unwrap_or((Held(0xff), 0));
        utcb::with_message(|area| {
            let [first, second, ..] = area.words;
            (*first, *second) = (held.0, badge);
        });
        Message::new(2, 0).0
    }
}

/// Type, rights and badge of a capability in the other domain.
fn held(d: &mut Domain, at: u64) -> core::result::Result<(Option<ObjectType>, u8, u64), Failure> {
    let portal = d.serve::<Asks>(process::start().cpu, at)?;
    let (_, [word, badge, ..]) = super::ipc::call(portal, &[])?;
    Ok((Held(word).object(), Held(word).rights(), badge))
}

fn object(cap: Cap<Semaphore>, rights: Rights, offset: u64) -> Item {
    Item::delegate(Range::object(rights), cap.raw(), offset)
}

fn an_object_arrives_with_fewer_rights() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    let (count, item) = ok!(send(portal, &[object(sm, Rights::SM_UP, 3)]));
    same!((count, item.base), (1, AT + 3));
    same!(Range(item.range), Range::object(Rights::SM_UP));
    same!(held(&mut d, AT + 3)?, (Some(ObjectType::Sm), Rights::SM_UP.bits(), 0));
    same!(held(&mut d, AT + 2)?.0, Some(ObjectType::Null));
    // Taken back here, it is gone there.
    ok!(syscall::revoke_object(sm.selector(), Rights::FULL, false));
    same!(held(&mut d, AT + 3)?.0, Some(ObjectType::Null));
    ok!(sm.up());
    Ok(())
}

fn a_badge_is_given_on_the_way() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    ok!(send(portal, &[Item { badge: 0x77, ..object(sm, Rights::SM_UP, 0) }]));
    same!(held(&mut d, AT)?.2, 0x77);
    Ok(())
}

fn a_closed_window_takes_nothing() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    ok!(open(portal, Window::CLOSED, Window::CLOSED));
    let sm = ok!(own.semaphore(0));
    refused!(send(portal, &[object(sm, Rights::SM_UP, 0)]), NoWindow);
    // The portal works as before.
    same!(ok!(send(portal, &[])).0, 0);
    Ok(())
}

fn a_malformed_window_takes_nothing() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    for window in [
        Window { base: AT + 1, order: 0x85 },
        Window { base: AT, order: 5 },
        Window { base: AT, order: 0xff85 },
    ] {
        ok!(open(portal, window, Window::CLOSED));
        refused!(send(portal, &[object(sm, Rights::SM_UP, 0)]), NoWindow);
    }
    // Beyond the end of the object space.
    for base in [Selector::COUNT, 1 << 40] {
        ok!(open(portal, Window::open(base, ORDER), Window::CLOSED));
        check!(send(portal, &[object(sm, Rights::SM_UP, 0)]).is_err());
    }
    Ok(())
}

fn offsets_are_wrapped_into_the_window() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    same!(ok!(send(portal, &[object(sm, Rights::SM_UP, 32 + 4)])).1.base, AT + 4);
    same!(ok!(send(portal, &[object(sm, Rights::SM_UP, u64::MAX)])).1.base, AT + 31);
    refused!(send(portal, &[object(sm, Rights::SM_UP, 64 + 4)]), Exists);
    Ok(())
}

fn all_or_nothing() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    let bad = Item::delegate(Range::object(Rights::SM_UP), selector::alloc()?.0, 5);
    refused!(send(portal, &[object(sm, Rights::SM_UP, 4), bad]), BadCap);
    same!(held(&mut d, AT + 4)?.0, Some(ObjectType::Null));
    // Two for one place.
    let item = object(sm, Rights::SM_UP, 4);
    refused!(send(portal, &[item, item]), Exists);
    same!(held(&mut d, AT + 4)?.0, Some(ObjectType::Null));
    same!(ok!(send(portal, &[item])).0, 1);
    Ok(())
}

fn what_the_sender_does_not_hold() -> Outcome {
    let mut d = ok!(Domain::new(300));
    let portal = ok!(receiver(&mut d));
    let mut own = own();
    let sm = ok!(own.semaphore(0));
    let item = |range: Range, base| Item::delegate(range, base, 0);
    refused!(send(portal, &[item(Range::object(Rights::FULL), Selector::COUNT)]), BadCap);
    refused!(send(portal, &[item(Range(3), sm.raw())]), BadParam);
    refused!(send(portal, &[item(Range::object(Rights::empty()), sm.raw())]), BadParam);
    refused!(
        send(portal, &[item(Range(1 << 30 | Range::object(Rights::FULL).0), sm.raw())]),
        BadParam
    );
    let weak = crate::domain::with_rights(&mut own, sm, Rights::SM_UP)?;
    refused!(send(portal, &[object(weak, Rights::SM_DOWN, 0)]), BadRight);
    Ok(())
}

fn memory_arrives() -> Outcome {
    let mut d = ok!(Domain::new(300));
    let portal = ok!(receiver(&mut d));
    let memory = ok!(Pages::new(1));
    let target = page(super::FREE_ADDRESSES);
    ok!(open(portal, Window::CLOSED, Window::open(target, 4)));
    let range = Range::memory(1, MemRights::READ);
    let (count, item) = ok!(send(portal, &[Item::delegate(range, memory.page(), 6)]));
    same!((count, item.base, Range(item.range)), (1, target + 6, range));
    // A range that is larger than the window, and one that is misaligned.
    let heap = page(layout::HEAP.base);
    let large = Range::memory(5, MemRights::READ);
    refused!(send(portal, &[Item::delegate(large, heap, 0)]), NoWindow);
    refused!(send(portal, &[Item::delegate(range, memory.page() + 1, 0)]), BadParam);
    Ok(())
}

fn a_port_keeps_its_number() -> Outcome {
    let port = crate::devices::exit_ports().ok_or(Failure::Skip("no exit device"))?.first();
    let mut d = ok!(Domain::new(300));
    let portal = ok!(receiver(&mut d));
    let open = |base: u16, order| {
        let ports = Window::open(base.into(), order);
        open_all(portal, [Window::CLOSED, Window::CLOSED, ports])
    };
    let item = |order| Item::delegate(Range::port(order), port.into(), 3);
    for (base, order) in [(port + 4, 2), (port, 0)] {
        ok!(open(base, order));
        refused!(send(portal, &[item(1)]), NoWindow);
    }
    ok!(open(0, 16));
    let (count, arrived) = ok!(send(portal, &[item(1)]));
    same!((count, arrived.base, Range(arrived.range)), (1, port.into(), Range::port(1)));
    refused!(send(portal, &[item(0)]), Exists);
    ok!(syscall::revoke_ports(1, port, false));
    Ok(())
}

/// Replies with a capability of its own: the one at its id.
struct Gives;

impl Entry for Gives {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        utcb::with_message(|area| {
            let [first, ..] = area.items;
            *first = Item::delegate(Range::object(Rights::SM_UP), id, 0);
        });
        Message::new(0, 1).0
    }
}

fn a_reply_carries_capabilities() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let sm = ok!(own.semaphore(0));
    ok!(d.give(sm, 700, Rights::FULL));
    let portal = ok!(d.serve::<Gives>(process::start().cpu, 700));
    // Without a window the reply arrives, and says that something is missing.
    refused!(utcb::call(portal, |_| Message::EMPTY, |m, _| m), NoWindow);
    let at = selector::alloc()?;
    utcb::set_window(Space::Object, Window::open(at.0, 0));
    let reply = utcb::call(
        portal,
        |_| Message::EMPTY,
        |m, area| (m.items(), area.items.first().map(|i| i.base)),
    );
    utcb::set_window(Space::Object, Window::CLOSED);
    same!(ok!(reply), (1, Some(at.0)));
    ok!(Cap::<Semaphore>::new(at).up());
    refused!(Cap::<Semaphore>::new(at).down(), BadRight);
    ok!(sm.down());
    selector::delete(at);
    Ok(())
}

fn translation_names_what_the_receiver_owns() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    // The receiver owns a semaphore of which this side holds a derived capability; here the other
    // way round: both are the same domain in the end, as this side sends to a handler of its own.
    let home = ok!(receiver(&mut own));
    let sm = ok!(own.semaphore(0));
    let derived = selector::alloc()?;
    ok!(syscall::delegate_object(process::pd(), sm, derived, Rights::SM_UP, 9));
    let range = Range::object(Rights::FULL).translate();
    let (count, item) = ok!(send(home, &[Item::delegate(range, derived.0, 0)]));
    same!((count, item.base, item.offset), (1, derived.0, 9));
    same!(Range(item.range), Range::object(Rights::SM_UP));
    // The other domain owns nothing that it was derived from.
    let (count, item) = ok!(send(portal, &[Item::delegate(range, derived.0, 0)]));
    same!((count, item.range), (1, 0));
    selector::delete(derived);
    Ok(())
}

/// Replies with the names that its capabilities have where they came from: the semaphore at its id, a
/// page, a port.
struct Names;

/// The page and the port.
static NAMED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

impl Entry for Names {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        let [page, port] = NAMED.each_ref().map(|n| n.load(Ordering::SeqCst));
        utcb::with_message(|area| {
            let [object, memory, ports, ..] = area.items;
            *object = Item::delegate(Range::object(Rights::FULL).translate(), id, 0);
            *memory = Item::delegate(Range::memory(0, MemRights::RW).translate(), page, 0);
            *ports = Item::delegate(Range::port(0).translate(), port, 0);
        });
        Message::new(0, 3).0
    }
}

fn translation_across_domains() -> Outcome {
    let port = crate::devices::exit_ports().ok_or(Failure::Skip("no exit device"))?.first();
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let (sm, memory, at) = (ok!(own.semaphore(0)), ok!(Pages::new(2)), page(super::FREE_ADDRESSES));
    ok!(d.give(sm, 700, Rights::SM_UP | Rights::SM_BIND));
    ok!(syscall::delegate_ports(d.pd, 1, port));
    // SAFETY: nobody uses it.
    unsafe {
        let range = Range::memory(2, MemRights::READ);
        ok!(syscall::delegate_memory(d.pd, range, memory.page(), at));
    }
    NAMED[0].store(at + 1, Ordering::SeqCst);
    NAMED[1].store(u64::from(port) + 1, Ordering::SeqCst);
    let portal = ok!(d.serve::<Names>(process::start().cpu, 700));
    let names = || {
        utcb::call(
            portal,
            |_| Message::EMPTY,
            |_, area| {
                let [a, b, c, ..] = *area.items;
                [a, b, c].map(|item| (Range(item.range), item.base))
            },
        )
    };
    // Part of a range, and the rights that the other one has.
    same!(
        ok!(names()),
        [
            (Range::object(Rights::SM_UP | Rights::SM_BIND), sm.raw()),
            (Range::memory(0, MemRights::READ), memory.page() + 1),
            (Range::port(0), u64::from(port) + 1),
        ]
    );
    ok!(syscall::revoke_ports(1, port, false));
    refused!(names(), BadCap);
    Ok(())
}

fn as_many_as_there_are_items() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    let items: [Item; ITEMS] = core::array::from_fn(|n| object(sm, Rights::SM_UP, n as u64));
    same!(ok!(send(portal, &items)).0, 32);
    // More than there are count as all.
    ok!(syscall::revoke_object(sm.selector(), Rights::FULL, false));
    let count = utcb::call(
        portal,
        |area| {
            *area.items = items;
            Message(0xff << 16)
        },
        |_, area| area.words.first().copied(),
    );
    same!(ok!(count), Some(32));
    same!(held(&mut d, AT + 31)?.0, Some(ObjectType::Sm));
    Ok(())
}

fn a_chain_that_is_too_long() -> Outcome {
    let (mut d, mut own) = (ok!(Domain::new(300)), own());
    let portal = ok!(receiver(&mut d));
    let sm = ok!(own.semaphore(0));
    let mut end = sm;
    loop {
        let next = selector::alloc()?;
        let done = syscall::delegate_object(process::pd(), end, next, Rights::SM_UP, 0);
        if done == Err(Status::Overflow) {
            selector::free(next);
            break;
        }
        ok!(done);
        own.keep(next);
        end = Cap::new(next);
    }
    refused!(send(portal, &[object(end, Rights::SM_UP, 0)]), Overflow);
    same!(held(&mut d, AT)?.0, Some(ObjectType::Null));
    Ok(())
}
