//! What a service is, and the server's side of a call.
//!
//! A call is a message whose first word is a [`Header`] and whose other words hold the request. The
//! first word of the reply is 0 and the other words hold the reply, or it is the number of a
//! [`Fault`]. Capabilities travel as typed items beside the words.

use heapless::Vec;
use serde::Serialize;

use super::ring::Shareable;
use super::wire::{self, Body, Wire};
use crate::cap::{MemRights, Range, Rights, Selector};
use crate::utcb::{ITEMS, Item, Message, WORDS};

/// A service protocol. Declared by the `service!` macro.
pub trait Protocol {
    /// Name, as the configuration uses it.
    const NAME: &'static str;
    /// Version. Client and server must agree.
    const VERSION: u8;
    /// Short hash of the name: a portal that was wired to the wrong service is noticed.
    const ID: u16 = hash(Self::NAME);
    /// What lies in the memory that client and server of a session share; `()` for none. The root
    /// task owns it, so it stays when either side dies.
    type Shared: Shareable;
    /// log2 of the number of its pages; `None` for none.
    const SHARED_ORDER: Option<u8>;
}

/// A request type of a protocol.
pub trait Method: Wire {
    /// The protocol it belongs to.
    type Protocol: Protocol;
    /// What the server answers.
    type Reply: Wire;
    /// Its number in the protocol.
    const NUMBER: u8;
}

const fn hash(name: &str) -> u16 {
    let bytes = name.as_bytes();
    let mut rest = bytes;
    let mut sum: u16 = 0x9dc5;
    while let [first, tail @ ..] = rest {
        sum = (sum ^ *first as u16).wrapping_mul(0x0193);
        rest = tail;
    }
    sum
}

numbered! {
    /// Why a server refused a call.
    pub enum Fault: u8 {
        /// The message is not a request of this service.
        Malformed = 1,
        /// Client and server speak different protocols or versions.
        Version = 2,
        /// No such method.
        Method = 3,
        /// This client may not do that.
        Denied = 4,
        /// A value in the request is out of range.
        Invalid = 5,
        /// Not now; try again.
        Busy = 6,
        /// The server has no resources left for this client.
        Limit = 7,
        /// What the request names does not exist.
        NotFound = 8,
        /// The request carries too few or wrong capabilities.
        Capability = 9,
        /// Something failed in the server.
        Internal = 10,
    }
}

/// First word of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`Protocol::ID`].
    pub protocol: u16,
    /// [`Protocol::VERSION`].
    pub version: u8,
    /// [`Method::NUMBER`].
    pub method: u8,
}

impl Header {
    /// The header of a request type.
    #[must_use]
    pub const fn of<M: Method>() -> Self {
        Self {
            protocol: <M::Protocol as Protocol>::ID,
            version: <M::Protocol as Protocol>::VERSION,
            method: M::NUMBER,
        }
    }

    /// Packs: protocol 0..16, version 16..24, method 24..32.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.protocol) | u64::from(self.version) << 16 | u64::from(self.method) << 24
    }

    /// The reverse of [`Self::to_word`]; `None` where other bits are set.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let [a, b, version, method] = u32::try_from(word).ok()?.to_le_bytes();
        Some(Self { protocol: u16::from_le_bytes([a, b]), version, method })
    }
}

/// The message area of a UTCB.
pub struct Area<'a> {
    /// Untyped words.
    pub words: &'a mut [u64; WORDS],
    /// Typed items.
    pub items: &'a mut [Item; ITEMS],
}

