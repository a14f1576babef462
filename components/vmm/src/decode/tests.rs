use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};
use ipc::state::State;

use super::{DecodeError, Gpr, Store, current, gpr, operand_address, parse_store};
use crate::boot::{entry, layout};
use crate::memory::Ram;

pub(crate) fn long_mode(ram: &Ram, code: &[u8]) -> State {
    entry::write_tables(ram).unwrap();
    let mut s = State::new();
    entry::long_mode(&mut s, 0x10_0000, layout::ZERO_PAGE);
    ram.write(s.rip, code).unwrap();
    s
}

#[test]
fn decodes_in_every_mode() {
    let ram = Ram::for_test(4 << 20);
    // mov [rax], ebx
    let mut s = long_mode(&ram, &[0x89, 0x18]);
    s.rax = 0xfee0_0080;
    let i = current(&ram, &s).unwrap().instruction;
    assert_eq!((i.mnemonic(), i.len()), (Mnemonic::Mov, 2));
    assert_eq!(operand_address(&s, &i, 0), Some(0xfee0_0080));
    // The same bytes in real mode are mov [bx+si], bx.
    let mut s = State::new();
    s.cs.base = 0x10_0000;
    s.ds.base = 0x20;
    (s.rbx, s.rsi) = (0xffff, 2);
    let i = current(&ram, &s).unwrap().instruction;
    assert_eq!(i.op1_register(), Register::BX);
    assert_eq!(operand_address(&s, &i, 0), Some(0x21));
}

#[test]
fn addresses() {
    let ram = Ram::for_test(4 << 20);
    // mov eax, [rip + 0x10]
    let s = long_mode(&ram, &[0x8b, 0x05, 0x10, 0, 0, 0]);
    let i = current(&ram, &s).unwrap().instruction;
    assert_eq!(operand_address(&s, &i, 1), Some(0x10_0016));
    // mov eax, gs:[rbx + r9 * 4 - 8]
    let mut s = long_mode(&ram, &[0x65, 0x42, 0x8b, 0x44, 0x8b, 0xf8]);
    s.gs.base = 0x1000;
    s.ds.base = 0xdead;
    (s.rbx, s.r9) = (0x200, 3);
    let i = current(&ram, &s).unwrap().instruction;
    assert_eq!(operand_address(&s, &i, 1), Some(0x1000 + 0x200 + 12 - 8));
    // mov eax, [edi] with a 32-bit address
    let mut s = long_mode(&ram, &[0x67, 0x8b, 0x07]);
    s.rdi = 0xffff_ffff_fee0_0000;
    let i = current(&ram, &s).unwrap().instruction;
    assert_eq!(operand_address(&s, &i, 1), Some(0xfee0_0000));
}

#[test]
fn instructions_across_pages() {
    let ram = Ram::for_test(4 << 20);
    let mut s = long_mode(&ram, &[]);
    s.rip = 0x10_0ffe;
    ram.write(s.rip, &[0xc7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!(current(&ram, &s).unwrap().instruction.len(), 10);
    // At the end of RAM the second page is missing: a short instruction is fine.
    s.rip = (4 << 20) - 2;
    ram.write(s.rip, &[0x89, 0x18]).unwrap();
    assert_eq!(current(&ram, &s).unwrap().instruction.len(), 2);
    ram.write(s.rip, &[0xc7, 0x05]).unwrap();
    assert!(matches!(current(&ram, &s), Err(DecodeError::Invalid(_))));
    s.rip = 4 << 20;
    assert_eq!(current(&ram, &s).err(), Some(DecodeError::NotRam(4 << 20)));
    s.rip = 8 << 30;
    assert!(matches!(current(&ram, &s), Err(DecodeError::Walk(_))));
}

#[test]
fn registers() {
    let is = |register, number, size, high| {
        assert_eq!(gpr(register), Some(Gpr { number, size, high }), "{register:?}");
    };
    is(Register::CL, 1, 1, false);
    is(Register::AH, 0, 1, true);
    is(Register::BH, 3, 1, true);
    is(Register::SPL, 4, 1, false);
    is(Register::R15L, 15, 1, false);
    is(Register::DI, 7, 2, false);
    is(Register::R15D, 15, 4, false);
    is(Register::RAX, 0, 8, false);
    is(Register::R15, 15, 8, false);
    for register in [Register::None, Register::XMM0, Register::CS, Register::RIP, Register::CR0] {
        assert_eq!(gpr(register), None);
    }
}

#[test]
fn any_bytes_give_a_result() {
    let ram = Ram::for_test(4 << 20);
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let mut bytes = [0; 15];
        for byte in &mut bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        let mut s = State::new();
        ram.write(0x1000, &bytes).unwrap();
        s.rip = 0x1000;
        s.cr0 = seed & 1;
        if let Ok(fetched) = current(&ram, &s) {
            let i = fetched.instruction;
            for n in 0..i.op_count() {
                let _ = operand_address(&s, &i, n);
            }
        }
    }
}

#[test]
fn plain_stores_are_found_without_the_decoder() {
    let cases: [(&[u8], u8, u64); 8] = [
        (&[0x89, 0x03], 0, 2),
        (&[0x89, 0x50, 0x50], 2, 3),
        (&[0x89, 0x88, 0x50, 0, 0, 0], 1, 6),
        (&[0x44, 0x89, 0x60, 0x70], 12, 4),
        (&[0x41, 0x89, 0x45, 0x44], 0, 4),
        (&[0x89, 0x44, 0x24, 0x08], 0, 4),
        (&[0x89, 0x04, 0x25, 1, 2, 3, 4], 0, 7),
        (&[0x89, 0x0d, 1, 2, 3, 4], 1, 6),
    ];
    for (code, gpr, length) in cases {
        assert_eq!(parse_store(code), Some(Store { gpr, length }), "{code:02x?}");
        // The decoder agrees.
        let mut padded = code.to_vec();
        padded.resize(15, 0x90);
        let instruction = Decoder::with_ip(64, &padded, 0, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), code.len());
        assert_eq!(super::gpr(instruction.op1_register()).unwrap().number, gpr);
        assert_eq!(parse_store(&code[..code.len() - 1]), None);
    }
    let others: [&[u8]; 6] = [
        &[0x48, 0x89, 0x03],
        &[0x66, 0x89, 0x03],
        &[0x89, 0xc3],
        &[0x8b, 0x03],
        &[0xc7, 0x03, 0, 0, 0, 0],
        &[],
    ];
    for code in others {
        assert_eq!(parse_store(code), None, "{code:02x?}");
    }
}
