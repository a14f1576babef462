//! System calls on capabilities: delegate, revoke, query.

use ipc::cap::{Range, Rights, Space};
use ipc::status::Status;

use crate::arch::percpu::PerCpu;
use crate::arch::serial;
use crate::cap::{self, Delegation, Owner};
use crate::destroy;
use crate::object::pd::Pd;
use crate::object::vcpu::GuestSpace;
use crate::sync::Guard;
use crate::sync::rendezvous::{self, Request};
use crate::syscall::{Caller, DONE, Handled, Outcome};

/// Work units between two preemption points.
const BUDGET: u32 = 16;

/// System call `Delegate`.
///
/// # Errors
/// `BadCap`, `BadRight`: the destination. What [`Delegation::check`] reports.
pub fn delegate(c: &Caller<'_>) -> Handled {
    let mut kernel = c.lock()?;
    let a = &c.args;
    let destination = match c.object::<Pd>(a.rdi, Rights::PD_DELEGATE) {
        Ok(pd) => Owner::Pd(&pd.spaces),
        Err(Status::BadCap) => {
            Owner::Guest(&c.object::<GuestSpace>(a.rdi, Rights::GUEST_MAP)?.space)
        }
        Err(status) => return Err(status),
    };
    let range = Range(a.rsi);
    let own = &c.ec.pd.spaces;
    let delegation = Delegation::check(own, destination, range, a.rdx, a.r10, a.r8)?;
    delegation.commit(&mut kernel.frames)?;
    if range.space() == Some(Space::Port) {
        ports_given(&kernel, c.cpu, range, a.rdx);
    }
    DONE
}

/// After ports were delegated: the receiver may run already, and the serial port has one user.
pub fn ports_given(kernel: &Guard, cpu: &PerCpu, range: Range, base: u64) {
    if (base..base + (1 << range.order())).contains(&u64::from(serial::COM1)) {
        crate::log::set_enabled(false);
    }
    // One may have got its first.
    rendezvous::all(kernel, cpu, Request { host_tlb: true, ..Request::default() });
}

/// System call `Revoke`.
///
/// # Errors
/// What [`cap::revoke`] reports.
pub fn revoke(c: &Caller<'_>) -> Handled {
    let mut kernel = c.lock()?;
    let mut ticket = c.ec.ticket.get();
    let state = &mut *kernel;
    let outcome = cap::revoke(
        &mut state.frames,
        &mut state.revocations,
        &c.ec.pd.spaces,
        Range(c.args.rdi),
        c.args.rsi,
        &mut ticket,
        BUDGET,
    )?;
    c.ec.ticket.set(ticket);
    let more = outcome.more;
    destroy::conclude(&mut kernel, c.cpu, outcome);
    if destroy::dissolve(&mut kernel, c.cpu, BUDGET) || more { Ok(Outcome::Again) } else { DONE }
}

/// System call `Query`.
///
/// # Errors
/// `BadParam`: no such space. What [`cap::query`] reports.
pub fn query(c: &Caller<'_>) -> Handled {
    let _kernel = c.lock()?;
    let space = Range(c.args.rdi).space().ok_or(Status::BadParam)?;
    let (held, base) = cap::query(&c.ec.pd.spaces, space, c.args.rsi)?;
    Ok(Outcome::Done(held.0, base))
}
