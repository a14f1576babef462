//! The way into the guest and back.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use super::super::state::Gprs;

/// Runs the guest of the control block at physical address `guest` until it exits, with the
/// registers in `gprs` (all but RAX and RSP, which the control block holds).
///
/// The global interrupt flag is clear while registers of the guest that the kernel itself depends
/// on (GS base, TR, system call MSRs) are in the CPU, so not even an NMI sees them. RFLAGS.IF is
/// set across VMRUN because with virtual interrupt masking it is the host's flag that lets
/// physical interrupts end the guest. It is clear again before they could be taken here.
///
/// # Safety
/// SVM is enabled on this CPU; both addresses are those of control blocks, `host` of one into which
/// VMSAVE has put the host's state on this CPU; `gprs` is valid; interrupts are off.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter(gprs: *mut Gprs, guest: u64, host: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        "push rdi",
        "mov rax, rsi",
        "clgi",
        "sti",
        "vmload rax",
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
        "vmrun rax",
        // RAX and RSP are the host's again.
        "vmsave rax",
        "mov rax, [rsp + 8]",
        "vmload rax",
        "mov rax, [rsp]",
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
        "cli",
        "stgi",
        // No value of the guest stays where the kernel might speculate with it.
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "pop rdi",
        "pop rdx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        rcx = const offset_of!(Gprs, rcx),
        rdx = const offset_of!(Gprs, rdx),
        rbx = const offset_of!(Gprs, rbx),
        rbp = const offset_of!(Gprs, rbp),
        rsi = const offset_of!(Gprs, rsi),
        rdi = const offset_of!(Gprs, rdi),
        r8 = const offset_of!(Gprs, r8),
    )
}

/// Stores FS, GS, TR, LDTR and the system call MSRs into the control block at `physical`.
///
/// # Safety
/// SVM is enabled on this CPU, and the page is a control block that nothing else uses meanwhile.
pub(super) unsafe fn vmsave(physical: u64) {
    // SAFETY: the instruction writes only the block that the caller names.
    unsafe { asm!("vmsave rax", in("rax") physical, options(nostack, preserves_flags)) }
}
