//! Scheduling contexts.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::Rights;
use ipc::status::Status;

use super::create::Creation;
use super::ec::{Ec, remote};
use super::{Link, Obj};
use crate::cap::{Object, ObjectHeader};
use crate::syscall::{Caller, DONE, Handled, Outcome};
use crate::{linked, sched};

/// Where a scheduling context is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the run queue of its CPU.
    Ready,
    /// It is the CPU's current one.
    Current,
    /// In the list of the execution context that its chain waits for.
    Waiting(Obj<Ec>),
    /// Nowhere: not started yet, or dead.
    Nowhere,
}

/// Priority and time budget. All fields belong to the CPU of its execution context.
#[repr(C)]
pub struct Sc {
    /// Common part.
    pub header: ObjectHeader,
    /// The execution context at the root of the chain that runs on this time.
    pub ec: Obj<Ec>,
    /// 0 (lowest) to 127.
    pub priority: u8,
    /// Ticks of a full budget.
    pub budget: u64,
    /// Ticks left of the current budget.
    pub left: Cell<u64>,
    /// Ticks consumed so far; read by other CPUs, orders nothing.
    pub consumed: AtomicU64,
    /// Where it is.
    pub place: Cell<Place>,
    /// Neighbours in the list it is in.
    pub link: Link<Self>,
}

linked! { () => Sc, link; }

impl Sc {
    /// A scheduling context that is not started.
    pub fn new(ec: Obj<Ec>, priority: u8, budget: u64) -> Self {
        Self {
            header: ObjectHeader::new(Self::TYPE),
            ec,
            priority,
            budget,
            left: Cell::new(budget),
            consumed: AtomicU64::new(0),
            place: Cell::new(Place::Nowhere),
            link: Link::default(),
        }
    }
}

/// System call `CreateSc`.
///
/// # Errors
/// As [`Creation::begin`]; `BadCap`, `BadRight`: the EC or vCPU; `BadState`: it serves portals, has
/// a scheduling context already, or is dead; `BadParam`: priority or budget; `BadRight`: the
/// priority is above the ceiling of the PD; `Quota`.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let ec = super::ec::lookup_any(c, c.args.rdx, Rights::EC_BIND_SC)?;
    if !ec.global || ec.is_dead() || ec.sc.get().is_some() {
        return Err(Status::BadState);
    }
    let priority = u8::try_from(c.args.r10).map_err(|_| Status::BadParam)?;
    if usize::from(priority) >= sched::PRIORITIES || c.args.r8 == 0 {
        return Err(Status::BadParam);
    }
    if priority > creation.pd.ceiling {
        return Err(Status::BadRight);
    }
    let sc = creation.place_plain(Sc::new(ec, priority, c.args.r8))?;
    ec.header.add_use();
    // Only the CPU of the EC reads this, and only after the request below.
    ec.sc.set(Some(sc));
    if ec.cpu != c.cpu.sched.id {
        sched::kick(ec, remote::START);
        return DONE;
    }
    sched::enqueue(c.cpu, sc);
    drop(creation);
    sched::yield_if_needed(c.cpu, c.ec)
}

/// System call `CtrlSc`.
///
/// # Errors
/// `BadCap`, `BadRight`: the scheduling context.
pub fn control(c: &Caller<'_>) -> Handled {
    let sc = c.object::<Sc>(c.args.rdi, Rights::SC_CTRL)?;
    if let Some(current) = c.cpu.sched.sc.get() {
        sched::charge(c.cpu, current);
    }
    Ok(Outcome::Done(sc.consumed.load(Ordering::Relaxed), 0))
}
