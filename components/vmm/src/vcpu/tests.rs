//! Whole exits against a VM on a bench: a host that records, a kernel that transfers state.

mod exits;
mod interrupts;
mod life;
mod virtio;

use std::cell::{Cell, RefCell};
use std::fmt::Arguments;

use ipc::event::Exit;
use ipc::exit::Io;
use ipc::state::{Activity, Inject, Mtd, State};
use ipc::status::Status;

use super::{Action, Vcpu};
use crate::boot::linux;
use crate::console::tests::Pipe;
use crate::devices::virtio::Link;
use crate::devices::virtio::slot::tests::End;
use crate::host::Host;
use crate::memory::Ram;
use crate::report::Stop;
use crate::vm::{Config, Counters, Vm};

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
        Self::with(vcpus, x2apic, &[])
    }

    /// With virtio devices, whose other ends the test holds.
    fn with(vcpus: u32, x2apic: bool, ends: &[End]) -> Self {
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
        let links: Vec<Box<dyn Link>> = ends.iter().map(|e| Box::new(e.clone()) as _).collect();
        let counters: &'static Counters = Box::leak(Box::default());
        let vm = Vm::new(config, Ram::for_test(32 << 20), console, links, counters, &host).unwrap();
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

    fn running_with(ends: &[End]) -> Self {
        let mut b = Self::with(1, true, ends);
        b.states[0].rflags |= IF;
        b.write_msr(0x80f, 0x1ff);
        b
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
