//! The registers of a device: feature negotiation, queues, status.

use ipc::proto::virtio::{MAX_QUEUES, Queue, Setup};
pub use virtio_numbers::status;
use virtio_numbers::{MAGIC, feature};

use super::Identity;
use super::page::{Page, offset};
use crate::num::{high32, low8, low16, low32};

/// Reasons for an interrupt.
pub mod reason {
    /// Buffers were used.
    pub const USED: u32 = 1;
    /// The configuration changed.
    pub const CONFIG: u32 = 2;
}

/// What a back end may offer: its own bits, and those of the general ones that are no business of the
/// transport.
const OF_DEVICE: u64 =
    0x00ff_ffff | 0xfffc << 48 | feature::INDIRECT_DESC | feature::EVENT_IDX | feature::IN_ORDER;

const VENDOR: u32 = u32::from_le_bytes(*b"PTCO");
const VERSION: u32 = 2;

/// What a write asks for beyond the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    None,
    /// The driver is ready: what it set up is in use from now on.
    Activate,
    /// The device is to be reset; nothing has changed yet.
    Reset,
    /// The driver has dealt with these reasons for an interrupt.
    Acknowledge(u32),
}

/// A queue as the driver sets it up.
#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    queue: Queue,
    ready: bool,
}

/// A device. What reads give is in the [`Page`] that goes with it.
#[derive(Debug, Default)]
pub struct Device {
    identity: Identity,
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: [Registers; MAX_QUEUES],
    generation: u32,
}

impl Device {
    /// No device: the guest finds nothing behind the registers.
    #[must_use]
    pub fn new(page: &Page) -> Self {
        page.set(offset::MAGIC, MAGIC);
        page.set(offset::VERSION, VERSION);
        page.set(offset::VENDOR_ID, VENDOR);
        for at in (offset::SHARED_MEMORY..offset::SHARED_MEMORY_END).step_by(4) {
            page.set(at, u32::MAX);
        }
        Self::default()
    }

