//! Clears memory in a thread of its own: the supervisor has the highest priority, and a VM's RAM
//! takes long.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::status::Result;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::{process, selector, syscall, thread};

use crate::grant::zero;
use crate::memory::Span;

/// Priority: that of components where the configuration names none.
const PRIORITY: u8 = 64;

/// The thread, and the one span that it works on.
#[derive(Debug)]
pub struct Cleaner {
    base: AtomicU64,
    /// 0 while there is nothing to do. Release on both sides: whoever sees the change sees the
    /// other word, and the memory as it was left.
    size: AtomicU64,
    work: Cap<Semaphore>,
}

impl Cleaner {
    /// Starts the thread on a CPU. It rings the bell when it has finished a span.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(cpu: u16, bell: Cap<Semaphore, Up>) -> Result<&'static Self> {
        let work = syscall::create_sm(selector::alloc()?, process::pd(), 0)?;
        let (base, size) = (AtomicU64::new(0), AtomicU64::new(0));
        let cleaner: &'static Self = Box::leak(Box::new(Self { base, size, work }));
        let config = thread::Config { priority: PRIORITY, ..thread::Config::on(cpu) };
        thread::spawn(config, move || {
            loop {
                let _ = work.down();
                cleaner.work();
                let _ = bell.up();
            }
        })?;
        Ok(cleaner)
    }

    fn work(&self) {
        let size = self.size.load(Ordering::Acquire);
        if size != 0 {
            zero(Span { base: self.base.load(Ordering::Relaxed), size });
            self.size.store(0, Ordering::Release);
        }
    }

    /// Whether it has nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.size.load(Ordering::Acquire) == 0
    }

    /// Has a span cleared that nobody else uses; only while it is idle.
    pub fn clear(&self, span: Span) {
        self.base.store(span.base, Ordering::Relaxed);
        self.size.store(span.size, Ordering::Release);
        let _ = self.work.up();
    }
}
