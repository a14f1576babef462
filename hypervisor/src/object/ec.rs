//! Execution contexts: threads of host code, and the common part of vCPUs.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use ipc::cap::{MemRights, ObjectType, Rights};
use ipc::state::Mtd;
use ipc::status::{Result, Status};
use ipc::syscall::{EC_FPU, EC_GLOBAL, EcOp, Number};
use ipc::utcb::Utcb;

use super::create::Creation;
use super::pd::Pd;
use super::sc::Sc;
use super::sm::Sm;
use super::vcpu::Vcpu;
use super::{Link, List, Obj};
use crate::arch::fpu::Fpu;
use crate::arch::layout;
use crate::arch::regs::{FRAME_END, Regs, USER_RFLAGS, flag};
use crate::cap::{Object, ObjectHeader, Ticket};
use crate::linked;
use crate::mem::frames::PageList;
use crate::mem::pool::{self, Page};
use crate::sched::{self, Timeouts};
use crate::sync::rendezvous::{self, Request};
use crate::syscall::{Caller, DONE, Handled, Outcome};
use crate::vcpu::StateTransfer;

/// What an execution context is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A handler that waits for a call.
    Idle,
    /// It has something to run, itself or through the partner that it called.
    Runnable,
    /// It waits for a semaphore, or it is a halted vCPU.
    Blocked,
    /// It was killed or stopped; it will not run again.
    Dead,
}

/// What another CPU wants of an execution context; bits of [`Ec::remote`].
pub mod remote {
    /// A semaphore woke it; its result registers are set.
    pub const WAKE: u8 = 1 << 0;
    /// It is recalled.
    pub const RECALL: u8 = 1 << 1;
    /// A scheduling context was bound to it.
    pub const START: u8 = 1 << 2;
}

/// A thread of host code, or the common part of a vCPU.
///
/// Unless stated otherwise a field belongs to the CPU `cpu`: only kernel code that runs there
/// reads or writes it.
#[repr(C)]
pub struct Ec {
    /// Common part; kernel lock.
    pub header: ObjectHeader,
    /// Saved registers.
    pub regs: Regs,
    /// Its protection domain; constant.
    pub pd: Obj<Pd>,
    /// Its message buffer, in kernel memory; constant. A vCPU has none.
    pub utcb: Option<NonNull<Utcb>>,
    /// Where its message buffer is mapped in its protection domain; constant.
    pub utcb_address: u64,
    /// The CPU that it is bound to; constant.
    pub cpu: u16,
    /// It has a scheduling context of its own and serves no portals; constant.
    pub global: bool,
    /// Its FPU state, where it may use the FPU.
    pub fpu: Option<Fpu>,
    /// First selector of its event portals; constant.
    pub events: u64,
    /// What it is doing.
    pub state: Cell<State>,
    /// Whom it serves, where it is a handler.
    pub caller: Cell<Option<Obj<Ec>>>,
    /// Whom it called and waits for.
    pub partner: Cell<Option<Obj<Ec>>>,
    /// An event whose handler was busy: to be delivered before anything else.
    pub pending_event: Cell<Option<u8>>,
    /// Position of a revocation between its steps.
    pub ticket: Cell<Ticket>,
    /// The event that was delivered last.
    pub last_event: Cell<u8>,
    /// The scheduling context bound to it.
    pub sc: Cell<Option<Obj<Sc>>>,
    /// Scheduling contexts that cannot run before it is woken.
    pub waiting: List<Sc, ()>,
    /// The semaphore that it waits for.
    pub waits_for: Cell<Option<Obj<Sm>>>,
    /// Whether it still stands in that semaphore's queue; that semaphore's lock.
    pub queued: Cell<bool>,
    /// Neighbours in that queue; that semaphore's lock.
    queue: Link<Self>,
    /// TSC value at which its wait ends; 0 while it is not in the CPU's list of timeouts.
    pub deadline: Cell<u64>,
    /// Neighbours in that list.
    timeout: Link<Self>,
    /// Requests of other CPUs. Whoever sets the first bit puts it into the CPU's inbox (release),
    /// the CPU takes all bits at once (acquire).
    pub remote: AtomicU8,
    /// Next in the inbox; the inbox lock.
    pub inbox_next: Cell<Option<Obj<Ec>>>,
    /// Neighbours in the list of its protection domain; kernel lock.
    siblings: Link<Self>,
}

