use super::timer::{Mode, Timer};
use super::{Effect, Fault, Lapic};
use crate::devices::interrupt::{ApicBus, Delivery, Destination, Message, Targets};

const KHZ: u64 = 2_000_000;

fn x2apic() -> Lapic {
    let mut lapic = Lapic::new(0, KHZ);
    lapic.enable_x2apic();
    lapic.write_msr(0x0f, 0x1ff, 0).unwrap();
    lapic
}

fn xapic() -> Lapic {
    let mut lapic = Lapic::new(1, KHZ);
    lapic.write_mmio(0xf0, 0x1ff, 0);
    lapic
}

#[test]
fn reset_state() {
    let mut lapic = Lapic::new(0, KHZ);
    assert_eq!(lapic.base(), 0xfee0_0900);
    assert_eq!(Lapic::new(1, KHZ).base(), 0xfee0_0800);
    assert_eq!(lapic.read_mmio(0x30, 0), 0x5_0014);
    assert_eq!(lapic.read_mmio(0xf0, 0), 0xff);
    assert_eq!(lapic.read_mmio(0xe0, 0), u32::MAX);
    for offset in (0x320..=0x370).step_by(16) {
        assert_eq!(lapic.read_mmio(offset, 0), 0x1_0000);
    }
    assert_eq!(lapic.pending(), None);
}

#[test]
fn mode_transitions() {
    let mut l = Lapic::new(0, KHZ);
    let base = 0xfee0_0100;
    assert_eq!(l.set_base(base | 0x400), Err(Fault));
    assert_eq!(l.set_base(0xfed0_0900), Err(Fault));
    assert_eq!(l.set_base(base | 0xc00), Ok(()));
    assert!(l.is_x2apic() && !l.is_xapic());
    assert_eq!(l.set_base(base | 0x800), Err(Fault));
    assert_eq!(l.set_base(base), Ok(()));
    assert!(!l.is_x2apic() && !l.is_xapic());
    assert_eq!(l.set_base(base | 0xc00), Err(Fault));
    assert_eq!(l.set_base(base | 0x800), Ok(()));
    assert!(l.is_xapic());
}

#[test]
fn registers_by_mode() {
    let mut l = Lapic::new(5, KHZ);
    assert_eq!(l.read_mmio(0x20, 0), 5 << 24);
    assert_eq!(l.read_msr(2, 0), Err(Fault));
    l.enable_x2apic();
    assert_eq!(l.read_msr(2, 0), Ok(5));
    assert_eq!(l.read_msr(0x0d, 0), Ok(1 << 5));
    for register in [0x0b, 0x0e, 0x31, 0x3f, 0x00, 0x3a, 0x2f] {
        assert_eq!(l.read_msr(register, 0), Err(Fault), "{register:#x}");
    }
    for register in [0x02, 0x03, 0x0a, 0x0d, 0x0e, 0x10, 0x31, 0x39] {
        assert_eq!(l.write_msr(register, 0, 0), Err(Fault), "{register:#x}");
    }
    assert_eq!(l.write_msr(0x0b, 1, 0), Err(Fault));
    assert_eq!(l.write_msr(0x08, 1 << 32, 0), Err(Fault));
    let mut l = Lapic::new(0x23, KHZ);
    l.enable_x2apic();
    assert_eq!(l.read_msr(0x0d, 0), Ok(0x2_0008));
}

#[test]
fn priorities_nest() {
    let mut l = x2apic();
    l.accept(0x31, false);
    l.accept(0x52, false);
    l.accept(0x58, false);
    assert_eq!(l.pending(), Some(0x58));
    l.acknowledge(0x58);
    assert_eq!(l.ppr(), 0x50);
    assert_eq!(l.pending(), None);
    l.accept(0x61, false);
    assert_eq!(l.pending(), Some(0x61));
    l.acknowledge(0x61);
    assert_eq!(l.write_msr(0x0b, 0, 0), Ok(Effect::Eoi { level: None }));
    assert_eq!(l.pending(), None);
    assert_eq!(l.eoi(), None);
    assert_eq!(l.pending(), Some(0x52));
    l.set_tpr(0x50);
    assert_eq!(l.pending(), None);
    assert_eq!(l.ppr(), 0x50);
    l.set_tpr(0x4f);
    assert_eq!(l.pending(), Some(0x52));
}

