//! The image's header, the way in, ports and time.

use core::arch::{asm, global_asm};

// The header of a boot image (Documentation/arch/x86/boot.rst in Linux), protocol 2.15. The image
// cannot be moved, and has a 64-bit entry.
global_asm!(
    ".section .setup, \"a\"",
    ".org 0x1f1",
    ".byte 1", // setup_sects
    ".org 0x1fe",
    ".word 0xaa55",     // boot_flag
    ".byte 0xeb, 0x62", // jump: the header ends at 0x264
    ".ascii \"HdrS\"",
    ".word 0x020f",
    ".org 0x211",
    ".byte 1", // loadflags: loaded high
    ".org 0x22c",
    ".long 0x7fffffff", // initrd_addr_max
    ".long 0x200000",   // kernel_alignment
    ".org 0x236",
    ".word 1",    // xloadflags: 64-bit entry
    ".long 2047", // cmdline_size
    ".org 0x258",
    ".quad 0x200000", // pref_address
    ".long 0x200000", // init_size
    ".org 0x400",
);

// Long mode, identity map of 4 GiB, interrupts off, rsi = zero page. The 64-bit entry lies 0x200
// behind the load address.
global_asm!(
    ".section .start, \"ax\"",
    ".global start",
    ".org 0x200",
    "start:",
    "lea rsp, [rip + {stack} + {size}]",
    "lea rdi, [rip + bss_start]",
    "lea rcx, [rip + bss_end]",
    "sub rcx, rdi",
    "xor eax, eax",
    "cld",
    "rep stosb",
    "mov rdi, rsi",
    "call {main}",
    "ud2",
    stack = sym STACK,
    size = const STACK_SIZE,
    main = sym crate::main,
);

const STACK_SIZE: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack([u8; STACK_SIZE]);

static mut STACK: Stack = Stack([0; STACK_SIZE]);

/// Writes to a port.
pub fn out(port: u16, value: u8) {
    // SAFETY: ports reach the VMM's devices, none of which changes memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Reads a port.
pub fn input(port: u16) -> u8 {
    let value;
    // SAFETY: as `out`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: only reads the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ends the machine: soft-off through the ACPI sleep control register.
pub fn off() -> ! {
    loop {
        out(0x600, 1 << 5 | 5 << 2);
    }
}
