//! Layouts of the machines we know, of impossible ones, and of random ones.

use super::super::machine::Machine;
use super::{Plan, Range, Region};
use crate::arch::ioapic::Description;
use ipc::info::MemoryKind::{self, Device, Firmware, Free, Kernel, Module};
use proptest::prelude::{Just, prop, prop_oneof, proptest};
use proptest::strategy::Strategy;

/// QEMU q35, SeaBIOS, 2 GiB.
const Q35_BIOS: &[(u64, u64, u32)] = &[
    (0x0, 0x9_fc00, 1),
    (0x9_fc00, 0x400, 2),
    (0xf_0000, 0x1_0000, 2),
    (0x10_0000, 0x7fed_f000, 1),
    (0x7ffd_f000, 0x2_1000, 2),
    (0xb000_0000, 0x1000_0000, 2),
    (0xfed1_c000, 0x4000, 2),
    (0xfffc_0000, 0x4_0000, 2),
    (0xfd_0000_0000, 0x3_0000_0000, 2),
];

/// QEMU q35, OVMF, 2 GiB.
const Q35_UEFI: &[(u64, u64, u32)] = &[
    (0x0, 0xa_0000, 1),
    (0x10_0000, 0x70_6000, 1),
    (0x80_6000, 0x2000, 4),
    (0x80_8000, 0x8000, 1),
    (0x81_0000, 0xf_0000, 4),
    (0x90_0000, 0x7e18_a000, 1),
    (0x7ea8_a000, 0x10_2000, 2),
    (0x7eb8_c000, 0x96_0000, 1),
    (0x7f4e_c000, 0x10_0000, 2),
    (0x7f5e_c000, 0x10_0000, 20),
    (0x7f6e_c000, 0x8_0000, 2),
    (0x7f76_c000, 0x1_2000, 3),
    (0x7f77_e000, 0x8_0000, 4),
    (0x7f7f_e000, 0x6e_e000, 1),
    (0x7fee_c000, 0x8_4000, 2),
    (0x7ff7_0000, 0x9_0000, 4),
    (0xb000_0000, 0x1000_0000, 2),
    (0xffc0_0000, 0x40_0000, 2),
];

const IMAGE: Range = Range { start: 0x160_0000, end: 0x162_6000 };
const REGISTERS: &[u64] = &[0xfec0_0000, 0xfee0_0000];

/// What [`plan`] is told besides the map.
#[derive(Clone, Debug)]
struct Input {
    machine: Machine,
    boot_info: Range,
    tables: u64,
    pool_size: Option<u64>,
}

fn input(modules: &[Range], tables: u64) -> Input {
    let module = |&range: &Range| ipc::info::Module {
        base: range.start,
        size: range.size(),
        ..ipc::info::Module::default()
    };
    let machine = Machine {
        image: IMAGE,
        modules: modules.iter().map(module).collect(),
        ioapics: [Description { base: REGISTERS[0], gsi: 0 }].into_iter().collect(),
        lapic: REGISTERS[1],
        physical_bits: 40,
        ..Machine::default()
    };
    Input { machine, boot_info: Range::new(0x1_d000, 0x1d90), tables, pool_size: None }
}

fn plan(map: &[(u64, u64, u32)], input: &Input) -> crate::boot::Result<Plan> {
    let map = map.iter().map(|&(base, size, kind)| (Range::new(base, size), kind));
    super::plan(map, &input.machine, input.boot_info, input.tables, input.pool_size)
}

fn regions(plan: &Plan) -> Vec<(u64, u64, MemoryKind)> {
    plan.regions.iter().map(|r| (r.range.start, r.range.end, r.kind)).collect()
}

