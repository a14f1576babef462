//! The register page of a device.
//!
//! Reading a register has no effect, so the page holds at any time what a read gives: it can be
//! mapped for the guest to read without an exit, and only writes come to the VMM.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::num::{low8, usize_of};

/// Size of the page.
pub const SIZE: u64 = 0x1000;
/// Bytes of the registers and the device-specific configuration together.
pub const USED: u64 = 0x200;
const WORDS: usize = usize_of(SIZE / 4);

/// Registers by offset (virtio 1.2, 4.2.2). Those of 64 bits are two of 32, low half first.
pub mod offset {
    /// "virt".
    pub const MAGIC: u64 = 0x00;
    /// Version of the register layout.
    pub const VERSION: u64 = 0x04;
    /// Device id.
    pub const DEVICE_ID: u64 = 0x08;
    /// Vendor.
    pub const VENDOR_ID: u64 = 0x0c;
    /// 32 of the device's features, as selected.
    pub const DEVICE_FEATURES: u64 = 0x10;
    /// Which 32.
    pub const DEVICE_FEATURES_SELECT: u64 = 0x14;
    /// 32 of the features that the driver takes, as selected.
    pub const DRIVER_FEATURES: u64 = 0x20;
    /// Which 32.
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    /// Which queue the following registers are about.
    pub const QUEUE_SELECT: u64 = 0x30;
    /// Most descriptors.
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    /// Number of descriptors.
    pub const QUEUE_SIZE: u64 = 0x38;
    /// Whether the queue is in use.
    pub const QUEUE_READY: u64 = 0x44;
    /// The doorbell: the queue's index is written.
    pub const QUEUE_NOTIFY: u64 = 0x50;
    /// Why there is an interrupt.
    pub const INTERRUPT_STATUS: u64 = 0x60;
    /// Which reasons are dealt with.
    pub const INTERRUPT_ACK: u64 = 0x64;
    /// Device status.
    pub const STATUS: u64 = 0x70;
    /// Descriptor table.
    pub const QUEUE_DESCRIPTORS: u64 = 0x80;
    /// Its upper half.
    pub const QUEUE_DESCRIPTORS_HIGH: u64 = 0x84;
    /// Available ring.
    pub const QUEUE_AVAILABLE: u64 = 0x90;
    /// Its upper half.
    pub const QUEUE_AVAILABLE_HIGH: u64 = 0x94;
    /// Used ring.
    pub const QUEUE_USED: u64 = 0xa0;
    /// Its upper half.
    pub const QUEUE_USED_HIGH: u64 = 0xa4;
    /// Length of a shared memory region, low half: all ones, as there is none.
    pub const SHARED_MEMORY: u64 = 0xb0;
    /// Its other three halves.
    pub const SHARED_MEMORY_END: u64 = 0xc0;
    /// Counts changes of the configuration.
    pub const CONFIG_GENERATION: u64 = 0xfc;
    /// The device-specific configuration.
    pub const CONFIG: u64 = 0x100;
}

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
