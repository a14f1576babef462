//! x86-64: entry paths, processor set-up, interrupt controllers, virtualization.

pub mod apic;
pub mod cpu;
pub mod descriptors;
pub mod entry;
pub mod fpu;
pub mod instr;
pub mod io_bitmap;
pub mod ioapic;
pub mod layout;
pub mod msr;
pub mod percpu;
pub mod pic;
pub mod regs;
pub mod serial;
pub mod smp;
pub mod start;
pub mod tlb;
pub mod tsc;
pub mod virt;
