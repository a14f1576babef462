//! A place for a device in a VM: its registers, its back end, and who waits for that.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sysroot::sync::Mutex;

use super::device::{Device, Request, reason, status};
use super::page::{Page, offset};
use super::{Identity, Link};
use crate::devices::interrupt::Targets;

/// What a write led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing more.
    Done,
    /// The back end has to let go first: the vCPU executes the instruction again when it is told.
    Stall,
    /// Reasons for an interrupt were taken away; whether others are left.
    Acknowledged(bool),
}

/// What a back end's signal led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct News {
    /// vCPUs that waited for it.
    pub waiting: Targets,
    /// The interrupt line rose.
    pub interrupt: bool,
}

/// A device of a VM.
pub struct Slot {
    link: Box<dyn Link>,
    page: Box<Page>,
    device: Mutex<Device>,
    /// The driver is ready for interrupts. Relaxed: one that comes too late finds nothing to do.
    running: AtomicBool,
    /// vCPUs that wait for the back end to let go, one bit each. Sequentially consistent against
    /// the back end's answer: either the vCPU sees that, or its bit is seen.
    stalled: AtomicU64,
}

impl Slot {
    /// An empty place in front of a back end.
    #[must_use]
    pub fn new(link: Box<dyn Link>) -> Self {
        let page = Box::<Page>::default();
        let device = Mutex::new(Device::new(&page));
        Self { link, page, device, running: AtomicBool::new(false), stalled: AtomicU64::new(0) }
    }

    /// What reads give.
    #[must_use]
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Whether there is a reason for an interrupt.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.page.get(offset::INTERRUPT_STATUS) != 0
    }

    /// A vCPU writes. The doorbell takes no lock.
    pub fn write(&self, vcpu: u32, at: u64, size: u64, value: u64) -> Outcome {
        if at == offset::QUEUE_NOTIFY {
            self.link.doorbell();
            return Outcome::Done;
        }
        let mut device = self.device.lock();
        match device.write(&self.page, at, size, value) {
            Request::None => Outcome::Done,
            Request::Activate => {
                self.running.store(true, Ordering::Relaxed);
                self.link.activate(&device.setup());
                Outcome::Done
            }
            Request::Reset if self.quiesce(vcpu) => {
                device.reset(&self.page);
                Outcome::Done
            }
            Request::Reset => Outcome::Stall,
            Request::Acknowledge(reasons) => {
                Outcome::Acknowledged(self.page.acknowledge(reasons) != 0)
            }
        }
    }

    /// Stops the device; `false` where the back end has to let go first, and the vCPU be told.
    fn quiesce(&self, vcpu: u32) -> bool {
        self.running.store(false, Ordering::Relaxed);
        self.link.deactivate();
        let bit = 1 << (vcpu % u64::BITS);
        self.stalled.fetch_or(bit, Ordering::SeqCst);
        let settled = self.link.is_settled();
        if settled {
            self.stalled.fetch_and(!bit, Ordering::SeqCst);
        }
        settled
    }

    /// The VM restarts. As [`Self::quiesce`], then as after power-on.
    #[must_use]
    pub fn restart(&self, vcpu: u32) -> bool {
        let quiet = self.quiesce(vcpu);
        if quiet {
            self.device.lock().reset(&self.page);
        }
        quiet
    }

    /// The back end signals, or went away.
    pub fn signal(&self) -> News {
        let settled = self.link.is_settled();
        let waiting = if settled { self.stalled.swap(0, Ordering::SeqCst) } else { 0 };
        let interrupt = if !self.running.load(Ordering::Relaxed) {
            false
        } else if self.link.is_broken() {
            let device = self.device.lock();
            let news = self.page.status() & status::NEEDS_RESET == 0;
            device.needs_reset(&self.page);
            news && self.raise(reason::CONFIG)
        } else {
            self.raise(reason::USED)
        };
        News { waiting: Targets(waiting), interrupt }
    }

    /// The back end is there, for the first time or again. What it did before it died may not have
    /// been told.
    pub fn identify(&self, identity: Identity) -> News {
        let changed = self.device.lock().identify(&self.page, identity);
        let told = changed && self.running.load(Ordering::Relaxed) && self.raise(reason::CONFIG);
        let news = self.signal();
        News { interrupt: news.interrupt || told, ..news }
    }

    /// Returns whether the line rose.
    fn raise(&self, reasons: u32) -> bool {
        self.page.raise(reasons) == 0
    }
}

#[cfg(test)]
pub(crate) mod tests;
