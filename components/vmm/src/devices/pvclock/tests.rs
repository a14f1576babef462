use super::{Clock, PvCpu, Scale};
use crate::memory::Ram;

fn ns(ticks: u64, scale: Scale) -> u64 {
    let shifted = if scale.shift < 0 { ticks >> -scale.shift } else { ticks << scale.shift };
    ((u128::from(shifted) * u128::from(scale.multiplier)) >> 32) as u64
}

#[test]
fn scale_is_exact_to_parts_per_billion() {
    for khz in [1, 1000, 999_999, 1_000_000, 1_000_001, 2_100_000, 2_499_998, 5_000_000_000] {
        let scale = Scale::new(khz);
        let second = ns(khz * 1000, scale);
        let error = second.abs_diff(1_000_000_000);
        assert!(error <= 2, "{khz} kHz: {second} ({scale:?})");
    }
}

#[test]
fn publishes_time_with_an_even_version() {
    let ram = Ram::for_test(0x2000);
    let clock = Clock::new(2_000_000, 5000, 0);
    let mut cpu = PvCpu::default();
    ram.write_word(0x1000, 4, 7).unwrap();
    cpu.set_system_time(0x1001, &clock, &ram, 100).unwrap();
    assert_eq!(cpu.system_time(), 0x1001);
    assert_eq!(ram.read_word(0x1000, 4).unwrap(), 8);
    assert_eq!(ram.read_word(0x1008, 8).unwrap(), 5100);
    assert_eq!(ram.read_word(0x1010, 8).unwrap(), 0);
    assert_eq!(ram.read_word(0x101d, 1).unwrap(), 1);
    cpu.refresh(&clock, &ram, 0u64.wrapping_sub(5000));
    assert_eq!(ram.read_word(0x1000, 4).unwrap(), 10);
    assert_eq!(ram.read_word(0x1008, 8).unwrap(), 0);
    // Disabled: nothing is written any more.
    cpu.set_system_time(0, &clock, &ram, 0).unwrap();
    cpu.refresh(&clock, &ram, 1);
    assert_eq!(ram.read_word(0x1008, 8).unwrap(), 0);
    assert!(cpu.set_system_time(0x1ff1, &clock, &ram, 0).is_err());
    assert!(cpu.set_system_time(u64::MAX, &clock, &ram, 0).is_err());
}

#[test]
fn wall_clock() {
    let ram = Ram::for_test(0x1000);
    let clock = Clock::new(1_000_000, 0, 1_700_000_000_000_000_005);
    clock.write_wall(&ram, 0x10).unwrap();
    assert_eq!(ram.read_word(0x10, 4).unwrap(), 2);
    assert_eq!(ram.read_word(0x14, 4).unwrap(), 1_700_000_000);
    assert_eq!(ram.read_word(0x18, 4).unwrap(), 5);
    assert!(clock.write_wall(&ram, 0xff8).is_err());
}

#[test]
fn silent_eoi() {
    let ram = Ram::for_test(0x1000);
    let mut cpu = PvCpu::default();
    cpu.offer_eoi(&ram);
    assert!(!cpu.collect_eoi(&ram));
    assert!(cpu.set_eoi(0x103, &ram).is_err());
    assert!(cpu.set_eoi(0x1001, &ram).is_err());
    cpu.set_eoi(0x101, &ram).unwrap();
    cpu.offer_eoi(&ram);
    assert_eq!(ram.read_word(0x100, 4).unwrap(), 1);
    // Not taken: withdrawn.
    assert!(!cpu.collect_eoi(&ram));
    assert_eq!(ram.read_word(0x100, 4).unwrap(), 0);
    cpu.offer_eoi(&ram);
    // The guest tests and clears the bit instead of writing its EOI.
    ram.write_word(0x100, 4, 0).unwrap();
    // Taken, but not collected yet: not offered again.
    cpu.offer_eoi(&ram);
    assert_eq!(ram.read_word(0x100, 4).unwrap(), 0);
    assert!(cpu.collect_eoi(&ram));
    assert!(!cpu.collect_eoi(&ram));
}
