use super::{BootError, E820, Header, Loaded, Payload, e820, load};
use crate::boot::{entry, layout};
use crate::memory::{HOLE_END, HOLE_START, Ram, Region, regions};

/// A bzImage with one setup sector and `code` bytes of code.
pub(crate) fn image(code: usize) -> Vec<u8> {
    let mut i = vec![0; 1024 + code];
    for (n, byte) in i.iter_mut().enumerate().skip(1024) {
        *byte = n as u8;
    }
    put(&mut i, 0x1f1, &[1]);
    put(&mut i, 0x1fe, &[0x55, 0xaa]);
    put(&mut i, 0x201, &[0x66]);
    put(&mut i, 0x202, b"HdrS");
    put(&mut i, 0x206, &0x020fu16.to_le_bytes());
    put(&mut i, 0x211, &[1]);
    put(&mut i, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut i, 0x230, &0x20_0000u32.to_le_bytes());
    put(&mut i, 0x234, &[1]);
    put(&mut i, 0x236, &3u16.to_le_bytes());
    put(&mut i, 0x238, &2047u32.to_le_bytes());
    put(&mut i, 0x258, &0x100_0000u64.to_le_bytes());
    put(&mut i, 0x260, &0x40_0000u32.to_le_bytes());
    i
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn payload<'a>(kernel: &'a [u8], initrd: &'a [u8], cmdline: &'a str) -> Payload<'a> {
    Payload { kernel, initrd, cmdline, rsdp: layout::ACPI }
}

#[test]
fn loads_kernel_initrd_and_command_line() {
    let ram = Ram::for_test(64 << 20);
    let kernel = image(5000);
    let initrd = vec![7; 4097];
    let loaded = load(&ram, &payload(&kernel, &initrd, "console=ttyS0")).unwrap();
    let initrd_at = (64 << 20) - 0x2000;
    assert_eq!(
        loaded,
        Loaded {
            entry: 0x100_0200,
            zero_page: layout::ZERO_PAGE,
            kernel: 0x100_0000,
            initrd: initrd_at
        }
    );
    let zp = layout::ZERO_PAGE;
    assert_eq!(ram.read_word(0x100_0000, 8).unwrap(), 0x0706_0504_0302_0100);
    assert_eq!(ram.read_word(initrd_at + 4096, 1).unwrap(), 7);
    assert_eq!(ram.read_word(zp + 0x202, 4).unwrap(), 0x5372_6448);
    assert_eq!(ram.read_word(zp + 0x210, 1).unwrap(), 0xff);
    assert_eq!(ram.read_word(zp + 0x218, 4).unwrap(), initrd_at);
    assert_eq!(ram.read_word(zp + 0x21c, 4).unwrap(), 4097);
    assert_eq!(ram.read_word(zp + 0x070, 8).unwrap(), layout::ACPI);
    assert_eq!(ram.read_word(zp + 0x1e8, 1).unwrap(), 5);
    let cmdline = ram.read_word(zp + 0x228, 4).unwrap();
    assert_eq!(&ram.read_array::<14>(cmdline).unwrap(), b"console=ttyS0\0");
}

#[test]
fn identity_map_covers_four_gib() {
    let ram = Ram::for_test(32 << 20);
    entry::write_tables(&ram).unwrap();
    let pdpt = ram.read_word(layout::PAGE_TABLES, 8).unwrap() & !0xfff;
    for gib in 0..4 {
        let pd = ram.read_word(pdpt + gib * 8, 8).unwrap() & !0xfff;
        for n in 0..512 {
            assert_eq!(ram.read_word(pd + n * 8, 8).unwrap(), gib << 30 | n << 21 | 0x83);
        }
    }
    assert_eq!(ram.read_word(pdpt + 32, 8).unwrap(), 0);
    assert_eq!(ram.read_word(layout::GDT + 0x10, 8).unwrap(), 0x00af_9b00_0000_ffff);
    assert_eq!(ram.read_word(layout::GDT + 0x18, 8).unwrap(), 0x00cf_9300_0000_ffff);
}

