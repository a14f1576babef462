use std::vec;

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::bitmaps::fill_msr;
use super::super::exit::Meaning;
use super::super::state::Gprs;
use super::exit::{length, meaning, qualification, refused};
use super::vmcb::{Vmcb, msr_bits, pack, unpack};

fn vmcb() -> Vmcb {
    // SAFETY: all fields are integers.
    unsafe { core::mem::zeroed() }
}

#[test]
fn segment_attributes_lose_their_gap_and_get_it_back() {
    for attributes in (0..=u16::MAX).filter(|a| a & 0xf00 == 0) {
        assert_eq!(unpack(pack(attributes)), attributes);
        assert_eq!(pack(attributes) & 0xf000, 0);
    }
    assert_eq!(pack(0xa09b), 0xa9b);
    // Bits of the gap are dropped.
    assert_eq!(pack(0xffff), 0xfff);
}

#[test]
fn msr_bits_are_where_the_manual_says() {
    let position = |byte: usize, bit| Some([byte * 8 + bit, byte * 8 + bit + 1]);
    assert_eq!(msr_bits(0), position(0, 0));
    assert_eq!(msr_bits(0x277), position(0x9d, 6));
    assert_eq!(msr_bits(0x1fff), position(0x7ff, 6));
    assert_eq!(msr_bits(0x2000), None);
    assert_eq!(msr_bits(0xc000_0000), position(0x800, 0));
    assert_eq!(msr_bits(0xc000_0080), position(0x820, 0));
    assert_eq!(msr_bits(0xc001_0117), position(0x1045, 6));
    assert_eq!(msr_bits(0xc001_1fff), position(0x17ff, 6));
    assert_eq!(msr_bits(0xc001_2000), None);
    assert_eq!(msr_bits(u32::MAX), None);
}

#[test]
fn guests_reach_only_msrs_that_are_switched() {
    let mut bitmap = vec![0; 8192];
    fill_msr(&mut bitmap, msr_bits);
    let open: u32 = bitmap.iter().map(|byte| byte.count_zeros()).sum();
    assert_eq!(open, 20);
    let exits = |msr| {
        msr_bits(msr)
            .is_none_or(|bits| bits.iter().all(|&bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1))
    };
    for msr in [0x174, 0xc000_0082, 0xc000_0100, 0xc000_0102] {
        assert!(!exits(msr));
    }
    // TSC, APIC_BASE, PAT, XSS, EFER, TSC_AUX, VM_CR, VM_HSAVE_PA.
    for msr in [0x10, 0x1b, 0x277, 0xda0, 0xc000_0080, 0xc000_0103, 0xc001_0114, 0xc001_0117] {
        assert!(exits(msr));
    }
}

#[test]
fn exit_codes() {
    let exit = |code| match meaning(code, 0) {
        Meaning::Vmm(exit, length) => (exit, length),
        other => panic_free(other),
    };
    assert_eq!(exit(0x72), (Exit::Cpuid, 2));
    assert_eq!(exit(0x78), (Exit::Hlt, 1));
    assert_eq!(exit(0x7c), (Exit::MsrRead, 2));
    assert_eq!(meaning(0x7c, 1), Meaning::Vmm(Exit::MsrWrite, 2));
    assert_eq!(exit(0x400), (Exit::Memory, 0));
    assert_eq!(exit(0x7f), (Exit::Shutdown, 0));
    assert_eq!(exit(0x81), (Exit::Hypercall, 3));
    for code in [0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x8e, 0xa0, 0xa3] {
        assert_eq!(exit(code).0, Exit::InvalidOpcode);
    }
    for code in 0x60..=0x63 {
        assert_eq!(meaning(code, 0), Meaning::Host);
    }
    assert_eq!(meaning(0x64, 0), Meaning::Window(Exit::InterruptWindow));
    assert!(refused(u64::MAX) && refused(u64::MAX - 1) && !refused(0x7f));
    assert_eq!(meaning(0x52, 0), Meaning::MachineCheck);
    for code in [0x00, 0x10, 0x4e, 0x65, 0x87, 0x401, 0x1234_5678] {
        assert_eq!(exit(code), (Exit::Unknown, 0));
    }
}

