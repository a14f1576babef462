use super::Bench;
use super::IF;
use crate::boot::layout;
use crate::report::GuestFault;
use crate::report::Stop;
use crate::report::VmmError;
use crate::vcpu::Action;
use crate::vcpu::Run;
use ipc::event::Exit;
use ipc::exit::MemoryAccess;
use ipc::state::Activity;
use ipc::state::Inject;
use ipc::status::Status;

#[test]
fn starts_in_the_kernel() {
    let mut b = Bench::new(1, true);
    let s = b.state();
    assert_eq!((s.rip, s.rsi, s.cr3), (0x100_0200, layout::ZERO_PAGE, layout::PAGE_TABLES));
    assert_eq!(s.rflags & IF, 0);
    assert_eq!(b.read_msr(0x1b), 0xfee0_0d00);
}

#[test]
fn guest_faults_stop_the_vm_with_a_report() {
    let mut b = Bench::running();
    assert_eq!(b.stop(Exit::Shutdown), Stop::Guest(GuestFault::TripleFault));
    assert!(b.world.lines.borrow()[0].contains("triple fault"));
    let fault = |access: MemoryAccess, inject: u64| {
        let mut b = Bench::running();
        b.state().qualification = [access.bits(), 0xd000_0000, 0];
        b.state().inject = inject;
        b.stop(Exit::Memory)
    };
    assert_eq!(fault(MemoryAccess::FETCH, 0), Stop::Guest(GuestFault::Fetch(0xd000_0000)));
    let walk = MemoryAccess::READ | MemoryAccess::PAGE_WALK;
    assert_eq!(fault(walk, 0), Stop::Guest(GuestFault::PageTable(0xd000_0000)));
    assert_eq!(
        fault(MemoryAccess::WRITE, Inject::interrupt(0x30).0),
        Stop::Guest(GuestFault::Delivery(0xd000_0000))
    );
    let mut b = Bench::running();
    b.state().qualification = [MemoryAccess::READ.bits(), 0x1000, 0];
    assert_eq!(b.stop(Exit::Memory), Stop::Vmm(VmmError::NotMapped(0x1000)));
    for exit in [Exit::EntryFailed, Exit::Unknown, Exit::TaskSwitch] {
        assert!(matches!(Bench::running().stop(exit), Stop::Guest(_)));
    }
}

#[test]
fn a_kernel_that_refuses_state_stops_the_vm() {
    let mut b = Bench::running();
    b.world.refuse.set(true);
    b.state().rax = 1;
    assert_eq!(b.stop(Exit::Cpuid), Stop::Vmm(VmmError::State(Status::BadState)));
}

#[test]
fn power_off() {
    let mut b = Bench::running();
    assert_eq!(b.out(0x600, 0x34), Action::Stop(Stop::PowerOff));
    let lines = b.world.lines.borrow();
    assert_eq!(lines[0], "guest powered off");
    assert_eq!(
        lines[1],
        "exits total=3 cpuid=0 io=1 msr=1 memory=0 hlt=0 window=0 deadline=0 recall=0 other=1"
    );
}

#[test]
fn restart_of_a_single_vcpu() {
    let mut b = Bench::running();
    b.write_msr(0x832, 0x4_00ec);
    b.write_msr(0x6e0, 9000);
    b.vm.ram().write_word(0x100_0000, 8, 0).unwrap();
    b.out(0x602, 1);
    assert_eq!(b.states[0].rip, 0x100_0200);
    assert_eq!((b.states[0].deadline, b.states[0].inject, b.states[0].rflags), (0, 0, 2));
    assert_eq!(b.vm.ram().read_word(0x100_0000, 8).unwrap(), 0x0706_0504_0302_0100);
    assert_eq!(b.read_msr(0x832), 0x1_0000);
    assert!(b.world.lines.borrow()[0].starts_with("guest restarts"));
    b.out(0x602, 1);
    assert_eq!(b.vm.generation(), 2);
}

#[test]
fn restart_gathers_all_vcpus() {
    let mut b = Bench::new(3, true);
    b.out(0x602, 1);
    assert!(b.is_halted(0));
    assert_eq!(*b.world.recalled.borrow(), [1, 2]);
    b.exit_of(2, Exit::Recall);
    // A second exit of the same one counts once.
    b.exit_of(2, Exit::Recall);
    assert_eq!(b.vm.generation(), 0);
    b.world.recalled.borrow_mut().clear();
    b.exit_of(1, Exit::Recall);
    assert_eq!(b.vm.generation(), 1);
    assert_eq!(*b.world.recalled.borrow(), [0, 2]);
    assert!(b.is_halted(1));
    b.exit_of(0, Exit::Recall);
    assert!(!b.is_halted(0));
    assert_eq!(b.states[0].rip, 0x100_0200);
    b.exit_of(2, Exit::Recall);
    assert!(b.is_halted(2));
    assert_eq!(b.cpus[2].run(), Run::WaitForStartup);
}

