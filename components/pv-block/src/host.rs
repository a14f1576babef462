//! A virtio disk of the machine, driven over PCI with MSI-X.
//!
//! Its data passes through memory of the function's own: the device never sees a guest's memory.
//! The crate `virtio-drivers` would wait for each flush with all guests waiting, and has no MSI-X.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ipc::proto::start::Device;
use sysroot::num::u64_of;
use sysroot::time;
use virtio::chain::Segment;
use virtio::host::pci::{Function, FunctionError};
use virtio::host::ring::{Dma, Ring, Used};
use virtio::ram::NotRam;

use crate::SECTOR;
use crate::medium::{Begun, Completion, PIECE, Remote, Sink, Source, Tag};
use crate::pool::{Pool, Run};

/// Features (virtio 1.2, 5.2.3).
const RO: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;

/// Request types (virtio 1.2, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const SYNC: u32 = 4;

/// Descriptors of the queue, and of a request: header, data, status.
const QUEUE: u16 = 128;
const PARTS: u16 = 3;
/// Where things are in the memory: headers with their status, then data. The queue is before.
const HEADERS: u64 = 4096;
const HEADER: u64 = 32;
const DATA: u64 = 8192;
/// Data comes in units of so many sectors and bytes.
const UNIT_SECTORS: u64 = 128;
const UNIT: u64 = UNIT_SECTORS * SECTOR;
/// How long the disk may take while nothing else goes on.
const PATIENCE_MS: u64 = 10_000;

const _: () = assert!(Ring::bytes(QUEUE) <= HEADERS);
const _: () = assert!(HEADERS + HEADER * (QUEUE as u64) <= DATA);

/// What a slot is used for.
#[derive(Clone, Copy, Debug)]
struct Op {
    tag: Tag,
    /// Where the data is.
    room: Option<Run>,
    /// Bytes to deliver.
    reads: u32,
}

impl Op {
    /// What is to be delivered.
    fn data(&self) -> Segment {
        Segment { gpa: self.room.map_or(DATA, place), len: self.reads }
    }
}

/// Offset of data in the memory.
fn place(room: Run) -> u64 {
    DATA + UNIT * u64::from(room.at)
}

/// A disk of the machine.
#[derive(Debug)]
pub struct HostDisk {
    function: Function,
    ring: Ring,
    dma: Dma,
    sectors: u64,
    read_only: bool,
    /// The disk has a cache that has to be flushed.
    cached: bool,
    /// By slot.
    ops: Vec<Option<Op>>,
    pool: Pool,
    /// The disk was not told of all requests.
    untold: bool,
    /// Flushes of a disk that has nothing to flush.
    idle: VecDeque<Tag>,
}

impl HostDisk {
    /// Takes over the function; its interrupts come with this badge.
    ///
    /// # Errors
    /// [`FunctionError`]
    pub fn open(device: &Device<'_>, badge: u64) -> Result<Self, FunctionError> {
        let mut function = Function::open(device, badge)?;
        let dma = function.memory(device)?;
        let features = function.negotiate(RO | FLUSH)?;
        let ring = function.queue(&dma, 0, QUEUE, PARTS)?;
        let units = dma.memory.size().saturating_sub(DATA) / UNIT;
        if units == 0 {
            return Err(FunctionError::NoMemory);
        }
        let slots = ring.slots();
        function.start();
        let sectors = function.config(0, 4) | function.config(4, 4) << 32;
        Ok(Self {
            function,
            ring,
            dma,
            sectors,
            read_only: features & RO != 0,
            cached: features & FLUSH != 0,
            ops: alloc::vec![None; slots],
            pool: Pool::new(u32::try_from(units).unwrap_or(u32::MAX)),
            untold: false,
            idle: VecDeque::new(),
        })
    }

