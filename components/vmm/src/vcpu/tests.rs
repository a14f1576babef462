use std::cell::{Cell, RefCell};
use std::fmt::Arguments;

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};
use ipc::state::{Activity, Inject, InjectKind, Mtd, State};
use ipc::status::Status;

use super::{Action, Run, Vcpu};
use crate::boot::{layout, linux};
use crate::console::tests::Pipe;
use crate::host::Host;
use crate::memory::Ram;
use crate::report::{GuestFault, Stop, VmmError};
use crate::vm::{Config, Vm};

const IF: u64 = 1 << 9;

/// The world outside: a TSC that a test sets, and a record of what is asked for.
#[derive(Default)]
struct World {
    tsc: Cell<u64>,
    recalled: RefCell<Vec<u32>>,
    fetched: Cell<u64>,
    refuse: Cell<bool>,
    whole: RefCell<State>,
    lines: RefCell<Vec<String>>,
}

impl Host for World {
    fn tsc(&self) -> u64 {
        self.tsc.get()
    }

    fn recall(&self, vcpu: u32) {
        self.recalled.borrow_mut().push(vcpu);
    }

    fn fetch(&self, _: u32, groups: Mtd, state: &mut State) -> ipc::status::Result {
        if self.refuse.get() {
            return Err(Status::BadState);
        }
        self.fetched.set(self.fetched.get() | groups.bits());
        transfer(groups, &self.whole.borrow(), state);
        Ok(())
    }

    fn log(&self, line: Arguments<'_>) {
        self.lines.borrow_mut().push(line.to_string());
    }
}

/// Copies groups as the kernel does.
fn transfer(mtd: Mtd, from: &State, to: &mut State) {
    macro_rules! group {
        ($group:ident: $($field:ident),+) => {
            if mtd.contains(Mtd::$group) { $( to.$field = from.$field; )+ }
        };
    }
    group!(GPR_ACDB: rax, rcx, rdx, rbx);
    group!(GPR_BSD: rsp, rbp, rsi, rdi);
    group!(GPR_R8: r8, r9, r10, r11, r12, r13, r14, r15);
    group!(RIP: rip, rflags, instruction_length);
    group!(CS_SS: cs, ss);
    group!(DATA_SEG: ds, es, fs, gs);
    group!(SYS_SEG: tr, ldtr, gdtr, idtr);
    group!(CR: cr0, cr2, cr3, cr4);
    group!(CR8: cr8);
    group!(DR: dr6, dr7);
    group!(EFER_PAT: efer, pat);
    group!(XSTATE: xcr0, xss);
    group!(QUAL: qualification);
    group!(INJECT: inject);
    group!(ACTIVITY: activity);
    group!(TSC: tsc_offset, tsc_aux);
    group!(DEADLINE: deadline);
}

/// A VM with its vCPUs, and the processor state of each as the kernel keeps it.
struct Bench {
    vm: Vm<'static>,
    cpus: Vec<Vcpu>,
    states: Vec<State>,
    world: World,
    pipe: Pipe,
}

impl Bench {
    fn new(vcpus: u32, x2apic: bool) -> Self {
        let kernel: &'static [u8] = linux::tests::image(5000).leak();
        let config = Config {
            kernel,
            initrd: &[],
            cmdline: "quiet",
            vcpus,
            tsc_khz: 1_000_000,
            start_tsc: 0,
            wall_ns: 0,
            x2apic,
        };
        let pipe = Pipe::default();
        let console = Box::new(pipe.clone());
        let host = |leaf, _| if leaf == 0 { [0xd, 0, 0, 0] } else { [!0; 4] };
        let vm = Vm::new(config, Ram::for_test(32 << 20), console, &host).unwrap();
        let cpus = (0..vcpus).map(|n| Vcpu::new(&vm, n)).collect();
        let states = (0..vcpus).map(|_| State::new()).collect();
        let mut bench = Self { vm, cpus, states, world: World::default(), pipe };
        for n in 0..vcpus {
            bench.exit_of(n, Exit::Startup);
        }
        bench
    }

