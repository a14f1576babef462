//! The trace: counters, records, and who can see them.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, SeqCst};

use ipc::cap::{MemRights, Range, Rights};
use ipc::event::Exit;
use ipc::exit::Exception;
use ipc::proto::start::Area;
use ipc::status::Status;
use ipc::trace::{ADDRESS, Counter, Kind, PAGES, RECORDS, Ring};
use sysroot::cap::{Cap, Vcpu};
use sysroot::num::{page, u64_of, usize_of};
use sysroot::{process, syscall};

use super::event::{Prober, READ, UNDEFINED, WRITE};
use crate::check::{Failure, Outcome};
use crate::domain::with_rights;
use crate::guest::Machine;
use crate::runner::group;

group!("trace":
    counters_count,
    without_the_switch_nothing_is_recorded,
    calls_and_replies_are_recorded,
    interrupts_and_switches_are_recorded,
    exits_are_recorded_and_counted,
    the_rings_cannot_be_written,
    without_the_right_there_is_nothing,
);

/// Where the configuration gives this component the trace, up to the ring of CPU 0.
fn area() -> core::result::Result<Area, Failure> {
    let device = process::device("trace").and_then(|d| d.mmio.first());
    let area = device.map(|m| m.mapped).ok_or(Failure::Skip("no trace in the configuration"))?;
    let enough = area.size >= 4096 * (1 + PAGES) && process::start().cpu == 0;
    if enough { Ok(area) } else { Err(Failure::Skip("no trace of the first CPU")) }
}

fn ring() -> core::result::Result<&'static Ring, Failure> {
    let address = usize_of(area()?.base + 4096);
    // SAFETY: the root task has mapped the ring there for good; it consists of atomics.
    Ok(unsafe { &*core::ptr::with_exposed_provenance::<Ring>(address) })
}

/// Switches recording on or off; the records so far.
fn record(on: bool) -> core::result::Result<u64, Failure> {
    let address = usize_of(area()?.base);
    // SAFETY: the control page, which is mapped for good and used by atomics only.
    let control = unsafe { &*core::ptr::with_exposed_provenance::<AtomicU64>(address) };
    control.store(on.into(), SeqCst);
    Ok(ring()?.head.load(Acquire))
}

/// A counter of CPU 0.
pub(super) fn counter(which: Counter) -> core::result::Result<u64, Failure> {
    Ok(ring()?.counter(which).map_or(0, |c| c.load(SeqCst)))
}

/// TSC, kind and words of the records that `work` leaves.
fn recorded(
    work: impl FnOnce() -> Outcome,
) -> core::result::Result<alloc::vec::Vec<[u64; 4]>, Failure> {
    let first = record(true)?;
    let outcome = work();
    let end = record(false)?;
    outcome?;
    check!(end > first && end - first < u64_of(RECORDS));
    let words = |n| Some(ring().ok()?.record(n)?.each_ref().map(|w| w.load(SeqCst)));
    let all: alloc::vec::Vec<_> = (first..end).filter_map(words).collect();
    check!(all.is_sorted_by_key(|r| r[0]));
    check!(all.iter().all(|r| Kind::ALL.iter().any(|k| u64::from(k.0.number()) == r[1])));
    Ok(all)
}

fn of(records: &[[u64; 4]], kind: Kind) -> impl Iterator<Item = (u64, u64)> {
    let of_kind = move |r: &&[u64; 4]| r[1] == u64::from(kind.number());
    records.iter().filter(of_kind).map(|r| (r[2], r[3]))
}

fn counters_count() -> Outcome {
    let p = ok!(Prober::new());
    let (events, calls) = (counter(Counter::Event)?, counter(Counter::Call)?);
    for _ in 0..10 {
        check!(p.access(UNDEFINED, 0, 0)?.is_err());
    }
    check!(counter(Counter::Event)? >= events + 10);
    check!(counter(Counter::Call)? >= calls + 20);
    let (interrupts, switches) = (counter(Counter::Interrupt)?, counter(Counter::Switch)?);
    sysroot::time::sleep_ms(2);
    check!(counter(Counter::Interrupt)? > interrupts && counter(Counter::Switch)? > switches);
    let rendezvous = counter(Counter::Rendezvous)?;
    drop(p);
    check!(counter(Counter::Rendezvous)? > rendezvous);
    Ok(())
}

