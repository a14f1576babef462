//! A lock that blocks.
//!
//! Threads of different priority share a CPU, and a handler runs at its caller's: one that spins
//! for a lock could keep its holder from ever running. So whoever finds a lock taken sleeps on a
//! semaphore, which is created when that happens for the first time.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipc::cap::Selector;
pub use talc::lock_api;

use crate::cap::{Cap, Semaphore};
use crate::{process, syscall};

/// A mutual exclusion lock around a value.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;
/// The guard of a [`Mutex`].
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// The lock itself.
#[derive(Debug)]
pub struct RawLock {
    /// Acquire on taking, release on giving back: orders what the lock protects.
    state: AtomicU32,
    /// Selector of the semaphore to sleep on; 0 until there is one. Written before `state` says
    /// that somebody sleeps.
    semaphore: AtomicU64,
}

// SAFETY: `lock` returns after it changed `state` from FREE, which only one can do at a time until
// `unlock` sets it back.
unsafe impl lock_api::RawMutex for RawLock {
    const INIT: Self = Self { state: AtomicU32::new(FREE), semaphore: AtomicU64::new(0) };

    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slow();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == CONTENDED
            && let Some(semaphore) = self.semaphore()
        {
            let _ = semaphore.up();
        }
    }
}

impl RawLock {
    #[cold]
    fn lock_slow(&self) {
        let semaphore = self.semaphore().or_else(|| self.create());
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            match semaphore {
                Some(s) => {
                    let _ = s.down();
                }
                None => core::hint::spin_loop(),
            }
        }
    }

    fn semaphore(&self) -> Option<Cap<Semaphore>> {
        match self.semaphore.load(Ordering::Acquire) {
            0 => None,
            selector => Some(Cap::new(Selector(selector))),
        }
    }

    fn create(&self) -> Option<Cap<Semaphore>> {
        // Not from the list of freed selectors, which has a lock of its own.
        let selector = crate::selector::alloc_range(0).ok()?;
        let new = syscall::create_sm(selector, process::pd(), 0).ok()?;
        let exchange =
            self.semaphore.compare_exchange(0, selector.0, Ordering::AcqRel, Ordering::Acquire);
        match exchange {
            Ok(_) => Some(new),
            // Somebody else was faster; ours stays unused.
            Err(other) => Some(Cap::new(Selector(other))),
        }
    }
}
