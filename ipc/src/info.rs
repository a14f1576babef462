//! The information page: what the kernel tells the root task about the machine.
//!
//! One page, mapped read-only into the root task; its address is in `rdi` when the root task
//! starts (`rsi` holds the address of its UTCB). Every list ends where its count says.

use bitflags::bitflags;

/// First word of the page: "PORTICO" and a zero byte, little endian.
pub const MAGIC: u64 = 0x004f_4349_5452_4f50;

/// Capacity of the CPU list.
pub const MAX_CPUS: usize = 64;
/// Capacity of the memory list.
pub const MAX_MEMORY: usize = 48;
/// Capacity of the module list.
pub const MAX_MODULES: usize = 32;
/// Bytes of a module's name.
pub const NAME_LEN: usize = 32;

bitflags! {
    /// What machine and kernel can do.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Guests can run.
        const VIRTUALIZATION = 1 << 0;
        /// Local APICs are in x2APIC mode.
        const X2APIC = 1 << 1;
        /// The TSC-deadline timer is used.
        const TSC_DEADLINE = 1 << 2;
        /// Guests can use 1 GiB nested pages.
        const NESTED_1G = 1 << 3;
        /// The TLB keeps what it holds of a domain while others run.
        const TAGGED_TLB = 1 << 4;
    }
}

/// Selectors that the root task starts with.
pub mod root {
    use crate::cap::Selector;

    /// Its own protection domain.
    pub const PD: Selector = Selector(1);
    /// Its own execution context.
    pub const EC: Selector = Selector(2);
    /// Its own scheduling context.
    pub const SC: Selector = Selector(3);
    /// Event base of its execution context.
    pub const EVENTS: Selector = Selector(32);
    /// Interrupt `n` (GSI, then the vectors for message-signalled interrupts) is at this + n.
    pub const INTERRUPTS: Selector = Selector(128);
    /// First selector that is free.
    pub const FREE: Selector = Selector(1024);
}

/// A logical CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cpu {
    /// Local APIC id.
    pub apic_id: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

numbered! {
    /// Kind of a memory range.
    pub enum MemoryKind: u8 {
        /// Free RAM, held by the root task.
        Free = 0,
        /// A boot module (RAM, held by the root task).
        Module = 1,
        /// Used by the kernel, or the root task's image; held by nobody at this address.
        Kernel = 2,
        /// ACPI tables and other firmware data, readable by the root task.
        Firmware = 3,
        /// Not RAM: device memory, held uncached by the root task.
        Device = 4,
        /// What the kernel counts and records, at this address in the root task: see
        /// [`crate::trace`].
        Trace = 5,
    }
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Memory {
    /// First byte.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// Number of a [`MemoryKind`].
    pub kind: u64,
}

/// A boot module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Module {
    /// Physical address, page aligned; the root task finds it at the same virtual address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// Name: the module's command line, cut at [`NAME_LEN`] bytes, zero padded.
    pub name: [u8; NAME_LEN],
}

impl Module {
    /// The name as text; empty where it is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
        self.name.get(..len).and_then(|n| core::str::from_utf8(n).ok()).unwrap_or("")
    }
}

/// Layout of the information page.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Info {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// Number of valid entries in `cpus`.
    pub cpu_count: u32,
    /// [`Features`] bits.
    pub features: u64,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// TSC value when the kernel was entered.
    pub boot_tsc: u64,
    /// Physical address of the ACPI RSDP; 0 where there is none.
    pub rsdp: u64,
    /// Number of interrupt selectors from [`root::INTERRUPTS`] on: first the GSIs.
    pub interrupt_count: u32,
    /// How many of them are GSIs; the rest are for message-signalled interrupts.
    pub gsi_count: u32,
    /// Kernel memory quota of the root task in pages.
    pub quota: u64,
    /// Number of valid entries in `memory`.
    pub memory_count: u32,
    /// Number of valid entries in `modules`.
    pub module_count: u32,
    /// Interrupt source overrides by ISA line: GSI in bits 0..16, bit 16 level, bit 17 active low.
    pub isa_irqs: [u32; 16],
    /// CPUs; the index is the CPU number of the system calls.
    pub cpus: [Cpu; MAX_CPUS],
    /// Physical memory, sorted by base.
    pub memory: [Memory; MAX_MEMORY],
    /// Boot modules; the root task's own image is not among them.
    pub modules: [Module; MAX_MODULES],
}

const _: () = assert!(core::mem::size_of::<Info>() == 4096);

impl Info {
    /// Whether the page is one that this version of the interface can read.
    #[must_use]
    pub const fn is_compatible(&self) -> bool {
        self.magic == MAGIC && self.abi_version == crate::ABI_VERSION
    }

    /// What machine and kernel can do, as far as this version of the interface knows it.
    #[must_use]
    pub const fn features(&self) -> Features {
        Features::from_bits_truncate(self.features)
    }

    /// The CPUs.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        prefix(&self.cpus, self.cpu_count)
    }

    /// The memory ranges.
    #[must_use]
    pub fn memory(&self) -> &[Memory] {
        prefix(&self.memory, self.memory_count)
    }

    /// The boot modules.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        prefix(&self.modules, self.module_count)
    }
}

fn prefix<T>(list: &[T], count: u32) -> &[T] {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(list.len());
    list.get(..count).unwrap_or(list)
}
