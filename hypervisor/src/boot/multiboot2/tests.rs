//! Boot information that is whole, cut, and wild.

use super::super::tests::{Patches, boot_info, memory_map, module};
use super::BootInfo;
use crate::boot::memory::Range;
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
fn what_is_of_interest_is_noted_and_unknown_tags_are_passed_over() {
    let bytes = whole();
    let info = BootInfo::parse(&bytes).unwrap();
    assert_eq!(info.size, bytes.len());
    assert_eq!(info.command_line, "kernel-memory=32M");
    let modules: Vec<_> = info.modules.iter().map(|m| (m.base, m.size, m.name())).collect();
    assert_eq!(modules, [(0x10_1000, 0x1234, "roottask"), (0x10_3000, 1, "")]);
    let ranges: Vec<_> = info.memory_map().collect();
    let expected = [(Range::new(0, 0x9_fc00), 1), (Range::new(0x10_0000, 0x700_0000), 1)];
    assert_eq!(ranges, expected);
    let (rsdp, offset) = info.rsdp.unwrap();
    assert_eq!(&bytes[offset..offset + rsdp.len()], rsdp);
    assert!(rsdp.starts_with(b"RSD PTR "));
}

#[test]
fn the_newer_root_pointer_counts() {
    for order in [[14, 15], [15, 14]] {
        let tag = |kind| (kind, vec![0; if kind == 14 { 20 } else { 36 }]);
        let bytes = boot_info(&order.map(tag));
        assert_eq!(BootInfo::parse(&bytes).unwrap().rsdp.unwrap().0.len(), 36);
    }
}

#[test]
fn is_read_where_the_loader_says() {
    let memory = Patches(vec![(0x9000, whole())]);
    assert_eq!(BootInfo::read(&memory, 0x9000).unwrap().modules.len(), 2);
    assert!(BootInfo::read(&memory, 0x8000).is_err());
    let huge = Patches(vec![(0x9000, vec![0xff; 8])]);
    assert!(BootInfo::read(&huge, 0x9000).is_err());
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
fn damaged_tags_are_refused() {
    for (kind, body) in [(3, vec![0; 7]), (6, vec![0; 7]), (6, memory_map(&[])[..4].to_vec())] {
        assert!(BootInfo::parse(&boot_info(&[(kind, body)])).is_err());
    }
    let mut entries_of_no_size = memory_map(&[(0, 0x1000, 1)]);
    entries_of_no_size[0] = 0;
    assert!(BootInfo::parse(&boot_info(&[(6, entries_of_no_size)])).is_err());
    // A tag shorter than its own header must not stop the walk from advancing.
    let mut bytes = boot_info(&[(1, vec![0; 8])]);
    bytes[12] = 4;
    assert!(BootInfo::parse(&bytes).is_err());
}

proptest! {
    #[test]
    fn wild_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 4..200),
        (at, value) in (0usize..300, any::<u8>()),
    ) {
        let size = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        let _ = BootInfo::parse(&bytes).map(|info| info.memory_map().count());
        let mut bent = whole();
        let at = at % bent.len();
        bent[at] = value;
        let _ = BootInfo::parse(&bent).map(|info| info.memory_map().count());
    }
}
