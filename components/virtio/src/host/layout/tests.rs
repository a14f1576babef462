use proptest::prelude::*;

use super::{Layout, LayoutError, Msix, Place, SPACE};

fn put(space: &mut [u8; SPACE], at: usize, bytes: &[u8]) {
    space[at..at + bytes.len()].copy_from_slice(bytes);
}

fn vendor(space: &mut [u8; SPACE], at: usize, next: u8, kind: u8, offset: u32) {
    put(space, at, &[9, next, 16, kind, 4, 0, 0, 0]);
    put(space, at + 8, &offset.to_le_bytes());
    put(space, at + 12, &0x1000u32.to_le_bytes());
}

/// The configuration space of a function as QEMU lays it out.
fn space() -> [u8; SPACE] {
    let mut space = [0; SPACE];
    put(&mut space, 0, &[0xf4, 0x1a, 0x42, 0x10, 0, 0, 0x10, 0]);
    space[0x34] = 0x98;
    put(&mut space, 0x98, &[0x11, 0x84, 1, 0, 1, 0, 0, 0, 1, 8, 0, 0]);
    // A window to the configuration space, which nobody uses.
    vendor(&mut space, 0x84, 0x70, 5, 0);
    vendor(&mut space, 0x70, 0x60, 2, 0x3000);
    put(&mut space, 0x80, &4u32.to_le_bytes());
    vendor(&mut space, 0x60, 0x50, 4, 0x2000);
    vendor(&mut space, 0x50, 0x40, 3, 0x1000);
    vendor(&mut space, 0x40, 0, 1, 0);
    space
}

#[test]
fn finds_every_part() {
    let place = |offset| Place { bar: 4, offset, len: 0x1000 };
    let expect = Layout {
        common: place(0),
        notify: place(0x3000),
        multiplier: 4,
        isr: place(0x1000),
        device: Some(place(0x2000)),
        msix: Some(Msix { capability: 0x98, table: Place { bar: 1, offset: 0, len: 32 } }),
    };
    assert_eq!(Layout::parse(&space()), Ok(expect));
}

#[test]
fn the_first_of_a_kind_counts() {
    let mut space = space();
    space[0x84 + 3] = 1;
    put(&mut space, 0x84 + 8, &0x7000u32.to_le_bytes());
    assert_eq!(Layout::parse(&space).unwrap().common.offset, 0x7000);
}

#[test]
fn functions_without_the_interface_are_refused() {
    let mut other = space();
    other[0] = 0x86;
    assert_eq!(Layout::parse(&other), Err(LayoutError::Vendor(0x1a86)));
    let mut legacy = space();
    legacy[6] = 0;
    assert_eq!(Layout::parse(&legacy), Err(LayoutError::Missing("common configuration")));
    let mut none = space();
    none[0x50 + 3] = 9;
    assert_eq!(Layout::parse(&none), Err(LayoutError::Missing("interrupt status")));
    let mut bar = space();
    bar[0x70 + 4] = 6;
    assert_eq!(Layout::parse(&bar), Err(LayoutError::Missing("notifications")));
}

#[test]
fn without_msix_there_is_none() {
    let mut space = space();
    space[0x98] = 0x12;
    assert_eq!(Layout::parse(&space).unwrap().msix, None);
}

#[test]
fn lists_that_loop_end() {
    let mut space = space();
    space[0x41] = 0x98;
    assert!(Layout::parse(&space).is_ok());
    space[0x99] = 0x98;
    assert!(Layout::parse(&space).is_err());
}

proptest! {
    /// Any configuration space has an answer.
    #[test]
    fn any_space(
        changes in proptest::collection::vec((0usize..SPACE, any::<u8>()), 0..40),
        all in proptest::option::of(proptest::collection::vec(any::<u8>(), SPACE)),
    ) {
        let mut space = space();
        if let Some(all) = all {
            put(&mut space, 4, &all[4..]);
        }
        for (at, value) in changes {
            space[at] = value;
        }
        let _ = Layout::parse(&space);
    }
}
