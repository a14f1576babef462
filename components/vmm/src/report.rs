//! Why a VM stopped.

use core::fmt;

use ipc::state::State;
use ipc::status::Status;

use crate::acpi::AcpiError;
use crate::boot::linux::BootError;
use crate::emulate::EmulateError;

/// What the guest did that it cannot go on after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestFault {
    /// A fault while it handled a fault while it handled a fault.
    TripleFault,
    /// It brought the vCPU into a state that the processor does not accept: raw vendor words.
    EntryFailed([u64; 3]),
    /// An exit that has no meaning here: raw vendor words.
    UnknownExit([u64; 3]),
    /// It executes code from an address that is not RAM.
    Fetch(u64),
    /// Its page tables are at an address that is not RAM.
    PageTable(u64),
    /// An access to a device by an instruction that is not emulated.
    Emulation {
        /// What is the matter with the instruction.
        error: EmulateError,
        /// Guest-physical address of the access; for port strings the port.
        address: u64,
    },
    /// An event was to be delivered through a device.
    Delivery(u64),
    /// A hardware task switch.
    TaskSwitch,
    /// Access to a control register that exits without a reason.
    ControlRegister(u8),
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("triple fault"),
            Self::EntryFailed([a, b, c]) => {
                write!(f, "invalid state on entry ({a:#x} {b:#x} {c:#x})")
            }
            Self::UnknownExit([a, b, c]) => write!(f, "unknown exit ({a:#x} {b:#x} {c:#x})"),
            Self::Fetch(gpa) => write!(f, "code at {gpa:#x}, which is not RAM"),
            Self::PageTable(gpa) => write!(f, "page table at {gpa:#x}, which is not RAM"),
            Self::Emulation { error, address } => write!(f, "access to {address:#x}: {error}"),
            Self::Delivery(gpa) => write!(f, "event delivery through {gpa:#x}, which is not RAM"),
            Self::TaskSwitch => f.write_str("hardware task switch"),
            Self::ControlRegister(n) => write!(f, "unexpected access to CR{n}"),
        }
    }
}

/// What the VMM itself could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmmError {
    /// The kernel did not hand out a vCPU's state.
    State(Status),
    /// The guest cannot be loaded.
    Boot(BootError),
    /// Its ACPI tables cannot be written.
    Acpi(AcpiError),
    /// RAM that the guest should have is not mapped for it.
    NotMapped(u64),
    /// More virtio devices than fit.
    Devices(usize),
    /// More or fewer vCPUs than the models support.
    Vcpus(u32),
}

impl fmt::Display for VmmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(status) => write!(f, "kernel refuses the vCPU's state: {status}"),
            Self::Boot(e) => e.fmt(f),
            Self::Acpi(e) => e.fmt(f),
            Self::NotMapped(gpa) => write!(f, "RAM at {gpa:#x} is not mapped for the guest"),
            Self::Devices(n) => write!(f, "{n} virtio devices are too many"),
            Self::Vcpus(n) => write!(f, "{n} vCPUs are not supported"),
        }
    }
}

impl core::error::Error for VmmError {}

impl From<BootError> for VmmError {
    fn from(e: BootError) -> Self {
        Self::Boot(e)
    }
}

impl From<AcpiError> for VmmError {
    fn from(e: AcpiError) -> Self {
        Self::Acpi(e)
    }
}

/// The end of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest switched itself off.
    PowerOff,
    /// The guest is at fault.
    Guest(GuestFault),
    /// The VMM is.
    Vmm(VmmError),
}

impl From<GuestFault> for Stop {
    fn from(fault: GuestFault) -> Self {
        Self::Guest(fault)
    }
}

impl From<VmmError> for Stop {
    fn from(error: VmmError) -> Self {
        Self::Vmm(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("guest powered off"),
            Self::Guest(fault) => write!(f, "guest stopped: {fault}"),
            Self::Vmm(error) => write!(f, "VMM error: {error}"),
        }
    }
}

/// Passes a vCPU's registers to `line`, a few per line.
pub fn registers(state: &State, mut line: impl FnMut(fmt::Arguments<'_>)) {
    let s = state;
    line(format_args!(
        "rip {:016x} rflags {:08x} cs {:04x} base {:x} cr0 {:08x} cr3 {:x} cr4 {:x} efer {:x}",
        s.rip, s.rflags, s.cs.selector, s.cs.base, s.cr0, s.cr3, s.cr4, s.efer
    ));
    line(format_args!(
        "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x} cr2 {:x}",
        s.rax, s.rbx, s.rcx, s.rdx, s.cr2
    ));
    line(format_args!(
        "rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x} ss {:04x}",
        s.rsi, s.rdi, s.rbp, s.rsp, s.ss.selector
    ));
    line(format_args!("r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", s.r8, s.r9, s.r10, s.r11));
    line(format_args!(
        "r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
        s.r12, s.r13, s.r14, s.r15
    ));
    line(format_args!(
        "idt {:x}+{:x} gdt {:x}+{:x} tr {:04x} fs {:x} gs {:x} inject {:x} activity {:x}",
        s.idtr.base,
        s.idtr.limit,
        s.gdtr.base,
        s.gdtr.limit,
        s.tr.selector,
        s.fs.base,
        s.gs.base,
        s.inject,
        s.activity
    ));
}
