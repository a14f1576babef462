//! Creation of execution contexts, scheduling contexts, portals and semaphores.

use ipc::cap::{Rights, Selector};
use ipc::proto::start::{THREAD_BLOCK, layout};
use ipc::state::Mtd;
use ipc::status::{Result, Status};
use ipc::syscall::{Call, Number};
use sysroot::arch::portal_entry;
use sysroot::cap::{Cap, Ec, Portal};
use sysroot::syscall::{self, EcStart};
use sysroot::{process, selector};

use super::ipc::Echo;
use crate::check::{Failure, Outcome};
use crate::domain::{empty, own, raw, with_rights};
use crate::runner::group;

group!("object":
    execution_context_addresses,
    execution_context_cpu,
    execution_context_flags_and_events,
    utcb_page_in_use,
    scheduling_context_parameters,
    a_handler_gets_no_scheduling_context,
    one_scheduling_context_each,
    portal_parameters,
    a_global_context_serves_no_portal,
    portal_id_and_mtd_can_be_changed,
    rights_to_bind,
    destinations_in_use,
    semaphore_count,
    every_creation_needs_a_domain_and_the_right,
    dead_contexts_take_nothing_more,
    unknown_operations,
);

const UTCB: u64 = layout::THREADS.base + layout::THREADS.size / 2;

fn start() -> EcStart {
    EcStart {
        cpu: process::start().cpu,
        utcb: UTCB,
        stack: UTCB + THREAD_BLOCK,
        events: 0,
        entry: None,
    }
}

fn create(start: EcStart) -> Result<Cap<Ec>> {
    let at = selector::alloc()?;
    // SAFETY: what is created here never runs.
    let created = unsafe { syscall::create_ec(at, process::pd(), start) };
    if created.is_err() {
        selector::free(at);
    }
    created
}

fn execution_context_addresses() -> Outcome {
    for utcb in
        [0, UTCB + 1, UTCB + 8, 0x7fff_ffff_f000, 0x8000_0000_0000, 1 << 63, u64::MAX - 4095]
    {
        refused!(create(EcStart { utcb, ..start() }), BadParam);
    }
    for entry in [0x8000_0000_0000, u64::MAX] {
        refused!(create(EcStart { entry: Some(entry), ..start() }), BadParam);
    }
    // The first and the last of them.
    for (utcb, entry) in [(0x1000, 0x1000), (0x7fff_ffff_e000, 0x7fff_ffff_efff)] {
        let ec = ok!(create(EcStart { utcb, entry: Some(entry), ..start() }));
        selector::delete(ec.selector());
    }
    Ok(())
}

fn execution_context_cpu() -> Outcome {
    for cpu in [process::start().cpus, 64, 255, u16::MAX] {
        refused!(create(EcStart { cpu, ..start() }), BadCpu);
    }
    for cpu in 0..process::start().cpus {
        let ec = ok!(create(EcStart { cpu, ..start() }));
        selector::delete(ec.selector());
    }
    Ok(())
}

fn execution_context_flags_and_events() -> Outcome {
    let cpu = process::start().cpu;
    for flags in [4, 5, 0x80] {
        let number = Number::new(Call::CreateEc).flags(flags).cpu(cpu);
        let pd = process::pd().raw();
        refused!(raw(number.0, [empty()?.0, pd, UTCB, UTCB, 0x1000]), BadParam);
    }
    for events in [0x1_0000 - 31, 0x1_0000, u32::MAX] {
        refused!(create(EcStart { events, ..start() }), BadParam);
    }
    let ec = ok!(create(EcStart { events: 0x1_0000 - 32, ..start() }));
    selector::delete(ec.selector());
    Ok(())
}

fn utcb_page_in_use() -> Outcome {
    let ec = ok!(create(start()));
    refused!(create(start()), Exists);
    refused!(create(EcStart { utcb: layout::HEAP.base, ..start() }), Exists);
    refused!(create(EcStart { utcb: layout::IMAGE.base, ..start() }), Exists);
    selector::delete(ec.selector());
    let ec = ok!(create(start()));
    selector::delete(ec.selector());
    Ok(())
}

