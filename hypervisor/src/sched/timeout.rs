//! Waits that end at a time: a list sorted by deadline, linked through the execution contexts.

use ipc::status::Status;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::object::ec::Ec;
use crate::object::{List, Obj};

/// The waits of one CPU's execution contexts, earliest first.
#[derive(Default)]
pub struct Timeouts(List<Ec, Timeouts>);

impl Timeouts {
    /// The earliest deadline.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|ec| ec.deadline.get())
    }

    /// Adds one; behind those with the same deadline.
    pub fn insert(&self, ec: Obj<Ec>, deadline: u64) {
        ec.deadline.set(deadline);
        self.0.insert(ec, self.0.iter().find(|other| other.deadline.get() > deadline));
    }

    /// Takes one out, if it is in.
    pub fn remove(&self, ec: Obj<Ec>) {
        if ec.deadline.take() != 0 {
            self.0.remove(ec);
        }
    }

    /// Takes out the first, if its time has come.
    pub fn pop_expired(&self, now: u64) -> Option<Obj<Ec>> {
        let ec = self.0.first().filter(|ec| ec.deadline.get() <= now)?;
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
        ec.regs.set_results(Status::Timeout, 0, 0);
        super::wake(cpu, ec);
    }
}
