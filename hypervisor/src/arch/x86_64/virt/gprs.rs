//! General-purpose registers of a guest, and the instructions that move them.
//!
//! The macros are parts of both vendors' way into the guest and back.

use core::mem::offset_of;

/// General-purpose registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Gprs {
    pub(super) rax: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) rbx: u64,
    /// Not in use: the vendor's format holds it.
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    pub(super) r8: u64,
    pub(super) r9: u64,
    pub(super) r10: u64,
    pub(super) r11: u64,
    pub(super) r12: u64,
    pub(super) r13: u64,
    pub(super) r14: u64,
    pub(super) r15: u64,
}

impl Gprs {
    /// A register by the low four bits of its number in instructions.
    pub(super) fn by_number(&self, number: u64) -> u64 {
        // SAFETY: the structure is sixteen words, in that order.
        let words = unsafe { &*core::ptr::from_ref(self).cast::<[u64; 16]>() };
        words.get(crate::num::usize_of(number & 15)).copied().unwrap_or(0)
    }
}

const _: () = assert!(offset_of!(Gprs, rbx) == 24 && offset_of!(Gprs, r15) == 120);

/// Saves what a function has to preserve.
macro_rules! save_host {
    () => {
        "push rbp; push rbx; push r12; push r13; push r14; push r15"
    };
}

/// Loads all registers but RAX and RSP from the [`Gprs`] that RDI points to. Flags stay.
macro_rules! load_guest {
    () => {
        "mov rcx, [rdi + 8]; mov rdx, [rdi + 16]; mov rbx, [rdi + 24]; mov rbp, [rdi + 40]; \
         mov rsi, [rdi + 48]; mov r8, [rdi + 64]; mov r9, [rdi + 72]; mov r10, [rdi + 80]; \
         mov r11, [rdi + 88]; mov r12, [rdi + 96]; mov r13, [rdi + 104]; mov r14, [rdi + 112]; \
         mov r15, [rdi + 120]; mov rdi, [rdi + 56]"
    };
}

/// Stores all registers but RAX and RSP in the [`Gprs`] that RAX points to.
macro_rules! store_guest {
    () => {
        "mov [rax + 8], rcx; mov [rax + 16], rdx; mov [rax + 24], rbx; mov [rax + 40], rbp; \
         mov [rax + 48], rsi; mov [rax + 56], rdi; mov [rax + 64], r8; mov [rax + 72], r9; \
         mov [rax + 80], r10; mov [rax + 88], r11; mov [rax + 96], r12; mov [rax + 104], r13; \
         mov [rax + 112], r14; mov [rax + 120], r15"
    };
}

/// The reverse of `save_host`. No value of the guest stays where the kernel might speculate with
/// it.
macro_rules! restore_host {
    () => {
        "xor ecx, ecx; xor edx, edx; xor esi, esi; xor edi, edi; xor r8d, r8d; xor r9d, r9d; \
         xor r10d, r10d; xor r11d, r11d; \
         pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp"
    };
}

pub(super) use {load_guest, restore_host, save_host, store_guest};
