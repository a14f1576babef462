//! Interrupts: a GSI or a vector for message-signalled interrupts, bound to a semaphore.

use core::cell::Cell;
use core::sync::atomic::AtomicBool;

use ipc::cap::Rights;
use ipc::status::Status;
use ipc::syscall::{InterruptOp, MESSAGE_SIGNALLED, Number, POLARITY_LOW, TRIGGER_LEVEL};

use super::sm::Sm;
use super::{Link, Obj};
use crate::cap::{self, Object, ObjectHeader};
use crate::interrupt as vectors;
use crate::linked;
use crate::sync::rendezvous::{self, Request};
use crate::syscall::{Caller, DONE, Handled, Outcome};

/// Where an interrupt is delivered to.
#[derive(Clone, Copy)]
pub struct Binding {
    /// The semaphore to signal; it unbinds before it dies.
    pub sm: Obj<Sm>,
    /// With this badge.
    pub badge: u64,
    /// On this CPU.
    pub cpu: u16,
    /// Level-triggered: masked until acknowledged.
    pub level: bool,
    /// Active low.
    pub low: bool,
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
    /// Where it goes, while it is bound. Changed only after a rendezvous since the last binding.
    pub binding: Cell<Option<Binding>>,
    /// It was masked when it arrived, and the acknowledgement that unmasks it is due. Set before the
    /// signal (release); whoever takes it back unmasks (acquire).
    pub masked: AtomicBool,
    /// Neighbours among those bound to the same semaphore.
    link: Link<Self>,
}

linked! { Sm => Interrupt, link; }

impl Interrupt {
    /// An unbound interrupt.
    pub fn new(gsi: Option<u32>) -> Self {
        Self {
            header: ObjectHeader::new(Self::TYPE),
            gsi,
            vector: Cell::new(0),
            binding: Cell::new(None),
            masked: AtomicBool::new(false),
            link: Link::default(),
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
    let kernel = c.lock()?;
    let interrupt = c.object::<Interrupt>(c.args.rdi, Rights::INT_BIND)?;
    if op == InterruptOp::Unbind {
        vectors::unbind(Obj::of(interrupt))?;
        // Whoever handles the interrupt right now has done so after this.
        rendezvous::all(&kernel, c.cpu, Request::default());
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
    let binding = Binding {
        sm: Obj::of(sm),
        badge: c.args.rdx,
        cpu: number.get_cpu(),
        level: trigger & TRIGGER_LEVEL != 0,
        low: trigger & POLARITY_LOW != 0,
    };
    let (address, data) = vectors::bind(Obj::of(interrupt), binding)?;
    cap::watch(&c.ec.pd.spaces, c.args.rdi);
    Ok(if message { Outcome::Done(address, data) } else { Outcome::Done(0, 0) })
}