#[test]
fn level_interrupts_report_their_eoi() {
    let mut l = x2apic();
    l.accept(0x40, true);
    assert_eq!(l.read_msr(0x1a, 0), Ok(1));
    l.acknowledge(0x40);
    assert!(!l.eoi_is_silent());
    assert_eq!(l.eoi(), Some(0x40));
    l.accept(0x40, false);
    l.acknowledge(0x40);
    assert!(l.eoi_is_silent());
    l.accept(0x20, false);
    assert!(!l.eoi_is_silent());
    assert_eq!(l.eoi(), None);
    assert_eq!(l.eoi(), None);
}

#[test]
fn takes_over_its_inbox() {
    let bus = ApicBus::new(1);
    let mut l = x2apic();
    bus.inbox(0).unwrap().publish(l.address());
    let m = |vector, level| Message {
        to: Destination::Physical(0),
        delivery: Delivery::Fixed,
        vector,
        level,
    };
    assert_eq!(bus.deliver(m(0x44, true)), Targets(1));
    assert_eq!(bus.deliver(m(0xfe, false)), Targets(0));
    let inbox = bus.inbox(0).unwrap();
    assert!(inbox.take().vectors);
    l.take_vectors(inbox);
    assert_eq!(l.pending(), Some(0xfe));
    l.acknowledge(0xfe);
    assert_eq!(l.eoi(), None);
    assert_eq!(l.pending(), Some(0x44));
    l.acknowledge(0x44);
    assert_eq!(l.eoi(), Some(0x44));
}

#[test]
fn tsc_deadline_fires_once() {
    let mut l = x2apic();
    l.write_msr(0x32, 0x4_00ec, 100).unwrap();
    l.set_tsc_deadline(1000, 0, 100);
    assert_eq!((l.deadline(), l.tsc_deadline()), (1000, 1000));
    l.tick(999);
    assert_eq!(l.pending(), None);
    l.tick(1000);
    assert_eq!(l.pending(), Some(0xec));
    assert_eq!((l.deadline(), l.tsc_deadline()), (0, 0));
    l.acknowledge(0xec);
    l.eoi();
    l.tick(5000);
    assert_eq!(l.pending(), None);
    // In the past: at once. Zero disarms.
    l.set_tsc_deadline(10, 0, 5000);
    assert_eq!(l.pending(), Some(0xec));
    l.set_tsc_deadline(9000, 0, 5000);
    l.set_tsc_deadline(0, 0, 5000);
    assert_eq!(l.deadline(), 0);
}

#[test]
fn deadline_follows_the_tsc_offset() {
    let mut t = Timer::new(KHZ);
    t.set_tsc_deadline(500, 0);
    assert_eq!(t.deadline(), 0);
    t.set_mode(Mode::TscDeadline);
    t.set_tsc_deadline(500, 100);
    assert_eq!(t.deadline(), 400);
    t.set_offset(0u64.wrapping_sub(1000));
    assert_eq!(t.deadline(), 1500);
    t.set_offset(600);
    assert_eq!(t.deadline(), 1);
    t.set_mode(Mode::OneShot);
    assert_eq!((t.deadline(), t.tsc_deadline()), (0, 0));
}

#[test]
fn one_shot_and_periodic() {
    // 2 GHz TSC: one tick of the counter is two TSC ticks.
    let mut l = x2apic();
    l.write_msr(0x32, 0x0_0040, 0).unwrap();
    l.write_msr(0x3e, 0b1011, 0).unwrap();
    l.write_msr(0x38, 1000, 0).unwrap();
    assert_eq!(l.deadline(), 2000);
    assert_eq!(l.read_msr(0x39, 500), Ok(750));
    l.tick(2000);
    assert_eq!(l.deadline(), 0);
    assert_eq!(l.pending(), Some(0x40));
    assert_eq!(l.read_msr(0x39, 2500), Ok(0));

    let mut l = x2apic();
    l.write_msr(0x3e, 0, 0).unwrap();
    l.write_msr(0x32, 0x2_0041, 0).unwrap();
    l.write_msr(0x38, 100, 10).unwrap();
    assert_eq!(l.deadline(), 410);
    l.tick(410);
    assert_eq!(l.deadline(), 810);
    l.tick(2100);
    assert_eq!(l.deadline(), 2410);
    assert_eq!(l.pending(), Some(0x41));
    l.write_msr(0x38, 0, 2200).unwrap();
    assert_eq!(l.deadline(), 0);
}

