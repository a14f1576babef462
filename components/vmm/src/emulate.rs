//! Executing one instruction that the processor could not: its memory operand is a device, or it
//! is a string of port accesses.
//!
//! What compilers and drivers use for device memory is here: moves, exchanges, bit and integer
//! operations, strings. Anything else stops the VM with a report.

pub mod alu;

use core::fmt;

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};
use ipc::state::State;

use crate::cpu::{self, RFLAGS_DF};
use crate::decode::{self, DecodeError, Fetched, MAX_LENGTH};
use crate::memory::{NotRam, Ram};
use crate::num::{byte_mask, low16, merge_register, sign_extend, u64_of};
use crate::walk::{Access, WalkError, translate};
use alu::{Op, compute};

/// Elements of a repeated string instruction that are handled in one go; the guest gets its
/// interrupts in between.
const BATCH: u32 = 1024;

/// Everything outside the processor and RAM.
pub trait Bus {
    /// Reads `size` bytes of an address that is not RAM.
    fn read(&mut self, gpa: u64, size: u64) -> u64;
    /// Writes them.
    fn write(&mut self, gpa: u64, size: u64, value: u64);
    /// Reads a port.
    fn port_read(&mut self, port: u16, size: u64) -> u64;
    /// Writes a port.
    fn port_write(&mut self, port: u16, size: u64, value: u64);
}

/// What became of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is complete; the state is behind it.
    Complete,
    /// A repeated string instruction is under way; the state is at it.
    Again,
    /// It raised a page fault: error code and address. The state is at it.
    PageFault(u32, u64),
    /// It raised a general protection fault. The state is at it.
    Protection,
}

/// Why the instruction cannot be executed: the VM has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulateError {
    /// There is no instruction to be had.
    Decode(DecodeError),
    /// It is not one that is executed here.
    Unsupported([u8; MAX_LENGTH]),
    /// A page table lies outside RAM.
    Table(NotRam),
}

impl fmt::Display for EmulateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(e) => e.fmt(f),
            Self::Unsupported(bytes) => {
                write!(f, "instruction {bytes:02x?} on a device is not supported")
            }
            Self::Table(e) => write!(f, "page table: {e}"),
        }
    }
}

impl core::error::Error for EmulateError {}

/// How executing ended early.
enum Trap {
    PageFault(u32, u64),
    Protection,
    Unsupported,
    Table(NotRam),
}

impl Trap {
    fn walk(error: WalkError, linear: u64) -> Self {
        match error {
            WalkError::PageFault(code) => Self::PageFault(code, linear),
            WalkError::NonCanonical => Self::Protection,
            WalkError::TableNotRam(e) => Self::Table(e),
        }
    }
}

/// Executes the instruction at `rip`. All registers, segments, control registers and EFER are
/// valid in `state`.
///
/// # Errors
/// See [`EmulateError`].
pub fn execute(ram: &Ram, state: &mut State, bus: &mut dyn Bus) -> Result<Done, EmulateError> {
    let Fetched { instruction, bytes } = match decode::current(ram, state) {
        Ok(fetched) => fetched,
        // Another vCPU changed the mapping: the guest has to sort that out itself.
        Err(DecodeError::Walk(WalkError::PageFault(error))) => {
            return Ok(Done::PageFault(error, state.rip));
        }
        Err(e) => return Err(EmulateError::Decode(e)),
    };
    let mut machine = Machine { ram, state, bus };
    let finished = match machine.run(&instruction) {
        Ok(finished) => finished,
        Err(Trap::PageFault(error, address)) => return Ok(Done::PageFault(error, address)),
        Err(Trap::Protection) => return Ok(Done::Protection),
        Err(Trap::Unsupported) => return Err(EmulateError::Unsupported(bytes)),
        Err(Trap::Table(e)) => return Err(EmulateError::Table(e)),
    };
    if !finished {
        return Ok(Done::Again);
    }
    let next = state.rip.wrapping_add(u64_of(instruction.len()));
    state.rip = if cpu::is_64bit(state) { next } else { next & 0xffff_ffff };
    Ok(Done::Complete)
}