/// Access to the message area of the current execution context, for a moment at a time: between
/// two accesses a nested call may overwrite it.
pub trait Buffer {
    /// Runs `f` on the area.
    fn with<R>(&mut self, f: impl FnOnce(Area<'_>) -> R) -> R;
}

/// Most capabilities that a request or reply of a service carries.
pub const MAX_CAPS: usize = 16;

/// A list of typed items.
pub type Items = Vec<Item, MAX_CAPS>;

/// A call as its server sees it.
#[derive(Debug)]
pub struct Incoming {
    /// Id of the portal: which session the call came in on.
    pub session: u64,
    /// Capabilities that arrived.
    pub received: Items,
    /// Capabilities to hand to the client with the reply.
    pub attached: Items,
    /// Whether capabilities that arrived stay with the server.
    pub keep: bool,
    /// A capability that was kept in an earlier call and is not needed any more: its selectors are
    /// taken for what comes next, so that clients cannot use them up.
    pub replaced: Option<Selector>,
}

impl Incoming {
    /// A call without capabilities.
    #[must_use]
    pub const fn new(session: u64) -> Self {
        Self { session, received: Vec::new(), attached: Vec::new(), keep: false, replaced: None }
    }

    /// Selectors of the object capabilities that arrived, in order.
    pub fn objects(&self) -> impl Iterator<Item = Selector> + '_ {
        self.received
            .iter()
            .filter(|i| Range(i.range).space() == Some(crate::cap::Space::Object))
            .map(|i| Selector(i.base))
    }

    /// Hands out an object capability with the reply; `offset` is its place in the client's
    /// window, `badge` what signals through it add (semaphores).
    ///
    /// # Errors
    /// [`Fault::Internal`] where there are too many.
    pub fn attach_object(
        &mut self,
        selector: Selector,
        rights: Rights,
        offset: u64,
        badge: u64,
    ) -> Result<(), Fault> {
        let item = Item { range: Range::object(rights).0, base: selector.0, offset, badge };
        self.attached.push(item).map_err(|_| Fault::Internal)
    }

    /// Hands out `2^order` pages with the reply; `page` is the first in the server's space.
    ///
    /// # Errors
    /// [`Fault::Internal`] where there are too many.
    pub fn attach_memory(&mut self, page: u64, order: u8, rights: MemRights) -> Result<(), Fault> {
        let item = Item::delegate(Range::memory(order, rights), page, 0);
        self.attached.push(item).map_err(|_| Fault::Internal)
    }
}

/// Implemented by `service!` for everything that implements the service's `Server` trait.
pub trait Dispatch<P> {
    /// Decodes the request with this number, has it handled and writes the reply; returns how
    /// many words that took.
    ///
    /// # Errors
    /// What the client is told instead.
    fn dispatch(
        &self,
        call: &mut Incoming,
        number: u8,
        body: &Body,
        buffer: &mut impl Buffer,
    ) -> Result<usize, Fault>;
}

/// Writes a reply behind the status word; returns the number of words.
///
/// # Errors
/// [`Fault::Internal`] where it does not fit, which its declaration excludes.
pub fn put_reply<T: Serialize>(reply: &T, buffer: &mut impl Buffer) -> Result<usize, Fault> {
    buffer.with(|area| {
        let (_, body) = area.words.split_first_mut().ok_or(Fault::Internal)?;
        wire::encode(reply, body).map_err(|_| Fault::Internal)
    })
}

/// Handles one call from its message to the message of its reply. What the client sent beside a
/// well-formed request is left in `call` for the caller of this function to dispose of.
pub fn serve<P: Protocol, S: Dispatch<P>>(
    server: &S,
    call: &mut Incoming,
    message: Message,
    buffer: &mut impl Buffer,
) -> Message {
    let (head, body) = buffer.with(|area| {
        let words = area.words.get(..message.words()).unwrap_or(&[]);
        let items = area.items.get(..message.items()).unwrap_or(&[]);
        call.received.extend(items.iter().filter(|i| i.range != 0).take(MAX_CAPS).copied());
        match words.split_first() {
            Some((head, body)) => (Header::from_word(*head), Body::copy(body)),
            None => (None, Body::copy(&[])),
        }
    });
    let outcome = match head {
        None => Err(Fault::Malformed),
        Some(h) if h.protocol != P::ID || h.version != P::VERSION => Err(Fault::Version),
        Some(h) => server.dispatch(call, h.method, &body, buffer),
    };
    let (status, words) = match outcome {
        Ok(words) => (0, words),
        Err(fault) => {
            call.attached.clear();
            (u64::from(fault.number()), 0)
        }
    };
    buffer.with(|area| {
        if let Some(head) = area.words.first_mut() {
            *head = status;
        }
        for (to, from) in area.items.iter_mut().zip(&call.attached) {
            *to = *from;
        }
    });
    Message::new(1 + words, call.attached.len())
}

/// Writes a request into the message area; returns the message to call the portal with.
///
/// # Errors
/// It does not fit, which its declaration excludes.
pub fn put_request<M: Method>(
    request: &M,
    items: &[Item],
    area: &mut Area<'_>,
) -> Result<Message, wire::Error> {
    let (head, body) = area.words.split_first_mut().ok_or(wire::Error)?;
    *head = Header::of::<M>().to_word();
    let words = wire::encode(request, body)?;
    for (to, from) in area.items.iter_mut().zip(items) {
        *to = *from;
    }
    Ok(Message::new(1 + words, items.len()))
}

/// Why a call to a service brought no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The kernel could not deliver it: the server is gone, or was never there.
    Status(crate::status::Status),
    /// The server refused it.
    Fault(Fault),
    /// The server's reply makes no sense.
    BadReply,
}

impl Error {
    /// Whether the server died or is not there (yet): a session may come back.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        use crate::status::Status;
        matches!(self, Self::Status(Status::Aborted | Status::BadCap))
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Status(s) => write!(f, "call failed: {s}"),
            Self::Fault(x) => write!(f, "server refused: {}", x.name()),
            Self::BadReply => write!(f, "malformed reply"),
        }
    }
}

/// Reads the reply out of the message area.
///
/// # Errors
/// The server's [`Fault`], or that the reply does not decode.
pub fn take_reply<M: Method>(message: Message, words: &[u64]) -> Result<M::Reply, Error> {
    let words = words.get(..message.words()).unwrap_or(&[]);
    let (head, body) = words.split_first().ok_or(Error::BadReply)?;
    match u8::try_from(*head) {
        Ok(0) => Body::copy(body).decode().map_err(|_| Error::BadReply),
        Ok(n) => Err(Fault::from_number(n).map_or(Error::BadReply, Error::Fault)),
        Err(_) => Err(Error::BadReply),
    }
}
