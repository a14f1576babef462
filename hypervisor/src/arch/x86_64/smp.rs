//! Starting the other CPUs, one after the other.
//!
//! Each one is reset and runs the trampoline below, a page under 1 MiB, which brings it to long
//! mode on the boot page tables. It then takes the CPU number on offer, which decides its stack,
//! goes over to the kernel's own tables and calls `portico_start_cpu(number)`. A CPU that comes
//! too late finds no number and halts.

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.section .rodata.trampoline, "a", @progbits
.balign 16
.code16
trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    lgdt [GDT_POINTER]
    mov eax, 0x20
    mov cr4, eax
    mov eax, [ROOT]
    mov cr3, eax
    mov ecx, 0xc0000080
    xor edx, edx
    mov eax, 0x900
    wrmsr
    mov eax, 0x80010031
    mov cr0, eax
    .byte 0x66, 0xff, 0x2e                      # far jump through a 16:32 pointer
    .short trampoline_far - trampoline
.code64
trampoline_long:
    movabs rax, offset trampoline_high
    jmp rax
.balign 8
trampoline_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
trampoline_gdt_pointer:
    .short 23
trampoline_gdt_base:
    .long trampoline_gdt - trampoline           # + page
    .balign 4
trampoline_far:
    .long trampoline_long - trampoline          # + page
    .short 8
    .balign 4
trampoline_root:
    .long boot_pml4 - 0xffffffff80000000        # + load address of the image
trampoline_end:
.set GDT_POINTER, trampoline_gdt_pointer - trampoline
.set ROOT, trampoline_root - trampoline

.text
trampoline_high:
    mov eax, 0x10
    mov ss, eax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    xor edi, edi
    xchg [rip + {offer}], di
    test edi, edi
    jz trampoline_late
    mov rax, [rip + {root}]
    mov cr3, rax
    mov eax, edi
    imul rax, rax, {window}
    movabs rsp, {stack}
    add rsp, rax
    xor ebp, ebp
    call portico_start_cpu
trampoline_late:
    cli
    hlt
    jmp trampoline_late
"#,
    offer = sym OFFER,
    root = sym ROOT,
    window = const super::layout::window::SIZE,
    stack = const super::layout::in_window(0, super::layout::window::STACK_TOP),
);

use super::{apic, tsc};
use crate::num::{low32, u64_of, usize_of};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Number for the CPU that is being started; 0 once it is taken. Relaxed: the number is all that
/// is passed.
static OFFER: AtomicU16 = AtomicU16::new(0);
/// Root of the kernel's page tables. Ordered by the start-up interrupt.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// How long a CPU may take from the start-up interrupt until it is up; a second is not always enough
/// in an emulator on a busy machine.
const ARRIVAL_US: u64 = 10_000_000;

/// Copies the trampoline to its page.
///
/// # Safety
/// The boot page tables are in use; `page` is free RAM below 1 MiB; the image is at `load_base`.
pub unsafe fn install(page: u64, load_base: u64) {
    use core::ptr::{copy_nonoverlapping, with_exposed_provenance_mut};
    unsafe extern "C" {
        static trampoline: u8;
        static trampoline_end: u8;
        static trampoline_gdt_base: u8;
        static trampoline_far: u8;
        static trampoline_root: u8;
    }
    let start = &raw const trampoline;
    let size = (&raw const trampoline_end).addr() - start.addr();
    let copy = with_exposed_provenance_mut::<u8>(usize_of(page));
    // SAFETY: the page is ours and mapped one to one; the fields patched lie in the copy and hold
    // offsets that become addresses.
    unsafe {
        copy_nonoverlapping(start, copy, size);
        for (field, base) in [
            (&raw const trampoline_gdt_base, page),
            (&raw const trampoline_far, page),
            (&raw const trampoline_root, load_base),
        ] {
            let field = copy.add(field.addr() - start.addr()).cast::<u32>();
            let address = u64::from(field.read_unaligned()) + base;
            field.write_unaligned(low32(address));
        }
    }
    debug_assert!(u64_of(size) <= super::layout::PAGE);
}

/// Starts the CPUs with these APIC ids and waits until `online` holds for their numbers, which
/// count from 1. Returns how many CPUs run then, the boot CPU included.
///
/// # Safety
/// Called once, on the boot CPU, which runs on `root` with its APIC set up; [`install`] prepared
/// the page; `root` holds a window for as many CPUs.
pub unsafe fn start(apic_ids: &[u32], page: u64, root: u64, online: fn(u16) -> bool) -> u16 {
    ROOT.store(root, Ordering::Release);
    for &id in apic_ids {
        // SAFETY: the CPU is not started yet.
        unsafe { apic::send_init(id) };
    }
    // The wait that the MP specification asks for between INIT and start-up.
    tsc::wait_us(10_000, || false);
    let mut running = 1;
    for &id in apic_ids {
        OFFER.store(running, Ordering::Relaxed);
        let is_up = [200, ARRIVAL_US].into_iter().any(|us| {
            // SAFETY: the page holds the trampoline; a CPU that runs already ignores the second.
            unsafe { apic::send_startup(id, page) };
            tsc::wait_us(us, || online(running))
        });
        if is_up {
            running += 1;
            continue;
        }
        crate::log!("warning: the CPU with APIC id {id} does not start");
        // SAFETY: it is left out from now on; waiting for start-up again, it cannot come late.
        unsafe { apic::send_init(id) };
        if OFFER.swap(0, Ordering::Relaxed) == 0 {
            // It died on the way. CPU numbers have no gaps: whoever is left is left out too.
            break;
        }
    }
    running
}
