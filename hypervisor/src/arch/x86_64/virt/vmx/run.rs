//! One entry and exit.

use ipc::event::Exit;
use ipc::state::{Activity, Inject, InjectKind};

use super::super::Outcome;
use super::super::allow::{self, Mode};
use super::super::exit::{EVENT, Meaning, handle, keep_event};
use super::super::guest::{Common, ExitInfo};
use super::super::registers::{Backend, Reg};
use super::super::state::set_rip;
use super::super::tag::Renewed;
use super::exit::{self, reason};
use super::vcpu::Vcpu;
use super::vmcs::{field, processor};
use super::{Cpu, SWITCHED, enter, instr};
use crate::arch::msr;
use crate::num::low32;

/// An IRET had already ended the blocking of NMIs when it caused the exit.
const NMI_UNBLOCKED: u64 = 1 << 12;

impl Vcpu {
    /// [`Backend::run`].
    pub(super) fn enter_guest(
        &mut self,
        common: &mut Common,
        cpu: &mut Cpu,
        space: u64,
    ) -> Outcome {
        let windows = processor::INTERRUPT_WINDOW | processor::NMI_WINDOW;
        let injected = Inject(common.inject.0 & EVENT);
        let mut moved_to = None;
        if common.inject.0 != 0 || self.controls & windows != 0 {
            moved_to = self.prepare(common.inject);
        }
        if cpu.tags.renew(&mut self.tag, space) != Renewed::Kept || cpu.tags.flush {
            self.forget(cpu);
        }
        self.update_host();

        // SAFETY: a `Cpu` exists only in VMX operation; `resume` has made the control structure
        // current and given it this CPU's state; interrupts are off until `park`.
        let failure = unsafe { enter::enter(&raw mut common.gprs, self.launched) };

        // SAFETY: the control structure that was entered is current.
        let read = |field| unsafe { instr::vmread(field) };
        let reason = low32(read(field::REASON));
        if failure != 0 || reason & reason::FAILED != 0 {
            return self.failed(common, moved_to, failure, reason);
        }
        self.launched = true;
        common.set_event(Inject::NONE);
        let interrupted = read(field::VECTORING);
        if interrupted & Inject::VALID != 0 {
            self.interrupted(common, injected, moved_to, interrupted);
        } else if reason == reason::MEMORY {
            self.block_nmis_again(self.read(field::QUALIFICATION));
        }
        if reason == reason::MSR_WRITE && SWITCHED.contains(&low32(common.gprs.rcx)) {
            return self.internal(common, reason, true);
        }
        match exit::usual(reason) {
            Meaning::Own => self.internal(common, reason, interrupted & Inject::VALID == 0),
            meaning => handle(self, common, meaning, 0),
        }
    }

    /// Gets an event on its way, and the windows that are waited for. Returns RIP where it had to
    /// be moved.
    #[inline(never)]
    fn prepare(&mut self, inject: Inject) -> Option<u64> {
        self.control(processor::INTERRUPT_WINDOW, inject.wants_interrupt_window());
        self.control(processor::NMI_WINDOW, inject.wants_nmi_window());
        if !inject.is_valid() {
            return None;
        }
        self.write(field::ENTRY_EVENT, low32(inject.0 & EVENT).into());
        self.write(field::ENTRY_ERROR, inject.0 >> 32);
        if inject.kind() != Some(InjectKind::SoftwareInterrupt) {
            return None;
        }
        // RIP is the return address. The processor adds a length to it, which many want above 0.
        let rip = self.get(Reg::Rip).wrapping_sub(1);
        self.set(Reg::Rip, rip);
        self.write(field::ENTRY_LENGTH, 1);
        Some(rip)
    }

    /// The processor did not enter the guest: nothing happened.
    #[cold]
    fn failed(
        &mut self,
        common: &mut Common,
        moved_to: Option<u64>,
        failure: u64,
        reason: u32,
    ) -> Outcome {
        self.write(field::ENTRY_EVENT, 0);
        if let Some(rip) = moved_to {
            self.set(Reg::Rip, rip.wrapping_add(1));
        }
        if failure == 0 && reason == reason::FAILED | reason::MACHINE_CHECK {
            return Outcome::MachineCheck;
        }
        let detail = |field| self.read(field);
        let qualification = exit::failed(failure, reason, detail);
        common.exit = ExitInfo { qualification, length: 0 };
        Outcome::Exit(Exit::EntryFailed)
    }

