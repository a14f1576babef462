//! What the processor can do, and the control registers that switch it on.

use super::layout::CpuWindow;
use super::{descriptors, msr};
use raw_cpuid::CpuId;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

/// Features that the kernel uses; the same on every CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Tagged TLB.
    pub pcid: bool,
    /// INVPCID.
    pub invpcid: bool,
    /// No execution of user pages in the kernel.
    pub smep: bool,
    /// No access to user pages in the kernel.
    pub smap: bool,
    /// User code cannot read descriptor-table registers.
    pub umip: bool,
    /// XSAVE.
    pub xsave: bool,
    /// x2APIC.
    pub x2apic: bool,
    /// TSC-deadline mode of the local APIC timer.
    pub tsc_deadline: bool,
    /// RDTSCP and TSC_AUX.
    pub rdtscp: bool,
    /// 1 GiB pages.
    pub huge_pages: bool,
    /// Machine-check exceptions.
    pub machine_check: bool,
    /// Width of a physical address.
    pub physical_bits: u8,
}

static FEATURES: Once<Features> = Once::new();

/// The features of this machine.
pub fn features() -> &'static Features {
    FEATURES.call_once(|| {
        let cpuid = CpuId::new();
        let basic = cpuid.get_feature_info();
        let extended = cpuid.get_extended_feature_info();
        let amd = cpuid.get_extended_processor_and_feature_identifiers();
        Features {
            pcid: basic.as_ref().is_some_and(|f| f.has_pcid()),
            invpcid: extended.as_ref().is_some_and(|f| f.has_invpcid()),
            smep: extended.as_ref().is_some_and(|f| f.has_smep()),
            smap: extended.as_ref().is_some_and(|f| f.has_smap()),
            umip: extended.as_ref().is_some_and(|f| f.has_umip()),
            xsave: basic.as_ref().is_some_and(|f| f.has_xsave()),
            x2apic: basic.as_ref().is_some_and(|f| f.has_x2apic()),
            tsc_deadline: basic.as_ref().is_some_and(|f| f.has_tsc_deadline()),
            rdtscp: amd.as_ref().is_some_and(|f| f.has_rdtscp()),
            huge_pages: amd.as_ref().is_some_and(|f| f.has_1gib_pages()),
            machine_check: basic.as_ref().is_some_and(|f| f.has_mce()),
            physical_bits: cpuid
                .get_processor_capacity_feature_info()
                .map_or(36, |f| f.physical_address_bits()),
        }
    })
}

/// APIC id of this CPU as CPUID tells it: good until the local APIC can be asked.
#[must_use]
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

/// Sets up this CPU: control registers, page attributes, GDT, TSS and IDT. FPU use traps.
///
/// # Safety
/// Runs on the final kernel page tables, once per CPU, with interrupts off; `cpu` is the number
/// of this CPU and of no other. [`descriptors::install_vectors`] was called before.
pub unsafe fn init(cpu: usize) {
    let has = features();
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::DEBUGGING_EXTENSIONS
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::PCID, has.pcid);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, has.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, has.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, has.umip);
    cr4.set(Cr4Flags::OSXSAVE, has.xsave);
    cr4.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, has.machine_check);
    let cr0 = Cr0Flags::PAGING
        | Cr0Flags::PROTECTED_MODE_ENABLE
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::EXTENSION_TYPE
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::TASK_SWITCHED;
    // SAFETY: every bit is supported; the caller runs on tables that obey NX, WP and SMEP, and the
    // kernel's pages are supervisor pages. CR3 holds PCID 0 when PCIDE is set.
    unsafe {
        Cr0::write_raw(cr0.bits());
        Cr4::write_raw(cr4.bits());
        msr::write(msr::PAT, PAGE_ATTRIBUTES);
        descriptors::load(CpuWindow::new(cpu));
    }
}

/// Sets the entry of SYSCALL and the RFLAGS bits that it clears; SYSENTER stays off.
///
/// # Safety
/// `entry` is the system call stub; it expects exactly `mask` to be clear.
pub unsafe fn set_syscall_entry(entry: u64, mask: u64) {
    let star =
        u64::from(descriptors::STAR_SYSRET) << 48 | u64::from(descriptors::KERNEL_CODE) << 32;
    // SAFETY: the selectors are those of the GDT; the caller vouches for the rest.
    unsafe {
        msr::write(msr::STAR, star);
        msr::write(msr::LSTAR, entry);
        msr::write(msr::SFMASK, mask);
        msr::write(msr::EFER, msr::read(msr::EFER) | EFER_SCE);
        // On AMD CPUs SYSENTER does not exist in long mode; on Intel a zero selector makes it #GP.
        msr::write(msr::SYSENTER_CS, 0);
    }
}

const EFER_SCE: u64 = 1 << 0;
