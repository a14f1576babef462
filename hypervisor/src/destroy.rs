//! The end of objects.
//!
//! An object whose last capability and last use are gone is *dead*. Its CPU lets go of it in a
//! rendezvous ([`let_go`]), after which nothing can reach it; then its memory returns to the
//! account that paid for it, and the uses it made of other objects end, which may be their end.

use core::cell::Cell;
use core::ptr::NonNull;

use ipc::cap::ObjectType;
use ipc::status::Status;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::cap::{self, ObjectHeader, Progress};
use crate::mem::account::Account;
use crate::mem::frames::PageList;
use crate::object::Obj;
use crate::object::ec::{Ec, State};
use crate::object::pd::Pd;
use crate::object::pt::Pt;
use crate::object::sc::{Place, Sc};
use crate::object::sm::Sm;
use crate::object::vcpu::{GuestSpace, Vcpu};
use crate::sync::Guard;
use crate::sync::rendezvous::{self, Request};
use crate::{interrupt, sched};

/// Dead objects, linked through their headers.
#[derive(Default)]
pub struct DeadList(Cell<Option<NonNull<ObjectHeader>>>);

impl DeadList {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Takes one out.
    pub fn pop(&self) -> Option<NonNull<ObjectHeader>> {
        let first = self.0.get()?;
        // SAFETY: objects in the list are alive.
        self.0.set(unsafe { first.as_ref() }.next.take());
        Some(first)
    }

    /// Adds an object.
    pub fn push(&self, header: NonNull<ObjectHeader>) {
        // SAFETY: objects on the way to the list are alive until it is reaped.
        unsafe { header.as_ref() }.next.set(self.0.replace(Some(header)));
    }
}

fn typed<T>(header: &ObjectHeader) -> Obj<T> {
    // SAFETY: callers dispatch on the type in the header, and objects are `repr(C)` with the
    // header first (in `Vcpu` that of its `ec`).
    unsafe { Obj::new(NonNull::from_ref(header).cast()) }
}

/// Draws the consequences of a revocation. Kernel lock.
pub fn conclude(kernel: &mut Guard, cpu: &PerCpu, mut outcome: cap::Outcome) {
    if outcome.is_empty() {
        return;
    }
    let dead = DeadList::default();
    while let Some(object) = outcome.next_dead() {
        without_capabilities(kernel, object, &dead);
    }
    rendezvous::all(kernel, cpu, Request { host_tlb: outcome.flush, ..Request::default() });
    // SAFETY: every CPU has left the kernel and flushed since the pages were unlinked.
    unsafe { outcome.free_pages(&mut kernel.frames) };
    reap(kernel, cpu, &dead);
}

/// The last capability of an object is gone.
fn without_capabilities(kernel: &mut Guard, object: NonNull<ObjectHeader>, dead: &DeadList) {
    // SAFETY: an object stays allocated until it is reaped.
    let header = unsafe { object.as_ref() };
    match header.ty {
        // What they hold is taken from them step by step; meanwhile they are in use.
        ObjectType::Pd | ObjectType::Guest => {
            header.add_use();
            if header.ty == ObjectType::Pd {
                typed::<Pd>(header).dying.set(true);
            }
            kernel.dying.push(object);
        }
        _ if header.uses.get() == 0 => dead.push(object),
        _ => {}
    }
}

/// Ends a use of an object. Kernel lock; the caller holds no reference to it afterwards.
pub fn drop_use(kernel: &mut Guard, cpu: &PerCpu, object: NonNull<ObjectHeader>) {
    // SAFETY: the use that is given up kept it alive.
    if unsafe { object.as_ref() }.drop_use() {
        let dead = DeadList::default();
        dead.push(object);
        reap(kernel, cpu, &dead);
    }
}

