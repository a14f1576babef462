//! Interrupts: those of the devices that the configuration names.

use ipc::cap::{Rights, Selector};
use ipc::syscall::{MESSAGE_SIGNALLED, POLARITY_LOW, TRIGGER_LEVEL};
use sysroot::arch::Entry;
use sysroot::cap::{Cap, Interrupt, Semaphore};
use sysroot::{process, syscall, time, utcb};

use crate::check::{Failure, Outcome, patience};
use crate::devices::{Card, Message, Timer};
use crate::domain::{Domain, other_cpu, own, with_rights};
use crate::runner::{group, used};

group!("interrupt":
    rights_and_parameters,
    bound_once_and_until_it_is_unbound,
    it_arrives_with_its_badge,
    it_arrives_on_another_cpu,
    a_level_waits_for_its_acknowledgement,
    a_binding_ends_with_its_semaphore,
    a_binding_ends_with_its_capability,
    a_message_arrives_with_its_badge,
    a_message_arrives_on_another_cpu,
    vectors_of_one_device_are_told_apart,
    a_message_needs_its_right_and_trigger,
    a_message_ends_with_capability_and_semaphore,
    a_driver_in_another_domain,
    where_no_vector_is_left,
);

/// An interrupt of a device of this component, with its trigger flags.
fn interrupt() -> core::result::Result<(Cap<Interrupt>, u64), Failure> {
    process::start()
        .devices
        .iter()
        .find_map(|d| d.interrupts.first())
        .map(|i| (Cap::new(Selector(i.selector.into())), i.trigger))
        .ok_or(Failure::Skip("no device with an interrupt"))
}

fn rights_and_parameters() -> Outcome {
    let (source, trigger) = interrupt()?;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let cpu = process::start().cpu;
    let weak = ok!(with_rights(&mut d, source, Rights::INT_ACK));
    refused!(syscall::bind_interrupt(weak, cpu, sm, 1, trigger), BadRight);
    refused!(syscall::unbind_interrupt(weak), BadRight);
    let weak = ok!(with_rights(&mut d, source, Rights::INT_BIND));
    refused!(syscall::acknowledge(weak), BadRight);
    let weak = ok!(with_rights(&mut d, sm, Rights::SM_UP | Rights::SM_DOWN));
    refused!(syscall::bind_interrupt(source, cpu, weak, 1, trigger), BadRight);
    refused!(syscall::bind_interrupt(source, u16::MAX, sm, 1, trigger), BadCpu);
    for bad in [MESSAGE_SIGNALLED, 8, 1 << 63, TRIGGER_LEVEL | POLARITY_LOW | MESSAGE_SIGNALLED] {
        refused!(syscall::bind_interrupt(source, cpu, sm, 1, bad), BadParam);
    }
    let number = ipc::syscall::Number::new(ipc::syscall::Call::CtrlInterrupt).flags(3);
    refused!(crate::domain::raw(number.0, [source.raw(), 0, 0, 0, 0]), BadParam);
    refused!(syscall::acknowledge(source), BadState);
    refused!(syscall::unbind_interrupt(source), BadState);
    Ok(())
}

fn bound_once_and_until_it_is_unbound() -> Outcome {
    let (source, trigger) = interrupt()?;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let cpu = process::start().cpu;
    for _ in 0..3 {
        ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
        refused!(syscall::bind_interrupt(source, cpu, sm, 1, trigger), BadState);
        ok!(syscall::acknowledge(source));
        ok!(syscall::unbind_interrupt(source));
        refused!(syscall::unbind_interrupt(source), BadState);
    }
    Ok(())
}

fn arrives(cpu: u16) -> Outcome {
    let (timer, source, trigger) = Timer::find()?;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    ok!(syscall::bind_interrupt(source, cpu, sm, 0x50, trigger));
    // What was pending before does not count.
    let _ = sm.down_until(time::deadline_in_ms(20));
    for _ in 0..10 {
        timer.fire();
        same!(ok!(sm.down_until(patience())), 0x50);
    }
    ok!(syscall::unbind_interrupt(source));
    timer.fire();
    refused!(sm.down_until(time::deadline_in_ms(20)), Timeout);
    Ok(())
}

fn it_arrives_with_its_badge() -> Outcome {
    arrives(process::start().cpu)
}

fn it_arrives_on_another_cpu() -> Outcome {
    arrives(other_cpu().ok_or(Failure::Skip("one CPU"))?)
}

fn a_binding_ends_with_its_semaphore() -> Outcome {
    let (source, trigger) = interrupt()?;
    let cpu = process::start().cpu;
    {
        let mut d = own();
        let sm = ok!(d.semaphore(0));
        ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
    }
    refused!(syscall::unbind_interrupt(source), BadState);
    refused!(syscall::acknowledge(source), BadState);
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
    ok!(syscall::unbind_interrupt(source));
    Ok(())
}