    /// Features that are offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.identity.features & OF_DEVICE | feature::VERSION_1
    }

    /// A back end is there, for the first time or again. Returns whether the driver has to be told:
    /// the configuration changed, or the device is not what the driver knows.
    pub fn identify(&mut self, page: &Page, identity: Identity) -> bool {
        let old = core::mem::replace(&mut self.identity, identity);
        let new = &self.identity;
        page.set(offset::DEVICE_ID, new.device);
        page.set_config(&new.config);
        if old.config != new.config {
            self.generation = self.generation.wrapping_add(1);
            page.set(offset::CONFIG_GENERATION, self.generation);
        }
        let fits = old.device == new.device
            && old.queues <= new.queues
            && old.queue_size <= new.queue_size
            && self.driver_features & !self.offered() == 0;
        let changed = old.config != self.identity.config;
        self.show(page);
        if !fits {
            self.needs_reset(page);
        }
        changed || !fits
    }

    /// Back to the state before a driver came (virtio 1.2, 2.4).
    pub fn reset(&mut self, page: &Page) {
        let identity = core::mem::take(&mut self.identity);
        *self = Self { identity, generation: self.generation, ..Self::default() };
        page.acknowledge(u32::MAX);
        page.set(offset::STATUS, 0);
        self.show(page);
    }

    /// The device cannot go on (virtio 1.2, 2.1.2). Without a driver nothing is to be said.
    pub fn needs_reset(&self, page: &Page) {
        let status = page.status();
        if status != 0 {
            page.set(offset::STATUS, u32::from(status | status::NEEDS_RESET));
        }
    }

    /// A write of `size` bytes.
    pub fn write(&mut self, page: &Page, at: u64, size: u64, value: u64) -> Request {
        // Registers are written whole (virtio 1.2, 4.2.2.2); the configuration is read-only.
        if size != 4 || !at.is_multiple_of(4) || at >= offset::CONFIG {
            return Request::None;
        }
        let value = low32(value);
        match at {
            offset::STATUS => return self.set_status(page, low8(value.into())),
            offset::INTERRUPT_ACK => return Request::Acknowledge(value),
            offset::DEVICE_FEATURES_SELECT => self.device_select = value,
            offset::DRIVER_FEATURES_SELECT => self.driver_select = value,
            offset::DRIVER_FEATURES => self.set_features(page, value),
            offset::QUEUE_SELECT => self.queue_select = value,
            _ => self.set_queue(page, at, value),
        }
        self.show(page);
        Request::None
    }

    fn set_features(&mut self, page: &Page, value: u32) {
        // What was agreed on stays.
        if page.status() & status::FEATURES_OK != 0 {
            return;
        }
        let (kept, value) = (self.driver_features, u64::from(value));
        match self.driver_select {
            0 => self.driver_features = kept & !0xffff_ffff | value,
            1 => self.driver_features = kept & 0xffff_ffff | value << 32,
            // Features that nobody has.
            _ => {}
        }
    }

    fn set_status(&mut self, page: &Page, value: u8) -> Request {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};
        if value == 0 {
            return Request::Reset;
        }
        let old = page.status();
        // Only a reset clears a bit.
        let mut new = old | value & (ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED);
        let features = self.driver_features;
        let agreed = features & feature::VERSION_1 != 0 && features & !self.offered() == 0;
        if old & FEATURES_OK == 0 && !agreed {
            new &= !FEATURES_OK;
        }
        if new & FEATURES_OK == 0 {
            new &= !DRIVER_OK;
        }
        page.set(offset::STATUS, new.into());
        if new & !old & DRIVER_OK != 0 { Request::Activate } else { Request::None }
    }

    /// What the driver set up.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let mut setup = Setup { features: self.driver_features, ..Setup::default() };
        for (to, from) in setup.queues.iter_mut().zip(&self.queues).filter(|(_, q)| q.ready) {
            *to = from.queue;
        }
        setup
    }

    /// The selected queue, where there is one.
    fn queue(&self) -> Option<&Registers> {
        let exists = self.queue_select < u32::from(self.identity.queues);
        self.queues.get(self.queue_select as usize).filter(|_| exists)
    }

    fn set_queue(&mut self, page: &Page, at: u64, value: u32) {
        const HIGH: u64 = 0xffff_ffff << 32;
        let most = self.identity.queue_size;
        // Queues of a running device stay as they are until it is reset.
        if self.queue().is_none() || page.status() & status::DRIVER_OK != 0 {
            return;
        }
        let Some(registers) = self.queues.get_mut(self.queue_select as usize) else { return };
        let queue = &mut registers.queue;
        if at == offset::QUEUE_READY {
            let size = queue.size;
            registers.ready = value & 1 != 0 && size.is_power_of_two() && size <= most;
            return;
        }
        if registers.ready {
            return;
        }
        let low = |old: u64| old & HIGH | u64::from(value);
        let high = |old: u64| old & !HIGH | u64::from(value) << 32;
        match at {
            // A size that nobody can have makes no queue.
            offset::QUEUE_SIZE => queue.size = if value > 0xffff { 0 } else { low16(value.into()) },
            offset::QUEUE_DESCRIPTORS => queue.descriptors = low(queue.descriptors),
            offset::QUEUE_DESCRIPTORS_HIGH => queue.descriptors = high(queue.descriptors),
            offset::QUEUE_AVAILABLE => queue.available = low(queue.available),
            offset::QUEUE_AVAILABLE_HIGH => queue.available = high(queue.available),
            offset::QUEUE_USED => queue.used = low(queue.used),
            offset::QUEUE_USED_HIGH => queue.used = high(queue.used),
            // Read-only, or nothing.
            _ => {}
        }
    }

    /// Brings the registers up to date that depend on a selector.
    fn show(&self, page: &Page) {
        let features = match self.device_select {
            0 => low32(self.offered()),
            1 => high32(self.offered()),
            _ => 0,
        };
        page.set(offset::DEVICE_FEATURES, features);
        let most = self.queue().map_or(0, |_| self.identity.queue_size);
        page.set(offset::QUEUE_SIZE_MAX, most.into());
        page.set(offset::QUEUE_READY, self.queue().is_some_and(|q| q.ready).into());
    }
}

#[cfg(test)]
mod tests;
