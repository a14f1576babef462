use ipc::state::State;

use super::{Access, WalkError, translate};
use crate::cpu::{
    CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_LME, EFER_NXE,
    RFLAGS_AC,
};
use crate::memory::Ram;

const ROOT: u64 = 0x1000;

fn long_mode() -> State {
    let mut s = State::new();
    s.cr0 = CR0_PE | CR0_PG | CR0_WP;
    s.cr3 = ROOT | 0x18;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME | EFER_LMA | EFER_NXE;
    s
}

fn user(mut s: State) -> State {
    s.ss.attributes = 3 << 5;
    s
}

/// Four levels: 4 KiB page at 0x7000 for linear 0xffff_8000_0000_0000 + 0x5000, 2 MiB page at
/// 0x40_0000 behind it, 1 GiB page at 0.
fn tables(flags: u64) -> Ram {
    let ram = Ram::for_test(0x10000);
    ram.write_word(ROOT + 256 * 8, 8, 0x2000 | 7).unwrap();
    ram.write_word(0x2000, 8, 0x3000 | 7).unwrap();
    ram.write_word(0x2008, 8, 0x87).unwrap();
    ram.write_word(0x3000, 8, 0x4000 | 7).unwrap();
    ram.write_word(0x3008, 8, 0x40_0000 | 0x87).unwrap();
    ram.write_word(0x4000 + 5 * 8, 8, 0x7000 | flags).unwrap();
    ram
}

const BASE: u64 = 0xffff_8000_0000_0000;

#[test]
fn page_sizes_in_long_mode() {
    let ram = tables(7);
    let s = long_mode();
    let at = |linear| translate(&ram, &s, linear, Access::Read);
    assert_eq!(at(BASE + 0x5123), Ok(0x7123));
    assert_eq!(at(BASE + 0x21_2345), Ok(0x41_2345));
    assert_eq!(at(BASE + 0x4001_2345), Ok(0x1_2345));
    assert_eq!(at(BASE + 0x6000), Err(WalkError::PageFault(0)));
    assert_eq!(at(0x8000_0000_0000), Err(WalkError::NonCanonical));
    assert_eq!(at(0x1000), Err(WalkError::PageFault(0)));
}

#[test]
fn accessed_and_dirty_bits_are_set() {
    let ram = tables(7);
    let s = long_mode();
    translate(&ram, &s, BASE + 0x5000, Access::Read).unwrap();
    assert_eq!(ram.read_word(0x4028, 8).unwrap(), 0x7027);
    assert_eq!(ram.read_word(0x3000, 8).unwrap(), 0x4027);
    translate(&ram, &s, BASE + 0x5000, Access::Write).unwrap();
    assert_eq!(ram.read_word(0x4028, 8).unwrap(), 0x7067);
    assert_eq!(ram.read_word(0x3000, 8).unwrap(), 0x4027);
}

#[test]
fn rights() {
    let fault = |flags, s: &State, access| match translate(&tables(flags), s, BASE + 0x5000, access)
    {
        Ok(_) => None,
        Err(WalkError::PageFault(error)) => Some(error),
        Err(other) => panic!("{other}"),
    };
    let kernel = long_mode();
    assert_eq!(fault(1, &kernel, Access::Write), Some(0b11));
    assert_eq!(fault(5, &user(kernel.clone()), Access::Write), Some(0b111));
    assert_eq!(fault(3, &user(kernel.clone()), Access::Read), Some(0b101));
    let mut lax = kernel.clone();
    lax.cr0 &= !CR0_WP;
    assert_eq!(fault(1, &lax, Access::Write), None);
    assert_eq!(fault(3 | 1 << 63, &kernel, Access::Fetch), Some(0b1_0001));
    lax.efer &= !EFER_NXE;
    assert_eq!(fault(3 | 1 << 63, &lax, Access::Fetch), None);
    let mut strict = kernel;
    strict.cr4 |= CR4_SMEP | CR4_SMAP;
    assert_eq!(fault(7, &strict, Access::Fetch), Some(0b1_0001));
    assert_eq!(fault(7, &strict, Access::Read), Some(0b1));
    assert_eq!(fault(3, &strict, Access::Read), None);
    strict.rflags |= RFLAGS_AC;
    assert_eq!(fault(7, &strict, Access::Read), None);
}

#[test]
fn five_levels() {
    let ram = tables(7);
    ram.write_word(0x8000, 8, ROOT | 7).unwrap();
    let mut s = long_mode();
    s.cr3 = 0x8000;
    s.cr4 |= crate::cpu::CR4_LA57;
    assert_eq!(translate(&ram, &s, 0x0000_8000_0000_5000, Access::Read), Ok(0x7000));
}

#[test]
fn legacy_modes() {
    let ram = Ram::for_test(0x10000);
    let mut s = State::new();
    assert_eq!(translate(&ram, &s, 0x1_0000_1234, Access::Read), Ok(0x1234));
    // Two levels, 4 KiB and 4 MiB with PSE-36.
    s.cr0 = CR0_PE | CR0_PG;
    s.cr3 = 0x1000;
    ram.write_word(0x1000, 4, 0x2007).unwrap();
    ram.write_word(0x1004, 4, 0x00c0_2087).unwrap();
    ram.write_word(0x2004, 4, 0x5007).unwrap();
    assert_eq!(translate(&ram, &s, 0x1abc, Access::Write), Ok(0x5abc));
    assert_eq!(ram.read_word(0x2004, 4).unwrap(), 0x5067);
    s.cr4 = CR4_PSE;
    assert_eq!(translate(&ram, &s, 0x0040_0010, Access::Read), Ok(0x1_00c0_0010));
    // PAE: entries of the top level have no rights.
    s.cr4 = CR4_PAE;
    s.cr3 = 0x3020;
    ram.write_word(0x3028, 8, 0x4001).unwrap();
    ram.write_word(0x4000, 8, 0x20_0087).unwrap();
    assert_eq!(translate(&ram, &s, 0x4000_0123, Access::Write), Ok(0x20_0123));
    assert_eq!(ram.read_word(0x3028, 8).unwrap(), 0x4001);
    assert_eq!(translate(&ram, &s, 0x8000_0000, Access::Read), Err(WalkError::PageFault(0)));
}

#[test]
fn tables_outside_ram() {
    let ram = tables(7);
    let mut s = long_mode();
    s.cr3 = 0x10_0000;
    assert!(matches!(translate(&ram, &s, BASE, Access::Read), Err(WalkError::TableNotRam(_))));
}
