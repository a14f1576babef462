//! Guest RAM: the one door to memory that a guest owns.
//!
//! All of a guest's RAM is mapped as one range, in its VMM and in its back ends alike. Below the device hole it starts at
//! guest-physical address 0, what is left continues at 4 GiB. The guest may change any byte at any
//! time, so every access copies, with volatile or atomic operations, and nothing hands out a
//! reference.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use sysroot::num::{u64_of, usize_of};

/// First address of the device hole: RAM never covers it.
pub const HOLE_START: u64 = 0xc000_0000;
/// First address above the device hole.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// An access that does not lie in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRam {
    /// Guest-physical address of the access.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl fmt::Display for NotRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at guest-physical {:#x} are not RAM", self.len, self.gpa)
    }
}

impl core::error::Error for NotRam {}

/// A contiguous piece of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address.
    pub gpa: u64,
    /// Size in bytes.
    pub size: u64,
    /// Offset from the start of the mapping.
    pub offset: u64,
}

/// The RAM of a VM.
#[derive(Clone, Debug)]
pub struct Ram {
    base: NonNull<u8>,
    size: u64,
}

// SAFETY: `Ram` is an address range that is mapped for as long as it is used; all access to it is by volatile
// or atomic copies, which any thread may do at any time.
unsafe impl Send for Ram {}
// SAFETY: As for `Send`: no method hands out a reference into the range.
unsafe impl Sync for Ram {}

impl Ram {
    /// RAM that is mapped at `base`.
    ///
    /// # Safety
    /// `base` is aligned to 8 bytes, and `size` bytes there are mapped readable and writable
    /// whenever they are accessed, or nothing is, so that an access faults and ends the component.
    /// Rust objects are never placed there.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, size: u64) -> Self {
        Self { base, size: size & !0xfff }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes below the device hole.
    #[must_use]
    pub fn low_size(&self) -> u64 {
        self.size.min(HOLE_START)
    }

    /// The pieces of RAM in guest-physical order.
    pub fn regions(&self) -> impl Iterator<Item = Region> + use<> {
        regions(self.size)
    }

