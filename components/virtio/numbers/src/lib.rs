//! Numbers of the virtio specification, version 1.2, that more than one side uses: VMM, back ends,
//! drivers of the machine's devices, guests that test them. Numbers of one kind of devices are where
//! that kind is.
#![no_std]
#![forbid(unsafe_code)]

/// Registers over MMIO, by offset (4.2.2). Those of 64 bits are two of 32, low half first.
pub mod register {
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

/// What the register [`register::MAGIC`] reads as.
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// Device status (2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// It knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Features that are not a device type's own (6).
pub mod feature {
    /// Descriptors may refer to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side says at which index it wants to hear of the other.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// No legacy interface.
    pub const VERSION_1: u64 = 1 << 32;
    /// Buffers are used in order.
    pub const IN_ORDER: u64 = 1 << 35;
}

/// Flags of a descriptor (2.7.5).
pub mod flag {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes.
    pub const WRITE: u16 = 2;
    /// Refers to a table of descriptors.
    pub const INDIRECT: u16 = 4;
}
