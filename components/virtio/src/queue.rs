//! Device side of the split virtqueue (virtio 2.7).
//!
//! Whatever a driver writes is hostile: each word is read once, and what breaks a rule is an error
//! that names it. Completion may come in any order; what is published in the used ring keeps the
//! order of availability, so that the used index alone tells where a device goes on whose back end
//! died.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use ipc::proto::virtio;
pub use virtio_numbers::feature::{EVENT_IDX, INDIRECT_DESC, VERSION_1};
use virtio_numbers::flag::{INDIRECT, NEXT, WRITE};

use crate::chain::{Chain, Segment};
use crate::num::{low16, low32};
use crate::ram::{NotRam, Ram};

/// What every device here offers.
pub const RING_FEATURES: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Flag of the available ring: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: the device wants no notifications.
const NO_NOTIFY: u16 = 1;

/// A part of a virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Descriptor table.
    Descriptors,
    /// Available ring.
    Available,
    /// Used ring.
    Used,
}

/// A rule that the driver broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The size is not a power of 2 (2.7).
    SizeNotPowerOfTwo(u16),
    /// The size is larger than what the device offers (4.2.2.2).
    SizeTooLarge(u16),
    /// A part is not aligned as it must be (2.7).
    Misaligned(Part),
    /// A part does not lie in RAM.
    NotRam(Part),
    /// More chains are available than the queue has descriptors (2.7.6).
    AvailableJump {
        /// The driver's index.
        index: u16,
        /// The index up to which chains were used.
        used: u16,
    },
    /// A head is no descriptor of the queue (2.7.6).
    Head(u16),
    /// A `next` is no descriptor of its table (2.7.5).
    Next(u16),
    /// The chain is longer than the queue, or loops (2.7.5.3.1).
    ChainTooLong,
    /// The chain has more than 2^32 bytes (2.7.5.2).
    ChainTooLarge,
    /// A descriptor that the device reads follows one that it writes (2.7.4.2).
    ReadAfterWrite,
    /// A buffer is empty.
    Empty,
    /// A buffer does not lie in RAM.
    Buffer(NotRam),
    /// An indirect descriptor without the feature (2.7.5.3.1).
    IndirectNotNegotiated,
    /// An indirect descriptor in an indirect table (2.7.5.3.1).
    IndirectNested,
    /// An indirect descriptor that goes on at `next` (2.7.5.3.1).
    IndirectNext,
    /// An indirect table that is empty, no multiple of a descriptor, or longer than the queue
    /// (2.7.5.3.1).
    IndirectLength(u32),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeNotPowerOfTwo(n) => write!(f, "queue size {n} is not a power of 2"),
            Self::SizeTooLarge(n) => write!(f, "queue size {n} is larger than offered"),
            Self::Misaligned(part) => write!(f, "{part:?} ring or table not aligned"),
            Self::NotRam(part) => write!(f, "{part:?} ring or table not in RAM"),
            Self::AvailableJump { index, used } => {
                write!(f, "available index jumped to {index}, used index is {used}")
            }
            Self::Head(n) => write!(f, "head {n} is no descriptor of the queue"),
            Self::Next(n) => write!(f, "next {n} is no descriptor of its table"),
            Self::ChainTooLong => write!(f, "descriptor chain longer than the queue"),
            Self::ChainTooLarge => write!(f, "descriptor chain of more than 2^32 bytes"),
            Self::ReadAfterWrite => write!(f, "readable descriptor behind a writable one"),
            Self::Empty => write!(f, "buffer of no bytes"),
            Self::Buffer(e) => write!(f, "buffer: {e}"),
            Self::IndirectNotNegotiated => write!(f, "indirect descriptor without the feature"),
            Self::IndirectNested => write!(f, "indirect descriptor in an indirect table"),
            Self::IndirectNext => write!(f, "indirect descriptor with a next one"),
            Self::IndirectLength(n) => write!(f, "indirect table of {n} bytes"),
        }
    }
}

impl core::error::Error for QueueError {}

