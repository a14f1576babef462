//! Interrupts: those of the devices that the configuration names.

use ipc::cap::{Rights, Selector};
use ipc::syscall::{MESSAGE_SIGNALLED, POLARITY_LOW, TRIGGER_LEVEL};
use sysroot::cap::{Cap, Interrupt, Semaphore};
use sysroot::{process, syscall, time};

use crate::check::{Failure, Outcome, patience};
use crate::devices::Timer;
use crate::domain::{other_cpu, own, with_rights};
use crate::runner::group;

group!("interrupt":
    rights_and_parameters,
    bound_once_and_until_it_is_unbound,
    it_arrives_with_its_badge,
    it_arrives_on_another_cpu,
    a_level_waits_for_its_acknowledgement,
    a_binding_ends_with_its_semaphore,
    a_binding_ends_with_its_capability,
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
