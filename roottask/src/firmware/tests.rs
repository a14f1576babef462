#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::vec;
use alloc::vec::Vec;

use super::{Physical, PowerOff, ecams, power_off, sleep_type, sum};
use crate::pci::Ecam;

/// Memory from 0x1000 on.
struct Fake(Vec<u8>);

impl Physical for Fake {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        let start = address.checked_sub(0x1000)? as usize;
        self.0.get(start..start.checked_add(size as usize)?)
    }
}

fn finish(mut table: Vec<u8>) -> Vec<u8> {
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    table[9] = 0;
    table[9] = 0u8.wrapping_sub(sum(&table));
    table
}

const S5: &[u8] = &[0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0x0a, 5, 0x0a, 6, 0, 0];

/// RSDP at 0x1000, RSDT at 0x1100, XSDT at 0x1200, FADT at 0x1300, DSDT at 0x1500.
fn machine(revision: u8, extended: bool) -> Fake {
    let mut m = vec![0; 0x700];
    let mut put = |at: usize, bytes: &[u8]| m[at..at + bytes.len()].copy_from_slice(bytes);
    let mut rsdp = vec![0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[15] = revision;
    rsdp[16..20].copy_from_slice(&0x1100u32.to_le_bytes());
    rsdp[24..32].copy_from_slice(&0x1200u64.to_le_bytes());
    rsdp[8] = 0u8.wrapping_sub(sum(&rsdp[..20]));
    put(0, &rsdp);
    let mut rsdt = b"RSDT".to_vec();
    rsdt.resize(36, 0);
    rsdt.extend_from_slice(&0x9999u32.to_le_bytes());
    rsdt.extend_from_slice(&0x1300u32.to_le_bytes());
    put(0x100, &finish(rsdt));
    let mut xsdt = b"XSDT".to_vec();
    xsdt.resize(36, 0);
    xsdt.extend_from_slice(&0x1300u64.to_le_bytes());
    put(0x200, &finish(xsdt));
    let mut fadt = b"FACP".to_vec();
    fadt.resize(276, 0);
    fadt[40..44].copy_from_slice(&0x1500u32.to_le_bytes());
    fadt[48..52].copy_from_slice(&0xb2u32.to_le_bytes());
    fadt[52] = 0xf1;
    fadt[64..68].copy_from_slice(&0x604u32.to_le_bytes());
    if extended {
        fadt[172] = 1;
        fadt[176..184].copy_from_slice(&0x1804u64.to_le_bytes());
    }
    put(0x300, &finish(fadt));
    let mut dsdt = b"DSDT".to_vec();
    dsdt.resize(36, 0);
    dsdt.extend_from_slice(b"junk_S5_");
    dsdt.extend_from_slice(S5);
    put(0x500, &finish(dsdt));
    Fake(m)
}

#[test]
fn by_the_old_tables() {
    let found = power_off(&machine(0, false), 0x1000).unwrap();
    let expected = PowerOff {
        pm1a: Some((0x604, 5 << 10 | 1 << 13)),
        pm1b: None,
        enable: Some((0xb2, 0xf1)),
        sleep: None,
    };
    assert_eq!(found, expected);
}

#[test]
fn by_the_extended_tables() {
    let found = power_off(&machine(2, true), 0x1000).unwrap();
    assert_eq!(found.pm1a, Some((0x1804, 5 << 10 | 1 << 13)));
}

#[test]
fn damage_is_found() {
    let good = machine(2, true);
    for at in [0, 8, 0x320, 0x524] {
        let mut bad = Fake(good.0.clone());
        bad.0[at] ^= 0x40;
        assert_eq!(power_off(&bad, 0x1000), None, "{at:#x}");
    }
    assert_eq!(power_off(&good, 0), None);
    assert_eq!(power_off(&good, 0x16f0), None);
}

#[test]
fn forms_of_the_package() {
    assert_eq!(sleep_type(S5), Some((5, 6)));
    assert_eq!(sleep_type(b"\x08\\_S5_\x12\x40\x06\x04\x00\x01"), Some((0, 1)));
    assert_eq!(sleep_type(b"\x14_S5_\x12\x06\x04\x0a\x05\x00"), None);
    for len in 0..10 {
        assert_eq!(sleep_type(&S5[..len]), None);
    }
}

/// An MCFG with these entries: base, segment, first and last bus.
fn mcfg(entries: &[(u64, u16, u8, u8)]) -> Fake {
    let mut table = b"MCFG".to_vec();
    table.resize(44, 0);
    for &(base, segment, first, last) in entries {
        table.extend_from_slice(&base.to_le_bytes());
        table.extend_from_slice(&segment.to_le_bytes());
        table.extend_from_slice(&[first, last, 0, 0, 0, 0]);
    }
    let Fake(mut m) = machine(2, true);
    let table = finish(table);
    m[0x300..0x300 + table.len()].copy_from_slice(&table);
    Fake(m)
}

#[test]
fn configuration_space_of_segment_0_is_found() {
    let memory = mcfg(&[(0xb000_0000, 0, 0, 255), (0xe000_0000, 1, 0, 255), (1 << 40, 0, 0, 3)]);
    let found = [
        Ecam { base: 0xb000_0000, first: 0, last: 255 },
        Ecam { base: 1 << 40, first: 0, last: 3 },
    ];
    assert_eq!(ecams(&memory, 0x1000), found);
    assert_eq!(ecams(&machine(2, true), 0x1000), []);
}

#[test]
fn configuration_space_that_cannot_be_is_left_out() {
    let memory = mcfg(&[(0xb000_0001, 0, 0, 255), (0, 0, 9, 3), (u64::MAX << 20, 0, 0, 255)]);
    assert_eq!(ecams(&memory, 0x1000), []);
}
