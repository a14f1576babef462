//! The end of objects.
//!
//! An object whose last capability and last use are gone is *dead*. Its CPU lets go of it in a
//! rendezvous ([`let_go`]), after which nothing can reach it; then its memory returns to the
//! account that paid for it, and the uses it made of other objects end, which may be their end.

use core::iter::successors;

use ipc::cap::ObjectType;
use ipc::status::Status;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::cap::{self, ObjectHeader, ObjectList, Owner};
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

fn typed<T>(header: Obj<ObjectHeader>) -> Obj<T> {
    // SAFETY: callers dispatch on the type in the header, and objects start with it.
    unsafe { Obj::new(header.pointer().cast()) }
}

/// Draws the consequences of a revocation. Kernel lock.
pub fn conclude(kernel: &mut Guard, cpu: &PerCpu, mut outcome: cap::Outcome) {
    if !outcome.taken {
        return;
    }
    let dead = ObjectList::default();
    while let Some(object) = outcome.dead.pop() {
        without_capabilities(kernel, object, &dead);
    }
    rendezvous::all(kernel, cpu, Request { host_tlb: outcome.flush, ..Request::default() });
    // SAFETY: every CPU has left the kernel and flushed since the pages were unlinked.
    unsafe { outcome.pages.free(&mut kernel.frames) };
    reap(kernel, cpu, &dead);
}

/// The last capability of an object is gone, or the one that bound an interrupt.
fn without_capabilities(kernel: &mut Guard, object: Obj<ObjectHeader>, dead: &ObjectList) {
    match object.ty {
        // What they hold is taken from them step by step; meanwhile they are in use.
        ObjectType::Pd | ObjectType::Guest => {
            object.add_use();
            if object.ty == ObjectType::Pd {
                typed::<Pd>(object).dying.set(true);
            }
            kernel.dying.push(object);
        }
        // Its bindings end with it, or with the capability that made them.
        ObjectType::Sm => {
            let sm = typed::<Sm>(object);
            while let Some(interrupt) = sm.interrupts.first() {
                let _ = interrupt::unbind(interrupt);
            }
        }
        // One that is not bound has nothing to end.
        ObjectType::Interrupt => drop(interrupt::unbind(typed(object))),
        _ => {}
    }
    if object.uses.get() == 0 && object.ty != ObjectType::Interrupt {
        dead.push(object);
    }
}

/// Ends a use of an object. Kernel lock; the caller holds no reference to it afterwards.
pub fn drop_use(kernel: &mut Guard, cpu: &PerCpu, object: Obj<ObjectHeader>) {
    if object.drop_use() {
        let dead = ObjectList::default();
        dead.push(object);
        reap(kernel, cpu, &dead);
    }
}

