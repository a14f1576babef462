//! A disk: a stretch of a medium, with an overlay perhaps.

use sysroot::num::usize_of;
use virtio::chain::Cursor;
use virtio::ram::Ram;

use crate::SECTOR;
use crate::medium::{Begun, Medium, Remote, Sink, Source, Tag};
use crate::overlay::{Overlay, Place};
use crate::request::{Extent, Limits, SERIAL, Status};

/// What came of a piece of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is done.
    Done,
    /// The medium works on so many sectors of it; the rest is another piece.
    Started(u64),
    /// The medium is busy; nothing was done.
    Busy,
    /// It failed.
    Failed,
}

/// A disk as a guest sees it.
#[derive(Debug)]
pub struct Disk {
    /// Index of the medium.
    pub medium: usize,
    /// The part of the medium that it is.
    pub part: Extent,
    /// Nothing may be written.
    pub read_only: bool,
    /// What was written, where the medium must not change.
    pub overlay: Option<Overlay<'static>>,
    /// Padded with zeroes.
    pub serial: [u8; SERIAL],
}

impl Disk {
    /// What requests are checked against.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits { sectors: self.part.count, read_only: self.read_only }
    }

    /// Whether writes change the medium.
    #[must_use]
    pub const fn writes_medium(&self) -> bool {
        !self.read_only && self.overlay.is_none()
    }

    /// Why it cannot be used beside another disk: what one writes the other would see change.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> Option<&'static str> {
        let end = |part: Extent| part.sector.saturating_add(part.count);
        let overlap = self.medium == other.medium
            && self.part.sector < end(other.part)
            && other.part.sector < end(self.part);
        (overlap && (self.writes_medium() || other.writes_medium()))
            .then_some("another VM uses it, and one of them could write")
    }

    /// Reads a piece into the guest's memory.
    pub fn read(
        &self,
        medium: &mut Medium,
        ram: &Ram,
        to: &mut Cursor<'_>,
        piece: Extent,
        tag: Tag,
    ) -> Piece {
        match medium {
            Medium::Memory(bytes) => self.deliver(ram, to, piece, |sector, count| {
                part(Source::Bytes(bytes), self.part.sector + sector, count)
            }),
            Medium::Remote(disk) => {
                let all_new = self.overlay.as_ref().is_some_and(|o| is_new(o, piece));
                if all_new {
                    return self.deliver(ram, to, piece, |_, _| None);
                }
                disk.read(tag, self.part.sector + piece.sector, piece.count).into()
            }
        }
    }

    /// Delivers a piece that a remote medium has read.
    pub fn arrived(
        &self,
        ram: &Ram,
        to: &mut Cursor<'_>,
        piece: Extent,
        data: Source<'_>,
    ) -> Piece {
        self.deliver(ram, to, piece, |sector, count| part(data, sector - piece.sector, count))
    }

    /// Copies a piece to the guest: from the overlay what is new, from the medium the rest.
    fn deliver<'b>(
        &self,
        ram: &Ram,
        to: &mut Cursor<'_>,
        piece: Extent,
        medium: impl Fn(u64, u64) -> Option<Source<'b>>,
    ) -> Piece {
        let (mut sector, mut left) = (piece.sector, piece.count);
        while left > 0 {
            let place = self.overlay.as_ref().map(|o| (o, o.locate(sector, left)));
            let (outcome, count) = match place {
                None => (copy_out(ram, to, medium(sector, left)), left),
                Some((_, (Place::Medium, n))) => (copy_out(ram, to, medium(sector, n)), n),
                Some((_, (Place::Zero, n))) => (to.take(n * SECTOR).fill_zero(ram).is_ok(), n),
                Some((overlay, (Place::Slot(at), n))) => {
                    let bytes = overlay.bytes(at, usize_of(n * SECTOR)).map(Source::Bytes);
                    (copy_out(ram, to, bytes), n)
                }
            };
            if !outcome {
                return Piece::Failed;
            }
            sector += count;
            left -= count;
        }
        Piece::Done
    }

    /// Writes a piece from the guest's memory.
    pub fn write(
        &mut self,
        medium: &mut Medium,
        ram: &Ram,
        from: &mut Cursor<'_>,
        piece: Extent,
        tag: Tag,
    ) -> Piece {
        if self.read_only {
            return Piece::Failed;
        }
        let mut fill = |to: Sink<'_>| to.fill(ram, from);
        let first = self.part.sector + piece.sector;
        match (&mut self.overlay, medium) {
            (Some(overlay), _) => {
                let fill = |to: &mut [u8]| fill(Sink::Bytes(to));
                done(overlay.write(piece.sector, piece.count, fill).is_ok())
            }
            (None, Medium::Memory(bytes)) => {
                let to = slice_mut(bytes, first, piece.count);
                done(to.is_some_and(|to| fill(Sink::Bytes(to))))
            }
            (None, Medium::Remote(disk)) => disk.write(tag, first, piece.count, &mut fill).into(),
        }
    }

    /// Makes a piece read as zero.
    pub fn clear(&mut self, medium: &mut Medium, piece: Extent, tag: Tag) -> Piece {
        if self.read_only {
            return Piece::Failed;
        }
        let first = self.part.sector + piece.sector;
        match (&mut self.overlay, medium) {
            (Some(overlay), _) => {
                overlay.clear(piece.sector, piece.count);
                Piece::Done
            }
            (None, Medium::Memory(bytes)) => {
                let to = slice_mut(bytes, first, piece.count);
                done(to.map(|to| to.fill(0)).is_some())
            }
            (None, Medium::Remote(disk)) => {
                disk.write(tag, first, piece.count, &mut |to| to.clear()).into()
            }
        }
    }

    /// Makes permanent what was acknowledged. Memory is as permanent as it gets.
    pub fn flush(&self, medium: &mut Medium, tag: Tag) -> Piece {
        match medium {
            Medium::Remote(disk) if self.writes_medium() => flushing(disk.flush(tag)),
            _ => Piece::Done,
        }
    }
}