    /// Starts to move sectors, as many as there is room for; `prepare` gets the room before.
    fn transfer(
        &mut self,
        tag: Tag,
        kind: u32,
        (sector, count): (u64, u64),
        prepare: &mut dyn FnMut(Sink<'_>) -> bool,
    ) -> Begun {
        let count = count.min(PIECE);
        let units = u32::try_from(count.div_ceil(UNIT_SECTORS)).unwrap_or(u32::MAX);
        let Some(slot) = self.ring.free() else { return Begun::Busy };
        let Some(room) = self.pool.take(units) else { return Begun::Busy };
        let count = count.min(UNIT_SECTORS * u64::from(room.len));
        // Not more than a piece.
        let len = u32::try_from(count * SECTOR).unwrap_or(0);
        // Where it is not filled, the room still holds what somebody else read or wrote.
        if !prepare(Sink::Memory(&self.dma.memory, Segment { gpa: place(room), len })) {
            self.pool.give(room);
            return Begun::NoData;
        }
        if self.submit(slot, tag, kind, sector, Some((room, len))).is_err() {
            self.pool.give(room);
            return Begun::Busy;
        }
        Begun::Yes(count)
    }

    /// Gives the disk a request whose data is or will be in the room.
    fn submit(
        &mut self,
        slot: u16,
        tag: Tag,
        kind: u32,
        sector: u64,
        data: Option<(Run, u32)>,
    ) -> Result<(), NotRam> {
        let header = HEADERS + HEADER * u64::from(slot);
        let status = header + 16;
        let (room, len) = data.unzip();
        let memory = &self.dma.memory;
        memory.write_word(header, 8, kind.into())?;
        memory.write_word(header + 8, 8, sector)?;
        memory.write_word(status, 1, 0xff)?;
        let header = Segment { gpa: header, len: 16 };
        let status = Segment { gpa: status, len: 1 };
        let data = Segment { gpa: room.map_or(DATA, place), len: len.unwrap_or(0) };
        match kind {
            IN => self.ring.add(slot, &[header], &[data, status])?,
            OUT => self.ring.add(slot, &[header, data], &[status])?,
            _ => self.ring.add(slot, &[header], &[status])?,
        }
        if let Some(place) = self.ops.get_mut(usize::from(slot)) {
            *place = Some(Op { tag, room, reads: if kind == IN { data.len } else { 0 } });
        }
        self.untold = true;
        Ok(())
    }

    /// Tells the disk of requests: of all at a time, as that takes longer than adding one.
    fn tell(&mut self) {
        if core::mem::take(&mut self.untold) && self.ring.should_notify() {
            self.function.notify(0);
        }
    }

    /// The next operation that ended: what it was, and whether it succeeded. Its room is to be given
    /// back.
    fn reap(&mut self) -> Option<(Op, bool)> {
        let Used { slot, .. } = self.ring.reap()?;
        let op = self.ops.get_mut(usize::from(slot)).and_then(Option::take)?;
        let status = HEADERS + HEADER * u64::from(slot) + 16;
        let ok = self.dma.memory.read_word(status, 1) == Ok(0);
        Some((op, ok))
    }

    /// The data of an operation that ended was used.
    fn release(&mut self, op: Op) {
        if let Some(room) = op.room {
            self.pool.give(room);
        }
    }
}

impl Remote for HostDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, tag: Tag, sector: u64, count: u64) -> Begun {
        self.transfer(tag, IN, (sector, count), &mut |_| true)
    }

    fn write(
        &mut self,
        tag: Tag,
        sector: u64,
        count: u64,
        fill: &mut dyn FnMut(Sink<'_>) -> bool,
    ) -> Begun {
        self.transfer(tag, OUT, (sector, count), fill)
    }

    fn flush(&mut self, tag: Tag) -> bool {
        if !self.cached {
            self.idle.push_back(tag);
            return true;
        }
        let Some(slot) = self.ring.free() else { return false };
        self.submit(slot, tag, SYNC, 0, None).is_ok()
    }

    fn finish(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> bool {
        self.tell();
        self.function.acknowledge();
        self.ring.ignore();
        if let Some(tag) = self.idle.pop_front() {
            done(Completion { tag, ok: true, data: Source::Bytes(&[]) });
            return true;
        }
        let Some((op, ok)) = self.reap() else { return false };
        done(Completion { tag: op.tag, ok, data: Source::Memory(&self.dma.memory, op.data()) });
        self.release(op);
        true
    }

    fn rest(&mut self) -> bool {
        self.tell();
        self.ring.listen() || !self.idle.is_empty()
    }

    fn read_now(&mut self, sector: u64, to: &mut [u8]) -> bool {
        let tag = Tag { drive: usize::MAX, generation: 0, job: 0, offset: 0 };
        let count = u64_of(to.len()) / SECTOR;
        if count == 0 || self.read(tag, sector, count) != Begun::Yes(count) {
            return false;
        }
        self.tell();
        let deadline = time::deadline_in_ms(PATIENCE_MS);
        loop {
            if let Some((op, ok)) = self.reap() {
                let good = ok && self.dma.memory.read(op.data().gpa, to).is_ok();
                self.release(op);
                return good;
            }
            if time::now() > deadline {
                return false;
            }
            time::sleep_ms(1);
        }
    }
}
