//! Headers as drivers write them.

use super::{Checksum, Invalid, Segmentation, Todo, feature};

const ALL: u64 = feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6;

fn raw(flags: u8, gso: u8, size: u16, start: u16, offset: u16) -> [u8; 12] {
    let (z, s, o) = (size.to_le_bytes(), start.to_le_bytes(), offset.to_le_bytes());
    [flags, gso, 0xff, 0xff, z[0], z[1], s[0], s[1], o[0], o[1], 0xff, 0xff]
}

#[test]
fn nothing_to_do() {
    assert_eq!(Todo::parse(raw(0, 0, 9, 9, 9), 60, 0), Ok(Todo::default()));
}

#[test]
fn checksum_has_to_lie_in_the_frame() {
    let todo = Todo::parse(raw(1, 0, 0, 34, 16), 52, ALL).unwrap();
    assert_eq!(todo.checksum, Some(Checksum { start: 34, offset: 16 }));
    assert_eq!(Todo::parse(raw(1, 0, 0, 34, 16), 51, ALL), Err(Invalid));
    assert_eq!(Todo::parse(raw(1, 0, 0, 0xffff, 0xffff), 60, ALL), Err(Invalid));
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    assert_eq!(Todo::parse(raw(1, 0, 0, 34, 16), 60, 0), Err(Invalid));
    assert_eq!(Todo::parse(raw(1, 1, 1448, 34, 16), 60, feature::CSUM), Err(Invalid));
    assert_eq!(Todo::parse(raw(1, 4, 1448, 34, 16), 60, ALL & !feature::HOST_TSO6), Err(Invalid));
    assert_eq!(Todo::parse(raw(1, 0x81, 1448, 34, 16), 60, ALL), Err(Invalid));
    assert_eq!(Todo::parse(raw(1, 3, 1448, 34, 16), 60, ALL), Err(Invalid));
    assert_eq!(Todo::parse(raw(0, 0x80, 0, 0, 0), 60, ALL), Err(Invalid));
}

#[test]
fn segmentation_needs_a_size_and_a_checksum() {
    assert_eq!(Todo::parse(raw(1, 1, 0, 34, 16), 60, ALL), Err(Invalid));
    assert_eq!(Todo::parse(raw(0, 1, 1448, 34, 16), 60, ALL), Err(Invalid));
    let todo = Todo::parse(raw(1, 4, 1428, 54, 16), 4000, ALL).unwrap();
    assert_eq!(todo.segmentation, Some(Segmentation { v6: true, size: 1428 }));
}

#[test]
fn receivers_get_what_they_take() {
    let plain = Todo::default();
    let sum = Todo { checksum: Some(Checksum { start: 34, offset: 16 }), ..plain };
    let tso = Todo { segmentation: Some(Segmentation { v6: false, size: 1448 }), ..sum };
    assert!(plain.suits(0) && !sum.suits(0) && sum.suits(feature::GUEST_CSUM));
    assert!(!tso.suits(feature::GUEST_CSUM | feature::GUEST_TSO6));
    assert!(tso.suits(feature::GUEST_CSUM | feature::GUEST_TSO4));
}

#[test]
fn written_headers_read_back() {
    for (v6, gso) in [(false, 1), (true, 4)] {
        let todo = Todo {
            checksum: Some(Checksum { start: 0x1234, offset: 6 }),
            segmentation: Some(Segmentation { v6, size: 1400 }),
        };
        let header = todo.header(0x203);
        assert_eq!((header[1], header[10], header[11]), (gso, 3, 2));
        assert_eq!(Todo::parse(header, 65000, ALL), Ok(todo));
    }
}