impl From<Piece> for Status {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Failed => Self::IoError,
            _ => Self::Ok,
        }
    }
}

impl From<Begun> for Piece {
    fn from(begun: Begun) -> Self {
        match begun {
            Begun::Yes(sectors) => Self::Started(sectors),
            Begun::Busy => Self::Busy,
            Begun::NoData => Self::Failed,
        }
    }
}

const fn done(done: bool) -> Piece {
    if done { Piece::Done } else { Piece::Failed }
}

const fn flushing(begun: bool) -> Piece {
    // It is about no sectors.
    if begun { Piece::Started(0) } else { Piece::Busy }
}

/// Whether nothing of a piece comes from the medium.
fn is_new(overlay: &Overlay<'_>, piece: Extent) -> bool {
    let (mut sector, mut left) = (piece.sector, piece.count);
    while left > 0 {
        match overlay.locate(sector, left) {
            (Place::Medium, _) => return false,
            (_, count) => {
                sector += count;
                left -= count;
            }
        }
    }
    true
}

fn copy_out(ram: &Ram, to: &mut Cursor<'_>, from: Option<Source<'_>>) -> bool {
    from.is_some_and(|bytes| bytes.deliver(ram, to))
}

fn range(sector: u64, count: u64) -> Option<core::ops::Range<usize>> {
    let start = usize::try_from(sector.checked_mul(SECTOR)?).ok()?;
    Some(start..start.checked_add(usize::try_from(count.checked_mul(SECTOR)?).ok()?)?)
}

fn part(bytes: Source<'_>, sector: u64, count: u64) -> Option<Source<'_>> {
    let range = range(sector, count)?;
    bytes.part(range.start, range.len())
}

fn slice_mut(bytes: &mut [u8], sector: u64, count: u64) -> Option<&mut [u8]> {
    bytes.get_mut(range(sector, count)?)
}

/// The remote disk behind a medium.
pub fn remote(medium: &mut Medium) -> Option<&mut dyn Remote> {
    match medium {
        Medium::Memory(_) => None,
        Medium::Remote(disk) => Some(disk.as_mut()),
    }
}
