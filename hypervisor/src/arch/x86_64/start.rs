//! From the boot loader's 32-bit entry to Rust in long mode at the link address.
//!
//! Multiboot2 leaves the CPU in 32-bit protected mode without paging, on BIOS and on UEFI alike.
//! The code below runs wherever the loader put the image (2 MiB aligned, below 4 GiB): it finds
//! that address, maps the first 4 GiB one to one and the image at its link address, and calls
//! `kernel_start(boot information, load address)` on the boot stack with interrupts off.

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.set IMAGE_BASE, 0xffffffff80000000
.set LOAD_BASE, 0x1000000

# ---- Multiboot2 header (specification 3.1) ----
.section .multiboot2, "a", @progbits
.balign 8
header:
    .long 0xe85250d6                            # magic
    .long 0                                     # i386 protected mode
    .long header_end - header
    .long -(0xe85250d6 + (header_end - header))
    .balign 8
    .short 6, 0                                 # modules on page boundaries
    .long 8
    .balign 8
    .short 10, 0                                # relocatable: lowest possible from 16 MiB on
    .long 24
    .long 0x1000000, 0xffffffff, 0x200000, 1
    .balign 8
    .short 0, 0
    .long 8
header_end:

# ---- Boot page tables, stack, segments ----
.section .boot.bss, "aw", @nobits
.balign 4096
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pd:        .skip 5 * 4096
.skip 8 * 4096
boot_stack_top:

.section .data.boot, "aw", @progbits
.balign 8
boot_gdt:       .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long 0

# ---- 32-bit entry: eax = magic, ebx = boot information ----
.section .boot.text, "ax", @progbits
.code32
.global start32
start32:
    cli
    cld
    cmp eax, 0x36d76289
    jne boot_fail
    mov esi, ebx
    # There is no stack yet, and where we are is known only to a call. The second word of the boot
    # information is reserved: it takes the return address.
    lea esp, [ebx + 8]
    call start_here
start_here:
    pop ebp
    sub ebp, offset start_here - IMAGE_BASE     # ebp = load address
    lea esp, [ebp + boot_stack_top - IMAGE_BASE]

    # Long mode and NX or nothing.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb boot_unable
    mov eax, 0x80000001
    cpuid
    and edx, (1 << 29) | (1 << 20)
    cmp edx, (1 << 29) | (1 << 20)
    jne boot_unable

    # First 4 GiB one to one, then 16 MiB of image, in 2 MiB pages.
    lea edi, [ebp + boot_pd - IMAGE_BASE]
    mov eax, 0x83
    mov edx, 0x200000
    mov ecx, 2048
    call fill
    lea eax, [ebp + 0x83]
    mov ecx, 8
    call fill
    # The upper levels: both ends of the address space share a table, and the fifth page directory
    # is that of the link address.
    lea edi, [ebp + boot_pdpt - IMAGE_BASE]
    lea eax, [ebp + boot_pd - IMAGE_BASE + 3]
    mov edx, 0x1000
    mov ecx, 4
    call fill
    mov [edi + 506 * 8], eax
    lea edi, [ebp + boot_pml4 - IMAGE_BASE]
    lea eax, [ebp + boot_pdpt - IMAGE_BASE + 3]
    mov [edi], eax
    mov [edi + 511 * 8], eax

    # Long mode: PAE, tables, LME and NXE, paging with write protection.
    mov eax, 0x20
    mov cr4, eax
    mov cr3, edi
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010031
    mov cr0, eax
    lea eax, [ebp + boot_gdt - IMAGE_BASE]
    mov [ebp + boot_gdt_pointer - IMAGE_BASE + 2], eax
    lgdt [ebp + boot_gdt_pointer - IMAGE_BASE]
    lea eax, [ebp + start64 - IMAGE_BASE]
    push 8
    push eax
    retf

fill:
    mov [edi], eax
    add edi, 8
    add eax, edx
    loop fill
    ret

boot_unable:
    lea esi, [ebp + boot_message - IMAGE_BASE]
boot_say:
    mov dx, 0x3fd                               # the first serial port, once it is ready
    in al, dx
    test al, 0x20
    jz boot_say
    mov dx, 0x3f8
    outsb
    cmp byte ptr [esi], 0
    jne boot_say
boot_fail:
    hlt
    jmp boot_fail
boot_message:
    .asciz "Portico cannot start: the processor has no 64-bit mode, or no NX\r\n"

.code64
start64:
    movabs rax, offset start_high
    jmp rax
start_high:
    mov eax, 0x10
    mov ss, eax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [rip + boot_stack_top]
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rip + {boot_tsc}], rax
    mov edi, esi
    mov esi, ebp
    xor ebp, ebp
    call kernel_start
    ud2
"#,
    boot_tsc = sym super::tsc::BOOT_TSC,
);

/// Addresses in the image where permissions change, as offsets from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayout {
    /// First byte of the read-only data; code lies before it.
    pub rodata: u64,
    /// First byte of the writable data.
    pub data: u64,
    /// Boot page tables and boot stack, of no use later.
    pub boot: u64,
    /// End of the image; everything is page aligned.
    pub end: u64,
}

/// Where permissions change in this image.
pub fn image_layout() -> ImageLayout {
    unsafe extern "C" {
        static image_rodata: u8;
        static image_data: u8;
        static image_boot: u8;
        static image_end: u8;
    }
    let offset = |symbol: *const u8| crate::num::u64_of(symbol.addr()) - super::layout::IMAGE_BASE;
    ImageLayout {
        rodata: offset(&raw const image_rodata),
        data: offset(&raw const image_data),
        boot: offset(&raw const image_boot),
        end: offset(&raw const image_end),
    }
}

/// Leaves boot page tables and boot stack: loads `root`, moves to the stack that ends at
/// `stack_top` and calls `entry`.
///
/// # Safety
/// `root` maps kernel image and stack; nothing on the old stack or below 4 GiB is used any more.
pub unsafe fn enter(root: u64, stack_top: u64, entry: extern "sysv64" fn() -> !) -> ! {
    // SAFETY: by contract both address space and stack are good; a call never returns.
    unsafe {
        core::arch::asm!(
            "mov cr3, {root}",
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {entry}",
            "ud2",
            root = in(reg) root,
            stack = in(reg) stack_top,
            entry = in(reg) entry,
            options(noreturn),
        )
    }
}
