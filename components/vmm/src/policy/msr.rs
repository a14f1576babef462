//! What a guest may do with each model-specific register, and why.
//!
//! Registers that the processor switches with the guest (FS and GS base, SYSCALL and SYSENTER
//! registers, PAT where it is virtualized) do not exit and are not listed.

use crate::devices::pvclock;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads as this; writes are ignored.
    Constant(u64),
    /// Reads as this; writes raise #GP.
    ReadOnly(u64),
    /// Any access raises #GP, as on a processor that lacks it.
    Absent,
    /// Time-stamp counter.
    Tsc,
    /// `IA32_TSC_DEADLINE`.
    TscDeadline,
    /// `IA32_TSC_AUX`.
    TscAux,
    /// `IA32_APIC_BASE`.
    ApicBase,
    /// A register of the local APIC in x2APIC mode.
    X2Apic,
    /// `EFER`.
    Efer,
    /// `IA32_PAT`.
    Pat,
    /// `IA32_MTRR_DEF_TYPE`.
    MtrrDefault,
    /// Wall clock of the paravirtual interface.
    KvmWallClock,
    /// System time of the paravirtual interface.
    KvmSystemTime,
    /// Silent end of interrupt.
    KvmEoi,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// First register.
    pub first: u32,
    /// Last register.
    pub last: u32,
    /// What an access does.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

const fn one(register: u32, action: Action, reason: &'static str) -> Entry {
    Entry { first: register, last: register, action, reason }
}

const fn range(first: u32, last: u32, action: Action, reason: &'static str) -> Entry {
    Entry { first, last, action, reason }
}

/// Fast strings; branch trace and precise event based sampling unavailable.
const MISC_ENABLE: u64 = 1 | 1 << 11 | 1 << 12;
/// Microcode revision: Intel's in the upper half, AMD's in the lower one.
const MICROCODE: u64 = 0x1_0100_0065;
/// The TSC counts with the frequency of P-state 0.
const HWCR: u64 = 1 << 24;
/// LFENCE serializes.
const DE_CFG: u64 = 1 << 1;