/// Does a step for a protection domain or guest space that is being destroyed; whether there is
/// more to do. Kernel lock.
pub fn dissolve(kernel: &mut Guard, cpu: &PerCpu, budget: u32) -> bool {
    let Some(object) = kernel.dying.pop() else { return false };
    // SAFETY: the use made by `without_capabilities` keeps it alive.
    let header = unsafe { object.as_ref() };
    let state = &mut **kernel;
    let outcome = if header.ty == ObjectType::Pd {
        let pd = typed::<Pd>(header);
        if !pd.spaces.is_closed() {
            rendezvous::all(kernel, cpu, Request { dying: Some(pd), ..Request::default() });
        }
        let state = &mut **kernel;
        cap::destroy_spaces(&mut state.frames, &mut state.revocations, &pd.spaces, budget)
    } else {
        let guest = typed::<GuestSpace>(header);
        cap::destroy_guest(&mut state.frames, &mut state.revocations, &guest.space, budget)
    };
    let more = outcome.progress == Progress::More;
    if more {
        kernel.dying.push(object);
    }
    conclude(kernel, cpu, outcome);
    if !more {
        drop_use(kernel, cpu, object);
    }
    !kernel.dying.is_empty()
}

/// Makes everything in the list, and what dies with it, unreachable, and frees it. Kernel lock.
fn reap(kernel: &mut Guard, cpu: &PerCpu, dead: &DeadList) {
    let mut pages = PageList::new();
    while !dead.is_empty() || !pages.is_empty() {
        let first = dead.0.take();
        // Nobody can find the objects any more; their CPUs let go of them, others finish with
        // what they found before.
        rendezvous::all(kernel, cpu, Request { host_tlb: true, dead: first, dying: None });
        // SAFETY: unlinked before the rendezvous, in which every CPU flushed and left the kernel.
        unsafe { pages.free(&mut kernel.frames) };
        for_each(first, |header| evict_waiters(cpu, header));
        // A CPU may have signalled after the object's own CPU emptied its inbox: once more, so
        // that no inbox holds a dead object.
        rendezvous::all(kernel, cpu, Request::default());
        for_each(first, |header| free(kernel, header, dead, &mut pages));
    }
}

/// Visits a list of objects, each of which may be freed by the visit.
fn for_each(first: Option<NonNull<ObjectHeader>>, mut visit: impl FnMut(NonNull<ObjectHeader>)) {
    let mut next = first;
    while let Some(header) = next {
        // SAFETY: not freed before its turn.
        next = unsafe { header.as_ref() }.next.get();
        visit(header);
    }
}

/// Wakes everybody who waits for a dying semaphore.
fn evict_waiters(cpu: &PerCpu, header: NonNull<ObjectHeader>) {
    // SAFETY: freed later only.
    let header = unsafe { header.as_ref() };
    if header.ty == ObjectType::Sm {
        let sm = typed::<Sm>(header);
        while let Some(ec) = sm.evict() {
            interrupt::wake_with(cpu, ec, Status::Aborted, 0);
        }
    }
}