#[test]
fn a_masked_timer_neither_fires_nor_wakes() {
    let mut l = x2apic();
    l.write_msr(0x32, 0x1_0040, 0).unwrap();
    l.write_msr(0x38, 100, 0).unwrap();
    assert_eq!(l.deadline(), 0);
    l.write_msr(0x32, 0x0_0040, 10).unwrap();
    assert_ne!(l.deadline(), 0);
    l.write_msr(0x32, 0x1_0040, 20).unwrap();
    // Expired under the mask: lost.
    l.write_msr(0x32, 0x0_0040, 10_000).unwrap();
    assert_eq!(l.pending(), None);
    assert_eq!(l.deadline(), 0);
}

#[test]
fn divide_configurations() {
    for (bits, by) in
        [(0b0000, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1u64)]
    {
        let mut t = Timer::new(KHZ);
        t.set_divide(bits);
        t.start(10, 0);
        assert_eq!(t.deadline(), 20 * by, "{bits:#b}");
    }
    let mut t = Timer::new(u64::MAX);
    t.start(u32::MAX, u64::MAX - 5);
    assert_eq!(t.deadline(), u64::MAX);
}

#[test]
fn xapic_logical_registers_and_ipi() {
    let mut l = xapic();
    l.write_mmio(0xd0, 0x0200_1234, 0);
    l.write_mmio(0xe0, 0, 0);
    assert_eq!(l.read_mmio(0xd0, 0), 0x0200_0000);
    assert_eq!(l.read_mmio(0xe0, 0), 0x0fff_ffff);
    assert!(l.address().cluster);
    l.write_mmio(0x310, 0x0300_0000, 0);
    let effect = l.write_mmio(0x300, 0x4031, 0);
    let to = Destination::Physical(3);
    let message = Message { to, delivery: Delivery::Fixed, vector: 0x31, level: false };
    assert_eq!(effect, Effect::Send(message));
    assert_eq!(l.read_mmio(0x300, 0), 0x4031);
}

#[test]
fn self_ipi_and_illegal_vectors() {
    let mut l = x2apic();
    let to = Destination::Own(0);
    let message = Message { to, delivery: Delivery::Fixed, vector: 0xf2, level: false };
    assert_eq!(l.write_msr(0x3f, 0xf2, 0), Ok(Effect::Send(message)));
    l.write_msr(0x37, 0xfe, 0).unwrap();
    assert_eq!(l.write_msr(0x30, 0x0000_0005, 0), Ok(Effect::None));
    assert_eq!(l.pending(), Some(0xfe));
    assert_eq!(l.read_msr(0x28, 0), Ok(0));
    l.write_msr(0x28, 0, 0).unwrap();
    assert_eq!(l.read_msr(0x28, 0), Ok(0x20));
    l.write_msr(0x28, 0, 0).unwrap();
    assert_eq!(l.read_msr(0x28, 0), Ok(0));
}

#[test]
fn software_disable_masks_the_local_vectors() {
    let mut l = x2apic();
    l.write_msr(0x32, 0x40, 0).unwrap();
    l.accept(0x50, false);
    l.write_msr(0x0f, 0xff, 0).unwrap();
    assert_eq!(l.pending(), None);
    assert_eq!(l.read_msr(0x32, 0), Ok(0x1_0040));
    l.write_msr(0x32, 0x40, 0).unwrap();
    assert_eq!(l.read_msr(0x32, 0), Ok(0x1_0040));
    l.write_msr(0x0f, 0x1ff, 0).unwrap();
    assert_eq!(l.pending(), Some(0x50));
}

#[test]
fn init_keeps_id_and_mode() {
    let mut l = Lapic::new(3, KHZ);
    l.enable_x2apic();
    l.write_msr(0x0f, 0x1ff, 0).unwrap();
    l.accept(0x70, false);
    l.init();
    assert_eq!(l.read_msr(2, 0), Ok(3));
    assert!(l.is_x2apic());
    assert!(!l.has_requests());
    assert_eq!(l.read_msr(0x0d, 0), Ok(8));
}
