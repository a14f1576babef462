use std::vec;

use ipc::event::Exit;
use ipc::exit::{Io, MemoryAccess};

use super::super::bitmaps::fill_msr;
use super::super::exit::Meaning;
use super::exit::{io, length, meaning, memory, refused};
use super::vmcb::{clean, field, msr_bits, pack, unpack};

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
        Meaning::Plain(exit, length) | Meaning::Vmm(exit, length) => (exit, length),
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
    assert!(refused(0xffff_ffff) && refused(u64::MAX) && refused(u64::MAX - 1) && !refused(0x7f));
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

#[test]
fn port_accesses() {
    // Only string forms have an address.
    let out = Io { port: 0x3f8, size: 1, input: false, string: false, rep: false, address_size: 0 };
    assert_eq!(io(0x3f8 << 16 | 1 << 4 | 4 << 7), out);
    let insw = Io { port: 0xffff, size: 2, input: true, string: true, rep: true, address_size: 2 };
    assert_eq!(io(0xffff << 16 | 2 << 4 | 1 << 7 | 1 << 3 | 1 << 2 | 1), insw);
    assert_eq!(io(4 << 4 | 2 << 7).size, 4);
    assert_eq!(io(4 << 4 | 4 | 2 << 7).address_size, 4);
    assert_eq!(io(4 << 4 | 4 | 4 << 7).address_size, 8);
    // Not reported.
    assert_eq!(io(1 << 4 | 4).address_size, 0);
}

#[test]
fn nested_page_faults() {
    assert_eq!(memory(1 << 32 | 4), MemoryAccess::READ);
    assert_eq!(memory(1 << 32 | 6), MemoryAccess::WRITE);
    assert_eq!(memory(1 << 32 | 7), MemoryAccess::WRITE | MemoryAccess::MAPPED);
    assert_eq!(memory(1 << 32 | 0x15), MemoryAccess::FETCH | MemoryAccess::MAPPED);
    assert_eq!(memory(1 << 33 | 6), MemoryAccess::WRITE | MemoryAccess::PAGE_WALK);
}

#[test]
fn what_the_processor_caches() {
    for (fields, bit) in [
        (&[field::REGISTERS, field::INTERCEPTS, field::MORE_INTERCEPTS, field::TSC_OFFSET][..], 0),
        (&[field::TAG], 2),
        (&[field::VIRTUAL_INTERRUPT], 3),
        (&[field::NESTED_ROOT, field::PAT], 4),
        // EFER, CR4, CR3, CR0.
        (&[0x4d0, 0x548, 0x550, 0x558], 5),
        (&[field::DR7, field::DR6], 6),
        (&[0x460, 0x468, 0x480, 0x488], 7),
        (&[0x400, 0x418, 0x420, 0x438, field::CPL], 8),
        (&[field::CR2], 9),
        // FS, GS, LDTR, TR; RFLAGS, RIP; STAR.
        (&[0x440, 0x458, 0x470, 0x498, 0x570, 0x578, 0x600], 63),
    ] {
        for &field in fields {
            assert_eq!(clean(field), 1 << bit, "{field:#x}");
        }
    }
}

#[test]
fn instruction_lengths() {
    assert_eq!(length(0x1000, 0x1003, 2), 3);
    assert_eq!(length(0x1000, 0x1000, 2), 2);
    assert_eq!(length(0x1000, 0, 2), 2);
    assert_eq!(length(u64::MAX, 1, 0), 2);
    assert_eq!(length(0x1000, 0x1010, 1), 1);
}
