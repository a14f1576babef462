#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use core::cell::{Cell, RefCell};

use super::{Registers, Uart};

#[derive(Default)]
struct Fake {
    sent: RefCell<Vec<u8>>,
    received: RefCell<Vec<u8>>,
    enabled: Cell<u8>,
    busy: Cell<bool>,
    latch: Cell<bool>,
}

impl Registers for &Fake {
    fn read(&self, register: u16) -> u8 {
        match register {
            0 => self.received.borrow_mut().remove(0),
            2 => 1,
            5 => u8::from(!self.received.borrow().is_empty()) | u8::from(!self.busy.get()) << 5,
            _ => 0,
        }
    }

    fn write(&self, register: u16, value: u8) {
        match register {
            0 if !self.latch.get() => self.sent.borrow_mut().push(value),
            1 => self.enabled.set(value),
            3 => self.latch.set(value & 0x80 != 0),
            _ => {}
        }
    }
}

#[test]
fn setting_up_sends_nothing_and_listens() {
    let fake = Fake::default();
    let uart = Uart::new(&fake);
    assert!(uart.is_present());
    assert!(fake.sent.borrow().is_empty());
    assert_eq!(fake.enabled.get(), 1);
}

#[test]
fn at_most_a_fifo_is_sent_at_once() {
    let fake = Fake::default();
    let mut uart = Uart::new(&fake);
    let mut took = 0;
    assert_eq!(uart.send(&[7; 40], || took += 1), 16);
    assert_eq!(took, 16);
    assert_eq!(uart.send(&[7; 3], || {}), 3);
    fake.busy.set(true);
    assert_eq!(uart.send(&[7; 3], || {}), 0);
    assert_eq!(fake.sent.borrow().len(), 19);
}

#[test]
fn bytes_come_in() {
    let fake = Fake::default();
    fake.received.borrow_mut().extend_from_slice(b"ab");
    let mut uart = Uart::new(&fake);
    assert_eq!([uart.receive(), uart.receive(), uart.receive()], [Some(b'a'), Some(b'b'), None]);
}

#[test]
fn the_transmit_interrupt_is_switched() {
    let fake = Fake::default();
    let mut uart = Uart::new(&fake);
    uart.set_transmit_interrupt(true);
    assert_eq!(fake.enabled.get(), 3);
    uart.set_transmit_interrupt(false);
    assert_eq!(fake.enabled.get(), 1);
    uart.acknowledge();
}
