//! Calls through portals: words, nesting, busy handlers, dead handlers.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::status::{Result, Status};
use ipc::utcb::{Message, WORDS};
use sysroot::arch::{Entry, syscall2};
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::{process, syscall, time, utcb};

use crate::check::{Failure, Outcome, patience};
use crate::domain::{Domain, other_cpu, own, with_rights};
use crate::runner::group;

group!("ipc":
    words_go_and_come,
    across_domains,
    any_number_of_words,
    more_words_than_there_are,
    the_handler_sees_id_and_clean_registers,
    rights,
    only_on_its_own_cpu,
    a_handler_cannot_call_itself,
    handlers_cannot_call_in_a_circle,
    chains,
    a_busy_handler_is_helped,
    donated_time_is_charged_to_the_caller,
    global_contexts_cannot_reply,
    a_dead_handler_aborts,
    callers_of_a_dying_domain_run_on,
    a_handler_outlives_its_caller,
    callers_through_a_revoked_portal,
);

/// Adds 1 to each word.
pub(crate) struct Echo;

impl Entry for Echo {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        let words = Message(descriptor).words();
        utcb::with_message(|area| {
            for word in area.words.iter_mut().take(words) {
                *word = word.wrapping_add(1);
            }
        });
        descriptor
    }
}

/// Answers with the portal's id.
pub(crate) struct ReturnsId;

impl Entry for ReturnsId {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        put(&[id])
    }
}

/// Writes words and returns the descriptor of the message.
fn put(words: &[u64]) -> u64 {
    utcb::with_message(|area| {
        for (to, from) in area.words.iter_mut().zip(words) {
            *to = *from;
        }
    });
    Message::new(words.len(), 0).0
}

/// Calls with words; the first words of the reply and how many there are.
pub(crate) fn call<R: sysroot::cap::Holds<sysroot::cap::Call>>(
    portal: Cap<Portal, R>,
    words: &[u64],
) -> Result<(usize, [u64; 4])> {
    put(words);
    utcb::call(
        portal,
        |_| Message::new(words.len(), 0),
        |message, area| {
            let [a, b, c, d, ..] = *area.words;
            (message.words(), [a, b, c, d])
        },
    )
}

/// The first word of the reply to a call without words.
pub(crate) fn first_word(portal: Cap<Portal>) -> core::result::Result<u64, Failure> {
    let (words, [first, ..]) = call(portal, &[])?;
    check!(words >= 1);
    Ok(first)
}

fn cpu() -> u16 {
    process::start().cpu
}

fn words_go_and_come() -> Outcome {
    let mut d = own();
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    same!(ok!(call(portal, &[1, 2, 3, 4])), (4, [2, 3, 4, 5]));
    same!(ok!(call(portal, &[])).0, 0);
    Ok(())
}

fn across_domains() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    for n in 0..100 {
        same!(ok!(call(portal, &[n, n + 1, u64::MAX])).1, [n + 1, n + 2, 0, word(3)]);
    }
    Ok(())
}

/// What the message area holds at an index right now.
fn word(index: usize) -> u64 {
    utcb::with_message(|area| area.words.get(index).copied().unwrap_or(0))
}

fn any_number_of_words() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    for count in [1, 2, 64, WORDS - 1, WORDS] {
        utcb::with_message(|area| area.words.fill(7));
        let sent = Message::new(count, 0);
        let got = ok!(utcb::call(
            portal,
            |_| sent,
            |message, area| {
                let changed = area.words.iter().take(count).all(|&w| w == 8);
                let rest = area.words.iter().skip(count).all(|&w| w == 7);
                (message, changed && rest)
            }
        ));
        same!(got, (sent, true));
    }
    Ok(())
}

fn more_words_than_there_are() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    let got = ok!(utcb::call(portal, |_| Message(0xffff), |message, _| message));
    same!(got.words(), WORDS);
    Ok(())
}

/// Reports the registers that it started with.
struct Registers;

impl Entry for Registers {
    extern "sysv64" fn enter(id: u64, descriptor: u64) -> u64 {
        put(&[id, descriptor, u64::from(utcb::cpu())])
    }
}

fn the_handler_sees_id_and_clean_registers() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Registers>(cpu(), 0x1234_5678_9abc_def0));
    let (words, [id, descriptor, ..]) = ok!(call(portal, &[0; 5]));
    same!((words, id, descriptor), (3, 0x1234_5678_9abc_def0, 5));
    Ok(())
}