    /// One vCPU that runs with interrupts enabled and its local APIC on.
    fn running() -> Self {
        let mut b = Self::new(1, true);
        b.states[0].rflags |= IF;
        b.write_msr(0x80f, 0x1ff);
        b
    }

    fn state(&mut self) -> &mut State {
        &mut self.states[0]
    }

    fn exit_of(&mut self, n: u32, exit: Exit) -> Action {
        let kept = &mut self.states[n as usize];
        if matches!(exit, Exit::Recall | Exit::Deadline) {
            kept.activity &= !Activity::HALTED.bits();
        }
        // What the portal does not transfer is garbage.
        let mut state = State::new();
        state.inject = u64::MAX;
        state.cr8 = 0xf;
        transfer(crate::exits::portal(exit), kept, &mut state);
        self.world.whole.replace(kept.clone());
        let action = self.cpus[n as usize].handle(&self.vm, &self.world, exit, &mut state);
        if let Action::Reply(mtd) = &action {
            transfer(*mtd, &state, kept);
        }
        action
    }

    fn exit(&mut self, exit: Exit) -> Mtd {
        match self.exit_of(0, exit) {
            Action::Reply(mtd) => mtd,
            Action::Stop(stop) => panic!("{stop}"),
        }
    }

    fn stop(&mut self, exit: Exit) -> Stop {
        match self.exit_of(0, exit) {
            Action::Stop(stop) => stop,
            Action::Reply(mtd) => panic!("{mtd:?}"),
        }
    }

    fn inject(&self) -> Inject {
        Inject(self.states[0].inject)
    }

    /// The guest has taken what was injected.
    fn delivered(&mut self) -> u8 {
        let event = self.inject();
        assert!(event.is_valid());
        self.states[0].inject &= 0x3000;
        event.vector()
    }

    fn out(&mut self, port: u16, value: u64) -> Action {
        self.port(port, value, false)
    }

    fn port(&mut self, port: u16, value: u64, input: bool) -> Action {
        let io = Io { port, size: 1, input, string: false, rep: false, address_size: 8 };
        let s = self.state();
        s.qualification = [io.to_word(), 0, 0];
        s.instruction_length = 1;
        s.rax = value;
        self.exit_of(0, Exit::Io)
    }

    fn write_msr(&mut self, register: u64, value: u64) -> Mtd {
        let s = self.state();
        s.qualification = [register, 0, 0];
        s.instruction_length = 2;
        (s.rcx, s.rax, s.rdx) = (register, value & 0xffff_ffff, value >> 32);
        self.exit(Exit::MsrWrite)
    }

    fn read_msr(&mut self, register: u64) -> u64 {
        let s = self.state();
        s.qualification = [register, 0, 0];
        (s.rcx, s.rax, s.rdx) = (register, u64::MAX, u64::MAX);
        self.exit(Exit::MsrRead);
        self.states[0].rax | self.states[0].rdx << 32
    }

    /// Routes the serial port to vector 0x34 and enables its receive interrupt.
    fn route_uart(&mut self) {
        let apics = self.vm.apics();
        let mut devices = self.vm.devices().lock();
        let _ = devices.ioapic_write(0, 0x18, apics);
        let _ = devices.ioapic_write(0x10, 0x34, apics);
        devices.port_write(0x3fc, 1, 8);
        devices.port_write(0x3f9, 1, 1);
    }

    fn is_halted(&self, n: usize) -> bool {
        self.states[n].activity & Activity::HALTED.bits() != 0
    }
}

#[test]
fn starts_in_the_kernel() {
    let mut b = Bench::new(1, true);
    let s = b.state();
    assert_eq!((s.rip, s.rsi, s.cr3), (0x100_0200, layout::ZERO_PAGE, layout::PAGE_TABLES));
    assert_eq!(s.rflags & IF, 0);
    assert_eq!(b.read_msr(0x1b), 0xfee0_0d00);
}

