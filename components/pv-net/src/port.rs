//! A card's queues: frames in and out of guest memory.

use alloc::vec::Vec;

use virtio::chain::{self, Chain, Cursor};
use virtio::link::Link;
use virtio::ram::{NotRam, Ram};

use crate::frame::{HEADER, MAX_FRAME};
use crate::header::{SIZE, Todo, feature};

/// The queues of a card (virtio 1.2, 5.1.2).
pub const RECEIVE: usize = 0;
/// See [`RECEIVE`].
pub const TRANSMIT: usize = 1;

/// Bytes of a frame, where they are.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// In a guest's memory.
    Guest(&'a Ram, Cursor<'a>),
    /// Here.
    Bytes(&'a [u8]),
}

impl Payload<'_> {
    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        match self {
            Self::Guest(_, cursor) => cursor.left(),
            Self::Bytes(bytes) => sysroot::num::u64_of(bytes.len()),
        }
    }

    /// Moves as much as there is room for; returns how much.
    ///
    /// # Errors
    /// As [`Cursor::read`].
    pub fn put(&mut self, ram: &Ram, to: &mut Cursor<'_>) -> Result<u64, NotRam> {
        match self {
            Self::Guest(from_ram, from) => chain::copy(from_ram, from, ram, to),
            Self::Bytes(bytes) => {
                let count = to.write(ram, bytes)?;
                *bytes = bytes.get(count..).unwrap_or(&[]);
                Ok(sysroot::num::u64_of(count))
            }
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The receiver has it.
    Done,
    /// The receiver has no room now. It tells when it has.
    Full,
    /// The receiver is not there, or has no room for a frame like this.
    Lost,
}

/// A frame that a driver sent, by its header.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// What is left to do.
    pub todo: Todo,
    /// Bytes of the frame.
    pub len: u64,
    /// Its Ethernet header.
    pub ethernet: [u8; HEADER],
}

/// Why a chain holds no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFrame {
    /// It has no header: the driver does not keep to the rules.
    Malformed,
    /// The frame has an impossible size, or asks for something that was not agreed on.
    Invalid,
}

/// The frame in a chain of a driver that agreed to `features`, and a cursor at its start.
///
/// # Errors
/// [`NoFrame`]
pub fn sent<'a>(ram: &Ram, chain: &'a Chain, features: u64) -> Result<(Sent, Cursor<'a>), NoFrame> {
    let mut cursor = chain.readable();
    let header = cursor.read_array::<SIZE>(ram).ok().flatten().ok_or(NoFrame::Malformed)?;
    let (len, start) = (cursor.left(), cursor);
    let ethernet = cursor.read_array::<HEADER>(ram).ok().flatten().ok_or(NoFrame::Invalid)?;
    if len > sysroot::num::u64_of(MAX_FRAME) {
        return Err(NoFrame::Invalid);
    }
    let todo = Todo::parse(header, len, features).map_err(|_| NoFrame::Invalid)?;
    Ok((Sent { todo, len, ethernet }, start))
}

/// Gives a frame to a receiver for which [`Todo::suits`]. `chains` is empty, and is again
/// afterwards.
pub fn deliver(
    link: &mut Link,
    todo: Todo,
    mut payload: Payload<'_>,
    chains: &mut Vec<Chain>,
) -> Delivery {
    if !link.is_active() {
        return Delivery::Lost;
    }
    let needed = sysroot::num::u64_of(SIZE) + payload.left();
    let most = if link.features() & feature::MRG_RXBUF == 0 { 1 } else { usize::from(u16::MAX) };
    let mut room = 0;
    while room < needed {
        let next = if chains.len() < most { link.pop(RECEIVE) } else { None };
        let Some(chain) = next else {
            let lost = chains.len() >= most || !link.is_active();
            while let Some(chain) = chains.pop() {
                link.put_back(RECEIVE, chain);
            }
            return if lost { Delivery::Lost } else { Delivery::Full };
        };
        room += chain.writable().left();
        chains.push(chain);
    }
    let Some(ram) = link.ram().cloned() else { return Delivery::Lost };
    let header = todo.header(u16::try_from(chains.len()).unwrap_or(u16::MAX));
    let mut header = header.as_slice();
    let mut good = true;
    for chain in &*chains {
        let mut to = chain.writable();
        // Segments were checked to be RAM.
        let count = to.write(&ram, header).unwrap_or(0);
        header = header.get(count..).unwrap_or(&[]);
        good &= payload.put(&ram, &mut to).is_ok();
    }
    // A driver that sees the first buffer of a frame takes it that the others are there, too. They
    // show in their order, so all of them with the first one, which comes last.
    let mut unused = room - needed;
    for chain in chains.drain(..).rev() {
        let written = chain.writable().left() - core::mem::take(&mut unused);
        link.complete(RECEIVE, chain, u32::try_from(written).unwrap_or(0));
    }
    if good { Delivery::Done } else { Delivery::Lost }
}
