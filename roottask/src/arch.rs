//! The first instructions.

/// Bytes of the stack that the root task boots on.
#[cfg(target_os = "none")]
const STACK: usize = 64 * 1024;

#[cfg(target_os = "none")]
#[repr(C, align(16))]
struct Stack(core::cell::UnsafeCell<[u8; STACK]>);

// SAFETY: used as a stack by one thread only.
#[cfg(target_os = "none")]
unsafe impl Sync for Stack {}

#[cfg(target_os = "none")]
static BOOT_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));

/// Where the kernel starts the root task: `rdi` is the information page, `rsi` the UTCB.
///
/// # Safety
/// Only the kernel may start it.
#[cfg(target_os = "none")]
#[unsafe(naked)]
#[unsafe(export_name = "portico_root_start")]
unsafe extern "sysv64" fn start() -> ! {
    core::arch::naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        stack = sym BOOT_STACK,
        size = const STACK,
        main = sym crate::boot::boot,
    )
}
