use core::cell::RefCell;

use heapless::String;

use crate::cap::{Range, Rights, Selector};
use crate::proto::service::{
    Area, Buffer, Error, Fault, Header, Incoming, MAX_CAPS, Protocol, put_request, serve,
    take_reply,
};
use crate::status::Status;
use crate::utcb::{Item, Message, Utcb};

message! {
    /// Adds.
    pub struct Add {
        /// Left.
        pub a: u32,
        /// Right.
        pub b: u32,
    }
}

message! {
    /// Takes and gives capabilities.
    pub struct Swap {
        /// Text that makes the message longer.
        pub text: String<100>,
    }
}

message! {
    /// Fails.
    pub struct Fail {}
}

message! {
    /// Not a request of the service below.
    pub struct Other {}
}

service! {
    /// A test service.
    pub service Test = "test", version 3;
    /// Adds.
    1 => add: Add => u64;
    /// Swaps.
    2 => swap: Swap => ();
    /// Fails.
    7 => fail: Fail => ();
}

mod other {
    service! {
        /// Another service.
        pub service Foreign = "foreign", version 3;
        /// Nothing.
        1 => other: super::Other => ();
    }
}

struct Utcbs(Utcb);

impl Buffer for Utcbs {
    fn with<R>(&mut self, f: impl FnOnce(Area<'_>) -> R) -> R {
        f(Area { words: &mut self.0.words, items: &mut self.0.items })
    }
}

#[derive(Default)]
struct Adder {
    seen: RefCell<Option<u64>>,
}

impl Server for Adder {
    fn add(&self, call: &mut Incoming, request: Add) -> Result<u64, Fault> {
        *self.seen.borrow_mut() = Some(call.session);
        Ok(u64::from(request.a) + u64::from(request.b))
    }

    fn swap(&self, call: &mut Incoming, _request: Swap) -> Result<(), Fault> {
        let first = call.objects().next().ok_or(Fault::Capability)?;
        call.keep = true;
        call.attach_object(first.offset(1), Rights::SM_UP, 0, 5)
    }

    fn fail(&self, call: &mut Incoming, _request: Fail) -> Result<(), Fault> {
        call.attach_object(Selector(9), Rights::SM_UP, 0, 0)?;
        Err(Fault::Busy)
    }
}

fn utcb() -> Utcbs {
    Utcbs(Utcb::new())
}

fn request<M: crate::proto::service::Method>(u: &mut Utcbs, m: &M, items: &[Item]) -> Message {
    u.with(|mut area| put_request(m, items, &mut area)).unwrap()
}

#[test]
fn a_call_goes_round() {
    let (mut u, server) = (utcb(), Adder::default());
    let message = request(&mut u, &Add { a: u32::MAX, b: 2 }, &[]);
    let reply = serve(&server, &mut Incoming::new(42), message, &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Ok(u64::from(u32::MAX) + 2));
    assert_eq!(*server.seen.borrow(), Some(42));
}

#[test]
fn capabilities_travel_both_ways() {
    let (mut u, server) = (utcb(), Adder::default());
    let item = Item::delegate(Range::object(Rights::SM_UP), 100, 0);
    let message = request(&mut u, &Swap { text: String::new() }, &[item]);
    let mut call = Incoming::new(0);
    let reply = serve(&server, &mut call, message, &mut u);
    assert_eq!(take_reply::<Swap>(reply, &u.0.words), Ok(()));
    assert!(call.keep);
    assert_eq!(reply.items(), 1);
    assert_eq!((u.0.items[0].base, u.0.items[0].badge), (101, 5));
}

#[test]
fn a_missing_capability_is_a_fault() {
    let (mut u, server) = (utcb(), Adder::default());
    let message = request(&mut u, &Swap { text: String::new() }, &[]);
    let reply = serve(&server, &mut Incoming::new(0), message, &mut u);
    assert_eq!(take_reply::<Swap>(reply, &u.0.words), Err(Error::Fault(Fault::Capability)));
}

#[test]
fn a_fault_carries_no_capabilities() {
    let (mut u, server) = (utcb(), Adder::default());
    let message = request(&mut u, &Fail {}, &[]);
    let reply = serve(&server, &mut Incoming::new(0), message, &mut u);
    assert_eq!((reply.words(), reply.items()), (1, 0));
    assert_eq!(take_reply::<Fail>(reply, &u.0.words), Err(Error::Fault(Fault::Busy)));
}

#[test]
fn another_protocol_or_version_is_refused() {
    let (mut u, server) = (utcb(), Adder::default());
    let message = request(&mut u, &Other {}, &[]);
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), message, &mut u);
    assert_eq!(take_reply::<Other>(reply, &u.0.words), Err(Error::Fault(Fault::Version)));

    let message = request(&mut u, &Add { a: 1, b: 2 }, &[]);
    u.0.words[0] = Header { version: Test::VERSION + 1, ..Header::of::<Add>() }.to_word();
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), message, &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Err(Error::Fault(Fault::Version)));
}

#[test]
fn malformed_messages_get_an_error_reply() {
    let (mut u, server) = (utcb(), Adder::default());
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), Message::EMPTY, &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Err(Error::Fault(Fault::Malformed)));

    let unknown = Header { method: 99, ..Header::of::<Add>() }.to_word();
    u.0.words[0] = unknown;
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), Message::new(1, 0), &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Err(Error::Fault(Fault::Method)));

    // A header with nothing behind it, and one with every bit set.
    u.0.words[0] = Header::of::<Add>().to_word();
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), Message::new(1, 0), &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Err(Error::Fault(Fault::Malformed)));
    u.0.words = [u64::MAX; crate::utcb::WORDS];
    let reply = serve::<Test, _>(&server, &mut Incoming::new(0), Message(u64::MAX), &mut u);
    assert_eq!(take_reply::<Add>(reply, &u.0.words), Err(Error::Fault(Fault::Malformed)));
}

#[test]
fn random_messages_never_panic() {
    let (mut u, server) = (utcb(), Adder::default());
    let mut seed = 0x1234_5678_9abc_def0u64;
    for round in 0..20_000u64 {
        for word in u.0.words.iter_mut().take(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
            *word = seed;
        }
        u.0.words[0] = Header { method: (round % 9) as u8, ..Header::of::<Add>() }.to_word();
        let message = Message::new((seed >> 40) as usize % 290, (seed >> 20) as usize % 33);
        let mut call = Incoming::new(0);
        let reply = serve::<Test, _>(&server, &mut call, message, &mut u);
        assert!(call.received.len() <= MAX_CAPS);
        assert!(reply.words() >= 1);
    }
}

#[test]
fn replies_are_not_trusted_either() {
    assert_eq!(take_reply::<Add>(Message::EMPTY, &[]), Err(Error::BadReply));
    assert_eq!(take_reply::<Add>(Message::new(1, 0), &[0]), Err(Error::BadReply));
    assert_eq!(take_reply::<Add>(Message::new(1, 0), &[200]), Err(Error::BadReply));
    assert_eq!(take_reply::<Add>(Message::new(1, 0), &[u64::MAX]), Err(Error::BadReply));
    assert!(Error::Status(Status::Aborted).is_gone());
    assert!(!Error::Fault(Fault::Busy).is_gone());
}
