//! Interrupt vectors: who gets which, and what happens when one arrives.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use ipc::status::{Result, Status};
use ipc::trace::{Counter, Kind};

use crate::arch::percpu::PerCpu;
use crate::arch::{apic, ioapic};
use crate::object::Obj;
use crate::object::ec::{Ec, remote};
use crate::object::interrupt::{Binding, Interrupt};
use crate::object::sm::Signal;
use crate::sched::{self, MAX_CPUS};
use crate::{sync, trace};

/// First vector for devices.
pub const FIRST_DEVICE: u8 = 0x30;
/// Last vector for devices. Few machines have interrupts for all of them, so tests of what happens
/// without another one have a kernel with one only.
pub const LAST_DEVICE: u8 = if cfg!(feature = "sabotage") { FIRST_DEVICE } else { 0xdf };
/// Local APIC timer.
pub const TIMER: u8 = 0xe0;
/// The inbox of this CPU has something.
pub const IPI_INBOX: u8 = 0xe1;
/// Error of the local APIC.
pub const APIC_ERROR: u8 = 0xe3;
/// A rendezvous is on.
pub const IPI_RENDEZVOUS: u8 = 0xe2;
/// Spurious interrupts of the local APIC.
pub const SPURIOUS: u8 = 0xff;

const DEVICES: usize = (LAST_DEVICE - FIRST_DEVICE) as usize + 1;

/// Bound interrupts by CPU and vector. Written under the kernel lock (release), read by the
/// interrupt path (acquire).
static VECTORS: [[AtomicPtr<Interrupt>; DEVICES]; MAX_CPUS] =
    [const { [const { AtomicPtr::new(null_mut()) }; DEVICES] }; MAX_CPUS];

/// Handles a vector that arrived on this CPU.
pub fn handle(cpu: &PerCpu, vector: u8) {
    trace::count(cpu, Counter::Interrupt);
    trace::note(cpu, Kind::Interrupt, || [vector.into(), 0]);
    let work: fn(&PerCpu) = match vector {
        TIMER => sched::timer,
        IPI_INBOX => sched::drain,
        IPI_RENDEZVOUS => sync::rendezvous::respond,
        APIC_ERROR => |cpu| {
            crate::log!("CPU {}: local APIC error {:#x}", cpu.sched.id, apic::take_errors());
        },
        FIRST_DEVICE..=LAST_DEVICE => return device(cpu, vector),
        // Spurious, or from the masked legacy controller: nothing to acknowledge.
        _ => return,
    };
    apic::eoi();
    work(cpu);
}

fn device(cpu: &PerCpu, vector: u8) {
    // Acquire: the binding was written before the pointer.
    let pointer = slot(cpu.sched.id, vector).map(|slot| slot.load(Ordering::Acquire));
    // SAFETY: interrupt objects are never freed.
    let interrupt = pointer.and_then(NonNull::new).map(|pointer| unsafe { pointer.as_ref() });
    let bound = interrupt.and_then(|interrupt| Some((interrupt, interrupt.binding.get()?)));
    let level = bound.and_then(|(interrupt, binding)| interrupt.gsi.filter(|_| binding.level));
    level.into_iter().for_each(|gsi| ioapic::set_masked(gsi, true));
    // Before anybody can acknowledge it: it is not to come again before this CPU has moved on.
    apic::eoi();
    if let Some((interrupt, binding)) = bound {
        interrupt.masked.store(level.is_some(), Ordering::Release);
        // A full counter loses nothing: the badge is noted.
        if let Ok(signal) = binding.sm.up(binding.badge) {
            deliver(cpu, signal);
        }
    }
}

/// Wakes whoever a signal took off a semaphore's queue.
pub fn deliver(cpu: &PerCpu, signal: Signal) {
    if let Some((ec, badges)) = signal {
        wake_with(cpu, ec, Status::Ok, badges);
    }
}