fn rights() -> Outcome {
    let mut d = own();
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    let weak = ok!(with_rights(&mut d, portal, Rights::PT_CTRL | Rights::PT_EVENT));
    refused!(call(weak, &[1]), BadRight);
    Ok(())
}

fn only_on_its_own_cpu() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let mut d = own();
    let portal = ok!(d.serve::<Echo>(other, 0));
    refused!(call(portal, &[1]), BadCpu);
    Ok(())
}

static TARGET: AtomicU64 = AtomicU64::new(0);
static GATE: AtomicU64 = AtomicU64::new(0);
static BELL: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn semaphore(place: &AtomicU64) -> Cap<Semaphore> {
    Cap::new(Selector(place.load(Ordering::SeqCst)))
}

/// Calls the portal in [`TARGET`] and answers with its status.
struct Forward;

impl Entry for Forward {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        let target: Cap<Portal> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
        let status = match call(target, &[41]) {
            Ok((_, [answer, ..])) => answer,
            Err(status) => 0xe000 | u64::from(status.number()),
        };
        put(&[status])
    }
}

fn a_handler_cannot_call_itself() -> Outcome {
    let mut d = own();
    let portal = ok!(d.serve::<Forward>(cpu(), 0));
    TARGET.store(portal.raw(), Ordering::SeqCst);
    same!(first_word(portal)?, 0xe000 | u64::from(Status::BadState.number()));
    Ok(())
}

fn handlers_cannot_call_in_a_circle() -> Outcome {
    let mut d = own();
    let (first, last) = (ok!(d.handler(cpu())), ok!(d.handler(cpu())));
    // The first calls the portal that is its id, the last the one in `TARGET`.
    let end = ok!(d.portal::<Forward>(last, 0));
    let middle = ok!(d.serve::<Pass>(cpu(), end.raw()));
    let start = ok!(d.portal::<Pass>(first, middle.raw()));
    TARGET.store(start.raw(), Ordering::SeqCst);
    same!(first_word(start)?, 0xe000 | u64::from(Status::BadState.number()));
    // All of them work as before.
    let echo = ok!(d.serve::<Echo>(cpu(), 0));
    TARGET.store(echo.raw(), Ordering::SeqCst);
    same!(first_word(start)?, 42);
    Ok(())
}

/// Calls the portal whose selector is its id and hands on the answer.
struct Pass;

impl Entry for Pass {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        match call(Cap::<Portal>::new(Selector(id)), &[]) {
            Ok((_, [answer, ..])) => put(&[answer]),
            Err(status) => put(&[0xf000 | u64::from(status.number())]),
        }
    }
}

/// Calls the portal whose selector is its id, if any; the answer is one more than that one's.
struct Link;

impl Entry for Link {
    extern "sysv64" fn enter(id: u64, _descriptor: u64) -> u64 {
        if id == 0 {
            return put(&[0]);
        }
        let next: Cap<Portal> = Cap::new(Selector(id));
        match call(next, &[]) {
            Ok((_, [depth, ..])) => put(&[depth + 1]),
            Err(_) => put(&[u64::MAX / 2]),
        }
    }
}

fn chains() -> Outcome {
    let mut d = own();
    let mut next = 0;
    for depth in 0..24 {
        let portal = ok!(d.serve::<Link>(cpu(), next));
        next = portal.raw();
        same!(first_word(portal)?, depth);
    }
    Ok(())
}

/// Rings the bell and waits at the gate: busy for as long as the test wants.
struct Gated;

impl Entry for Gated {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        let _ = semaphore(&BELL).up();
        let _ = semaphore(&GATE).down();
        descriptor
    }
}

/// Calls the portal in [`TARGET`], notes the status, rings the bell.
extern "sysv64" fn caller(_utcb: u64) -> ! {
    let target: Cap<Portal> = Cap::new(Selector(TARGET.load(Ordering::SeqCst)));
    let status = match call(target, &[1]) {
        Ok(_) => 1,
        Err(status) => 0xe000 | u64::from(status.number()),
    };
    SEEN.store(status, Ordering::SeqCst);
    let _ = semaphore(&BELL).up();
    super::never(0)
}

