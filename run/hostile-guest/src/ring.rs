//! A virtqueue in the arena, with nothing that would keep it in order.

use virtio_numbers::flag::NEXT;

use crate::device::{Setup, eventually};
use crate::memory::{ARENA, fill, read, write};

/// Most descriptors of the queues that are set up here.
pub const SIZE: u16 = 16;

/// Where the parts of a queue lie, from its start.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const END: u64 = 0x3000;
/// The queue of requests.
const REQUESTS: u64 = ARENA;
/// A table for indirect descriptors.
pub const TABLE: u64 = ARENA + 0x3000;
/// The queue of what comes in.
pub const RECEIVE: u64 = ARENA + 0x4000;
/// Buffers.
pub const BUFFERS: u64 = ARENA + 0x1_0000;
/// Room for buffers.
pub const ROOM: u64 = 0x10_0000;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub gpa: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// Bytes of one.
    pub const BYTES: u32 = 16;

    /// The last one of a chain.
    pub const fn last(gpa: u64, len: u32, flags: u16) -> Self {
        Self { gpa, len, flags, next: 0 }
    }

    /// One that goes on.
    pub const fn then(gpa: u64, len: u32, flags: u16, next: u16) -> Self {
        Self { gpa, len, flags: flags | NEXT, next }
    }

    /// Writes it to its place in a table.
    pub fn put(self, table: u64, index: u16) {
        let at = table + u64::from(index) * u64::from(Self::BYTES);
        write(at, self.gpa);
        write(at + 8, self.len);
        write(at + 12, self.flags);
        write(at + 14, self.next);
    }
}

/// The queue.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    base: u64,
    /// Next index of the available ring.
    next: u16,
    size: u16,
}

impl Ring {
    /// An empty one for requests; the table is empty, too.
    pub fn new(size: u16) -> Self {
        fill(TABLE, 0x1000, 0);
        Self::at(REQUESTS, size)
    }

    /// An empty one somewhere.
    pub fn at(base: u64, size: u16) -> Self {
        fill(base, END, 0);
        Self { base, next: 0, size }
    }

    /// As the device is told.
    pub fn setup(self) -> Setup {
        let Self { base, size, .. } = self;
        let (available, used) = (base + AVAILABLE, base + USED);
        Setup { size: size.into(), descriptors: base, available, used }
    }

    /// Writes a descriptor.
    pub fn describe(self, index: u16, descriptor: Descriptor) {
        descriptor.put(self.base, index);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, head: u16) {
        write(self.base + AVAILABLE + 4 + 2 * u64::from(self.next % self.size), head);
        self.jump(1);
    }

    /// Moves the available index, whatever is there.
    pub fn jump(&mut self, by: u16) {
        self.next = self.next.wrapping_add(by);
        // Stores of this processor are seen in order.
        write(self.base + AVAILABLE + 2, self.next);
    }

    /// The used index.
    pub fn used(self) -> u16 {
        read(self.base + USED + 2)
    }

    /// Whether everything that was made available is used.
    pub fn is_done(self) -> bool {
        self.used() == self.next
    }

    /// Waits until that is so.
    #[must_use]
    pub fn done(self) -> bool {
        eventually(|| self.is_done())
    }
}
