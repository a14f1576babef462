//! Protection domains to test with.
//!
//! A [`Domain`] is the component's own or a fresh one that shares the component's image and heap at
//! the same addresses, so that functions and statics of this program work in it.

use alloc::vec::Vec;

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::proto::start::{Area, THREAD_BLOCK, layout};
use ipc::state::Mtd;
use ipc::status::{Result, Status};
use sysroot::arch::{Entry, portal_entry};
use sysroot::cap::{Cap, Ec, Pd, Portal, Sc, Semaphore};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::sync::Mutex;
use sysroot::syscall::{self, EcStart};
use sysroot::{process, selector};

/// log2 of the pages of a test thread's stack.
const STACK_ORDER: u8 = 2;

/// Stacks that are not in use.
static STACKS: Mutex<Vec<Pages>> = Mutex::new(Vec::new());

/// Thread blocks in the own domain that are not in use, and how many were ever taken, from the end
/// of the area down.
static BLOCKS: Mutex<(Vec<u64>, u64)> = Mutex::new((Vec::new(), 0));

/// End of the area of thread blocks.
const BLOCKS_END: u64 = layout::THREADS.base + layout::THREADS.size;

/// A protection domain with threads of this program.
pub(crate) struct Domain {
    /// Its capability in the own object space.
    pub pd: Cap<Pd>,
    own: bool,
    /// What to delete at the end, last first.
    objects: Vec<Selector>,
    stacks: Vec<(Pages, u64)>,
}

impl Domain {
    /// The component's own domain.
    pub(crate) const fn own(pd: Cap<Pd>) -> Self {
        Self { pd, own: true, objects: Vec::new(), stacks: Vec::new() }
    }

    /// A fresh domain that shares image and heap.
    pub(crate) fn new(quota: u64) -> Result<Self> {
        let mut domain = Self::bare(quota)?;
        domain.share(layout::IMAGE)?;
        domain.share(layout::HEAP)?;
        Ok(domain)
    }

    /// A domain that was just made, with image and heap in it; it goes with the result.
    pub(crate) fn within(pd: Cap<Pd>) -> Result<Self> {
        let objects = [pd.selector()].into();
        let mut domain = Self { pd, own: false, objects, stacks: Vec::new() };
        domain.share(layout::IMAGE)?;
        domain.share(layout::HEAP)?;
        Ok(domain)
    }

    /// A fresh domain with nothing in it.
    pub(crate) fn bare(quota: u64) -> Result<Self> {
        let at = selector::alloc()?;
        let pd = syscall::create_pd(at, process::pd(), quota)?;
        let mut domain = Self::own(pd);
        domain.own = false;
        domain.objects.push(at);
        Ok(domain)
    }

    /// Delegates all that the component holds in an area.
    fn share(&mut self, area: Area) -> Result {
        let (mut at, end) = (page(area.base), page(area.end()));
        while at < end {
            let (held, first) = syscall::query(Range::memory(0, MemRights::READ), at)?;
            let rights = MemRights::from_bits_truncate(held.rights());
            if rights.is_empty() {
                break;
            }
            let range = Range::memory(held.order(), rights);
            // SAFETY: threads in the domain are part of this program.
            unsafe { syscall::delegate_memory(self.pd, range, first, first) }?;
            at = first + (1 << held.order());
        }
        Ok(())
    }

    /// Deletes this selector with the domain.
    pub(crate) fn keep(&mut self, at: Selector) {
        self.objects.push(at);
    }

    /// Deletes one of its capabilities before its end.
    pub(crate) fn delete(&mut self, at: Selector) {
        let count = self.objects.len();
        self.objects.retain(|o| *o != at);
        if self.objects.len() < count {
            selector::delete(at);
        }
    }

    fn free_block(&self) -> u64 {
        if !self.own {
            return BLOCKS_END - THREAD_BLOCK * (1 + sysroot::num::u64_of(self.stacks.len()));
        }
        let mut blocks = BLOCKS.lock();
        match blocks.0.pop() {
            Some(block) => block,
            None => {
                blocks.1 += 1;
                BLOCKS_END - THREAD_BLOCK * blocks.1
            }
        }
    }

    fn block(&mut self) -> Result<u64> {
        let block = self.free_block();
        let stack = match STACKS.lock().pop() {
            Some(stack) => stack,
            None => Pages::new(STACK_ORDER)?,
        };
        let size = 4096u64 << STACK_ORDER;
        let target = page(block + THREAD_BLOCK - size);
        let range = Range::memory(STACK_ORDER, MemRights::RW);
        // SAFETY: the stack is used by the one thread on this block.
        unsafe { syscall::delegate_memory(self.pd, range, stack.page(), target) }?;
        self.stacks.push((stack, target));
        Ok(block)
    }

    /// End of the stack that was made last.
    pub(crate) fn stack_end(&self) -> u64 {
        self.stacks.last().map_or(0, |(_, target)| (target << 12) + (4096 << STACK_ORDER))
    }

    fn ec(&mut self, cpu: u16, events: u32, entry: Option<u64>) -> Result<Cap<Ec>> {
        let block = self.block()?;
        let start = EcStart { cpu, utcb: block, stack: block + THREAD_BLOCK, events, entry };
        let at = selector::alloc()?;
        // SAFETY: the stack is the thread's own, and entries are those of this program.
        let ec = unsafe { syscall::create_ec(at, self.pd, start) }?;
        self.objects.push(at);
        Ok(ec)
    }

    /// A handler.
    pub(crate) fn handler(&mut self, cpu: u16) -> Result<Cap<Ec>> {
        self.handler_with(cpu, 0)
    }

