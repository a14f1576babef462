//! A request of a driver: pieces of guest memory that were checked to be RAM.

use alloc::vec::Vec;

use sysroot::num::{u64_of, usize_of};

use crate::ram::{NotRam, Ram};

/// A contiguous piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub gpa: u64,
    /// Size in bytes; not 0.
    pub len: u32,
}

/// A descriptor chain that was taken off the available ring. It is given back to its queue with
/// [`crate::queue::Queue::complete`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the driver waits for it"]
pub struct Chain {
    /// Index of the head descriptor: names the chain in the used ring.
    pub(crate) head: u16,
    /// Place in the order of availability.
    pub(crate) ticket: u16,
    /// Tells queues of different epochs apart.
    pub(crate) generation: u64,
    /// First what the device reads, then what it writes.
    pub(crate) segments: Vec<Segment>,
    /// Number of segments that the device reads.
    pub(crate) readable: usize,
}

impl Chain {
    /// What the device reads.
    #[must_use]
    pub fn readable(&self) -> Cursor<'_> {
        Cursor::new(self.segments.get(..self.readable).unwrap_or(&[]))
    }

    /// What the device writes.
    #[must_use]
    pub fn writable(&self) -> Cursor<'_> {
        Cursor::new(self.segments.get(self.readable..).unwrap_or(&[]))
    }
}

/// A stretch of bytes in guest memory, scattered over segments. Reading and writing consume it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind.
    skip: u32,
    /// Bytes ahead.
    left: u64,
}

impl<'a> Cursor<'a> {
    /// All bytes of these segments.
    #[must_use]
    pub fn new(segments: &'a [Segment]) -> Self {
        let left = segments.iter().map(|s| u64::from(s.len)).sum();
        Self { segments, skip: 0, left }
    }

    /// Bytes ahead.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// The next contiguous piece, of at most `max` bytes; `None` at the end, and where `max` is 0.
    pub fn piece(&mut self, max: u64) -> Option<Segment> {
        let first = loop {
            let first = self.segments.first()?;
            if self.skip < first.len {
                break first;
            }
            self.segments = self.segments.get(1..).unwrap_or(&[]);
            self.skip = 0;
        };
        let len = u64::from(first.len - self.skip).min(max).min(self.left);
        let len = u32::try_from(len).ok().filter(|&n| n > 0)?;
        let piece = Segment { gpa: first.gpa.saturating_add(self.skip.into()), len };
        self.skip += len;
        self.left -= u64::from(len);
        Some(piece)
    }

    /// Moves past `bytes`, or to the end.
    pub fn advance(&mut self, bytes: u64) {
        let mut rest = bytes;
        while let Some(piece) = self.piece(rest) {
            rest -= u64::from(piece.len);
        }
    }

    /// The next `bytes` as a cursor of their own, or what there is; this one moves past them.
    #[must_use]
    pub fn take(&mut self, bytes: u64) -> Self {
        let part = Self { left: self.left.min(bytes), ..*self };
        self.advance(bytes);
        part
    }

    /// Copies out of guest memory; returns how many bytes there were, at most `to.len()`.
    ///
    /// # Errors
    /// [`NotRam`] with a RAM that the segments were not checked against.
    pub fn read(&mut self, ram: &Ram, to: &mut [u8]) -> Result<usize, NotRam> {
        let mut done = 0;
        while let Some(piece) = self.piece(u64_of(to.len() - done)) {
            let end = done + usize_of(piece.len.into());
            if let Some(part) = to.get_mut(done..end) {
                ram.read(piece.gpa, part)?;
            }
            done = end;
        }
        Ok(done)
    }

    /// Copies into guest memory; returns how many bytes found room, at most `from.len()`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&mut self, ram: &Ram, from: &[u8]) -> Result<usize, NotRam> {
        let mut done = 0;
        while let Some(piece) = self.piece(u64_of(from.len() - done)) {
            let end = done + usize_of(piece.len.into());
            if let Some(part) = from.get(done..end) {
                ram.write(piece.gpa, part)?;
            }
            done = end;
        }
        Ok(done)
    }

    /// Writes zeroes up to the end.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn fill_zero(&mut self, ram: &Ram) -> Result<(), NotRam> {
        const ZERO: [u8; 512] = [0; 512];
        while self.left > 0 {
            if self.write(ram, &ZERO)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads exactly `N` bytes; `None` where there are fewer.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_array<const N: usize>(&mut self, ram: &Ram) -> Result<Option<[u8; N]>, NotRam> {
        let mut bytes = [0; N];
        Ok((self.read(ram, &mut bytes)? == N).then_some(bytes))
    }
}

/// Copies between guests, or within one: as much as both have. Returns how many bytes that was.
///
/// # Errors
/// As [`Cursor::read`].
pub fn copy(
    from_ram: &Ram,
    from: &mut Cursor<'_>,
    to_ram: &Ram,
    to: &mut Cursor<'_>,
) -> Result<u64, NotRam> {
    let mut done = 0;
    // Each piece ends where one of them does.
    while let Some(room) = { *to }.piece(from.left())
        && let Some(source) = from.piece(room.len.into())
        && let Some(place) = to.piece(source.len.into())
    {
        from_ram.copy(source.gpa, to_ram, place.gpa, source.len.into())?;
        done += u64::from(source.len);
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
