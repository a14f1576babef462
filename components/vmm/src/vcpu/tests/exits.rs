use super::Bench;
use super::IF;
use crate::boot::layout;
use crate::report::GuestFault;
use crate::report::Stop;
use crate::vcpu::Action;
use ipc::event::Exit;
use ipc::exit::Io;
use ipc::exit::MemoryAccess;
use ipc::state::InjectKind;
use ipc::state::Mtd;

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
fn cpuid_tells_a_guest_its_exits() {
    use ipc::guest::{EXITS, LEAF, SIGNATURE};
    let mut b = Bench::running();
    let mut read = |leaf: u32, sub: u64| {
        (b.state().rax, b.state().rcx) = (leaf.into(), sub);
        b.exit(Exit::Cpuid);
        let s = b.state();
        [s.rax, s.rbx, s.rcx, s.rdx]
    };
    let [x, y, z] = SIGNATURE.map(u64::from);
    assert_eq!(read(LEAF, 0), [EXITS.into(), x, y, z]);
    let before = read(EXITS, Exit::Cpuid.number().into());
    // It counts itself.
    assert_eq!(read(EXITS, Exit::Cpuid.number().into()), [before[0] + 1, 0, 0, 0]);
    assert_eq!(read(EXITS, 1000), [0; 4], "no such reason");
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

pub(super) fn mmio(b: &mut Bench, code: &[u8], gpa: u64, write: bool) {
    b.vm.ram().write(0x20_0000, code).unwrap();
    let access = if write { MemoryAccess::WRITE } else { MemoryAccess::READ };
    let s = b.state();
    s.rip = 0x20_0000;
    (s.rbx, s.qualification) = (gpa, [access.bits(), gpa, 0]);
    s.instruction_length = 0;
}

pub(super) const STORE: [u8; 2] = [0x89, 0x03];

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
