//! VMs with one card each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ipc::proto::board::{Life, Orders};
use ipc::proto::virtio::{Setup, Shared};
use virtio::chain::Segment;
use virtio::driver::Driver;
use virtio::link::{Backend, Link, Links};
use virtio::queue::{EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio::ram::Ram;
use virtio::session::Seat;

use crate::device::{Clock, Net, describe};
use crate::frame::Mac;
use crate::header::{SIZE, Todo, feature};
use crate::options::Options;
use crate::port::{Delivery, Payload, RECEIVE, TRANSMIT};
use crate::uplink::Uplink;

pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Ticks in a second.
pub const SECOND: u64 = 1_000_000;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Address of the card of a VM.
pub fn mac(n: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, n as u8 + 1]
}

/// A frame of `len` bytes.
pub fn frame(to: [u8; 6], from: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|n| n as u8).collect();
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame
}

/// The driver of a card. Memory: rings, then buffers to send from, then buffers to receive into.
pub struct Vm {
    ram: Ram,
    shared: &'static Shared,
    receive: Driver,
    transmit: Driver,
    next_send: u64,
    next_room: u64,
    /// Buffers by head: address and size.
    rooms: Vec<(u16, u64, u32)>,
}

const SEND: u64 = 0x10_0000;
const ROOM: u64 = 0x80_0000;

impl Vm {
    pub fn room(&mut self, size: u32, count: usize) {
        for _ in 0..count {
            let segment = Segment { gpa: self.next_room, len: size };
            self.next_room += u64::from(size);
            let head = self.receive.offer(&[], &[segment]);
            self.rooms.push((head, segment.gpa, size));
        }
    }

    pub fn send(&mut self, todo: Todo, frame: &[u8]) {
        let mut bytes = todo.header(0).to_vec();
        bytes.extend_from_slice(frame);
        self.send_raw(&bytes);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        if self.next_send + bytes.len() as u64 > ROOM {
            self.next_send = SEND;
        }
        let gpa = self.next_send;
        self.ram.write(gpa, bytes).unwrap();
        self.next_send += bytes.len() as u64;
        let len = bytes.len() as u32;
        let cut = len.min(20);
        let head = Segment { gpa, len: cut };
        let rest = Segment { gpa: gpa + u64::from(cut), len: len - cut };
        let both = if len > cut { vec![head, rest] } else { vec![head] };
        self.transmit.offer(&both, &[]);
    }

    /// The driver of the receiving queue, to look at.
    pub fn receiver(&self) -> Driver {
        self.receive.clone()
    }

    /// Whether all frames were taken.
    pub fn is_sent(&mut self) -> bool {
        while self.transmit.reap().is_some() {}
        self.transmit.used == self.transmit.available
    }

    pub fn is_broken(&self) -> bool {
        self.shared.is_broken()
    }

    /// The next frame that came in.
    pub fn receive(&mut self) -> Option<(Todo, Vec<u8>)> {
        let mut bytes = self.buffer()?;
        let header: [u8; SIZE] = bytes[..SIZE].try_into().unwrap();
        for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
            bytes.extend(self.buffer().unwrap());
        }
        let frame = bytes.split_off(SIZE);
        let all = feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6;
        Some((Todo::parse(header, frame.len() as u64, all).unwrap(), frame))
    }

    fn buffer(&mut self) -> Option<Vec<u8>> {
        let (head, written) = self.receive.reap()?;
        let at = self.rooms.iter().position(|r| u64::from(r.0) == head).unwrap();
        let (_, gpa, size) = self.rooms.remove(at);
        assert!(written <= u64::from(size));
        let mut bytes = vec![0; written as usize];
        self.ram.read(gpa, &mut bytes).unwrap();
        Some(bytes)
    }
}

pub struct World {
    net: Net<'static>,
    links: Links,
    pub vms: Vec<Vm>,
}

impl World {
    pub fn new(cards: &[(&'static str, u64)]) -> Self {
        Self::with_rate(cards, usize::MAX, 1)
    }

    pub fn with_rate(cards: &[(&'static str, u64)], limited: usize, rate: u64) -> Self {
        NOW.set(0);
        let clock = Clock { now: || NOW.get(), frequency: SECOND };
        let mut net = Net::new(clock);
        let orders: &'static Orders = Box::leak(Box::default());
        let (mut vms, mut links) = (Vec::new(), Vec::new());
        for (n, &(network, features)) in cards.iter().enumerate() {
            let address = Mac(mac(n));
            let rate = (n == limited).then_some(rate);
            assert!(net.attach(n, &Options { network, mac: address, rate }));
            let shared: &'static Shared = Box::leak(Box::default());
            let seat = Box::leak(Box::new(Seat::new(n, describe(address), shared)));
            let ram = Ram::for_test(16 << 20);
            orders.set_life(n, Life(1));
            links.push(Link::new(seat, "vm", Some(ram.clone())));
            let (receive, transmit) =
                (Driver::new(&ram, 0x1000, 256), Driver::new(&ram, 0x1_0000, 256));
            let mut setup = Setup { features, ..Setup::default() };
            setup.features |= VERSION_1 | EVENT_IDX | INDIRECT_DESC;
            setup.queues[RECEIVE] = receive.queue;
            setup.queues[TRANSMIT] = transmit.queue;
            shared.activate(&setup);
            let (next_send, next_room, rooms) = (SEND, ROOM, Vec::new());
            vms.push(Vm { ram, shared, receive, transmit, next_send, next_room, rooms });
        }
        let links = Links::new(links, orders);
        let mut world = Self { net, links, vms };
        world.round();
        world
    }

    pub fn round(&mut self) -> bool {
        self.net.woken(&mut self.links, 0);
        self.links.round(&mut self.net)
    }

    pub fn deadline(&self) -> Option<u64> {
        self.net.deadline()
    }

    pub fn time(&self) -> u64 {
        NOW.get()
    }

    pub fn set_time(&mut self, now: u64) {
        NOW.set(now);
    }

    pub fn spoofed(&self, n: usize) -> u64 {
        self.net.cards[n].as_ref().unwrap().spoofed
    }

    pub fn uplink(&mut self, network: &'static str) -> Wire {
        let wire = Wire::default();
        self.net.add_uplink(network, Box::new(wire.clone()));
        wire
    }
}

/// A wire without a card at its other end.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
    coming: Rc<RefCell<Vec<Vec<u8>>>>,
    /// Frames that it takes at a time, where there is a limit.
    room: Rc<Cell<Option<usize>>>,
}

impl Wire {
    /// What was sent since the last call.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.take()
    }

    pub fn limit(&self, frames: usize) {
        self.room.set(Some(frames));
    }

    pub fn bring(&self, frame: &[u8]) {
        self.coming.borrow_mut().push(frame.to_vec());
    }
}

impl Uplink for Wire {
    fn features(&self) -> u64 {
        0
    }

    fn send(&mut self, todo: Todo, payload: Payload<'_>) -> Delivery {
        assert_eq!(todo, Todo::default());
        if self.room.get().is_some_and(|room| self.sent.borrow().len() >= room) {
            return Delivery::Full;
        }
        let mut frame = Vec::new();
        assert!(super::super::gather(payload, &mut frame));
        self.sent.borrow_mut().push(frame);
        Delivery::Done
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Todo> {
        let mut coming = self.coming.borrow_mut();
        if coming.is_empty() {
            return None;
        }
        *frame = coming.remove(0);
        Some(Todo::default())
    }

    fn rest(&mut self) -> bool {
        !self.coming.borrow().is_empty()
    }
}
