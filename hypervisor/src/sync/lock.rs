//! The kernel lock and what it protects.

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::arch::percpu::PerCpu;
use crate::cap::{ObjectList, Revocations};
use crate::mem::frames::Frames;

/// State behind the kernel lock. The lock also orders every change to accounts, the derivation
/// tree, page tables, reference counts and interrupt bindings.
pub struct Kernel {
    /// Free kernel memory.
    pub frames: Frames,
    /// Revocations under way.
    pub revocations: Revocations,
    /// Protection domains and guest spaces that are being taken apart.
    pub dying: ObjectList,
}

// SAFETY: the pointers are used only by the holder of the lock.
unsafe impl Send for Kernel {}

static KERNEL: SpinMutex<Kernel> = SpinMutex::new(Kernel {
    frames: Frames::empty(),
    revocations: Revocations::new(),
    dying: ObjectList::new(),
});

/// Proof that the kernel lock is held.
pub type Guard = SpinMutexGuard<'static, Kernel>;

/// Puts the free memory behind the lock; once, at boot.
pub fn initialise(frames: Frames) {
    KERNEL.lock().frames = frames;
}

/// Takes the lock. While it waits, this CPU takes part in rendezvous: the caller must hold no
/// object reference except its own execution context, and must check afterwards that this one
/// is still alive.
pub fn lock(cpu: &PerCpu) -> Guard {
    loop {
        if let Some(guard) = KERNEL.try_lock() {
            return guard;
        }
        super::rendezvous::respond(cpu);
        core::hint::spin_loop();
    }
}