/// Ends the wait of an execution context that was taken off a semaphore's queue.
pub fn wake_with(cpu: &PerCpu, ec: Obj<Ec>, status: Status, badges: u64) {
    ec.regs.set_results(status, badges, 0);
    if ec.cpu == cpu.sched.id {
        sched::wake(cpu, ec);
    } else {
        sched::kick(ec, remote::WAKE);
    }
}

/// Binds an interrupt and unmasks it; returns address and data of the message where the source is
/// message-signalled. Kernel lock.
///
/// # Errors
/// `BadState` where it is bound already; `BadCpu`; `Quota` where the CPU has no vector left.
pub fn bind(interrupt: Obj<Interrupt>, binding: Binding) -> Result<(u64, u64)> {
    if interrupt.vector.get() != 0 {
        return Err(Status::BadState);
    }
    let target = sched::remote(binding.cpu).filter(|r| r.online.load(Ordering::Relaxed));
    // Neither an I/O APIC nor a message can name more without remapping.
    let apic_id = target.map(|r| r.apic_id.load(Ordering::Relaxed)).filter(|id| *id <= 0xff);
    let apic_id = apic_id.ok_or(Status::BadCpu)?;
    let slots = VECTORS.get(usize::from(binding.cpu)).ok_or(Status::BadCpu)?;
    let (vector, slot) = (FIRST_DEVICE..)
        .zip(slots)
        .find(|(_, slot)| slot.load(Ordering::Relaxed).is_null())
        .ok_or(Status::Quota)?;
    binding.sm.interrupts.push_back(interrupt);
    interrupt.binding.set(Some(binding));
    interrupt.masked.store(false, Ordering::Relaxed);
    interrupt.vector.set(vector);
    // Release: pairs with the load in `device`.
    slot.store(interrupt.pointer().as_ptr(), Ordering::Release);
    if let Some(gsi) = interrupt.gsi {
        let level = if binding.level { ioapic::LEVEL } else { 0 };
        let low = if binding.low { ioapic::ACTIVE_LOW } else { 0 };
        ioapic::route(gsi, vector, apic_id, level | low);
    }
    // Address and data of a message: SDM vol. 3, 11.11 (physical mode, fixed, edge).
    Ok((0xfee0_0000 | u64::from(apic_id) << 12, u64::from(vector)))
}

/// Masks an interrupt and takes it out of the vector table. A rendezvous has to follow before the
/// kernel lock is released. Kernel lock.
///
/// # Errors
/// `BadState` where it is not bound.
pub fn unbind(interrupt: Obj<Interrupt>) -> Result {
    let binding = bound(&interrupt)?;
    interrupt.gsi.into_iter().for_each(ioapic::release);
    binding.sm.interrupts.remove(interrupt);
    if let Some(slot) = slot(binding.cpu, interrupt.vector.take()) {
        slot.store(null_mut(), Ordering::Release);
    }
    Ok(())
}

/// Lets a level-triggered interrupt come again. Where it has not come since, this costs others
/// nothing: no lock is taken.
///
/// # Errors
/// `BadState` where it is not bound.
pub fn acknowledge(interrupt: &Interrupt) -> Result {
    bound(interrupt)?;
    if let Some(gsi) = interrupt.gsi.filter(|_| interrupt.masked.swap(false, Ordering::Acquire)) {
        ioapic::set_masked(gsi, false);
    }
    Ok(())
}

/// An interrupt's binding, where it has one.
fn bound(interrupt: &Interrupt) -> Result<Binding> {
    interrupt.binding.get().filter(|_| interrupt.vector.get() != 0).ok_or(Status::BadState)
}

/// The place of a device's vector in the table.
fn slot(cpu: u16, vector: u8) -> Option<&'static AtomicPtr<Interrupt>> {
    VECTORS.get(usize::from(cpu))?.get(usize::from(vector.checked_sub(FIRST_DEVICE)?))
}
