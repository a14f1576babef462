use super::IoApic;
use crate::devices::interrupt::{Delivery, Destination, Message};

fn set(io: &mut IoApic, pin: u32, low: u32, high: u32) -> Option<Message> {
    io.write(0, 0x11 + pin * 2);
    assert_eq!(io.write(0x10, high), None);
    io.write(0, 0x10 + pin * 2);
    io.write(0x10, low)
}

fn eoi(io: &mut IoApic, vector: u8) -> Vec<Message> {
    let mut sent = vec![];
    io.eoi(vector, |message| sent.push(message));
    sent
}

fn get(io: &mut IoApic, register: u32) -> u32 {
    io.write(0, register);
    io.read(0x10)
}

#[test]
fn registers() {
    let mut io = IoApic::new();
    assert_eq!(get(&mut io, 1), 0x17_0011);
    io.write(0, 0);
    io.write(0x10, 0x0300_0000);
    assert_eq!(get(&mut io, 0), 0x0300_0000);
    for pin in 0..24 {
        assert_eq!(get(&mut io, 0x10 + pin * 2), 0x1_0000);
        assert_eq!(get(&mut io, 0x11 + pin * 2), 0);
    }
    // Beyond the table, and read-only bits.
    assert_eq!(get(&mut io, 0x40), 0);
    assert_eq!(set(&mut io, 40, 0, 0), None);
    set(&mut io, 3, u32::MAX, u32::MAX);
    assert_eq!(get(&mut io, 0x16), 0x1_afff);
    assert_eq!(get(&mut io, 0x17), 0xff00_0000);
}

#[test]
fn edge_sends_once_per_rise() {
    let mut io = IoApic::new();
    assert_eq!(io.set_line(4, true), None);
    io.set_line(4, false);
    set(&mut io, 4, 0x34, 2 << 24);
    let message = Message {
        to: Destination::Physical(2),
        delivery: Delivery::Fixed,
        vector: 0x34,
        level: false,
    };
    assert_eq!(io.set_line(4, true), Some(message));
    assert_eq!(io.set_line(4, true), None);
    assert_eq!(io.set_line(4, false), None);
    assert_eq!(io.set_line(4, true), Some(message));
    assert_eq!(io.set_line(24, true), None);
}

#[test]
fn level_waits_for_the_eoi() {
    let mut io = IoApic::new();
    set(&mut io, 9, 0x8059 | 1 << 11, 1 << 24);
    let message = io.set_line(9, true).unwrap();
    assert_eq!(message.to, Destination::Logical(1));
    assert!(message.level);
    assert_eq!(get(&mut io, 0x10 + 18) & 0x4000, 0x4000);
    assert_eq!(io.set_line(9, true), None);
    assert_eq!(eoi(&mut io, 0x58), []);
    assert_eq!(eoi(&mut io, 0x59), [message]);
    assert_eq!(io.set_line(9, false), None);
    assert_eq!(eoi(&mut io, 0x59), []);
    assert_eq!(get(&mut io, 0x10 + 18) & 0x4000, 0);
}

#[test]
fn a_level_pin_sends_when_unmasked() {
    let mut io = IoApic::new();
    assert_eq!(set(&mut io, 9, 0x1_8059, 0), None);
    assert_eq!(io.set_line(9, true), None);
    assert!(set(&mut io, 9, 0x8059, 0).is_some());
    // Switching to edge clears the state, as Linux does to recover.
    io.write(0x10, 0x1_0059);
    assert_eq!(io.read(0x10), 0x1_0059);
}

#[test]
fn active_low() {
    let mut io = IoApic::new();
    io.set_line(5, true);
    set(&mut io, 5, 0x2055, 0);
    assert!(io.set_line(5, false).is_some());
    assert_eq!(io.set_line(5, true), None);
}

#[test]
fn pins_that_share_a_vector() {
    let mut io = IoApic::new();
    for pin in [3, 5, 7] {
        set(&mut io, pin, 0x8061, 0);
        assert!(io.set_line(pin, true).is_some());
    }
    io.set_line(5, false);
    assert_eq!(eoi(&mut io, 0x61).len(), 2);
}
