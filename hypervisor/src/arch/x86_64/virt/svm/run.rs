//! One entry and exit.

use ipc::event::Exit;
use ipc::state::{Activity, Inject, InjectKind};

use super::super::Outcome;
use super::super::allow::rflags;
use super::super::exit::{EVENT, Meaning, handle, keep_event, window};
use super::super::guest::{Common, ExitInfo};
use super::super::registers::Backend;
use super::super::tag::Renewed;
use super::exit;
use super::vcpu::{Nmi, Vcpu};
use super::vmcb::{clean, intercept, vintr};
use super::{Cpu, enter};
use crate::num::low32;

/// DR6: a single step ended.
const DR6_STEP: u64 = 1 << 14;
/// DR6: breakpoints that were hit.
const DR6_BREAKPOINTS: u64 = 0xf;

impl Vcpu {
    /// See [`Backend::run`].
    #[inline]
    pub(super) fn run_once(&mut self, common: &mut Common, cpu: &mut Cpu, space: u64) -> Outcome {
        if (common.inject.0 != 0 || self.window)
            && let Some(outcome) = self.prepare(common)
        {
            return outcome;
        }
        let renewed = cpu.tags.renew(&mut self.tag, space);
        let asid = self.tag.value();
        let physical = self.physical();
        let injected = Inject(common.inject.0 & EVENT);

        let vmcb = self.vmcb_mut();
        match renewed {
            Renewed::Kept => {}
            Renewed::New => vmcb.clean &= !clean::ASID,
            // What another CPU has cached says nothing here.
            Renewed::Moved => vmcb.clean = 0,
        }
        vmcb.asid = asid;
        vmcb.tlb_control = u32::from(cpu.tags.flush());
        vmcb.event = injected.0;
        vmcb.rax = common.gprs.rax;
        vmcb.rsp = common.gprs.rsp;
        let entered_at = vmcb.rip;

        // SAFETY: a `Cpu` exists only where SVM is enabled; `attach` has saved the host's state in
        // its block; interrupts are off while a guest is attached.
        unsafe { enter::enter(&raw mut common.gprs, physical, cpu.host) };

        let vmcb = self.vmcb_mut();
        common.gprs.rax = vmcb.rax;
        common.gprs.rsp = vmcb.rsp;
        vmcb.clean = cpu.clean;
        let (code, info1) = (vmcb.exit_code, vmcb.exit_info1);
        let (rip, interrupted) = (vmcb.rip, Inject(vmcb.exit_event & EVENT));
        let next = if code == exit::IOIO {
            vmcb.exit_info2
        } else if cpu.next_rip {
            vmcb.next_rip
        } else {
            rip
        };

        if exit::refused(code) {
            // Nothing happened: neither the event nor the flush.
            self.vmcb_mut().clean = 0;
            common.exit = ExitInfo { qualification: [code, 0, 0], length: 0 };
            return Outcome::Exit(Exit::EntryFailed);
        }
        cpu.tags.flushed();
        common.set_event(Inject::NONE);
        if interrupted.is_valid() {
            let same = interrupted == injected && entered_at == rip;
            keep_event(self, common, interrupted, same);
        }
        if (self.nmi == Nmi::Returning || self.step.is_some()) && self.stepped(code) {
            return Outcome::Interrupt;
        }
        match exit::meaning(code, info1) {
            Meaning::Vmm(exit, nominal) => {
                let instruction = nominal != 0 || code == exit::IOIO;
                common.exit.qualification = exit::qualification(exit, self.vmcb(), &common.gprs);
                common.exit.length = if instruction { exit::length(rip, next, nominal) } else { 0 };
                Outcome::Exit(exit)
            }
            Meaning::Host => Outcome::Interrupt,
            Meaning::Own => {
                self.resume = rip;
                self.set_nmi(Nmi::Returning);
                Outcome::Interrupt
            }
            other => handle(self, common, other, low32(info1)),
        }
    }

    /// Gets an event on its way, and the windows that are waited for.
    #[inline(never)]
    fn prepare(&mut self, common: &mut Common) -> Option<Outcome> {
        let inject = common.inject;
        if inject.is_valid() {
            match inject.kind() {
                Some(InjectKind::Nmi) => self.set_nmi(Nmi::Blocked),
                // The return address, where the processor asks for it.
                Some(InjectKind::SoftwareInterrupt) => {
                    let vmcb = self.vmcb_mut();
                    vmcb.next_rip = vmcb.rip;
                }
                _ => {}
            }
        }
        if inject.wants_interrupt_window() != self.window {
            self.set_window(!self.window);
        }
        // Behind an event the window is looked at again after the next exit.
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
        self.intercept(intercept::VINTR, on);
        let vmcb = self.vmcb_mut();
        let pending = if on { vintr::PENDING } else { 0 };
        vmcb.virtual_interrupt = vmcb.virtual_interrupt & !vintr::PENDING | pending;
        vmcb.clean &= !clean::VIRTUAL_INTERRUPT;
    }

    /// Lets the guest execute one instruction and then a debug exception. What NMIs wait for is
    /// over by then: an IRET, or an interrupt shadow.
    fn begin_step(&mut self) {
        let vmcb = self.vmcb_mut();
        let (flags, rip) = (vmcb.rflags, vmcb.rip);
        vmcb.rflags |= rflags::TF;
        self.resume = rip;
        self.step = Some(flags & rflags::TF);
    }

    /// Looks at what an exit means for the step, or for an IRET that ends an NMI handler. Returns
    /// whether the exit was only for that.
    #[cold]
    fn stepped(&mut self, code: u64) -> bool {
        let (step, returning) = (self.step.take(), self.nmi == Nmi::Returning);
        let resume = self.resume;
        let vmcb = self.vmcb_mut();
        let moved = vmcb.rip != resume;
        let mut done = false;
        if let Some(own) = step {
            // IRET has loaded the guest's own flags.
            if !(moved && returning) {
                vmcb.rflags = vmcb.rflags & !rflags::TF | own;
            }
            done = own == 0 && code == exit::DEBUG && vmcb.dr6 & DR6_BREAKPOINTS == 0;
            if done {
                vmcb.dr6 &= !DR6_STEP;
                vmcb.clean &= !clean::DEBUG;
            }
        }
        if moved && returning {
            self.set_nmi(Nmi::Open);
        }
        done
    }
}
