//! Reading a vCPU's state: registers by number, mode, privilege.

use ipc::state::{Segment, State};

/// `CR0.PE`.
pub const CR0_PE: u64 = 1 << 0;
/// `CR0.WP`.
pub const CR0_WP: u64 = 1 << 16;
/// `CR0.PG`.
pub const CR0_PG: u64 = 1 << 31;
/// `CR4.PSE`.
pub const CR4_PSE: u64 = 1 << 4;
/// `CR4.PAE`.
pub const CR4_PAE: u64 = 1 << 5;
/// `CR4.LA57`.
pub const CR4_LA57: u64 = 1 << 12;
/// `CR4.OSXSAVE`.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// `CR4.SMEP`.
pub const CR4_SMEP: u64 = 1 << 20;
/// `CR4.SMAP`.
pub const CR4_SMAP: u64 = 1 << 21;
/// `EFER.LME`.
pub const EFER_LME: u64 = 1 << 8;
/// `EFER.LMA`.
pub const EFER_LMA: u64 = 1 << 10;
/// `EFER.NXE`.
pub const EFER_NXE: u64 = 1 << 11;
/// `RFLAGS.TF`.
pub const RFLAGS_TF: u64 = 1 << 8;
/// `RFLAGS.IF`.
pub const RFLAGS_IF: u64 = 1 << 9;
/// `RFLAGS.DF`.
pub const RFLAGS_DF: u64 = 1 << 10;
/// `RFLAGS.RF`.
pub const RFLAGS_RF: u64 = 1 << 16;
/// `RFLAGS.VM`.
pub const RFLAGS_VM: u64 = 1 << 17;
/// `RFLAGS.AC`.
pub const RFLAGS_AC: u64 = 1 << 18;

const SEGMENT_LONG: u16 = 1 << 13;
const SEGMENT_BIG: u16 = 1 << 14;

/// Whether the vCPU is in long mode, with 64-bit code.
#[must_use]
pub const fn is_64bit(state: &State) -> bool {
    state.efer & EFER_LMA != 0 && state.cs.attributes & SEGMENT_LONG != 0
}

/// Default operand and address size of code, in bits.
#[must_use]
pub const fn code_bits(state: &State) -> u32 {
    if is_64bit(state) {
        64
    } else if state.cr0 & CR0_PE == 0 || state.rflags & RFLAGS_VM != 0 {
        16
    } else if state.cs.attributes & SEGMENT_BIG != 0 {
        32
    } else {
        16
    }
}

/// Current privilege level: that of the stack segment (Intel SDM vol. 3, 24.4.1).
#[must_use]
pub const fn cpl(state: &State) -> u8 {
    if state.cr0 & CR0_PE == 0 {
        return 0;
    }
    if state.rflags & RFLAGS_VM != 0 {
        return 3;
    }
    (state.ss.attributes >> 5 & 3) as u8
}

/// A general-purpose register by encoding number: rax 0, rcx 1, ... r15 15.
#[must_use]
pub const fn gpr(state: &State, number: u8) -> u64 {
    match number & 15 {
        0 => state.rax,
        1 => state.rcx,
        2 => state.rdx,
        3 => state.rbx,
        4 => state.rsp,
        5 => state.rbp,
        6 => state.rsi,
        7 => state.rdi,
        8 => state.r8,
        9 => state.r9,
        10 => state.r10,
        11 => state.r11,
        12 => state.r12,
        13 => state.r13,
        14 => state.r14,
        _ => state.r15,
    }
}

/// The same, to be changed.
pub const fn gpr_mut(state: &mut State, number: u8) -> &mut u64 {
    match number & 15 {
        0 => &mut state.rax,
        1 => &mut state.rcx,
        2 => &mut state.rdx,
        3 => &mut state.rbx,
        4 => &mut state.rsp,
        5 => &mut state.rbp,
        6 => &mut state.rsi,
        7 => &mut state.rdi,
        8 => &mut state.r8,
        9 => &mut state.r9,
        10 => &mut state.r10,
        11 => &mut state.r11,
        12 => &mut state.r12,
        13 => &mut state.r13,
        14 => &mut state.r14,
        _ => &mut state.r15,
    }
}

/// Base of a data segment as an address is formed: in 64-bit code only FS and GS have one.
#[must_use]
pub const fn segment_base(state: &State, segment: &Segment, fs_or_gs: bool) -> u64 {
    if is_64bit(state) && !fs_or_gs { 0 } else { segment.base }
}
