//! What a domain's creator sets for good: its supervisor, and how important its threads can be.

use ipc::cap::{Rights, Selector};
use ipc::status::Status;
use sysroot::cap::{Cap, Pd, Semaphore, Up};
use sysroot::{process, selector, syscall, time};

use super::never;
use crate::check::{Outcome, patience};
use crate::domain::{Domain, own, with_rights};
use crate::runner::group;

group!("supervision":
    a_stopped_thread_signals_the_supervisor,
    a_domain_inherits_its_supervisor,
    the_semaphore_must_be_one_to_signal,
    no_thread_is_above_the_ceiling,
    a_ceiling_only_shrinks,
    nobody_runs_above_the_configured_priority,
);

extern "sysv64" fn dies(_utcb: u64) -> ! {
    sysroot::arch::abort()
}

fn dies_in(d: &mut Domain) -> Outcome {
    ok!(d.spawn(process::start().cpu, crate::runner::priority(), dies));
    Ok(())
}

fn badged(
    d: &mut Domain,
    sm: Cap<Semaphore>,
    badge: u64,
) -> ipc::status::Result<Cap<Semaphore, Up>> {
    let at = selector::alloc()?;
    d.keep(at);
    syscall::derive(process::pd(), sm, at, badge)
}

fn supervised(sm: Cap<Semaphore, Up>, ceiling: u8) -> ipc::status::Result<Cap<Pd>> {
    syscall::create_pd_with(selector::alloc()?, process::pd(), 400, ceiling, Some(sm))
}

fn a_stopped_thread_signals_the_supervisor() -> Outcome {
    let mut here = own();
    let sm = ok!(here.semaphore(0));
    let up = ok!(badged(&mut here, sm, 0x40));
    let mut d = ok!(Domain::within(ok!(supervised(up, u8::MAX))));
    refused!(sm.down_until(time::deadline_in_ms(2)), Timeout);
    for _ in 0..2 {
        dies_in(&mut d)?;
        same!(ok!(sm.down_until(patience())), 0x40);
    }
    Ok(())
}

fn a_domain_inherits_its_supervisor() -> Outcome {
    let mut here = own();
    let sm = ok!(here.semaphore(0));
    let up = ok!(badged(&mut here, sm, 0x80));
    let outer = ok!(supervised(up, u8::MAX));
    here.keep(outer.selector());
    let inner = ok!(syscall::create_pd(ok!(selector::alloc()), outer, 300));
    let mut d = ok!(Domain::within(inner));
    dies_in(&mut d)?;
    same!(ok!(sm.down_until(patience())), 0x80);
    Ok(())
}

fn the_semaphore_must_be_one_to_signal() -> Outcome {
    let mut here = own();
    let sm = ok!(here.semaphore(0));
    let weak = ok!(with_rights(&mut here, sm, Rights::SM_DOWN));
    refused!(supervised(Cap::new(weak.selector()), 1), BadRight);
    refused!(supervised(Cap::new(Selector(0x3fff)), 1), BadCap);
    refused!(supervised(Cap::new(process::pd().selector()), 1), BadCap);
    Ok(())
}

fn priority_in(pd: Cap<Pd>, priority: u8) -> core::result::Result<Status, crate::check::Failure> {
    let mut here = own();
    let ec = ok!(here.thread(process::start().cpu, 0, never));
    let at = ok!(selector::alloc());
    here.keep(at);
    let made = syscall::create_sc(at, pd, ec, priority, sysroot::thread::default_budget());
    Ok(made.err().unwrap_or(Status::Ok))
}

fn no_thread_is_above_the_ceiling() -> Outcome {
    let mut here = own();
    let sm = ok!(here.semaphore(0));
    let up = ok!(badged(&mut here, sm, 0));
    let pd = ok!(supervised(up, 10));
    here.keep(pd.selector());
    same!(priority_in(pd, 10)?, Status::Ok);
    same!(priority_in(pd, 11)?, Status::BadRight);
    same!(priority_in(pd, 128)?, Status::BadParam);
    Ok(())
}

fn a_ceiling_only_shrinks() -> Outcome {
    let mut here = own();
    let sm = ok!(here.semaphore(0));
    let up = ok!(badged(&mut here, sm, 0));
    let outer = ok!(supervised(up, 10));
    here.keep(outer.selector());
    let inner = ok!(syscall::create_pd(ok!(selector::alloc()), outer, 100));
    here.keep(inner.selector());
    same!(priority_in(inner, 10)?, Status::Ok);
    same!(priority_in(inner, 11)?, Status::BadRight);
    Ok(())
}

/// The root task's ceiling for this component.
fn nobody_runs_above_the_configured_priority() -> Outcome {
    let mut d = own();
    let ec = ok!(d.thread(process::start().cpu, 0, super::never));
    refused!(d.start(ec, process::start().priority + 1), BadRight);
    ok!(d.start(ec, 1));
    Ok(())
}
