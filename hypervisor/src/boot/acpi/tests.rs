//! ACPI tables of today, of 1996, and damaged ones.

use super::super::machine::Machine;
use super::super::tests::{Patches, fix_checksum, madt, root_pointer, table};
use super::{Description, IRQ_ACTIVE_LOW, IRQ_LEVEL, find_madt, madt_entries};
use proptest::prelude::{any, proptest};

const MADT_AT: u64 = 0x7ff0_0000;
const FADT_AT: u64 = 0x7ff0_1000;
const XSDT_AT: u64 = 0x7ff0_2000;
const RSDT_AT: u32 = 0x7ff0_3000;
const OTHER_MADT_AT: u64 = 0x7ff0_4000;

fn addresses(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|address| address.to_le_bytes()).collect()
}

/// XSDT and RSDT name different MADTs, so that it can be told which was used.
fn memory() -> Patches {
    let mut fadt = vec![0; 116 - 36];
    fadt[4..8].copy_from_slice(&0x7ffe_0000u32.to_le_bytes());
    let short: Vec<u8> = [OTHER_MADT_AT, FADT_AT]
        .iter()
        .flat_map(|&address| u32::try_from(address).unwrap().to_le_bytes())
        .collect();
    Patches(vec![
        (MADT_AT, madt()),
        (FADT_AT, table(*b"FACP", &fadt)),
        (XSDT_AT, table(*b"XSDT", &addresses(&[FADT_AT, 0xdead_0000, MADT_AT]))),
        (RSDT_AT.into(), table(*b"RSDT", &short)),
        (OTHER_MADT_AT, table(*b"APIC", &[0; 8])),
    ])
}

fn patch(memory: &mut Patches, address: u64) -> &mut Vec<u8> {
    &mut memory.0.iter_mut().find(|(base, _)| *base == address).unwrap().1
}

fn machine(madt: &[u8]) -> Machine {
    let mut machine = Machine { x2apic: true, ..Machine::default() };
    for (kind, entry) in madt_entries(madt) {
        let _ = machine.take(kind, entry);
    }
    machine
}

/// The CPUs that the tables describe.
fn cpus(memory: &Patches, rsdp: &[u8]) -> Vec<u32> {
    machine(find_madt(memory, rsdp).unwrap().1).cpus.iter().copied().collect()
}

#[test]
fn the_madt_is_understood() {
    let memory = memory();
    let (_, madt) = find_madt(&memory, &root_pointer(RSDT_AT, Some(XSDT_AT))).unwrap();
    let found = machine(madt);
    assert_eq!(found.cpus, [0, 2, 300]);
    let [first, second] = [(0xfec0_0000, 0), (0xfec1_0000, 24)];
    let ioapics = [first, second].map(|(base, gsi)| Description { base, gsi });
    assert_eq!(found.ioapics, ioapics);
    assert_eq!(found.isa_irqs[0], 2);
    assert_eq!(found.isa_irqs[9], 9 | IRQ_LEVEL | IRQ_ACTIVE_LOW);
}

#[test]
fn the_rsdt_serves_where_the_xsdt_is_missing_or_damaged() {
    assert_eq!(cpus(&memory(), &root_pointer(RSDT_AT, None)), []);
    assert_eq!(cpus(&memory(), &root_pointer(RSDT_AT, Some(0))), []);
    assert_eq!(cpus(&memory(), &root_pointer(RSDT_AT, Some(0x1000))), []);
    let mut memory = memory();
    patch(&mut memory, XSDT_AT)[20] ^= 1;
    assert_eq!(cpus(&memory, &root_pointer(RSDT_AT, Some(XSDT_AT))), []);
}

#[test]
fn a_damaged_root_pointer_is_refused() {
    let good = root_pointer(RSDT_AT, Some(XSDT_AT));
    for at in 0..20 {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(find_madt(&memory(), &bad).is_err(), "byte {at}");
    }
    for size in 0..20 {
        let cut = &good[..size];
        assert!(find_madt(&memory(), cut).is_err());
    }
}

#[test]
fn damaged_tables_are_refused() {
    let read = |bytes: Vec<u8>| super::table(&Patches(vec![(0x1000, bytes)]), 0x1000).is_some();
    assert!(read(madt()));
    let mut bytes = madt();
    bytes[50] ^= 1;
    assert!(!read(bytes.clone()));
    for length in [0, 35, 4096, 17 << 20, u32::MAX] {
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        fix_checksum(&mut bytes, 9);
        assert!(!read(bytes.clone()));
    }
}

#[test]
fn a_madt_entry_without_length_ends_the_list() {
    let mut bytes = madt();
    bytes[36 + 8 + 8 + 1] = 0;
    fix_checksum(&mut bytes, 9);
    assert_eq!(machine(&bytes).cpus, [0]);
}

proptest! {
    #[test]
    fn bent_tables_do_no_harm(which in 0usize..5, at in 0usize..256, value in any::<u8>()) {
        let mut memory = memory();
        let bytes = &mut memory.0[which].1;
        let at = at % bytes.len();
        bytes[at] = value;
        if at != 9 {
            fix_checksum(bytes, 9);
        }
        for rsdp in [root_pointer(RSDT_AT, Some(XSDT_AT)), root_pointer(RSDT_AT, None)] {
            let _ = find_madt(&memory, &rsdp).map(|(_, madt)| machine(madt));
        }
    }
}
