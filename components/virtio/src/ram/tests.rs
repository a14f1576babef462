use super::{HOLE_END, HOLE_START, NotRam, Ram, Region, regions};

#[test]
fn reads_back_what_was_written_at_any_alignment() {
    let ram = Ram::for_test(0x10000);
    let data: Vec<u8> = (0..200).collect();
    for start in 0..16 {
        for len in [0usize, 1, 3, 7, 8, 9, 15, 16, 17, 100, 200] {
            ram.write(0x1000 + start, &data[..len]).unwrap();
            let mut back = vec![0; len];
            ram.read(0x1000 + start, &mut back).unwrap();
            assert_eq!(back, data[..len]);
        }
    }
}

#[test]
fn copies_at_any_alignment_and_touches_nothing_around() {
    let (a, b) = (Ram::for_test(0x2000), Ram::for_test(0x2000));
    let data: Vec<u8> = (0..4200).map(|n| n as u8 ^ 0x5a).collect();
    a.write(0, &data).unwrap();
    for (from, to) in [(0, 0), (3, 3), (8, 16), (1, 0), (5, 2), (7, 15)] {
        for len in [0usize, 1, 5, 8, 63, 64, 65, 137, 2048, 4100] {
            b.write(0, &[0xee; 0x2000]).unwrap();
            a.copy(from, &b, to, len as u64).unwrap();
            let mut back = vec![0; 0x2000];
            b.read(0, &mut back).unwrap();
            let (from, to) = (from as usize, to as usize);
            assert_eq!(back[to..to + len], data[from..from + len]);
            let around = back[..to].iter().chain(&back[to + len..]);
            assert!(around.into_iter().all(|byte| *byte == 0xee));
        }
    }
    assert!(a.copy(0x1fff, &b, 0, 2).is_err());
    assert!(a.copy(0, &b, 0x1fff, 2).is_err());
}

#[test]
fn a_write_touches_nothing_around_it() {
    let ram = Ram::for_test(0x1000);
    ram.write(0, &[0xaa; 64]).unwrap();
    ram.write(13, &[0x55; 21]).unwrap();
    let back: [u8; 64] = ram.read_array(0).unwrap();
    for (i, byte) in back.iter().enumerate() {
        assert_eq!(*byte, if (13..34).contains(&i) { 0x55 } else { 0xaa });
    }
}

#[test]
fn words_of_every_size_and_alignment() {
    let ram = Ram::for_test(0x1000);
    for size in 1..=8u64 {
        for at in 0..9 {
            ram.write_word(at, size, 0x1122_3344_5566_7788).unwrap();
            let expect = 0x1122_3344_5566_7788 & (u64::MAX >> (64 - 8 * size));
            assert_eq!(ram.read_word(at, size).unwrap(), expect);
        }
    }
}

#[test]
fn rejects_what_is_outside() {
    let ram = Ram::for_test(0x2000);
    assert_eq!(ram.read_word(0x1ffd, 4), Err(NotRam { gpa: 0x1ffd, len: 4 }));
    assert!(ram.read_word(0x1ffc, 4).is_ok());
    assert!(ram.write(u64::MAX - 1, &[0; 4]).is_err());
    assert!(ram.write(0x1ffc, &[0; 5]).is_err());
    assert!(ram.read_word(HOLE_START, 1).is_err());
    assert!(ram.read_word(HOLE_END, 1).is_err());
    assert!(ram.set_bits_u64(4, 1).is_err());
    assert!(ram.contains(0, 0x2000));
    assert!(!ram.contains(0, 0x2001));
}

#[test]
fn large_ram_is_split_around_the_hole() {
    let all: Vec<Region> = regions(HOLE_START + 0x4000_0000).collect();
    assert_eq!(
        all,
        [
            Region { gpa: 0, size: HOLE_START, offset: 0 },
            Region { gpa: HOLE_END, size: 0x4000_0000, offset: HOLE_START },
        ]
    );
    assert_eq!(regions(0x1000_0000).count(), 1);
}

#[test]
fn bits_are_set_atomically() {
    let ram = Ram::for_test(0x1000);
    ram.write_word(8, 8, 0x10).unwrap();
    assert_eq!(ram.set_bits_u64(8, 0x21).unwrap(), 0x10);
    assert_eq!(ram.read_word(8, 8).unwrap(), 0x31);
    assert_eq!(ram.set_bits_u32(12, 0x40).unwrap(), 0);
    assert_eq!(ram.read_word(8, 8).unwrap(), 0x40_0000_0031);
}
