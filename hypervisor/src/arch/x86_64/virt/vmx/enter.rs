//! The way into the guest and back.

use core::arch::naked_asm;

use super::super::gprs::{Gprs, load_guest, restore_host, save_host, store_guest};
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
        save_host!(),
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "test sil, sil",
        // Loads leave the flags alone.
        "mov rax, [rdi]",
        load_guest!(),
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
        restore_host!(),
        "ret",
        host_rsp = const field::HOST_RSP,
        invalid = const failure::INVALID,
        valid = const failure::VALID,
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
        store_guest!(),
        "pop [rax]",
        "pop rdi",
        "xor eax, eax",
        restore_host!(),
        "ret",
    )
}
