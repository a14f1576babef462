//! What other CPUs may touch of a CPU: its inbox and its part in a rendezvous.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spin::mutex::SpinMutex;

use crate::arch;
use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::object::Obj;
use crate::object::ec::{Ec, remote as request};

/// CPUs that the kernel can drive.
pub const MAX_CPUS: usize = ipc::info::MAX_CPUS;

/// The part of a CPU's state that is shared.
pub struct Remote {
    /// Local APIC id; constant after boot.
    pub apic_id: AtomicU32,
    /// The CPU runs; set once (release) when it can take interrupts.
    pub online: AtomicBool,
    /// A rendezvous waits for this CPU; see [`crate::sync::rendezvous`].
    pub rendezvous: AtomicBool,
    /// Execution contexts with requests, linked through `inbox_next`.
    inbox: SpinMutex<Option<Obj<Ec>>>,
}

// SAFETY: the pointers in the inbox are handed over under its lock.
unsafe impl Sync for Remote {}

static REMOTES: [Remote; MAX_CPUS] = [const {
    Remote {
        apic_id: AtomicU32::new(0),
        online: AtomicBool::new(false),
        rendezvous: AtomicBool::new(false),
        inbox: SpinMutex::new(None),
    }
}; MAX_CPUS];

/// The shared part of CPU `id`.
pub fn remote(id: u16) -> Option<&'static Remote> {
    REMOTES.get(usize::from(id))
}

/// Asks the CPU of `ec` to do something with it: bits of [`request`].
pub fn kick(ec: Obj<Ec>, what: u8) {
    // Release: the result registers that the waker wrote are visible before the request.
    if ec.remote.fetch_or(what, Ordering::Release) != 0 {
        return;
    }
    let Some(target) = remote(ec.cpu) else { return };
    let was_empty = {
        let mut inbox = target.inbox.lock();
        let first = inbox.replace(ec);
        ec.inbox_next.set(first);
        first.is_none()
    };
    if was_empty {
        arch::apic::send_ipi(target.apic_id.load(Ordering::Relaxed), crate::interrupt::IPI_INBOX);
    }
}

/// Does what other CPUs asked for.
pub fn drain(cpu: &PerCpu) {
    let Some(own) = remote(cpu.sched.id) else { return };
    let mut next = own.inbox.lock().take();
    while let Some(ec) = next {
        next = ec.inbox_next.take();
        // Acquire: pairs with `kick`.
        let what = ec.remote.swap(0, Ordering::Acquire);
        if what & request::RECALL != 0 {
            recall(cpu, ec);
        }
        if what & request::WAKE != 0 {
            super::wake(cpu, ec);
        }
        if what & request::START != 0
            && let Some(sc) = ec.sc.get()
        {
            super::enqueue(cpu, sc);
        }
    }
}

/// Makes `ec`, bound to this CPU, take its recall event when it runs next.
pub fn recall(cpu: &PerCpu, ec: Obj<Ec>) {
    if ec.is_dead() {
        return;
    }
    ec.regs.set(flag::RECALL);
    if ec.is_vcpu() {
        super::wake(cpu, ec);
    }
}

/// The shared parts of all other CPUs that run.
pub fn others(cpu: &PerCpu) -> impl Iterator<Item = &'static Remote> + use<> {
    let own = usize::from(cpu.sched.id);
    REMOTES
        .iter()
        .enumerate()
        .filter(move |(id, r)| *id != own && r.online.load(Ordering::Acquire))
        .map(|(_, remote)| remote)
}

/// Tells that a CPU runs and takes interrupts.
pub fn set_online(id: u16, apic_id: u32) {
    if let Some(own) = remote(id) {
        own.apic_id.store(apic_id, Ordering::Relaxed);
        // Release: its set-up has happened.
        own.online.store(true, Ordering::Release);
    }
}
