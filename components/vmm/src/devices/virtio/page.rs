//! The register page of a device.
//!
//! Reading a register has no effect, so the page holds at any time what a read gives: it can be
//! mapped for the guest to read without an exit, and only writes come to the VMM.

use core::sync::atomic::{AtomicU32, Ordering};

pub use virtio_numbers::register as offset;

use crate::num::{low8, usize_of};

/// Size of the page.
pub const SIZE: u64 = 0x1000;
/// Bytes of the registers and the device-specific configuration together.
pub const USED: u64 = 0x200;
const WORDS: usize = usize_of(SIZE / 4);

/// The page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page([AtomicU32; WORDS]);

impl Default for Page {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; WORDS])
    }
}

impl Page {
    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        self.0.get(usize_of(offset / 4))
    }

    /// A register.
    #[must_use]
    pub fn get(&self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Changes what a register reads as.
    pub fn set(&self, offset: u64, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    /// Reads `size` bytes from `offset` on.
    #[must_use]
    pub fn read(&self, offset: u64, size: u64) -> u64 {
        (offset..offset.saturating_add(size.min(8))).rev().fold(0, |value, at| {
            let byte = self.get(at) >> (at % 4 * 8) & 0xff;
            value << 8 | u64::from(byte)
        })
    }

    /// Writes the device-specific configuration.
    pub fn set_config(&self, config: &[u8]) {
        for (at, bytes) in (offset::CONFIG..USED).step_by(4).zip(config.chunks(4)) {
            let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            self.set(at, word);
        }
    }

    /// Adds reasons for an interrupt; returns those that there were before.
    pub fn raise(&self, reasons: u32) -> u32 {
        // AcqRel: whoever sees a reason sees what led to it.
        self.word(offset::INTERRUPT_STATUS).map_or(0, |w| w.fetch_or(reasons, Ordering::AcqRel))
    }

    /// Takes reasons away; returns those that are left.
    pub fn acknowledge(&self, reasons: u32) -> u32 {
        let status = self.word(offset::INTERRUPT_STATUS);
        status.map_or(0, |w| w.fetch_and(!reasons, Ordering::AcqRel)) & !reasons
    }

    /// Device status.
    #[must_use]
    pub fn status(&self) -> u8 {
        low8(self.get(offset::STATUS).into())
    }
}
