use super::{AcpiError, write};
use crate::boot::layout;
use crate::devices::pm;
use crate::memory::Ram;

struct Table {
    at: u64,
    bytes: Vec<u8>,
}

fn table(ram: &Ram, at: u64) -> Table {
    let len = ram.read_word(at + 4, 4).unwrap() as usize;
    let mut bytes = vec![0; len];
    ram.read(at, &mut bytes).unwrap();
    Table { at, bytes }
}

impl Table {
    fn signature(&self) -> &[u8] {
        &self.bytes[..4]
    }

    fn sum(&self) -> u8 {
        self.bytes.iter().fold(0, |a, b| a.wrapping_add(*b))
    }

    fn word(&self, at: usize, size: usize) -> u64 {
        self.bytes[at..at + size].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
    }
}

fn tables(ram: &Ram) -> Vec<Table> {
    let root: [u8; 36] = ram.read_array(layout::ACPI).unwrap();
    assert_eq!(&root[..8], b"RSD PTR ");
    assert_eq!(root.iter().fold(0u8, |a, b| a.wrapping_add(*b)), 0);
    let xsdt = table(ram, ram.read_word(layout::ACPI + 24, 8).unwrap());
    assert_eq!(xsdt.signature(), b"XSDT");
    let mut all = vec![];
    for n in 0..(xsdt.bytes.len() - 36) / 8 {
        all.push(table(ram, xsdt.word(36 + n * 8, 8)));
    }
    let dsdt = all[0].word(140, 8);
    all.push(table(ram, dsdt));
    all.push(xsdt);
    all
}

#[test]
fn every_table_is_found_and_sums_to_zero() {
    let ram = Ram::for_test(1 << 20);
    assert_eq!(write(&ram, 2, 2), Ok(layout::ACPI));
    let all = tables(&ram);
    let names: Vec<&[u8]> = all.iter().map(Table::signature).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"DSDT", b"XSDT"]);
    for t in &all {
        assert_eq!(t.sum(), 0, "{:?}", String::from_utf8_lossy(t.signature()));
        assert!(t.at + t.bytes.len() as u64 <= layout::ACPI_END);
    }
}

#[test]
fn fadt_is_hardware_reduced_with_sleep_and_reset_registers() {
    let ram = Ram::for_test(1 << 20);
    write(&ram, 1, 2).unwrap();
    let fadt = &tables(&ram)[0];
    assert_eq!(fadt.bytes.len(), 276);
    let flags = fadt.word(112, 4);
    assert_eq!(flags & 1 << 20, 1 << 20);
    assert_eq!(flags & 1 << 10, 1 << 10);
    assert_eq!(fadt.word(109, 2), 0b10_0100);
    assert_eq!(fadt.bytes[116], 1);
    assert_eq!(fadt.word(120, 8), u64::from(pm::RESET));
    assert_eq!(fadt.bytes[128], pm::RESET_VALUE);
    assert_eq!(fadt.word(248, 8), u64::from(pm::SLEEP_CONTROL));
    assert_eq!(fadt.word(260, 8), u64::from(pm::SLEEP_STATUS));
}

#[test]
fn madt_lists_every_vcpu_and_the_io_apic() {
    let ram = Ram::for_test(1 << 20);
    write(&ram, 3, 2).unwrap();
    let madt = &tables(&ram)[1];
    assert_eq!(madt.word(36, 4), layout::LAPIC);
    // Not dual-8259 compatible.
    assert_eq!(madt.word(40, 4), 0);
    let mut at = 44;
    let mut cpus = vec![];
    while at < madt.bytes.len() {
        match madt.bytes[at] {
            0 => cpus.push((madt.bytes[at + 2], madt.bytes[at + 3], madt.word(at + 4, 4))),
            1 => assert_eq!(madt.word(at + 4, 4), layout::IOAPIC),
            other => panic!("structure {other}"),
        }
        at += usize::from(madt.bytes[at + 1]);
    }
    assert_eq!(cpus, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]);
}

#[test]
fn dsdt_names_what_there_is() {
    let ram = Ram::for_test(1 << 20);
    write(&ram, 254, 2).unwrap();
    let dsdt = &tables(&ram)[2];
    let has = |s: &[u8]| dsdt.bytes.windows(s.len()).any(|w| w == s);
    for name in [&b"_S5_"[..], b"COM1", b"C000", b"C0FD", b"ACPI0007"] {
        assert!(has(name), "{}", String::from_utf8_lossy(name));
    }
    assert!(!has(b"C0FE"));
}

#[test]
fn needs_its_area_in_ram() {
    let ram = Ram::for_test(0x8_0000);
    assert!(matches!(write(&ram, 1, 2), Err(AcpiError::Memory(_))));
}
