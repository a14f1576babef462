//! The rendezvous: the moment at which no CPU holds a reference to what was unlinked before.
//!
//! Whoever destroys or revokes holds the kernel lock, unlinks, and calls [`all`]. Every other CPU
//! answers when it is outside the kernel, or while it waits for the lock and holds no reference.
//! On the way it flushes its TLB and lets go of dead execution and scheduling contexts. When
//! everybody has answered, memory can be freed and revoked mappings are gone everywhere. Guests
//! left guest mode for it, and flush their nested TLB on the next entry because the generation of
//! their space changed.

use core::iter::successors;
use core::sync::atomic::Ordering;

use ipc::trace::Counter;
use spin::mutex::SpinMutex;

use super::Guard;
use crate::arch::apic;
use crate::arch::percpu::PerCpu;
use crate::cap::ObjectHeader;
use crate::object::Obj;
use crate::object::pd::Pd;
use crate::vcpu::StateTransfer;
use crate::{destroy, interrupt, sched, trace};

/// What every CPU is to do besides answering.
#[derive(Clone, Copy, Default)]
pub struct Request {
    /// Forget translations of user memory.
    pub host_tlb: bool,
    /// First of the dead objects whose CPU has to let go of them, linked through their headers.
    pub dead: Option<Obj<ObjectHeader>>,
    /// A protection domain that is being destroyed: everything in it stops.
    pub dying: Option<Obj<Pd>>,
    /// State of a vCPU that its CPU has to move.
    pub state: Option<Obj<StateTransfer>>,
}

// SAFETY: what it points to stays, and is not changed, until all CPUs have answered.
unsafe impl Send for Request {}

/// The request. The lock is only held to copy it; the holder of the kernel lock writes it before
/// the flags of the CPUs (release), and it is constant until all have answered.
static REQUEST: SpinMutex<Request> =
    SpinMutex::new(Request { host_tlb: false, dead: None, dying: None, state: None });

/// Holds a rendezvous of all CPUs.
pub fn all(_lock: &Guard, cpu: &PerCpu, request: Request) {
    *REQUEST.lock() = request;
    for remote in sched::others(cpu) {
        // Release: the request and everything that was unlinked are visible to who sees the flag.
        remote.rendezvous.store(true, Ordering::Release);
        apic::send_ipi(remote.apic_id.load(Ordering::Relaxed), interrupt::IPI_RENDEZVOUS);
    }
    act(cpu, request);
    for remote in sched::others(cpu) {
        // Acquire: what the CPU did before it answered has happened.
        while remote.rendezvous.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
}

/// Answers, if this CPU was asked.
pub fn respond(cpu: &PerCpu) {
    let Some(own) = sched::remote(cpu.sched.id) else { return };
    if own.rendezvous.load(Ordering::Acquire) {
        let request = *REQUEST.lock();
        act(cpu, request);
        own.rendezvous.store(false, Ordering::Release);
    }
}

fn act(cpu: &PerCpu, request: Request) {
    trace::count(cpu, Counter::Rendezvous);
    sched::drain(cpu);
    for object in successors(request.dead, |object| object.next.get()) {
        destroy::let_go(cpu, object);
    }
    if let Some(pd) = request.dying {
        destroy::leave(cpu, pd);
    }
    if request.host_tlb
        && let Some(pd) = cpu.sched.space.get()
    {
        sched::load_space(cpu, pd);
    }
    if let Some(transfer) = request.state
        && transfer.vcpu.ec.cpu == cpu.sched.id
    {
        transfer.carry_out(cpu);
    }
}
