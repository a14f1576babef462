//! The way into the guest and back.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::super::state::Gprs;
use super::vmcs::field;

/// Why [`enter`] came back without an exit.
pub(super) mod failure {
    /// The control structure says why (VMfailValid).
    pub(in super::super) const VALID: u64 = 1;
    /// There is no current control structure (VMfailInvalid).
    pub(in super::super) const INVALID: u64 = 2;
}

/// Runs the guest of the current control structure until it exits, with the registers in `gprs`
/// (all but RSP, which the control structure holds). Returns 0 after an exit, otherwise a
/// [`failure`]. `launched`: it has run since it was last cleared.
///
/// A successful entry goes on at [`exited`].
///
/// # Safety
/// VMX operation is on; the current control structure's host state is this CPU's, with [`exited`]
/// as its instruction pointer; `gprs` is valid; interrupts are off.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter(gprs: *mut Gprs, launched: bool) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "test sil, sil",
        // Loads leave the flags alone.
        "mov rax, [rdi + {rax}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov rsi, [rdi + {rsi}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r8} + 8]",
        "mov r10, [rdi + {r8} + 16]",
        "mov r11, [rdi + {r8} + 24]",
        "mov r12, [rdi + {r8} + 32]",
        "mov r13, [rdi + {r8} + 40]",
        "mov r14, [rdi + {r8} + 48]",
        "mov r15, [rdi + {r8} + 56]",
        "mov rdi, [rdi + {rdi}]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2:",
        "vmresume",
        // Here nothing but the flags has changed: CF without, ZF with a control structure.
        "3:",
        "mov eax, {invalid}",
        "jc 4f",
        "mov eax, {valid}",
        "4:",
        "pop rdi",
        "jmp {leave}",
        host_rsp = const field::HOST_RSP,
        rax = const offset_of!(Gprs, rax),
        rcx = const offset_of!(Gprs, rcx),
        rdx = const offset_of!(Gprs, rdx),
        rbx = const offset_of!(Gprs, rbx),
        rbp = const offset_of!(Gprs, rbp),
        rsi = const offset_of!(Gprs, rsi),
        rdi = const offset_of!(Gprs, rdi),
        r8 = const offset_of!(Gprs, r8),
        invalid = const failure::INVALID,
        valid = const failure::VALID,
        leave = sym leave,
    )
}

/// Where every exit arrives, on the stack that [`enter`] left: stores the guest's registers.
///
/// # Safety
/// Only the processor may jump here.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn exited() {
    naked_asm!(
        "push rax",
        "mov rax, [rsp + 8]",
        "mov [rax + {rcx}], rcx",
        "mov [rax + {rdx}], rdx",
        "mov [rax + {rbx}], rbx",
        "mov [rax + {rbp}], rbp",
        "mov [rax + {rsi}], rsi",
        "mov [rax + {rdi}], rdi",
        "mov [rax + {r8}], r8",
        "mov [rax + {r8} + 8], r9",
        "mov [rax + {r8} + 16], r10",
        "mov [rax + {r8} + 24], r11",
        "mov [rax + {r8} + 32], r12",
        "mov [rax + {r8} + 40], r13",
        "mov [rax + {r8} + 48], r14",
        "mov [rax + {r8} + 56], r15",
        "pop [rax + {rax}]",
        "pop rdi",
        "xor eax, eax",
        "jmp {leave}",
        rax = const offset_of!(Gprs, rax),
        rcx = const offset_of!(Gprs, rcx),
        rdx = const offset_of!(Gprs, rdx),
        rbx = const offset_of!(Gprs, rbx),
        rbp = const offset_of!(Gprs, rbp),
        rsi = const offset_of!(Gprs, rsi),
        rdi = const offset_of!(Gprs, rdi),
        r8 = const offset_of!(Gprs, r8),
        leave = sym leave,
    )
}

/// The end of both: no value of the guest stays where the kernel might speculate with it.
#[unsafe(naked)]
unsafe extern "sysv64" fn leave() {
    naked_asm!(
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
