//! Boot information that is whole, cut, and wild.

use super::super::testing::{Patches, boot_info, memory_map, module};
use super::{BootInfo, Error, Tag};
use proptest::prelude::{any, prop, proptest};

fn whole() -> Vec<u8> {
    boot_info(&[
        (1, b"kernel-memory=32M\0".to_vec()),
        (2, b"GRUB\0".to_vec()),
        (21, 0x20_0000u32.to_le_bytes().to_vec()),
        (3, module(0x10_1000, 0x10_2234, "roottask")),
        (3, module(0x10_3000, 0x10_3001, "")),
        (6, memory_map(&[(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 1)])),
        (14, b"RSD PTR ............".to_vec()),
    ])
}

#[test]
fn tags_come_in_order_and_unknown_ones_are_passed_over() {
    let bytes = whole();
    let info = BootInfo::parse(&bytes).unwrap();
    assert_eq!(info.size(), bytes.len());
    let tags: Vec<_> = info.tags().collect();
    assert!(matches!(tags[0], Tag::CommandLine("kernel-memory=32M")));
    assert!(matches!(tags[1], Tag::Loader("GRUB")));
    let Tag::Module(first) = tags[2] else { panic!("{:?}", tags[2]) };
    assert_eq!((first.start, first.end, first.name), (0x10_1000, 0x10_2234, "roottask"));
    let Tag::MemoryMap(map) = tags[4] else { panic!("{:?}", tags[4]) };
    let entries: Vec<_> = map.entries().map(|e| (e.base, e.size, e.kind)).collect();
    assert_eq!(entries, [(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 1)]);
    let Tag::Rsdp { bytes: rsdp, offset } = tags[5] else { panic!("{:?}", tags[5]) };
    assert_eq!(&bytes[offset..offset + rsdp.len()], rsdp);
    assert_eq!(tags.len(), 6);
}

#[test]
fn is_read_where_the_loader_says() {
    let memory = Patches(vec![(0x9000, whole())]);
    assert_eq!(BootInfo::read(&memory, 0x9000).unwrap().tags().count(), 6);
    assert_eq!(BootInfo::read(&memory, 0x8000).unwrap_err(), Error::Unreadable(0x8000));
    let huge = Patches(vec![(0x9000, [0xff; 8].to_vec())]);
    assert_eq!(BootInfo::read(&huge, 0x9000).unwrap_err(), Error::Size(u32::MAX));
}

#[test]
fn every_cut_is_noticed() {
    let bytes = whole();
    for end in 0..bytes.len() {
        assert!(BootInfo::parse(&bytes[..end]).is_err());
        let mut shorter = bytes[..end].to_vec();
        if end >= 4 {
            shorter[..4].copy_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
        }
        assert!(BootInfo::parse(&shorter).is_err(), "cut at {end}");
    }
}

#[test]
fn damaged_tags_are_named() {
    for (kind, body) in [(3, vec![0; 7]), (6, vec![0; 7]), (6, memory_map(&[])[..4].to_vec())] {
        let bytes = boot_info(&[(kind, body)]);
        assert_eq!(BootInfo::parse(&bytes).unwrap_err(), Error::Tag { kind, offset: 8 });
    }
    let mut entries_of_no_size = memory_map(&[(0, 0x1000, 1)]);
    entries_of_no_size[0] = 0;
    assert!(BootInfo::parse(&boot_info(&[(6, entries_of_no_size)])).is_err());
    // A tag shorter than its own header must not stop the walk from advancing.
    let mut bytes = boot_info(&[(1, vec![0; 8])]);
    bytes[12] = 4;
    assert_eq!(BootInfo::parse(&bytes).unwrap_err(), Error::Tag { kind: 1, offset: 8 });
}

proptest! {
    #[test]
    fn wild_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 4..200),
        (at, value) in (0usize..300, any::<u8>()),
    ) {
        let size = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        let _ = BootInfo::parse(&bytes).map(|info| info.tags().count());
        let mut bent = whole();
        let at = at % bent.len();
        bent[at] = value;
        if let Ok(info) = BootInfo::parse(&bent) {
            for tag in info.tags() {
                if let Tag::MemoryMap(map) = tag {
                    map.entries().count();
                }
            }
        }
    }
}
