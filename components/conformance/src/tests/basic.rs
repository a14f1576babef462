//! Numbers and selectors: what every call checks first.

use ipc::cap::Selector;
use ipc::syscall::{Call, Number};
use sysroot::cap::{Cap, Ec, Interrupt, Pd, Portal, Sc, Semaphore, Vcpu};
use sysroot::{process, syscall};

use crate::check::Outcome;
use crate::domain::{empty, own, raw};
use crate::runner::group;

group!("basic":
    unknown_calls_are_refused,
    the_null_selector_is_empty,
    selectors_out_of_range,
    empty_selectors,
    objects_of_another_type,
    own_capabilities_are_as_the_start_block_says,
);

fn unknown_calls_are_refused() -> Outcome {
    for number in [19, 20, 100, 255] {
        refused!(raw(number, [0; 5]), BadCall);
    }
    // Only the low byte is the number.
    refused!(raw(0xffff_ffff_ffff_ff13, [0; 5]), BadCall);
    Ok(())
}

/// Every call whose first argument is a capability, with this selector there.
fn with_selector(selector: u64) -> [(Call, Result<u64, ipc::status::Status>); 9] {
    [
        Call::Call,
        Call::Down,
        Call::Up,
        Call::Delegate,
        Call::CtrlEc,
        Call::CtrlSc,
        Call::CtrlPt,
        Call::CtrlPd,
        Call::CtrlInterrupt,
    ]
    .map(|call| (call, raw(Number::new(call).0, [selector, 0x101, 1, 1, 0])))
}

fn the_null_selector_is_empty() -> Outcome {
    for (call, result) in with_selector(0) {
        same!((call, result), (call, Err(ipc::status::Status::BadCap)));
    }
    refused!(syscall::create_sm(Selector::NULL, process::pd(), 0), BadCap);
    Ok(())
}

fn selectors_out_of_range() -> Outcome {
    for selector in [Selector::COUNT, 1 << 32, u64::MAX] {
        for (call, result) in with_selector(selector) {
            same!((call, result), (call, Err(ipc::status::Status::BadCap)));
        }
        refused!(syscall::create_sm(Selector(selector), process::pd(), 0), BadCap);
        let pd: Cap<Pd> = Cap::new(Selector(selector));
        refused!(syscall::create_sm(empty()?, pd, 0), BadCap);
    }
    Ok(())
}

fn empty_selectors() -> Outcome {
    for (call, result) in with_selector(empty()?.0) {
        same!((call, result), (call, Err(ipc::status::Status::BadCap)));
    }
    Ok(())
}

fn objects_of_another_type() -> Outcome {
    let mut d = own();
    let sm = ok!(d.semaphore(1)).selector();
    let pd = process::pd().selector();
    let at = empty()?;
    refused!(Cap::<Semaphore>::new(pd).up(), BadCap);
    refused!(Cap::<Semaphore>::new(pd).down(), BadCap);
    refused!(syscall::create_sm(at, Cap::new(sm), 0), BadCap);
    refused!(syscall::create_pd(at, Cap::new(sm), 1), BadCap);
    refused!(syscall::create_sc(at, process::pd(), Cap::<Ec>::new(sm), 1, 1), BadCap);
    refused!(syscall::consumed(Cap::<Sc>::new(sm)), BadCap);
    refused!(syscall::account(Cap::<Pd>::new(sm)), BadCap);
    refused!(syscall::recall(Cap::<Vcpu>::new(sm)), BadCap);
    refused!(syscall::acknowledge(Cap::<Interrupt>::new(sm)), BadCap);
    refused!(syscall::unbind_interrupt(Cap::<Interrupt>::new(sm)), BadCap);
    refused!(syscall::create_guest(at, Cap::new(sm)), BadCap);
    refused!(syscall::set_portal(Cap::<Portal>::new(sm), 0, ipc::state::Mtd::empty()), BadCap);
    refused!(
        syscall::delegate_object(Cap::new(sm), process::pd(), at, ipc::cap::Rights::FULL, 0),
        BadCap
    );
    // SAFETY: not a portal, so nothing is called.
    refused!(unsafe { syscall::call(Cap::<Portal>::new(sm), ipc::utcb::Message::EMPTY) }, BadCap);
    Ok(())
}

fn own_capabilities_are_as_the_start_block_says() -> Outcome {
    use ipc::cap::{ObjectType, Range, Rights};
    let objects = process::start().objects;
    for (selector, kind) in [
        (objects.pd, ObjectType::Pd),
        (objects.ec, ObjectType::Ec),
        (objects.sc, ObjectType::Sc),
        (objects.semaphore, ObjectType::Sm),
        (objects.root, ObjectType::Pt),
        (objects.events, ObjectType::Pt),
    ] {
        let (held, _) = ok!(syscall::query(Range::object(Rights::FULL), selector.into()));
        same!(held.object(), Some(kind));
    }
    let (held, _) = ok!(syscall::query(
        Range::object(Rights::FULL),
        (objects.free + objects.free_count / 2).into()
    ));
    same!(held.object(), Some(ObjectType::Null));
    refused!(syscall::query(Range::object(Rights::FULL), Selector::COUNT), BadCap);
    refused!(syscall::query(Range(3), 0), BadParam);
    Ok(())
}
