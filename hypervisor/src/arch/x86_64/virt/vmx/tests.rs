use std::vec;

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::bitmaps::fill_msr;
use super::super::exit::Meaning;
use super::super::gprs::Gprs;
use super::Caps;
use super::enter::failure;
use super::exit::{NOT_BEGUN, exception, failed, io, memory, usual};
use super::vcpu::{pack, unpack};
use super::vmcs::{SLOTS, entry, field, field_of, msr_bits, processor, secondary, slot};

/// Capability registers as an emulated Skylake has them.
fn register(register: u32) -> u64 {
    match register {
        0x480 => 0x00d8_1000_0000_002b,
        0x485 => 0x7004_c1e0,
        0x486 => 0x8000_0021,
        0x488 => 0x2000,
        0x48b => 0x0013_7cff_0000_0000,
        0x48c => 0x0f01_0633_4141,
        0x48d => 0x0000_00ff_0000_0016,
        0x48e => 0xfff9_fffe_0400_6172,
        0x48f => 0x01ff_ffff_0003_6dfb,
        0x490 => 0x0003_ffff_0000_11fb,
        _ => 0,
    }
}

/// What they lead to.
pub(in super::super) fn caps() -> Caps {
    Caps::derive(register).unwrap_or_default()
}

#[test]
fn controls_follow_from_what_the_processor_allows() {
    let caps = caps();
    assert_ne!(caps, Caps::default());
    assert_eq!(caps.revision, 0x2b);
    assert_eq!(caps.pin, 0x16 | 0x29 | 0x40);
    assert_eq!(caps.processor & processor::DEBUG, processor::DEBUG);
    assert_eq!(caps.processor & (processor::INTERRUPT_WINDOW | processor::NMI_WINDOW), 0);
    // CR3 accesses and unconditional port exits are off, the bitmaps on.
    assert_eq!(caps.processor & (1 << 15 | 1 << 16 | 1 << 24), 0);
    assert_eq!(caps.secondary, secondary::NEEDED | secondary::VPID | 1 << 3 | 1 << 6 | 1 << 12);
    assert_eq!(caps.entry & entry::LONG, 0);
    assert_eq!(caps.ones, [0x20, 0x2000]);
    assert_eq!((caps.huge, caps.invept, caps.timer_shift), (true, 1, 0));
}

#[test]
fn a_processor_that_lacks_something_is_refused_with_the_reason() {
    let without =
        |which: u32, bit: u64| Caps::derive(|r| register(r) & !if r == which { bit } else { 0 });
    let with =
        |which: u32, bit: u64| Caps::derive(|r| register(r) | if r == which { bit } else { 0 });
    let lacks = |caps: Result<Caps, &str>| caps.is_err();
    assert!(lacks(without(0x480, 1 << 55)));
    for (which, bit) in [
        (0x48d, 5), // virtual NMIs
        (0x48e, 3),
        (0x48e, 21), // TPR shadow
        (0x48e, 28),
        (0x48e, 31), // secondary controls
        (0x48b, 1),  // EPT
        (0x48b, 7),  // unrestricted guest
        (0x48f, 21),
        (0x490, 15),
    ] {
        assert!(lacks(without(which, 1 << (32 + bit))), "{which:#x} {bit}");
    }
    // What cannot be switched off: CR3 exits; loading of something that is not kept.
    assert!(lacks(with(0x48e, 1 << 15)));
    assert!(lacks(with(0x490, 1 << 13)));
    for bit in [6, 14, 16, 20, 26] {
        assert!(lacks(without(0x48c, 1 << bit)));
    }
    // Optional: preemption timer, VPID, RDTSCP, INVPCID, WBINVD exits, 1 GiB pages, INVEPT for one.
    for (which, bit) in [(0x48d, 38), (0x48b, 37), (0x48b, 35), (0x48b, 44), (0x48b, 38)] {
        assert!(without(which, 1 << bit).is_ok(), "{which:#x} {bit}");
    }
    assert_eq!(without(0x48c, 1 << 17).map(|c| c.huge), Ok(false));
    assert_eq!(without(0x48c, 1 << 25).map(|c| c.invept), Ok(2));
}

#[test]
fn every_field_has_a_place_of_its_own() {
    for n in 0..SLOTS {
        assert_eq!(slot(field_of(n)), n);
    }
    for f in [field::VPID, field::TIMER, field::HOST_RIP, field::BASE + 18, 0x203e, 0x6c18] {
        assert_eq!(field_of(slot(f)), f);
    }
}

#[test]
fn msr_bits_are_where_the_manual_says() {
    assert_eq!(msr_bits(0), Some([0, 0x4000]));
    assert_eq!(msr_bits(0x174), Some([0x174, 0x4174]));
    assert_eq!(msr_bits(0xc000_0100), Some([0x2100, 0x6100]));
    assert_eq!(msr_bits(0x2000), None);
    assert_eq!(msr_bits(0xc001_0015), None);
    let mut bitmap = vec![0; 4096];
    fill_msr(&mut bitmap, msr_bits);
    let open: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
    assert_eq!(open, 17);
    // Read by the guest itself, written by way of the kernel.
    for bit in [0x81, 0x82, 0x84] {
        assert!(bitmap[0x400 + bit / 8] >> (bit % 8) & 1 == 0);
        assert!(bitmap[0xc00 + bit / 8] >> (bit % 8) & 1 == 1);
    }
    let exits = |msr| {
        msr_bits(msr)
            .is_none_or(|bits| bits.iter().all(|&bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1))
    };
    for msr in [0x174, 0xc000_0083, 0xc000_0100, 0xc000_0102] {
        assert!(!exits(msr));
    }
    for msr in [0x10, 0x1b, 0x3a, 0x277, 0x480, 0xda0, 0xc000_0080, 0xc000_0103, 0xc001_0117] {
        assert!(exits(msr));
    }
}

