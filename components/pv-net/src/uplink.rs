//! A card of the machine, as the switch sees it: a virtio network function driven over PCI. Frames
//! pass through memory of the function's own.

use alloc::vec::Vec;
use core::fmt::Debug;

use ipc::proto::start::Device;
use sysroot::num::{u64_of, usize_of};
use virtio::chain::{Cursor, Segment};
use virtio::host::pci::{Function, FunctionError};
use virtio::host::ring::{Dma, Ring};

use crate::header::{SIZE, Todo, feature};
use crate::port::{Delivery, Payload};

/// What the switch asks of an uplink.
pub trait Uplink: Debug {
    /// Features as those of a receiver, for [`Todo::suits`].
    fn features(&self) -> u64;

    /// Sends a frame; it leaves with the next [`Self::receive`] or [`Self::rest`] at the latest.
    fn send(&mut self, todo: Todo, payload: Payload<'_>) -> Delivery;

    /// The next frame that came in; it is put into `frame`.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Todo>;

    /// Has the card tell, by a signal, when a frame comes in or there is room again for one that
    /// found none, until [`Self::receive`] is called. Returns whether that is so already.
    fn rest(&mut self) -> bool;
}

/// Frames of a queue, and room for each.
#[derive(Clone, Copy, Debug)]
struct Slots {
    count: u16,
    room: u64,
}

impl Slots {
    /// No frame on a wire is larger.
    const PLAIN: Self = Self { count: 256, room: 2048 };
    /// Of frames that the card cuts into segments.
    const LARGE: Self = Self { count: 16, room: 68 << 10 };

    const fn bytes(self) -> u64 {
        self.room * self.count as u64
    }
}

/// Where things are in the memory.
const SEND_RING: u64 = 8192;
const RECEIVE_DATA: u64 = 16384;
const SEND_DATA: u64 = RECEIVE_DATA + Slots::PLAIN.bytes();
/// Bytes of DMA memory that an uplink takes.
pub const MEMORY: u64 = SEND_DATA + Slots::LARGE.bytes();

const _: () = assert!(Slots::PLAIN.bytes() <= Slots::LARGE.bytes());
const _: () = assert!(Ring::bytes(Slots::PLAIN.count) <= SEND_RING);
const _: () = assert!(SEND_RING + Ring::bytes(Slots::PLAIN.count) <= RECEIVE_DATA);

/// Queues of the function.
const RECEIVE: u16 = 0;
const SEND: u16 = 1;

/// A card of the machine.
#[derive(Debug)]
pub struct Card {
    function: Function,
    dma: Dma,
    receive: Ring,
    send: Ring,
    sends: Slots,
    /// A frame found no room.
    full: bool,
    /// The card was not told of all frames.
    untold: bool,
    features: u64,
}

impl Card {
    /// Takes over the function; its interrupts come with this badge.
    ///
    /// # Errors
    /// [`FunctionError`]
    pub fn open(device: &Device<'_>, badge: u64) -> Result<Self, FunctionError> {
        use feature::{CSUM, GUEST_CSUM, HOST_TSO4, HOST_TSO6};
        let mut function = Function::open(device, badge)?;
        let dma = function.memory(device)?;
        if dma.memory.size() < MEMORY {
            return Err(FunctionError::NoMemory);
        }
        let features = function.negotiate(CSUM | GUEST_CSUM | HOST_TSO4 | HOST_TSO6)?;
        let large = features & (HOST_TSO4 | HOST_TSO6) != 0;
        let sends = if large { Slots::LARGE } else { Slots::PLAIN };
        let receive = function.queue(&dma, 0, Slots::PLAIN.count, 1)?;
        let mut send = function.queue(&dma, SEND_RING, sends.count, 1)?;
        // Room is looked for when it is needed.
        send.ignore();
        let mut card =
            Self { function, dma, receive, send, sends, full: false, untold: false, features };
        card.function.start();
        for slot in (0..).take(card.receive.slots()) {
            card.refill(slot);
        }
        card.function.notify(RECEIVE);
        Ok(card)
    }

    /// Gives the card a buffer for a frame.
    fn refill(&mut self, slot: u16) {
        let Slots { room, .. } = Slots::PLAIN;
        let gpa = RECEIVE_DATA + room * u64::from(slot);
        let len = u32::try_from(room).unwrap_or(0);
        // The slot is free and its place lies in the memory.
        let _ = self.receive.add(slot, &[], &[Segment { gpa, len }]);
    }

    /// Tells the card of frames to send: of all at a time, as that takes longer than adding one.
    fn tell(&mut self) {
        if core::mem::take(&mut self.untold) && self.send.should_notify() {
            self.function.notify(SEND);
        }
    }

    /// Lets the next interrupt come.
    pub fn acknowledge(&self) {
        self.function.acknowledge();
    }

    fn put(&mut self, slot: u16, todo: Todo, mut payload: Payload<'_>) -> Option<()> {
        let len = u64_of(SIZE) + payload.left();
        let room = self.sends.room;
        let len = u32::try_from(len).ok().filter(|n| u64::from(*n) <= room)?;
        let segment = Segment { gpa: SEND_DATA + room * u64::from(slot), len };
        let segments = [segment];
        let mut to = Cursor::new(&segments);
        to.write(&self.dma.memory, &todo.header(0)).ok()?;
        payload.put(&self.dma.memory, &mut to).ok()?;
        self.send.add(slot, &segments, &[]).ok()
    }
}

impl Uplink for Card {
    fn features(&self) -> u64 {
        // What the card does for its driver is what a receiver takes from a sender.
        let pairs = [
            (feature::CSUM, feature::GUEST_CSUM),
            (feature::HOST_TSO4, feature::GUEST_TSO4),
            (feature::HOST_TSO6, feature::GUEST_TSO6),
        ];
        pairs.iter().filter(|(own, _)| self.features & own != 0).fold(0, |sum, (_, g)| sum | g)
    }

    fn send(&mut self, todo: Todo, payload: Payload<'_>) -> Delivery {
        if self.send.free().is_none() {
            while self.send.reap().is_some() {}
        }
        let Some(slot) = self.send.free() else {
            self.full = true;
            self.tell();
            return Delivery::Full;
        };
        match self.put(slot, todo, payload) {
            Some(()) => {
                self.untold = true;
                Delivery::Done
            }
            None => Delivery::Lost,
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Todo> {
        self.tell();
        self.acknowledge();
        self.receive.ignore();
        self.send.ignore();
        loop {
            let used = self.receive.reap()?;
            let Slots { room, .. } = Slots::PLAIN;
            let gpa = RECEIVE_DATA + room * u64::from(used.slot);
            let len = u64::from(used.written).min(room).checked_sub(u64_of(SIZE));
            let header = self.dma.memory.read_array::<SIZE>(gpa);
            let mut todo = None;
            if let (Some(len), Ok(header)) = (len, header) {
                frame.resize(usize_of(len), 0);
                let read = self.dma.memory.read(gpa + u64_of(SIZE), frame);
                let agreed = self.features & feature::GUEST_CSUM != 0;
                let agreed = if agreed { feature::CSUM } else { 0 };
                todo = Todo::parse(header, len, agreed).ok().filter(|_| read.is_ok());
            }
            self.refill(used.slot);
            if self.receive.should_notify() {
                self.function.notify(RECEIVE);
            }
            if todo.is_some() {
                return todo;
            }
        }
    }

    fn rest(&mut self) -> bool {
        self.tell();
        let room = core::mem::take(&mut self.full) && self.send.listen();
        self.receive.listen() || room
    }
}