/// A descriptor as it was read, once.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    gpa: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(ram: &Ram, at: u64) -> Result<Self, NotRam> {
        let gpa = ram.read_word(at, 8)?;
        let rest = ram.read_word(at.saturating_add(8), 8)?;
        Ok(Self { gpa, len: low32(rest), flags: low16(rest >> 32), next: low16(rest >> 48) })
    }

    const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// A chain between its completion and its publication.
#[derive(Clone, Copy, Debug)]
struct Done {
    head: u16,
    written: u32,
}

/// Makes chains of different queues distinguishable. Relaxed: it only has to be unique.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// A virtqueue in use.
#[derive(Debug)]
pub struct Queue {
    ram: Ram,
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    event_idx: bool,
    indirect: bool,
    generation: u64,
    /// Next index of the available ring to take.
    next_available: u16,
    /// Next index of the used ring to publish.
    next_used: u16,
    /// Value of `next_used` when the driver was last considered for an interrupt.
    signalled: u16,
    /// TSC ticks that the driver has to find used buffers by itself.
    patience: u64,
    /// When the interrupt is due that the driver has not made needless yet.
    due: Option<u64>,
    /// Value of `next_available` when the driver was last asked for notifications; `None` while it
    /// need not notify.
    listening: Option<u16>,
    /// Completed chains that wait for older ones, by ticket modulo size.
    done: Box<[Option<Done>]>,
    /// Lists of segments to use again.
    spare: Vec<Vec<Segment>>,
}

