//! Disks under a driver that works, one that does not, and media that answer late and in any order.

mod remote;
mod world;

use proptest::prelude::*;

use super::{Disk, Medium, feature};
use crate::request::{Extent, SERIAL};
use world::{IoKind, World};

const SECTORS: u64 = 64;

fn memory(sectors: u64) -> Medium {
    let bytes: Vec<u8> = (0..sectors).flat_map(|s| [s as u8; 512]).collect();
    Medium::Memory(bytes.leak())
}

fn whole(read_only: bool) -> Disk {
    Disk {
        medium: 0,
        part: Extent { sector: 0, count: SECTORS },
        read_only,
        overlay: None,
        serial: *b"SERIAL-1\0\0\0\0\0\0\0\0\0\0\0\0",
    }
}

#[test]
fn reads_and_writes() {
    let mut world = World::new(memory(SECTORS), whole(false));
    assert_eq!(world.read(3, 2), (0, [[3; 512], [4; 512]].concat()));
    assert_eq!(world.write(4, &[9; 1024]), 0);
    assert_eq!(world.read(3, 4), (0, [[3; 512], [9; 512], [9; 512], [6; 512]].concat()));
}

#[test]
fn status_and_data_may_be_cut_anywhere() {
    let mut world = World::new(memory(SECTORS), whole(false));
    world.cuts = vec![1, 3, 7, 500, 513];
    assert_eq!(world.write(10, &[0x5a; 1536]), 0);
    assert_eq!(
        world.read(9, 5),
        (0, [[9; 512], [0x5a; 512], [0x5a; 512], [0x5a; 512], [13; 512]].concat())
    );
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut world = World::new(memory(SECTORS), whole(true));
    assert_ne!(world.offered() & feature::RO, 0);
    assert_eq!(world.offered() & (feature::DISCARD | feature::WRITE_ZEROES), 0);
    assert_eq!(world.write(0, &[9; 512]), 1);
    assert_eq!(world.clear(IoKind::Discard, 0, 8), 1);
    assert_eq!(world.read(0, 1), (0, vec![0; 512]));
}

#[test]
fn a_partition_is_a_disk_of_its_own() {
    let part = Extent { sector: 10, count: 4 };
    let mut world = World::new(memory(SECTORS), Disk { part, ..whole(false) });
    assert_eq!(world.read(0, 4).1[..512], [10; 512]);
    assert_eq!(world.read(0, 5).0, 1);
    assert_eq!(world.read(4, 1).0, 1);
    assert_eq!(world.write(3, &[1; 1024]), 1);
    assert_eq!(world.write(3, &[1; 512]), 0);
    assert_eq!(world.medium()[13 * 512..15 * 512], [[1; 512], [14; 512]].concat());
}

#[test]
fn zeroes_and_discards() {
    let mut world = World::new(memory(SECTORS), whole(false));
    assert_eq!(world.clear(IoKind::WriteZeroes, 8, 8), 0);
    assert_eq!(world.clear(IoKind::Discard, 16, 8), 0);
    assert_eq!(world.medium()[8 * 512..24 * 512], [0; 16 * 512]);
    assert_eq!(world.medium()[24 * 512], 24);
    assert_eq!(world.clear(IoKind::Discard, SECTORS - 1, 2), 1);
}

#[test]
fn the_serial_number() {
    let mut world = World::new(memory(SECTORS), whole(false));
    assert_eq!(world.serial(SERIAL), (0, whole(false).serial.to_vec()));
    assert_eq!(world.serial(4), (0, b"SERI".to_vec()));
}

#[test]
fn requests_that_nobody_knows() {
    let mut world = World::new(memory(SECTORS), whole(false));
    assert_eq!(world.other(77), 2);
    assert_eq!(world.flush(), 0);
}

#[test]
fn requests_without_header_or_status_break_the_device() {
    for (readable, writable) in [(15, 1), (0, 513), (16, 0), (528, 0)] {
        let mut world = World::new(memory(SECTORS), whole(false));
        world.raw(readable, writable);
        assert!(world.is_broken(), "{readable} {writable}");
    }
}

#[test]
fn a_large_request_is_done_in_turns() {
    let large = 3 * super::BUDGET;
    let part = Extent { sector: 0, count: large };
    let mut world = World::new(memory(large), Disk { part, ..whole(false) });
    world.begin_read(0, large);
    assert!(world.round(), "it is not done in one turn");
    assert_eq!(world.status(), None);
    while world.round() {}
    assert_eq!(world.status(), Some(0));
}

#[test]
fn disks_that_one_could_write_are_not_shared() {
    let part = |sector, count| Disk { part: Extent { sector, count }, ..whole(false) };
    let fixed = whole(true);
    assert!(part(0, 10).conflict(&part(9, 1)).is_some());
    assert!(part(0, 10).conflict(&part(10, 5)).is_none());
    assert!(part(0, 10).conflict(&Disk { medium: 1, ..part(0, 10) }).is_none());
    assert!(fixed.conflict(&part(9, 1)).is_some());
    assert!(fixed.conflict(&whole(true)).is_none());
}

proptest! {
    /// Random bytes for requests: the device answers or breaks, and never writes beyond the disk.
    #[test]
    fn hostile_requests(
        requests in proptest::collection::vec(
            (any::<[u8; 48]>(), 0u8..16, 0u32..600, 0u32..600, any::<bool>()), 1..20),
    ) {
        let part = Extent { sector: 8, count: 4 };
        let mut world = World::new(memory(16), Disk { part, ..whole(false) });
        for (mut bytes, kind, readable, writable, sane) in requests {
            if sane {
                bytes[0] = kind;
                bytes[1..15].fill(0);
            }
            world.raw_bytes(&bytes, readable, writable);
        }
        for sector in (0..8u8).chain(12..16) {
            let at = usize::from(sector) * 512;
            prop_assert_eq!(&world.medium()[at..at + 512], &[sector; 512][..]);
        }
    }
}
