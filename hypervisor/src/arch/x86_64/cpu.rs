//! What the processor can do, and the control registers that switch it on.

use super::descriptors::{self, KERNEL_CODE, STAR_SYSRET};
use super::{entry, msr, tlb};
use crate::num::u64_of;
use raw_cpuid::CpuId;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::debug::{Dr7, Dr7Value};

/// Features that the kernel asks for later than at its start; the same on every CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// x2APIC.
    pub x2apic: bool,
    /// TSC-deadline mode of the local APIC timer.
    pub tsc_deadline: bool,
    /// 1 GiB pages.
    pub huge_pages: bool,
    /// Width of a physical address.
    pub physical_bits: u8,
}

static FEATURES: Once<Features> = Once::new();

/// The features of this machine.
pub fn features() -> &'static Features {
    FEATURES.call_once(|| {
        let cpuid = CpuId::new();
        let basic = cpuid.get_feature_info();
        let amd = cpuid.get_extended_processor_and_feature_identifiers();
        let capacity = cpuid.get_processor_capacity_feature_info();
        Features {
            x2apic: basic.as_ref().is_some_and(|f| f.has_x2apic()),
            tsc_deadline: basic.as_ref().is_some_and(|f| f.has_tsc_deadline()),
            huge_pages: amd.is_some_and(|f| f.has_1gib_pages()),
            physical_bits: capacity.map_or(36, |f| f.physical_address_bits()),
        }
    })
}

/// APIC id of this CPU as CPUID tells it: good until the local APIC can be asked.
pub fn initial_apic_id() -> u32 {
    let cpuid = CpuId::new();
    let long = cpuid.get_extended_topology_info().and_then(|mut levels| levels.next());
    let short = || cpuid.get_feature_info().map_or(0, |f| f.initial_local_apic_id());
    long.map_or_else(|| u32::from(short()), |level| level.x2apic_id())
}

/// Page attributes by the PWT (1) and PCD (2) bits of a page-table entry; the PAT bit changes
/// nothing, so that it may be anything in entries of any level.
/// 0 write-back, 1 write-combining, 2 uncached unless an MTRR combines, 3 uncached.
const PAGE_ATTRIBUTES: u64 = 0x0007_0106_0007_0106;

/// Selectors of SYSRET and SYSCALL.
const STAR: u64 = (STAR_SYSRET as u64) << 48 | (KERNEL_CODE as u64) << 32;
const EFER_SCE: u64 = 1 << 0;
/// RFLAGS bits that SYSCALL clears: TF, IF, DF, IOPL, NT, AC.
const SYSCALL_MASK: u64 = 0x4_7700;

/// Sets up this CPU: control registers, page attributes, GDT, TSS, IDT and the entry of SYSCALL.
/// SYSENTER stays off. FPU use traps.
///
/// # Safety
/// Runs on the final kernel page tables, once per CPU, with interrupts off; `cpu` is the number
/// of this CPU and of no other. [`descriptors::install_vectors`] was called before.
pub unsafe fn init(cpu: usize) {
    let cpuid = CpuId::new();
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::DEBUGGING_EXTENSIONS
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    if let Some(has) = cpuid.get_feature_info() {
        cr4.set(Cr4Flags::PCID, has.has_pcid());
        cr4.set(Cr4Flags::OSXSAVE, has.has_xsave());
        cr4.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, has.has_mce());
    }
    if let Some(has) = cpuid.get_extended_feature_info() {
        cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, has.has_smep());
        cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, has.has_smap());
        cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, has.has_umip());
    }
    let cr0 = Cr0Flags::PAGING
        | Cr0Flags::PROTECTED_MODE_ENABLE
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::ALIGNMENT_MASK
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::EXTENSION_TYPE
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::TASK_SWITCHED;
    // SAFETY: every bit is supported; the caller runs on tables that obey NX, WP and SMEP, and the
    // kernel's pages are supervisor pages. CR3 holds PCID 0 when PCIDE is set.
    unsafe {
        Cr0::write_raw(cr0.bits());
        Cr4::write_raw(cr4.bits());
        if cr4.contains(Cr4Flags::PCID) {
            tlb::use_pcids();
        }
        // Whatever firmware has left there: a debug exception has no stack of its own.
        Dr7::write(Dr7Value::from_bits_truncate(0));
        msr::write(msr::PAT, PAGE_ATTRIBUTES);
        descriptors::load(cpu);
        msr::write(msr::STAR, STAR);
        msr::write(msr::LSTAR, u64_of(entry::syscall_entry as *const () as usize));
        msr::write(msr::SFMASK, SYSCALL_MASK);
        msr::write(msr::EFER, msr::read(msr::EFER) | EFER_SCE);
        // On AMD CPUs SYSENTER does not exist in long mode; on Intel a zero selector makes it #GP.
        msr::write(msr::SYSENTER_CS, 0);
    }
}
