//! What exits mean and what follows from them, whoever reports them.

use ipc::event::Exit;
use ipc::state::{Activity, Inject, InjectKind};

use super::Outcome;
use super::guest::{Common, ExitInfo};
use super::registers::{Backend, Reg};
use crate::num::low32;

/// What an exit asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An event of the host is pending: it is delivered when interrupts are let in.
    Host,
    /// A machine check.
    MachineCheck,
    /// A debug exception, which is the guest's.
    Debug,
    /// An alignment check, which is the guest's.
    Alignment,
    /// The guest uses debug registers that are not in the CPU.
    DebugRegister,
    /// The guest can take what this exit says.
    Window(Exit),
    /// Something that only the backend knows.
    Own,
    /// An instruction for the VMM, and nothing more to say about it: the exit, the length of its
    /// shortest encoding.
    Plain(Exit, u64),
    /// For the VMM: the exit, the length of its shortest encoding (0: not an instruction).
    Vmm(Exit, u64),
}

/// The part of the injection word that both vendors have in the same place, with the error code in
/// the upper half.
pub(super) const EVENT: u64 = 0xffff_ffff_8000_0fff;
/// DR7: debug registers are protected. Delivery of a debug exception ends it.
const DR7_PROTECT: u64 = 1 << 13;

/// Acts on an exit. `error` is the error code of an exception.
#[inline(always)]
pub(super) fn handle<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    meaning: Meaning,
    error: u32,
) -> Outcome {
    match meaning {
        Meaning::Plain(exit, nominal) => {
            common.exit = ExitInfo { qualification: [0; 3], length: vcpu.length(nominal) };
            Outcome::Exit(exit)
        }
        Meaning::Vmm(exit, nominal) => {
            let qualification = match exit {
                Exit::Io | Exit::Memory | Exit::Unknown => vcpu.describe(exit),
                Exit::MsrRead | Exit::MsrWrite => [low32(common.gprs.rcx).into(), 0, 0],
                _ => [0; 3],
            };
            let length = if nominal == 0 { 0 } else { vcpu.length(nominal) };
            common.exit = ExitInfo { qualification, length };
            Outcome::Exit(exit)
        }
        Meaning::Host | Meaning::Own => Outcome::Interrupt,
        other => handle_rare(vcpu, common, other, error),
    }
}

#[inline(never)]
fn handle_rare<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    meaning: Meaning,
    error: u32,
) -> Outcome {
    match meaning {
        Meaning::Window(exit) => return window(common, exit),
        Meaning::Debug => {
            vcpu.set(Reg::Dr7, vcpu.get(Reg::Dr7) & !DR7_PROTECT);
            common.set_event(Inject::exception(1, None));
        }
        Meaning::Alignment => common.set_event(Inject::exception(17, Some(error))),
        Meaning::DebugRegister => {
            common.load_debug();
            vcpu.intercept_debug(false);
        }
        Meaning::MachineCheck => return Outcome::MachineCheck,
        _ => {}
    }
    Outcome::Interrupt
}

/// The window that was waited for is open; the request ends.
pub(super) fn window(common: &mut Common, exit: Exit) -> Outcome {
    let request = match exit {
        Exit::NmiWindow => Inject::NONE.with_nmi_window(),
        _ => Inject::NONE.with_interrupt_window(),
    };
    common.inject = Inject(common.inject.0 & !request.0);
    common.exit = ExitInfo::default();
    Outcome::Exit(exit)
}

/// An exit cut the delivery of `event` short: it is delivered again. `injected`: it is what the
/// VMM had asked for.
#[cold]
pub(super) fn keep_event<B: Backend>(
    vcpu: &mut B,
    common: &mut Common,
    event: Inject,
    injected: bool,
) {
    let soft = match event.kind() {
        Some(InjectKind::SoftwareInterrupt) | None => true,
        Some(InjectKind::Exception) => matches!(event.vector(), 3 | 4),
        _ => false,
    };
    // An instruction of the guest raised it: RIP is still there, and it will do so again.
    if soft && !injected {
        return;
    }
    if event.kind() == Some(InjectKind::Nmi) {
        vcpu.set_blocking(vcpu.blocking() - Activity::NMI_BLOCKED);
    }
    common.set_event(event);
}