#[test]
fn cpuid() {
    let mut b = Bench::running();
    let s = b.state();
    (s.rax, s.rcx, s.instruction_length) = (u64::MAX << 32 | 0x4000_0000, 0, 0);
    let rip = s.rip;
    let reply = b.exit(Exit::Cpuid);
    assert_eq!(reply, Mtd::GPR_ACDB | Mtd::RIP);
    assert_eq!((b.states[0].rbx, b.states[0].rip), (0x4b4d_564b, rip + 2));
    assert_eq!(b.world.fetched.get(), 0);
    for (cr4, bit) in [(0, 0), (1 << 18, 1)] {
        b.state().cr4 = cr4;
        b.state().rax = 1;
        b.exit(Exit::Cpuid);
        assert_eq!(b.states[0].rcx >> 27 & 1, bit);
    }
    assert_eq!(b.world.fetched.get(), Mtd::CR.bits());
}

#[test]
fn serial_output_is_shown_when_the_guest_pauses() {
    let mut b = Bench::running();
    for byte in b"ok" {
        let rip = b.states[0].rip;
        assert_eq!(b.out(0x3f8, u64::from(*byte)), Action::Reply(Mtd::RIP));
        assert_eq!(b.states[0].rip, rip + 1);
    }
    b.port(0x3fd, 0x1234_5600, true);
    assert_eq!(b.states[0].rax, 0x1234_5660);
    assert_eq!(b.pipe.output(), "ok");
    b.exit(Exit::Hlt);
    assert_eq!(b.pipe.with(|e| e.flushes), 1);
}

#[test]
fn unknown_ports_read_ones_and_are_logged_once() {
    let mut b = Bench::running();
    for _ in 0..3 {
        b.port(0x1234, 0, true);
        assert_eq!(b.states[0].rax, 0xff);
    }
    assert_eq!(*b.world.lines.borrow(), ["access to port 0x1234, where nothing is"]);
}

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
    // The guest ends it without an exit; the next one of the same priority comes.
    b.vm.ram().write_word(0x5000, 4, 0).unwrap();
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
fn msr_policy() {
    let mut b = Bench::running();
    let rip = b.states[0].rip;
    b.read_msr(0x1234_5678);
    let gp = b.inject();
    assert_eq!((gp.kind(), gp.vector(), gp.error()), (Some(InjectKind::Exception), 13, Some(0)));
    assert_eq!(b.states[0].rip, rip);
    b.read_msr(0x1234_5678);
    assert_eq!(b.world.lines.borrow().len(), 1);
    // Known to be absent: no line.
    b.read_msr(0x3b);
    assert_eq!(b.world.lines.borrow().len(), 1);
    b.state().inject = 0;
    assert_eq!(b.read_msr(0xfe), 0);
    b.write_msr(0x2ff, 0xc06);
    assert_eq!(b.read_msr(0x2ff), 0xc06);
    b.write_msr(0xfe, 0);
    assert_eq!(b.delivered(), 13);
    // In real mode there is no error code.
    b.state().cr0 = 0;
    b.write_msr(0xfe, 0);
    assert_eq!((b.inject().vector(), b.inject().error()), (13, None));
}

#[test]
fn efer_and_pat() {
    let mut b = Bench::running();
    let reply = b.write_msr(0xc000_0080, 0xd01);
    assert!(reply.contains(Mtd::EFER_PAT));
    assert_eq!((b.states[0].efer, b.states[0].pat), (0xd01, 0x0007_0406_0007_0406));
    // LMA follows the mode, not the write.
    b.write_msr(0xc000_0080, 0x901);
    assert_eq!(b.read_msr(0xc000_0080), 0xd01);
    for bad in [0x001, 1 << 12 | 0xd01, 1 << 63 | 0xd01] {
        b.write_msr(0xc000_0080, bad);
        assert_eq!(b.delivered(), 13, "{bad:#x}");
    }
    b.write_msr(0x277, 0x0407_0506_0100_0406);
    assert_eq!(b.read_msr(0x277), 0x0407_0506_0100_0406);
    b.write_msr(0x277, 2);
    assert_eq!(b.delivered(), 13);
    b.write_msr(0xc000_0103, 5);
    assert_eq!((b.states[0].tsc_aux, b.read_msr(0xc000_0103)), (5, 5));
}

