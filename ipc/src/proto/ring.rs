//! Byte rings in memory that two components share.
//!
//! One side produces, the other consumes; neither trusts the other: each keeps its own index to
//! itself and checks the one it reads. Indices run freely and wrap at 2^32.
//!
//! A consumer sleeps only after it found the ring empty, and a producer wakes it only when it had
//! caught up. Both sides store their index, then fence, then load the other's: so the producer
//! sees that the consumer caught up, or the consumer sees the new bytes. The same holds for
//! `wants_space` in the other direction.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

/// A word in a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line(AtomicU32);

/// Types that consist of atomics only and are valid with any content: what untrusted components
/// may share.
pub trait Shareable: Sync + 'static {}

impl Shareable for () {}
impl<const N: usize> Shareable for Ring<N> {}

/// A ring of `N` bytes; `N` is a power of two. All zero is a valid empty ring.
#[derive(Debug)]
#[repr(C)]
pub struct Ring<const N: usize> {
    /// Bytes produced so far. Written by the producer (release), read by the consumer (acquire).
    head: Line,
    /// Bytes consumed so far. Written by the consumer (release), read by the producer (acquire).
    tail: Line,
    /// Set by a producer that found no room.
    wants_space: Line,
    /// Ordered by `head` and `tail`.
    data: [AtomicU8; N],
}

/// The other side wrote an index that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// What moved, and whether the other side may be asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Moved {
    /// Number of bytes.
    pub bytes: usize,
    /// Signal the other side.
    pub wake: bool,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ring<N> {
    const CHECK: () = assert!(N.is_power_of_two() && N <= 1 << 30);

    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        const { Self::CHECK }
        Self {
            head: Line(AtomicU32::new(0)),
            tail: Line(AtomicU32::new(0)),
            wants_space: Line(AtomicU32::new(0)),
            data: [const { AtomicU8::new(0) }; N],
        }
    }

    /// The producer's side; there should be one.
    #[must_use]
    pub fn producer(&self) -> Producer<'_, N> {
        Producer { ring: self, head: self.head.0.load(Ordering::Relaxed) }
    }

    /// The consumer's side; there should be one.
    #[must_use]
    pub fn consumer(&self) -> Consumer<'_, N> {
        Consumer { ring: self, tail: self.tail.0.load(Ordering::Relaxed) }
    }

    /// Makes it empty. Only while neither side is in use.
    pub fn reset(&self) {
        self.head.0.store(0, Ordering::Relaxed);
        self.tail.0.store(0, Ordering::Relaxed);
        self.wants_space.0.store(0, Ordering::Release);
    }

    fn slot(&self, index: u32) -> Option<&AtomicU8> {
        usize::try_from(index).ok().and_then(|i| self.data.get(i % N))
    }
}

/// Bytes between two indices, where that is possible.
fn distance<const N: usize>(head: u32, tail: u32) -> Result<usize, Corrupt> {
    usize::try_from(head.wrapping_sub(tail)).ok().filter(|&n| n <= N).ok_or(Corrupt)
}

/// The producer's side.
#[derive(Debug)]
pub struct Producer<'a, const N: usize> {
    ring: &'a Ring<N>,
    head: u32,
}

impl<const N: usize> Producer<'_, N> {
    /// Bytes that fit.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn space(&self) -> Result<usize, Corrupt> {
        let tail = self.ring.tail.0.load(Ordering::Acquire);
        Ok(N - distance::<N>(self.head, tail)?)
    }

    /// Appends as many of `bytes` as fit. Where not all do, the consumer is asked to signal when
    /// it has made room.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn push(&mut self, bytes: &[u8]) -> Result<Moved, Corrupt> {
        let mut moved = self.append(bytes)?;
        if moved.bytes < bytes.len() {
            self.ring.wants_space.0.store(1, Ordering::Relaxed);
            // Against the consumer's fence in `pop`.
            fence(Ordering::SeqCst);
            let more = self.append(bytes.get(moved.bytes..).unwrap_or(&[]))?;
            moved.bytes += more.bytes;
            moved.wake |= more.wake;
        }
        Ok(moved)
    }

    /// Appends all of `parts` one after the other, or nothing.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn push_all(&mut self, parts: &[&[u8]]) -> Result<Moved, Corrupt> {
        let total: usize = parts.iter().map(|p| p.len()).sum();
        if total > self.space()? {
            return Ok(Moved::default());
        }
        let old = self.head;
        for part in parts {
            self.copy(part);
        }
        Ok(self.publish(old, total))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Moved, Corrupt> {
        let count = self.space()?.min(bytes.len());
        if count == 0 {
            return Ok(Moved::default());
        }
        let old = self.head;
        self.copy(bytes.get(..count).unwrap_or(&[]));
        Ok(self.publish(old, count))
    }

    fn copy(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(slot) = self.ring.slot(self.head) {
                slot.store(byte, Ordering::Relaxed);
            }
            self.head = self.head.wrapping_add(1);
        }
    }

    fn publish(&self, old: u32, bytes: usize) -> Moved {
        self.ring.head.0.store(self.head, Ordering::Release);
        // Against the consumer's fence in `pop`.
        fence(Ordering::SeqCst);
        Moved { bytes, wake: self.ring.tail.0.load(Ordering::Relaxed) == old }
    }
}

