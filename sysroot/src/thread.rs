//! Threads with a scheduling context of their own.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::PAGE_SIZE;
use ipc::cap::{MemRights, Range};
use ipc::proto::start::THREAD_BLOCK;
use ipc::status::{Result, Status};
use ipc::utcb::Utcb;

use crate::cap::{Cap, Ec, Sc};
use crate::num::{page, u64_of, usize_of};
use crate::syscall::{EcStart, create_ec, create_sc, delegate_memory};
use crate::{arch, process, selector, utcb};

/// log2 of the pages of the stack of a thread, where nothing else is asked for: 32 KiB.
pub const STACK_ORDER: u8 = 3;

/// log2 of the pages of the largest stack that fits into a thread block.
const MAX_STACK_ORDER: u8 = 4;

const _: () = assert!((PAGE_SIZE as u64) << MAX_STACK_ORDER < THREAD_BLOCK);

/// A block of addresses for one thread: UTCB at the start, stack at the end, nothing in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    base: u64,
}

/// Blocks that were taken. Relaxed: it only has to be unique.
static TAKEN: AtomicU64 = AtomicU64::new(0);

impl Block {
    /// Takes a block and maps a stack of `2^order` pages in it, by aliasing pages of the heap.
    pub(crate) fn new(order: u8) -> Result<Self> {
        if order > MAX_STACK_ORDER {
            return Err(Status::BadParam);
        }
        let area = process::start().threads;
        let index = TAKEN.fetch_add(1, Ordering::Relaxed);
        let base = area.base + index * THREAD_BLOCK;
        if base + THREAD_BLOCK > area.end() {
            return Err(Status::Quota);
        }
        let size = PAGE_SIZE << order;
        let layout = Layout::from_size_align(size, size).map_err(|_| Status::BadParam)?;
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            return Err(Status::Quota);
        }
        let source = page(u64_of(memory.expose_provenance()));
        let stack = page(base + THREAD_BLOCK - u64_of(size));
        // SAFETY: the pages were just allocated and are used through the alias only.
        let mapped = unsafe {
            let range = Range::memory(order, MemRights::RW);
            delegate_memory(process::pd(), range, source, stack)
        };
        if let Err(status) = mapped {
            // SAFETY: allocated above with this layout, and the alias does not exist.
            unsafe { dealloc(memory, layout) };
            return Err(status);
        }
        Ok(Self { base })
    }

    /// Address of the UTCB.
    pub(crate) const fn utcb(self) -> u64 {
        self.base
    }

    /// Initial stack pointer.
    pub(crate) const fn stack_top(self) -> u64 {
        self.base + THREAD_BLOCK
    }

    /// Creates an execution context on the block and prepares its UTCB. It does not run yet.
    pub(crate) fn create(
        self,
        cpu: u16,
        events: u32,
        entry: Option<u64>,
        user: u64,
    ) -> Result<Cap<Ec>> {
        let start = EcStart { cpu, utcb: self.utcb(), stack: self.stack_top(), events, entry };
        // SAFETY: the stack is fresh, and the entry points that are passed here are ours.
        let ec = unsafe { create_ec(selector::alloc()?, process::pd(), start) }?;
        let utcb: *mut Utcb = core::ptr::with_exposed_provenance_mut(usize_of(self.utcb()));
        // SAFETY: the kernel has mapped the UTCB, and the execution context does not run yet.
        unsafe { utcb::prepare(utcb, cpu, user) };
        Ok(ec)
    }
}

/// Where and how a thread runs.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// CPU number.
    pub cpu: u16,
    /// Priority, 0 to 127.
    pub priority: u8,
    /// Budget in TSC ticks.
    pub budget: u64,
    /// log2 of the pages of its stack.
    pub stack_order: u8,
    /// Event base; the root task's portals unless changed.
    pub events: u32,
}

impl Config {
    /// A thread like the main one, on `cpu`.
    #[must_use]
    pub fn on(cpu: u16) -> Self {
        Self {
            cpu,
            priority: process::start().priority,
            budget: default_budget(),
            stack_order: STACK_ORDER,
            events: process::events(cpu),
        }
    }
}

/// Budget of a scheduling context where nothing else is asked for: 10 ms.
#[must_use]
pub fn default_budget() -> u64 {
    crate::time::ticks_of_ms(10)
}

/// A thread.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its execution context.
    pub ec: Cap<Ec>,
    /// Its scheduling context.
    pub sc: Cap<Sc>,
}

type Body = Box<dyn FnOnce() + Send>;

/// Starts a thread that runs `body` and then stops for good.
///
/// # Errors
/// [`Status::Quota`] where heap, selectors or kernel memory are used up, and what creating its
/// objects gives.
pub fn spawn(config: Config, body: impl FnOnce() + Send + 'static) -> Result<Thread> {
    let block = Block::new(config.stack_order)?;
    let body: Box<Body> = Box::new(Box::new(body));
    let body = Box::into_raw(body);
    let user = u64_of(body.expose_provenance());
    let thread =
        block.create(config.cpu, config.events, Some(arch::thread_entry()), user).and_then(|ec| {
            let at = selector::alloc()?;
            let sc = create_sc(at, process::pd(), ec, config.priority, config.budget)?;
            Ok(Thread { ec, sc })
        });
    if thread.is_err() {
        // SAFETY: no thread runs that would take it.
        drop(unsafe { Box::from_raw(body) });
    }
    thread
}

/// Where a thread of [`spawn`] arrives.
pub(crate) extern "sysv64" fn thread_main(_utcb: u64) -> ! {
    let body: *mut Body = core::ptr::with_exposed_provenance_mut(usize_of(utcb::user()));
    // SAFETY: `spawn` put it there for this thread alone.
    let body = unsafe { Box::from_raw(body) };
    body();
    process::park()
}
