//! The way into the guest and back.

use core::arch::{asm, naked_asm};

use super::super::gprs::{Gprs, load_guest, restore_host, save_host, store_guest};

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
        save_host!(),
        "push rdx",
        "push rdi",
        "mov rax, rsi",
        "clgi",
        "vmload rax",
        load_guest!(),
        "sti",
        "vmrun rax",
        "cli",
        // RAX and RSP are the host's again.
        "vmsave rax",
        "mov rax, [rsp + 8]",
        "vmload rax",
        "mov rax, [rsp]",
        store_guest!(),
        "stgi",
        "add rsp, 16",
        restore_host!(),
        "ret",
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
