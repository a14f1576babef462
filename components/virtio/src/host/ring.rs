//! Driver side of a split virtqueue (virtio 1.2, 2.7): no indirect descriptors, no event index.
//!
//! Descriptors are divided evenly among slots, a request each; so there is nothing to allocate, and
//! what a device says it used is checked by one comparison.

use alloc::boxed::Box;
use core::sync::atomic::{Ordering, fence};

use ipc::proto::virtio::Queue;
use virtio_numbers::flag;

use crate::chain::Segment;
use crate::num::low32;
use crate::ram::{NotRam, Ram};

/// Flag of the used ring: the device wants no notifications.
const NO_NOTIFY: u16 = 1;
/// Flag of the available ring: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;

/// Memory that a device reaches.
#[derive(Clone, Debug)]
pub struct Dma {
    /// The memory; addresses in it are offsets.
    pub memory: Ram,
    /// Where it starts for the device.
    pub physical: u64,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its slot.
    pub slot: u16,
    /// Bytes that the device wrote, as it says.
    pub written: u32,
}

/// A virtqueue.
#[derive(Debug)]
pub struct Ring {
    dma: Dma,
    /// Offsets in the memory.
    place: Queue,
    /// Descriptors of a slot.
    parts: u16,
    /// Which slots the device has.
    busy: Box<[bool]>,
    available: u16,
    used: u16,
    /// The device interrupts when it has used something.
    interrupts: bool,
}

impl Ring {
    /// Bytes that a ring of `size` descriptors takes.
    #[must_use]
    pub const fn bytes(size: u16) -> u64 {
        // Descriptors, available ring, used ring; room for alignment.
        16 * size as u64 + (6 + 2 * size as u64) + (6 + 8 * size as u64) + 8
    }

    /// A ring at offset `at`, aligned to 16, of zeroed memory. `size` is a power of two.
    ///
    /// # Errors
    /// It does not fit there.
    pub fn new(dma: Dma, at: u64, size: u16, parts: u16) -> Result<Self, NotRam> {
        let bytes = Self::bytes(size);
        if !dma.memory.contains(at, bytes) || !at.is_multiple_of(16) {
            return Err(NotRam { gpa: at, len: bytes });
        }
        let available = at + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let place = Queue { size, descriptors: at, available, used };
        let busy = alloc::vec![false; usize::from(size / parts.max(1))].into();
        Ok(Self { dma, place, parts, busy, available: 0, used: 0, interrupts: true })
    }

    /// Where it is, for the device.
    #[must_use]
    pub const fn place(&self) -> Queue {
        let Queue { size, descriptors, available, used } = self.place;
        let physical = self.dma.physical;
        Queue {
            size,
            descriptors: physical + descriptors,
            available: physical + available,
            used: physical + used,
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.busy.len()
    }

    /// A slot that the device does not have.
    #[must_use]
    pub fn free(&self) -> Option<u16> {
        self.busy.iter().position(|busy| !busy).and_then(|n| u16::try_from(n).ok())
    }

    /// Gives the device a request: offsets of what it reads and what it writes, as many as a slot
    /// has descriptors at most. It is told by [`Self::should_notify`].
    ///
    /// # Errors
    /// The slot is none or the device has it, there are too many buffers or none, or one does not
    /// lie in the memory.
    pub fn add(
        &mut self,
        slot: u16,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<(), NotRam> {
        let count = readable.len() + writable.len();
        let busy = self.busy.get(usize::from(slot)).copied().unwrap_or(true);
        if busy || count == 0 || count > usize::from(self.parts) {
            return Err(NotRam { gpa: slot.into(), len: 0 });
        }
        let first = slot * self.parts;
        let flags =
            readable.iter().map(|_| 0).chain(writable.iter().map(|_| u64::from(flag::WRITE)));
        for ((n, segment), flags) in (first..).zip(readable.iter().chain(writable)).zip(flags) {
            let Segment { gpa, len } = *segment;
            if !self.dma.memory.contains(gpa, len.into()) {
                return Err(NotRam { gpa, len: len.into() });
            }
            let more = usize::from(n - first) + 1 < count;
            let tail =
                if more { flags | u64::from(flag::NEXT) | u64::from(n + 1) << 16 } else { flags };
            let at = self.place.descriptors + 16 * u64::from(n);
            self.dma.memory.write_word(at, 8, self.dma.physical + gpa)?;
            self.dma.memory.write_word(at + 8, 8, u64::from(len) | tail << 32)?;
        }
        let entry = self.place.available + 4 + 2 * u64::from(self.available % self.place.size);
        self.dma.memory.store_u16(entry, first)?;
        self.available = self.available.wrapping_add(1);
        // Release: the device that sees the index sees the request.
        self.dma.memory.store_u16(self.place.available + 2, self.available)?;
        if let Some(busy) = self.busy.get_mut(usize::from(slot)) {
            *busy = true;
        }
        Ok(())
    }

    /// Whether the device wants to be notified of what was added.
    #[must_use]
    pub fn should_notify(&self) -> bool {
        // The device writes its wish and then reads the index; here it is the reverse.
        fence(Ordering::SeqCst);
        self.dma.memory.load_u16(self.place.used).is_ok_and(|flags| flags & NO_NOTIFY == 0)
    }

    /// The driver looks for itself: an interrupt for each request that ends would only disturb.
    pub fn ignore(&mut self) {
        if self.interrupts {
            self.set_flags(NO_INTERRUPT);
        }
    }

    /// Has the device interrupt from now on. Returns whether something has ended already, of which
    /// no interrupt tells.
    #[must_use]
    pub fn listen(&mut self) -> bool {
        if !self.interrupts {
            self.set_flags(0);
            // The device writes its index and then reads the flags; here it is the reverse.
            fence(Ordering::SeqCst);
        }
        self.dma.memory.load_u16(self.place.used + 2) != Ok(self.used)
    }

    fn set_flags(&mut self, flags: u16) {
        // The ring was checked to lie in the memory.
        let _ = self.dma.memory.store_u16(self.place.available, flags);
        self.interrupts = flags & NO_INTERRUPT == 0;
    }

    /// The next request that has ended. What the device says it used and does not have is
    /// skipped.
    pub fn reap(&mut self) -> Option<Used> {
        loop {
            let index = self.dma.memory.load_u16(self.place.used + 2).ok()?;
            if index == self.used {
                return None;
            }
            let at = self.place.used + 4 + 8 * u64::from(self.used % self.place.size);
            let id = low32(self.dma.memory.read_word(at, 4).ok()?);
            let written = low32(self.dma.memory.read_word(at + 4, 4).ok()?);
            self.used = self.used.wrapping_add(1);
            let Ok(id) = u16::try_from(id) else { continue };
            let slot = id / self.parts.max(1);
            if let Some(busy) = self.busy.get_mut(usize::from(slot))
                && *busy
                && slot * self.parts == id
            {
                *busy = false;
                return Some(Used { slot, written });
            }
        }
    }
}

#[cfg(test)]
mod tests;
