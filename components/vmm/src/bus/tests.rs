use super::{Devices, MemoryDevice, Wild, memory_device};
use crate::console::tests::Pipe;
use crate::devices::interrupt::{Address, ApicBus, Targets};
use crate::devices::pm::Power;

fn devices() -> (Devices, Pipe) {
    let pipe = Pipe::default();
    (Devices::new(Box::new(pipe.clone())), pipe)
}

fn bus() -> ApicBus {
    let bus = ApicBus::new(1);
    bus.inbox(0).unwrap().publish(Address {
        enabled: true,
        software_enabled: true,
        ..Address::default()
    });
    bus
}

#[test]
fn wide_accesses_are_split_into_bytes() {
    let (mut d, pipe) = devices();
    assert_eq!(d.port_read(0xcfc, 4).value, 0xffff_ffff);
    assert_eq!(d.port_read(0x3fc, 2).value, 0x6000);
    d.port_write(0x3f8, 1, 0x1141);
    assert_eq!(pipe.output(), "A");
    assert_eq!(d.port_read(0xffff, 4).value, 0xff_ffff | 0xff << 24);
}

#[test]
fn power() {
    let (mut d, _) = devices();
    assert_eq!(d.port_write(0x600, 1, 0x34).power, Some(Power::Off));
    assert_eq!(d.port_write(0x602, 1, 1).power, Some(Power::Reset));
    assert_eq!(d.port_write(0x64, 1, 0xfe).power, Some(Power::Reset));
    assert_eq!(d.port_write(0x64, 1, 0xff).power, None);
}

#[test]
fn unknown_ports_are_told_once() {
    let (mut d, _) = devices();
    assert!(d.port_read(0x1234, 1).unknown);
    assert!(!d.port_read(0x80, 1).unknown);
    assert!(d.is_news(Wild::Port(0x1234)));
    assert!(!d.is_news(Wild::Port(0x1234)));
    assert!(d.is_news(Wild::Msr(0x1234)));
    let told = (0..1000).filter(|n| d.is_news(Wild::Page(*n))).count();
    assert_eq!(told, 62);
}

#[test]
fn input_becomes_an_interrupt() {
    let (mut d, pipe) = devices();
    let bus = bus();
    // Pin 4: vector 0x24, edge, to APIC 0.
    assert_eq!(d.ioapic_write(0, 0x18, &bus), Targets(0));
    assert_eq!(d.ioapic_write(0x10, 0x24, &bus), Targets(0));
    d.port_write(0x3fc, 1, 8);
    d.port_write(0x3f9, 1, 1);
    assert_eq!(d.settle(&bus), Targets(0));
    pipe.send("x");
    assert_eq!(d.poll(&bus), Targets(1));
    assert_eq!(d.poll(&bus), Targets(0));
    assert_eq!(d.port_read(0x3f8, 1).value, u64::from(b'x'));
    assert_eq!(d.settle(&bus), Targets(0));
}

#[test]
fn a_level_pin_that_stays_asserted_is_sent_once_per_eoi() {
    let (mut d, pipe) = devices();
    let bus = bus();
    let _ = d.ioapic_write(0, 0x18, &bus);
    let _ = d.ioapic_write(0x10, 0x8024, &bus);
    d.port_write(0x3fc, 1, 8);
    d.port_write(0x3f9, 1, 1);
    pipe.send("x");
    assert_eq!(d.poll(&bus), Targets(1));
    assert!(bus.inbox(0).unwrap().take().vectors);
    assert_eq!(d.eoi(0x24, &bus), Targets(1));
    d.port_read(0x3f8, 1);
    let _ = d.settle(&bus);
    assert_eq!(d.eoi(0x24, &bus), Targets(0));
}

#[test]
fn memory_map() {
    assert_eq!(memory_device(0xfec0_0010), MemoryDevice::IoApic(0x10));
    assert_eq!(memory_device(0xfec0_1000), MemoryDevice::Nothing);
    assert_eq!(memory_device(0xfee0_0fff), MemoryDevice::Lapic(0xfff));
    assert_eq!(memory_device(0), MemoryDevice::Nothing);
    assert_eq!(memory_device(u64::MAX), MemoryDevice::Nothing);
}

#[test]
fn reset_masks_and_silences() {
    let (mut d, pipe) = devices();
    let bus = bus();
    let _ = d.ioapic_write(0, 0x18, &bus);
    let _ = d.ioapic_write(0x10, 0x24, &bus);
    d.reset();
    pipe.send("x");
    assert_eq!(d.poll(&bus), Targets(0));
    let _ = d.ioapic_write(0, 0x18, &bus);
    assert_eq!(d.ioapic_read(0x10), 0x1_0000);
}