linked! {
    Sm => Ec, queue;
    Timeouts => Ec, timeout;
    Pd => Ec, siblings;
}

impl Ec {
    /// A new execution context with cleared registers and without a message buffer, as or in an
    /// object of type `ty`.
    pub fn new(ty: ObjectType, pd: Obj<Pd>, cpu: u16, events: u64, global: bool) -> Self {
        Self {
            header: ObjectHeader::new(ty),
            regs: Regs::default(),
            pd,
            utcb: None,
            utcb_address: 0,
            cpu,
            global,
            fpu: None,
            events,
            state: Cell::new(if global { State::Runnable } else { State::Idle }),
            caller: Cell::new(None),
            partner: Cell::new(None),
            pending_event: Cell::new(None),
            ticket: Cell::default(),
            last_event: Cell::new(0),
            sc: Cell::new(None),
            waiting: List::default(),
            waits_for: Cell::new(None),
            queued: Cell::new(false),
            queue: Link::default(),
            deadline: Cell::new(0),
            timeout: Link::default(),
            remote: AtomicU8::new(0),
            inbox_next: Cell::new(None),
            siblings: Link::default(),
        }
    }

    /// Gives it its message buffer, mapped at `address`, and the registers that it starts with.
    pub fn set_up(&mut self, utcb: NonNull<Utcb>, address: u64, entry: u64, stack: u64) {
        (self.utcb, self.utcb_address) = (Some(utcb), address);
        self.regs.rip.set(entry);
        self.regs.rsp.set(stack);
        self.regs.rflags.set(USER_RFLAGS);
    }

    /// Where TSS.RSP0 points while this execution context runs.
    #[inline(always)]
    pub fn frame_end(&self) -> u64 {
        crate::num::u64_of((&raw const self.regs).addr() + FRAME_END)
    }

    /// Whether it runs a guest.
    pub fn is_vcpu(&self) -> bool {
        self.regs.has(flag::VCPU)
    }

    /// Whether it was killed or stopped.
    pub fn is_dead(&self) -> bool {
        self.state.get() == State::Dead
    }
}

/// An EC or a vCPU behind a selector of the caller.
///
/// # Errors
/// `BadCap`, `BadRight`.
pub fn lookup_any(c: &Caller<'_>, selector: u64, need: Rights) -> Result<Obj<Ec>> {
    match c.object::<Ec>(selector, need) {
        Err(Status::BadCap) => Ok(Obj::of(&c.object::<Vcpu>(selector, need)?.ec)),
        other => other.map(Obj::of),
    }
}

/// The CPU number of a call, where that CPU runs.
///
/// # Errors
/// `BadCpu`.
pub fn online_cpu(c: &Caller<'_>) -> Result<u16> {
    let cpu = Number(c.args.number).get_cpu();
    sched::is_online(cpu).then_some(cpu).ok_or(Status::BadCpu)
}

/// The event base of a call.
///
/// # Errors
/// `BadParam` where the events reach beyond the object space.
pub fn event_base(c: &Caller<'_>, events: u64) -> Result<u64> {
    let base = Number(c.args.number).get_selector();
    if base + events > ipc::cap::Selector::COUNT { Err(Status::BadParam) } else { Ok(base) }
}