fn a_binding_ends_with_its_capability() -> Outcome {
    let (source, trigger) = interrupt()?;
    let cpu = process::start().cpu;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let derived = ok!(with_rights(&mut d, source, Rights::INT_BIND | Rights::INT_ACK));
    let other = ok!(with_rights(&mut d, source, Rights::INT_BIND));
    ok!(syscall::bind_interrupt(derived, cpu, sm, 1, trigger));
    d.delete(other.selector());
    ok!(syscall::acknowledge(derived));
    d.delete(derived.selector());
    refused!(syscall::acknowledge(source), BadState);
    ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
    ok!(syscall::unbind_interrupt(source));
    Ok(())
}

fn a_level_waits_for_its_acknowledgement() -> Outcome {
    let (timer, source, _) = Timer::find()?;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    ok!(syscall::bind_interrupt(source, process::start().cpu, sm, 0x51, TRIGGER_LEVEL));
    timer.fire();
    same!(ok!(sm.down_until(patience())), 0x51);
    let nothing_more = |sm: Cap<Semaphore>| {
        refused!(sm.down_until(time::deadline_in_ms(5)), Timeout);
        Ok(())
    };
    // The line stays high, and nothing comes before it is acknowledged.
    nothing_more(sm)?;
    for _ in 0..3 {
        ok!(syscall::acknowledge(source));
        same!(ok!(sm.down_until(patience())), 0x51);
        nothing_more(sm)?;
    }
    // The line is low for some 50 ms.
    timer.fire_after(u16::MAX);
    ok!(syscall::acknowledge(source));
    nothing_more(sm)?;
    ok!(syscall::unbind_interrupt(source));
    Ok(())
}

/// The card's message comes with this badge, and no more once its cause has ended.
fn comes(card: &Card, sm: Cap<Semaphore>, badge: u64) -> Outcome {
    card.fire();
    same!(ok!(sm.down_until(patience())), badge);
    card.quiet();
    // What it repeated.
    time::sleep_ms(1);
    let _ = sm.down_all(Some(1));
    Ok(())
}

/// The card's message comes to nobody.
fn is_lost(card: &Card, sm: Cap<Semaphore>) -> Outcome {
    let _ = sm.down_all(Some(1));
    card.fire();
    refused!(sm.down_until(time::deadline_in_ms(20)), Timeout);
    card.quiet();
    Ok(())
}

fn message_arrives(cpu: u16) -> Outcome {
    let (card, mut d) = (Card::find()?, own());
    let (source, sm) = (card.vector(0)?, ok!(d.semaphore(0)));
    for (round, how) in [Message::Msi, Message::MsiX(0), Message::Msi].into_iter().enumerate() {
        let badge = 0x100 << round;
        let message = ok!(syscall::bind_interrupt(source, cpu, sm, badge, MESSAGE_SIGNALLED));
        refused!(syscall::bind_interrupt(source, cpu, sm, 1, MESSAGE_SIGNALLED), BadState);
        card.aim(how, message);
        for _ in 0..5 {
            comes(&card, sm, badge)?;
            // An edge: there is nothing to wait for.
            ok!(syscall::acknowledge(source));
        }
        ok!(syscall::unbind_interrupt(source));
        is_lost(&card, sm)?;
    }
    Ok(())
}

fn a_message_arrives_with_its_badge() -> Outcome {
    message_arrives(process::start().cpu)
}

fn a_message_arrives_on_another_cpu() -> Outcome {
    message_arrives(other_cpu().ok_or(Failure::Skip("one CPU"))?)
}

fn vectors_of_one_device_are_told_apart() -> Outcome {
    let (card, mut d) = (Card::find()?, own());
    let sm = ok!(d.semaphore(0));
    let cpus = [process::start().cpu, other_cpu().unwrap_or(0)];
    let mut messages = alloc::vec::Vec::new();
    for (n, cpu) in cpus.into_iter().enumerate() {
        let source = card.vector(n)?;
        messages.push(ok!(syscall::bind_interrupt(source, cpu, sm, 1 << n, MESSAGE_SIGNALLED)));
    }
    check!(messages.first() != messages.last());
    for n in [0, 1, 0, 1] {
        let message = messages.get(n as usize).copied().unwrap_or((0, 0));
        card.aim(Message::MsiX(n), message);
        comes(&card, sm, 1 << n)?;
    }
    Ok(())
}

