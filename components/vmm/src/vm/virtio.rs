//! A VM's virtio devices: what their registers and their back ends' signals do to the rest of it.

use core::sync::atomic::Ordering;

use super::{Phase, Vm};
use crate::devices::interrupt::Targets;
use crate::devices::virtio::slot::{News, Outcome, Slot};
use crate::devices::virtio::{FIRST_GSI, Identity};
use crate::host::Host;

impl Vm<'_> {
    /// Its virtio devices.
    #[must_use]
    pub fn virtio(&self) -> &[Slot] {
        &self.virtio
    }

    /// A vCPU writes to the registers of a device. Returns whether it has to wait and execute the
    /// instruction again.
    pub fn virtio_write(
        &self,
        host: &dyn Host,
        vcpu: u32,
        (index, offset): (usize, u64),
        size: u64,
        value: u64,
    ) -> bool {
        let Some(slot) = self.virtio.get(index) else { return false };
        match slot.write(vcpu, offset, size, value) {
            Outcome::Done => false,
            Outcome::Stall => true,
            Outcome::Acknowledged(more) => {
                let targets = self.interrupt(index, slot, more);
                self.recall(host, targets, vcpu);
                false
            }
        }
    }

    /// A back end signals, or went away. Called outside exits, at any priority.
    pub fn virtio_signal(&self, host: &dyn Host, index: usize) {
        if let Some(slot) = self.virtio.get(index) {
            self.virtio_news(host, index, slot, slot.signal());
        }
    }

    /// A back end is there, for the first time or again.
    pub fn virtio_identify(&self, host: &dyn Host, index: usize, identity: Identity) {
        if let Some(slot) = self.virtio.get(index) {
            self.virtio_news(host, index, slot, slot.identify(identity));
        }
    }

    fn virtio_news(&self, host: &dyn Host, index: usize, slot: &Slot, news: News) {
        if news.interrupt {
            for vcpu in self.interrupt(index, slot, true).iter() {
                host.recall(vcpu);
            }
        }
        for vcpu in news.waiting.iter() {
            self.attention_of(host, vcpu);
        }
    }

    /// The interrupt line of a device rose (or rises again), or has to be looked at.
    fn interrupt(&self, index: usize, slot: &Slot, rose: bool) -> Targets {
        let gsi = FIRST_GSI + crate::num::low32(crate::num::u64_of(index));
        match self.routes.edge(gsi) {
            Some(message) if rose => self.apics.deliver(message),
            Some(_) => Targets::default(),
            None => self.devices.lock().drive(gsi, slot.is_pending(), &self.apics),
        }
    }

    /// Stops all devices for a restart; `false` where a back end has to let go first, upon which
    /// the vCPU is told.
    pub(super) fn restart_virtio(&self, vcpu: u32) -> bool {
        // All of them are told, also behind one that is not ready.
        let busy = self.virtio.iter().filter(|slot| !slot.restart(vcpu)).count();
        busy == 0
    }

    /// Whether the VM is to stand still.
    #[inline]
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Has the VM stand still, or go on. Its clocks go on in any case.
    pub fn pause(&self, host: &dyn Host, on: bool) {
        let before = self.paused.swap(on, Ordering::Relaxed);
        if before != on && self.phase() != Phase::Stopped {
            for vcpu in 0..self.config.vcpus {
                host.recall(vcpu);
            }
        }
    }
}