fn without_the_switch_nothing_is_recorded() -> Outcome {
    let p = ok!(Prober::new());
    let before = record(false)?;
    check!(p.access(UNDEFINED, 0, 0)?.is_err());
    sysroot::time::sleep_ms(2);
    same!(record(false)?, before);
    Ok(())
}

fn calls_and_replies_are_recorded() -> Outcome {
    let p = ok!(Prober::new());
    let records = recorded(|| {
        check!(p.access(READ, area()?.base, 0)?.is_err());
        Ok(())
    })?;
    // This thread calls the prober, whose fault calls its handler; both return.
    let calls: alloc::vec::Vec<_> = of(&records, Kind::Call).collect();
    let replies: alloc::vec::Vec<_> = of(&records, Kind::Reply).collect();
    let nested = |&(caller, handler): &(u64, u64)| {
        let inner = calls.iter().find(|c| c.0 == handler);
        let back = |from, to| replies.contains(&(from, to));
        inner.is_some_and(|i| i.1 != caller && back(i.1, handler) && back(handler, caller))
    };
    check!(calls.iter().any(nested));
    Ok(())
}

fn interrupts_and_switches_are_recorded() -> Outcome {
    let records = recorded(|| {
        sysroot::time::sleep_ms(2);
        Ok(())
    })?;
    check!(of(&records, Kind::Interrupt).any(|(vector, _)| (32..256).contains(&vector)));
    let priority = u64::from(crate::runner::priority());
    check!(of(&records, Kind::Switch).any(|(_, with)| with == priority));
    Ok(())
}

fn exits_are_recorded_and_counted() -> Outcome {
    let mut machine = Machine::new(process::start().cpu, 0)?;
    let records = recorded(|| Ok(machine.start()?))?;
    let count = |exit: Exit| syscall::exits(machine.vcpu, exit);
    // What the guest does: see the first test of a vCPU.
    same!((count(Exit::Startup), count(Exit::Cpuid), count(Exit::Hlt)), (Ok(1), Ok(2), Ok(1)));
    same!(count(Exit::Io), Ok(0));
    let cpuid = u64::from(Exit::Cpuid.number());
    same!(of(&records, Kind::Exit).filter(|(_, exit)| *exit == cpuid).count(), 2);
    let vcpu = machine.vcpu;
    let weak = ok!(with_rights(&mut machine.domain, vcpu, Rights::EC_BIND_SC));
    refused!(syscall::exits(weak, Exit::Io), BadRight);
    let thread = ok!(machine.domain.handler(process::start().cpu));
    let thread: Cap<Vcpu> = Cap::new(thread.selector());
    refused!(syscall::exits(thread, Exit::Io), BadCap);
    let number = ipc::syscall::Number::new(ipc::syscall::Call::CtrlEc)
        .flags(ipc::syscall::EcOp::Exits.number());
    for bad in [u64_of(Exit::ALL.len()), u64::MAX] {
        refused!(crate::domain::raw(number.0, [vcpu.raw(), bad, 0, 0, 0]), BadParam);
    }
    Ok(())
}

fn the_rings_cannot_be_written() -> Outcome {
    const AT: u64 = super::FREE_ADDRESSES;
    let own = page(area()?.base);
    let held = |page| syscall::query(Range::memory(0, MemRights::READ), page).map(|h| h.0.rights());
    same!(held(own), Ok(MemRights::RW.bits()));
    for n in 1..=PAGES {
        same!(held(own + n), Ok(MemRights::READ.bits()));
    }
    let p = ok!(Prober::new());
    let range = Range::memory(0, MemRights::all());
    // SAFETY: atomics, and nobody can write them.
    unsafe { ok!(syscall::delegate_memory(p.domain.pd, range, own + 1, page(AT))) };
    check!(p.access(READ, AT, 0)?.is_ok());
    same!(p.access(WRITE, AT, 1)?, Err(Exception { vector: 14, error: Some(0b111) }));
    Ok(())
}

fn without_the_right_there_is_nothing() -> Outcome {
    area()?;
    // The root task's address means nothing here.
    let range = Range::memory(0, MemRights::READ);
    same!(ok!(syscall::query(range, page(ADDRESS))).0.rights(), 0);
    let p = ok!(Prober::new());
    // SAFETY: refused.
    let taken = unsafe { syscall::delegate_memory(p.domain.pd, range, page(ADDRESS), 16) };
    same!(taken, Err(Status::BadCap));
    let fault = Err(Exception { vector: 14, error: Some(0b100) });
    same!(p.access(READ, area()?.base, 0)?, fault);
    Ok(())
}
