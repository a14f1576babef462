//! Semaphores: a counter, a word of pending badges, and a queue of those who wait.

use ipc::cap::Rights;
use ipc::status::Status;
use ipc::syscall::{DOWN_ZERO, Number};
use spin::mutex::SpinMutex;

use super::create::Creation;
use super::ec::Ec;
use super::interrupt::Interrupt;
use super::{List, Obj};
use crate::arch::instr;
use crate::cap::{Object, ObjectHeader};
use crate::interrupt::deliver;
use crate::sched;
use crate::syscall::{Caller, DONE, Handled, Outcome};

/// Largest counter value.
pub const MAX_COUNT: u64 = u32::MAX as u64;

/// What the semaphore's lock protects, besides the queue links in the execution contexts.
pub struct Inner {
    count: u64,
    pending: u64,
    queue: List<Ec, Sm>,
}

/// A semaphore. Signals may come from any CPU.
#[repr(C)]
pub struct Sm {
    /// Common part.
    pub header: ObjectHeader,
    /// Interrupts that are bound to it; kernel lock.
    pub interrupts: List<Interrupt, Self>,
    /// Orders signals against waits; held for a few instructions, never across CPUs' queues.
    inner: SpinMutex<Inner>,
}

/// Whom a signal took off the queue; it has to be woken with these badges.
pub type Signal = Option<(Obj<Ec>, u64)>;

impl Sm {
    /// A new semaphore.
    pub fn new(count: u64) -> Self {
        let inner = SpinMutex::new(Inner { count, pending: 0, queue: List::default() });
        Self { header: ObjectHeader::new(Self::TYPE), interrupts: List::default(), inner }
    }

    /// Signals: gives the badge to the first who waits, else increments the counter.
    ///
    /// # Errors
    /// [`Status::Overflow`] where the counter is at its maximum; the badge is noted all the same.
    pub fn up(&self, badge: u64) -> Result<Signal, Status> {
        let mut inner = self.inner.lock();
        inner.pending |= badge;
        if let Some(ec) = inner.pop() {
            let badges = core::mem::take(&mut inner.pending);
            return Ok(Some((ec, badges)));
        }
        if inner.count == MAX_COUNT {
            return Err(Status::Overflow);
        }
        inner.count += 1;
        Ok(None)
    }

    /// Signals where nobody waits and the counter is not full; whether that was so.
    #[inline(always)]
    fn count(&self, badge: u64) -> bool {
        let mut inner = self.inner.lock();
        let plain = inner.queue.is_empty() && inner.count < MAX_COUNT;
        if plain {
            inner.pending |= badge;
            inner.count += 1;
        }
        plain
    }

    /// Takes a signal that is there: the pending badges.
    #[inline(always)]
    fn take(&self) -> Option<u64> {
        let mut inner = self.inner.lock();
        inner.count = inner.count.checked_sub(1)?;
        Some(core::mem::take(&mut inner.pending))
    }

    /// Takes a signal: the pending badges, or `None` after `ec` was put into the queue.
    pub fn down(&self, ec: Obj<Ec>, zero: bool) -> Option<u64> {
        let mut inner = self.inner.lock();
        if inner.count > 0 {
            inner.count = if zero { 0 } else { inner.count - 1 };
            return Some(core::mem::take(&mut inner.pending));
        }
        ec.queued.set(true);
        inner.queue.push_back(ec);
        None
    }

    /// Takes `ec` out of the queue; `false` where a signal was faster.
    pub fn cancel(&self, ec: Obj<Ec>) -> bool {
        let inner = self.inner.lock();
        let queued = ec.queued.take();
        if queued {
            inner.queue.remove(ec);
        }
        queued
    }

    /// Takes the first who waits out of the queue without a signal: the semaphore is dying.
    pub fn evict(&self) -> Option<Obj<Ec>> {
        self.inner.lock().pop()
    }
}

impl Inner {
    fn pop(&self) -> Option<Obj<Ec>> {
        let ec = self.queue.pop_front()?;
        ec.queued.set(false);
        Some(ec)
    }
}

/// System call `CreateSm`.
///
/// # Errors
/// As [`Creation::begin`]; `BadParam`: the count; `Quota`.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    if c.args.rdx > MAX_COUNT {
        return Err(Status::BadParam);
    }
    creation.place_plain(Sm::new(c.args.rdx))?;
    DONE
}

/// System call `Up`.
///
/// # Errors
/// `BadCap`, `BadRight`: the semaphore; `Overflow`.
pub fn up(c: &Caller<'_>) -> Handled {
    let (sm, badge) = c.ec.pd.spaces.objects.lookup_badged::<Sm>(c.args.rdi, Rights::SM_UP)?;
    deliver(c.cpu, sm.up(badge)?);
    sched::yield_if_needed(c.cpu, c.ec)
}

/// A signal for which nobody waits; `None` where it is none.
#[inline(always)]
pub fn plain_up(ec: Obj<Ec>, selector: u64) -> Option<()> {
    let objects = &ec.pd.spaces.objects;
    let (sm, badge) = objects.lookup_badged::<Sm>(selector, Rights::SM_UP).ok()?;
    sm.count(badge).then_some(())
}

/// A wait for a signal that is there: the badges. `None` where it is none.
#[inline(always)]
pub fn plain_down(ec: Obj<Ec>, selector: u64) -> Option<u64> {
    ec.pd.spaces.objects.lookup::<Sm>(selector, Rights::SM_DOWN).ok()?.take()
}

/// System call `Down`.
///
/// # Errors
/// `BadCap`, `BadRight`: the semaphore; `BadParam`: unknown flags; `Timeout`; `Aborted`: the
/// semaphore died.
pub fn down(c: &Caller<'_>) -> Handled {
    let sm = c.object::<Sm>(c.args.rdi, Rights::SM_DOWN)?;
    let flags = Number(c.args.number).get_flags();
    if flags & !DOWN_ZERO != 0 {
        return Err(Status::BadParam);
    }
    if let Some(badges) = sm.down(c.ec, flags & DOWN_ZERO != 0) {
        return Ok(Outcome::Done(badges, 0));
    }
    let deadline = c.args.rsi;
    if deadline != 0 && deadline <= instr::rdtsc() && sm.cancel(c.ec) {
        return Err(Status::Timeout);
    }
    c.ec.waits_for.set(Some(Obj::of(sm)));
    sched::set_deadline(c.cpu, c.ec, deadline);
    sched::block(c.cpu, c.ec);
    Ok(Outcome::Switched)
}
