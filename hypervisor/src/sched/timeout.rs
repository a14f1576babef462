//! Waits that end at a time: a list sorted by deadline, linked through the execution contexts.

use core::cell::Cell;

use ipc::status::Status;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::object::Obj;
use crate::object::ec::Ec;

/// The waits of one CPU's execution contexts, earliest first.
#[derive(Default)]
pub struct Timeouts {
    head: Cell<Option<Obj<Ec>>>,
}

impl Timeouts {
    /// No waits.
    pub const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<u64> {
        self.head.get().map(|ec| ec.deadline.get())
    }

    /// Adds one; behind those with the same deadline.
    pub fn insert(&self, ec: Obj<Ec>, deadline: u64) {
        ec.deadline.set(deadline);
        let mut prev = None;
        let mut next = self.head.get();
        while let Some(other) = next {
            if other.deadline.get() > deadline {
                break;
            }
            prev = next;
            next = other.timeout_next.get();
        }
        ec.timeout_prev.set(prev);
        ec.timeout_next.set(next);
        match prev {
            Some(p) => p.timeout_next.set(Some(ec)),
            None => self.head.set(Some(ec)),
        }
        if let Some(n) = next {
            n.timeout_prev.set(Some(ec));
        }
    }

    /// Takes one out, if it is in.
    pub fn remove(&self, ec: Obj<Ec>) {
        if ec.deadline.replace(0) == 0 {
            return;
        }
        let (prev, next) = (ec.timeout_prev.take(), ec.timeout_next.take());
        match prev {
            Some(p) => p.timeout_next.set(next),
            None => self.head.set(next),
        }
        if let Some(n) = next {
            n.timeout_prev.set(prev);
        }
    }

    /// Takes out the first, if its time has come.
    pub fn pop_expired(&self, now: u64) -> Option<Obj<Ec>> {
        let ec = self.head.get().filter(|ec| ec.deadline.get() <= now)?;
        self.remove(ec);
        Some(ec)
    }
}

/// The deadline of `ec` has passed.
pub(super) fn expire(cpu: &PerCpu, ec: Obj<Ec>) {
    if ec.is_vcpu() {
        ec.regs.set(flag::DEADLINE);
        super::wake(cpu, ec);
    } else if ec.waits_for.get().is_some_and(|sm| sm.cancel(ec)) {
        ec.regs.rax.set(u64::from(Status::Timeout.number()));
        ec.regs.rsi.set(0);
        super::wake(cpu, ec);
    }
}
