#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::vec;
use alloc::vec::Vec;

use ipc::cap::MemRights;
use ipc::proto::start::{Area, layout};
use proptest::collection;
use proptest::prelude::{any, proptest};

use super::{Error, Image, parse, version};

#[derive(Clone, Copy)]
struct Seg {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    filesz: u64,
    memsz: u64,
}

const BASE: u64 = layout::IMAGE.base;
const TEXT: Seg =
    Seg { kind: 1, flags: 5, offset: 0x1000, address: BASE, filesz: 0x800, memsz: 0x800 };
const DATA: Seg =
    Seg { kind: 1, flags: 6, offset: 0x1800, address: BASE + 0x1800, filesz: 0x10, memsz: 0x2000 };

fn file(entry: u64, segments: &[Seg]) -> Vec<u8> {
    let mut f = vec![0; 0x2000];
    f[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    f[16..18].copy_from_slice(&2u16.to_le_bytes());
    f[18..20].copy_from_slice(&62u16.to_le_bytes());
    f[20..24].copy_from_slice(&1u32.to_le_bytes());
    f[24..32].copy_from_slice(&entry.to_le_bytes());
    f[32..40].copy_from_slice(&64u64.to_le_bytes());
    f[52..54].copy_from_slice(&64u16.to_le_bytes());
    f[54..56].copy_from_slice(&56u16.to_le_bytes());
    f[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    for (i, s) in segments.iter().enumerate() {
        let at = 64 + 56 * i;
        let mut words = Vec::new();
        words.extend_from_slice(&s.kind.to_le_bytes());
        words.extend_from_slice(&s.flags.to_le_bytes());
        for w in [s.offset, s.address, s.address, s.filesz, s.memsz, 0x1000] {
            words.extend_from_slice(&w.to_le_bytes());
        }
        f[at..at + 56].copy_from_slice(&words);
    }
    f
}

fn check(entry: u64, segments: &[Seg]) -> Result<(), Error> {
    parse(&file(entry, segments), layout::IMAGE).map(drop)
}

#[test]
fn a_good_image() {
    let f = file(BASE + 4, &[DATA, TEXT]);
    let Image { entry, segments } = parse(&f, layout::IMAGE).unwrap();
    assert_eq!(entry, BASE + 4);
    assert_eq!(segments[0].pages, Area { base: BASE, size: 0x1000 });
    assert_eq!(segments[0].rights, MemRights::READ | MemRights::EXECUTE);
    assert_eq!(segments[1].pages, Area { base: BASE + 0x1000, size: 0x3000 });
    assert_eq!((segments[1].offset, segments[1].bytes.len()), (0x800, 0x10));
    assert_eq!(segments[1].rights, MemRights::RW);
}

#[test]
fn lies_are_found() {
    let cases = [
        (Error::OutsideFile, Seg { offset: 0x1900, ..TEXT }),
        (Error::OutsideFile, Seg { offset: u64::MAX, ..TEXT }),
        (Error::Shrinks, Seg { filesz: 0x801, ..TEXT }),
        (Error::OutsideRange, Seg { address: BASE - 0x1000, ..TEXT }),
        (Error::OutsideRange, Seg { address: 0, ..TEXT }),
        (Error::OutsideRange, Seg { memsz: layout::IMAGE.size + 1, ..TEXT }),
        (Error::OutsideRange, Seg { memsz: u64::MAX, ..TEXT }),
        (Error::Rights, Seg { flags: 7, ..TEXT }),
        (Error::Rights, Seg { flags: 1, ..TEXT }),
        (Error::Dynamic, Seg { kind: 3, ..TEXT }),
        (Error::Dynamic, Seg { kind: 2, ..TEXT }),
        (Error::Dynamic, Seg { kind: 7, ..TEXT }),
    ];
    for (error, segment) in cases {
        assert_eq!(check(BASE, &[segment]), Err(error));
    }
}

#[test]
fn segments_on_one_page_overlap() {
    let data = Seg { address: BASE + 0x900, ..DATA };
    assert_eq!(check(BASE, &[TEXT, data]), Err(Error::Overlap));
    assert_eq!(check(BASE, &[TEXT, TEXT]), Err(Error::Overlap));
}

#[test]
fn the_entry_must_be_executable() {
    assert_eq!(check(BASE + 0x1800, &[TEXT, DATA]), Err(Error::Entry));
    assert_eq!(check(0, &[TEXT, DATA]), Err(Error::Entry));
    assert_eq!(check(u64::MAX, &[TEXT, DATA]), Err(Error::Entry));
}

#[test]
fn counts() {
    assert_eq!(check(BASE, &[]), Err(Error::SegmentCount));
    let many: Vec<Seg> = (0..17).map(|i| Seg { address: BASE + i * 0x1000, ..TEXT }).collect();
    assert_eq!(check(BASE, &many[..16]), Ok(()));
    assert_eq!(check(BASE, &many), Err(Error::SegmentCount));
}

#[test]
fn other_kinds_of_file() {
    for (at, value) in [(4, 1), (5, 2), (16, 3), (18, 3)] {
        let mut f = file(BASE, &[TEXT]);
        f[at] = value;
        assert!(parse(&f, layout::IMAGE).is_err());
    }
}

#[test]
fn the_version_is_in_a_note() {
    const NOTE: Seg = Seg { kind: 4, flags: 4, offset: 0x1f00, address: 0, filesz: 24, memsz: 24 };
    let noted = |words: [u32; 3], name: &[u8; 8], content: u32| {
        let mut f = file(BASE, &[TEXT, NOTE]);
        // Alignment, by which the parts of a note are padded.
        f[64 + 56 + 48..64 + 56 + 56].copy_from_slice(&4u64.to_le_bytes());
        let mut note = words.map(u32::to_le_bytes).concat();
        note.extend_from_slice(name);
        note.extend_from_slice(&content.to_le_bytes());
        f[0x1f00..0x1f18].copy_from_slice(&note);
        assert!(parse(&f, layout::IMAGE).is_ok());
        version(&f)
    };
    assert_eq!(noted([8, 4, 1], b"Portico\0", 7), Some(7));
    assert_eq!(noted([8, 4, 2], b"Portico\0", 7), None);
    assert_eq!(noted([8, 4, 1], b"Picorto\0", 7), None);
    assert_eq!(noted([8, 0, 1], b"Portico\0", 7), None);
    assert_eq!(noted([8, 99, 1], b"Portico\0", 7), None);
    assert_eq!(version(&file(BASE, &[TEXT])), None);
    assert_eq!(version(b"no file at all"), None);
}

#[test]
fn every_truncation_is_refused() {
    let f = file(BASE, &[TEXT, DATA]);
    for len in 0..0x1810 {
        assert!(parse(&f[..len], layout::IMAGE).is_err(), "{len}");
    }
    assert!(parse(&f[..0x1810], layout::IMAGE).is_ok());
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(damage in collection::vec((0usize..0x200, any::<u8>()), 0..40)) {
        let mut f = file(BASE, &[TEXT, DATA]);
        for (at, value) in damage {
            f[at] = value;
        }
        let _ = version(&f);
        if let Ok(image) = parse(&f, layout::IMAGE) {
            for s in &image.segments {
                assert!(layout::IMAGE.contains(s.pages));
                assert!(s.offset + s.bytes.len() as u64 <= s.pages.size);
                assert!(!s.rights.contains(MemRights::WRITE | MemRights::EXECUTE));
            }
        }
    }
}
