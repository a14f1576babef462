//! Virtio devices and the vCPUs that drive them; VMs that stand still.

use ipc::event::Exit;
use ipc::state::Inject;

use super::exits::{STORE, mmio};
use super::{Bench, IF};
use crate::boot::layout;
use crate::devices::virtio::device::reason;
use crate::devices::virtio::page::offset;
use crate::devices::virtio::slot::tests::{End, disk, drive};
use crate::devices::virtio::{FIRST_GSI, page};
use crate::vcpu::Run;
use crate::vm::Phase;

fn store(b: &mut Bench, device: u64, at: u64, value: u32) {
    b.state().rax = value.into();
    mmio(b, &STORE, layout::VIRTIO + device * page::SIZE + at, true);
    b.exit(Exit::Memory);
}

/// Pin of a device to a vector of APIC 0; `mode` are bits 8 and up of the entry.
fn route(b: &Bench, device: u32, vector: u64, mode: u64) {
    let apics = b.vm.apics();
    let mut devices = b.vm.devices().lock();
    let _ = devices.ioapic_write(0, u64::from(0x10 + (FIRST_GSI + device) * 2), apics);
    let _ = devices.ioapic_write(0x10, vector | mode, apics);
}

fn running() -> (Bench, [End; 2]) {
    let ends = [End::default(), End::default()];
    let mut b = Bench::running_with(&ends);
    for n in 0..2 {
        b.vm.virtio_identify(&b.world, n, disk());
        drive(|at, value| store(&mut b, n as u64, at, value));
    }
    route(&b, 0, 0x51, 0);
    route(&b, 1, 0x52, 0);
    (b, ends)
}

#[test]
fn a_doorbell_reaches_its_back_end_only() {
    let (mut b, ends) = running();
    store(&mut b, 1, offset::QUEUE_NOTIFY, 0);
    assert_eq!(ends.each_ref().map(|e| e.with(|s| s.doorbells)), [0, 1]);
    assert_eq!(b.states[0].rip, 0x20_0002);
}

#[test]
fn completion_interrupts_with_one_exit() {
    let (mut b, _) = running();
    b.exit(Exit::Hlt);
    b.vm.virtio_signal(&b.world, 1);
    b.vm.virtio_signal(&b.world, 1);
    assert_eq!(*b.world.recalled.borrow(), [0]);
    b.exit(Exit::Recall);
    assert!(!b.is_halted(0));
    assert_eq!(b.delivered(), 0x52);
    assert_eq!(b.vm.virtio()[1].page().get(offset::INTERRUPT_STATUS), reason::USED);
    store(&mut b, 1, offset::INTERRUPT_ACK, reason::USED);
    assert!(!b.vm.virtio()[1].is_pending());
}

#[test]
fn an_interrupt_while_the_pin_is_masked_comes_when_it_is_unmasked() {
    let (mut b, _) = running();
    route(&b, 0, 0x51, 1 << 16);
    b.vm.virtio_signal(&b.world, 0);
    assert!(b.world.recalled.borrow().is_empty());
    route(&b, 0, 0x51, 0);
    b.exit(Exit::Recall);
    assert_eq!(b.delivered(), 0x51);
}

#[test]
fn a_guest_may_take_the_interrupt_as_a_level() {
    let (mut b, _) = running();
    route(&b, 0, 0x51, 1 << 15);
    b.vm.virtio_signal(&b.world, 0);
    b.exit(Exit::Recall);
    assert_eq!(b.delivered(), 0x51);
    // Not acknowledged: it comes again after its end.
    b.write_msr(0x80b, 0);
    assert_eq!(b.delivered(), 0x51);
    store(&mut b, 0, offset::INTERRUPT_ACK, reason::USED);
    b.write_msr(0x80b, 0);
    assert!(!b.inject().is_valid());
}