#[test]
fn paravirtual_clock() {
    let mut b = Bench::running();
    b.write_msr(0x4b56_4d01, 0x6001);
    assert_eq!(b.vm.ram().read_word(0x6000, 4).unwrap(), 2);
    assert_eq!(b.read_msr(0x4b56_4d01), 0x6001);
    b.write_msr(0x4b56_4d00, 0x6100);
    assert_eq!(b.vm.ram().read_word(0x6100, 4).unwrap(), 2);
    b.write_msr(0x4b56_4d01, 1 << 40 | 1);
    assert_eq!(b.delivered(), 13);
}

#[test]
fn xsetbv() {
    let mut b = Bench::running();
    let mut set = |cr4: u64, rcx: u64, value: u64| {
        let s = b.state();
        (s.cr4, s.rcx, s.rax, s.rdx, s.inject) = (cr4, rcx, value, 0, 0);
        let reply = b.exit(Exit::Xsetbv);
        (reply.contains(Mtd::XSTATE), b.inject().vector())
    };
    assert_eq!(set(0, 0, 7), (false, 6));
    assert_eq!(set(1 << 18, 1, 7), (false, 13));
    assert_eq!(set(1 << 18, 0, 6), (false, 13));
    assert_eq!(set(1 << 18, 0, 1 << 9 | 7), (false, 13));
    assert_eq!(set(1 << 18, 0, 7), (true, 0));
    assert_eq!(b.states[0].xcr0, 7);
}

fn mmio(b: &mut Bench, code: &[u8], gpa: u64, write: bool) {
    b.vm.ram().write(0x20_0000, code).unwrap();
    let access = if write { MemoryAccess::WRITE } else { MemoryAccess::READ };
    let s = b.state();
    s.rip = 0x20_0000;
    (s.rbx, s.qualification) = (gpa, [access.bits(), gpa, 0]);
    s.instruction_length = 0;
}

const STORE: [u8; 2] = [0x89, 0x03];
const LOAD: [u8; 2] = [0x8b, 0x03];

#[test]
fn io_apic_through_memory() {
    let mut b = Bench::running();
    b.state().rax = 1;
    mmio(&mut b, &STORE, layout::IOAPIC, true);
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rip, 0x20_0002);
    mmio(&mut b, &LOAD, layout::IOAPIC + 0x10, false);
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rax, 0x17_0011);
}

#[test]
fn local_apic_through_memory() {
    let mut b = Bench::new(1, false);
    b.states[0].rflags |= IF;
    for (register, value) in [(0xf0, 0x1ff), (0x320, 0x40), (0x3e0, 11), (0x380, 1000)] {
        b.state().rax = value;
        mmio(&mut b, &STORE, layout::LAPIC + register, true);
        b.exit(Exit::Memory);
    }
    assert_eq!(b.states[0].deadline, 1000);
    b.world.tsc.set(1000);
    b.exit(Exit::Deadline);
    assert_eq!(b.delivered(), 0x40);
    mmio(&mut b, &LOAD, layout::LAPIC + 0x120, false);
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rax, 1);
    // After the switch the page is gone, the MSRs are there.
    b.read_msr(0x802);
    assert_eq!(b.delivered(), 13);
    b.write_msr(0x1b, 0xfee0_0d00);
    assert_eq!(b.read_msr(0x80f), 0x1ff);
    mmio(&mut b, &LOAD, layout::LAPIC + 0xf0, false);
    b.exit(Exit::Memory);
    assert_eq!(b.states[0].rax, 0xffff_ffff);
}

