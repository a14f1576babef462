//! Entry of the kernel image.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod kernel {
    use hypervisor::{init, log};

    /// Called by the start code on the boot stack, in 64-bit mode at the link address.
    #[unsafe(no_mangle)]
    extern "sysv64" fn kernel_start(boot_info: u64, load_base: u64) -> ! {
        // SAFETY: the start code calls this once, with what the boot loader passed.
        unsafe { init::boot(boot_info, load_base) }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        log::fatal(format_args!("PANIC: {info}"))
    }
}
