//! Interrupt vectors: who gets which, and what happens when one arrives.

use core::sync::atomic::{AtomicPtr, Ordering};

use ipc::status::{Result, Status};

use crate::arch::percpu::PerCpu;
use crate::arch::{apic, ioapic};
use crate::num::low8;
use crate::object::Obj;
use crate::object::ec::{Ec, remote};
use crate::object::interrupt::{Binding, Interrupt};
use crate::object::sm::{Signal, Sm};
use crate::{sched, sync};

/// First vector for devices.
pub const FIRST_DEVICE: u8 = 0x30;
/// Last vector for devices.
pub const LAST_DEVICE: u8 = 0xdf;
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

/// Bound interrupts by vector. Written under the kernel lock (release), read by the interrupt
/// path (acquire).
static VECTORS: [AtomicPtr<Interrupt>; 256] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Handles a vector that arrived on this CPU.
pub fn handle(cpu: &PerCpu, vector: u8) {
    match vector {
        TIMER => {
            apic::eoi();
            sched::timer(cpu);
        }
        IPI_INBOX => {
            apic::eoi();
            sched::drain(cpu);
        }
        IPI_RENDEZVOUS => {
            apic::eoi();
            sync::rendezvous::respond(cpu);
        }
        APIC_ERROR => {
            crate::log!("CPU {}: local APIC error {:#x}", cpu.sched.id, apic::take_errors());
            apic::eoi();
        }
        FIRST_DEVICE..=LAST_DEVICE => device(cpu, vector),
        // Spurious, or from the masked legacy controller: nothing to acknowledge.
        _ => {}
    }
}

fn device(cpu: &PerCpu, vector: u8) {
    let slot = VECTORS.get(usize::from(vector));
    // Acquire: the binding was written before the pointer.
    let interrupt = slot.and_then(|s| core::ptr::NonNull::new(s.load(Ordering::Acquire)));
    if let Some(pointer) = interrupt {
        // SAFETY: interrupt objects are never freed.
        let interrupt = unsafe { pointer.as_ref() };
        if let Some(binding) = interrupt.binding.get() {
            if binding.level
                && let Some(gsi) = interrupt.gsi
            {
                ioapic::set_masked(gsi, true);
            }
            // A full counter loses nothing: the badge is noted.
            if let Ok(signal) = binding.sm.up(binding.badge) {
                deliver(cpu, signal);
            }
        }
    }
    apic::eoi();
}

/// Wakes whoever a signal took off a semaphore's queue.
#[inline]
pub fn deliver(cpu: &PerCpu, signal: Signal) {
    if let Signal::Woken(ec, badges) = signal {
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

/// How an interrupt is to be configured.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// CPU that takes it.
    pub cpu: u16,
    /// Level-triggered.
    pub level: bool,
    /// Active low.
    pub low: bool,
}

/// Binds an interrupt to a semaphore and unmasks it; returns address and data of the message
/// where the source is message-signalled. Kernel lock.
///
/// # Errors
/// `BadState` where it is bound already; `BadCpu`; `Quota` where no vector is left.
pub fn bind(interrupt: &Interrupt, sm: Obj<Sm>, badge: u64, config: Config) -> Result<(u64, u64)> {
    if interrupt.vector.get() != 0 {
        return Err(Status::BadState);
    }
    let target = sched::remote(config.cpu)
        .filter(|r| r.online.load(Ordering::Relaxed))
        .ok_or(Status::BadCpu)?;
    let apic_id = target.apic_id.load(Ordering::Relaxed);
    let vector = (FIRST_DEVICE..=LAST_DEVICE)
        .find(|&v| slot(v).is_some_and(|s| s.load(Ordering::Relaxed).is_null()))
        .ok_or(Status::Quota)?;
    sm.header.add_use();
    interrupt.binding.set(Some(Binding { sm, badge, level: config.level }));
    interrupt.vector.set(vector);
    if let Some(slot) = slot(vector) {
        // Release: pairs with the load in `device`.
        slot.store(core::ptr::from_ref(interrupt).cast_mut(), Ordering::Release);
    }
    if let Some(gsi) = interrupt.gsi {
        let route = ioapic::Route {
            vector,
            apic_id: low8(apic_id.into()),
            level: config.level,
            active_low: config.low,
        };
        ioapic::route(gsi, route, false);
    }
    // Address and data of a message: SDM vol. 3, 11.11 (physical mode, fixed, edge).
    Ok((0xfee0_0000 | u64::from(apic_id & 0xff) << 12, u64::from(vector)))
}

/// Masks an interrupt and takes it out of the vector table. Its binding is gone once every CPU
/// has left the kernel. Kernel lock.
pub fn disconnect(interrupt: &Interrupt) {
    if let Some(gsi) = interrupt.gsi {
        ioapic::set_masked(gsi, true);
    }
    if let Some(slot) = slot(interrupt.vector.replace(0)) {
        slot.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// Lets a level-triggered interrupt come again.
///
/// # Errors
/// `BadState` where it is not bound.
pub fn acknowledge(interrupt: &Interrupt) -> Result {
    let binding = interrupt.binding.get().ok_or(Status::BadState)?;
    if binding.level
        && let Some(gsi) = interrupt.gsi
    {
        ioapic::set_masked(gsi, false);
    }
    Ok(())
}

fn slot(vector: u8) -> Option<&'static AtomicPtr<Interrupt>> {
    VECTORS.get(usize::from(vector))
}