#[test]
fn init_of_the_bootstrap_processor_restarts_the_vm() {
    let mut b = Bench::running();
    b.write_msr(0x830, 0x4500);
    assert_eq!((b.vm.generation(), b.states[0].rip), (1, 0x100_0200));
    let mut b = Bench::new(2, true);
    b.write_msr(0x830, 0x4500);
    assert!(b.is_halted(0));
    b.exit_of(1, Exit::Recall);
    b.exit_of(0, Exit::Recall);
    assert_eq!((b.vm.generation(), b.states[0].rip), (1, 0x100_0200));
}

#[test]
fn the_others_stop_with_the_vm() {
    let mut b = Bench::new(2, true);
    b.out(0x600, 0x34);
    assert_eq!(*b.world.recalled.borrow(), [1]);
    b.exit_of(1, Exit::Recall);
    assert!(b.is_halted(1));
}

#[test]
fn application_processors_start_by_ipi() {
    let mut b = Bench::new(2, true);
    assert!(b.is_halted(1));
    b.write_msr(0x80f, 0x1ff);
    b.write_msr(0x830, 1 << 32 | 0x4500);
    assert_eq!(*b.world.recalled.borrow(), [1]);
    b.exit_of(1, Exit::Recall);
    assert!(b.is_halted(1));
    b.write_msr(0x830, 1 << 32 | 0x469a);
    b.write_msr(0x830, 1 << 32 | 0x469b);
    b.exit_of(1, Exit::Recall);
    let s = &b.states[1];
    assert_eq!((s.rip, s.cs.selector, s.cs.base, s.cr0 & 1), (0, 0x9a00, 0x9a000, 0));
    assert!(!b.is_halted(1));
    assert_eq!(b.cpus[1].run(), Run::Running);
    // Running, it ignores another start-up, takes an IPI, and an NMI.
    b.states[1].rflags |= IF;
    b.states[1].cr0 = 1;
    b.write_msr(0x830, 1 << 32 | 0x469b);
    b.exit_of(1, Exit::Recall);
    assert_eq!(b.states[1].rip, 0);
    b.write_msr(0x830, 1 << 32 | 0x4400);
    b.exit_of(1, Exit::Recall);
    assert_eq!(Inject(b.states[1].inject), Inject::nmi());
    b.states[1].inject = 0;
    b.states[1].activity = Activity::NMI_BLOCKED.bits();
    b.write_msr(0x830, 1 << 32 | 0x4400);
    b.exit_of(1, Exit::Recall);
    assert!(Inject(b.states[1].inject).wants_nmi_window());
    b.states[1].activity = 0;
    b.exit_of(1, Exit::NmiWindow);
    assert!(Inject(b.states[1].inject).is_valid());
    // INIT puts it back to waiting.
    b.write_msr(0x830, 1 << 32 | 0x4500);
    b.exit_of(1, Exit::Recall);
    assert!(b.is_halted(1));
}

/// A guest can exit for any reason with any state: the handler has an answer.
#[test]
fn any_exit_with_any_state_has_an_answer() {
    let mut seed = 3u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed ^ seed >> 29
    };
    for x2apic in [false, true] {
        let mut b = Bench::new(2, x2apic);
        for _ in 0..10_000 {
            let n = (random() & 1) as u32;
            let exits = [Exit::Io, Exit::MsrRead, Exit::MsrWrite, Exit::Cpuid, Exit::Memory];
            let exit = match random() % 8 {
                r @ 0..5 => exits[r as usize],
                _ => Exit::ALL[random() as usize % Exit::ALL.len()].0,
            };
            {
                let s = &mut b.states[n as usize];
                (s.rax, s.rcx, s.rdx) = (random(), random(), random() & 0xff);
                s.rflags = random() & 0x3f_7fd7;
                s.instruction_length = random() & 7;
                s.qualification = match exit {
                    Exit::Io => [random() & 0x0fff_ffff, 0, 0],
                    Exit::MsrRead | Exit::MsrWrite if random() & 1 == 0 => {
                        [0x800 + random() % 64, 0, 0]
                    }
                    Exit::Memory => {
                        s.rip = random() & 0x1f_ffff;
                        [1 + random() % 2, layout::LAPIC - (random() & 0xfff), 0]
                    }
                    _ => [random(), random(), random()],
                };
            }
            b.world.tsc.set(b.world.tsc.get() + (random() & 0xffff));
            if let Action::Stop(_) = b.exit_of(n, exit) {
                b = Bench::new(2, x2apic);
            }
        }
    }
}
