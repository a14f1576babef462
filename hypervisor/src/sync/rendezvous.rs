//! The rendezvous: the moment at which no CPU holds a reference to what was unlinked before.
//!
//! Whoever destroys or revokes holds the kernel lock, unlinks, and calls [`all`]. Every other CPU
//! answers when it is outside the kernel, or while it waits for the lock and holds no reference.
//! On the way it flushes its TLB and lets go of dead execution and scheduling contexts. When
//! everybody has answered, memory can be freed and revoked mappings are gone everywhere. Guests
//! left guest mode for it, and flush their nested TLB on the next entry because the generation of
//! their space changed.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::Guard;
use crate::arch::apic;
use crate::arch::percpu::PerCpu;
use crate::cap::ObjectHeader;
use crate::object::Obj;
use crate::object::pd::Pd;
use crate::{destroy, interrupt, sched};

/// What every CPU is to do besides answering.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Forget translations of user memory.
    pub host_tlb: bool,
    /// First of the dead objects whose CPU has to let go of them, linked through their headers.
    pub dead: Option<NonNull<ObjectHeader>>,
    /// A protection domain that is being destroyed: everything in it stops.
    pub dying: Option<Obj<Pd>>,
}

/// The request; written by the holder of the kernel lock before the flags of the CPUs (release)
/// and constant until all have answered.
static HOST_TLB: AtomicBool = AtomicBool::new(false);
static DEAD: AtomicPtr<ObjectHeader> = AtomicPtr::new(core::ptr::null_mut());
static DYING: AtomicPtr<Pd> = AtomicPtr::new(core::ptr::null_mut());

/// Holds a rendezvous of all CPUs.
pub fn all(_lock: &Guard, cpu: &PerCpu, request: Request) {
    HOST_TLB.store(request.host_tlb, Ordering::Relaxed);
    DEAD.store(request.dead.map_or(core::ptr::null_mut(), NonNull::as_ptr), Ordering::Relaxed);
    let dying = request.dying.map_or(core::ptr::null_mut(), |pd| pd.pointer().as_ptr());
    DYING.store(dying, Ordering::Relaxed);
    for remote in sched::others(cpu) {
        // Release: the request and everything that was unlinked are visible to who sees the flag.
        remote.rendezvous.store(true, Ordering::Release);
        apic::send_ipi(remote.apic_id.load(Ordering::Relaxed), interrupt::IPI_RENDEZVOUS);
    }
    act(cpu);
    for remote in sched::others(cpu) {
        // Acquire: what the CPU did before it answered has happened.
        while remote.rendezvous.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
}

/// Lets every CPU load the ports of its protection domain anew: one may have got its first.
pub fn reload_ports(lock: &Guard, cpu: &PerCpu) {
    all(lock, cpu, Request { host_tlb: true, ..Request::default() });
}

/// Answers, if this CPU was asked.
pub fn respond(cpu: &PerCpu) {
    let Some(own) = sched::remote(cpu.sched.id) else { return };
    if own.rendezvous.load(Ordering::Acquire) {
        act(cpu);
        own.rendezvous.store(false, Ordering::Release);
    }
}

fn act(cpu: &PerCpu) {
    sched::drain(cpu);
    let mut next = NonNull::new(DEAD.load(Ordering::Relaxed));
    while let Some(pointer) = next {
        // SAFETY: the holder of the kernel lock keeps the list alive until all have answered.
        let header = unsafe { pointer.as_ref() };
        destroy::let_go(cpu, header);
        next = header.next.get();
    }
    if let Some(pd) = NonNull::new(DYING.load(Ordering::Relaxed)) {
        // SAFETY: as above.
        destroy::leave(cpu, unsafe { Obj::new(pd) });
    }
    if HOST_TLB.load(Ordering::Relaxed) {
        sched::reload_space(cpu);
    }
}