    /// A handler with an event base.
    pub(crate) fn handler_with(&mut self, cpu: u16, events: u32) -> Result<Cap<Ec>> {
        self.ec(cpu, events, None)
    }

    /// A portal of a handler, in the own object space.
    pub(crate) fn portal<E: Entry>(&mut self, ec: Cap<Ec>, id: u64) -> Result<Cap<Portal>> {
        let at = selector::alloc()?;
        // SAFETY: entries of this program on a stack of their own.
        let portal = unsafe { syscall::create_pt(at, process::pd(), ec, portal_entry::<E>(), id) }?;
        self.objects.push(at);
        Ok(portal)
    }

    /// Handler and portal at once.
    pub(crate) fn serve<E: Entry>(&mut self, cpu: u16, id: u64) -> Result<Cap<Portal>> {
        let ec = self.handler(cpu)?;
        self.portal::<E>(ec, id)
    }

    /// Lets events of this domain with these numbers go to a portal; `base` is in its own object
    /// space.
    pub(crate) fn route(
        &self,
        base: u32,
        events: &[u64],
        portal: Cap<Portal>,
        mtd: Mtd,
        id: u64,
    ) -> Result {
        syscall::set_portal(portal, id, mtd)?;
        for &event in events {
            let at = Selector(u64::from(base) + event);
            syscall::delegate_object(self.pd, portal, at, Rights::PT_EVENT, 0)?;
        }
        Ok(())
    }

    /// A thread that has not got a scheduling context yet. It starts with its UTCB in `rdi`.
    pub(crate) fn thread(
        &mut self,
        cpu: u16,
        events: u32,
        entry: extern "sysv64" fn(u64) -> !,
    ) -> Result<Cap<Ec>> {
        self.thread_with(cpu, events, entry, 0)
    }

    /// The same with flags of `CreateEc`.
    pub(crate) fn thread_with(
        &mut self,
        cpu: u16,
        events: u32,
        entry: extern "sysv64" fn(u64) -> !,
        flags: u8,
    ) -> Result<Cap<Ec>> {
        let entry = sysroot::num::u64_of(entry as *const () as usize);
        // The stack is aligned as after a call.
        let block = self.block()?;
        let stack = block + THREAD_BLOCK - 8;
        let start = EcStart { cpu, utcb: block, stack, events, entry: Some(entry) };
        let at = selector::alloc()?;
        // SAFETY: as in `ec`.
        let ec = unsafe { syscall::create_ec_with(at, self.pd, start, flags) }?;
        self.objects.push(at);
        Ok(ec)
    }

    /// Lets a thread run.
    pub(crate) fn start(&mut self, ec: Cap<Ec>, priority: u8) -> Result<Cap<Sc>> {
        let at = selector::alloc()?;
        let budget = sysroot::thread::default_budget();
        let sc = syscall::create_sc(at, process::pd(), ec, priority, budget)?;
        self.objects.push(at);
        Ok(sc)
    }

    /// A thread that runs.
    pub(crate) fn spawn(
        &mut self,
        cpu: u16,
        priority: u8,
        entry: extern "sysv64" fn(u64) -> !,
    ) -> Result<Cap<Ec>> {
        let ec = self.thread(cpu, 0, entry)?;
        self.start(ec, priority)?;
        Ok(ec)
    }

    /// A semaphore.
    pub(crate) fn semaphore(&mut self, count: u64) -> Result<Cap<Semaphore>> {
        let at = selector::alloc()?;
        let semaphore = syscall::create_sm(at, process::pd(), count)?;
        self.objects.push(at);
        Ok(semaphore)
    }

    /// Delegates an object capability into the domain.
    pub(crate) fn give<K, R>(&self, cap: Cap<K, R>, at: u64, rights: Rights) -> Result {
        syscall::delegate_object(self.pd, cap, Selector(at), rights, 0)
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // The domain itself is the first one: what runs in it stops before its stacks go.
        for &at in &self.objects {
            selector::delete(at);
        }
        for (stack, target) in self.stacks.drain(..) {
            if self.own {
                let range = Range::memory(STACK_ORDER, MemRights::all()).include_self();
                // SAFETY: the thread on this stack is gone.
                let _ = unsafe { syscall::revoke_memory(range, target) };
                let end = (target << 12) + (4096 << STACK_ORDER);
                BLOCKS.lock().0.push(end - THREAD_BLOCK);
            }
            STACKS.lock().push(stack);
        }
    }
}

/// The own domain.
pub(crate) fn own() -> Domain {
    Domain::own(process::pd())
}

/// A selector that is empty.
pub(crate) fn empty() -> Result<Selector> {
    selector::alloc_range(0)
}

/// A copy of a capability with other rights, deleted by `domain`.
pub(crate) fn with_rights<K, R>(
    domain: &mut Domain,
    cap: Cap<K, R>,
    rights: Rights,
) -> Result<Cap<K>> {
    let at = selector::alloc()?;
    syscall::delegate_object(process::pd(), cap, at, rights, 0)?;
    domain.keep(at);
    Ok(Cap::new(at))
}

/// A second CPU.
pub(crate) fn other_cpu() -> Option<u16> {
    (process::start().cpus > 1).then(|| u16::from(process::start().cpu == 0))
}

/// What a system call says, as a result.
pub(crate) fn raw(number: u64, arguments: [u64; 5]) -> Result<u64> {
    let [rdi, rsi, rdx, r10, r8] = arguments;
    // SAFETY: tests pass arguments that cannot hurt this program.
    let out = unsafe { sysroot::arch::syscall(number, rdi, rsi, rdx, r10, r8) };
    Status::from_register(out.rax).map(|()| out.rsi)
}
