use super::Bench;
use super::IF;
use crate::vcpu::Action;
use ipc::event::Exit;
use ipc::state::Activity;
use ipc::state::Inject;
use ipc::state::Mtd;

#[test]
fn tsc_deadline_timer() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_00ec);
    b.world.tsc.set(1000);
    let reply = b.write_msr(0x6e0, 5000);
    assert_eq!(reply, Mtd::RIP | Mtd::DEADLINE);
    assert_eq!(b.states[0].deadline, 5000);
    assert_eq!(b.read_msr(0x6e0), 5000);
    b.world.tsc.set(5001);
    let reply = b.exit(Exit::Deadline);
    assert!(reply.contains(Mtd::INJECT | Mtd::DEADLINE));
    assert_eq!(b.states[0].deadline, 0);
    assert_eq!(b.delivered(), 0xec);
    // Until the guest ends it, the next one waits; then it comes with the EOI.
    b.write_msr(0x6e0, 6000);
    b.world.tsc.set(6000);
    b.exit(Exit::Deadline);
    assert!(!b.inject().is_valid());
    b.write_msr(0x80b, 0);
    assert_eq!(b.delivered(), 0xec);
    b.write_msr(0x80b, 0);
    // A deadline in the past needs no exit.
    b.write_msr(0x6e0, 10);
    assert_eq!(b.states[0].deadline, 0);
    assert_eq!(b.delivered(), 0xec);
}

#[test]
fn deadline_counts_in_guest_time() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_00ec);
    b.world.tsc.set(10_000);
    let reply = b.write_msr(0x10, 1000);
    assert!(reply.contains(Mtd::TSC));
    assert_eq!(b.states[0].tsc_offset, 9000u64.wrapping_neg());
    assert_eq!(b.read_msr(0x10), 1000);
    b.write_msr(0x6e0, 1500);
    assert_eq!(b.states[0].deadline, 10_500);
}

#[test]
fn halts_until_an_interrupt() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_00ec);
    b.write_msr(0x6e0, 5000);
    b.state().instruction_length = 1;
    b.state().activity = Activity::INTERRUPT_SHADOW.bits();
    let rip = b.states[0].rip;
    let reply = b.exit(Exit::Hlt);
    assert!(reply.contains(Mtd::ACTIVITY | Mtd::RIP));
    assert_eq!(b.states[0].activity, Activity::HALTED.bits());
    assert_eq!(b.states[0].rip, rip + 1);
    // Recalled for nothing: back to sleep.
    b.exit(Exit::Recall);
    assert!(b.is_halted(0));
    b.world.tsc.set(5000);
    b.exit(Exit::Deadline);
    assert!(!b.is_halted(0));
    assert_eq!(b.delivered(), 0xec);
}

#[test]
fn does_not_halt_when_the_interrupt_is_there_already() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_00ec);
    b.write_msr(0x6e0, 5000);
    b.world.tsc.set(5000);
    b.state().activity = Activity::INTERRUPT_SHADOW.bits();
    b.exit(Exit::Hlt);
    assert!(!b.is_halted(0));
    assert_eq!(b.states[0].activity, 0);
    assert_eq!(b.delivered(), 0xec);
}

#[test]
fn a_halt_with_interrupts_off_is_logged() {
    let mut b = Bench::running();
    b.state().rflags &= !IF;
    b.exit(Exit::Hlt);
    assert!(b.is_halted(0));
    assert!(b.world.lines.borrow()[0].contains("interrupts off"));
    // A self-IPI from elsewhere does not wake it.
    b.vm.apics().inbox(0).unwrap();
    b.exit(Exit::Recall);
    assert!(b.is_halted(0));
}

#[test]
fn interrupts_wait_for_their_window() {
    let mut b = Bench::running();
    b.state().rflags &= !IF;
    // Self-IPI.
    b.write_msr(0x83f, 0x61);
    assert!(!b.inject().is_valid());
    assert!(b.inject().wants_interrupt_window());
    // Asked for once.
    assert_eq!(b.out(0x80, 0), Action::Reply(Mtd::RIP));
    b.state().rflags |= IF;
    b.state().inject = 0;
    b.exit(Exit::InterruptWindow);
    assert_eq!(b.delivered(), 0x61);
    assert!(!b.inject().wants_interrupt_window());
}

#[test]
fn a_shadow_holds_interrupts_off_only_until_the_instruction_is_complete() {
    let mut b = Bench::running();
    b.state().activity = Activity::INTERRUPT_SHADOW.bits();
    let _ = b.vm.apics().deliver(self_ipi(0x71));
    b.exit(Exit::Recall);
    assert!(!b.inject().is_valid());
    assert!(b.inject().wants_interrupt_window());
    // STI; OUT: behind OUT the interrupt can come.
    b.out(0x80, 0);
    assert_eq!(b.delivered(), 0x71);
}