#[test]
fn a_reset_is_executed_again_when_the_back_end_has_let_go() {
    let (mut b, ends) = running();
    ends[0].with(|s| s.busy = true);
    store(&mut b, 0, offset::STATUS, 0);
    assert_eq!((b.states[0].rip, b.states[0].rax), (0x20_0000, 0));
    assert!(b.is_halted(0));
    // Other news do not end the wait.
    b.vm.virtio_signal(&b.world, 0);
    b.exit(Exit::Recall);
    assert!(b.is_halted(0));
    ends[0].with(|s| s.busy = false);
    b.vm.virtio_signal(&b.world, 0);
    assert_eq!(*b.world.recalled.borrow(), [0]);
    b.exit(Exit::Recall);
    assert!(!b.is_halted(0));
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rip, 0x20_0002);
    assert_eq!(b.vm.virtio()[0].page().status(), 0);
}

#[test]
fn a_back_end_that_died_is_noticed() {
    let (mut b, ends) = running();
    ends[0].with(|s| s.busy = true);
    store(&mut b, 0, offset::STATUS, 0);
    let retry = b.states[0].deadline;
    assert_ne!(retry, 0);
    b.world.tsc.set(retry);
    b.exit(Exit::Deadline);
    assert!(!b.is_halted(0));
    b.exit(Exit::Memory);
    assert!(b.is_halted(0) && b.states[0].deadline > retry);
    ends[0].with(|s| s.busy = false);
    b.exit(Exit::Deadline);
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rip, 0x20_0002);
    b.exit(Exit::Deadline);
    assert_eq!(b.states[0].deadline, 0);
}

#[test]
fn an_answer_while_the_exit_is_handled_is_not_missed() {
    let (mut b, ends) = running();
    ends[0].with(|s| s.busy = true);
    b.vm.attention(&b.world);
    store(&mut b, 0, offset::STATUS, 0);
    assert!(!b.is_halted(0), "it looks again");
    assert_eq!(b.states[0].rip, 0x20_0000);
}

#[test]
fn a_vcpu_that_waits_takes_interrupts() {
    let (mut b, ends) = running();
    ends[0].with(|s| s.busy = true);
    store(&mut b, 0, offset::STATUS, 0);
    b.vm.virtio_signal(&b.world, 1);
    b.exit(Exit::Recall);
    assert_eq!(b.delivered(), 0x52);
    assert!(!b.is_halted(0));
}

#[test]
fn a_restart_waits_for_the_back_ends() {
    let (mut b, ends) = running();
    ends[1].with(|s| s.busy = true);
    b.out(0x602, 1);
    assert_eq!(b.vm.phase(), Phase::Resetting);
    assert!(b.is_halted(0));
    ends[1].with(|s| s.busy = false);
    b.vm.virtio_signal(&b.world, 1);
    b.exit(Exit::Recall);
    assert_eq!((b.vm.phase(), b.states[0].rip), (Phase::Running, 0x100_0200));
    assert_eq!(b.vm.virtio()[0].page().status(), 0);
}

#[test]
fn a_guest_without_devices_finds_none() {
    let mut b = Bench::running();
    store(&mut b, 0, offset::QUEUE_NOTIFY, 0);
    assert_eq!(b.world.lines.borrow().len(), 1);
}

#[test]
fn a_paused_vm_stands_still_and_goes_on() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_0040);
    b.write_msr(0x6e0, 5000);
    b.vm.pause(&b.world, true);
    b.vm.pause(&b.world, true);
    assert_eq!(*b.world.recalled.borrow(), [0]);
    // An interrupt whose delivery was cut short waits as well.
    b.state().inject = Inject::interrupt(0x61).0;
    b.exit(Exit::Recall);
    assert!(b.is_halted(0));
    assert_eq!((b.states[0].deadline, b.states[0].inject), (0, 0));
    b.exit(Exit::Recall);
    assert!(b.is_halted(0) && !b.inject().is_valid());
    b.vm.pause(&b.world, false);
    b.exit(Exit::Recall);
    assert!(!b.is_halted(0));
    assert_eq!(b.delivered(), 0x61);
    assert_eq!(b.states[0].deadline, 5000);
}

#[test]
fn a_paused_vcpu_that_was_halted_stays_halted() {
    let mut b = Bench::running();
    b.exit(Exit::Hlt);
    b.vm.pause(&b.world, true);
    b.exit(Exit::Recall);
    b.vm.pause(&b.world, false);
    b.exit(Exit::Recall);
    assert!(b.is_halted(0));
    assert_eq!(b.cpus[0].run(), Run::Halted);
    assert_ne!(b.states[0].rflags & IF, 0);
}