#[test]
fn access_rights() {
    // Present segments keep their attributes.
    for attributes in [0x9b, 0x93, 0xa09b, 0xc093, 0x8b, 0x82, 0xf3] {
        assert_eq!(pack(attributes, u32::MAX) & 0xffff, u64::from(attributes | 0x8000));
        assert_eq!(unpack(pack(attributes, 0xf_ffff)), attributes);
    }
    // The granularity is what the limit says.
    assert_eq!(pack(0xc093, 0xffff), 0xc093);
    assert_eq!(pack(0x8093, 0x67), 0x93);
    assert_eq!(pack(0x93, 0x10_0fff), 0x8093);
    // A segment that is not present is unusable, and the other way round.
    assert_eq!(pack(0x13, 0), 0x1_0013);
    assert_eq!(unpack(0x1_0093), 0x13);
    // Bits of the gap are dropped.
    assert_eq!((pack(0x0fff, 0xffff), unpack(0x0f93)), (0xff, 0x93));
}

#[test]
fn exit_reasons() {
    let exit = |reason| match usual(reason) {
        Meaning::Plain(exit, length) | Meaning::Vmm(exit, length) => Some((exit, length)),
        _ => None,
    };
    assert_eq!(exit(10), Some((Exit::Cpuid, 2)));
    assert_eq!(exit(12), Some((Exit::Hlt, 1)));
    assert_eq!(exit(31), Some((Exit::MsrRead, 2)));
    assert_eq!(exit(32), Some((Exit::MsrWrite, 2)));
    assert_eq!(exit(2), Some((Exit::Shutdown, 0)));
    assert_eq!(exit(18), Some((Exit::Hypercall, 3)));
    assert_eq!(exit(48), Some((Exit::Memory, 0)));
    assert_eq!(exit(54), Some((Exit::CacheControl, 2)));
    for reason in [11, 19, 20, 21, 22, 23, 24, 25, 26, 27, 50, 53, 59] {
        assert_eq!(exit(reason).map(|e| e.0), Some(Exit::InvalidOpcode));
    }
    for reason in [1, 3, 4, 5, 6, 52] {
        assert_eq!(usual(reason), Meaning::Host);
    }
    assert_eq!(usual(7), Meaning::Window(Exit::InterruptWindow));
    assert_eq!(usual(8), Meaning::Window(Exit::NmiWindow));
    assert_eq!(exception(0x8000_0202), Meaning::Own);
    assert_eq!(exception(0x8000_0301), Meaning::Debug);
    assert_eq!(exception(0x8000_0501), Meaning::Debug);
    assert_eq!(exception(0x8000_0b11), Meaning::Alignment);
    assert_eq!(exception(0x8000_0312), Meaning::MachineCheck);
    assert_eq!(exception(0x8000_030d), Meaning::Vmm(Exit::Unknown, 0));
    for reason in [0, 28, 29] {
        assert_eq!(usual(reason), Meaning::Own);
    }
    for reason in [14, 16, 33, 34, 37, 43, 49, 56, 63, 99, 0xffff] {
        assert_eq!(exit(reason), Some((Exit::Unknown, 0)));
    }
}

#[test]
fn failed_entries() {
    let detail = |f| if f == field::QUALIFICATION { 4 } else { 8 };
    assert_eq!(failed(0, 0x8000_0021, detail), [0x8000_0021, 4, 0]);
    assert_eq!(failed(failure::VALID, 0, detail), [NOT_BEGUN | 8, 0, 0]);
    assert_eq!(failed(failure::INVALID, 7, detail), [NOT_BEGUN, 0, 0]);
}

#[test]
fn port_accesses() {
    let never = || -> u64 { unreachable!() };
    let out = Io { port: 0x3f8, size: 1, input: false, string: false, rep: false, address_size: 0 };
    assert_eq!(io(0x3f8 << 16, never), out);
    assert_eq!(io(0x1234 << 16 | 1 << 3 | 1, never).size, 2);
    assert!(io(1 << 3, never).input);
    assert_eq!(io(3, never).size, 4);
    let insw = Io { port: 0xffff, size: 2, input: true, string: true, rep: true, address_size: 2 };
    assert_eq!(io(0xffff << 16 | 1 << 5 | 1 << 4 | 1 << 3 | 1, || 0), insw);
    assert_eq!(io(1 << 4, || 1 << 7).address_size, 4);
    assert_eq!(io(1 << 4, || 2 << 7).address_size, 8);
}

#[test]
fn memory_accesses() {
    assert_eq!(memory(1 << 7 | 1 << 8 | 1), MemoryAccess::READ);
    assert_eq!(memory(1 << 7 | 1 << 8 | 2), MemoryAccess::WRITE);
    assert_eq!(memory(1 << 7 | 1 << 8 | 3), MemoryAccess::WRITE);
    assert_eq!(memory(1 << 7 | 1 << 8 | 1 << 3 | 2), MemoryAccess::WRITE | MemoryAccess::MAPPED);
    assert_eq!(memory(1 << 7 | 1 << 8 | 1 << 3 | 4), MemoryAccess::FETCH | MemoryAccess::MAPPED);
    assert_eq!(memory(1 << 7 | 1), MemoryAccess::READ | MemoryAccess::PAGE_WALK);
    assert_eq!(memory(1), MemoryAccess::READ);
}

#[test]
fn registers_by_number() {
    let gprs = Gprs { rax: 1, rsp: 2, rdi: 3, r15: 4, ..Gprs::default() };
    let numbers = [0, 4, 7, 15, 16, 1].map(|n| gprs.by_number(n));
    assert_eq!(numbers, [1, 2, 3, 4, 1, 0]);
}