fn self_ipi(vector: u8) -> crate::devices::interrupt::Message {
    crate::devices::interrupt::Message {
        to: crate::devices::interrupt::Destination::Own(0),
        delivery: crate::devices::interrupt::Delivery::Fixed,
        vector,
        level: false,
    }
}

#[test]
fn what_was_interrupted_is_not_lost() {
    let mut b = Bench::running();
    let _ = b.vm.apics().deliver(self_ipi(0x71));
    b.state().inject = Inject::exception(14, Some(2)).0;
    b.exit(Exit::Recall);
    assert_eq!((b.inject().vector(), b.inject().error()), (14, Some(2)));
    assert!(b.inject().wants_interrupt_window());
    // With nothing to add the reply leaves it to the kernel.
    let mut b = Bench::running();
    b.state().inject = Inject::interrupt(0x51).0;
    assert!(!b.exit(Exit::Recall).contains(Mtd::INJECT));
}

#[test]
fn task_priority_by_cr8_and_msr() {
    let mut b = Bench::running();
    b.write_msr(0x808, 0x70);
    assert_eq!(b.states[0].cr8, 7);
    b.write_msr(0x83f, 0x61);
    assert!(!b.inject().is_valid());
    b.write_msr(0x808, 0x50);
    assert_eq!(b.delivered(), 0x61);
    b.write_msr(0x80b, 0);
    b.state().cr8 = 9;
    let _ = b.vm.apics().deliver(self_ipi(0x81));
    b.exit(Exit::Recall);
    assert!(!b.inject().is_valid());
    assert_eq!(b.read_msr(0x808), 0x90);
}

#[test]
fn console_input_reaches_the_guest() {
    let mut b = Bench::running();
    b.route_uart();
    b.exit(Exit::Hlt);
    b.pipe.send("k");
    b.vm.attention(&b.world);
    b.vm.attention(&b.world);
    assert_eq!(*b.world.recalled.borrow(), [0]);
    b.exit(Exit::Recall);
    assert!(!b.is_halted(0));
    assert_eq!(b.delivered(), 0x34);
    b.port(0x3f8, 0, true);
    assert_eq!(b.states[0].rax, u64::from(b'k'));
}

#[test]
fn silent_end_of_interrupt() {
    let mut b = Bench::running();
    b.write_msr(0x4b56_4d04, 0x5001);
    b.write_msr(0x83f, 0x61);
    assert_eq!(b.delivered(), 0x61);
    assert_eq!(b.vm.ram().read_word(0x5000, 4).unwrap(), 1);
    // The guest ends it without an exit, and exits for other reasons before the next one of the
    // same priority comes.
    b.vm.ram().write_word(0x5000, 4, 0).unwrap();
    b.write_msr(0x6e0, 0);
    b.out(0x80, 0);
    let _ = b.vm.apics().deliver(self_ipi(0x60));
    b.exit(Exit::Recall);
    assert_eq!(b.delivered(), 0x60);
    // Nested: the inner one is ended silently, the outer one by its register.
    let _ = b.vm.apics().deliver(self_ipi(0x81));
    b.exit(Exit::Recall);
    assert_eq!(b.delivered(), 0x81);
    b.vm.ram().write_word(0x5000, 4, 0).unwrap();
    b.write_msr(0x80b, 0);
    assert!(b.cpus[0].lapic.ppr() == 0);
    // Not offered while another one waits for it.
    b.write_msr(0x83f, 0x62);
    assert_eq!(b.delivered(), 0x62);
    let _ = b.vm.apics().deliver(self_ipi(0x61));
    b.exit(Exit::Recall);
    assert_eq!(b.vm.ram().read_word(0x5000, 4).unwrap(), 0);
}

#[test]
fn ipis_between_vcpus() {
    let mut b = Bench::new(2, true);
    b.write_msr(0x80f, 0x1ff);
    b.write_msr(0x830, 1 << 32 | 0x4500);
    b.exit_of(1, Exit::Recall);
    b.write_msr(0x830, 1 << 32 | 0x4601);
    b.exit_of(1, Exit::Recall);
    {
        let s = &mut b.states[1];
        s.qualification = [0x80f, 0, 0];
        (s.rax, s.rdx, s.rcx, s.cr0) = (0x1ff, 0, 0x80f, 1);
        s.rflags |= IF;
    }
    b.exit_of(1, Exit::MsrWrite);
    b.world.recalled.borrow_mut().clear();
    b.write_msr(0x830, 1 << 32 | 0xfd);
    b.write_msr(0x830, 1 << 32 | 0xfc);
    assert_eq!(*b.world.recalled.borrow(), [1]);
    b.exit_of(1, Exit::Recall);
    assert_eq!(Inject(b.states[1].inject).vector(), 0xfd);
}