fn scheduling_context_parameters() -> Outcome {
    let entry = Some(layout::PARK);
    let ec = ok!(create(EcStart { entry, ..start() }));
    let (at, pd) = (empty()?, process::pd());
    for priority in [128, 255] {
        refused!(syscall::create_sc(at, pd, ec, priority, 1000), BadParam);
    }
    let number = Number::new(Call::CreateSc).0;
    refused!(raw(number, [at.0, pd.raw(), ec.raw(), 0x100, 1000]), BadParam);
    refused!(syscall::create_sc(at, pd, ec, 1, 0), BadParam);
    selector::delete(ec.selector());
    Ok(())
}

fn a_handler_gets_no_scheduling_context() -> Outcome {
    let ec = ok!(create(start()));
    refused!(syscall::create_sc(empty()?, process::pd(), ec, 1, 1000), BadState);
    selector::delete(ec.selector());
    Ok(())
}

fn one_scheduling_context_each() -> Outcome {
    let ec: Cap<Ec> = Cap::new(Selector(process::start().objects.ec.into()));
    refused!(syscall::create_sc(empty()?, process::pd(), ec, 1, 1000), BadState);
    Ok(())
}

fn portal_parameters() -> Outcome {
    let mut d = own();
    let ec = ok!(d.handler(process::start().cpu));
    let (at, pd) = (empty()?, process::pd());
    for entry in [0x8000_0000_0000, u64::MAX] {
        // SAFETY: refused.
        refused!(unsafe { syscall::create_pt(at, pd, ec, entry, 0) }, BadParam);
    }
    Ok(())
}

fn a_global_context_serves_no_portal() -> Outcome {
    let ec: Cap<Ec> = Cap::new(Selector(process::start().objects.ec.into()));
    let entry = portal_entry::<Echo>();
    // SAFETY: refused.
    refused!(unsafe { syscall::create_pt(empty()?, process::pd(), ec, entry, 0) }, BadState);
    Ok(())
}

fn portal_id_and_mtd_can_be_changed() -> Outcome {
    let mut d = own();
    let portal: Cap<Portal> = ok!(d.serve::<super::ipc::ReturnsId>(process::start().cpu, 7));
    same!(super::ipc::first_word(portal)?, 7);
    ok!(syscall::set_portal(portal, u64::MAX, Mtd::empty()));
    same!(super::ipc::first_word(portal)?, u64::MAX);
    let number = Number::new(Call::CtrlPt).0;
    refused!(raw(number, [portal.raw(), 0, 1 << 63, 0, 0]), BadParam);
    refused!(raw(number, [portal.raw(), 0, 1 << 19, 0, 0]), BadParam);
    same!(super::ipc::first_word(portal)?, u64::MAX);
    Ok(())
}

fn rights_to_bind() -> Outcome {
    let mut d = own();
    let (at, pd) = (empty()?, process::pd());
    let handler = ok!(d.handler(process::start().cpu));
    let weak = ok!(with_rights(&mut d, handler, Rights::EC_CTRL | Rights::EC_BIND_SC));
    // SAFETY: refused.
    refused!(unsafe { syscall::create_pt(at, pd, weak, portal_entry::<Echo>(), 0) }, BadRight);
    let thread = ok!(d.thread(process::start().cpu, 0, super::never));
    let weak = ok!(with_rights(&mut d, thread, Rights::EC_CTRL | Rights::EC_BIND_PT));
    refused!(syscall::create_sc(at, pd, weak, 1, 1000), BadRight);
    let weak = ok!(with_rights(&mut d, thread, Rights::EC_BIND_SC));
    refused!(syscall::recall(weak), BadRight);
    let portal = ok!(d.portal::<Echo>(handler, 0));
    let weak = ok!(with_rights(&mut d, portal, Rights::PT_CALL | Rights::PT_EVENT));
    refused!(syscall::set_portal(weak, 0, Mtd::empty()), BadRight);
    let sc = ok!(d.start(thread, 1));
    ok!(syscall::consumed(sc));
    let weak = ok!(with_rights(&mut d, sc, Rights::from_bits_retain(2)));
    refused!(syscall::consumed(weak), BadRight);
    Ok(())
}

