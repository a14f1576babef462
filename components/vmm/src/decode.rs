//! Fetching and decoding the instruction that a vCPU is at.

use core::fmt;

use iced_x86::{Decoder, DecoderOptions, Instruction, Register};
use ipc::state::State;

use crate::cpu;
use crate::memory::Ram;
use crate::num::{byte_mask, u64_of, usize_of};
use crate::walk::{Access, WalkError, translate};

/// Longest instruction.
pub const MAX_LENGTH: usize = 15;

/// Why there is no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The address does not translate.
    Walk(WalkError),
    /// It is not in RAM.
    NotRam(u64),
    /// The bytes are no instruction that the decoder knows.
    Invalid([u8; MAX_LENGTH]),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walk(e) => write!(f, "instruction fetch: {e}"),
            Self::NotRam(gpa) => write!(f, "instruction fetch from {gpa:#x}, which is not RAM"),
            Self::Invalid(bytes) => write!(f, "unknown instruction {bytes:02x?}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// An instruction and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// Decoded.
    pub instruction: Instruction,
    /// As in memory; what follows the instruction may be anything.
    pub bytes: [u8; MAX_LENGTH],
}

/// Fetches and decodes the instruction at `rip`.
///
/// # Errors
/// See [`DecodeError`].
pub fn current(ram: &Ram, state: &State) -> Result<Fetched, DecodeError> {
    let (bytes, len) = code(ram, state)?;
    let code = bytes.get(..len).unwrap_or(&[]);
    let bits = cpu::code_bits(state);
    let mut decoder = Decoder::with_ip(bits, code, state.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        Err(DecodeError::Invalid(bytes))
    } else {
        Ok(Fetched { instruction, bytes })
    }
}

/// A store of four bytes from a register: what drivers do to registers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// Number of the register.
    pub gpr: u8,
    /// Length of the instruction.
    pub length: u64,
}

/// The instruction at `rip`, where it is such a store in 64-bit code: without a decoder, as this is
/// on the way of every doorbell. Where it is not, or cannot be had, the long way finds out why.
#[must_use]
pub fn store(ram: &Ram, state: &State) -> Option<Store> {
    if !cpu::is_64bit(state) {
        return None;
    }
    let (bytes, len) = code(ram, state).ok()?;
    parse_store(bytes.get(..len)?)
}

/// `MOV r/m32, r32` with nothing before it but REX (AMD APM vol. 3, 1.2 and 1.4).
fn parse_store(code: &[u8]) -> Option<Store> {
    let (rex, rest) = match code {
        // With W it is of eight bytes.
        [rex @ (0x40..=0x47), rest @ ..] => (Some(*rex), rest),
        rest => (None, rest),
    };
    let [0x89, modrm, rest @ ..] = rest else { return None };
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let sib = rm == 4;
    let base = if sib { rest.first()? & 7 } else { rm };
    let displacement = match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    let length = usize::from(rex.is_some()) + 2 + usize::from(sib) + displacement;
    let gpr = modrm >> 3 & 7 | (rex.unwrap_or(0) & 4) << 1;
    (length <= code.len()).then_some(Store { gpr, length: u64_of(length) })
}

/// The bytes at `rip`, and how many of them there are.
fn code(ram: &Ram, state: &State) -> Result<([u8; MAX_LENGTH], usize), DecodeError> {
    let base = if cpu::is_64bit(state) { 0 } else { state.cs.base };
    let mut bytes = [0; MAX_LENGTH];
    let mut len = 0;
    while len < MAX_LENGTH {
        let linear = base.wrapping_add(state.rip).wrapping_add(u64_of(len));
        let part = match fetch(ram, state, linear, bytes.get_mut(len..).unwrap_or(&mut [])) {
            Ok(part) => part,
            // What came before may be a whole instruction.
            Err(_) if len > 0 => break,
            Err(e) => return Err(e),
        };
        len += part;
    }
    Ok((bytes, len))
}

/// Fetches up to the end of the page.
fn fetch(ram: &Ram, state: &State, linear: u64, to: &mut [u8]) -> Result<usize, DecodeError> {
    let gpa = translate(ram, state, linear, Access::Fetch).map_err(DecodeError::Walk)?;
    let len = to.len().min(4096 - usize_of(gpa & 0xfff));
    let part = to.get_mut(..len).unwrap_or(&mut []);
    ram.read(gpa, part).map_err(|_| DecodeError::NotRam(gpa))?;
    Ok(len)
}

/// A general-purpose register as an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpr {
    /// Encoding number: rax 0, rcx 1, ... r15 15.
    pub number: u8,
    /// Size in bytes.
    pub size: u64,
    /// AH, CH, DH or BH: the second byte.
    pub high: bool,
}

/// The general-purpose register that the decoder names; `None` for any other kind.
#[must_use]
pub fn gpr(register: Register) -> Option<Gpr> {
    /// The decoder lists the registers of a size in the order of their numbers.
    const GROUPS: [(Register, Register, u8, u64, bool); 6] = [
        (Register::AL, Register::BL, 0, 1, false),
        (Register::AH, Register::BH, 0, 1, true),
        (Register::SPL, Register::R15L, 4, 1, false),
        (Register::AX, Register::R15W, 0, 2, false),
        (Register::EAX, Register::R15D, 0, 4, false),
        (Register::RAX, Register::R15, 0, 8, false),
    ];
    GROUPS.iter().find(|(first, last, ..)| (*first..=*last).contains(&register)).map(
        |&(first, _, number, size, high)| Gpr {
            number: number + (register as u8 - first as u8),
            size,
            high,
        },
    )
}

/// Linear address of a memory operand.
#[must_use]
pub fn operand_address(state: &State, instruction: &Instruction, operand: u32) -> Option<u64> {
    let address = instruction.virtual_address(operand, 0, |register, _, _| match register {
        Register::ES => Some(cpu::segment_base(state, &state.es, false)),
        Register::CS => Some(cpu::segment_base(state, &state.cs, false)),
        Register::SS => Some(cpu::segment_base(state, &state.ss, false)),
        Register::DS => Some(cpu::segment_base(state, &state.ds, false)),
        Register::FS => Some(state.fs.base),
        Register::GS => Some(state.gs.base),
        register => {
            let Gpr { number, size, .. } = gpr(register)?;
            Some(cpu::gpr(state, number) & byte_mask(size))
        }
    })?;
    Some(if cpu::is_64bit(state) { address } else { address & 0xffff_ffff })
}

#[cfg(test)]
pub(crate) mod tests;
