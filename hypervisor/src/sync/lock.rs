//! The kernel lock and what it protects.

use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::arch::percpu::PerCpu;
use crate::cap::Revocations;
use crate::destroy::DeadList;
use crate::mem::frames::Frames;

/// State behind the kernel lock. The lock also orders every change to accounts, the derivation
/// tree, page tables, reference counts and interrupt bindings.
pub struct Kernel {
    /// Free kernel memory.
    pub frames: Frames,
    /// Revocations under way.
    pub revocations: Revocations,
    /// Protection domains and guest spaces that are being taken apart.
    pub dying: DeadList,
}

impl Kernel {
    /// The state at boot.
    pub fn new(frames: Frames) -> Self {
        Self { frames, revocations: Revocations::new(), dying: DeadList::default() }
    }
}

// SAFETY: the pointers are used only by the holder of the lock.
unsafe impl Send for Kernel {}

static KERNEL: SpinMutex<Option<Kernel>> = SpinMutex::new(None);

/// Proof that the kernel lock is held.
pub struct Guard(SpinMutexGuard<'static, Option<Kernel>>);

impl Deref for Guard {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        match &*self.0 {
            Some(kernel) => kernel,
            // `lock` waits until the state is there.
            None => unreachable!(),
        }
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Kernel {
        match &mut *self.0 {
            Some(kernel) => kernel,
            None => unreachable!(),
        }
    }
}

/// Puts the state behind the lock; once, at boot.
pub fn initialise(kernel: Kernel) {
    *KERNEL.lock() = Some(kernel);
}

/// Takes the lock. While it waits, this CPU takes part in rendezvous: the caller must hold no
/// object reference except its own execution context, and must check afterwards that this one
/// is still alive.
pub fn lock(cpu: &PerCpu) -> Guard {
    loop {
        if let Some(guard) = KERNEL.try_lock()
            && guard.is_some()
        {
            return Guard(guard);
        }
        super::rendezvous::respond(cpu);
        core::hint::spin_loop();
    }
}
