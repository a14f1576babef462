//! What VMMs call. Handlers run on their callers' time, so they take no locks and change atomics
//! only; the back end's loop does the work.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::proto::service::{Fault, Incoming, Protocol};
use ipc::proto::start::{Client, Start};
use ipc::proto::virtio::{
    Counters, Join, Joined, MAX_CONFIG, MAX_QUEUE_SIZE, MAX_QUEUES, Server, Shared, Statistics,
    Virtio,
};
use ipc::status::Status;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::{log, memory, process, service};

use crate::queue::RING_FEATURES;

/// Badge bits below this one are the back end's own, for interrupts of its devices.
pub const FIRST_BADGE: u32 = 8;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Device id (virtio 1.2, 5).
    pub device: u32,
    /// Features of the device, without those of virtqueues.
    pub features: u64,
    /// Number of queues.
    pub queues: u16,
    /// Most descriptors of each, a power of two.
    pub queue_size: u16,
    /// Device-specific configuration.
    pub config: heapless::Vec<u8, MAX_CONFIG>,
}

impl Description {
    /// Whether it keeps to the limits of the protocol.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        usize::from(self.queues) <= MAX_QUEUES
            && self.queue_size.is_power_of_two()
            && self.queue_size <= MAX_QUEUE_SIZE
    }
}

/// Counters of a device since its back end started. Relaxed: they are informative.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests or frames from the guest.
    pub from_guest: AtomicU64,
    /// Requests or frames to the guest.
    pub to_guest: AtomicU64,
    /// Bytes of payload from the guest.
    pub bytes_from_guest: AtomicU64,
    /// Bytes of payload to the guest.
    pub bytes_to_guest: AtomicU64,
    /// What was dropped or failed.
    pub failed: AtomicU64,
    /// Times that the device had to give up.
    pub broken: AtomicU64,
}

impl Tally {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    fn read(&self) -> Counters {
        let [from_guest, to_guest, bytes_from_guest, bytes_to_guest, failed, broken] = [
            &self.from_guest,
            &self.to_guest,
            &self.bytes_from_guest,
            &self.bytes_to_guest,
            &self.failed,
            &self.broken,
        ]
        .map(|c| c.load(Ordering::Relaxed));
        Counters { from_guest, to_guest, bytes_from_guest, bytes_to_guest, failed, broken }
    }
}

/// A device, as handlers and loop share it.
#[derive(Debug)]
pub struct Seat {
    /// Index of the client in the start block.
    pub client: usize,
    /// What the device is.
    pub description: Description,
    /// Its counters.
    pub tally: Tally,
    /// Agreed with the VMM.
    pub shared: &'static Shared,
    /// Selector of the semaphore to tell the VMM with; 0 until it joined. Release: who sees it may
    /// use what the VMM sent along.
    bell: AtomicU64,
    /// A VMM joined and may have missed signals. Release, after `bell`.
    joined: AtomicBool,
}

impl Seat {
    /// The device of a client.
    #[must_use]
    pub fn new(client: usize, description: Description, shared: &'static Shared) -> Self {
        Self {
            client,
            description,
            tally: Tally::default(),
            shared,
            bell: AtomicU64::new(0),
            joined: AtomicBool::new(false),
        }
    }

    /// Badge of the VMM's signals.
    fn badge(&self) -> u64 {
        // At most 32 clients: the bit is below the root task's.
        u32::try_from(self.client).ok().and_then(|n| 1u64.checked_shl(FIRST_BADGE + n)).unwrap_or(0)
    }

    /// Tells the VMM that something changed.
    pub fn notify(&self) {
        let bell = self.bell.load(Ordering::Acquire);
        if bell != 0 {
            // Where the VMM is gone this fails, and nobody needs to be told.
            let _ = Cap::<Semaphore, Up>::new(Selector(bell)).up();
        }
    }

    /// Whether a VMM joined since the last call.
    #[must_use]
    pub fn take_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed) && self.joined.swap(false, Ordering::Acquire)
    }
}

/// The server: shared by the handlers of all CPUs.
#[derive(Debug)]
pub struct Desk {
    /// Devices, in the order of their clients.
    pub seats: Vec<Seat>,
}

impl Desk {
    /// Creates a device for each client of the service and serves them. `describe` says what a
    /// client's device is, or why there is none, which is logged.
    ///
    /// # Errors
    /// As [`service::provide`].
    pub fn open<E: core::fmt::Display>(
        start: &Start<'static>,
        mut describe: impl FnMut(usize, &Client<'static>) -> Result<Description, E>,
    ) -> Result<&'static Self, Status> {
        let mut seats = Vec::new();
        for (index, client) in start.clients.iter().enumerate() {
            if client.service != Virtio::NAME {
                continue;
            }
            let Some(shared) = client.shared.and_then(memory::shared::<Shared>) else { continue };
            match describe(index, client) {
                Ok(description) if description.is_valid() => {
                    seats.push(Seat::new(index, description, shared));
                }
                Ok(_) => log!("no device for {}: too many queues", client.name),
                Err(reason) => log!("no device for {} ({}): {reason}", client.name, client.args),
            }
        }
        let desk = Box::leak(Box::new(Self { seats }));
        service::provide::<Virtio, _>(desk)?;
        Ok(desk)
    }

    fn seat(&self, call: &Incoming) -> Result<&Seat, Fault> {
        let mut seats = self.seats.iter();
        seats.find(|s| u64::try_from(s.client) == Ok(call.session)).ok_or(Fault::NotFound)
    }
}

impl Server for Desk {
    fn join(&self, call: &mut Incoming, _request: Join) -> Result<Joined, Fault> {
        let seat = self.seat(call)?;
        let bell = call.objects().next().ok_or(Fault::Capability)?;
        call.keep = true;
        let old = seat.bell.swap(bell.0, Ordering::AcqRel);
        call.replaced = (old != 0).then_some(Selector(old));
        seat.joined.store(true, Ordering::Release);
        let own = process::semaphore();
        call.attach_object(own.selector(), Rights::SM_UP, 0, seat.badge())?;
        let _ = own.up();
        let Description { device, features, queues, queue_size, config } = seat.description.clone();
        Ok(Joined { device, features: features | RING_FEATURES, queues, queue_size, config })
    }

    fn statistics(&self, call: &mut Incoming, _request: Statistics) -> Result<Counters, Fault> {
        Ok(self.seat(call)?.tally.read())
    }
}