/// The consumer's side.
#[derive(Debug)]
pub struct Consumer<'a, const N: usize> {
    ring: &'a Ring<N>,
    tail: u32,
}

impl<const N: usize> Consumer<'_, N> {
    /// Bytes that wait.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn available(&self) -> Result<usize, Corrupt> {
        distance::<N>(self.ring.head.0.load(Ordering::Acquire), self.tail)
    }

    /// Takes up to `buffer.len()` bytes.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn pop(&mut self, buffer: &mut [u8]) -> Result<Moved, Corrupt> {
        let bytes = self.peek(0, buffer)?;
        Ok(Moved { bytes, wake: bytes > 0 && self.consume(bytes) })
    }

    /// Copies up to `buffer.len()` bytes from behind the next `skip` ones, which all stay; how
    /// many.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn peek(&self, skip: usize, buffer: &mut [u8]) -> Result<usize, Corrupt> {
        let count = self.available()?.saturating_sub(skip).min(buffer.len());
        // A ring is smaller than the range of its indices.
        let mut at = self.after(skip);
        for byte in buffer.iter_mut().take(count) {
            *byte = self.ring.slot(at).map_or(0, |s| s.load(Ordering::Relaxed));
            at = at.wrapping_add(1);
        }
        Ok(count)
    }

    /// Takes bytes that were seen by [`Self::peek`]; whether to signal the other side.
    pub fn consume(&mut self, count: usize) -> bool {
        self.seek(self.after(count));
        // Against the producer's fences in `push` and `publish`.
        fence(Ordering::SeqCst);
        self.ring.wants_space.0.load(Ordering::Relaxed) != 0
            && self.ring.wants_space.0.swap(0, Ordering::Relaxed) != 0
    }

    /// Number of bytes that were taken so far once `count` more are, as the ring counts them.
    #[must_use]
    pub fn after(&self, count: usize) -> u32 {
        u32::try_from(count).map_or(self.tail, |count| self.tail.wrapping_add(count))
    }

    /// Goes on where a consumer before took so many bytes, without the other side being told.
    pub fn seek(&mut self, tail: u32) {
        self.tail = tail;
        self.ring.tail.0.store(tail, Ordering::Release);
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.tail = self.ring.head.0.load(Ordering::Acquire);
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

/// A log line in a ring: who, when, what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whose line it is: a number that both sides know, or the length of the name that the text
    /// begins with.
    pub source: u16,
    /// Milliseconds since boot.
    pub ms: u32,
    /// The line.
    pub text: &'a [u8],
}

/// Longest text of a record; more is cut off.
pub const RECORD_TEXT: usize = 1100;

const RECORD_HEADER: usize = 8;

impl Record<'_> {
    /// Appends the record, or nothing where it does not fit.
    ///
    /// # Errors
    /// [`Corrupt`]
    pub fn push<const N: usize>(&self, ring: &mut Producer<'_, N>) -> Result<Moved, Corrupt> {
        let text = self.text.get(..RECORD_TEXT).unwrap_or(self.text);
        let len = u16::try_from(text.len()).unwrap_or(0).to_le_bytes();
        ring.push_all(&[&len, &self.source.to_le_bytes(), &self.ms.to_le_bytes(), text])
    }
}

/// Takes the next record, its text into `buffer`; `None` where there is none.
///
/// # Errors
/// [`Corrupt`] where the producer broke the format. What is in the ring is dropped.
pub fn pop_record<'b, const N: usize>(
    ring: &mut Consumer<'_, N>,
    buffer: &'b mut [u8; RECORD_TEXT],
) -> Result<Option<Record<'b>>, Corrupt> {
    let Some((record, length)) = peek_record(ring, buffer)? else { return Ok(None) };
    ring.consume(length);
    Ok(Some(record))
}

/// Reads the next record, which stays, its text into `buffer`; with it, the number of bytes that
/// it takes in the ring. `None` where there is none.
///
/// # Errors
/// [`Corrupt`] where the producer broke the format. What is in the ring is dropped.
pub fn peek_record<'b, const N: usize>(
    ring: &mut Consumer<'_, N>,
    buffer: &'b mut [u8; RECORD_TEXT],
) -> Result<Option<(Record<'b>, usize)>, Corrupt> {
    let available = ring.available()?;
    if available == 0 {
        return Ok(None);
    }
    let mut header = [0; RECORD_HEADER];
    if ring.peek(0, &mut header)? != RECORD_HEADER {
        ring.clear();
        return Err(Corrupt);
    }
    let [l0, l1, s0, s1, m0, m1, m2, m3] = header;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let text = match buffer.get_mut(..len) {
        Some(text) if available - RECORD_HEADER >= len => text,
        _ => {
            ring.clear();
            return Err(Corrupt);
        }
    };
    ring.peek(RECORD_HEADER, text)?;
    let record = Record {
        source: u16::from_le_bytes([s0, s1]),
        ms: u32::from_le_bytes([m0, m1, m2, m3]),
        text,
    };
    Ok(Some((record, RECORD_HEADER + len)))
}
