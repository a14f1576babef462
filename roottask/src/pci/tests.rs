#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use config::Which;

use super::{Bar, Ecam, Error, Function, Place, Registers, find, granted, silence};

const ECAM: Ecam = Ecam { base: 0xb000_0000, first: 0, last: 3 };

/// A register, and which of its bits can be written.
type Cell = (u32, u32);

#[derive(Default)]
struct Machine {
    cells: RefCell<BTreeMap<u64, Cell>>,
    /// Functions whose BARs were written while they decoded them.
    abused: RefCell<Vec<u64>>,
}

impl Machine {
    fn put(&mut self, place: Place, at: u64, value: u32, writable: u32) {
        let address = ECAM.page(place).unwrap() + at;
        self.cells.get_mut().insert(address, (value, writable));
    }

    /// A network card with a port BAR, a short and a long memory BAR, and MSI-X.
    fn card(&mut self, place: Place, short: u32, long: u64) {
        self.put(place, 0, 0x1041_1af4, 0);
        self.put(place, 4, 0x0010_0007, 0x7);
        self.put(place, 0xc, 0, 0);
        self.put(place, 0x10, 0xc001, !0x1f);
        self.put(place, 0x14, short, !0xfff);
        self.put(place, 0x18, 0, 0);
        self.put(place, 0x1c, 0, 0);
        self.put(place, 0x20, long as u32 | 0xc, !0x3fff);
        self.put(place, 0x24, (long >> 32) as u32, !0);
        self.put(place, 0x34, 0x98, 0);
        self.put(place, 0x98, 0x0000_8409, 0);
        self.put(place, 0x84, 0x8003_0011, 0);
    }

    fn value(&self, place: Place, at: u64) -> u32 {
        self.cells.borrow()[&(ECAM.page(place).unwrap() + at)].0
    }
}

impl Registers for Machine {
    fn read(&self, address: u64) -> u32 {
        let page = address & !0xfff;
        match self.cells.borrow().get(&address) {
            Some(cell) => cell.0,
            None if self.cells.borrow().contains_key(&page) => 0,
            None => u32::MAX,
        }
    }

    fn write(&self, address: u64, value: u32) {
        let page = address & !0xfff;
        let decodes = self.read(page + 4) & 3 != 0;
        if (0x10..0x28).contains(&(address & 0xfff)) && decodes {
            self.abused.borrow_mut().push(page);
        }
        if let Some((old, writable)) = self.cells.borrow_mut().get_mut(&address) {
            *old = *old & !*writable | value & *writable;
        }
    }
}

const fn at(bus: u8, device: u8, function: u8) -> Place {
    Place { bus, device, function }
}

const NET: Which = Which::Kind { vendor: 0x1af4, device: 0x1041 };

#[test]
fn pages_of_functions() {
    let ecam = Ecam { base: 0xe000_0000, first: 2, last: 3 };
    assert_eq!(ecam.page(at(2, 0, 0)), Some(0xe020_0000));
    assert_eq!(ecam.page(at(3, 31, 7)), Some(0xe03f_f000));
    for outside in [at(1, 0, 0), at(4, 0, 0), at(2, 32, 0), at(2, 0, 8)] {
        assert_eq!(ecam.page(outside), None);
    }
    assert_eq!((ecam.start(), ecam.size()), (0xe020_0000, 2 << 20));
}