/// Frees one object after the rendezvous.
fn free(kernel: &mut Guard, header: NonNull<ObjectHeader>, dead: &DeadList, pages: &mut PageList) {
    // SAFETY: still allocated; the link is not needed any more.
    let object = unsafe { header.as_ref() };
    object.next.set(None);
    let release = |user: NonNull<ObjectHeader>| {
        // SAFETY: the use that ends kept it alive.
        if unsafe { user.as_ref() }.drop_use() {
            dead.push(user);
        }
    };
    macro_rules! release_memory {
        ($object:expr, $pd:expr) => {{
            let pd = $pd;
            // SAFETY: unreachable since the rendezvous, and its account lives as long as its PD,
            // which this object's use kept.
            unsafe { Account::free(&mut kernel.frames, $object.pointer()) };
            release(pd.pointer().cast());
        }};
    }
    match object.ty {
        ObjectType::Pt => {
            let pt = typed::<Pt>(object);
            release(pt.ec.pointer().cast());
            release_memory!(pt, pt.pd);
        }
        ObjectType::Sm => {
            let sm = typed::<Sm>(object);
            release_memory!(sm, sm.pd);
        }
        ObjectType::Sc => {
            let sc = typed::<Sc>(object);
            release(sc.ec.pointer().cast());
            release_memory!(sc, sc.pd);
        }
        ObjectType::Ec => {
            let ec = typed::<Ec>(object);
            let pd = ec.pd;
            pd.unlink(ec);
            if let Some(utcb) = ec.utcb {
                let account = &pd.spaces.account;
                pd.spaces.memory.space.unmap_kernel_frame(account, ec.utcb_address, pages);
                // Freed with the page tables, after the flush that follows.
                pages.push(utcb.cast(), account);
            }
            release_memory!(ec, pd);
        }
        ObjectType::Vcpu => {
            let vcpu = typed::<Vcpu>(object);
            let pd = vcpu.ec.pd;
            pd.unlink(Obj::of(&vcpu.ec));
            // SAFETY: it was detached, and no CPU runs it.
            for page in unsafe { vcpu.guest() }.pages() {
                pages.push(page.cast(), &pd.spaces.account);
            }
            release(vcpu.space.pointer().cast());
            release_memory!(vcpu, pd);
        }
        ObjectType::Guest => {
            let space = typed::<GuestSpace>(object);
            // SAFETY: it was dissolved, and no vCPU uses it.
            unsafe { space.space.free_roots(&mut kernel.frames) };
            release_memory!(space, space.pd);
        }
        ObjectType::Pd => {
            let pd = typed::<Pd>(object);
            if let Some(parent) = pd.parent.get() {
                // SAFETY: it was dissolved, its execution contexts are gone, no CPU runs in it.
                unsafe { pd.spaces.free_roots(&mut kernel.frames) };
                pd.spaces.account.surrender(&parent.spaces.account);
                release_memory!(pd, parent);
            }
        }
        // Interrupts are never destroyed.
        ObjectType::Interrupt | ObjectType::Null => {}
    }
}

/// Called on every CPU in a rendezvous for each dead object: drops it where this CPU is its own.
pub fn let_go(cpu: &PerCpu, header: &ObjectHeader) {
    match header.ty {
        ObjectType::Ec | ObjectType::Vcpu => {
            let ec = typed::<Ec>(header);
            if ec.cpu == cpu.sched.id {
                stop_ec(cpu, ec);
                sched::forget(cpu, ec);
            }
        }
        ObjectType::Sc => {
            let sc = typed::<Sc>(header);
            if sc.ec.cpu == cpu.sched.id {
                sched::remove(cpu, sc);
            }
        }
        _ => {}
    }
}

/// Called on every CPU in a rendezvous: stops everything of a protection domain that is being
/// destroyed.
pub fn leave(cpu: &PerCpu, pd: Obj<Pd>) {
    let mut next = pd.ecs.get();
    while let Some(ec) = next {
        next = ec.siblings.get().1;
        if ec.cpu == cpu.sched.id {
            stop_ec(cpu, ec);
            sched::forget(cpu, ec);
        }
    }
    sched::leave_space(cpu, pd);
}

/// Stops an execution context of this CPU for good. Whoever waits for it is told.
pub fn stop_ec(cpu: &PerCpu, ec: Obj<Ec>) {
    if ec.is_dead() {
        return;
    }
    ec.state.set(State::Dead);
    ec.regs.set(flag::DEAD);
    if let Some(sm) = ec.waits_for.take() {
        // Where a signal was faster, its wake-up finds nobody waiting.
        let _ = sm.cancel(ec);
    }
    cpu.sched.timeouts.remove(ec);
    crate::ipc::abort_caller(ec);
    if let Some(partner) = ec.partner.take() {
        partner.caller.set(None);
    }
    // Their chains end elsewhere now; those that began here find a dead root and are dropped.
    while let Some(sc) = ec.waiting.pop_front() {
        sc.place.set(Place::Nowhere);
        if sc.ec != ec {
            sched::enqueue(cpu, sc);
        }
    }
}
