use ipc::state::State;

use super::alu::{Op, compute};
use super::{Bus, Done, EmulateError, execute};
use crate::decode::DecodeError;
use crate::decode::tests::long_mode;
use crate::memory::Ram;

const DEVICE: u64 = 0xfec0_0000;

/// A device whose every word reads as the same value, and that notes what happens to it.
#[derive(Default)]
struct Device {
    value: u64,
    log: Vec<(char, u64, u64, u64)>,
}

impl Bus for Device {
    fn read(&mut self, gpa: u64, size: u64) -> u64 {
        self.log.push(('r', gpa, size, 0));
        self.value
    }

    fn write(&mut self, gpa: u64, size: u64, value: u64) {
        self.log.push(('w', gpa, size, value));
    }

    fn port_read(&mut self, port: u16, size: u64) -> u64 {
        self.log.push(('i', u64::from(port), size, 0));
        self.value
    }

    fn port_write(&mut self, port: u16, size: u64, value: u64) {
        self.log.push(('o', u64::from(port), size, value));
    }
}

fn run(code: &[u8], value: u64, set: impl FnOnce(&mut State, &Ram)) -> (Done, State, Device, Ram) {
    let ram = Ram::for_test(4 << 20);
    let mut s = long_mode(&ram, code);
    s.rbx = DEVICE;
    set(&mut s, &ram);
    let mut device = Device { value, ..Device::default() };
    let done = execute(&ram, &mut s, &mut device).unwrap();
    (done, s, device, ram)
}

#[test]
fn moves() {
    // mov [rbx + 0x10], eax
    let (done, s, d, _) = run(&[0x89, 0x43, 0x10], 0, |s, _| s.rax = 0x1_2345_6789);
    assert_eq!(done, Done::Complete);
    assert_eq!(s.rip, 0x10_0003);
    assert_eq!(d.log, [('w', DEVICE + 0x10, 4, 0x2345_6789)]);
    // mov eax, [rbx] clears the upper half.
    let (_, s, d, _) = run(&[0x8b, 0x03], 0xffff_ffff_8765_4321, |s, _| s.rax = u64::MAX);
    assert_eq!((s.rax, d.log), (0x8765_4321, vec![('r', DEVICE, 4, 0)]));
    // mov ah, [rbx]; mov ax, [rbx]
    let (_, s, ..) = run(&[0x8a, 0x23], 0x55, |s, _| s.rax = 0x1111_1111);
    assert_eq!(s.rax, 0x1111_5511);
    let (_, s, ..) = run(&[0x66, 0x8b, 0x03], 0x5566, |s, _| s.rax = u64::MAX);
    assert_eq!(s.rax, 0xffff_ffff_ffff_5566);
    // mov rax, [rbx]; mov [rbx], r9b; mov [rbx], sil
    let (_, s, ..) = run(&[0x48, 0x8b, 0x03], 0x0123_4567_89ab_cdef, |_, _| {});
    assert_eq!(s.rax, 0x0123_4567_89ab_cdef);
    let (_, _, d, _) = run(&[0x44, 0x88, 0x0b], 0, |s, _| s.r9 = 0x1ff);
    assert_eq!(d.log, [('w', DEVICE, 1, 0xff)]);
    // mov dword [rbx], imm32 and the sign-extended qword form
    let (_, _, d, _) = run(&[0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], 0, |_, _| {});
    assert_eq!(d.log, [('w', DEVICE, 4, 0xffff_fffe)]);
    let (_, _, d, _) = run(&[0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], 0, |_, _| {});
    assert_eq!(d.log, [('w', DEVICE, 8, 0xffff_ffff_ffff_fffe)]);
    // mov eax, moffs
    let (_, s, d, _) = run(&[0xa1, 0x10, 0, 0xc0, 0xfe, 0, 0, 0, 0], 7, |_, _| {});
    assert_eq!((s.rax, d.log), (7, vec![('r', DEVICE + 0x10, 4, 0)]));
}

#[test]
fn extending_moves() {
    // movzx ecx, byte [rbx]; movsx rcx, byte [rbx]; movsxd rcx, dword [rbx]; movsx ecx, word [rbx]
    for (code, value, result) in [
        (&[0x0f, 0xb6, 0x0b][..], 0x1fe, 0xfe),
        (&[0x48, 0x0f, 0xbe, 0x0b], 0xfe, 0xffff_ffff_ffff_fffe),
        (&[0x48, 0x63, 0x0b], 0x8000_0000, 0xffff_ffff_8000_0000),
        (&[0x0f, 0xbf, 0x0b], 0x8001, 0xffff_8001),
    ] {
        let (_, s, ..) = run(code, value, |s, _| s.rcx = u64::MAX);
        assert_eq!(s.rcx, result, "{code:02x?}");
    }
}

