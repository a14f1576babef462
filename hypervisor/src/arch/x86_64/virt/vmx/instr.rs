//! Instructions of VT-x, and others that have no better home.

use core::arch::asm;

/// Defines an instruction whose operand is a physical address in memory.
macro_rules! on_address {
    ($(#[$doc:meta])+ $name:ident, $text:literal) => {
        $(#[$doc])+
        ///
        /// # Safety
        /// VMX is enabled on this CPU; the page is for the processor to use until VMCLEAR.
        pub(super) unsafe fn $name(physical: u64) -> bool {
            let failed: u8;
            // SAFETY: the caller gives the page; the instruction reads its operand.
            unsafe {
                asm!(concat!($text, " [{}]"), "setbe {}", in(reg) &raw const physical,
                    out(reg_byte) failed, options(nostack));
            }
            failed == 0
        }
    };
}

on_address!(
    /// Begins VMX operation; whether it succeeded.
    vmxon,
    "vmxon"
);
on_address!(
    /// Writes back what the processor holds of a control structure, which then belongs to no CPU
    /// and has not been launched.
    vmclear,
    "vmclear"
);
on_address!(
    /// Makes a control structure current.
    vmptrld,
    "vmptrld"
);

/// Reads a field of the current control structure; 0 where the processor lacks it.
///
/// # Safety
/// VMX operation is on.
#[inline(always)]
pub(super) unsafe fn vmread(field: u32) -> u64 {
    let mut value = 0;
    // SAFETY: by contract.
    unsafe {
        asm!("vmread {}, {}", inout(reg) value, in(reg) u64::from(field),
            options(nomem, nostack));
    }
    value
}

/// Writes a field of the current control structure; without effect where the processor lacks it.
///
/// # Safety
/// VMX operation is on; the field, if it is one of the host's, leaves the kernel intact.
#[inline(always)]
pub(super) unsafe fn vmwrite(field: u32, value: u64) {
    // SAFETY: by contract.
    unsafe {
        asm!("vmwrite {}, {}", in(reg) u64::from(field), in(reg) value, options(nomem, nostack));
    }
}

/// Forgets translations that come from EPT: those of one table (`kind` 1), or all (2).
///
/// # Safety
/// VMX operation is on, and the processor has this kind.
pub(super) unsafe fn invept(kind: u64, pointer: u64) {
    let descriptor = [pointer, 0];
    // SAFETY: by contract; the instruction reads its operand.
    unsafe {
        asm!("invept {}, [{}]", in(reg) kind, in(reg) &raw const descriptor, options(nostack))
    };
}

/// Takes the NMI that ended guest mode: the exit has consumed it, and only the IRET of a handler
/// lets the next one in.
pub(super) fn take_nmi() {
    // SAFETY: the handler for vector 2 returns with everything as it was.
    unsafe { asm!("int 2") }
}

/// CR2.
#[inline(always)]
pub(super) fn set_cr2(value: u64) {
    // SAFETY: the kernel reads the register only after a page fault, which sets it.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// DR6.
pub(super) fn set_dr6(value: u64) {
    // SAFETY: the kernel does not use the register.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
