//! Model-specific registers: numbers and access.

use x86_64::registers::model_specific::Msr;

/// Local APIC base and mode.
pub const APIC_BASE: u32 = 0x1b;
/// SYSENTER code segment; zero switches SYSENTER off.
pub const SYSENTER_CS: u32 = 0x174;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// Absolute deadline of the local APIC timer.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register.
pub const X2APIC: u32 = 0x800;
/// Extended features: long mode, NX, SYSCALL, SVM.
pub const EFER: u32 = 0xc000_0080;
/// Segments of SYSCALL and SYSRET.
pub const STAR: u32 = 0xc000_0081;
/// Entry point of SYSCALL.
pub const LSTAR: u32 = 0xc000_0082;
/// Entry point of SYSCALL in compatibility mode, where the processor has that.
pub const CSTAR: u32 = 0xc000_0083;
/// RFLAGS bits that SYSCALL clears.
pub const SFMASK: u32 = 0xc000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xc000_0101;
/// The GS base that SWAPGS exchanges.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// TSC_AUX, which RDTSCP and RDPID return.
pub const TSC_AUX: u32 = 0xc000_0103;

/// Reads a register.
///
/// # Safety
/// The register exists and reading it has no side effect that matters.
pub unsafe fn read(msr: u32) -> u64 {
    // SAFETY: the caller knows the register.
    unsafe { Msr::new(msr).read() }
}

/// Writes a register.
///
/// # Safety
/// The register exists and the kernel goes on to work with the new value.
pub unsafe fn write(msr: u32, value: u64) {
    // SAFETY: the caller knows the register and the value.
    unsafe { Msr::new(msr).write(value) }
}
