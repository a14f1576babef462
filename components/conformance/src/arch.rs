//! Instructions that may fault: each function raises its exception with the return address on top
//! of the stack, so that a handler can end the function in its stead.

use core::arch::naked_asm;

/// What an attempt gives: 0 and a value, or whatever a handler of its exception puts into `rax`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Attempt {
    /// 0, or the handler's word.
    pub fault: u64,
    /// What was read.
    pub value: u64,
}

macro_rules! attempts {
    ($($(#[$doc:meta])+ $name:ident: $($line:literal),+;)+) => {
        $(
            $(#[$doc])+
            ///
            /// # Safety
            /// Exceptions are handled, or are meant to stop the thread; what is accessed may be.
            #[unsafe(naked)]
            pub(crate) unsafe extern "sysv64" fn $name(address: u64, value: u64) -> Attempt {
                naked_asm!("mov rcx, rsi", "xor eax, eax", "xor edx, edx", $($line,)+ "ret")
            }
        )+
    };
}

attempts! {
    /// Reads eight bytes.
    read: "mov rdx, [rdi]";
    /// Writes eight bytes.
    write: "mov [rdi], rcx";
    /// Jumps there.
    execute: "jmp rdi";
    /// An instruction that does not exist.
    undefined: "ud2";
    /// Divides by zero.
    divide: "div rdx";
    /// A breakpoint.
    breakpoint: "int3";
    /// A debug trap: INT1, which assemblers do not know.
    debug: ".byte 0xf1";
    /// Reads eight bytes of the stack segment, at that distance from the stack pointer.
    stack: "mov rdx, [rsp + rdi]";
    /// A privileged instruction.
    privileged: "hlt";
    /// An interrupt that user code may not raise.
    software_interrupt: "int 0x80";
    /// Reads a port.
    input: "mov edx, edi", "in al, dx", "movzx edx, al", "xor eax, eax";
    /// Writes a port.
    output: "mov edx, edi", "mov eax, ecx", "out dx, al", "xor eax, eax", "xor edx, edx";
    /// Uses the FPU.
    float: "fld1", "fstp st(0)";
    /// Divides by zero in the x87 FPU, which is to report it, and waits for the report.
    float_error: "fninit", "push 0x37b", "fldcw [rsp]", "pop rax", "xor eax, eax", "fld1", "fldz",
        "fdivp", "fwait";
    /// Divides by zero in a vector register, where that is reported.
    vector_error: "push 0x1d80", "ldmxcsr [rsp]", "pop rax", "mov eax, 0x3f800000",
        "movd xmm0, eax", "xor eax, eax", "xorps xmm1, xmm1", "divss xmm0, xmm1";
    /// Reads eight bytes with alignment checked.
    aligned_read: "pushfq", "or dword ptr [rsp], 0x40000", "popfq", "mov rdx, [rdi]", "pushfq",
        "and dword ptr [rsp], ~0x40000", "popfq";
    /// Reads a control register.
    control_register: "mov rdx, cr0";
    /// Switches interrupts off.
    interrupts_off: "cli";
    /// Reads what UMIP keeps from user code.
    machine_status: "smsw rdx";
}

/// Loads registers with numbers, raises an exception, and stores the registers in `to` afterwards:
/// rax, rbx, rcx, rdx, rbp, rsi, r8 to r15.
///
/// # Safety
/// As above; `to` has room for 14 words.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn registers(to: *mut u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "mov eax, 0x100",
        "mov ebx, 0x101",
        "mov ecx, 0x102",
        "mov edx, 0x103",
        "mov ebp, 0x104",
        "mov esi, 0x105",
        "mov edi, 0x106",
        "mov r8d, 0x108",
        "mov r9d, 0x109",
        "mov r10d, 0x10a",
        "mov r11d, 0x10b",
        "mov r12d, 0x10c",
        "mov r13d, 0x10d",
        "mov r14d, 0x10e",
        "mov r15d, 0x10f",
        "ud2",
        "pop rdi",
        "mov [rdi], rax",
        "mov [rdi + 8], rbx",
        "mov [rdi + 16], rcx",
        "mov [rdi + 24], rdx",
        "mov [rdi + 32], rbp",
        "mov [rdi + 40], rsi",
        "mov [rdi + 48], r8",
        "mov [rdi + 56], r9",
        "mov [rdi + 64], r10",
        "mov [rdi + 72], r11",
        "mov [rdi + 80], r12",
        "mov [rdi + 88], r13",
        "mov [rdi + 96], r14",
        "mov [rdi + 104], r15",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

#[cfg(target_os = "none")]
core::arch::global_asm!(
    // One page of code for guests in real mode, which sees it at its own offset 0x1000. Each
    // program starts at a multiple of 0x80 and may use the data page at 0.
    ".section .text.portico_guest, \"ax\", @progbits",
    ".balign 4096",
    ".global portico_guest_code",
    "portico_guest_code:",
    ".code16",
    // 0x00: CPUID twice; stores what it gave.
    "mov eax, 7",
    "mov ecx, 9",
    "cpuid",
    "mov dword ptr [0x800], eax",
    "mov dword ptr [0x804], ebx",
    "cpuid",
    "hlt",
    // 0x80: port output and input.
    ".org portico_guest_code + 0x80",
    "mov al, 0x77",
    "out 0x42, al",
    "mov dx, 0x1234",
    "in ax, dx",
    "mov word ptr [0x800], ax",
    "hlt",
    // 0x100: reads and writes memory that is not there.
    ".org portico_guest_code + 0x100",
    "mov byte ptr [0x3010], al",
    "hlt",
    // 0x180: writes the page that it runs from, which is read-only.
    ".org portico_guest_code + 0x180",
    "mov byte ptr [0x1ff0], al",
    "hlt",
    // 0x200: model-specific registers.
    ".org portico_guest_code + 0x200",
    "mov ecx, 0x1234",
    "rdmsr",
    "mov dword ptr [0x800], eax",
    "mov dword ptr [0x804], edx",
    "wrmsr",
    "hlt",
    // 0x280: loops for ever. It takes no interrupts: the one instruction behind STI closes again.
    ".org portico_guest_code + 0x280",
    "2:",
    "inc dword ptr [0x800]",
    "sti",
    "cli",
    "jmp 2b",
    // 0x300: a triple fault.
    ".org portico_guest_code + 0x300",
    "lidt [0x810]",
    "int3",
    "hlt",
    // 0x380: waits for interrupts; vector 0x20 is handled at 0x3c0.
    ".org portico_guest_code + 0x380",
    "mov sp, 0x700",
    "sti",
    "hlt",
    "hlt",
    ".org portico_guest_code + 0x3c0",
    "inc dword ptr [0x820]",
    "iret",
    // 0x400: CPUID for ever, for measuring.
    ".org portico_guest_code + 0x400",
    "3:",
    "cpuid",
    "jmp 3b",
    // 0x480: a hypercall of either vendor's form is undefined here; HLT follows.
    ".org portico_guest_code + 0x480",
    "vmmcall",
    "hlt",
    // 0x500: loops for ever with interrupts off.
    ".org portico_guest_code + 0x500",
    "4:",
    "inc dword ptr [0x800]",
    "jmp 4b",
    // 0x580: sets the registers of system calls, each to its number, looks at one, and gives it an
    // address that no processor has, which general protection (0x5f0) answers.
    ".org portico_guest_code + 0x580",
    "mov sp, 0x700",
    ".irp register, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102",
    "mov ecx, \\register",
    "movzx eax, cl",
    "xor edx, edx",
    "wrmsr",
    ".endr",
    "mov ecx, 0xc0000082",
    "rdmsr",
    "mov dword ptr [0x800], eax",
    "mov edx, 0x10000",
    "wrmsr",
    "hlt",
    ".org portico_guest_code + 0x5f0",
    "inc dword ptr [0x820]",
    "hlt",
    // 0x600: reads the clock.
    ".org portico_guest_code + 0x600",
    "rdtsc",
    "mov dword ptr [0x800], eax",
    "mov dword ptr [0x804], edx",
    "hlt",
    // 0x680: puts a number into a vector register, waits, and looks at it again.
    ".org portico_guest_code + 0x680",
    "mov eax, 0x1234abcd",
    "movd xmm7, eax",
    "hlt",
    "movd eax, xmm7",
    "mov dword ptr [0x800], eax",
    "hlt",
    // 0x700: lets interrupts in.
    ".org portico_guest_code + 0x700",
    "sti",
    "nop",
    "nop",
    "hlt",
    // 0x780: waits for an interrupt right behind a CPUID, which it executes afterwards.
    ".org portico_guest_code + 0x780",
    "mov sp, 0x700",
    "sti",
    "jmp 6f",
    "5:",
    "cpuid",
    "nop",
    "6:",
    "hlt",
    "jmp 5b",
    ".org portico_guest_code + 0x1000",
    ".code64",
    ".text",
);

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// The page of guest code.
    pub(crate) static portico_guest_code: [u8; 4096];
}

/// Address of the page of guest code.
#[cfg(target_os = "none")]
pub(crate) fn guest_code() -> u64 {
    sysroot::num::address(&raw const portico_guest_code)
}

/// On the host there is none.
#[cfg(not(target_os = "none"))]
pub(crate) fn guest_code() -> u64 {
    0
}

/// Whether the processor can keep descriptor tables and machine status from user code.
pub(crate) fn has_umip() -> bool {
    core::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 2 != 0
}

/// As many null calls as a loop makes.
///
/// # Safety
/// None needed: the call does nothing.
pub(crate) fn null_call() {
    // SAFETY: an unknown number changes nothing.
    let _ = unsafe { sysroot::arch::syscall2(0xff, 0, 0) };
}

/// Puts a value into the widest vector register that the kernel keeps, of which there is `ymm7` or
/// `xmm7`.
///
/// # Safety
/// The thread may use the FPU; nothing else of the program does.
#[cfg(target_os = "none")]
pub(crate) unsafe fn set_vector(value: &[u64; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        if has_avx() {
            core::arch::asm!("vmovdqu ymm7, [{}]", in(reg) value, options(nostack, readonly, preserves_flags));
        } else {
            core::arch::asm!("movdqu xmm7, [{}]", in(reg) value, options(nostack, readonly, preserves_flags));
        }
    }
}

/// The value of that register; the upper half of `value` stays as it is where there is none.
///
/// # Safety
/// As [`set_vector`].
#[cfg(target_os = "none")]
pub(crate) unsafe fn get_vector(value: &mut [u64; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        if has_avx() {
            core::arch::asm!("vmovdqu [{}], ymm7", in(reg) value, options(nostack, preserves_flags));
        } else {
            core::arch::asm!("movdqu [{}], xmm7", in(reg) value, options(nostack, preserves_flags));
        }
    }
}

#[cfg(target_os = "none")]
fn has_avx() -> bool {
    let (xcr0, _high): (u32, u32);
    // SAFETY: XGETBV is there wherever the kernel runs.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") xcr0, out("edx") _high,
            options(nomem, nostack, preserves_flags));
    }
    xcr0 & 1 << 2 != 0
}

/// On the host there is none.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
pub(crate) unsafe fn set_vector(_: &[u64; 4]) {}

/// On the host there is none.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
pub(crate) unsafe fn get_vector(_: &mut [u64; 4]) {}