/// What holds for every layout.
fn check(map: &[(u64, u64, u32)], input: &Input, plan: &Plan) {
    let mut last = 0;
    for Region { range, .. } in &plan.regions {
        assert!(range.start >= last && range.end > range.start, "{range:?} after {last:#x}");
        assert!(range.start % 4096 == 0 && range.end % 4096 == 0);
        last = range.end;
    }
    let kinds = |range: Range| {
        let overlap = move |region: &&Region| region.range.overlaps(range);
        plan.regions.iter().filter(overlap).map(|region| region.kind)
    };
    assert!(kinds(plan.pool).all(|kind| kind == Kernel));
    assert!(plan.pool.start.is_multiple_of(2 << 20) && plan.pool.end <= 4 << 30);
    assert!(kinds(input.machine.image).all(|kind| kind == Kernel));
    assert!(!plan.pool.overlaps(input.machine.image));
    for &page in REGISTERS {
        assert_eq!(kinds(Range::new(page, 4096)).count(), 0);
    }
    for module in &input.machine.modules {
        let kind = if module == &input.machine.modules[0] { Kernel } else { Module };
        assert!(kinds(Range::new(module.base, module.size)).all(|found| found == kind));
    }
    assert!((0x1000..0xa_0000).contains(&plan.trampoline));
    assert!(kinds(Range::new(plan.trampoline, 4096)).all(|kind| kind == Kernel));
    for &(base, size, kind) in map {
        // Nobody gets as free what some entry does not call available.
        if kind != 1 && base.saturating_add(size) <= 1 << input.machine.physical_bits {
            assert!(kinds(Range::new(base, size)).all(|kind| kind != Free && kind != Module));
        }
    }
    for region in plan.regions.iter().filter(|region| matches!(region.kind, Free | Module)) {
        for page in [region.range.start, region.range.end - 4096] {
            let page = Range::new(page, 4096);
            let holds = |&(base, size, kind): &(u64, u64, u32)| {
                kind == 1 && Range::new(base, size).overlaps(page)
            };
            assert!(map.iter().any(holds), "{page:?} is not RAM");
        }
    }
}

#[test]
fn q35_with_bios() {
    let modules = [Range::new(0x10_1000, 100_001), Range::new(0x11_a000, 5000)];
    let input = Input { boot_info: Range::new(0x10_0028, 0x3a8), ..input(&modules, 0x7ffe_1f2b) };
    let plan = plan(Q35_BIOS, &input).unwrap();
    check(Q35_BIOS, &input, &plan);
    assert_eq!(
        regions(&plan),
        [
            (0x0, 0x1000, Kernel),
            (0x1000, 0x9_e000, Free),
            (0x9_e000, 0x9_f000, Kernel),
            (0x9_f000, 0x10_0000, Device),
            (0x10_0000, 0x10_1000, Firmware),
            (0x10_1000, 0x11_a000, Kernel),
            (0x11_a000, 0x11_c000, Module),
            (0x11_c000, 0x160_0000, Free),
            (0x160_0000, 0x162_6000, Kernel),
            (0x162_6000, 0x7ee0_0000, Free),
            (0x7ee0_0000, 0x7fe0_0000, Kernel),
            (0x7fe0_0000, 0x7ffd_f000, Free),
            (0x7ffd_f000, 0x8000_0000, Firmware),
            (0x8000_0000, 0xfec0_0000, Device),
            (0xfec0_1000, 0xfee0_0000, Device),
            (0xfee0_1000, 0x100_0000_0000, Device),
        ]
    );
    assert_eq!(plan.trampoline, 0x9_e000);
}

#[test]
fn q35_with_uefi() {
    let modules = [Range::new(0x2000, 100_001), Range::new(0x1_b000, 5000)];
    let input = input(&modules, 0x7f77_d000);
    let plan = plan(Q35_UEFI, &input).unwrap();
    check(Q35_UEFI, &input, &plan);
    assert!(regions(&plan).contains(&(0x1_d000, 0x1_f000, Firmware)));
    assert!(regions(&plan).contains(&(0x7f76_c000, 0x7f7f_e000, Firmware)));
    assert_eq!(plan.pool.size(), 16 << 20);
}

