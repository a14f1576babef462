//! Physical memory through the boot page tables, which map the first 4 GiB one to one.

use super::bytes::Physical;
use super::memory::Range;
use crate::arch::layout::{BOOT_IDENTITY_END, PAGE};
use crate::num::{u64_of, usize_of};
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Read access for discovery.
pub struct Identity(());

impl Identity {
    /// # Safety
    /// The boot page tables are in use for as long as this lives, and nobody writes what is read.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

impl Physical for Identity {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        let end = address.checked_add(size)?;
        if address == 0 || end > BOOT_IDENTITY_END {
            return None;
        }
        // SAFETY: mapped (see `new`), and every byte pattern is a byte. An address that a damaged
        // table gives may be a device's; reading one at boot is harmless on a PC.
        Some(unsafe {
            core::slice::from_raw_parts(with_exposed_provenance(usize_of(address)), usize_of(size))
        })
    }
}

/// The first frames of the pool, given out before the pool itself works: for page tables.
pub struct PoolFront {
    pool: Range,
    next: u64,
    /// From physical to virtual addresses.
    offset: u64,
}

impl PoolFront {
    /// # Safety
    /// The pool is RAM that nobody uses, mapped `offset` above its physical address for as long as
    /// this lives.
    pub const unsafe fn new(pool: Range, offset: u64) -> Self {
        Self { pool, next: pool.start, offset }
    }

    /// Bytes given out so far, from the start of the pool; they stay in use for good.
    pub const fn used(&self) -> u64 {
        self.next - self.pool.start
    }

    fn word(&self, address: u64) -> Option<*mut u64> {
        let given = self.pool.start <= address && address < self.next && address.is_multiple_of(8);
        given.then(|| with_exposed_provenance_mut(usize_of(address.wrapping_add(self.offset))))
    }

    /// Address of a frame full of zeroes.
    pub fn take(&mut self) -> Option<u64> {
        let frame = self.next;
        self.next = frame.checked_add(PAGE).filter(|&end| end <= self.pool.end)?;
        let start = self.word(frame)?;
        // SAFETY: the frame is free RAM, mapped (see `new`).
        unsafe { start.write_bytes(0, usize_of(PAGE / u64_of(size_of::<u64>()))) };
        Some(frame)
    }

    /// The word at a physical address in a frame given out.
    pub fn read(&self, address: u64) -> u64 {
        // SAFETY: `word` gives only addresses in frames given out.
        self.word(address).map_or(0, |word| unsafe { word.read() })
    }

    /// Sets such a word.
    pub fn write(&mut self, address: u64, value: u64) {
        if let Some(word) = self.word(address) {
            // SAFETY: as for `read`.
            unsafe { word.write(value) }
        }
    }
}
