//! Where sectors are.

use alloc::boxed::Box;

use virtio::chain::{self, Cursor, Segment};
use virtio::ram::Ram;

/// Most sectors of a piece that a [`Remote`] is asked for: 512 KiB. Each piece costs a way to the
/// disk and back; of a large request one is copied while the disk works on the next.
pub const PIECE: u64 = 1024;

/// Names an operation: what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Index of the drive.
    pub drive: usize,
    /// Which of its set-ups.
    pub generation: u64,
    /// Index of the job.
    pub job: usize,
    /// Sectors of the job before this piece.
    pub offset: u64,
}

/// Bytes that were read.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Here.
    Bytes(&'a [u8]),
    /// In memory of a device.
    Memory(&'a Ram, Segment),
}

impl Source<'_> {
    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => sysroot::num::u64_of(bytes.len()),
            Self::Memory(_, segment) => segment.len.into(),
        }
    }

    /// `len` bytes from `at` on, where there are so many.
    #[must_use]
    pub fn part(self, at: usize, len: usize) -> Option<Self> {
        match self {
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.get(at..)?.get(..len)?)),
            Self::Memory(ram, Segment { gpa, len: all }) => {
                let (at, len) = (u32::try_from(at).ok()?, u32::try_from(len).ok()?);
                let fits = at.checked_add(len)? <= all;
                let part = Segment { gpa: gpa + u64::from(at), len };
                fits.then_some(Self::Memory(ram, part))
            }
        }
    }

    /// Copies it into a guest's memory. Whether there was room for all of it.
    #[must_use]
    pub fn deliver(self, ram: &Ram, to: &mut Cursor<'_>) -> bool {
        match self {
            Self::Bytes(bytes) => to.write(ram, bytes) == Ok(bytes.len()),
            Self::Memory(from, segment) => {
                let segments = [segment];
                let copied = chain::copy(from, &mut Cursor::new(&segments), ram, to);
                copied == Ok(segment.len.into())
            }
        }
    }
}

/// Room for bytes that are to be written.
#[derive(Debug)]
pub enum Sink<'a> {
    /// Here.
    Bytes(&'a mut [u8]),
    /// In memory of a device.
    Memory(&'a Ram, Segment),
}

impl Sink<'_> {
    /// Fills it from a guest's memory. Whether there was enough.
    #[must_use]
    pub fn fill(self, ram: &Ram, from: &mut Cursor<'_>) -> bool {
        match self {
            Self::Bytes(to) => from.read(ram, to) == Ok(to.len()),
            Self::Memory(to, segment) => {
                let segments = [segment];
                let copied = chain::copy(ram, from, to, &mut Cursor::new(&segments));
                copied == Ok(segment.len.into())
            }
        }
    }

    /// Fills it with zeroes. Whether the memory is there.
    #[must_use]
    pub fn clear(self) -> bool {
        match self {
            Self::Bytes(to) => {
                to.fill(0);
                true
            }
            Self::Memory(to, segment) => Cursor::new(&[segment]).fill_zero(to).is_ok(),
        }
    }
}

/// What came of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// Its name.
    pub tag: Tag,
    /// Whether it succeeded.
    pub ok: bool,
    /// What was read, or was to be.
    pub data: Source<'a>,
}

/// Whether an operation on data was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// So many sectors of it; the rest is another operation.
    Yes(u64),
    /// There is no room for it; after a completion there is again.
    Busy,
    /// Its data could not be had.
    NoData,
}

/// A disk that does several things at a time and answers later. It begins with them at the next
/// [`Self::finish`] or [`Self::rest`] at the latest.
pub trait Remote {
    /// Number of sectors.
    fn sectors(&self) -> u64;

    /// Whether it can only be read.
    fn is_read_only(&self) -> bool;

    /// Starts to read up to [`PIECE`] sectors, as many as it has room for.
    fn read(&mut self, tag: Tag, sector: u64, count: u64) -> Begun;

    /// Starts to write up to [`PIECE`] sectors, as many as it has room for; `fill` provides them, or
    /// says that it cannot. It is not called where the disk is busy.
    fn write(
        &mut self,
        tag: Tag,
        sector: u64,
        count: u64,
        fill: &mut dyn FnMut(Sink<'_>) -> bool,
    ) -> Begun;

    /// Starts to make permanent what was written. `false`: it is busy.
    fn flush(&mut self, tag: Tag) -> bool;

    /// Hands an operation that has ended to `done`; `false` where there is none.
    fn finish(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> bool;

    /// Has the disk tell when an operation ends, by a signal, until [`Self::finish`] is called.
    /// Returns whether one has ended already.
    fn rest(&mut self) -> bool;

    /// Reads up to [`PIECE`] sectors and waits for them: for when nothing else goes on.
    fn read_now(&mut self, sector: u64, to: &mut [u8]) -> bool;
}

/// A medium.
pub enum Medium {
    /// Memory that the root task keeps.
    Memory(&'static mut [u8]),
    /// A disk of the machine.
    Remote(Box<dyn Remote>),
}

impl core::fmt::Debug for Medium {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "Memory({})", bytes.len()),
            Self::Remote(disk) => write!(f, "Remote({})", disk.sectors()),
        }
    }
}

impl Medium {
    /// Number of sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        match self {
            Self::Memory(bytes) => sysroot::num::u64_of(bytes.len()) / crate::SECTOR,
            Self::Remote(disk) => disk.sectors(),
        }
    }

    /// Whether it can only be read.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Remote(disk) => disk.is_read_only(),
        }
    }

    /// Reads at once: for when nothing else goes on.
    pub fn read_now(&mut self, sector: u64, to: &mut [u8]) -> bool {
        match self {
            Self::Memory(bytes) => sector
                .checked_mul(crate::SECTOR)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| bytes.get(at..)?.get(..to.len()))
                .map(|from| to.copy_from_slice(from))
                .is_some(),
            Self::Remote(disk) => {
                let pieces = to.chunks_mut(sysroot::num::usize_of(PIECE * crate::SECTOR));
                (0..).zip(pieces).all(|(n, piece)| disk.read_now(sector + n * PIECE, piece))
            }
        }
    }
}

#[cfg(test)]
mod tests;
