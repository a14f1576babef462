//! Whole machines, from the loader's bytes to the information page.

use super::super::memory;
use super::super::tests::{Patches, boot_info, madt, memory_map, module, root_pointer, table};
use super::{Machine, discover};
use crate::boot::Result;
use crate::boot::acpi::{IRQ_ACTIVE_LOW, IRQ_LEVEL};
use crate::boot::memory::Range;
use ipc::info::{Info, MemoryKind};

const INFO_AT: u64 = 0x1_d000;
const RSDT_AT: u32 = 0x7ffe_1000;

fn boot_cpu() -> Machine {
    Machine {
        cpus: [2].into_iter().collect(),
        isa_irqs: core::array::from_fn(|line| line as u32),
        image: Range { start: 0x100_0000, end: 0x102_0000 },
        lapic: 0xfee0_0000,
        x2apic: true,
        physical_bits: 40,
        ..Machine::default()
    }
}

fn tags() -> Vec<(u32, Vec<u8>)> {
    let map = [(0, 0x9_f000, 1), (0x10_0000, 0x7fee_0000, 1), (0x7ffe_0000, 0x2_0000, 2)];
    vec![
        (1, b"quiet kernel-memory=20971520\0".to_vec()),
        (2, b"a loader whose name is far too long to keep\0".to_vec()),
        (3, module(0x20_0000, 0x20_1234, "roottask")),
        (3, module(0x20_2000, 0x20_3000, "a name that is longer than thirty-two bytes")),
        (6, memory_map(&map)),
        (14, root_pointer(RSDT_AT, None)),
    ]
}

fn found(tags: &[(u32, Vec<u8>)], machine: Machine) -> Result<Machine> {
    let memory = Patches(vec![
        (INFO_AT, boot_info(tags)),
        (RSDT_AT.into(), table(*b"RSDT", &0x7ffe_2000u32.to_le_bytes())),
        (0x7ffe_2000, madt()),
    ]);
    discover(machine, &memory, INFO_AT)
}

#[test]
fn a_machine_is_described() {
    let machine = found(&tags(), boot_cpu()).unwrap();
    assert_eq!(machine.cpus, [2, 0, 300]);
    assert_eq!(machine.ioapics.len(), 2);
    assert_eq!(machine.isa_irqs[0], 2);
    assert_eq!(machine.isa_irqs[1], 1);
    assert_eq!(machine.isa_irqs[9], 9 | IRQ_LEVEL | IRQ_ACTIVE_LOW);
    assert_eq!(machine.memory.pool.size(), 20 << 20);
    let kind_at = |address| {
        let at = Range::new(address, 1);
        let inside = |r: &&memory::Region| r.range.start <= at.start && at.end <= r.range.end;
        machine.memory.regions.iter().find(inside).map(|region| region.kind)
    };
    assert_eq!(kind_at(machine.rsdp), Some(MemoryKind::Firmware));
    assert_eq!(kind_at(RSDT_AT.into()), Some(MemoryKind::Firmware));
    assert_eq!(kind_at(0xfee0_0000), None);
    assert_eq!(kind_at(0xfec1_0fff), None);
}

#[test]
fn the_information_page_leaves_out_the_root_task() {
    let machine = found(&tags(), boot_cpu()).unwrap();
    // SAFETY: all fields are integers.
    let mut info: Info = unsafe { core::mem::zeroed() };
    machine.describe(&mut info);
    assert_eq!(info.modules().len(), 1);
    assert_eq!(info.modules()[0].name(), "a name that is longer than thirt");
    assert_eq!(info.memory().len(), machine.memory.regions.len());
    assert_eq!(info.rsdp, machine.rsdp);
}

#[test]
fn cpus_out_of_reach_are_left_out() {
    let machine = found(&tags(), Machine { x2apic: false, ..boot_cpu() }).unwrap();
    assert_eq!(machine.cpus, [2, 0]);
}

#[test]
fn what_keeps_the_kernel_from_starting_is_named() {
    let without = |kind| {
        let rest: Vec<_> = tags().into_iter().filter(|tag| tag.0 != kind).collect();
        found(&rest, boot_cpu()).unwrap_err()
    };
    assert!(without(3).contains("no modules"));
    assert!(without(14).contains("no ACPI"));
    assert!(without(6).contains("no available RAM"));
    let option = |line: &str| {
        let mut tags = tags();
        tags[0].1 = line.as_bytes().to_vec();
        found(&tags, boot_cpu()).map(|machine| machine.memory.pool.size() >> 20)
    };
    assert_eq!(option("kernel-memory=1073741824"), Ok(1024));
    assert_eq!(option("kernel-memory=8388608"), Ok(8));
    assert_eq!(option("kernel-memory=33554432"), Ok(32));
    assert_eq!(option("other"), Ok(16));
    for wrong in ["", "M", "12X", "-1", "99999999999999999999"] {
        let line = format!("kernel-memory={wrong}");
        assert!(option(&line).unwrap_err().contains("kernel-memory="), "{line}");
    }
    let mut elsewhere = tags();
    elsewhere[5].1 = root_pointer(0x1234, None);
    assert!(found(&elsewhere, boot_cpu()).unwrap_err().contains("ACPI list"));
    let mut many = tags();
    let start = |n: u32| 0x30_0000 + n * 0x1000;
    many.extend((0..40).map(|n| (3, module(start(n), start(n) + 1, "m"))));
    assert!(found(&many, boot_cpu()).unwrap_err().contains("too many boot modules"));
}