impl Queue {
    /// The queue that a driver set up, or `None` where it does not use it. It goes on where its
    /// used ring stands: at 0 where it is new, elsewhere after a restart of the back end.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn new(
        ram: Ram,
        setup: &virtio::Queue,
        features: u64,
        max_size: u16,
    ) -> Result<Option<Self>, QueueError> {
        let virtio::Queue { size, descriptors, available, used } = *setup;
        if size == 0 {
            return Ok(None);
        }
        if !size.is_power_of_two() {
            return Err(QueueError::SizeNotPowerOfTwo(size));
        }
        if size > max_size {
            return Err(QueueError::SizeTooLarge(size));
        }
        let n = u64::from(size);
        for (part, gpa, align, len) in [
            (Part::Descriptors, descriptors, 16, DESCRIPTOR * n),
            (Part::Available, available, 2, 6 + 2 * n),
            (Part::Used, used, 4, 6 + 8 * n),
        ] {
            if !gpa.is_multiple_of(align) {
                return Err(QueueError::Misaligned(part));
            }
            if !ram.contains(gpa, len) {
                return Err(QueueError::NotRam(part));
            }
        }
        let at = ram.load_u16(used + 2).map_err(|_| QueueError::NotRam(Part::Used))?;
        Ok(Some(Self {
            ram,
            size,
            descriptors,
            available,
            used,
            event_idx: features & EVENT_IDX != 0,
            indirect: features & INDIRECT_DESC != 0,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            next_available: at,
            next_used: at,
            signalled: at,
            patience: 0,
            due: None,
            listening: None,
            done: alloc::vec![None; usize::from(size)].into(),
            spare: Vec::new(),
        }))
    }

    /// The memory that its chains lie in.
    #[must_use]
    pub const fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Number of descriptors.
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Index in the used ring of the chain that is published next.
    #[must_use]
    pub const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Chains that were taken and are not published yet.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.next_available.wrapping_sub(self.next_used)
    }

    /// How many chains wait to be taken.
    ///
    /// # Errors
    /// The driver's index jumped.
    pub fn waiting(&self) -> Result<u16, QueueError> {
        let index = self.load(self.available + 2, Part::Available)?;
        // Chains in flight and waiting together have different heads.
        if index.wrapping_sub(self.next_used) > self.size
            || index.wrapping_sub(self.next_used) < self.in_flight()
        {
            return Err(QueueError::AvailableJump { index, used: self.next_used });
        }
        Ok(index.wrapping_sub(self.next_available))
    }

    /// Takes the next chain. Where there is none, the driver was asked to notify the device of the
    /// next one; while chains are taken it need not.
    ///
    /// # Errors
    /// The rule that is broken; the queue is of no use any more.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if self.waiting()? == 0 && !self.listen()? {
            return Ok(None);
        }
        self.ignore()?;
        let slot = self.available + 4 + 2 * u64::from(self.next_available & (self.size - 1));
        let head = self.load(slot, Part::Available)?;
        if head >= self.size {
            return Err(QueueError::Head(head));
        }
        let mut segments = self.spare.pop().unwrap_or_default();
        segments.clear();
        let readable = self.walk(head, &mut segments)?;
        let ticket = self.next_available;
        self.next_available = ticket.wrapping_add(1);
        Ok(Some(Chain { head, ticket, generation: self.generation, segments, readable }))
    }

    /// Collects the segments of a chain; returns how many the device reads.
    fn walk(&self, head: u16, segments: &mut Vec<Segment>) -> Result<usize, QueueError> {
        let (mut table, mut entries) = (self.descriptors, self.size);
        let mut nested = false;
        let mut next = head;
        let mut readable = 0;
        let mut total = 0u64;
        // Every descriptor but the one that refers to the table adds a segment.
        while segments.len() < usize::from(self.size) {
            let at = table.saturating_add(DESCRIPTOR * u64::from(next));
            let descriptor = Descriptor::read(&self.ram, at)
                .map_err(|_| QueueError::NotRam(Part::Descriptors))?;
            if descriptor.has(INDIRECT) {
                if nested {
                    return Err(QueueError::IndirectNested);
                }
                (table, entries) = self.table(descriptor)?;
                (nested, next) = (true, 0);
                continue;
            }
            let Descriptor { gpa, len, .. } = descriptor;
            if len == 0 {
                return Err(QueueError::Empty);
            }
            if !self.ram.contains(gpa, len.into()) {
                return Err(QueueError::Buffer(NotRam { gpa, len: len.into() }));
            }
            total += u64::from(len);
            if total > 1 << 32 {
                return Err(QueueError::ChainTooLarge);
            }
            if !descriptor.has(WRITE) {
                if readable < segments.len() {
                    return Err(QueueError::ReadAfterWrite);
                }
                readable += 1;
            }
            segments.push(Segment { gpa, len });
            if !descriptor.has(NEXT) {
                return Ok(readable);
            }
            next = descriptor.next;
            if next >= entries {
                return Err(QueueError::Next(next));
            }
        }
        Err(QueueError::ChainTooLong)
    }

    /// The indirect table that a descriptor refers to, and its length. Its write flag means
    /// nothing (2.7.5.3.2).
    fn table(&self, descriptor: Descriptor) -> Result<(u64, u16), QueueError> {
        let Descriptor { gpa, len, .. } = descriptor;
        if !self.indirect {
            return Err(QueueError::IndirectNotNegotiated);
        }
        if descriptor.has(NEXT) {
            return Err(QueueError::IndirectNext);
        }
        let entries = u16::try_from(u64::from(len) / DESCRIPTOR).unwrap_or(u16::MAX);
        if entries == 0 || entries > self.size || !u64::from(len).is_multiple_of(DESCRIPTOR) {
            return Err(QueueError::IndirectLength(len));
        }
        if !self.ram.contains(gpa, len.into()) {
            return Err(QueueError::Buffer(NotRam { gpa, len: len.into() }));
        }
        Ok((gpa, entries))
    }

    /// Undoes the last [`Self::pop`]; nothing where `chain` is not the one that it returned.
    pub fn put_back(&mut self, chain: Chain) {
        let last = self.next_available.wrapping_sub(1);
        if chain.generation == self.generation && chain.ticket == last && self.in_flight() > 0 {
            self.next_available = last;
            self.spare.push(chain.segments);
        }
    }

    /// Completes a chain into whose writable part `written` bytes were written, and publishes what
    /// is due by the order of availability. A chain of another queue is dropped.
    ///
    /// # Errors
    /// The used ring is not in RAM, which [`Self::new`] excludes.
    pub fn complete(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        let Chain { head, ticket, generation, segments, .. } = chain;
        if generation != self.generation {
            return Ok(());
        }
        self.spare.push(segments);
        if let Some(slot) = self.done.get_mut(usize::from(ticket & (self.size - 1))) {
            *slot = Some(Done { head, written });
        }
        let before = self.next_used;
        loop {
            let index = self.next_used & (self.size - 1);
            let slot = self.done.get_mut(usize::from(index));
            let Some(Done { head, written }) = slot.and_then(Option::take) else { break };
            let at = self.used + 4 + 8 * u64::from(index);
            let element = u64::from(head) | u64::from(written) << 32;
            // The used ring is aligned to 4 bytes only.
            let stored = [(at, element & 0xffff_ffff), (at + 4, element >> 32)]
                .into_iter()
                .try_for_each(|(at, word)| self.ram.write_word(at, 4, word));
            stored.map_err(|_| QueueError::NotRam(Part::Used))?;
            self.next_used = self.next_used.wrapping_add(1);
        }
        if self.next_used != before {
            // Release: the driver that sees the index sees elements and buffers.
            self.store(self.used + 2, self.next_used)?;
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt, at the TSC value `now`, for what was published since
    /// it last got one or needed none (2.7.7.2).
    ///
    /// # Errors
    /// A ring is not in RAM, which [`Self::new`] excludes.
    pub fn wants_interrupt(&mut self, now: u64) -> Result<bool, QueueError> {
        let (old, new) = (self.signalled, self.next_used);
        if old == new {
            return Ok(false);
        }
        // The driver writes what it wants and then reads the used index; here it is the reverse.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event =
                self.load(self.available + 4 + 2 * u64::from(self.size), Part::Available)?;
            crosses(event, new, old)
        } else {
            self.load(self.available, Part::Available)? & NO_INTERRUPT == 0
        };
        if wanted && self.patience > 0 {
            let due = *self.due.get_or_insert(now.saturating_add(self.patience));
            if now < due {
                return Ok(false);
            }
        }
        (self.due, self.signalled) = (None, new);
        Ok(wanted)
    }

    /// For a driver that looks for used buffers by itself, and tells by the event index how far it
    /// looked: interrupts are held back so many TSC ticks, by which time it mostly needs none.
    pub const fn be_patient(&mut self, ticks: u64) {
        self.patience = ticks;
    }

    /// When [`Self::wants_interrupt`] is to be asked again, as a TSC value.
    #[must_use]
    pub const fn due(&self) -> Option<u64> {
        self.due
    }

    /// Asks the driver for notifications; returns whether chains wait already (2.7.10).
    fn listen(&mut self) -> Result<bool, QueueError> {
        if self.listening != Some(self.next_available) {
            if self.event_idx {
                let event = self.used + 4 + 8 * u64::from(self.size);
                self.store(event, self.next_available)?;
            } else if self.listening.is_none() {
                self.store(self.used, 0)?;
            }
            self.listening = Some(self.next_available);
            // The driver writes its index and then reads what the device wants; here it is the
            // reverse.
            fence(Ordering::SeqCst);
        }
        Ok(self.waiting()? > 0)
    }

    /// No notifications are needed until [`Self::listen`]; with an event index, none come.
    fn ignore(&mut self) -> Result<(), QueueError> {
        if !self.event_idx && self.listening.is_some() {
            self.store(self.used, NO_NOTIFY)?;
        }
        self.listening = None;
        Ok(())
    }

    fn load(&self, gpa: u64, part: Part) -> Result<u16, QueueError> {
        self.ram.load_u16(gpa).map_err(|_| QueueError::NotRam(part))
    }

    fn store(&self, gpa: u64, value: u16) -> Result<(), QueueError> {
        self.ram.store_u16(gpa, value).map_err(|_| QueueError::NotRam(Part::Used))
    }
}

/// Whether an index that went from `old` to `new` passed `event` (2.7.7.2, 2.7.10).
#[must_use]
pub const fn crosses(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
