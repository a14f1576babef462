use proptest::prelude::*;

use super::{Extent, GptError, find};

const SECTORS: u64 = 2048;

/// A medium with a table and its copy, and these partitions.
fn medium(partitions: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; SECTORS as usize * 512];
    let mut entries = vec![0; 128 * 128];
    for (entry, (first, last)) in entries.chunks_exact_mut(128).zip(partitions) {
        if (*first, *last) == (0, 0) {
            continue;
        }
        entry[..16].copy_from_slice(&[0xaf; 16]);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    for (at, table) in [(1, 2), (SECTORS - 1, SECTORS - 33)] {
        bytes[table as usize * 512..][..entries.len()].copy_from_slice(&entries);
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&u64::to_le_bytes(at));
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&(SECTORS - 34).to_le_bytes());
        header[72..80].copy_from_slice(&u64::to_le_bytes(table));
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes[at as usize * 512..][..92].copy_from_slice(&header);
    }
    bytes
}

fn partition(bytes: &[u8], number: u32) -> Result<Extent, GptError> {
    find(bytes.len() as u64 / 512, number, |sector, to| {
        let start = usize::try_from(sector).ok().and_then(|s| s.checked_mul(512));
        let from = start.and_then(|s| bytes.get(s..)?.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).is_some()
    })
}

#[test]
fn finds_partitions_by_their_number() {
    let bytes = medium(&[(34, 100), (0, 0), (200, 200)]);
    assert_eq!(partition(&bytes, 1), Ok(Extent { sector: 34, count: 67 }));
    assert_eq!(partition(&bytes, 3), Ok(Extent { sector: 200, count: 1 }));
    assert_eq!(partition(&bytes, 2), Err(GptError::NoPartition(2)));
    assert_eq!(partition(&bytes, 0), Err(GptError::NoPartition(0)));
    assert_eq!(partition(&bytes, 129), Err(GptError::NoPartition(129)));
    assert_eq!(partition(&bytes, u32::MAX), Err(GptError::NoPartition(u32::MAX)));
}

#[test]
fn the_copy_stands_in_for_a_damaged_table() {
    let good = medium(&[(34, 100)]);
    for damaged in [512, 512 + 24, 512 + 90, 1024, 1024 + 40, 1024 + 16000] {
        let mut bytes = good.clone();
        bytes[damaged] ^= 1;
        assert_eq!(partition(&bytes, 1), Ok(Extent { sector: 34, count: 67 }), "{damaged}");
    }
}

#[test]
fn without_a_good_table_there_is_no_partition() {
    let mut bytes = medium(&[(34, 100)]);
    let last = (SECTORS as usize - 1) * 512;
    bytes[512 + 40] ^= 1;
    bytes[last + 40] ^= 1;
    assert_eq!(partition(&bytes, 1), Err(GptError::NoTable));
    let mut bytes = medium(&[(34, 100)]);
    bytes[1024] ^= 1;
    bytes[last + 16] ^= 1;
    assert_eq!(partition(&bytes, 1), Err(GptError::Entries));
    assert_eq!(partition(&[0; 512 * 100], 1), Err(GptError::NoTable));
    assert_eq!(partition(&[], 1), Err(GptError::NoTable));
}

#[test]
fn partitions_lie_between_the_tables() {
    for (first, last) in [(33, 100), (100, SECTORS - 33), (100, 99), (34, u64::MAX)] {
        let bytes = medium(&[(first, last)]);
        assert_eq!(partition(&bytes, 1), Err(GptError::Outside(1)));
    }
}

proptest! {
    /// Whatever is on the medium: what is found lies on it.
    #[test]
    fn damaged_media(
        changes in proptest::collection::vec((512usize..40 * 512, any::<u8>()), 0..8),
        fix in any::<bool>(), number in 0u32..4,
    ) {
        let mut bytes = medium(&[(34, 100), (101, 200)]);
        for (at, value) in changes {
            bytes[at] = value;
        }
        if fix {
            // A checksum that is right in spite of it.
            let header: &mut [u8] = &mut bytes[512..][..92];
            header[16..20].fill(0);
            let sum = crc32fast::hash(header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(Extent { sector, count }) = partition(&bytes, number) {
            prop_assert!(count > 0 && sector + count <= SECTORS);
        }
    }
}
