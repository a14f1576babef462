use std::sync::{Arc, Mutex};

use ipc::proto::virtio::Setup;

use super::{Outcome, Slot};
use crate::devices::interrupt::Targets;
use crate::devices::virtio::device::{reason, status};
use crate::devices::virtio::page::offset;
use crate::devices::virtio::{Identity, Link};

/// A back end's end of a link, as a test holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct End(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) doorbells: usize,
    pub(crate) setups: Vec<Setup>,
    pub(crate) deactivated: usize,
    /// It has not let go yet.
    pub(crate) busy: bool,
    pub(crate) broken: bool,
}

impl End {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl Link for End {
    fn doorbell(&self) {
        self.with(|s| s.doorbells += 1);
    }

    fn activate(&self, setup: &Setup) {
        self.with(|s| s.setups.push(setup.clone()));
    }

    fn deactivate(&self) {
        self.with(|s| s.deactivated += 1);
    }

    fn is_settled(&self) -> bool {
        self.with(|s| !s.busy)
    }

    fn is_broken(&self) -> bool {
        self.with(|s| s.broken)
    }
}

pub(crate) fn disk() -> Identity {
    Identity {
        device: 2,
        features: 1 << 28 | 1 << 9,
        queues: 1,
        queue_size: 128,
        config: heapless::Vec::from_slice(&[1, 2, 3, 4, 5]).unwrap(),
    }
}

fn write(slot: &Slot, at: u64, value: u32) -> Outcome {
    slot.write(3, at, 4, value.into())
}

/// What a driver does up to DRIVER_OK.
pub(crate) fn drive(mut write: impl FnMut(u64, u32)) {
    for (at, value) in [
        (offset::STATUS, 0),
        (offset::STATUS, 1),
        (offset::STATUS, 3),
        (offset::DRIVER_FEATURES_SELECT, 1),
        (offset::DRIVER_FEATURES, 1),
        (offset::STATUS, 0xb),
        (offset::QUEUE_SELECT, 0),
        (offset::QUEUE_SIZE, 64),
        (offset::QUEUE_DESCRIPTORS, 0x1000),
        (offset::QUEUE_AVAILABLE, 0x2000),
        (offset::QUEUE_USED, 0x3000),
        (offset::QUEUE_READY, 1),
        (offset::STATUS, 0xf),
    ] {
        write(at, value);
    }
}

fn running() -> (Slot, End) {
    let end = End::default();
    let slot = Slot::new(Box::new(end.clone()));
    let _ = slot.identify(disk());
    drive(|at, value| assert_eq!(write(&slot, at, value), Outcome::Done));
    (slot, end)
}

#[test]
fn the_doorbell_reaches_the_back_end() {
    let (slot, end) = running();
    assert_eq!(end.with(|s| (s.setups.len(), s.doorbells)), (1, 0));
    assert_eq!(write(&slot, offset::QUEUE_NOTIFY, 0), Outcome::Done);
    assert_eq!(end.with(|s| s.doorbells), 1);
}

#[test]
fn the_line_rises_once_until_acknowledged() {
    let (slot, _) = running();
    assert!(slot.signal().interrupt);
    assert!(!slot.signal().interrupt);
    assert_eq!(slot.page().get(offset::INTERRUPT_STATUS), reason::USED);
    assert_eq!(write(&slot, offset::INTERRUPT_ACK, reason::USED), Outcome::Acknowledged(false));
    assert!(slot.signal().interrupt);
}

/// A reason that came between the driver's look and its acknowledgement is not lost.
#[test]
fn what_is_left_after_an_acknowledgement_is_told_again() {
    let (slot, _) = running();
    assert!(slot.signal().interrupt);
    let mut changed = disk();
    changed.config[0] = 9;
    assert!(!slot.identify(changed).interrupt);
    assert_eq!(write(&slot, offset::INTERRUPT_ACK, reason::USED), Outcome::Acknowledged(true));
}

#[test]
fn no_interrupt_without_a_driver() {
    let end = End::default();
    let slot = Slot::new(Box::new(end));
    assert!(!slot.identify(disk()).interrupt);
    assert!(!slot.signal().interrupt);
    assert!(!slot.is_pending());
}

#[test]
fn a_reset_waits_for_the_back_end() {
    let (slot, end) = running();
    end.with(|s| s.busy = true);
    assert_eq!(write(&slot, offset::STATUS, 0), Outcome::Stall);
    assert_eq!(end.with(|s| s.deactivated), 2);
    assert_eq!(slot.page().status(), 0xf, "the driver still sees the old status");
    // A signal from before is no interrupt any more, and wakes nobody.
    assert_eq!(slot.signal(), super::News::default());
    end.with(|s| s.busy = false);
    assert_eq!(slot.signal().waiting, Targets(1 << 3));
    assert_eq!(write(&slot, offset::STATUS, 0), Outcome::Done);
    assert_eq!(slot.page().status(), 0);
}

#[test]
fn a_broken_device_says_so_once() {
    let (slot, end) = running();
    end.with(|s| s.broken = true);
    assert!(slot.signal().interrupt);
    assert_eq!(slot.page().status(), 0xf | status::NEEDS_RESET);
    assert_eq!(slot.page().get(offset::INTERRUPT_STATUS), reason::CONFIG);
    assert_eq!(write(&slot, offset::INTERRUPT_ACK, reason::CONFIG), Outcome::Acknowledged(false));
    assert!(!slot.signal().interrupt);
    end.with(|s| s.broken = false);
    assert_eq!(write(&slot, offset::STATUS, 0), Outcome::Done);
    assert_eq!(slot.page().status(), 0);
}

#[test]
fn a_back_end_that_comes_back_may_have_used_buffers() {
    let (slot, _) = running();
    assert!(slot.identify(disk()).interrupt);
    assert_eq!(slot.page().get(offset::INTERRUPT_STATUS), reason::USED);
    assert_eq!(slot.page().status(), 0xf);
}

#[test]
fn a_restart_of_the_vm_resets_the_device() {
    let (slot, end) = running();
    end.with(|s| s.busy = true);
    assert!(!slot.restart(0));
    end.with(|s| s.busy = false);
    assert!(slot.restart(0));
    assert_eq!(slot.page().status(), 0);
    assert_eq!(slot.page().get(offset::DEVICE_ID), 2);
}
