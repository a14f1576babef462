//! A virtqueue in the arena, with nothing that would keep it in order.

use crate::device::{Setup, eventually};
use crate::memory::{ARENA, fill, read, write};

/// Descriptor flag: the chain goes on at `next`.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: refers to a table.
pub const INDIRECT: u16 = 4;

/// Most descriptors of the queues that are set up here.
pub const SIZE: u16 = 16;

/// Where the parts of the queue lie.
const DESCRIPTORS: u64 = ARENA;
const AVAILABLE: u64 = ARENA + 0x1000;
const USED: u64 = ARENA + 0x2000;
/// A table for indirect descriptors.
pub const TABLE: u64 = ARENA + 0x3000;
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
    /// Next index of the available ring.
    next: u16,
    size: u16,
}

impl Ring {
    /// An empty one.
    pub fn new(size: u16) -> Self {
        fill(DESCRIPTORS, TABLE + 0x1000 - DESCRIPTORS, 0);
        Self { next: 0, size }
    }

    /// As the device is told.
    pub fn setup(self) -> Setup {
        Setup { size: self.size.into(), descriptors: DESCRIPTORS, available: AVAILABLE, used: USED }
    }

    /// Writes a descriptor.
    pub fn describe(self, index: u16, descriptor: Descriptor) {
        descriptor.put(DESCRIPTORS, index);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, head: u16) {
        write(AVAILABLE + 4 + 2 * u64::from(self.next % self.size), head);
        self.jump(1);
    }

    /// Moves the available index, whatever is there.
    pub fn jump(&mut self, by: u16) {
        self.next = self.next.wrapping_add(by);
        // Stores of this processor are seen in order.
        write(AVAILABLE + 2, self.next);
    }

    /// The used index.
    pub fn used() -> u16 {
        read(USED + 2)
    }

    /// Waits until everything that was made available is used.
    #[must_use]
    pub fn done(self) -> bool {
        eventually(|| Self::used() == self.next)
    }
}
