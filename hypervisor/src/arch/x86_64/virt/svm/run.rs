//! One entry and exit.

use ipc::event::Exit;
use ipc::state::{Activity, Inject, InjectKind};

use super::super::Outcome;
use super::super::allow::rflags;
use super::super::exit::{EVENT, Meaning, handle, keep_event, window};
use super::super::guest::{Common, ExitInfo};
use super::super::registers::{Backend, Reg};
use super::super::tag::Renewed;
use super::exit;
use super::vcpu::{Nmi, Vcpu};
use super::vmcb::{clean, field, intercept, vintr};
use super::{Cpu, enter};
use crate::mem::pool;
use crate::num::low32;

/// DR6: a single step ended.
const DR6_STEP: u64 = 1 << 14;
/// DR6: breakpoints that were hit.
const DR6_BREAKPOINTS: u64 = 0xf;

impl Vcpu {
    /// [`Backend::run`].
    #[inline]
    pub(super) fn enter_guest(
        &mut self,
        common: &mut Common,
        cpu: &mut Cpu,
        space: u64,
    ) -> Outcome {
        let injected = Inject(common.inject.0 & EVENT);
        let pends =
            cpu.pends && injected.is_valid() && injected.kind() == Some(InjectKind::Interrupt);
        if (common.inject.0 != 0 || self.window)
            && let Some(outcome) = self.prepare(common, cpu, pends)
        {
            return outcome;
        }
        match cpu.tags.renew(&mut self.tag, space) {
            Renewed::Kept => {}
            Renewed::New => self.put(field::CLEAN, self.read(field::CLEAN) & !clean(field::TAG)),
            // What another CPU has cached says nothing here.
            Renewed::Moved => self.put(field::CLEAN, 0),
        }
        let flush = u64::from(cpu.tags.flush) << 32;
        self.put(field::TAG, u64::from(self.tag.value) | flush);
        self.put(field::EVENT, if pends { 0 } else { injected.0 });
        self.put(field::RAX, common.gprs.rax);
        let entered_at = self.get(Reg::Rip);

        // SAFETY: a `Cpu` exists only where SVM is enabled; `attach` has saved the host's state in
        // its block; interrupts are off while a guest is attached.
        unsafe { enter::enter(&raw mut common.gprs, pool::phys(self.page), cpu.host) };

        common.gprs.rax = self.read(field::RAX);
        self.put(field::CLEAN, cpu.clean);
        let left = pends && self.stop_pending();
        let (code, info1) = (self.read(field::CODE), self.read(field::INFO1));
        if exit::refused(code) {
            // Nothing happened: neither the event nor the flush.
            self.put(field::CLEAN, 0);
            common.exit = ExitInfo { qualification: [code, 0, 0], length: 0 };
            return Outcome::Exit(Exit::EntryFailed);
        }
        cpu.tags.flush = false;
        common.set_event(Inject::NONE);
        let delivering = Inject(self.read(field::INTERRUPTED) & EVENT);
        let interrupted = if left { injected } else { delivering };
        // What a shutdown leaves behind is undefined (APM 2, section 15.14.3).
        if interrupted.is_valid() && code != exit::SHUTDOWN {
            let same = interrupted == injected && entered_at == self.get(Reg::Rip);
            keep_event(self, common, interrupted, same);
        }
        if (self.nmi == Nmi::Returning || self.step.is_some()) && self.stepped(code) {
            return Outcome::Interrupt;
        }
        let meaning = exit::meaning(code, info1);
        if meaning == Meaning::Own {
            self.resume = self.get(Reg::Rip);
            self.set_nmi(Nmi::Returning);
        }
        handle(self, common, meaning, low32(info1))
    }

    /// Makes an interrupt pending, which the guest can take at once; see [`Cpu::pends`].
    fn pend(&mut self, vector: u8) {
        let word = self.read(field::VIRTUAL_INTERRUPT);
        let vector = u64::from(vector) << vintr::VECTOR;
        self.write(field::VIRTUAL_INTERRUPT, word | vintr::PENDING | vector);
    }

    /// After [`Self::pend`]; whether the guest has not taken the interrupt.
    fn stop_pending(&mut self) -> bool {
        let word = self.read(field::VIRTUAL_INTERRUPT);
        let vector = 0xff << vintr::VECTOR;
        self.write(field::VIRTUAL_INTERRUPT, word & !(vintr::PENDING | vector));
        word & vintr::PENDING != 0
    }

    /// Gets an event on its way, and the windows that are waited for. Behind an interrupt that
    /// `pends`, which takes the same way, the window is looked at again after the next exit.
    #[inline(never)]
    fn prepare(&mut self, common: &mut Common, cpu: &Cpu, pends: bool) -> Option<Outcome> {
        let inject = common.inject;
        if inject.is_valid() && inject.kind() == Some(InjectKind::Nmi) {
            self.set_nmi(Nmi::Blocked);
        }
        // The return address of a software interrupt, where the processor asks for it. Elsewhere it
        // would stay, and be taken for the end of the next instruction that exits.
        if cpu.knows_next {
            self.put(field::NEXT_RIP, self.get(Reg::Rip));
        }
        if (inject.wants_interrupt_window() && !pends) != self.window {
            self.set_window(!self.window);
        }
        if pends {
            self.pend(inject.vector());
        }
        // So is that for NMIs behind any event.
        if inject.wants_nmi_window() && !inject.is_valid() {
            let shadow = self.blocking().contains(Activity::INTERRUPT_SHADOW);
            match self.nmi {
                Nmi::Open if !shadow => {
                    return Some(window(common, Exit::NmiWindow));
                }
                Nmi::Open | Nmi::Returning => self.begin_step(),
                Nmi::Blocked => {}
            }
        }
        None
    }

    /// Requests an exit when the guest can take an interrupt: a virtual interrupt is pending, and
    /// taking it is intercepted.
    fn set_window(&mut self, on: bool) {
        self.window = on;
        self.switch(field::INTERCEPTS, intercept::VINTR, on);
        self.switch(field::VIRTUAL_INTERRUPT, vintr::PENDING, on);
    }

    /// Lets the guest execute one instruction and then a debug exception. What NMIs wait for is
    /// over by then: an IRET, or an interrupt shadow.
    fn begin_step(&mut self) {
        let flags = self.get(Reg::Rflags);
        self.set(Reg::Rflags, flags | rflags::TF);
        self.resume = self.get(Reg::Rip);
        self.step = Some(flags & rflags::TF);
    }

    /// Looks at what an exit means for the step, or for an IRET that ends an NMI handler. Returns
    /// whether the exit was only for that.
    #[cold]
    fn stepped(&mut self, code: u64) -> bool {
        let (step, returning) = (self.step.take(), self.nmi == Nmi::Returning);
        let moved = self.get(Reg::Rip) != self.resume;
        let mut done = false;
        if let Some(own) = step {
            // IRET has loaded the guest's own flags.
            if !(moved && returning) {
                self.set(Reg::Rflags, self.get(Reg::Rflags) & !rflags::TF | own);
            }
            let dr6 = self.get(Reg::Dr6);
            done = own == 0 && code == exit::DEBUG && dr6 & DR6_BREAKPOINTS == 0;
            if done {
                self.set(Reg::Dr6, dr6 & !DR6_STEP);
            }
        }
        if moved && returning {
            self.set_nmi(Nmi::Open);
        }
        done
    }
}