    /// An exit cut the delivery of an event short.
    #[cold]
    fn interrupted(
        &mut self,
        common: &mut Common,
        injected: Inject,
        moved_to: Option<u64>,
        word: u64,
    ) {
        let plain = u64::from(low32(EVENT));
        let mut event = Inject(word & plain);
        if event.error().is_some() {
            event.0 |= self.read(field::VECTORING_ERROR) << 32;
        }
        let rip = self.get(Reg::Rip);
        let same = (event.0 ^ injected.0) & plain == 0 && moved_to.is_none_or(|at| at == rip);
        if same && moved_to.is_some() {
            self.set(Reg::Rip, rip.wrapping_add(1));
        }
        keep_event(self, common, event, same);
    }

    /// An IRET ended the blocking of NMIs and then faulted: it will do so again. `word` describes the
    /// fault.
    fn block_nmis_again(&mut self, word: u64) {
        if word & NMI_UNBLOCKED != 0 {
            self.set_blocking(self.blocking() | Activity::NMI_BLOCKED);
        }
    }

    /// Exits for which this vendor has something to do. `delivered`: no event was cut short.
    #[inline(never)]
    fn internal(&mut self, common: &mut Common, reason: u32, delivered: bool) -> Outcome {
        let mut error = 0;
        let meaning = match reason {
            reason::EXCEPTION => {
                error = low32(self.read(field::EXCEPTION_ERROR));
                self.exception(delivered)
            }
            reason::CONTROL_REGISTER => self.control_register(common),
            reason::DEBUG_REGISTER => {
                self.intercept_debug(false);
                self.load_dr6();
                Meaning::DebugRegister
            }
            _ => self.set_switched(common),
        };
        handle(self, common, meaning, error)
    }

    fn exception(&mut self, delivered: bool) -> Meaning {
        let exception = self.read(field::EXCEPTION);
        if delivered && exception & 0x700 == 0x300 {
            self.block_nmis_again(exception);
        }
        let meaning = exit::exception(low32(exception));
        match meaning {
            Meaning::Own => instr::take_nmi(),
            Meaning::Debug => {
                self.note_debug(self.read(field::QUALIFICATION));
                // INT1 is a trap that is reported before it.
                if exception & 0x700 == 0x500 {
                    let next = self.get(Reg::Rip).wrapping_add(self.read(field::LENGTH));
                    self.set(Reg::Rip, next);
                }
            }
            _ => {}
        }
        meaning
    }

    /// WRMSR to a register of [`SWITCHED`].
    fn set_switched(&mut self, common: &mut Common) -> Meaning {
        let register = low32(common.gprs.rcx);
        let value = u64::from(low32(common.gprs.rax)) | common.gprs.rdx << 32;
        let (reg, legal) = match register {
            msr::STAR => (Reg::Star, true),
            msr::LSTAR => (Reg::Lstar, self.limits.canonical(value)),
            _ => (Reg::Fmask, value >> 32 == 0),
        };
        if !legal {
            return self.refuse(common);
        }
        // SAFETY: the value is legal; `park` puts the host's back.
        unsafe { msr::write(register, value) };
        self.set(reg, value);
        let next = self.get(Reg::Rip).wrapping_add(self.read(field::LENGTH));
        set_rip(self, next, self.get(Reg::Rflags));
        Meaning::Own
    }

    /// The instruction that exited is not legal.
    fn refuse(&self, common: &mut Common) -> Meaning {
        // In real mode exceptions have no error code.
        let error = (self.get(Reg::Cr0) & allow::cr0::PE != 0).then_some(0);
        common.set_event(Inject::exception(13, error));
        Meaning::Own
    }

    /// MOV to CR0 or CR4 with bits that are not the guest's.
    fn control_register(&mut self, common: &mut Common) -> Meaning {
        let qualification = self.read(field::QUALIFICATION);
        common.gprs.rsp = self.get(Reg::Rsp);
        let value = common.gprs.by_number(qualification >> 8);
        let value = if Mode::of(self).is_64() { value } else { low32(value).into() };
        if self.take_owned(qualification & 0xf, value) { Meaning::Own } else { self.refuse(common) }
    }
}
