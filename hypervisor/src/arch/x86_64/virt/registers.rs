//! What every backend offers to the vendor-neutral part.

use ipc::event::Exit;
use ipc::state::{Activity, Segment};

use super::Outcome;
use super::guest::Common;

/// A register that a backend keeps in its own format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Rip,
    Rsp,
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Dr6,
    Dr7,
    /// Without bits that belong to the virtualization extension.
    Efer,
    Pat,
    Star,
    Lstar,
    Cstar,
    Fmask,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    TscOffset,
}

/// A segment register or descriptor table, by VT-x's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
    Gdtr,
    Idtr,
}

/// Names of fields of a vendor's format.
macro_rules! fields {
    ($($name:ident $number:literal)+) => {
        $( pub(in super::super) const $name: u32 = $number; )+
    };
}

/// Fields of registers.
macro_rules! places {
    ($reg:ident: $($name:ident $field:literal)+) => {
        match $reg {
            $( Reg::$name => $field, )+
        }
    };
}

pub(super) use {fields, places};

/// One vCPU in the format of a vendor.
///
/// The accessors are called with constants and must be inlined, so that they cost one access.
pub(super) trait Backend {
    /// What the vendor keeps per CPU.
    type Cpu;

    /// Makes the vCPU accessible; it is this CPU's, or has never been attached. Called before the
    /// accessors below.
    fn select(&self) {}
    /// Reads a register.
    fn get(&self, reg: Reg) -> u64;
    /// Writes a register. The value has been checked.
    fn set(&mut self, reg: Reg, value: u64);
    /// Reads a segment register.
    fn segment(&self, seg: Seg) -> Segment;
    /// Writes a segment register. The value has been checked.
    fn set_segment(&mut self, seg: Seg, value: Segment);
    /// Interrupt shadow and NMI blocking.
    fn blocking(&self) -> Activity;
    /// The reverse; other bits are ignored.
    fn set_blocking(&mut self, blocking: Activity);
    /// Whether accesses of the guest to debug registers exit.
    fn intercept_debug(&mut self, on: bool);
    /// The guest's address translation has changed by more than its own instructions.
    fn flush(&mut self);
    /// The guest will run on this CPU: remembers what of the host an entry overwrites.
    fn attach(&mut self, _cpu: &mut Self::Cpu) {}
    /// The reverse.
    fn detach(&mut self) {}
    /// The guest is about to run: puts into the CPU what cannot be there while anything else runs.
    fn resume(&mut self, _cpu: &mut Self::Cpu) {}
    /// The reverse.
    fn park(&mut self, _cpu: &mut Self::Cpu) {}
    /// One entry and exit. `space` is the flush generation of the guest's memory.
    fn run(&mut self, common: &mut Common, cpu: &mut Self::Cpu, space: u64) -> Outcome;

    /// Lets the next entry fail, in a way that `kind` chooses; returns what mends it afterwards.
    #[cfg(feature = "sabotage")]
    fn sabotage(&mut self, kind: u64) -> impl FnOnce(&mut Self) + use<Self>;
    /// Takes what this CPU holds of the vCPU out of it.
    fn retire(&mut self) {}
    /// Qualification of the exit that was [`Exit::Io`] or [`Exit::Memory`]; raw for any other.
    fn describe(&self, exit: Exit) -> [u64; 3];
    /// Length of the instruction that caused the exit; `nominal` where the processor does not tell.
    fn length(&self, nominal: u64) -> u64;
}
