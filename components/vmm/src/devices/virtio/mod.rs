//! Virtio devices: their transport, memory-mapped registers of version 2 (virtio 1.2, 4.2).
//!
//! A device itself is elsewhere: a back end works on its queues. Here are the registers
//! ([`device`]), the interrupt line and what a vCPU waits for ([`slot`]), and the way to the back
//! end, a [`Link`].

pub mod device;
pub mod page;
pub mod slot;

/// Most devices of a VM: each has a pin of the I/O APIC of its own.
pub const MAX_DEVICES: usize = 16;

/// Pin of the first device's interrupt.
pub const FIRST_GSI: u32 = 8;

const _: () = assert!(FIRST_GSI as usize + MAX_DEVICES <= crate::devices::ioapic::PINS as usize);

use heapless::Vec;
use ipc::proto::virtio::{MAX_CONFIG, Setup};

/// What a back end says that its device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Device id (virtio 1.2, 5); 0 is no device.
    pub device: u32,
    /// Features that it offers, the transport's not included.
    pub features: u64,
    /// Number of queues.
    pub queues: u16,
    /// Most descriptors of each.
    pub queue_size: u16,
    /// Device-specific configuration.
    pub config: Vec<u8, MAX_CONFIG>,
}

/// The way to a back end. No method blocks.
pub trait Link: Send + Sync {
    /// The driver made buffers available.
    fn doorbell(&self);
    /// The driver set the device up.
    fn activate(&self, setup: &Setup);
    /// The driver resets the device. Nothing happens where it is not active.
    fn deactivate(&self);
    /// Whether the back end has followed the last change, or is gone and with it what it did.
    fn is_settled(&self) -> bool;
    /// Whether it gave up because the driver broke the rules.
    fn is_broken(&self) -> bool;
}
