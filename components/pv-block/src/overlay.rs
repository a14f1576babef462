//! Copy-on-write: what was written to a disk whose medium must not change.
//!
//! The overlay lies in one stretch of memory that survives the component: a header, a map with a
//! word for each block of 8 sectors, and slots of one block each. A block's word tells its slot and,
//! for each sector, whether its content is in the slot, zero, or still that of the medium; so a
//! write never reads the medium. The word is stored after the content that it refers to: the
//! overlay is consistent at every instruction, and a component that starts anew goes on with what
//! it finds.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use sysroot::num::{u64_of, usize_of};

use crate::SECTOR;

/// Sectors of a block.
pub const BLOCK: u64 = 8;
/// Bytes of a block.
const BLOCK_BYTES: u64 = BLOCK * SECTOR;
/// Bytes of a page: the header takes one.
const PAGE: u64 = 4096;
/// First word of a header.
const MAGIC: u64 = u64::from_le_bytes(*b"PCOWMAP1");

/// Why there is no overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayError {
    /// The store has no room for the map and a block.
    TooSmall,
    /// The store holds the overlay of a disk of another size.
    OtherDisk {
        /// Sectors of that disk.
        sectors: u64,
    },
    /// The store holds something else.
    Foreign,
    /// The map refers to slots that do not exist, or twice to the same.
    Damaged,
}

impl fmt::Display for OverlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => write!(f, "store too small for an overlay"),
            Self::OtherDisk { sectors } => {
                write!(f, "store holds the overlay of another disk, of {sectors} sectors")
            }
            Self::Foreign => write!(f, "store holds something else than an overlay"),
            Self::Damaged => write!(f, "overlay damaged"),
        }
    }
}

impl core::error::Error for OverlayError {}

/// Why sectors were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The overlay has no free slot.
    Full,
    /// Their content could not be had.
    NoData,
}

/// Where the content of sectors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the overlay, at this offset of its slots.
    Slot(usize),
    /// Nowhere: it is zero.
    Zero,
    /// In the medium.
    Medium,
}

/// A word of the map: bits 0..32 slot + 1, or 0; 32..40 sectors in the slot; 40..48 sectors that
/// are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    slot: Option<u32>,
    present: u8,
    zero: u8,
}

impl Entry {
    fn from_word(word: u64) -> Self {
        let [a, b, c, d, present, zero, ..] = word.to_le_bytes();
        Self { slot: u32::from_le_bytes([a, b, c, d]).checked_sub(1), present, zero }
    }

    fn to_word(self) -> u64 {
        let slot = self.slot.map_or(0, |s| u64::from(s) + 1);
        slot | u64::from(self.present) << 32 | u64::from(self.zero) << 40
    }
}

/// How much of a store is for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Words of header and map, a whole number of pages.
    pub words: u64,
    /// Number of slots.
    pub slots: u32,
}

impl Layout {
    /// The layout for a disk of `sectors` in a store of `size` bytes.
    ///
    /// # Errors
    /// [`OverlayError::TooSmall`]
    pub fn new(sectors: u64, size: u64) -> Result<Self, OverlayError> {
        let blocks = sectors.div_ceil(BLOCK);
        let map = blocks.checked_mul(8).and_then(|b| b.checked_next_multiple_of(PAGE));
        let head = map.and_then(|b| b.checked_add(PAGE)).ok_or(OverlayError::TooSmall)?;
        let slots = size.checked_sub(head).ok_or(OverlayError::TooSmall)? / BLOCK_BYTES;
        // Slot numbers are stored plus 1.
        let slots = u32::try_from(slots).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
        if slots == 0 { Err(OverlayError::TooSmall) } else { Ok(Self { words: head / 8, slots }) }
    }
}

/// What was written to a disk.
#[derive(Debug)]
pub struct Overlay<'a> {
    map: &'a [AtomicU64],
    data: &'a mut [u8],
    sectors: u64,
    /// Slots that no word refers to.
    free: Vec<u32>,
}

impl<'a> Overlay<'a> {
    /// The overlay of a disk of `sectors` in a store that was split as [`Layout`] says. A store of
    /// zeroes is an empty one.
    ///
    /// # Errors
    /// [`OverlayError`]
    pub fn open(
        sectors: u64,
        head: &'a [AtomicU64],
        data: &'a mut [u8],
    ) -> Result<Self, OverlayError> {
        let (header, map) =
            head.split_at_checked(usize_of(PAGE / 8)).ok_or(OverlayError::TooSmall)?;
        let [magic, size, ..] = header else { return Err(OverlayError::TooSmall) };
        let map = usize::try_from(sectors.div_ceil(BLOCK)).ok().and_then(|n| map.get(..n));
        let map = map.ok_or(OverlayError::TooSmall)?;
        match (magic.load(Ordering::Relaxed), size.load(Ordering::Relaxed)) {
            (0, _) => {
                size.store(sectors, Ordering::Relaxed);
                // Release: who sees the magic number sees the size.
                magic.store(MAGIC, Ordering::Release);
            }
            (MAGIC, found) if found == sectors => {}
            (MAGIC, found) => return Err(OverlayError::OtherDisk { sectors: found }),
            _ => return Err(OverlayError::Foreign),
        }
        let mut used = alloc::vec![false; data.len() / usize_of(BLOCK_BYTES)];
        for word in map {
            let Some(slot) = Entry::from_word(word.load(Ordering::Relaxed)).slot else { continue };
            let place = usize::try_from(slot).ok().and_then(|n| used.get_mut(n));
            if core::mem::replace(place.ok_or(OverlayError::Damaged)?, true) {
                return Err(OverlayError::Damaged);
            }
        }
        // The last one is taken first.
        let mut free: Vec<u32> = (0..).zip(used).filter(|u| !u.1).map(|u| u.0).collect();
        free.reverse();
        Ok(Self { map, data, sectors, free })
    }