#[test]
fn integer_operations_on_a_device() {
    // or dword [rbx], 1
    let (_, s, d, _) = run(&[0x83, 0x0b, 0x01], 0x10, |_, _| {});
    assert_eq!(d.log, [('r', DEVICE, 4, 0), ('w', DEVICE, 4, 0x11)]);
    assert_eq!(s.rflags & 0x8d5, 1 << 2);
    // test dword [rbx], 1 and cmp [rbx], eax write nothing.
    let (_, s, d, _) = run(&[0xf7, 0x03, 1, 0, 0, 0], 2, |_, _| {});
    assert_eq!((s.rflags & 1 << 6, d.log.len()), (1 << 6, 1));
    let (_, s, d, _) = run(&[0x39, 0x03], 1, |s, _| s.rax = 2);
    assert_eq!((s.rflags & 0x81, d.log.len()), (0x81, 1));
    // add eax, [rbx]
    let (_, s, ..) = run(&[0x03, 0x03], 0xffff_ffff, |s, _| s.rax = 1);
    assert_eq!((s.rax, s.rflags & 0x41), (0, 0x41));
    // xchg [rbx], ecx
    let (_, s, d, _) = run(&[0x87, 0x0b], 9, |s, _| s.rcx = 4);
    assert_eq!((s.rcx, d.log), (9, vec![('r', DEVICE, 4, 0), ('w', DEVICE, 4, 4)]));
    // lock bts dword [rbx], 5; not dword [rbx]; inc dword [rbx]
    let (_, s, d, _) = run(&[0xf0, 0x0f, 0xba, 0x2b, 0x05], 0x20, |_, _| {});
    assert_eq!((s.rflags & 1, d.log[1]), (1, ('w', DEVICE, 4, 0x20)));
    let (_, _, d, _) = run(&[0xf7, 0x13], 0xff, |_, _| {});
    assert_eq!(d.log[1], ('w', DEVICE, 4, 0xffff_ff00));
    let (_, _, d, _) = run(&[0xff, 0x03], 7, |_, _| {});
    assert_eq!(d.log[1], ('w', DEVICE, 4, 8));
}

#[test]
fn strings() {
    // rep stosd
    let (done, s, d, _) = run(&[0xf3, 0xab], 0, |s, _| {
        (s.rdi, s.rcx, s.rax) = (DEVICE, 3, 0x1_0000_0001);
    });
    assert_eq!(done, Done::Complete);
    assert_eq!((s.rcx, s.rdi, d.log.len()), (0, DEVICE + 12, 3));
    assert_eq!(d.log[2], ('w', DEVICE + 8, 4, 1));
    // rep movsb from the device, backwards
    let (_, s, _, ram) = run(&[0xf3, 0xa4], 0x5a, |s, _| {
        (s.rsi, s.rdi, s.rcx) = (DEVICE + 1, 0x20_0001, 2);
        s.rflags |= 1 << 10;
    });
    assert_eq!(ram.read_word(0x20_0000, 2).unwrap(), 0x5a5a);
    assert_eq!((s.rsi, s.rdi), (DEVICE - 1, 0x1f_ffff));
    // A count of zero touches nothing; lodsw
    let (done, s, d, _) = run(&[0xf3, 0xa4], 0, |s, _| s.rcx = 0);
    assert_eq!((done, s.rip, d.log.len()), (Done::Complete, 0x10_0002, 0));
    let (_, s, ..) = run(&[0x66, 0xad], 0x1_2345, |s, _| (s.rsi, s.rax) = (DEVICE, 0));
    assert_eq!((s.rax, s.rsi), (0x2345, DEVICE + 2));
}

#[test]
fn long_strings_are_interruptible() {
    let (done, s, d, _) = run(&[0xf3, 0xaa], 0, |s, _| (s.rdi, s.rcx) = (DEVICE, 3000));
    assert_eq!(done, Done::Again);
    assert_eq!((s.rip, s.rcx, s.rdi), (0x10_0000, 3000 - 1024, DEVICE + 1024));
    assert_eq!(d.log.len(), 1024);
}