/// Does a step for a protection domain or guest space that is being destroyed; whether there is
/// more to do. Kernel lock.
pub fn dissolve(kernel: &mut Guard, cpu: &PerCpu, budget: u32) -> bool {
    let Some(object) = kernel.dying.pop() else { return false };
    let (pd, guest) = (typed::<Pd>(object), typed::<GuestSpace>(object));
    let owner = if object.ty == ObjectType::Pd {
        if !pd.spaces.memory.closed.get() {
            rendezvous::all(kernel, cpu, Request { dying: Some(pd), ..Request::default() });
        }
        Owner::Pd(&pd.spaces)
    } else {
        Owner::Guest(&guest.space)
    };
    let state = &mut **kernel;
    let outcome = cap::destroy(&mut state.frames, &mut state.revocations, owner, budget);
    let more = outcome.more;
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
fn reap(kernel: &mut Guard, cpu: &PerCpu, dead: &ObjectList) {
    let mut pages = PageList::new();
    while !dead.is_empty() || !pages.is_empty() {
        let first = dead.0.take();
        // Nobody can find the objects any more; their CPUs let go of them, others finish with
        // what they found before.
        rendezvous::all(kernel, cpu, Request { host_tlb: true, dead: first, ..Request::default() });
        // SAFETY: unlinked before the rendezvous, in which every CPU flushed and left the kernel.
        unsafe { pages.free(&mut kernel.frames) };
        let mut signals = false;
        for object in successors(first, |object| object.next.get()) {
            if object.ty == ObjectType::Sm {
                while let Some(ec) = typed::<Sm>(object).evict() {
                    interrupt::wake_with(cpu, ec, Status::Aborted, 0);
                }
            }
            signals |= matches!(object.ty, ObjectType::Sm | ObjectType::Ec | ObjectType::Vcpu);
        }
        // A CPU may have signalled after the object's own CPU emptied its inbox: once more, so
        // that no inbox holds a dead object.
        if signals {
            rendezvous::all(kernel, cpu, Request::default());
        }
        // The iterator has left an object when it is freed.
        for object in successors(first, |object| object.next.take()) {
            free(kernel, object, dead, &mut pages);
        }
    }
}

/// Frees one object after the rendezvous.
fn free(kernel: &mut Guard, object: Obj<ObjectHeader>, dead: &ObjectList, pages: &mut PageList) {
    let release = |user: Obj<ObjectHeader>| {
        if user.drop_use() {
            dead.push(user);
        }
    };
    match object.ty {
        ObjectType::Pt => release(Obj::of(&typed::<Pt>(object).ec.header)),
        ObjectType::Sc => release(Obj::of(&typed::<Sc>(object).ec.header)),
        ObjectType::Ec => {
            let ec = typed::<Ec>(object);
            let (spaces, account) = (&ec.pd.spaces, &ec.pd.spaces.account);
            ec.pd.ecs.remove(ec);
            if let Some(utcb) = ec.utcb {
                spaces.memory.space.unmap_kernel_frame(account, ec.utcb_address, pages);
                // Freed with the page tables, after the flush that follows.
                pages.push(utcb.cast(), account);
            }
            if let Some(fpu) = &ec.fpu {
                pages.push(fpu.page.cast(), account);
            }
        }
        ObjectType::Vcpu => {
            let vcpu = typed::<Vcpu>(object);
            let pd = vcpu.ec.pd;
            pd.ecs.remove(Obj::of(&vcpu.ec));
            // SAFETY: it was detached, and no CPU runs it.
            for page in unsafe { vcpu.guest() }.pages() {
                pages.push(page, &pd.spaces.account);
            }
            release(Obj::of(&vcpu.space.header));
        }
        // SAFETY: it was dissolved, and no vCPU uses it.
        ObjectType::Guest => unsafe {
            typed::<GuestSpace>(object).space.free_roots(&mut kernel.frames);
        },
        ObjectType::Pd => {
            let pd = typed::<Pd>(object);
            let Some(parent) = object.payer.get().map(typed::<Pd>) else { return };
            // SAFETY: it was dissolved, its execution contexts are gone, no CPU runs in it.
            unsafe { pd.spaces.free_roots(&mut kernel.frames) };
            pd.spaces.account.surrender(&parent.spaces.account);
            if let Some((sm, _)) = pd.supervisor {
                release(Obj::of(&sm.header));
            }
        }
        ObjectType::Sm => {}
        // Interrupts are never destroyed.
        ObjectType::Interrupt | ObjectType::Null => return,
    }
    let payer = object.payer.get();
    // SAFETY: unreachable since the rendezvous, and its account lives as long as its PD, which
    // this object's use kept. No object has anything to drop.
    unsafe { Account::free(&mut kernel.frames, object.pointer()) };
    payer.map(release);
}

/// Called on every CPU in a rendezvous for each dead object: drops it where this CPU is its own.
pub fn let_go(cpu: &PerCpu, object: Obj<ObjectHeader>) {
    match object.ty {
        ObjectType::Ec | ObjectType::Vcpu => let_go_ec(cpu, typed(object)),
        ObjectType::Sc => {
            let sc = typed::<Sc>(object);
            if sc.ec.cpu == cpu.sched.id {
                sched::remove(cpu, sc);
            }
        }
        _ => {}
    }
}

fn let_go_ec(cpu: &PerCpu, ec: Obj<Ec>) {
    if ec.cpu == cpu.sched.id {
        stop_ec(cpu, ec);
        sched::forget(cpu, ec);
    }
}

/// Called on every CPU in a rendezvous: stops everything of a protection domain that is being
/// destroyed.
pub fn leave(cpu: &PerCpu, pd: Obj<Pd>) {
    pd.ecs.iter().for_each(|ec| let_go_ec(cpu, ec));
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