    /// Number of free slots.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Where the content of `sector` is, and of how many of the `count` sectors from there on it is
    /// in the same place.
    #[must_use]
    pub fn locate(&self, sector: u64, count: u64) -> (Place, u64) {
        let first = self.place(sector);
        let mut run = 1;
        while run < count {
            let same = match (first, self.place(sector + run)) {
                (Place::Slot(a), Place::Slot(b)) => b == a + usize_of(run * SECTOR),
                (a, b) => a == b,
            };
            if !same {
                break;
            }
            run += 1;
        }
        (first, run)
    }

    fn place(&self, sector: u64) -> Place {
        let (entry, bit) = (self.entry(sector / BLOCK), 1u8 << (sector % BLOCK));
        match entry.slot {
            Some(slot) if entry.present & bit != 0 => Place::Slot(offset(slot, sector)),
            _ if entry.zero & bit != 0 => Place::Zero,
            _ => Place::Medium,
        }
    }

    /// The bytes from an offset of the slots on.
    #[must_use]
    pub fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.data.get(offset..)?.get(..len)
    }

    /// Writes sectors: `fill` is called with each piece of the overlay in turn, and says whether it
    /// could fill it.
    ///
    /// # Errors
    /// [`WriteError`]; the sectors before were written.
    pub fn write(
        &mut self,
        sector: u64,
        count: u64,
        mut fill: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<(), WriteError> {
        let end = sector.saturating_add(count).min(self.sectors);
        let mut at = sector;
        while at < end {
            let stop = end.min((at / BLOCK + 1) * BLOCK);
            let old = self.entry(at / BLOCK);
            let slot = match old.slot {
                Some(slot) => slot,
                None => self.free.pop().ok_or(WriteError::Full)?,
            };
            let start = offset(slot, at);
            let piece = self.data.get_mut(start..start + usize_of((stop - at) * SECTOR));
            if !fill(piece.ok_or(WriteError::Full)?) {
                if old.slot.is_none() {
                    self.free.push(slot);
                }
                return Err(WriteError::NoData);
            }
            let mask = mask(at, stop);
            let new =
                Entry { slot: Some(slot), present: old.present | mask, zero: old.zero & !mask };
            self.store(at / BLOCK, new);
            at = stop;
        }
        Ok(())
    }

    /// Makes sectors read as zero, and gives back what they took.
    pub fn clear(&mut self, sector: u64, count: u64) {
        let end = sector.saturating_add(count).min(self.sectors);
        let mut at = sector;
        while at < end {
            let stop = end.min((at / BLOCK + 1) * BLOCK);
            let old = self.entry(at / BLOCK);
            let mask = mask(at, stop);
            let present = old.present & !mask;
            let slot = old.slot.filter(|_| present != 0);
            self.store(at / BLOCK, Entry { slot, present, zero: old.zero | mask });
            if slot.is_none() {
                self.free.extend(old.slot);
            }
            at = stop;
        }
    }

    fn entry(&self, block: u64) -> Entry {
        let word = self.map.get(usize_of(block)).map_or(0, |w| w.load(Ordering::Relaxed));
        Entry::from_word(word)
    }

    fn store(&self, block: u64, entry: Entry) {
        if let Some(word) = self.map.get(usize_of(block)) {
            // Release: the content is there before the word that refers to it.
            word.store(entry.to_word(), Ordering::Release);
        }
    }
}

/// Offset of a sector in the slots.
fn offset(slot: u32, sector: u64) -> usize {
    usize_of(u64::from(slot) * BLOCK_BYTES + sector % BLOCK * SECTOR)
}

/// The bits of the sectors from `from` to before `to`, which are of one block.
fn mask(from: u64, to: u64) -> u8 {
    let bits = ((1u64 << (to - from)) - 1) << (from % BLOCK);
    let [low, ..] = bits.to_le_bytes();
    low
}

const _: () = assert!(u64_of(usize_of(BLOCK_BYTES)) == PAGE);

#[cfg(test)]
mod tests;
