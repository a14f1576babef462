//! One entry and exit.

use ipc::event::Exit;
use ipc::state::{Activity, Inject, InjectKind};

use super::super::Outcome;
use super::super::allow::{self, Mode};
use super::super::exit::{EVENT, Meaning, handle, keep_event};
use super::super::guest::{Common, ExitInfo};
use super::super::registers::{Backend, Reg};
use super::super::tag::Renewed;
use super::exit::{self, meaning, reason};
use super::vcpu::Vcpu;
use super::vmcs::{field, processor};
use super::{Cpu, enter, instr};
use crate::num::low32;

/// An IRET had already ended the blocking of NMIs when it caused the exit.
const NMI_UNBLOCKED: u64 = 1 << 12;

impl Vcpu {
    /// One entry and exit. `space` is the flush generation of the guest's memory.
    #[inline]
    pub(in super::super) fn run(
        &mut self,
        common: &mut Common,
        cpu: &mut Cpu,
        space: u64,
    ) -> Outcome {
        let windows = processor::INTERRUPT_WINDOW | processor::NMI_WINDOW;
        let injected = Inject(common.inject.0 & EVENT);
        let mut moved_to = None;
        if common.inject.0 != 0 || self.has(windows) {
            moved_to = self.prepare(common.inject);
        }
        if cpu.tags.renew(&mut self.tag, space) != Renewed::Kept || cpu.tags.flush() {
            self.forget(cpu);
        }
        self.update_host();
        self.write(field::RSP, common.gprs.rsp);

        // SAFETY: a `Cpu` exists only in VMX operation; `resume` has made the control structure
        // current and given it this CPU's state; interrupts are off until `park`.
        let failure = unsafe { enter::enter(&raw mut common.gprs, self.launched) };

        let reason = low32(self.read(field::REASON));
        if failure != 0 || reason & reason::FAILED != 0 {
            return self.failed(common, moved_to, failure, reason);
        }
        self.launched = true;
        common.gprs.rsp = self.read(field::RSP);
        let interrupted = self.read(field::VECTORING);
        let exception = if reason == reason::EXCEPTION { self.read(field::EXCEPTION) } else { 0 };
        common.set_event(Inject::NONE);
        if interrupted & Inject::VALID != 0 {
            self.interrupted(common, injected, moved_to, interrupted);
        } else if matches!(reason, reason::EXCEPTION | reason::MEMORY) {
            self.block_nmis_again(reason, exception);
        }
        let meaning = meaning(reason, low32(exception));
        if !matches!(meaning, Meaning::Vmm(..) | Meaning::Host) {
            self.internal(common, meaning, reason, exception);
        }
        let error = if reason == reason::EXCEPTION { self.read(field::EXCEPTION_ERROR) } else { 0 };
        handle(self, common, meaning, low32(error))
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

    /// An IRET ended the blocking of NMIs and then faulted: it will do so again.
    #[cold]
    fn block_nmis_again(&mut self, reason: u32, exception: u64) {
        let word = match reason {
            reason::MEMORY => self.read(field::QUALIFICATION),
            _ if exception & 0x700 == 0x300 => exception,
            _ => 0,
        };
        if word & NMI_UNBLOCKED != 0 {
            self.set_blocking(self.blocking() | Activity::NMI_BLOCKED);
        }
    }

    /// What this vendor has to do for exits that are no VMM's business.
    #[inline(never)]
    fn internal(&mut self, common: &mut Common, meaning: Meaning, reason: u32, exception: u64) {
        match meaning {
            Meaning::Own if reason == reason::CONTROL_REGISTER => self.control_register(common),
            Meaning::Own => instr::take_nmi(),
            Meaning::Debug => {
                self.note_debug(self.read(field::QUALIFICATION));
                // INT1 is a trap that is reported before it.
                if exception & 0x700 == 0x500 {
                    let next = self.get(Reg::Rip).wrapping_add(self.read(field::LENGTH));
                    self.set(Reg::Rip, next);
                }
            }
            Meaning::DebugRegister => {
                self.intercept_debug(false);
                self.load_dr6();
            }
            _ => {}
        }
    }

    /// MOV to CR0 or CR4 with bits that are not the guest's.
    fn control_register(&mut self, common: &mut Common) {
        let qualification = self.read(field::QUALIFICATION);
        let mode = Mode::of(self);
        let value = common.gprs.by_number(qualification >> 8);
        let value = if mode.is_64() { value } else { low32(value).into() };
        if !self.take_owned(qualification & 0xf, value) {
            let error = (mode.cr0 & allow::cr0::PE != 0).then_some(0);
            common.set_event(Inject::exception(13, error));
        }
    }
}
