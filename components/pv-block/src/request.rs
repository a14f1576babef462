//! Requests of a driver (virtio 1.2, 5.2.6). Everything in them is hostile; what they may do to
//! this disk is checked here, before anything is done.

use core::fmt;

use crate::SECTOR;

/// Bytes of the header of a request.
pub const HEADER: usize = 16;
/// Bytes of a range in a discard or write-zeroes request.
pub const RANGE: usize = 16;
/// Bytes of a serial number.
pub const SERIAL: usize = 20;

/// Most sectors of a discard or write-zeroes request: 4 MiB.
pub const MAX_CLEAR: u32 = 8192;

/// Types (virtio 1.2, 5.2.6).
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// Flag of a range: the space may be given back.
const UNMAP: u32 = 1;

/// Last byte of a request, by which the driver learns what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// Failed, or not possible with this disk.
    IoError,
    /// No such request.
    Unsupported,
}

impl Status {
    /// As the driver reads it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::IoError => 1,
            Self::Unsupported => 2,
        }
    }
}

/// The driver broke a rule in a way that leaves no place for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The header is shorter than 16 bytes.
    Header,
    /// There is no byte for the status.
    NoStatus,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "request header of less than 16 bytes"),
            Self::NoStatus => write!(f, "request without a place for the status"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Sectors of a disk that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub count: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the buffers of the driver.
    Read(Extent),
    /// Take what is in the buffers of the driver.
    Write(Extent),
    /// Make sectors read as zero.
    Clear(Extent),
    /// Make what was acknowledged permanent.
    Flush,
    /// Hand out the serial number.
    Serial,
}

/// What a disk allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sectors of the disk.
    pub sectors: u64,
    /// Nothing may be written.
    pub read_only: bool,
}

impl Limits {
    /// The sectors that `bytes` bytes from `sector` on cover.
    fn extent(self, sector: u64, bytes: u64) -> Result<Extent, Status> {
        let count = bytes / SECTOR;
        let fits = sector.checked_add(count).is_some_and(|end| end <= self.sectors);
        if fits && bytes.is_multiple_of(SECTOR) {
            Ok(Extent { sector, count })
        } else {
            Err(Status::IoError)
        }
    }

    fn writable(self) -> Result<(), Status> {
        if self.read_only { Err(Status::IoError) } else { Ok(()) }
    }
}

/// Parses a request. `readable` and `writable` are the bytes of payload in either direction:
/// without the header, and without the status. `range` is the start of the readable payload.
///
/// # Errors
/// The status that the driver gets.
pub fn parse(
    header: [u8; HEADER],
    readable: u64,
    writable: u64,
    range: Option<[u8; RANGE]>,
    limits: Limits,
) -> Result<Request, Status> {
    let (number, sector) = split(header);
    match number {
        kind::IN => limits.extent(sector, writable).map(Request::Read),
        kind::OUT => {
            limits.writable()?;
            limits.extent(sector, readable).map(Request::Write)
        }
        kind::FLUSH => Ok(Request::Flush),
        kind::GET_ID => Ok(Request::Serial),
        kind::DISCARD | kind::WRITE_ZEROES => {
            limits.writable()?;
            // One range, as the configuration space says.
            let range = range.filter(|_| readable == 16).ok_or(Status::IoError)?;
            let (count, flags, sector) = split_range(range);
            // A discard knows no flags (5.2.6.2).
            let known = if number == kind::DISCARD { 0 } else { UNMAP };
            if flags & !known != 0 {
                return Err(Status::Unsupported);
            }
            if count > MAX_CLEAR {
                return Err(Status::IoError);
            }
            limits.extent(sector, u64::from(count) * SECTOR).map(Request::Clear)
        }
        _ => Err(Status::Unsupported),
    }
}

/// Type and sector of a header.
fn split(header: [u8; HEADER]) -> (u32, u64) {
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector))
}

/// Number of sectors, flags and first sector of a range.
fn split_range(range: [u8; RANGE]) -> (u32, u32, u64) {
    let [sector @ .., a, b, c, d, e, f, g, h] = range;
    let (count, flags) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    (count, flags, u64::from_le_bytes(sector))
}

#[cfg(test)]
mod tests;
