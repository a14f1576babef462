//! A virtio disk of the machine, driven over PCI with MSI-X.
//!
//! Its data passes through memory of the function's own: the device never sees a guest's memory.
//! The crate `virtio-drivers` would wait for each flush with all guests waiting, and has no MSI-X.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ipc::proto::start::Device;
use sysroot::num::{u64_of, usize_of};
use sysroot::time;
use virtio::chain::Segment;
use virtio::host::pci::{Function, FunctionError};
use virtio::host::ring::{Dma, Ring, Used};
use virtio::ram::NotRam;

use crate::SECTOR;
use crate::medium::{Completion, PIECE, Remote, Sink, Source, Tag};

/// Features (virtio 1.2, 5.2.3).
const RO: u64 = 1 << 5;
const FLUSH: u64 = 1 << 9;

/// Request types (virtio 1.2, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const SYNC: u32 = 4;

/// Descriptors of the queue, and of a request: header, data, status.
const QUEUE: u16 = 64;
const PARTS: u16 = 3;
/// Where things are in the memory: headers with their status, then data. The queue is before.
const HEADERS: u64 = 4096;
const HEADER: u64 = 32;
const DATA: u64 = 8192;
/// Bytes of data of a request.
const ROOM: u64 = PIECE * SECTOR;
/// How long the disk may take while nothing else goes on.
const PATIENCE_MS: u64 = 10_000;

const _: () = assert!(Ring::bytes(QUEUE) <= HEADERS);
const _: () = assert!(HEADERS + HEADER * (QUEUE as u64) <= DATA);

/// What a slot is used for.
#[derive(Clone, Copy, Debug)]
struct Op {
    tag: Tag,
    /// Bytes to deliver.
    reads: u32,
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
        let room = dma.memory.size().saturating_sub(DATA) / ROOM;
        let slots = ring.slots().min(usize_of(room));
        if slots == 0 {
            return Err(FunctionError::NoMemory);
        }
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
            idle: VecDeque::new(),
        })
    }

    /// A slot that is free.
    fn slot(&self) -> Option<u16> {
        self.ring.free().filter(|slot| usize::from(*slot) < self.ops.len())
    }

    /// Gives the disk a request whose data, `len` bytes, is or will be in the slot's place.
    fn submit(
        &mut self,
        slot: u16,
        tag: Tag,
        kind: u32,
        sector: u64,
        len: u64,
    ) -> Result<(), NotRam> {
        let header = HEADERS + HEADER * u64::from(slot);
        let status = header + 16;
        let data = data(slot);
        let memory = &self.dma.memory;
        memory.write_word(header, 8, kind.into())?;
        memory.write_word(header + 8, 8, sector)?;
        memory.write_word(status, 1, 0xff)?;
        let len32 = u32::try_from(len).map_err(|_| NotRam { gpa: data, len })?;
        let header = Segment { gpa: header, len: 16 };
        let status = Segment { gpa: status, len: 1 };
        let data = Segment { gpa: data, len: len32 };
        match kind {
            IN => self.ring.add(slot, &[header], &[data, status])?,
            OUT => self.ring.add(slot, &[header, data], &[status])?,
            _ => self.ring.add(slot, &[header], &[status])?,
        }
        if let Some(place) = self.ops.get_mut(usize::from(slot)) {
            *place = Some(Op { tag, reads: if kind == IN { len32 } else { 0 } });
        }
        if self.ring.should_notify() {
            self.function.notify(0);
        }
        Ok(())
    }

    /// The next operation that ended: what it was, whether it succeeded, and where its data is until
    /// the slot is used again.
    fn reap(&mut self) -> Option<(Op, bool, Segment)> {
        let Used { slot, .. } = self.ring.reap()?;
        let op = self.ops.get_mut(usize::from(slot)).and_then(Option::take)?;
        let status = HEADERS + HEADER * u64::from(slot) + 16;
        let ok = self.dma.memory.read_word(status, 1) == Ok(0);
        let data = Segment { gpa: data(slot), len: op.reads };
        Some((op, ok, data))
    }
}

/// Offset of a slot's data.
fn data(slot: u16) -> u64 {
    DATA + ROOM * u64::from(slot)
}

impl Remote for HostDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, tag: Tag, sector: u64, count: u64) -> bool {
        let Some(slot) = self.slot() else { return false };
        self.submit(slot, tag, IN, sector, count.min(PIECE) * SECTOR).is_ok()
    }

    fn write(&mut self, tag: Tag, sector: u64, count: u64, fill: &mut dyn FnMut(Sink<'_>)) -> bool {
        let Some(slot) = self.slot() else { return false };
        let len = count.min(PIECE) * SECTOR;
        let Ok(room) = u32::try_from(len) else { return false };
        fill(Sink::Memory(&self.dma.memory, Segment { gpa: data(slot), len: room }));
        self.submit(slot, tag, OUT, sector, len).is_ok()
    }

    fn flush(&mut self, tag: Tag) -> bool {
        if !self.cached {
            self.idle.push_back(tag);
            return true;
        }
        let Some(slot) = self.slot() else { return false };
        self.submit(slot, tag, SYNC, 0, 0).is_ok()
    }

    fn finish(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> bool {
        self.function.acknowledge();
        self.ring.ignore();
        if let Some(tag) = self.idle.pop_front() {
            done(Completion { tag, ok: true, data: Source::Bytes(&[]) });
            return true;
        }
        let Some((op, ok, data)) = self.reap() else { return false };
        let data = Source::Memory(&self.dma.memory, data);
        done(Completion { tag: op.tag, ok, data });
        true
    }

    fn rest(&mut self) -> bool {
        self.ring.listen() || !self.idle.is_empty()
    }

    fn read_now(&mut self, sector: u64, to: &mut [u8]) -> bool {
        let tag = Tag { drive: usize::MAX, generation: 0, job: 0, offset: 0 };
        if !self.read(tag, sector, u64_of(to.len()) / SECTOR) {
            return false;
        }
        let deadline = time::deadline_in_ms(PATIENCE_MS);
        loop {
            if let Some((_, ok, data)) = self.reap() {
                let whole = u64::from(data.len) == u64_of(to.len());
                return ok && whole && self.dma.memory.read(data.gpa, to).is_ok();
            }
            if time::now() > deadline {
                return false;
            }
            time::sleep_ms(1);
        }
    }
}