#[test]
fn port_strings() {
    // rep outsb
    let (_, s, d, _) = run(&[0xf3, 0x6e], 0, |s, ram| {
        ram.write(0x20_0000, b"ok").unwrap();
        (s.rsi, s.rcx, s.rdx) = (0x20_0000, 2, 0x3f8);
    });
    assert_eq!(d.log, [('o', 0x3f8, 1, u64::from(b'o')), ('o', 0x3f8, 1, u64::from(b'k'))]);
    assert_eq!(s.rsi, 0x20_0002);
    // insd
    let (_, s, d, ram) = run(&[0x6d], 0xdead_beef, |s, _| {
        (s.rdi, s.rdx) = (0x20_0000, 0x1f0);
    });
    assert_eq!(ram.read_word(0x20_0000, 4).unwrap(), 0xdead_beef);
    assert_eq!((s.rdi, d.log.len()), (0x20_0004, 1));
    // A destination that is not mapped faults before the port is read.
    let (done, _, d, _) = run(&[0x6d], 0, |s, _| s.rdi = 1 << 40);
    assert_eq!((done, d.log.len()), (Done::PageFault(2, 1 << 40), 0));
}

#[test]
fn accesses_across_pages_and_faults() {
    // mov [rbx], rax across the end of the first page of the device
    let (_, _, d, _) = run(&[0x48, 0x89, 0x03], 0, |s, _| {
        (s.rbx, s.rax) = (DEVICE + 0xffd, 0x8877_6655_4433_2211);
    });
    assert_eq!(
        d.log,
        [('w', DEVICE + 0xffd, 3, 0x33_2211), ('w', DEVICE + 0x1000, 5, 0x88_7766_5544)]
    );
    let (done, s, ..) = run(&[0x8b, 0x03], 0, |s, _| s.rbx = 5 << 30);
    assert_eq!((done, s.rip), (Done::PageFault(0, 5 << 30), 0x10_0000));
    let (done, ..) = run(&[0x8b, 0x03], 0, |s, _| s.rbx = 1 << 63);
    assert_eq!(done, Done::Protection);
}

#[test]
fn refuses_the_rest() {
    let ram = Ram::for_test(4 << 20);
    // movups [rbx], xmm0; push [rbx]; movsd xmm0, [rbx]; mov [rbx], ds; bts [rbx], eax; xsave [rbx]
    for code in [
        &[0x0f, 0x11, 0x03][..],
        &[0xff, 0x33],
        &[0xf2, 0x0f, 0x10, 0x03],
        &[0x8c, 0x1b],
        &[0x0f, 0xab, 0x03],
        &[0x0f, 0xae, 0x23],
    ] {
        let mut s = long_mode(&ram, code);
        s.rbx = DEVICE;
        let result = execute(&ram, &mut s, &mut Device::default());
        assert!(matches!(result, Err(EmulateError::Unsupported(_))), "{code:02x?} {result:?}");
        assert_eq!(s.rip, 0x10_0000);
    }
    let mut s = long_mode(&ram, &[]);
    s.rip = DEVICE;
    assert_eq!(
        execute(&ram, &mut s, &mut Device::default()),
        Err(EmulateError::Decode(DecodeError::NotRam(DEVICE)))
    );
}

#[test]
fn flags() {
    for (op, a, b, size, result, flags) in [
        (Op::Add, 0x7f, 1, 1, 0x80, 0x890),
        (Op::Add, 0xff, 1, 1, 0, 0x55),
        (Op::Sub, 0, 1, 4, 0xffff_ffff, 0x95),
        (Op::Sub, 0x8000, 1, 2, 0x7fff, 0x814),
        (Op::And, 0xf0, 0x0f, 8, 0, 0x44),
        (Op::Xor, 1 << 63, 0, 8, 1 << 63, 0x84),
        (Op::Inc, u64::MAX, 0, 8, 0, 0x54),
        (Op::Dec, 0, 0, 1, 0xff, 0x94),
    ] {
        assert_eq!(compute(op, a, b, size, 0), (result, flags), "{op:?} {a:#x} {b:#x}");
    }
    assert_eq!(compute(Op::Inc, 1, 0, 1, 1).1 & 1, 1);
}

/// Whatever a guest runs ends in one of the defined results.
#[test]
fn any_bytes_give_a_result() {
    let ram = Ram::for_test(4 << 20);
    let start = long_mode(&ram, &[]);
    let mut seed = 7u64;
    for n in 0..30_000 {
        let mut bytes = [0; 15];
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        ram.write(start.rip, &bytes).unwrap();
        let mut s = start.clone();
        (s.rax, s.rbx, s.rcx, s.rsi, s.rdi) = (seed, DEVICE, 5, seed >> 3, 0x20_0000);
        if n % 3 == 0 {
            s.cs.attributes = 0xc09b;
        }
        let _ = execute(&ram, &mut s, &mut Device::default());
    }
}