#[test]
fn a_function_is_found_with_bars_and_vectors() {
    let mut machine = Machine::default();
    machine.card(at(1, 3, 0), 0xfebd_0000, 0x8_0000_4000);
    let expected = Function {
        config: ECAM.page(at(1, 3, 0)).unwrap(),
        bars: vec![
            Bar { number: 1, base: 0xfebd_0000, size: 0x1000 },
            Bar { number: 4, base: 0x8_0000_4000, size: 0x4000 },
        ],
        vectors: 4,
    };
    assert_eq!(find(&machine, &[ECAM], NET), Ok(expected.clone()));
    let place = Which::Place { bus: 1, device: 3, function: 0 };
    assert_eq!(find(&machine, &[ECAM], place), Ok(expected.clone()));
    assert_eq!(granted(&expected), 4);
    assert_eq!(granted(&Function { vectors: 2048, ..expected }), 8);
    // Sizing left everything as it was, but for access to memory.
    assert_eq!(machine.value(at(1, 3, 0), 0x14), 0xfebd_0000);
    assert_eq!(machine.value(at(1, 3, 0), 0x20), 0x400c);
    assert_eq!(machine.value(at(1, 3, 0), 0x24), 8);
    assert_eq!(machine.value(at(1, 3, 0), 4) & 7, 3);
    assert!(machine.abused.borrow().is_empty());
}

#[test]
fn the_first_of_its_kind_is_taken() {
    let mut machine = Machine::default();
    machine.card(at(0, 4, 0), 0xfebd_0000, 0x8_0000_0000);
    machine.card(at(0, 5, 0), 0xfebe_0000, 0x8_0000_4000);
    let first = find(&machine, &[ECAM], NET).unwrap();
    assert_eq!(first.config, ECAM.page(at(0, 4, 0)).unwrap());
}

#[test]
fn other_functions_of_a_device_are_looked_at_where_there_are_some() {
    let mut machine = Machine::default();
    machine.card(at(0, 4, 2), 0xfebd_0000, 0x8_0000_0000);
    machine.put(at(0, 4, 0), 0, 0x1234_8086, 0);
    assert_eq!(find(&machine, &[ECAM], NET), Err(Error::Missing));
    machine.put(at(0, 4, 0), 0xc, 0x0080_0000, 0);
    assert!(find(&machine, &[ECAM], NET).is_ok());
}

#[test]
fn what_is_not_there_or_no_device_is_refused() {
    let mut machine = Machine::default();
    assert_eq!(find(&machine, &[ECAM], NET), Err(Error::Missing));
    machine.card(at(0, 1, 0), 0xfebd_0000, 0x8_0000_0000);
    assert_eq!(find(&machine, &[], NET), Err(Error::Missing));
    machine.put(at(0, 1, 0), 0xc, 0x0001_0000, 0);
    assert_eq!(find(&machine, &[ECAM], NET), Err(Error::Bridge));
}

#[test]
fn bars_need_an_address_and_pages_of_their_own() {
    let mut machine = Machine::default();
    machine.card(at(0, 1, 0), 0, 0x8_0000_0000);
    assert_eq!(find(&machine, &[ECAM], NET), Err(Error::Unplaced(1)));
    machine.card(at(0, 1, 0), 0xfebd_0000, 0x8_0000_0000);
    machine.put(at(0, 2, 0), 0, 0x1234_8086, 0);
    machine.put(at(0, 2, 0), 0x10, 0xfebd_0800, !0x7ff);
    assert_eq!(find(&machine, &[ECAM], NET), Err(Error::Shared(1)));
}

#[test]
fn a_chain_of_capabilities_may_be_a_circle() {
    let mut machine = Machine::default();
    machine.card(at(0, 1, 0), 0xfebd_0000, 0x8_0000_0000);
    machine.put(at(0, 1, 0), 0x84, 0x0000_9805, 0);
    assert_eq!(find(&machine, &[ECAM], NET).unwrap().vectors, 0);
    machine.put(at(0, 1, 0), 4, 0x0000_0007, 7);
    assert_eq!(find(&machine, &[ECAM], NET).unwrap().vectors, 0);
}

#[test]
fn a_silenced_function_is_no_bus_master() {
    let mut machine = Machine::default();
    machine.card(at(0, 1, 0), 0xfebd_0000, 0x8_0000_0000);
    silence(&machine, ECAM.page(at(0, 1, 0)).unwrap());
    assert_eq!(machine.value(at(0, 1, 0), 4) & 7, 3);
}