/// Gate, bell and a thread that waits in a handler of `d`.
fn busy(d: &mut Domain, own: &mut Domain) -> Result<Cap<Portal>> {
    GATE.store(own.semaphore(0)?.raw(), Ordering::SeqCst);
    BELL.store(own.semaphore(0)?.raw(), Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    let portal = d.serve::<Gated>(cpu(), 0)?;
    for place in [&GATE, &BELL] {
        if d.pd != own.pd {
            d.give(semaphore(place), place.load(Ordering::SeqCst), Rights::FULL)?;
        }
    }
    TARGET.store(portal.raw(), Ordering::SeqCst);
    own.spawn(cpu(), crate::runner::priority(), caller)?;
    semaphore(&BELL).down_until(patience())?;
    Ok(portal)
}

fn a_busy_handler_is_helped() -> Outcome {
    let (mut d, mut other) = (own(), own());
    let portal = ok!(busy(&mut other, &mut d));
    // The handler is in use by the other thread; this call waits for it and then gets through.
    ok!(semaphore(&GATE).up());
    ok!(semaphore(&GATE).up());
    same!(ok!(call(portal, &[5])).0, 1);
    // One ring each: of the second visit, and of the first caller.
    ok!(semaphore(&BELL).down());
    ok!(semaphore(&BELL).down_until(patience()));
    same!(SEEN.load(Ordering::SeqCst), 1);
    Ok(())
}

/// Computes for 20 ms.
struct Spins;

impl Entry for Spins {
    extern "sysv64" fn enter(_id: u64, descriptor: u64) -> u64 {
        let deadline = time::deadline_in_ms(20);
        while time::now() < deadline {
            core::hint::spin_loop();
        }
        descriptor
    }
}

fn donated_time_is_charged_to_the_caller() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Spins>(cpu(), 0));
    let sc = crate::runner::own_sc();
    let before = ok!(syscall::consumed(sc));
    ok!(call(portal, &[]));
    let after = ok!(syscall::consumed(sc));
    check!(after - before >= time::ticks_of_ms(15));
    Ok(())
}

fn global_contexts_cannot_reply() -> Outcome {
    // SAFETY: refused.
    let (status, _) = unsafe { syscall2(ipc::syscall::Call::Reply as u64, 0, 0) };
    refused!(Status::from_register(status), BadState);
    Ok(())
}

fn a_dead_handler_aborts() -> Outcome {
    let mut d = ok!(Domain::new(200));
    let portal = ok!(d.serve::<Echo>(cpu(), 0));
    ok!(call(portal, &[1]));
    // The domain dies, the portal is held here and survives it.
    d.delete(d.pd.selector());
    refused!(call(portal, &[1]), Aborted);
    Ok(())
}

fn callers_of_a_dying_domain_run_on() -> Outcome {
    let (mut d, mut foreign) = (own(), ok!(Domain::new(200)));
    ok!(busy(&mut foreign, &mut d));
    foreign.delete(foreign.pd.selector());
    ok!(semaphore(&BELL).down_until(patience()));
    same!(SEEN.load(Ordering::SeqCst), 0xe000 | u64::from(Status::Aborted.number()));
    Ok(())
}

fn a_handler_outlives_its_caller() -> Outcome {
    let mut here = own();
    GATE.store(ok!(here.semaphore(0)).raw(), Ordering::SeqCst);
    BELL.store(ok!(here.semaphore(0)).raw(), Ordering::SeqCst);
    let (mut server, mut client) = (ok!(Domain::new(200)), ok!(Domain::new(200)));
    let portal = ok!(server.serve::<Gated>(cpu(), 0));
    TARGET.store(portal.raw(), Ordering::SeqCst);
    for place in [&GATE, &BELL] {
        ok!(server.give(semaphore(place), place.load(Ordering::SeqCst), Rights::FULL));
    }
    ok!(client.give(portal, portal.raw(), Rights::PT_CALL));
    ok!(client.spawn(cpu(), crate::runner::priority(), caller));
    ok!(semaphore(&BELL).down_until(patience()));
    // The caller dies while the handler waits in the middle of its call. It is finished on the
    // time of the next one.
    drop(client);
    ok!(semaphore(&GATE).up());
    ok!(semaphore(&GATE).up());
    same!(ok!(call(portal, &[5])).0, 1);
    ok!(semaphore(&BELL).down_until(patience()));
    Ok(())
}

fn callers_through_a_revoked_portal() -> Outcome {
    let (mut d, mut foreign) = (own(), ok!(Domain::new(200)));
    let portal = ok!(busy(&mut foreign, &mut d));
    // The handler lives on, so a caller that is inside gets its answer.
    foreign.delete(portal.selector());
    refused!(call(portal, &[1]), BadCap);
    ok!(semaphore(&GATE).up());
    ok!(semaphore(&BELL).down_until(patience()));
    let seen = SEEN.load(Ordering::SeqCst);
    check!(seen == 1 || seen == 0xe000 | u64::from(Status::Aborted.number()));
    Ok(())
}
