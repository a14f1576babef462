//! A VM with one disk.

use ipc::proto::board::{Life, Orders};
use ipc::proto::virtio::{Setup, Shared};
use virtio::chain::Segment;
use virtio::driver::Driver;
use virtio::link::{Backend, Link, Links};
use virtio::queue::{EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio::ram::Ram;
use virtio::session::Seat;

use crate::device::{Block, describe, feature};
use crate::disk::Disk;
use crate::medium::Medium;
use crate::request::SERIAL;

/// Where buffers are.
const HEADER: u64 = 0x8000;
const DATA: u64 = 0x10_0000;

/// Requests with a range.
#[derive(Clone, Copy)]
pub enum IoKind {
    Discard = 11,
    WriteZeroes = 13,
}

pub struct World {
    pub block: Block,
    pub links: Links,
    pub driver: Driver,
    pub shared: &'static Shared,
    /// Lengths that buffers are cut into, in turn.
    pub cuts: Vec<u32>,
    offered: u64,
    status_at: u64,
}

impl World {
    pub fn new(medium: Medium, disk: Disk) -> Self {
        Self::with_features(medium, disk, feature::FLUSH)
    }

    pub fn with_features(medium: Medium, disk: Disk, features: u64) -> Self {
        let orders: &'static Orders = Box::leak(Box::default());
        let shared: &'static Shared = Box::leak(Box::default());
        let description = describe(&disk);
        let offered = description.features;
        let seat = Box::leak(Box::new(Seat::new(0, description, shared)));
        let ram = Ram::for_test(8 << 20);
        let driver = Driver::new(&ram, 0x1000, 128);
        orders.set_life(0, Life(1));
        let mut block = Block::new(vec![medium]);
        block.attach(0, disk);
        let links = Links::new(vec![Link::new(seat, "vm", Some(ram))], orders);
        let mut world = Self { block, links, driver, shared, cuts: vec![], offered, status_at: 0 };
        world.activate(features);
        world
    }

    pub fn activate(&mut self, features: u64) {
        let features = features | VERSION_1 | EVENT_IDX | INDIRECT_DESC;
        let mut setup = Setup { features, ..Setup::default() };
        setup.queues[0] = self.driver.queue;
        self.shared.activate(&setup);
        self.round();
    }

    pub fn round(&mut self) -> bool {
        self.block.woken(&mut self.links, 0);
        self.links.round(&mut self.block)
    }

    pub fn offered(&self) -> u64 {
        self.offered
    }

    pub fn is_broken(&self) -> bool {
        self.shared.is_broken()
    }

    pub fn medium(&mut self) -> &[u8] {
        match &self.block.media()[0] {
            Medium::Memory(bytes) => bytes,
            Medium::Remote(_) => panic!("no memory"),
        }
    }

    fn cut(&self, mut gpa: u64, mut len: u64) -> Vec<Segment> {
        let mut cuts = self.cuts.iter();
        let mut list = vec![];
        while len > 0 {
            let part = cuts.next().map_or(len, |c| len.min(u64::from(*c)));
            list.push(Segment { gpa, len: part as u32 });
            gpa += part;
            len -= part;
        }
        list
    }

    /// Header and `out` bytes of data for the device, `back` bytes of data and a status from it.
    pub fn send(&mut self, kind: u32, sector: u64, slot: u64, out: &[u8], back: u64) {
        let ram = &self.driver.ram;
        let base = DATA + slot * 0x2_0000;
        let head = HEADER + slot * 0x100;
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        if out.len() > 64 {
            ram.write(head, &bytes).unwrap();
            ram.write(base, out).unwrap();
        } else {
            // Header and data in one buffer.
            bytes.extend(out);
            ram.write(head, &bytes).unwrap();
        }
        let mut readable = self.cut(head, bytes.len() as u64);
        if out.len() > 64 {
            readable.extend(self.cut(base, out.len() as u64));
        }
        let (readable, writable) = if out.len() > 64 {
            ram.write(head + 0x80, &[0xff]).unwrap();
            self.status_at = head + 0x80;
            (readable, vec![Segment { gpa: head + 0x80, len: 1 }])
        } else {
            ram.write(base + back, &[0xff]).unwrap();
            self.status_at = base + back;
            (readable, self.cut(base, back + 1))
        };
        self.driver.offer(&readable, &writable);
    }

    fn finish(&mut self) -> u8 {
        while self.round() {}
        let status = self.status();
        status.unwrap_or(0xff)
    }

    pub fn status(&mut self) -> Option<u8> {
        self.driver.reap()?;
        Some(self.driver.ram.read_array::<1>(self.status_at).unwrap()[0])
    }

    pub fn data(&self, slot: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.driver.ram.read(DATA + slot * 0x2_0000, &mut data).unwrap();
        data
    }

    pub fn begin_read(&mut self, sector: u64, count: u64) {
        self.send(0, sector, 0, &[], count * 512);
    }

    pub fn read(&mut self, sector: u64, count: u64) -> (u8, Vec<u8>) {
        self.begin_read(sector, count);
        let status = self.finish();
        (status, self.data(0, count as usize * 512))
    }

    pub fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.send(1, sector, 0, data, 0);
        self.finish()
    }

    pub fn flush(&mut self) -> u8 {
        self.other(4)
    }

    pub fn other(&mut self, kind: u32) -> u8 {
        self.send(kind, 0, 0, &[], 0);
        self.finish()
    }

    pub fn clear(&mut self, kind: IoKind, sector: u64, count: u32) -> u8 {
        let mut range = sector.to_le_bytes().to_vec();
        range.extend(count.to_le_bytes());
        range.extend([0; 4]);
        self.send(kind as u32, 0, 0, &range, 0);
        self.finish()
    }

    pub fn serial(&mut self, room: usize) -> (u8, Vec<u8>) {
        self.send(8, 0, 0, &[], room as u64);
        let status = self.finish();
        (status, self.data(0, room.min(SERIAL)))
    }

    pub fn raw(&mut self, readable: u32, writable: u32) {
        self.raw_bytes(&[0; 48], readable, writable);
    }

    pub fn raw_bytes(&mut self, bytes: &[u8], readable: u32, writable: u32) {
        self.driver.ram.write(HEADER, bytes).unwrap();
        let list = |gpa, len| if len == 0 { vec![] } else { vec![Segment { gpa, len }] };
        let (readable, writable) = (list(HEADER, readable), list(DATA, writable));
        if readable.len() + writable.len() > 0 {
            self.driver.offer(&readable, &writable);
        }
        while self.round() {}
        while self.driver.reap().is_some() {}
    }
}