/// System call `CreateEc`.
///
/// # Errors
/// As [`Creation::begin`]; `BadCpu`; `BadParam`: flags, addresses, event base; `Exists`: the UTCB
/// address is in use; `Quota`.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let flags = Number(c.args.number).get_flags();
    let cpu = online_cpu(c)?;
    let events = event_base(c, ipc::event::HOST_EVENTS)?;
    let (utcb_address, stack, entry) = (c.args.rdx, c.args.r10, c.args.r8);
    let global = flags & EC_GLOBAL != 0;
    if flags & !(EC_GLOBAL | EC_FPU) != 0
        || !layout::is_user(utcb_address)
        || utcb_address % layout::PAGE != 0
        || (global && !layout::is_user(entry))
    {
        return Err(Status::BadParam);
    }
    let pd = creation.pd;
    let page = creation.page()?;
    // SAFETY: the page is the state's alone.
    let fpu = |page: NonNull<Page>| unsafe { Fpu::new(page.cast()) };
    let fpu = if flags & EC_FPU == 0 { None } else { Some(fpu(creation.page()?)) };
    let (frames, phys) = (&mut creation.kernel.frames, pool::phys(page));
    pd.spaces.map_kernel_frame(frames, utcb_address, phys, MemRights::RW)?;
    let mut ec = Ec::new(Ec::TYPE, pd, cpu, events, global);
    ec.set_up(page.cast(), utcb_address, entry, stack);
    ec.regs.rdi.set(utcb_address);
    if fpu.is_some() {
        ec.regs.set(flag::FPU);
    }
    ec.fpu = fpu;
    let ec = creation.place_plain(ec).inspect_err(|_| {
        let (account, mut tables) = (&pd.spaces.account, PageList::new());
        pd.spaces.memory.space.unmap_kernel_frame(account, utcb_address, &mut tables);
        // SAFETY: nobody used the mapping, and CPUs do not cache entries that were not there.
        unsafe { tables.free(&mut creation.kernel.frames) };
    })?;
    pd.ecs.push_front(ec);
    DONE
}

/// System call `CtrlEc`.
///
/// # Errors
/// `BadCap`, `BadRight`; `BadParam`: no such operation, or unknown MTD bits; `BadState`: the EC is
/// dead.
pub fn control(c: &Caller<'_>) -> Handled {
    let op = EcOp::from_number(Number(c.args.number).get_flags()).ok_or(Status::BadParam)?;
    let kernel = matches!(op, EcOp::GetState | EcOp::SetState).then(|| c.lock()).transpose()?;
    let ec = lookup_any(c, c.args.rdi, Rights::EC_CTRL)?;
    if ec.is_dead() {
        return Err(Status::BadState);
    }
    let vcpu = Vcpu::of(ec).ok_or(Status::BadCap);
    match op {
        EcOp::Recall if ec.cpu == c.cpu.sched.id => {
            sched::recall(c.cpu, ec);
            sched::yield_if_needed(c.cpu, c.ec)
        }
        EcOp::Recall => {
            sched::kick(ec, remote::RECALL);
            DONE
        }
        EcOp::GetState | EcOp::SetState => {
            let vcpu = vcpu?;
            let mtd = Mtd::from_bits(c.args.rsi).ok_or(Status::BadParam)?;
            let utcb = c.ec.utcb.ok_or(Status::BadState)?;
            let transfer = StateTransfer { vcpu, mtd, utcb, set: op == EcOp::SetState };
            match &kernel {
                Some(kernel) if ec.cpu != c.cpu.sched.id => {
                    let request = Request { state: Some(Obj::of(&transfer)), ..Request::default() };
                    rendezvous::all(kernel, c.cpu, request);
                }
                _ => transfer.carry_out(c.cpu),
            }
            DONE
        }
        EcOp::Exits => {
            let vcpu = vcpu?;
            let index = usize::try_from(c.args.rsi).map_err(|_| Status::BadParam)?;
            let count = vcpu.exits.get(index).ok_or(Status::BadParam)?;
            Ok(Outcome::Done(count.load(Ordering::Relaxed), 0))
        }
    }
}
