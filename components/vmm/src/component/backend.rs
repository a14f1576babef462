//! Sessions with the back ends of virtio devices.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use ipc::cap::{ObjectType, Range, Rights, Selector};
use ipc::proto::service::Protocol;
use ipc::proto::start::Used;
use ipc::proto::virtio::{Join, Setup, Shared, Virtio};
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::service::{self, Client, Windows};
use sysroot::{log, memory, process, selector, syscall, time};

use super::console::Failure;
use crate::devices::virtio::{Identity, Link, MAX_DEVICES};
use crate::host::Host;
use crate::vm::Vm;

/// Badge of the first device's back end.
const FIRST_BADGE: u32 = 8;
const _: () = assert!(FIRST_BADGE as usize + MAX_DEVICES < 63);

/// How long a VM waits for its back ends before it starts without them.
const PATIENCE_MS: u64 = 10_000;
/// How often it asks meanwhile.
const RETRY_MS: u64 = 50;

/// A session: one device.
pub(super) struct Backend {
    used: &'static Used<'static>,
    client: Client<Virtio>,
    shared: &'static Shared,
    /// Where the back end's semaphore arrives.
    doorbell: Selector,
    badge: u64,
    /// The back end does not want the device. Relaxed: only the main thread uses it.
    refused: AtomicBool,
}

impl Backend {
    fn new(used: &'static Used<'static>, badge: u64) -> Option<Self> {
        Some(Self {
            used,
            client: Client::new(Selector(u64::from(used.portals))),
            shared: memory::shared(used.shared?)?,
            doorbell: selector::alloc_range(0).ok()?,
            badge,
            refused: AtomicBool::new(false),
        })
    }

    /// Whether the back end that was joined is still there: its semaphore goes with it.
    fn is_alive(&self) -> bool {
        let held = syscall::query(Range::object(Rights::empty()), self.doorbell.0);
        held.is_ok_and(|(held, _)| held.object() == Some(ObjectType::Sm))
    }

    /// Joins the device of the session.
    fn join(&self) -> core::result::Result<Identity, Failure> {
        // What is left of a back end before.
        let _ = syscall::revoke_object(self.doorbell, Rights::FULL, true);
        let bell = service::object_item(process::semaphore(), Rights::SM_UP, 0, self.badge);
        let windows = Windows { objects: Some((self.doorbell, 0)), memory: None };
        let (joined, _) = self.client.call_with(&Join {}, &[bell], windows)?;
        Ok(Identity {
            device: joined.device,
            features: joined.features,
            queues: joined.queues,
            queue_size: joined.queue_size,
            config: joined.config,
        })
    }

    /// Joins where the back end is new, and says what it is. Whether it is there now.
    fn revive(&self) -> Option<Identity> {
        match self.join() {
            Ok(identity) => {
                // The guest may have rung between the back end's look at its queues and now.
                self.ring();
                Some(identity)
            }
            // It will come; the root task tells.
            Err(Failure::Service(error)) if error.is_gone() => None,
            Err(error) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    log!("no device from {}: {error}", self.used.provider);
                }
                None
            }
        }
    }

    fn ring(&self) {
        // Where the back end is gone, the next one looks by itself.
        let _ = Cap::<Semaphore, Up>::new(self.doorbell).up();
    }

    fn is_missing(&self) -> bool {
        !self.refused.load(Ordering::Relaxed) && !self.is_alive()
    }
}

impl Link for &'static Backend {
    fn doorbell(&self) {
        self.ring();
    }

    fn activate(&self, setup: &Setup) {
        self.shared.activate(setup);
        self.doorbell();
    }

    fn deactivate(&self) {
        if self.shared.wanted().is_active() {
            self.shared.deactivate();
            self.doorbell();
        }
    }

    fn is_settled(&self) -> bool {
        self.shared.reached() == self.shared.wanted() || !self.is_alive()
    }

    fn is_broken(&self) -> bool {
        self.shared.is_broken()
    }
}

/// All back ends that the configuration gives the VM, in its order.
pub(super) fn all() -> Vec<&'static Backend> {
    let uses = process::start().uses.iter().filter(|u| u.service == Virtio::NAME);
    let mut list = Vec::new();
    for (n, used) in (0u32..).zip(uses) {
        match Backend::new(used, 1 << (FIRST_BADGE + n % 32)) {
            Some(backend) => list.push(&*Box::leak(Box::new(backend))),
            None => log!("no session with {}", used.provider),
        }
    }
    list
}

/// The ways to them.
pub(super) fn links(backends: &[&'static Backend]) -> Vec<Box<dyn Link>> {
    backends.iter().map(|backend| Box::new(*backend) as Box<dyn Link>).collect()
}

/// Waits until all back ends are there, or for long enough: a guest looks for devices once.
pub(super) fn gather(vm: &Vm<'_>, backends: &[&'static Backend]) {
    let mut left = PATIENCE_MS / RETRY_MS;
    loop {
        let mut missing = None;
        for (backend, slot) in backends.iter().zip(vm.virtio()).filter(|(b, _)| b.is_missing()) {
            match backend.revive() {
                // Nobody drives it yet, so nobody is to be told.
                Some(identity) => drop(slot.identify(identity)),
                None => missing = Some(backend.used.provider),
            }
        }
        let Some(provider) = missing else { return };
        if left == 0 {
            return log!("starting without a device from {provider}");
        }
        left -= 1;
        let _ = process::semaphore().down_all(Some(time::deadline_in_ms(RETRY_MS)));
    }
}

/// The root task says that something changed: joins back ends that are new, and wakes whoever waits
/// for one that is gone.
pub(super) fn refresh(vm: &Vm<'_>, host: &dyn Host, backends: &[&'static Backend]) {
    for (index, backend) in backends.iter().enumerate().filter(|(_, b)| !b.is_alive()) {
        match backend.revive() {
            Some(identity) => vm.virtio_identify(host, index, identity),
            None => vm.virtio_signal(host, index),
        }
    }
}

/// Back ends signalled.
pub(super) fn signals(vm: &Vm<'_>, host: &dyn Host, backends: &[&'static Backend], badges: u64) {
    for (index, _) in backends.iter().enumerate().filter(|(_, b)| b.badge & badges != 0) {
        vm.virtio_signal(host, index);
    }
}
