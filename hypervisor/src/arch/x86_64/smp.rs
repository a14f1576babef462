//! Starting the other CPUs.
//!
//! Each one is reset and runs the trampoline below, a page under 1 MiB, which brings it to long
//! mode on the boot page tables. It then takes the next free CPU number, which decides its stack,
//! and goes over to the kernel's own tables. A CPU that comes too late finds no number and halts.

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
    mov edi, 1
    lock xadd [rip + {next}], edi
    cmp edi, {max}
    jae trampoline_late
    mov rax, [rip + {root}]
    mov cr3, rax
    mov eax, edi
    imul rax, rax, {window}
    movabs rsp, {stack}
    add rsp, rax
    xor ebp, ebp
    call {entry}
trampoline_late:
    cli
    hlt
    jmp trampoline_late
"#,
    next = sym NEXT_CPU,
    root = sym ROOT,
    entry = sym ap_entry,
    max = const ipc::info::MAX_CPUS,
    window = const super::layout::window::SIZE,
    stack = const super::layout::CpuWindow::new(0).stack_top(),
);

use super::{apic, cpu, instr, tsc};
use crate::num::{low32, u64_of, usize_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use heapless::Vec;
use ipc::info::MAX_CPUS;
use spin::Once;

/// Number for the next CPU that arrives. Relaxed: the number is all that is passed.
static NEXT_CPU: AtomicU32 = AtomicU32::new(1);
/// A value from which on nobody gets a number, and that late arrivals cannot bring to overflow.
const CLOSED: u32 = 0x4000_0000;
/// Root of the kernel's page tables. Ordered by the start-up interrupt.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// What started CPUs run. Ordered by the start-up interrupt.
static ENTRY: Once<extern "sysv64" fn(usize) -> !> = Once::new();
/// APIC id + 1 of each CPU that is up: released by it when its set-up is done, acquired by the
/// boot CPU.
static ARRIVED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// How many CPUs there are in the end; 0 until that is known. Whoever has a number below it goes on.
/// Released by the boot CPU after it has counted, acquired by the others.
static RELEASED: AtomicU32 = AtomicU32::new(0);

/// How long a CPU may take from the start-up interrupt to its arrival.
const ARRIVAL_US: u64 = 1_000_000;

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

/// Starts the CPUs with these APIC ids; each runs `entry(its number)` with [`cpu::init`] and
/// [`apic::init_cpu`] done. Returns the APIC ids of those that came up, for CPU numbers 1 and up.
///
/// # Safety
/// Called once, on the boot CPU, which runs on `root` with its APIC set up; [`install`] prepared
/// the page; `root` holds a window for as many CPUs.
pub unsafe fn start(
    apic_ids: &[u32],
    page: u64,
    root: u64,
    entry: extern "sysv64" fn(usize) -> !,
) -> Vec<u32, MAX_CPUS> {
    ROOT.store(root, Ordering::Release);
    ENTRY.call_once(|| entry);
    for &id in apic_ids {
        // SAFETY: the CPU is not started yet.
        unsafe { apic::send_init(id) };
    }
    // The wait that the MP specification asks for between INIT and start-up.
    tsc::wait_us(10_000, || false);
    let mut expected = 1;
    for &id in apic_ids {
        let arrived = || NEXT_CPU.load(Ordering::Relaxed) > expected;
        // SAFETY: the page holds the trampoline.
        unsafe { apic::send_startup(id, page) };
        if !tsc::wait_us(200, arrived) {
            // SAFETY: as above; a CPU that already runs ignores the second one.
            unsafe { apic::send_startup(id, page) };
            if !tsc::wait_us(ARRIVAL_US, arrived) {
                crate::log!("warning: the CPU with APIC id {id} does not start");
            }
        }
        expected = NEXT_CPU.load(Ordering::Relaxed);
    }
    let numbers = NEXT_CPU.swap(CLOSED, Ordering::Relaxed);
    let mut up = Vec::new();
    for slot in ARRIVED.iter().take(usize_of(numbers.into())).skip(1) {
        let mut id = 0;
        tsc::wait_us(ARRIVAL_US, || {
            id = slot.load(Ordering::Acquire);
            id != 0
        });
        match u32::try_from(id.wrapping_sub(1)) {
            // Cannot overflow: there are as many slots as places.
            Ok(id) => drop(up.push(id)),
            // It died on the way. CPU numbers have no gaps: whoever came after it is left out too.
            Err(_) => break,
        }
    }
    RELEASED.store(low32(u64_of(up.len())) + 1, Ordering::Release);
    up
}

/// First Rust code of a started CPU, on its own stack and the kernel's page tables.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "the trampoline calls it"))]
extern "sysv64" fn ap_entry(number: u32) -> ! {
    let cpu = usize_of(number.into());
    // SAFETY: this is the one CPU with this number, interrupts are off, and the boot CPU prepared
    // interrupt vectors and APIC mode before it sent the start-up interrupt.
    unsafe {
        cpu::init(cpu);
        apic::init_cpu();
    }
    if let Some(slot) = ARRIVED.get(cpu) {
        slot.store(u64::from(apic::id()) + 1, Ordering::Release);
    }
    loop {
        match (RELEASED.load(Ordering::Acquire), ENTRY.get()) {
            (0, _) => instr::pause(),
            (count, Some(entry)) if number < count => entry(cpu),
            _ => instr::halt_forever(),
        }
    }
}