fn a_message_needs_its_right_and_trigger() -> Outcome {
    let (card, mut d) = (Card::find()?, own());
    let (source, sm, cpu) = (card.vector(0)?, ok!(d.semaphore(0)), process::start().cpu);
    for bad in [0, TRIGGER_LEVEL, POLARITY_LOW, MESSAGE_SIGNALLED | TRIGGER_LEVEL, 8] {
        refused!(syscall::bind_interrupt(source, cpu, sm, 1, bad), BadParam);
    }
    let weak = ok!(with_rights(&mut d, source, Rights::INT_ACK));
    refused!(syscall::bind_interrupt(weak, cpu, sm, 1, MESSAGE_SIGNALLED), BadRight);
    let deaf = ok!(with_rights(&mut d, sm, Rights::SM_UP | Rights::SM_DOWN));
    refused!(syscall::bind_interrupt(source, cpu, deaf, 1, MESSAGE_SIGNALLED), BadRight);
    refused!(syscall::bind_interrupt(source, u16::MAX, sm, 1, MESSAGE_SIGNALLED), BadCpu);
    refused!(syscall::acknowledge(source), BadState);
    Ok(())
}

fn a_message_ends_with_capability_and_semaphore() -> Outcome {
    let (card, mut d) = (Card::find()?, own());
    let (source, sm, cpu) = (card.vector(0)?, ok!(d.semaphore(0)), process::start().cpu);
    let derived = ok!(with_rights(&mut d, source, Rights::INT_BIND));
    card.aim(
        Message::MsiX(0),
        ok!(syscall::bind_interrupt(derived, cpu, sm, 2, MESSAGE_SIGNALLED)),
    );
    comes(&card, sm, 2)?;
    d.delete(derived.selector());
    is_lost(&card, sm)?;
    let other = ok!(d.semaphore(0));
    card.aim(
        Message::MsiX(0),
        ok!(syscall::bind_interrupt(source, cpu, other, 4, MESSAGE_SIGNALLED)),
    );
    comes(&card, other, 4)?;
    d.delete(other.selector());
    is_lost(&card, sm)?;
    refused!(syscall::unbind_interrupt(source), BadState);
    Ok(())
}

/// Where the driver's domain has interrupt and semaphore.
const SOURCE: u64 = 700;
const BELL: u64 = 701;

/// A driver: binds its interrupt, and answers with the message for its device.
struct Driver;

impl Entry for Driver {
    extern "sysv64" fn enter(badge: u64, _descriptor: u64) -> u64 {
        let (source, bell) = (Cap::new(Selector(SOURCE)), Cap::new(Selector(BELL)));
        let bound = syscall::bind_interrupt(source, utcb::cpu(), bell, badge, MESSAGE_SIGNALLED);
        utcb::with_message(|area| {
            let [address, data, ..] = area.words;
            (*address, *data) = bound.unwrap_or((0, 0));
        });
        ipc::utcb::Message::new(2, 0).0
    }
}

fn a_driver_in_another_domain() -> Outcome {
    let (card, mut here, mut d) = (Card::find()?, own(), ok!(Domain::new(200)));
    let (source, sm, cpu) = (card.vector(0)?, ok!(here.semaphore(0)), process::start().cpu);
    ok!(d.give(source, SOURCE, Rights::INT_BIND));
    ok!(d.give(sm, BELL, Rights::SM_BIND));
    let portal = ok!(d.serve::<Driver>(cpu, 0x20));
    let (_, [address, data, ..]) = ok!(super::ipc::call(portal, &[]));
    card.aim(Message::MsiX(0), (address, data));
    comes(&card, sm, 0x20)?;
    refused!(syscall::bind_interrupt(source, cpu, sm, 1, MESSAGE_SIGNALLED), BadState);
    // It is taken back, and with it the binding.
    ok!(syscall::revoke_object(source.selector(), Rights::FULL, false));
    is_lost(&card, sm)?;
    ok!(syscall::bind_interrupt(source, cpu, sm, 1, MESSAGE_SIGNALLED));
    ok!(syscall::unbind_interrupt(source));
    Ok(())
}

/// On a kernel that has one vector for devices on each CPU.
fn where_no_vector_is_left() -> Outcome {
    if !process::has_argument("sabotage") {
        return Err(Failure::Skip("this kernel has vectors for all interrupts"));
    }
    let (source, trigger) = interrupt()?;
    let other = process::start().devices.iter().flat_map(|d| &d.interrupts).find_map(|i| {
        let cap = Cap::<Interrupt>::new(Selector(i.selector.into()));
        (cap.raw() != source.raw()).then_some((cap, i.trigger))
    });
    let (other, its_trigger) = other.ok_or(Failure::Skip("no other interrupt"))?;
    let mut d = own();
    let sm = ok!(d.semaphore(0));
    let cpu = process::start().cpu;
    for _ in 0..2 {
        ok!(syscall::bind_interrupt(source, cpu, sm, 1, trigger));
        let before = ok!(used());
        refused!(syscall::bind_interrupt(other, cpu, sm, 2, its_trigger), Quota);
        same!(ok!(used()), before);
        refused!(syscall::unbind_interrupt(other), BadState);
        ok!(syscall::unbind_interrupt(source));
        ok!(syscall::bind_interrupt(other, cpu, sm, 2, its_trigger));
        ok!(syscall::unbind_interrupt(other));
    }
    Ok(())
}