/// An operand.
#[derive(Clone, Copy)]
enum Operand {
    /// Register number, and whether it is the second byte.
    Register(u8, bool),
    Memory(u64),
    Immediate(u64),
}

struct Machine<'a> {
    ram: &'a Ram,
    state: &'a mut State,
    bus: &'a mut dyn Bus,
}

impl Machine<'_> {
    /// Returns whether the instruction is complete.
    fn run(&mut self, i: &Instruction) -> Result<bool, Trap> {
        if is_string(i) {
            return self.string(i);
        }
        match i.mnemonic() {
            Mnemonic::Mov => {
                let (size, _) = sizes(i)?;
                let value = self.get(self.operand(i, 1)?, size)?;
                self.set(self.operand(i, 0)?, size, value)?;
            }
            Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
                let (to, from) = sizes(i)?;
                let value = self.get(self.operand(i, 1)?, from)?;
                let signed = i.mnemonic() != Mnemonic::Movzx;
                let value = if signed { sign_extend(value, from) } else { value };
                self.set(self.operand(i, 0)?, to, value)?;
            }
            Mnemonic::Xchg => {
                let (size, _) = sizes(i)?;
                let (a, b) = (self.operand(i, 0)?, self.operand(i, 1)?);
                let (old, new) = (self.get(a, size)?, self.get(b, size)?);
                self.set(a, size, new)?;
                self.set(b, size, old)?;
            }
            Mnemonic::Not => {
                let (size, _) = sizes(i)?;
                let a = self.operand(i, 0)?;
                let value = !self.get(a, size)?;
                self.set(a, size, value)?;
            }
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => self.bit_test(i)?,
            Mnemonic::Cmp => self.integer(i, Op::Sub, false)?,
            Mnemonic::Test => self.integer(i, Op::And, false)?,
            Mnemonic::And => self.integer(i, Op::And, true)?,
            Mnemonic::Or => self.integer(i, Op::Or, true)?,
            Mnemonic::Xor => self.integer(i, Op::Xor, true)?,
            Mnemonic::Add => self.integer(i, Op::Add, true)?,
            Mnemonic::Sub => self.integer(i, Op::Sub, true)?,
            Mnemonic::Inc => self.integer(i, Op::Inc, true)?,
            Mnemonic::Dec => self.integer(i, Op::Dec, true)?,
            _ => return Err(Trap::Unsupported),
        }
        Ok(true)
    }

    fn integer(&mut self, i: &Instruction, op: Op, store: bool) -> Result<(), Trap> {
        let (size, _) = sizes(i)?;
        let a = self.operand(i, 0)?;
        let left = self.get(a, size)?;
        let right = if i.op_count() > 1 { self.get(self.operand(i, 1)?, size)? } else { 0 };
        let (result, flags) = compute(op, left, right, size, self.state.rflags);
        if store {
            self.set(a, size, result)?;
        }
        self.state.rflags = flags;
        Ok(())
    }

    /// With an immediate bit number; one in a register could lie beyond the operand.
    fn bit_test(&mut self, i: &Instruction) -> Result<(), Trap> {
        let (size, _) = sizes(i)?;
        let (a, Operand::Immediate(bit)) = (self.operand(i, 0)?, self.operand(i, 1)?) else {
            return Err(Trap::Unsupported);
        };
        let mask = 1 << (bit % (size * 8));
        let value = self.get(a, size)?;
        match i.mnemonic() {
            Mnemonic::Bts => self.set(a, size, value | mask)?,
            Mnemonic::Btr => self.set(a, size, value & !mask)?,
            Mnemonic::Btc => self.set(a, size, value ^ mask)?,
            _ => {}
        }
        self.state.rflags = alu::with_carry(self.state.rflags, value & mask != 0);
        Ok(())
    }

    fn operand(&self, i: &Instruction, n: u32) -> Result<Operand, Trap> {
        match i.op_kind(n) {
            OpKind::Register => {
                let gpr = decode::gpr(i.op_register(n)).ok_or(Trap::Unsupported)?;
                Ok(Operand::Register(gpr.number, gpr.high))
            }
            OpKind::Memory => decode::operand_address(self.state, i, n)
                .map(Operand::Memory)
                .ok_or(Trap::Unsupported),
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Ok(Operand::Immediate(i.immediate(n))),
            _ => Err(Trap::Unsupported),
        }
    }

    fn get(&mut self, operand: Operand, size: u64) -> Result<u64, Trap> {
        match operand {
            Operand::Register(number, true) => Ok(cpu::gpr(self.state, number) >> 8 & 0xff),
            Operand::Register(number, false) => Ok(cpu::gpr(self.state, number) & byte_mask(size)),
            Operand::Immediate(value) => Ok(value & byte_mask(size)),
            Operand::Memory(linear) => self.load(linear, size),
        }
    }

    fn set(&mut self, operand: Operand, size: u64, value: u64) -> Result<(), Trap> {
        match operand {
            Operand::Register(number, true) => {
                let register = cpu::gpr_mut(self.state, number);
                *register = *register & !0xff00 | (value & 0xff) << 8;
            }
            Operand::Register(number, false) => {
                let register = cpu::gpr_mut(self.state, number);
                *register = merge_register(*register, value, size);
            }
            Operand::Immediate(_) => return Err(Trap::Unsupported),
            Operand::Memory(linear) => self.store(linear, size, value & byte_mask(size))?,
        }
        Ok(())
    }

    fn translate(&self, linear: u64, access: Access) -> Result<u64, Trap> {
        translate(self.ram, self.state, linear, access).map_err(|e| Trap::walk(e, linear))
    }

    /// Bytes of an access that lie on its first page.
    fn first_part(linear: u64, size: u64) -> u64 {
        size.min(0x1000 - (linear & 0xfff))
    }

    fn load(&mut self, linear: u64, size: u64) -> Result<u64, Trap> {
        let first = Self::first_part(linear, size);
        let low = self.translate(linear, Access::Read)?;
        if first == size {
            return Ok(self.read_physical(low, size));
        }
        let high = self.translate(linear.wrapping_add(first), Access::Read)?;
        let value = self.read_physical(low, first);
        Ok(value | self.read_physical(high, size - first) << (first * 8))
    }

    fn store(&mut self, linear: u64, size: u64, value: u64) -> Result<(), Trap> {
        let first = Self::first_part(linear, size);
        let low = self.translate(linear, Access::Write)?;
        if first == size {
            self.write_physical(low, size, value);
            return Ok(());
        }
        // Both pages are checked before either is written.
        let high = self.translate(linear.wrapping_add(first), Access::Write)?;
        self.write_physical(low, first, value & byte_mask(first));
        self.write_physical(high, size - first, value >> (first * 8));
        Ok(())
    }

    fn read_physical(&mut self, gpa: u64, size: u64) -> u64 {
        self.ram.read_word(gpa, size).unwrap_or_else(|_| self.bus.read(gpa, size) & byte_mask(size))
    }

    fn write_physical(&mut self, gpa: u64, size: u64, value: u64) {
        if self.ram.write_word(gpa, size, value).is_err() {
            self.bus.write(gpa, size, value);
        }
    }

    /// MOVS, STOS, LODS, INS, OUTS. Registers are left as the processor leaves them between two
    /// elements, so a fault or an interrupt finds them right.
    fn string(&mut self, i: &Instruction) -> Result<bool, Trap> {
        let size = memory_size(i).ok_or(Trap::Unsupported)?;
        let width = string_width(i).ok_or(Trap::Unsupported)?;
        let repeat = i.has_rep_prefix() || i.has_repne_prefix();
        let step = if self.state.rflags & RFLAGS_DF != 0 { size.wrapping_neg() } else { size };
        for _ in 0..BATCH {
            if repeat && self.state.rcx & byte_mask(width) == 0 {
                return Ok(true);
            }
            let value = match i.op1_kind() {
                OpKind::Register if i.mnemonic_is_in() => {
                    // The port is read only when its value has somewhere to go.
                    let to = self.address(i, 0)?;
                    self.translate(to, Access::Write)?;
                    self.bus.port_read(low16(self.state.rdx), size)
                }
                OpKind::Register => self.state.rax & byte_mask(size),
                _ => {
                    let from = self.address(i, 1)?;
                    self.load(from, size)?
                }
            };
            match i.op0_kind() {
                OpKind::Register if i.mnemonic_is_out() => {
                    self.bus.port_write(low16(self.state.rdx), size, value);
                }
                OpKind::Register => {
                    self.state.rax = merge_register(self.state.rax, value, size);
                }
                _ => {
                    let to = self.address(i, 0)?;
                    self.store(to, size, value)?;
                }
            }
            let move_by = |register: &mut u64, by: u64| {
                *register = merge_register(*register, register.wrapping_add(by), width);
            };
            if i.op1_kind() != OpKind::Register {
                move_by(&mut self.state.rsi, step);
            }
            if i.op0_kind() != OpKind::Register {
                move_by(&mut self.state.rdi, step);
            }
            if !repeat {
                return Ok(true);
            }
            move_by(&mut self.state.rcx, u64::MAX);
        }
        Ok(self.state.rcx & byte_mask(width) == 0)
    }

    fn address(&self, i: &Instruction, n: u32) -> Result<u64, Trap> {
        decode::operand_address(self.state, i, n).ok_or(Trap::Unsupported)
    }
}

