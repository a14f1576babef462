//! Scheduling contexts.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{ObjectType, Rights};
use ipc::status::Status;

use super::Obj;
use super::create::Creation;
use super::ec::{Ec, remote};
use super::pd::Pd;
use crate::cap::{Object, ObjectHeader};
use crate::sched;
use crate::syscall::{Caller, Handled, Outcome};

/// Where a scheduling context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The PD it is charged to; constant.
    pub pd: Obj<Pd>,
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
    pub next: Cell<Option<Obj<Sc>>>,
    /// See `next`.
    pub prev: Cell<Option<Obj<Sc>>>,
}

// SAFETY: the header is the first field and the structure is `repr(C)`.
unsafe impl Object for Sc {
    const TYPE: ObjectType = ObjectType::Sc;
}

/// A first-in, first-out list of scheduling contexts, linked through them.
#[derive(Default)]
pub struct List {
    head: Cell<Option<Obj<Sc>>>,
    tail: Cell<Option<Obj<Sc>>>,
}

impl List {
    /// An empty list.
    pub const fn new() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None) }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// The first one.
    pub fn first(&self) -> Option<Obj<Sc>> {
        self.head.get()
    }

    /// Appends.
    pub fn push_back(&self, sc: Obj<Sc>) {
        sc.next.set(None);
        sc.prev.set(self.tail.get());
        match self.tail.replace(Some(sc)) {
            Some(last) => last.next.set(Some(sc)),
            None => self.head.set(Some(sc)),
        }
    }

    /// Prepends.
    pub fn push_front(&self, sc: Obj<Sc>) {
        sc.prev.set(None);
        sc.next.set(self.head.get());
        match self.head.replace(Some(sc)) {
            Some(first) => first.prev.set(Some(sc)),
            None => self.tail.set(Some(sc)),
        }
    }

    /// Takes the first one out.
    pub fn pop_front(&self) -> Option<Obj<Sc>> {
        let sc = self.head.get()?;
        self.remove(sc);
        Some(sc)
    }

    /// Takes one out that is in this list.
    pub fn remove(&self, sc: Obj<Sc>) {
        match sc.prev.get() {
            Some(prev) => prev.next.set(sc.next.get()),
            None => self.head.set(sc.next.get()),
        }
        match sc.next.get() {
            Some(next) => next.prev.set(sc.prev.get()),
            None => self.tail.set(sc.prev.get()),
        }
        sc.next.set(None);
        sc.prev.set(None);
    }
}

impl Sc {
    /// A scheduling context that is not started.
    pub const fn new(pd: Obj<Pd>, ec: Obj<Ec>, priority: u8, budget: u64) -> Self {
        Self {
            header: ObjectHeader::new(Self::TYPE),
            pd,
            ec,
            priority,
            budget,
            left: Cell::new(budget),
            consumed: AtomicU64::new(0),
            place: Cell::new(Place::Nowhere),
            next: Cell::new(None),
            prev: Cell::new(None),
        }
    }
}

/// System call `CreateSc`.
///
/// # Errors
/// As [`Creation::begin`]; `BadCap`, `BadRight`: the EC or vCPU; `BadState`: it serves portals, has
/// a scheduling context already, or is dead; `BadParam`: priority or budget; `Quota`.
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
    let sc = creation.place_plain(Sc::new(creation.pd, ec, priority, c.args.r8))?;
    ec.header.add_use();
    // Only the CPU of the EC reads this, and only after the request below.
    ec.sc.set(Some(sc));
    if ec.cpu != c.cpu.sched.id {
        sched::kick(ec, remote::START);
        return creation.done();
    }
    sched::enqueue(c.cpu, sc);
    let _ = creation.done()?;
    sched::yield_if_needed(c.cpu, c.ec)
}

/// System call `CtrlSc`.
///
/// # Errors
/// `BadCap`, `BadRight`: the scheduling context.
pub fn control(c: &Caller<'_>) -> Handled {
    let sc = c.ec.pd.spaces.objects.lookup::<Sc>(c.args.rdi, Rights::SC_CTRL)?;
    sched::charge_current(c.cpu);
    Ok(Outcome::Done(sc.consumed.load(Ordering::Relaxed), 0))
}