#[test]
fn a_jump_to_the_reset_vector_asks_for_a_restart() {
    use crate::decode::current;
    use crate::devices::pm;
    use iced_x86::Mnemonic;
    use ipc::state::State;

    let ram = Ram::for_test(1 << 20);
    entry::write_reset_vector(&ram).unwrap();
    let mut s = State::new();
    (s.cs.base, s.rip) = (0xf_0000, 0xfff0);
    let mut code = vec![];
    for _ in 0..5 {
        let i = current(&ram, &s).unwrap().instruction;
        code.push(i.mnemonic());
        s.rip += i.len() as u64;
    }
    assert_eq!(code, [Mnemonic::Mov, Mnemonic::Mov, Mnemonic::Out, Mnemonic::Cli, Mnemonic::Hlt]);
    let [value, port] = [0xf_fff1, 0xf_fff3].map(|at| ram.read_word(at, 2).unwrap());
    assert_eq!((value & 0xff, port), (pm::RESET_VALUE.into(), pm::RESET.into()));
    assert!(s.rip <= 0x1_0000);
}

#[test]
fn says_what_is_wrong_with_an_image() {
    let good = image(5000);
    let broken = |at: usize, bytes: &[u8]| {
        let mut i = good.clone();
        put(&mut i, at, bytes);
        Header::parse(&i).unwrap_err()
    };
    assert_eq!(broken(0x1fe, &[0, 0]), BootError::NotBzImage);
    assert_eq!(broken(0x202, b"ELF!"), BootError::NotBzImage);
    assert_eq!(broken(0x206, &[0x0a, 2]), BootError::OldProtocol(0x20a));
    assert_eq!(broken(0x211, &[0]), BootError::LoadsLow);
    assert_eq!(broken(0x236, &[0, 0]), BootError::Not64Bit);
    assert_eq!(broken(0x230, &[3, 0, 0, 0]), BootError::BadAlignment(3));
    assert_eq!(
        broken(0x1f1, &[200]),
        BootError::Truncated { needed: 201 * 512 + 0x201, have: 6024 }
    );
    for len in [0, 0x1f0, 0x201, 0x263] {
        assert!(matches!(Header::parse(&good[..len]), Err(BootError::Truncated { .. })));
    }
    let text = BootError::OldProtocol(0x20a).to_string();
    assert!(text.contains("2.10"), "{text}");
}

#[test]
fn moves_a_relocatable_kernel_down_when_ram_is_short() {
    let ram = Ram::for_test(17 << 20);
    let kernel = image(5000);
    let loaded = load(&ram, &payload(&kernel, &[], "")).unwrap();
    assert_eq!(loaded.kernel, 0x20_0000);
    assert_eq!(loaded.initrd, 0);
    let mut fixed = kernel;
    put(&mut fixed, 0x234, &[0]);
    assert_eq!(
        load(&ram, &payload(&fixed, &[], "")),
        Err(BootError::KernelTooBig { needed: 0x140_0000, have: 17 << 20 })
    );
}

#[test]
fn rejects_what_does_not_fit() {
    let ram = Ram::for_test(24 << 20);
    let kernel = image(5000);
    let huge = vec![0; 5 << 20];
    assert!(matches!(
        load(&ram, &payload(&kernel, &huge, "")),
        Err(BootError::InitrdTooBig { size: 0x50_0000, room: 0x40_0000 })
    ));
    let long = "x".repeat(2048);
    assert_eq!(
        load(&ram, &payload(&kernel, &[], &long)),
        Err(BootError::CommandLineTooLong { len: 2048, max: 2047 })
    );
    assert_eq!(load(&ram, &payload(&kernel, &[], "a\0b")), Err(BootError::CommandLineZero));
    let small = Ram::for_test(1 << 20);
    assert_eq!(load(&small, &payload(&kernel, &[], "")), Err(BootError::RamTooSmall(1 << 20)));
}

#[test]
fn an_image_that_lies_about_its_size_is_measured() {
    let ram = Ram::for_test(16 << 20);
    let mut kernel = image(15 << 20);
    put(&mut kernel, 0x260, &0u32.to_le_bytes());
    assert!(matches!(load(&ram, &payload(&kernel, &[], "")), Err(BootError::KernelTooBig { .. })));
    put(&mut kernel, 0x258, &u64::MAX.to_le_bytes());
    assert!(load(&ram, &payload(&kernel, &[], "")).is_err());
}

#[test]
fn memory_map_leaves_out_the_device_hole() {
    let ram = Ram::for_test(64 << 20);
    let map: Vec<E820> = e820(&ram).collect();
    assert_eq!(map[4], E820 { base: 0x10_0000, size: 63 << 20, kind: 1 });
    assert_eq!(map.len(), 5);
    for pair in map.windows(2) {
        assert_eq!(pair[0].base + pair[0].size, pair[1].base);
    }
    let high: Vec<Region> = regions(HOLE_START + 0x1000).skip(1).collect();
    assert_eq!(high, [Region { gpa: HOLE_END, size: 0x1000, offset: HOLE_START }]);
}
