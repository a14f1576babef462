//! Where things are in the kernel's half of every address space.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 1 << 21;

/// First PML4 slot that every address space shares with the kernel.
pub const FIRST_KERNEL_SLOT: usize = 509;
/// Per-CPU windows, one after the other.
pub const CPU_BASE: u64 = 0xffff_fe80_0000_0000;
/// Registers of interrupt controllers, a page each.
pub const MMIO_BASE: u64 = CPU_BASE + 0x40_0000_0000;
/// Local APIC registers.
pub const LAPIC_BASE: u64 = MMIO_BASE;
/// Registers of the first I/O APIC; each further one is a page higher.
pub const IOAPIC_BASE: u64 = MMIO_BASE + PAGE;
/// All kernel memory, linearly.
pub const POOL_BASE: u64 = 0xffff_ff00_0000_0000;
/// The kernel image.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// Physical memory below this address is what the boot page tables map one to one.
pub const BOOT_IDENTITY_END: u64 = 1 << 32;

/// The address of something at an offset of [`window`], in the window of a CPU by its number.
pub const fn in_window(cpu: usize, offset: u64) -> u64 {
    CPU_BASE + crate::num::u64_of(cpu) * window::SIZE + offset
}

/// What a CPU has in its window. Whatever is not named is never mapped, so that every stack ends
/// in a guard page.
pub mod window {
    use super::PAGE;

    /// Bytes from one CPU's window to the next one's.
    pub const SIZE: u64 = 32 * PAGE;
    /// Kernel stack: first byte and end.
    pub const STACK: (u64, u64) = (PAGE, 5 * PAGE);
    /// The stack pointer of an empty kernel stack.
    pub const STACK_TOP: u64 = STACK.1;
    /// Stacks of NMI, double fault and machine check (IST 1 to 3): first byte and end.
    pub const IST: [(u64, u64); 3] =
        [(6 * PAGE, 8 * PAGE), (9 * PAGE, 11 * PAGE), (12 * PAGE, 14 * PAGE)];
    /// Page of the per-CPU structure, where GS points while in the kernel.
    pub const PERCPU: u64 = 15 * PAGE;
    /// Page of TSS and GDT: the page after [`PERCPU`].
    pub const TSS: u64 = 16 * PAGE;
    /// I/O permission bitmap: two pages that can be switched.
    pub const IO_BITMAP: u64 = 17 * PAGE;
    /// Page of ones behind the bitmap; the processor reads one byte past the bitmap's end.
    pub const IO_BITMAP_END: u64 = 19 * PAGE;
    /// Control page of the trace, the same for all CPUs, and the ring of this one behind it.
    pub const TRACE: u64 = 20 * PAGE;
}

const _: () =
    assert!(crate::num::u64_of(ipc::info::MAX_CPUS) * window::SIZE <= MMIO_BASE - CPU_BASE);

/// Bits of an address in the user half.
pub const USER_MASK: u64 = (1 << 47) - 1;

/// Whether user code may be at an address: neither in the first nor in the last page of the user
/// half, which are never mapped. (`syscall` at the very end of it would return to an address that
/// SYSRET faults on in ring 0, with the user's stack.)
pub const fn is_user(address: u64) -> bool {
    address >= PAGE && address <= USER_MASK - PAGE
}