    /// Whether all of `len` bytes at `gpa` are RAM.
    #[must_use]
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        self.offset(gpa, len).is_ok()
    }

    fn offset(&self, gpa: u64, len: u64) -> Result<usize, NotRam> {
        let low = self.low_size();
        let (start, limit, base) =
            if gpa < HOLE_END { (gpa, low, 0) } else { (gpa - HOLE_END, self.size - low, low) };
        match start.checked_add(len) {
            Some(end) if end <= limit => Ok(usize_of(base + start)),
            _ => Err(NotRam { gpa, len }),
        }
    }

    fn pointer(&self, gpa: u64, len: u64) -> Result<NonNull<u8>, NotRam> {
        let offset = self.offset(gpa, len)?;
        // SAFETY: `offset` checked that `offset + len <= size`, and `new`'s caller promised that
        // `size` bytes are mapped at `base`.
        Ok(unsafe { self.base.add(offset) })
    }

    /// Copies from guest memory, eight bytes at a time where alignment allows.
    ///
    /// # Errors
    /// Nothing is copied where the range is not all RAM.
    pub fn read(&self, gpa: u64, to: &mut [u8]) -> Result<(), NotRam> {
        let from = self.pointer(gpa, u64_of(to.len()))?;
        let head = from.align_offset(8).min(to.len());
        let (head, rest) = to.split_at_mut(head);
        let mut at = head.len();
        for (i, byte) in head.iter_mut().enumerate() {
            // SAFETY: `pointer` checked `to.len()` bytes, and `head` is no longer.
            *byte = unsafe { from.add(i).read_volatile() };
        }
        let mut words = rest.chunks_exact_mut(8);
        for word in words.by_ref() {
            // SAFETY: Eight bytes at `at` lie within the checked range, and `head` ends where the
            // pointer is aligned.
            let value = unsafe { from.add(at).cast::<u64>().read_volatile() };
            word.copy_from_slice(&value.to_le_bytes());
            at += 8;
        }
        for byte in words.into_remainder() {
            // SAFETY: The remainder ends with the checked range.
            *byte = unsafe { from.add(at).read_volatile() };
            at += 1;
        }
        Ok(())
    }

    /// Copies into guest memory, eight bytes at a time where alignment allows.
    ///
    /// # Errors
    /// Nothing is copied where the range is not all RAM.
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
        let to = self.pointer(gpa, u64_of(from.len()))?;
        let head = to.align_offset(8).min(from.len());
        let (head, rest) = from.split_at_checked(head).unwrap_or((from, &[]));
        for (i, byte) in head.iter().enumerate() {
            // SAFETY: `pointer` checked `from.len()` bytes, and `head` is no longer.
            unsafe { to.add(i).write_volatile(*byte) };
        }
        let mut at = head.len();
        let mut words = rest.chunks_exact(8);
        for word in words.by_ref() {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            // SAFETY: Eight bytes at `at` lie within the checked range, and `head` ends where the
            // pointer is aligned.
            unsafe { to.add(at).cast::<u64>().write_volatile(u64::from_le_bytes(bytes)) };
            at += 8;
        }
        for byte in words.remainder() {
            // SAFETY: The remainder ends with the checked range.
            unsafe { to.add(at).write_volatile(*byte) };
            at += 1;
        }
        Ok(())
    }

    /// Copies from here to another guest's memory, or within this one where the ranges do not
    /// overlap: in words, and past no buffer, where both are aligned alike.
    ///
    /// # Errors
    /// Nothing is copied where one of the ranges is not all RAM.
    pub fn copy(&self, gpa: u64, to: &Self, to_gpa: u64, len: u64) -> Result<(), NotRam> {
        let (from, into) = (self.pointer(gpa, len)?, to.pointer(to_gpa, len)?);
        if from.align_offset(8) != into.align_offset(8) {
            return self.copy_by_buffer(gpa, to, to_gpa, len);
        }
        let len = usize_of(len);
        let byte = |at: usize| {
            // SAFETY: `pointer` checked `len` bytes of both, and no caller goes beyond.
            unsafe { into.add(at).write_volatile(from.add(at).read_volatile()) };
        };
        let word = |at: usize| {
            // SAFETY: as above, eight bytes at `at`, where both are aligned to them.
            unsafe {
                let value = from.add(at).cast::<u64>().read_volatile();
                into.add(at).cast::<u64>().write_volatile(value);
            }
        };
        let mut at = from.align_offset(8).min(len);
        (0..at).for_each(byte);
        while len - at >= 64 {
            word(at);
            word(at + 8);
            word(at + 16);
            word(at + 24);
            word(at + 32);
            word(at + 40);
            word(at + 48);
            word(at + 56);
            at += 64;
        }
        while len - at >= 8 {
            word(at);
            at += 8;
        }
        (at..len).for_each(byte);
        Ok(())
    }

    fn copy_by_buffer(&self, gpa: u64, to: &Self, to_gpa: u64, len: u64) -> Result<(), NotRam> {
        let mut buffer = [0; 2048];
        let mut done = 0;
        while done < len {
            let count = (len - done).min(u64_of(buffer.len()));
            let part = buffer.get_mut(..usize_of(count)).unwrap_or_default();
            self.read(gpa + done, part)?;
            to.write(to_gpa + done, part)?;
            done += count;
        }
        Ok(())
    }

    /// Reads `N` bytes as an array.
    ///
    /// # Errors
    /// The range is not all RAM.
    pub fn read_array<const N: usize>(&self, gpa: u64) -> Result<[u8; N], NotRam> {
        let mut bytes = [0; N];
        self.read(gpa, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a little-endian word of `size` bytes (1 to 8): in one access where it is aligned.
    ///
    /// # Errors
    /// The range is not all RAM.
    pub fn read_word(&self, gpa: u64, size: u64) -> Result<u64, NotRam> {
        let from = self.pointer(gpa, size.min(8))?;
        let aligned = from.align_offset(usize_of(size.clamp(1, 8)).next_power_of_two()) == 0;
        // SAFETY: `pointer` checked the range, and `aligned` the alignment of the type.
        unsafe {
            match (size, aligned) {
                (1, _) => return Ok(u64::from(from.read_volatile())),
                (2, true) => return Ok(u64::from(from.cast::<u16>().read_volatile())),
                (4, true) => return Ok(u64::from(from.cast::<u32>().read_volatile())),
                (8, true) => return Ok(from.cast::<u64>().read_volatile()),
                _ => {}
            }
        }
        let mut bytes = [0; 8];
        if let Some(part) = bytes.get_mut(..usize_of(size.min(8))) {
            self.read(gpa, part)?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes the low `size` bytes (1 to 8) of `value`: in one access where it is aligned.
    ///
    /// # Errors
    /// The range is not all RAM.
    pub fn write_word(&self, gpa: u64, size: u64, value: u64) -> Result<(), NotRam> {
        let to = self.pointer(gpa, size.min(8))?;
        let aligned = to.align_offset(usize_of(size.clamp(1, 8)).next_power_of_two()) == 0;
        // SAFETY: `pointer` checked the range, and `aligned` the alignment of the type.
        unsafe {
            match (size, aligned) {
                (1, _) => to.write_volatile(crate::num::low8(value)),
                (2, true) => to.cast::<u16>().write_volatile(crate::num::low16(value)),
                (4, true) => to.cast::<u32>().write_volatile(crate::num::low32(value)),
                (8, true) => to.cast::<u64>().write_volatile(value),
                _ => {
                    let bytes = value.to_le_bytes();
                    let part = bytes.get(..usize_of(size.min(8))).unwrap_or(&[]);
                    return self.write(gpa, part);
                }
            }
        }
        Ok(())
    }

    /// Sets bits of an aligned 8-byte word and returns what was there.
    ///
    /// # Errors
    /// The word is not in RAM or not aligned.
    pub fn set_bits_u64(&self, gpa: u64, bits: u64) -> Result<u64, NotRam> {
        let at = self.aligned(gpa, 8)?.cast::<u64>();
        // SAFETY: In range and aligned; other vCPUs change page-table entries with locked
        // operations only, as this does.
        let word = unsafe { AtomicU64::from_ptr(at.as_ptr()) };
        // Orders nothing: the bits carry no other data.
        Ok(word.fetch_or(bits, Ordering::Relaxed))
    }

    /// The same for a word of 4 bytes.
    ///
    /// # Errors
    /// The word is not in RAM or not aligned.
    pub fn set_bits_u32(&self, gpa: u64, bits: u32) -> Result<u32, NotRam> {
        let at = self.aligned(gpa, 4)?.cast::<u32>();
        // SAFETY: As in `set_bits_u64`.
        let word = unsafe { AtomicU32::from_ptr(at.as_ptr()) };
        // Orders nothing: the bits carry no other data.
        Ok(word.fetch_or(bits, Ordering::Relaxed))
    }

    /// Reads an aligned word of 2 bytes; later accesses stay behind it (acquire).
    ///
    /// # Errors
    /// The word is not in RAM or not aligned.
    pub fn load_u16(&self, gpa: u64) -> Result<u16, NotRam> {
        let at = self.aligned(gpa, 2)?.cast::<u16>();
        // SAFETY: In range and aligned; the guest uses plain or locked accesses of the machine.
        let word = unsafe { AtomicU16::from_ptr(at.as_ptr()) };
        Ok(word.load(Ordering::Acquire))
    }

    /// Writes an aligned word of 2 bytes; earlier accesses stay before it (release).
    ///
    /// # Errors
    /// The word is not in RAM or not aligned.
    pub fn store_u16(&self, gpa: u64, value: u16) -> Result<(), NotRam> {
        let at = self.aligned(gpa, 2)?.cast::<u16>();
        // SAFETY: As in `load_u16`.
        let word = unsafe { AtomicU16::from_ptr(at.as_ptr()) };
        word.store(value, Ordering::Release);
        Ok(())
    }

    fn aligned(&self, gpa: u64, size: u64) -> Result<NonNull<u8>, NotRam> {
        let at = self.pointer(gpa, size)?;
        if gpa.is_multiple_of(size) { Ok(at) } else { Err(NotRam { gpa, len: size }) }
    }

    /// RAM of zeroes for tests; it is never given back.
    #[cfg(any(test, feature = "test"))]
    #[must_use]
    pub fn for_test(size: u64) -> Self {
        let words = alloc::vec![0u64; usize_of(size / 8)].leak();
        // SAFETY: The allocation is leaked, aligned to 8, and reachable through this object only.
        unsafe { Self::new(NonNull::from(words).cast(), size) }
    }
}

/// The pieces that RAM of `size` bytes falls into.
pub fn regions(size: u64) -> impl Iterator<Item = Region> + use<> {
    let low = size.min(HOLE_START);
    let high = size - low;
    [Region { gpa: 0, size: low, offset: 0 }, Region { gpa: HOLE_END, size: high, offset: low }]
        .into_iter()
        .filter(|r| r.size > 0)
}

#[cfg(test)]
mod tests;
