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

    /// Sends a frame.
    fn send(&mut self, todo: Todo, payload: Payload<'_>) -> Delivery;

    /// The next frame that came in; it is put into `frame`.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Todo>;
}

/// Slots and their sizes: frames that come in are not larger than what a wire carries; those that
/// go out are segmented by the card where it can.
const RECEIVE_SLOTS: u16 = 128;
const RECEIVE_ROOM: u64 = 2048;
const SEND_SLOTS: u16 = 16;
const SEND_ROOM: u64 = 68 << 10;
/// Where things are in the memory.
const SEND_RING: u64 = 4096;
const RECEIVE_DATA: u64 = 8192;
const SEND_DATA: u64 = RECEIVE_DATA + RECEIVE_ROOM * RECEIVE_SLOTS as u64;
/// Bytes of DMA memory that an uplink takes.
pub const MEMORY: u64 = SEND_DATA + SEND_ROOM * SEND_SLOTS as u64;

const _: () = assert!(Ring::bytes(RECEIVE_SLOTS) <= SEND_RING);
const _: () = assert!(SEND_RING + Ring::bytes(SEND_SLOTS) <= RECEIVE_DATA);

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
        let receive = function.queue(&dma, 0, RECEIVE_SLOTS, 1)?;
        let send = function.queue(&dma, SEND_RING, SEND_SLOTS, 1)?;
        let mut card = Self { function, dma, receive, send, features };
        card.function.start();
        for slot in 0..RECEIVE_SLOTS {
            card.refill(slot);
        }
        card.function.notify(RECEIVE);
        Ok(card)
    }

    /// Gives the card a buffer for a frame.
    fn refill(&mut self, slot: u16) {
        let gpa = RECEIVE_DATA + RECEIVE_ROOM * u64::from(slot);
        let len = u32::try_from(RECEIVE_ROOM).unwrap_or(0);
        // The slot is free and its place lies in the memory.
        let _ = self.receive.add(slot, &[], &[Segment { gpa, len }]);
    }

    /// Lets the next interrupt come.
    pub fn acknowledge(&self) {
        self.function.acknowledge();
    }

    fn put(&mut self, slot: u16, todo: Todo, mut payload: Payload<'_>) -> Option<()> {
        let len = u64_of(SIZE) + payload.left();
        let len = u32::try_from(len).ok().filter(|n| u64::from(*n) <= SEND_ROOM)?;
        let segment = Segment { gpa: SEND_DATA + SEND_ROOM * u64::from(slot), len };
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
        while self.send.reap().is_some() {}
        // What has left tells of itself by an interrupt.
        let Some(slot) = self.send.free() else { return Delivery::Full };
        match self.put(slot, todo, payload) {
            Some(()) => {
                if self.send.should_notify() {
                    self.function.notify(SEND);
                }
                Delivery::Done
            }
            None => Delivery::Lost,
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Todo> {
        self.acknowledge();
        loop {
            let used = self.receive.reap()?;
            let gpa = RECEIVE_DATA + RECEIVE_ROOM * u64::from(used.slot);
            let len = u64::from(used.written).min(RECEIVE_ROOM).checked_sub(u64_of(SIZE));
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
}