fn destinations_in_use() -> Outcome {
    let mut d = own();
    let (at, pd) = (process::pd().selector(), process::pd());
    let handler = ok!(d.handler(process::start().cpu));
    let thread = ok!(d.thread(process::start().cpu, 0, super::never));
    refused!(syscall::create_sm(at, pd, 0), Exists);
    refused!(syscall::create_sc(at, pd, thread, 1, 1000), Exists);
    // SAFETY: refused.
    unsafe {
        refused!(syscall::create_pt(at, pd, handler, portal_entry::<Echo>(), 0), Exists);
        refused!(syscall::create_ec(at, pd, start()), Exists);
    }
    Ok(())
}

fn semaphore_count() -> Outcome {
    let at = empty()?;
    for count in [1 << 32, u64::MAX] {
        refused!(syscall::create_sm(at, process::pd(), count), BadParam);
    }
    ok!(syscall::create_sm(at, process::pd(), u64::from(u32::MAX)));
    selector::delete(at);
    Ok(())
}

/// Every creation, with this domain to pay for it.
fn creations(pd: u64) -> core::result::Result<[(Call, Result<u64>); 7], Failure> {
    let mut d = own();
    let cpu = process::start().cpu;
    let (handler, thread) = (d.handler(cpu)?, d.thread(cpu, 0, super::never)?);
    let at = empty()?.0;
    let entry = portal_entry::<Echo>();
    Ok([
        (Call::CreatePd, [at, pd, 20, 0, 0]),
        (Call::CreateEc, [at, pd, UTCB, UTCB, 0x1000]),
        (Call::CreateVcpu, [at, pd, at, 0, 0]),
        (Call::CreateSc, [at, pd, thread.raw(), 1, 1000]),
        (Call::CreatePt, [at, pd, handler.raw(), entry, 0]),
        (Call::CreateSm, [at, pd, 0, 0, 0]),
        (Call::CreateGuest, [at, pd, 0, 0, 0]),
    ]
    .map(|(call, arguments)| (call, raw(Number::new(call).cpu(cpu).0, arguments))))
}

fn every_creation_needs_a_domain_and_the_right() -> Outcome {
    let mut d = own();
    let weak = ok!(with_rights(&mut d, process::pd(), Rights::PD_DELEGATE | Rights::PD_CTRL));
    for (call, result) in creations(weak.raw())? {
        same!((call, result), (call, Err(Status::BadRight)));
    }
    let sm = ok!(d.semaphore(0));
    for pd in [sm.raw(), empty()?.0, 0, Selector::COUNT] {
        for (call, result) in creations(pd)? {
            same!((call, result), (call, Err(Status::BadCap)));
        }
    }
    Ok(())
}

extern "sysv64" fn faults(_utcb: u64) -> ! {
    // SAFETY: nobody handles the exception: the thread ends here.
    _ = unsafe { crate::arch::undefined(0, 0) };
    super::never(0)
}

/// Its handler of nothing.
struct Faults;

impl sysroot::arch::Entry for Faults {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        faults(0)
    }
}

fn dead_contexts_take_nothing_more() -> Outcome {
    let mut d = own();
    let (cpu, pd) = (process::start().cpu, process::pd());
    let handler = ok!(d.handler(cpu));
    let portal = ok!(d.portal::<Faults>(handler, 0));
    refused!(super::ipc::call(portal, &[]), Aborted);
    let (at, entry) = (empty()?, portal_entry::<Echo>());
    // SAFETY: refused.
    refused!(unsafe { syscall::create_pt(at, pd, handler, entry, 0) }, BadState);
    refused!(syscall::recall(handler), BadState);
    let thread = ok!(d.thread(cpu, 0, faults));
    let sc = ok!(d.start(thread, crate::runner::priority() + 1));
    refused!(syscall::recall(thread), BadState);
    d.delete(sc.selector());
    refused!(syscall::create_sc(empty()?, pd, thread, 1, 1000), BadState);
    Ok(())
}

fn unknown_operations() -> Outcome {
    let mut d = own();
    let ec = ok!(d.handler(process::start().cpu));
    for operation in [0x40, 0xff] {
        let number = Number::new(Call::CtrlEc).flags(operation).0;
        refused!(raw(number, [ec.raw(), 0, 0, 0, 0]), BadParam);
    }
    // A selector that does not exist, in the calls that name a range of their own space.
    refused!(syscall::revoke_object(Selector(Selector::COUNT), Rights::FULL, false), BadCap);
    let range = ipc::cap::Range::object(Rights::FULL);
    refused!(syscall::query(range, Selector::COUNT), BadCap);
    Ok(())
}
