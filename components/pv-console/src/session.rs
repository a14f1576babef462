//! What clients call. Handlers run on their callers' time, so they take no locks: log lines go
//! into a ring per CPU, and what opening a console needs exists from the start.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::proto::console::{Join, Joined, Log, LogRing, Server, Shared};
use ipc::proto::ring::Record;
use ipc::proto::service::{Fault, Incoming};
use ipc::proto::start::Area;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::{process, time, utcb};

/// Badge of the UART's interrupt.
pub const UART: u64 = 1 << 0;
/// Badge of log lines from clients.
pub const LINES: u64 = 1 << 1;

/// Badge of output of the `n`-th console. Beyond the last bit they share it.
#[must_use]
pub fn output_badge(n: usize) -> u64 {
    const FIRST: usize = 8;
    const LAST: usize = 62;
    1 << (FIRST + n).min(LAST)
}

/// A client's console.
#[derive(Debug)]
pub struct Terminal {
    /// Index of the client in the start block.
    pub client: usize,
    /// The shared memory.
    pub shared: &'static Shared,
    badge: u64,
    /// Selector of the semaphore to tell the client with; 0 until it opened its console. Release:
    /// who sees it may use what the client sent along.
    bell: AtomicU64,
}

impl Terminal {
    /// A console for the client with this index, the `n`-th of all.
    #[must_use]
    pub fn new(client: usize, n: usize, area: Area) -> Option<Self> {
        let shared = sysroot::memory::shared(area)?;
        Some(Self { client, shared, badge: output_badge(n), bell: AtomicU64::new(0) })
    }

    /// Tells the client that something changed.
    pub fn notify(&self) {
        let bell = self.bell.load(Ordering::Acquire);
        if bell != 0 {
            // Where the client is gone this fails, and nobody needs to be told.
            let _ = Cap::<Semaphore, Up>::new(Selector(bell)).up();
        }
    }
}

/// The server: shared by the handlers of all CPUs.
#[derive(Debug)]
pub struct Desk {
    /// Consoles.
    pub terminals: Vec<Terminal>,
    /// Log lines of clients by CPU; the handler there is the only producer.
    pub lines: &'static [LogRing],
    /// Tells the loop of log lines.
    pub bell: Cap<Semaphore, Up>,
    /// Index of the terminal that is attached, plus 1. Relaxed: informative.
    pub attached: AtomicU64,
}

impl Server for Desk {
    fn log(&self, call: &mut Incoming, request: Log) -> Result<(), Fault> {
        let ring = self.lines.get(usize::from(utcb::cpu())).ok_or(Fault::Internal)?;
        let record = Record {
            source: u16::try_from(call.session).map_err(|_| Fault::Internal)?,
            ms: u32::try_from(time::uptime_ms()).unwrap_or(u32::MAX),
            text: request.text.as_bytes(),
        };
        match record.push(&mut ring.producer()) {
            Ok(moved) if moved.bytes > 0 => {
                if moved.wake {
                    let _ = self.bell.up();
                }
                Ok(())
            }
            Ok(_) => Err(Fault::Busy),
            Err(_) => Err(Fault::Internal),
        }
    }

    fn join(&self, call: &mut Incoming, _request: Join) -> Result<Joined, Fault> {
        let (index, terminal) = self
            .terminals
            .iter()
            .enumerate()
            .find(|(_, t)| u64::try_from(t.client) == Ok(call.session))
            .ok_or(Fault::Denied)?;
        let bell = call.objects().next().ok_or(Fault::Capability)?;
        call.keep = true;
        let old = terminal.bell.swap(bell.0, Ordering::AcqRel);
        call.replaced = (old != 0).then_some(Selector(old));
        let own = process::semaphore();
        call.attach_object(own.selector(), Rights::SM_UP, 0, terminal.badge)?;
        let attached = self.attached.load(Ordering::Relaxed);
        Ok(Joined { attached: u64::try_from(index + 1) == Ok(attached) })
    }
}
