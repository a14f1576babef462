use super::{ABSENT, lookup};
use crate::devices::{pm, uart16550};

#[test]
fn sorted_and_disjoint() {
    for pair in ABSENT.windows(2) {
        assert!(pair[0].first <= pair[0].last && pair[0].last < pair[1].first, "{pair:?}");
    }
}

#[test]
fn known_traps() {
    assert_ne!(lookup(0x42).unwrap().value, 0xff);
    assert_eq!(lookup(0x71).unwrap().value & 0x80, 0);
    assert_ne!(lookup(0x61).unwrap().value & 0x20, 0);
    assert_eq!(lookup(0x64).unwrap().value & 2, 0);
    assert_eq!(lookup(0xcfc).unwrap().value, 0xff);
    assert!(lookup(0x1234).is_none());
    assert!(lookup(0xffff).is_none());
}

#[test]
fn no_device_is_declared_absent() {
    for port in (uart16550::COM1..uart16550::COM1 + 8).chain(pm::SLEEP_CONTROL..=pm::RESET) {
        assert!(lookup(port).is_none(), "{port:#x}");
    }
}
