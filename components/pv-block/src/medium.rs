//! Where sectors are.

use alloc::boxed::Box;

/// Most sectors of a piece that a [`Remote`] is asked for.
pub const PIECE: u64 = 256;

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

/// What came of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// Its name.
    pub tag: Tag,
    /// Whether it succeeded.
    pub ok: bool,
    /// What was read.
    pub data: &'a [u8],
}

/// A disk that does several things at a time and answers later.
pub trait Remote {
    /// Number of sectors.
    fn sectors(&self) -> u64;

    /// Whether it can only be read.
    fn is_read_only(&self) -> bool;

    /// Starts to read up to [`PIECE`] sectors. `false`: it is busy; after a completion there is
    /// room again.
    fn read(&mut self, tag: Tag, sector: u64, count: u64) -> bool;

    /// Starts to write up to [`PIECE`] sectors; `fill` provides them. `false`: it is busy, and
    /// `fill` was not called.
    fn write(&mut self, tag: Tag, sector: u64, count: u64, fill: &mut dyn FnMut(&mut [u8]))
    -> bool;

    /// Starts to make permanent what was written. `false`: it is busy.
    fn flush(&mut self, tag: Tag) -> bool;

    /// Hands an operation that has ended to `done`; `false` where there is none.
    fn finish(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> bool;

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
