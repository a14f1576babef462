//! Interrupts: a GSI or a vector for message-signalled interrupts, bound to a semaphore.

use core::cell::Cell;

use ipc::cap::Rights;
use ipc::status::Status;
use ipc::syscall::{InterruptOp, MESSAGE_SIGNALLED, Number, POLARITY_LOW, TRIGGER_LEVEL};

use super::Obj;
use super::sm::Sm;
use crate::cap::{Object, ObjectHeader};
use crate::destroy;
use crate::interrupt::{self as vectors, Config};
use crate::sync::rendezvous::{self, Request};
use crate::syscall::{Caller, DONE, Handled, Outcome};

/// Where an interrupt is delivered to.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The semaphore to signal; the binding accounts for it in its `uses`.
    pub sm: Obj<Sm>,
    /// With this badge.
    pub badge: u64,
    /// Level-triggered: masked until acknowledged.
    pub level: bool,
}

/// An interrupt source. Exists from boot on and is never destroyed; kernel lock, but for the
/// reads of the interrupt path, which the vector table publishes.
#[repr(C)]
pub struct Interrupt {
    /// Common part.
    pub header: ObjectHeader,
    /// Global system interrupt; `None` where the source is message-signalled.
    pub gsi: Option<u32>,
    /// Vector on the CPU that it is routed to; 0 while unbound.
    pub vector: Cell<u8>,
    /// Where it goes.
    pub binding: Cell<Option<Binding>>,
}

impl Interrupt {
    /// An unbound interrupt.
    pub const fn new(gsi: Option<u32>) -> Self {
        Self {
            header: ObjectHeader::new(Self::TYPE),
            gsi,
            vector: Cell::new(0),
            binding: Cell::new(None),
        }
    }
}

/// System call `CtrlInterrupt`.
///
/// # Errors
/// `BadCap`, `BadRight`: interrupt or semaphore; `BadParam`: operation or trigger, or a GSI that
/// is to be message-signalled; `BadCpu`; `BadState`: bound, or not bound; `Quota`: no vector left.
pub fn control(c: &Caller<'_>) -> Handled {
    let number = Number(c.args.number);
    let op = InterruptOp::from_number(number.get_flags()).ok_or(Status::BadParam)?;
    if op == InterruptOp::Ack {
        vectors::acknowledge(c.object::<Interrupt>(c.args.rdi, Rights::INT_ACK)?)?;
        return DONE;
    }
    let mut kernel = c.lock()?;
    let interrupt = c.object::<Interrupt>(c.args.rdi, Rights::INT_BIND)?;
    if op == InterruptOp::Unbind {
        if interrupt.binding.get().is_none() {
            return Err(Status::BadState);
        }
        vectors::disconnect(interrupt);
        // Whoever handles the interrupt right now has done so after this.
        rendezvous::all(&kernel, c.cpu, Request::default());
        if let Some(binding) = interrupt.binding.take() {
            destroy::drop_use(&mut kernel, c.cpu, Obj::of(&binding.sm.header));
        }
        return DONE;
    }
    let sm = c.object::<Sm>(c.args.rsi, Rights::SM_BIND)?;
    let trigger = c.args.r10;
    let message = trigger & MESSAGE_SIGNALLED != 0;
    if trigger & !(TRIGGER_LEVEL | POLARITY_LOW | MESSAGE_SIGNALLED) != 0
        || message == interrupt.gsi.is_some()
        || (message && trigger != MESSAGE_SIGNALLED)
    {
        return Err(Status::BadParam);
    }
    let config = Config {
        cpu: number.get_cpu(),
        level: trigger & TRIGGER_LEVEL != 0,
        low: trigger & POLARITY_LOW != 0,
    };
    let (address, data) = vectors::bind(interrupt, Obj::of(sm), c.args.rdx, config)?;
    Ok(if message { Outcome::Done(address, data) } else { Outcome::Done(0, 0) })
}
