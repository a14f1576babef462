//! The driver's side of a virtqueue, as far as tests need it. It can be told to break any rule,
//! because all it does is write words into guest memory.

use alloc::vec::Vec;

use ipc::proto::virtio;
pub use virtio_numbers::flag::{INDIRECT, NEXT, WRITE};

use crate::chain::Segment;
use crate::ram::Ram;

/// A driver of one queue.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The guest's memory.
    pub ram: Ram,
    /// Where the queue is.
    pub queue: virtio::Queue,
    /// Next index of the available ring.
    pub available: u16,
    /// Next index of the used ring to look at.
    pub used: u16,
    free: u16,
}

impl Driver {
    /// A driver of a queue of `size` descriptors in the 64 KiB at `base`.
    #[must_use]
    pub fn new(ram: &Ram, base: u64, size: u16) -> Self {
        let n = u64::from(size);
        let available = base + 16 * n;
        let used = (available + 6 + 2 * n).next_multiple_of(4);
        let queue = virtio::Queue { size, descriptors: base, available, used };
        Self { ram: ram.clone(), queue, available: 0, used: 0, free: 0 }
    }

    fn put(&self, gpa: u64, size: u64, value: u64) {
        assert!(self.ram.write_word(gpa, size, value).is_ok(), "the driver's own memory");
    }

    fn get(&self, gpa: u64, size: u64) -> u64 {
        self.ram.read_word(gpa, size).unwrap_or_default()
    }

    /// Writes entry `n` of the table at `table`.
    pub fn descriptor(&self, table: u64, n: u16, segment: Segment, flags: u16, next: u16) {
        let at = table + 16 * u64::from(n);
        self.put(at, 8, segment.gpa);
        self.put(
            at + 8,
            8,
            u64::from(segment.len) | u64::from(flags) << 32 | u64::from(next) << 48,
        );
    }

    /// Writes entry `n` of the queue's own table.
    pub fn own(&self, n: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        self.descriptor(self.queue.descriptors, n, Segment { gpa, len }, flags, next);
    }

    /// Writes a chain into a table from entry `first` on, modulo `modulus`.
    fn chain(&self, table: u64, first: u16, modulus: u16, parts: &[(Segment, u16)]) {
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        for (i, (segment, flags)) in (0..count).zip(parts) {
            let more = if i + 1 < count { NEXT } else { 0 };
            let (at, next) = ((first + i) % modulus, (first + i + 1) % modulus);
            self.descriptor(table, at, *segment, flags | more, if more == 0 { 0 } else { next });
        }
    }

    fn parts(readable: &[Segment], writable: &[Segment]) -> Vec<(Segment, u16)> {
        let writable = writable.iter().map(|s| (*s, WRITE));
        readable.iter().map(|s| (*s, 0)).chain(writable).collect()
    }

    /// Makes a chain available; returns its head. Descriptors are taken in turn.
    pub fn offer(&mut self, readable: &[Segment], writable: &[Segment]) -> u16 {
        let parts = Self::parts(readable, writable);
        let head = self.free;
        self.chain(self.queue.descriptors, head, self.queue.size, &parts);
        self.free = (head + u16::try_from(parts.len()).unwrap_or(0)) % self.queue.size;
        self.publish(head);
        head
    }

    /// The same with an indirect table at `table`.
    pub fn offer_indirect(
        &mut self,
        table: u64,
        readable: &[Segment],
        writable: &[Segment],
    ) -> u16 {
        let parts = Self::parts(readable, writable);
        self.chain(table, 0, u16::MAX, &parts);
        let head = self.free;
        let len = 16 * u32::try_from(parts.len()).unwrap_or(0);
        self.own(head, table, len, INDIRECT, 0);
        self.free = (head + 1) % self.queue.size;
        self.publish(head);
        head
    }

    /// Puts a head into the available ring.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.available % self.queue.size);
        self.put(self.queue.available + 4 + 2 * slot, 2, head.into());
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// Writes the available index.
    pub fn set_available(&self, index: u16) {
        self.put(self.queue.available + 2, 2, index.into());
    }

    /// Writes the available ring's flags.
    pub fn set_flags(&self, flags: u16) {
        self.put(self.queue.available, 2, flags.into());
    }

    /// Writes the index of the used ring at which an interrupt is wanted.
    pub fn set_used_event(&self, index: u16) {
        self.put(self.queue.available + 4 + 2 * u64::from(self.queue.size), 2, index.into());
    }

    /// The used ring's flags.
    #[must_use]
    pub fn used_flags(&self) -> u64 {
        self.get(self.queue.used, 2)
    }

    /// The index of the used ring.
    #[must_use]
    pub fn used_index(&self) -> u64 {
        self.get(self.queue.used + 2, 2)
    }

    /// The index of the available ring at which the device wants a notification.
    #[must_use]
    pub fn available_event(&self) -> u64 {
        self.get(self.queue.used + 4 + 8 * u64::from(self.queue.size), 2)
    }

    /// The next used element: head and bytes written.
    pub fn reap(&mut self) -> Option<(u64, u64)> {
        if self.used_index() == u64::from(self.used) {
            return None;
        }
        let at = self.queue.used + 4 + 8 * u64::from(self.used % self.queue.size);
        self.used = self.used.wrapping_add(1);
        Some((self.get(at, 4), self.get(at + 4, 4)))
    }
}