#[test]
fn ram_above_4_gib_is_free_and_the_pool_stays_below() {
    let mut map = Q35_BIOS.to_vec();
    map.push((4 << 30, 60 << 30, 1));
    let input = input(&[], 0);
    let plan = plan(&map, &input).unwrap();
    check(&map, &input, &plan);
    assert!(regions(&plan).contains(&(4 << 30, 64 << 30, Free)));
    assert_eq!(plan.pool.size(), 16 << 20);
}

#[test]
fn the_pool_is_as_large_as_asked_or_the_boot_fails() {
    let sized = |size| plan(Q35_BIOS, &Input { pool_size: Some(size), ..input(&[], 0) });
    assert_eq!(sized(300 << 20).unwrap().pool.size(), 300 << 20);
    assert_eq!(sized(1).unwrap().pool.size(), 4 << 20);
    assert!(sized(3 << 30).is_err() && sized(u64::MAX).is_err());
}

#[test]
fn machines_that_cannot_be_used_are_refused() {
    let refuse = |map: &[(u64, u64, u32)], why: &str| {
        let error = plan(map, &input(&[], 0)).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refuse(&[], "no available RAM");
    refuse(&[(0, 1 << 30, 2)], "no available RAM");
    refuse(&[(0, 0x9_f000, 1), (0x10_0000, 0x20_0000, 1)], "pool");
    refuse(&[(0x10_0000, 0x4000_0000, 1)], "below 1 MiB");
    // RAM that the processor cannot address does not count.
    refuse(&[(1 << 45, 1 << 30, 1)], "no available RAM");
    let pieces: Vec<_> = (0..200).map(|n| (n * 0x4000, 0x1000, 1)).collect();
    refuse(&pieces, "too many pieces");
}

#[test]
fn modules_in_the_way_are_refused() {
    let good = Range::new(0x200_0000, 0x1801);
    for bad in [
        Range::new(0x200_4001, 0x1000),
        Range::new(0x200_1000, 0x1000),
        Range::new(0x200_4000, 0),
        Range::new(IMAGE.start - 0x1000, 0x2000),
        Range::new(0, 0x1000),
        Range::new(0x7ffd_e000, 0x2000),
        Range::new(0x9000_0000, 0x1000),
    ] {
        let result = plan(Q35_BIOS, &input(&[good, bad], 0));
        assert!(result.unwrap_err().contains("boot module"), "{bad:?}");
    }
}

#[test]
fn too_many_ranges_cost_the_devices() {
    let mut map = vec![(0, 0x9_f000, 1), (0x100_0000, 0x4000_0000, 1)];
    map.extend((0..30).map(|n| (0x5000_0000 + n * 0x10_0000, 0x1000 * (n + 1), 1)));
    let input = input(&[], 0);
    let good = plan(&map, &input).unwrap();
    check(&map, &input, &good);
    assert!(!regions(&good).iter().any(|&(.., kind)| kind == Device));
    assert!(regions(&good).contains(&(0x5000_0000, 0x5000_1000, Free)));
    map.extend((0..30).map(|n| (0x7000_0000 + n * 0x10_0000, 0x1000, 1)));
    assert!(plan(&map, &input).unwrap_err().contains("too many ranges"));
}

proptest! {
    #[test]
    fn random_maps_give_sound_layouts(
        map in prop::collection::vec(
            (0u64..0x2_0000_0000, 0u64..0x8000_0000, prop_oneof![4 => Just(1u32), 1 => 0u32..8]),
            1..12,
        ),
        module in (0u64..0x10_0000, 0u64..0x10_0000).prop_map(|(p, s)| Range::new(p << 12, s)),
        with_module: bool,
    ) {
        let modules = if with_module { vec![module] } else { vec![] };
        let input = input(&modules, 0x1234_5000);
        if let Ok(plan) = plan(&map, &input) {
            // The image is where the loader put it, whatever the map says.
            let map: Vec<_> = map
                .into_iter()
                .filter(|&(base, size, kind)| kind == 1 || !Range::new(base, size).overlaps(IMAGE))
                .collect();
            check(&map, &input, &plan);
        }
    }
}