#[test]
fn wild_memory_accesses() {
    let mut b = Bench::running();
    for _ in 0..2 {
        mmio(&mut b, &LOAD, 0xd000_0000, false);
        b.exit(Exit::Memory);
        assert_eq!(b.states[0].rax, 0xffff_ffff);
    }
    assert_eq!(b.world.lines.borrow().len(), 1);
    mmio(&mut b, &[0x0f, 0x11, 0x03], 0xd000_0000, true);
    let stop = b.stop(Exit::Memory);
    assert!(matches!(stop, Stop::Guest(GuestFault::Emulation { address: 0xd000_0000, .. })));
    let lines = b.world.lines.borrow();
    assert!(lines.iter().any(|l| l.starts_with("rip 0000000000200000")), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("exits total="));
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
fn port_strings() {
    let mut b = Bench::running();
    b.vm.ram().write(0x20_0000, &[0xf3, 0x6e]).unwrap();
    b.vm.ram().write(0x21_0000, b"text").unwrap();
    let io = Io { port: 0x3f8, size: 1, input: false, string: true, rep: true, address_size: 8 };
    let s = b.state();
    (s.rip, s.rsi, s.rcx, s.rdx) = (0x20_0000, 0x21_0000, 4, 0x3f8);
    s.qualification = [io.to_word(), 0, 0];
    b.exit(Exit::Io);
    assert_eq!(b.pipe.output(), "text");
    assert_eq!((b.states[0].rip, b.states[0].rcx), (0x20_0002, 0));
}

#[test]
fn io_length_is_decoded_where_nobody_knows_it() {
    let mut b = Bench::running();
    // out 0x80, al
    b.vm.ram().write(0x20_0000, &[0xe6, 0x80]).unwrap();
    let io = Io { port: 0x80, size: 1, input: false, string: false, rep: false, address_size: 8 };
    let s = b.state();
    (s.rip, s.instruction_length, s.qualification) = (0x20_0000, 0, [io.to_word(), 0, 0]);
    b.exit(Exit::Io);
    assert_eq!(b.states[0].rip, 0x20_0002);
}

#[test]
fn single_step_over_an_exit() {
    let mut b = Bench::running();
    b.state().rflags |= 1 << 8 | 1 << 16;
    b.state().dr7 = 0x400;
    b.state().rax = 0;
    b.exit(Exit::Cpuid);
    assert_eq!((b.inject().vector(), b.inject().error()), (1, None));
    assert_eq!(b.states[0].dr6 & 1 << 14, 1 << 14);
    assert_eq!(b.states[0].dr7, 0x400);
    assert_eq!(b.states[0].rflags & 1 << 16, 0);
}

#[test]
fn instructions_without_effect() {
    let mut b = Bench::running();
    for exit in [Exit::InvalidOpcode, Exit::Monitor] {
        b.exit(exit);
        assert_eq!(b.delivered(), 6);
    }
    b.exit(Exit::Rdpmc);
    assert_eq!(b.delivered(), 13);
    let rip = b.states[0].rip;
    b.state().instruction_length = 0;
    b.exit(Exit::CacheControl);
    assert_eq!(b.states[0].rip, rip + 2);
    b.exit(Exit::Hypercall);
    assert_eq!(b.states[0].rax, 1000u64.wrapping_neg());
    b.state().qualification = [14 | 1 << 8 | 6 << 32, 0xdead, 0];
    b.exit(Exit::Exception);
    assert_eq!((b.delivered(), b.states[0].cr2), (14, 0xdead));
}

#[test]
fn control_registers() {
    let mut b = Bench::running();
    // mov cr8, rcx; mov rdx, cr0
    b.state().rcx = 5;
    b.state().qualification = [8 | 1 << 8 | 1 << 16, 0, 0];
    b.exit(Exit::ControlRegister);
    assert_eq!((b.states[0].cr8, b.cpus[0].lapic.tpr()), (5, 0x50));
    b.state().qualification = [2 << 16, 0, 0];
    b.exit(Exit::ControlRegister);
    assert_eq!(b.states[0].rdx, b.states[0].cr0);
    b.state().qualification = [7, 0, 0];
    assert_eq!(b.stop(Exit::ControlRegister), Stop::Guest(GuestFault::ControlRegister(7)));
}

#[test]
fn power_off() {
    let mut b = Bench::running();
    assert_eq!(b.out(0x600, 0x34), Action::Stop(Stop::PowerOff));
    let lines = b.world.lines.borrow();
    assert_eq!(lines[0], "guest powered off");
    assert_eq!(lines[1], "exits total=3 cpuid=0 io=1 msr=1 memory=0 hlt=0 window=0 deadline=0 recall=0 other=1");
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
