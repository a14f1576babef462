//! The session with the console service.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use ipc::cap::{ObjectType, Range, Rights};
use ipc::proto::console::{self, INPUT, Join, OUTPUT};
use ipc::proto::ring::{Consumer, Producer};
use ipc::proto::service::Error;
use ipc::status::Status;
use spin::Once;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::service::{self, Client, Windows};
use sysroot::{log, process, selector, syscall};

use crate::console::{Batched, Console, Nowhere, Sink};

/// Badge with which the service signals input, or room for output.
pub(super) const BADGE: u64 = 1;

/// Where the service's semaphore arrives, this time and after a restart of the service.
static DOORBELL: Once<Option<ipc::cap::Selector>> = Once::new();

/// There is a terminal. Relaxed: only the main thread uses it.
static OPENED: AtomicBool = AtomicBool::new(false);

/// Why there is no session.
pub(super) enum Failure {
    /// The service's answer.
    Service(Error),
    /// Own resources, or what the service handed out.
    Status(Status),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Service(e)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(e) => write!(f, "{e:?}"),
            Self::Status(status) => status.fmt(f),
        }
    }
}

/// Opens the console; without a service the VM runs with nobody looking.
pub(super) fn open() -> Box<dyn Console> {
    match connect() {
        Ok(Some(terminal)) => {
            OPENED.store(true, Ordering::Relaxed);
            Box::new(Batched::new(terminal))
        }
        Ok(None) => {
            log!("no console in the configuration: output of the guest is dropped");
            Box::new(Nowhere)
        }
        Err(error) => {
            log!("console not available: {error}");
            Box::new(Nowhere)
        }
    }
}

/// The root task says that something changed: joins a service that is new, in the same memory, so
/// that nothing is lost. A console where there was none so far is returned.
pub(super) fn refresh() -> Option<Box<dyn Console>> {
    if let Some(Some(doorbell)) = DOORBELL.get()
        && syscall::query(Range::object(Rights::empty()), doorbell.0)
            .is_ok_and(|(held, _)| held.object() == Some(ObjectType::Sm))
    {
        return None;
    }
    // Where it is not back yet there will be other news.
    let terminal = connect().ok()??;
    let first = !OPENED.load(Ordering::Relaxed);
    OPENED.store(true, Ordering::Relaxed);
    first.then(|| Box::new(Batched::new(terminal)) as Box<dyn Console>)
}

fn connect() -> Result<Option<Terminal>, Failure> {
    let Some(client) = Client::<console::Console>::connect() else { return Ok(None) };
    // The root task's memory: it stays when the service dies.
    let shared = client.shared().ok_or(Status::BadCap)?;
    let objects = (*DOORBELL.call_once(|| selector::alloc_range(0).ok())).ok_or(Status::Quota)?;
    // What is left of a session before.
    let _ = syscall::revoke_object(objects, Rights::FULL, true);
    let bell = service::object_item(process::semaphore(), Rights::SM_UP, 0, BADGE);
    let windows = Windows { objects: Some((objects, 0)), memory: None };
    client.call_with(&Join {}, &[bell], windows)?;
    Ok(Some(Terminal {
        output: shared.output.producer(),
        input: shared.input.consumer(),
        doorbell: Cap::new(objects),
        wake: false,
        ahead: [0; AHEAD],
        next: 0,
        len: 0,
    }))
}

/// Bytes of input that are taken from the ring at once.
const AHEAD: usize = 32;

/// An open console.
struct Terminal {
    output: Producer<'static, OUTPUT>,
    input: Consumer<'static, INPUT>,
    doorbell: Cap<Semaphore, Up>,
    /// The service may be asleep.
    wake: bool,
    /// Input that was taken, from `next` to `len`.
    ahead: [u8; AHEAD],
    next: usize,
    len: usize,
}

impl Sink for Terminal {
    fn write(&mut self, bytes: &[u8]) -> usize {
        match self.output.push(bytes) {
            Ok(moved) => {
                self.wake |= moved.wake;
                moved.bytes
            }
            // The service broke the ring: nobody will read on.
            Err(_) => bytes.len(),
        }
    }

    fn notify(&mut self) {
        if core::mem::take(&mut self.wake) {
            let _ = self.doorbell.up();
        }
    }

    fn read(&mut self) -> Option<u8> {
        if self.next >= self.len {
            let moved = self.input.pop(&mut self.ahead).unwrap_or_default();
            (self.next, self.len) = (0, moved.bytes);
            if moved.wake {
                let _ = self.doorbell.up();
            }
        }
        let byte = self.ahead.get(..self.len)?.get(self.next).copied()?;
        self.next += 1;
        Some(byte)
    }
}
