//! The virtio service: a back end of virtio devices and the VMM that emulates their transport.
//!
//! A session is one device of one VM. The VMM emulates registers, feature negotiation and
//! interrupts; the back end works on the virtqueues, in the guest's memory, which the root task
//! maps for it. Both agree through the session's memory, which is the root task's and stays when
//! either side dies:
//!
//! 1. The VMM joins and learns what the device is.
//! 2. When the driver has set the device up, the VMM writes features and queues into [`Shared`] and
//!    asks for a new, active epoch. When the driver resets the device, it asks for an inactive one.
//! 3. The back end follows: once `Shared::reached` equals `Shared::wanted` it uses the queues of
//!    that epoch and no others; in an inactive epoch it touches no guest memory.
//! 4. The guest's doorbell is a signal to the back end, completion is one to the VMM.
//!
//! A back end publishes used buffers in the order in which they were made available, so a device
//! whose back end died goes on where the index of its used ring stands: what was in flight is done
//! again, in order, and nothing that was acknowledged is lost. After a join both sides look at
//! everything once, so no signal is missed.
//!
//! Each side treats what the other wrote as hostile, and reads every word once.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use heapless::Vec;

use super::ring::Shareable;

/// Most queues of a device.
pub const MAX_QUEUES: usize = 8;

/// Most descriptors of a queue.
pub const MAX_QUEUE_SIZE: u16 = 256;

/// Bytes of the device-specific configuration.
pub const MAX_CONFIG: usize = 64;

/// A split virtqueue, as its driver set it up (virtio 1.2, 2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Number of descriptors, a power of two; 0 where the driver does not use the queue.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

/// A [`Queue`] in shared memory.
#[derive(Debug, Default)]
#[repr(C)]
struct QueueCell {
    size: AtomicU32,
    descriptors: AtomicU64,
    available: AtomicU64,
    used: AtomicU64,
}

/// What a driver set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Features that driver and device agreed on.
    pub features: u64,
    /// Queues by index.
    pub queues: [Queue; MAX_QUEUES],
}

/// An epoch: the time between two changes of a device's set-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub u32);

impl Epoch {
    /// Whether the queues are in use.
    #[must_use]
    pub const fn is_active(self) -> bool {
        self.0 & 1 != 0
    }

    /// The next epoch, active or not.
    #[must_use]
    pub const fn next(self, active: bool) -> Self {
        Self((self.0 & !1).wrapping_add(2) | active as u32)
    }
}

/// What lies in the memory of a session. All zero is a device that is not set up.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub struct Shared {
    /// Written by the VMM (release) after the set-up, read by the back end (acquire).
    wanted: AtomicU32,
    /// Written by the back end (release) when it has let go of the epoch before.
    reached: AtomicU32,
    /// Epoch in which the back end gave up, as the driver broke the rules; written by it.
    broken: AtomicU32,
    /// Ordered by `wanted`.
    features: AtomicU64,
    queues: [QueueCell; MAX_QUEUES],
}

/// log2 of the pages of a [`Shared`].
pub const SHARED_ORDER: u8 = 0;

impl Shareable for Shared {}

impl Shared {
    /// The epoch that the VMM wants.
    #[must_use]
    pub fn wanted(&self) -> Epoch {
        Epoch(self.wanted.load(Ordering::Acquire))
    }

    /// The epoch that the back end is in.
    #[must_use]
    pub fn reached(&self) -> Epoch {
        Epoch(self.reached.load(Ordering::Acquire))
    }

    /// Whether the device needs a reset: its driver broke the rules in this epoch.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let wanted = self.wanted();
        wanted.is_active() && Epoch(self.broken.load(Ordering::Acquire)) == wanted
    }

    /// VMM: starts an active epoch with this set-up. The back end is to be signalled.
    pub fn activate(&self, setup: &Setup) -> Epoch {
        self.features.store(setup.features, Ordering::Relaxed);
        for (cell, queue) in self.queues.iter().zip(&setup.queues) {
            cell.size.store(queue.size.into(), Ordering::Relaxed);
            cell.descriptors.store(queue.descriptors, Ordering::Relaxed);
            cell.available.store(queue.available, Ordering::Relaxed);
            cell.used.store(queue.used, Ordering::Relaxed);
        }
        self.want(true)
    }

    /// VMM: starts an inactive epoch. The back end is to be signalled; the device is quiet once the
    /// epoch is reached, or the back end is gone.
    pub fn deactivate(&self) -> Epoch {
        self.want(false)
    }

    fn want(&self, active: bool) -> Epoch {
        let next = Epoch(self.wanted.load(Ordering::Relaxed)).next(active);
        self.wanted.store(next.0, Ordering::Release);
        next
    }

    /// Back end: the set-up of the wanted epoch; to be checked. Sizes beyond 16 bits read as 0.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let mut setup =
            Setup { features: self.features.load(Ordering::Relaxed), ..Setup::default() };
        for (queue, cell) in setup.queues.iter_mut().zip(&self.queues) {
            *queue = Queue {
                size: u16::try_from(cell.size.load(Ordering::Relaxed)).unwrap_or(0),
                descriptors: cell.descriptors.load(Ordering::Relaxed),
                available: cell.available.load(Ordering::Relaxed),
                used: cell.used.load(Ordering::Relaxed),
            };
        }
        setup
    }

    /// Back end: works in this epoch from now on. The VMM is to be signalled.
    pub fn reach(&self, epoch: Epoch) {
        self.reached.store(epoch.0, Ordering::Release);
    }

    /// Back end: gives up until the next epoch. The VMM is to be signalled.
    pub fn give_up(&self, epoch: Epoch) {
        self.broken.store(epoch.0, Ordering::Release);
    }
}

message! {
    /// Joins the device of the session. Attached: a semaphore to signal the VMM with.
    pub struct Join {}
}

message! {
    /// What the device is. Attached: a semaphore to signal the back end with, at offset 0 of the
    /// window.
    pub struct Joined {
        /// Device id (virtio 1.2, 5): 1 network card, 2 block device, 3 console.
        pub device: u32,
        /// Features that it offers.
        pub features: u64,
        /// Number of queues.
        pub queues: u16,
        /// Most descriptors of each.
        pub queue_size: u16,
        /// Device-specific configuration, as the driver reads it.
        pub config: Vec<u8, MAX_CONFIG>,
    }
}

message! {
    /// Asks for the counters of the device.
    pub struct Statistics {}
}

message! {
    /// Counters since the back end started.
    pub struct Counters {
        /// Requests or frames from the guest.
        pub from_guest: u64,
        /// Requests or frames to the guest.
        pub to_guest: u64,
        /// Bytes of payload from the guest.
        pub bytes_from_guest: u64,
        /// Bytes of payload to the guest.
        pub bytes_to_guest: u64,
        /// What was dropped or failed.
        pub failed: u64,
        /// Times that the device had to give up.
        pub broken: u64,
    }
}

service! {
    /// The virtio service. The session is the device.
    pub service Virtio = "virtio", version 1, shared Shared, order SHARED_ORDER;
    /// Joins the device.
    1 => join: Join => Joined;
    /// Reads its counters.
    2 => statistics: Statistics => Counters;
}