/// A value that no assertion expects.
fn panic_free(meaning: Meaning) -> (Exit, u64) {
    assert_eq!(meaning, Meaning::Vmm(Exit::Unknown, 99));
    (Exit::Unknown, 99)
}

fn decoded_io(info1: u64, vmcb: &mut Vmcb) -> Io {
    vmcb.exit_info1 = info1;
    let [word, one, two] = qualification(Exit::Io, vmcb, &Gprs::default());
    assert_eq!((one, two), (0, 0));
    Io::from_word(word)
}

#[test]
fn port_accesses() {
    let mut v = vmcb();
    let out = decoded_io(0x3f8 << 16 | 1 << 4 | 4 << 7, &mut v);
    // Only string forms have an address.
    let expected =
        Io { port: 0x3f8, size: 1, input: false, string: false, rep: false, address_size: 0 };
    assert_eq!(out, expected);
    let insw = decoded_io(0xffff << 16 | 2 << 4 | 1 << 7 | 1 << 3 | 1 << 2 | 1, &mut v);
    let expected =
        Io { port: 0xffff, size: 2, input: true, string: true, rep: true, address_size: 2 };
    assert_eq!(insw, expected);
    assert_eq!(decoded_io(4 << 4 | 2 << 7, &mut v).size, 4);
    assert_eq!(decoded_io(4 << 4 | 4 | 2 << 7, &mut v).address_size, 4);
    // Not reported: it follows from the code segment.
    assert_eq!(decoded_io(1 << 4 | 4, &mut v).address_size, 2);
    v.cs.attributes = pack(0xc09b);
    assert_eq!(decoded_io(1 << 4 | 4, &mut v).address_size, 4);
    v.cs.attributes = pack(0xa09b);
    assert_eq!(decoded_io(1 << 4 | 4, &mut v).address_size, 2);
    v.efer = 0x1500;
    assert_eq!(decoded_io(1 << 4 | 4, &mut v).address_size, 8);
}

#[test]
fn nested_page_faults() {
    let mut v = vmcb();
    v.exit_info2 = 0xfee0_0300;
    let mut access = |info1| {
        v.exit_info1 = info1;
        let [flags, address, rest] = qualification(Exit::Memory, &v, &Gprs::default());
        assert_eq!((address, rest), (0xfee0_0300, 0));
        MemoryAccess::from_bits_retain(flags)
    };
    assert_eq!(access(1 << 32 | 4), MemoryAccess::READ);
    assert_eq!(access(1 << 32 | 6), MemoryAccess::WRITE);
    assert_eq!(access(1 << 32 | 7), MemoryAccess::WRITE | MemoryAccess::MAPPED);
    assert_eq!(access(1 << 32 | 0x15), MemoryAccess::FETCH | MemoryAccess::MAPPED);
    assert_eq!(access(1 << 33 | 6), MemoryAccess::WRITE | MemoryAccess::PAGE_WALK);
}

#[test]
fn other_qualifications() {
    let mut v = vmcb();
    (v.exit_code, v.exit_info1, v.exit_info2) = (0x65, 2, 3);
    let gprs = Gprs { rcx: 0xdead_beef_c000_0080, ..Gprs::default() };
    assert_eq!(qualification(Exit::MsrWrite, &v, &gprs), [0xc000_0080, 0, 0]);
    assert_eq!(qualification(Exit::Unknown, &v, &gprs), [0x65, 2, 3]);
    assert_eq!(qualification(Exit::Cpuid, &v, &gprs), [0; 3]);
}

#[test]
fn instruction_lengths() {
    assert_eq!(length(0x1000, 0x1003, 2), 3);
    assert_eq!(length(0x1000, 0x1000, 2), 2);
    assert_eq!(length(0x1000, 0, 2), 2);
    assert_eq!(length(u64::MAX, 1, 0), 2);
    assert_eq!(length(0x1000, 0x1010, 1), 1);
}