/// The table, sorted by register.
pub const TABLE: &[Entry] = &[
    one(0x010, Action::Tsc, "moves the guest's time against the host's"),
    range(0x011, 0x012, Action::Absent, "old paravirtual clock: the feature bit is clear"),
    one(0x017, Action::Constant(0), "platform id: read to choose microcode"),
    one(0x01b, Action::ApicBase, "mode of the local APIC"),
    one(0x034, Action::Absent, "no SMI"),
    one(0x03a, Action::ReadOnly(1), "feature control: locked, no VMX"),
    one(0x03b, Action::Absent, "TSC adjust: hidden, the TSC register does it"),
    range(
        0x048,
        0x049,
        Action::Absent,
        "speculation control: hidden, the kernel does not switch it",
    ),
    range(0x04e, 0x04f, Action::Absent, "no serial number"),
    one(0x079, Action::Constant(0), "microcode update: accepted and dropped"),
    one(0x08b, Action::Constant(MICROCODE), "microcode revision: new enough for every check"),
    range(0x0c1, 0x0c8, Action::Absent, "no performance counters"),
    one(0x0ce, Action::Absent, "platform info: frequencies are in CPUID"),
    range(0x0e7, 0x0e8, Action::Absent, "no APERF/MPERF"),
    one(0x0fe, Action::ReadOnly(0), "MTRR capabilities: no ranges, only the default type"),
    one(0x10a, Action::Absent, "architectural capabilities: hidden"),
    one(0x122, Action::Absent, "TSX control: TSX is hidden"),
    one(0x140, Action::Absent, "misc features: no CPUID faulting"),
    range(0x179, 0x17b, Action::Absent, "machine check: hidden"),
    range(0x186, 0x18d, Action::Absent, "no performance counters"),
    range(0x198, 0x19c, Action::Absent, "no power or thermal management"),
    one(0x1a0, Action::Constant(MISC_ENABLE), "fixed features; writes have no effect"),
    range(0x1a2, 0x1a7, Action::Absent, "no thermal management or offcore counters"),
    one(0x1ad, Action::Absent, "no turbo ratios"),
    range(0x1b0, 0x1b2, Action::Absent, "no energy hints or package thermal state"),
    one(0x1c8, Action::Absent, "no branch records"),
    one(0x1d9, Action::Constant(0), "debug control: no branch tracing"),
    range(0x1db, 0x1de, Action::Constant(0), "last branch: none recorded"),
    one(0x1fc, Action::Absent, "no power control"),
    range(0x200, 0x20f, Action::Absent, "no variable MTRRs"),
    range(0x250, 0x26f, Action::Absent, "no fixed MTRRs"),
    one(0x277, Action::Pat, "memory types of the guest's own page tables"),
    one(0x2ff, Action::MtrrDefault, "write-back; what is written is kept and has no effect"),
    range(0x309, 0x30b, Action::Absent, "no performance counters"),
    range(0x345, 0x345, Action::Absent, "no performance counters"),
    range(0x38d, 0x396, Action::Absent, "no performance counters"),
    range(0x400, 0x47f, Action::Absent, "machine check: hidden"),
    range(0x480, 0x493, Action::Absent, "VMX: hidden"),
    range(0x4c1, 0x4c8, Action::Absent, "no performance counters"),
    range(0x560, 0x587, Action::Absent, "no processor trace"),
    range(0x601, 0x64f, Action::Absent, "no power limits or energy counters"),
    one(0x6e0, Action::TscDeadline, "timer of the local APIC"),
    range(0x800, 0x8ff, Action::X2Apic, "local APIC"),
    one(0xc80, Action::Absent, "no debug interface"),
    one(0xda0, Action::Absent, "XSAVES is hidden"),
    range(0x4000_0000, 0x4000_00ff, Action::Absent, "no Hyper-V interface"),
    one(pvclock::MSR_WALL_CLOCK, Action::KvmWallClock, "time of day at start"),
    one(pvclock::MSR_SYSTEM_TIME, Action::KvmSystemTime, "clock without exits"),
    range(0x4b56_4d02, 0x4b56_4d03, Action::Absent, "async page faults, steal time: not offered"),
    one(pvclock::MSR_PV_EOI, Action::KvmEoi, "end of interrupt without exits"),
    range(0x4b56_4d05, 0x4b56_4dff, Action::Absent, "not offered"),
    one(0xc000_0080, Action::Efer, "long mode and NX; validated by the kernel"),
    one(0xc000_0103, Action::TscAux, "RDTSCP and RDPID"),
    one(0xc000_0104, Action::Absent, "no TSC ratio: SVM is hidden"),
    range(0xc000_0e80, 0xc000_0eff, Action::Absent, "no instruction or power counters"),
    range(0xc001_0000, 0xc001_0007, Action::Absent, "no performance counters"),
    one(0xc001_0010, Action::Constant(0), "SYSCFG: no memory encryption, no TOM2"),
    one(0xc001_0015, Action::Constant(HWCR), "HWCR: the TSC is invariant"),
    range(0xc001_0016, 0xc001_0019, Action::Constant(0), "no I/O range registers"),
    range(0xc001_001a, 0xc001_001d, Action::Constant(0), "top of memory: the memory map says it"),
    one(0xc001_001f, Action::Constant(0), "northbridge configuration: no extended config space"),
    one(0xc001_0020, Action::Constant(0), "microcode loader: accepted and dropped"),
    range(0xc001_0022, 0xc001_0027, Action::Absent, "no machine check or thermal control"),
    range(0xc001_0030, 0xc001_0035, Action::Constant(0), "processor name: CPUID has it"),
    one(0xc001_0055, Action::Constant(0), "no C1E"),
    one(0xc001_0058, Action::Constant(0), "no PCI configuration in memory"),
    range(0xc001_0061, 0xc001_0071, Action::Absent, "no P-states"),
    range(0xc001_0111, 0xc001_0113, Action::Constant(0), "no SMM"),
    range(0xc001_0114, 0xc001_0118, Action::Absent, "SVM: hidden"),
    one(0xc001_011f, Action::Absent, "speculation control: hidden"),
    range(0xc001_0130, 0xc001_0131, Action::Absent, "no memory encryption"),
    range(0xc001_0140, 0xc001_0141, Action::Absent, "OS-visible workarounds: hidden"),
    range(0xc001_0200, 0xc001_020b, Action::Absent, "no performance counters"),
    range(0xc001_0230, 0xc001_0247, Action::Absent, "no performance counters"),
    range(0xc001_0280, 0xc001_02b3, Action::Absent, "no time stamp or power counters"),
    range(0xc001_1000, 0xc001_1007, Action::Absent, "CPUID overrides: hidden"),
    range(0xc001_1020, 0xc001_1023, Action::Constant(0), "workaround switches: none needed"),
    one(0xc001_1028, Action::Constant(0), "workaround switches: none needed"),
    one(0xc001_1029, Action::Constant(DE_CFG), "LFENCE serializes"),
    range(0xc001_102a, 0xc001_102d, Action::Constant(0), "workaround switches: none needed"),
    range(0xc001_1030, 0xc001_103d, Action::Absent, "no instruction based sampling"),
];

/// The entry for a register; `None` for one that nobody thought of.
#[must_use]
pub fn lookup(register: u32) -> Option<&'static Entry> {
    let after = TABLE.partition_point(|entry| entry.first <= register);
    TABLE.get(after.checked_sub(1)?).filter(|entry| register <= entry.last)
}

#[cfg(test)]
mod tests;
