//! GUID partition tables (UEFI 2.10, 5.3), with all checksums checked.

use alloc::vec;
use core::fmt;

use crate::SECTOR;
use crate::request::Extent;

/// First bytes of a header.
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Bytes of a header that mean something.
const HEADER: usize = 92;
/// Smallest entry.
const ENTRY: u32 = 128;
/// Most bytes that a table may have.
const MAX_TABLE: u64 = 1 << 20;
/// Bytes of a sector, as a slice is indexed.
const BYTES: usize = 512;

/// Why there is no such partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptError {
    /// The medium cannot be read.
    Unreadable,
    /// Neither header is one.
    NoTable,
    /// The checksum of the entries is wrong, in both tables.
    Entries,
    /// The table has no partition of this number.
    NoPartition(u32),
    /// The partition does not lie between the tables.
    Outside(u32),
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => write!(f, "cannot read the medium"),
            Self::NoTable => write!(f, "no partition table"),
            Self::Entries => write!(f, "partition table damaged"),
            Self::NoPartition(n) => write!(f, "no partition {n}"),
            Self::Outside(n) => write!(f, "partition {n} does not lie where partitions may lie"),
        }
    }
}

impl core::error::Error for GptError {}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    usable: (u64, u64),
    table: u64,
    count: u32,
    size: u32,
    checksum: u32,
}

/// Finds partition `number`, from 1 on, of a medium of `sectors` sectors. `read` fills a buffer
/// from a sector on and returns whether it could.
///
/// # Errors
/// [`GptError`]
pub fn find(
    sectors: u64,
    number: u32,
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> Result<Extent, GptError> {
    let primary = look(sectors, number, 1, &mut read);
    match primary {
        // The copy at the end stands in for a damaged table, not for a missing partition.
        Err(GptError::NoTable | GptError::Entries | GptError::Unreadable) => {
            let last = sectors.checked_sub(1).ok_or(GptError::NoTable)?;
            look(sectors, number, last, &mut read).map_err(|backup| match backup {
                GptError::NoTable => primary.err().unwrap_or(backup),
                other => other,
            })
        }
        other => other,
    }
}

fn look(
    sectors: u64,
    number: u32,
    at: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> bool,
) -> Result<Extent, GptError> {
    let mut sector = [0; BYTES];
    if at >= sectors || !read(at, &mut sector) {
        return Err(GptError::Unreadable);
    }
    let header = header(&sector, at).ok_or(GptError::NoTable)?;
    let bytes = u64::from(header.count) * u64::from(header.size);
    let end = header.table.checked_add(bytes.div_ceil(SECTOR)).ok_or(GptError::NoTable)?;
    if bytes > MAX_TABLE || end > sectors {
        return Err(GptError::NoTable);
    }
    let len = usize::try_from(bytes).map_err(|_| GptError::NoTable)?;
    let mut table = vec![0; len.next_multiple_of(BYTES)];
    if !read(header.table, &mut table) {
        return Err(GptError::Unreadable);
    }
    let entries = table.get(..len).unwrap_or(&[]);
    if crc32fast::hash(entries) != header.checksum {
        return Err(GptError::Entries);
    }
    let index = number.checked_sub(1).and_then(|n| usize::try_from(n).ok());
    let size = usize::try_from(header.size).map_err(|_| GptError::NoTable)?;
    let entry = index.and_then(|n| entries.chunks_exact(size).nth(n));
    let entry = entry.filter(|e| e.iter().take(16).any(|b| *b != 0));
    let entry = entry.ok_or(GptError::NoPartition(number))?;
    let (first, last) =
        word(entry, 32).zip(word(entry, 40)).ok_or(GptError::NoPartition(number))?;
    let (low, high) = header.usable;
    if first > last || first < low || last > high || last >= sectors {
        return Err(GptError::Outside(number));
    }
    Ok(Extent { sector: first, count: last - first + 1 })
}

/// Reads the header in sector `at`.
fn header(sector: &[u8; BYTES], at: u64) -> Option<Header> {
    let half = |offset| u32::try_from(word(sector, offset)? & 0xffff_ffff).ok();
    let size = usize::try_from(half(12)?).ok()?;
    if sector.get(..8)? != SIGNATURE || !(HEADER..=BYTES).contains(&size) || word(sector, 24)? != at
    {
        return None;
    }
    let mut summed = *sector;
    summed.get_mut(16..20)?.fill(0);
    if crc32fast::hash(summed.get(..size)?) != half(16)? {
        return None;
    }
    let entry = half(84)?;
    if entry < ENTRY || !entry.is_power_of_two() {
        return None;
    }
    Some(Header {
        usable: (word(sector, 40)?, word(sector, 48)?),
        table: word(sector, 72)?,
        count: half(80)?,
        size: entry,
        checksum: half(88)?,
    })
}

/// The little-endian word at an offset.
fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
