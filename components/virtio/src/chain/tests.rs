use proptest::prelude::*;

use super::{Cursor, Segment, copy};
use crate::ram::Ram;

fn segments(ram: &Ram, pieces: &[(u64, u32)]) -> Vec<Segment> {
    let list: Vec<_> = pieces.iter().map(|&(gpa, len)| Segment { gpa, len }).collect();
    assert!(list.iter().all(|s| ram.contains(s.gpa, s.len.into())));
    list
}

#[test]
fn reads_across_segments() {
    let ram = Ram::for_test(0x4000);
    ram.write(0x100, b"hello ").unwrap();
    ram.write(0x2003, b"world").unwrap();
    let list = segments(&ram, &[(0x100, 6), (0x2003, 5)]);
    let mut cursor = Cursor::new(&list);
    let mut buffer = [0; 16];
    assert_eq!(cursor.read(&ram, &mut buffer[..4]).unwrap(), 4);
    assert_eq!(cursor.left(), 7);
    assert_eq!(cursor.read(&ram, &mut buffer[4..]).unwrap(), 7);
    assert_eq!(&buffer[..11], b"hello world");
    assert_eq!(cursor.read(&ram, &mut buffer).unwrap(), 0);
}

#[test]
fn a_part_ends_where_it_was_cut_off() {
    let ram = Ram::for_test(0x1000);
    let list = segments(&ram, &[(0, 8), (16, 8)]);
    let mut all = Cursor::new(&list);
    let mut data = all.take(15);
    assert_eq!((data.left(), all.left()), (15, 1));
    assert_eq!(data.write(&ram, &[0xaa; 32]).unwrap(), 15);
    assert_eq!(all.write(&ram, &[0x55; 32]).unwrap(), 1);
    let back: [u8; 24] = ram.read_array(0).unwrap();
    assert_eq!(back[..8], [0xaa; 8]);
    assert_eq!(back[8..16], [0; 8]);
    assert_eq!(back[16..23], [0xaa; 7]);
    assert_eq!(back[23], 0x55);
}

#[test]
fn an_array_is_whole_or_missing() {
    let ram = Ram::for_test(0x1000);
    let list = segments(&ram, &[(0, 3), (8, 3)]);
    assert_eq!(Cursor::new(&list).read_array::<6>(&ram).unwrap(), Some([0; 6]));
    assert_eq!(Cursor::new(&list).read_array::<7>(&ram).unwrap(), None);
}

#[test]
fn zeroes_fill_everything_and_no_more() {
    let ram = Ram::for_test(0x2000);
    ram.write(0, &[1; 0x1000]).unwrap();
    let list = segments(&ram, &[(1, 1000), (2000, 1)]);
    Cursor::new(&list).fill_zero(&ram).unwrap();
    let back: [u8; 0x1000] = ram.read_array(0).unwrap();
    for (i, byte) in back.iter().enumerate() {
        assert_eq!(*byte == 0, (1..1001).contains(&i) || i == 2000, "{i}");
    }
}

proptest! {
    /// Any cuts of source and destination give the same bytes.
    #[test]
    fn copies_between_guests(
        data in proptest::collection::vec(any::<u8>(), 1..6000),
        cuts in proptest::collection::vec(1u32..900, 1..40),
        more in proptest::collection::vec(1u32..900, 1..40),
    ) {
        let (a, b) = (Ram::for_test(0x10000), Ram::for_test(0x10000));
        let spread = |cuts: &[u32]| {
            let mut at = 5u64;
            cuts.iter().map(|&len| {
                let gpa = at;
                at += u64::from(len) + 3;
                Segment { gpa, len }
            }).collect::<Vec<_>>()
        };
        let (from, to) = (spread(&cuts), spread(&more));
        Cursor::new(&from).write(&a, &data).unwrap();
        let room: u64 = Cursor::new(&from).left().min(Cursor::new(&to).left());
        let moved = copy(&a, &mut Cursor::new(&from), &b, &mut Cursor::new(&to)).unwrap();
        prop_assert_eq!(moved, room);
        let mut expect = vec![0; room as usize];
        let count = data.len().min(expect.len());
        expect[..count].copy_from_slice(&data[..count]);
        let mut back = vec![0; room as usize];
        Cursor::new(&to).read(&b, &mut back).unwrap();
        prop_assert_eq!(back, expect);
    }
}