/// What of a string instruction its mnemonic says.
trait StringForm {
    fn mnemonic_is_in(&self) -> bool;
    fn mnemonic_is_out(&self) -> bool;
}

impl StringForm for Instruction {
    fn mnemonic_is_in(&self) -> bool {
        matches!(self.mnemonic(), Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd)
    }

    fn mnemonic_is_out(&self) -> bool {
        matches!(self.mnemonic(), Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd)
    }
}

/// The string instructions here; `movsd` and `cmpsd` are names of vector instructions as well,
/// which have other operands.
fn is_string(i: &Instruction) -> bool {
    let known = matches!(
        i.mnemonic(),
        Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsd
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
            | Mnemonic::Lodsb
            | Mnemonic::Lodsw
            | Mnemonic::Lodsd
            | Mnemonic::Lodsq
    );
    (known || i.mnemonic_is_in() || i.mnemonic_is_out()) && string_width(i).is_some()
}

/// Address size of a string instruction in bytes.
fn string_width(i: &Instruction) -> Option<u64> {
    [i.op0_kind(), i.op1_kind()].into_iter().find_map(|kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
        _ => None,
    })
}

fn memory_size(i: &Instruction) -> Option<u64> {
    match i.memory_size() {
        MemorySize::UInt8 | MemorySize::Int8 => Some(1),
        MemorySize::UInt16 | MemorySize::Int16 => Some(2),
        MemorySize::UInt32 | MemorySize::Int32 => Some(4),
        MemorySize::UInt64 | MemorySize::Int64 => Some(8),
        _ => None,
    }
}

/// Sizes of the first and the second operand.
fn sizes(i: &Instruction) -> Result<(u64, u64), Trap> {
    let memory = memory_size(i).ok_or(Trap::Unsupported)?;
    let size = |n: u32| match i.op_kind(n) {
        OpKind::Register => decode::gpr(i.op_register(n)).map(|gpr| gpr.size),
        _ => Some(memory),
    };
    let first = size(0).ok_or(Trap::Unsupported)?;
    let second = if i.op_count() > 1 { size(1).ok_or(Trap::Unsupported)? } else { memory };
    Ok((first, second))
}

#[cfg(test)]
mod tests;
