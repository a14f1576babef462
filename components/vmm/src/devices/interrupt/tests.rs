use super::{
    Address, ApicBus, BROADCAST, Delivery, Destination, Events, Message, Targets, from_icr,
};

fn bus(x2apic: bool) -> ApicBus {
    let bus = ApicBus::new(4);
    for id in 0..4 {
        bus.inbox(id).unwrap().publish(Address {
            id,
            enabled: true,
            x2apic,
            software_enabled: true,
            ldr: if x2apic { 1 << id } else { 1 << (24 + id) },
            cluster: false,
        });
    }
    bus
}

fn fixed(to: Destination) -> Message {
    Message { to, delivery: Delivery::Fixed, vector: 0x41, level: false }
}

#[test]
fn destinations() {
    for x2apic in [false, true] {
        let reached = |to| bus(x2apic).deliver(fixed(to)).0;
        assert_eq!(reached(Destination::Physical(2)), 0b100);
        assert_eq!(reached(Destination::Physical(9)), 0);
        assert_eq!(reached(Destination::Physical(BROADCAST)), 0b1111);
        assert_eq!(reached(Destination::Logical(0b1010)), 0b1010);
        assert_eq!(reached(Destination::Logical(BROADCAST)), 0b1111);
        assert_eq!(reached(Destination::Own(1)), 0b10);
        assert_eq!(reached(Destination::All), 0b1111);
        assert_eq!(reached(Destination::Others(0)), 0b1110);
    }
    assert_eq!(bus(true).deliver(fixed(Destination::Logical(0x1_0001))).0, 0);
}

#[test]
fn xapic_cluster_model() {
    let bus = ApicBus::new(2);
    for (id, ldr) in [(0, 0x11 << 24), (1, 0x21 << 24)] {
        bus.inbox(id).unwrap().publish(Address {
            id,
            enabled: true,
            software_enabled: true,
            cluster: true,
            ldr,
            x2apic: false,
        });
    }
    assert_eq!(bus.deliver(fixed(Destination::Logical(0x21))).0, 0b10);
    assert_eq!(bus.deliver(fixed(Destination::Logical(0x12))).0, 0);
}

#[test]
fn lowest_priority_reaches_one() {
    let message =
        Message { delivery: Delivery::LowestPriority, ..fixed(Destination::Logical(0b1100)) };
    assert_eq!(bus(true).deliver(message).0, 0b100);
}

#[test]
fn a_disabled_apic_takes_no_vectors() {
    let bus = ApicBus::new(1);
    let inbox = bus.inbox(0).unwrap();
    assert_eq!(bus.deliver(fixed(Destination::All)), Targets(0));
    inbox.publish(Address { enabled: true, ..Address::default() });
    assert_eq!(bus.deliver(fixed(Destination::All)), Targets(0));
    let nmi = Message { delivery: Delivery::Nmi, ..fixed(Destination::All) };
    assert_eq!(bus.deliver(nmi), Targets(1));
    assert_eq!(inbox.take(), Events { nmi: true, ..Events::default() });
}

#[test]
fn a_vcpu_is_told_once_until_it_looks() {
    let bus = bus(true);
    let to = fixed(Destination::Physical(1));
    assert_eq!(bus.deliver(to), Targets(2));
    assert_eq!(bus.deliver(Message { vector: 0x99, level: true, ..to }), Targets(0));
    let inbox = bus.inbox(1).unwrap();
    assert!(!inbox.is_empty());
    assert_eq!(inbox.take(), Events { vectors: true, ..Events::default() });
    let words: Vec<_> = inbox.take_vectors().filter(|w| w.1 | w.2 != 0).collect();
    assert_eq!(words, [(2, 2, 0), (4, 0, 1 << 25)]);
    assert!(inbox.is_empty());
    assert_eq!(inbox.take_vectors().filter(|w| w.1 | w.2 != 0).count(), 0);
    assert_eq!(bus.deliver(to), Targets(2));
}

#[test]
fn only_the_first_startup_counts() {
    let bus = bus(true);
    let sipi =
        |vector| Message { delivery: Delivery::Startup, vector, ..fixed(Destination::Others(0)) };
    let init = Message { delivery: Delivery::Init, ..fixed(Destination::Physical(1)) };
    assert_eq!(bus.deliver(init), Targets(0b10));
    assert_eq!(bus.deliver(sipi(0x9a)), Targets(0b1100));
    assert_eq!(bus.deliver(sipi(0x11)), Targets(0));
    let events = bus.inbox(1).unwrap().take();
    assert!(events.init);
    assert_eq!(events.startup, Some(0x9a));
}

#[test]
fn icr_encodings() {
    let m = from_icr(3 << 32 | 0x31, 0, true);
    assert_eq!(m, Message { vector: 0x31, ..fixed(Destination::Physical(3)) });
    let m = from_icr(3 << 56 | 1 << 11 | 0x31, 0, false);
    assert_eq!(m, Message { vector: 0x31, ..fixed(Destination::Logical(3)) });
    assert_eq!(from_icr(0xff << 56, 0, false).to, Destination::Physical(BROADCAST));
    assert_eq!(from_icr(1 << 18, 7, true).to, Destination::Own(7));
    assert_eq!(from_icr(2 << 18, 7, true).to, Destination::All);
    assert_eq!(from_icr(3 << 18, 7, true).to, Destination::Others(7));
    // INIT assert and de-assert.
    assert_eq!(from_icr(0xc500, 0, true).delivery, Delivery::Init);
    assert_eq!(from_icr(0x8500, 0, true).delivery, Delivery::None);
    assert_eq!(from_icr(0x4500, 0, true).delivery, Delivery::Init);
    assert_eq!(from_icr(0x0069a, 0, true).delivery, Delivery::Startup);
    assert_eq!(from_icr(0x200, 0, true).delivery, Delivery::None);
}
