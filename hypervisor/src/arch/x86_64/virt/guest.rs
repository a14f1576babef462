//! A vCPU above the vendor's format.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use ipc::event::Exit;
use ipc::state::{Inject, Mtd, State};
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3};

use super::allow::{self, Mode};
use super::gprs::Gprs;
use super::registers::{Backend, Reg};
use super::state;
use super::{Cpu, Outcome, Platform, Vendor, reset, svm, vmx};
use crate::arch::fpu::{self, Fpu};
use crate::arch::msr;
use crate::log;
use crate::mem::pool::Page;

/// What an exit says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ExitInfo {
    /// See [`ipc::exit`].
    pub(super) qualification: [u64; 3],
    /// Length of the instruction, or 0.
    pub(super) length: u64,
}

/// State of a vCPU that has the same form on every vendor.
#[derive(Default)]
pub(super) struct Common {
    pub(super) gprs: Gprs,
    /// The last exit.
    pub(super) exit: ExitInfo,
    /// Event to deliver on the next entry, and the windows that are waited for.
    pub(super) inject: Inject,
    /// The event came from a VMM and has not been checked against the vCPU's state.
    pub(super) unchecked: bool,
    pub(super) halted: bool,
    /// Groups that a VMM filled with values that are not allowed.
    pub(super) refused: Mtd,
    pub(super) deadline: u64,
    pub(super) xcr0: u64,
    pub(super) tsc_aux: u64,
    /// DR0 to DR3 while they are not in the CPU.
    pub(super) debug: [u64; 4],
    /// They are in the CPU.
    debug_live: bool,
}

impl Common {
    /// Replaces the event to deliver, keeping the window requests.
    pub(super) const fn set_event(&mut self, event: Inject) {
        const WINDOWS: u64 = Inject::NONE.with_interrupt_window().with_nmi_window().0;
        self.inject = Inject(self.inject.0 & WINDOWS | event.0);
    }

    /// Puts the guest's debug address registers into the CPU. Those of the host are not in use.
    pub(super) fn load_debug(&mut self) {
        let [dr0, dr1, dr2, dr3] = self.debug;
        Dr0::write(dr0);
        Dr1::write(dr1);
        Dr2::write(dr2);
        Dr3::write(dr3);
        self.debug_live = true;
    }

    fn save_debug(&mut self) {
        self.debug = [Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()];
        self.debug_live = false;
    }

    /// [`Guest::run`] on one vendor's processor.
    #[inline(always)]
    fn run<B: Backend, T>(
        &mut self,
        vcpu: &mut B,
        cpu: &mut B::Cpu,
        space: impl Fn() -> u64,
        mut pause: impl FnMut() -> Option<T>,
    ) -> Result<Exit, T> {
        if (self.unchecked || !self.refused.is_empty())
            && let Some(exit) = self.check(vcpu)
        {
            return Ok(exit);
        }
        vcpu.resume(cpu);
        let left = loop {
            #[cfg(not(feature = "sabotage"))]
            let outcome = vcpu.run(self, cpu, space());
            #[cfg(feature = "sabotage")]
            let outcome = super::sabotage::run(vcpu, self, cpu, space());
            match outcome {
                Outcome::Exit(exit) => break Ok(exit),
                Outcome::Interrupt => {}
                Outcome::MachineCheck => {
                    // Nothing that the processor did can be trusted.
                    log::fatal(format_args!("PANIC: machine check in a guest"))
                }
            }
            if let Some(reason) = pause() {
                break Err(reason);
            }
        };
        vcpu.park(cpu);
        left
    }

    /// Whether the kernel refuses the entry by itself: what a VMM has set is not allowed.
    #[inline(never)]
    fn check<B: Backend>(&mut self, vcpu: &B) -> Option<Exit> {
        let (mut groups, mut event) = (core::mem::take(&mut self.refused), Inject::NONE);
        if groups.is_empty() {
            self.unchecked = false;
            event = self.inject.event();
            if event.is_valid() && !allow::event(event, &Mode::of(vcpu), vcpu.blocking()) {
                self.set_event(Inject::NONE);
                groups = Mtd::INJECT;
            }
        }
        (!groups.is_empty()).then(|| {
            let qualification = [u64::MAX, groups.bits(), event.0];
            self.exit = ExitInfo { qualification, length: 0 };
            Exit::EntryFailed
        })
    }
}

/// The part in the vendor's format.
enum GuestBackend {
    Svm(svm::Vcpu),
    Vmx(vmx::Vcpu),
}

/// Runs `$body` with `$vcpu` bound to the backend.
macro_rules! with {
    ($guest:expr, $vcpu:ident => $body:expr) => {
        match $guest {
            GuestBackend::Svm($vcpu) => $body,
            GuestBackend::Vmx($vcpu) => $body,
        }
    };
    // The same with `$cpu` bound to what its CPU keeps; all have the same vendor.
    ($guest:expr, $vcpu:ident, $from:expr, $cpu:ident => $body:expr, else $otherwise:expr) => {
        match ($guest, $from) {
            (GuestBackend::Svm($vcpu), Cpu::Svm($cpu)) => $body,
            (GuestBackend::Vmx($vcpu), Cpu::Vmx($cpu)) => $body,
            _ => $otherwise,
        }
    };
}

/// The state of one vCPU, and how to run it.
pub struct Guest {
    common: Common,
    fpu: Fpu,
    backend: GuestBackend,
    platform: &'static Platform,
}

impl Guest {
    /// Zeroed pool pages that a vCPU needs.
    pub const PAGES: usize = 2;

    /// A vCPU in its state after RESET, whose memory is the nested page table at physical address
    /// `nested_root`.
    ///
    /// # Safety
    /// The pages are the vCPU's alone until it is dropped, retired; the page table lives as long.
    pub unsafe fn new(
        platform: &'static Platform,
        [control, extended]: [NonNull<Page>; 2],
        nested_root: u64,
    ) -> Self {
        // SAFETY: the caller gives the page.
        let mut backend = unsafe {
            match platform.vendor {
                Vendor::Svm => GuestBackend::Svm(svm::Vcpu::new(platform, control, nested_root)),
                Vendor::Vmx => GuestBackend::Vmx(vmx::Vcpu::new(platform, control, nested_root)),
            }
        };
        let mut common = Common::default();
        with!(&mut backend, vcpu => {
            let state = UnsafeCell::new(reset::state(platform.signature));
            state::load(vcpu, &mut common, &platform.limits, reset::GROUPS, &state);
        });
        // SAFETY: the caller gives the page.
        let fpu = unsafe { Fpu::new(extended.cast()) };
        Self { common, fpu, backend, platform }
    }

    /// The pages, to be given back when the vCPU is gone.
    pub fn pages(&self) -> [NonNull<Page>; 2] {
        [with!(&self.backend, vcpu => vcpu.page), self.fpu.page.cast()]
    }

    /// Puts the parts of the guest's state into the CPU that stay there while its VMM handles an
    /// exit: FPU, XCR0, TSC_AUX, debug address registers, what the backend adds. Host code cannot or does not use them; the
    /// caller lets no other protection domain run on this CPU before [`Self::detach`].
    #[inline(never)]
    pub fn attach(&mut self, cpu: &mut Cpu) {
        let Self { common, fpu, backend, .. } = self;
        // SAFETY: the FPU holds nobody's state: whoever owned it has saved it.
        unsafe { fpu.restore() };
        fpu::deny();
        if common.xcr0 != fpu::components() {
            // SAFETY: the value passed `Limits::xcr0`; nothing uses the FPU until `detach`.
            unsafe { fpu::set_xcr0(common.xcr0) };
        }
        if common.tsc_aux != 0 {
            // SAFETY: the register exists, or the value would be zero; the kernel does not use it.
            unsafe { msr::write(msr::TSC_AUX, common.tsc_aux) };
        }
        with!(backend, vcpu, cpu, cpu => {
            vcpu.select();
            let armed = vcpu.get(Reg::Dr7) & 0xff != 0;
            if armed {
                common.load_debug();
            }
            vcpu.intercept_debug(!armed);
            vcpu.attach(cpu);
        }, else ());
    }

    /// Takes the guest's state out of the CPU.
    pub fn detach(&mut self) {
        let common = &mut self.common;
        if common.xcr0 != fpu::components() {
            // SAFETY: this is the host's value.
            unsafe { fpu::set_xcr0(fpu::components()) };
        }
        // SAFETY: the FPU holds the guest's state since `attach`.
        unsafe { self.fpu.save() };
        if common.tsc_aux != 0 {
            // SAFETY: as in `attach`; zero is the host's value.
            unsafe { msr::write(msr::TSC_AUX, 0) };
        }
        if common.debug_live {
            common.save_debug();
        }
        with!(&mut self.backend, vcpu => vcpu.detach());
    }

    /// Runs the guest until an exit that is for its VMM, or until `pause`, which is called between an
    /// exit for the host and the next entry, has something to return. The guest is attached;
    /// interrupts are off, and only `pause` lets them in.
    ///
    /// `space` is the flush generation of the guest's memory: whenever it differs from that of the
    /// last run, translations from before are not used any more.
    ///
    /// # Errors
    /// What `pause` returned.
    #[inline(always)]
    pub fn run<T>(
        &mut self,
        cpu: &mut Cpu,
        space: impl Fn() -> u64,
        pause: impl FnMut() -> Option<T>,
    ) -> Result<Exit, T> {
        let common = &mut self.common;
        with!(&mut self.backend, vcpu, cpu, cpu => common.run(vcpu, cpu, space, pause),
            else Ok(Exit::EntryFailed))
    }

    /// After [`Exit::EntryFailed`]. Where the processor refused the entry it may have left the
    /// host's state in place of the guest's, which is reset. The vCPU is not attached any more.
    #[cold]
    pub fn recover(&mut self) {
        let [code, groups, _] = self.common.exit.qualification;
        if code != u64::MAX || groups == 0 {
            let state = UnsafeCell::new(reset::state(self.platform.signature));
            self.load(reset::GROUPS, &state);
        }
    }

    /// Nothing of the vCPU stays in its CPU, on which this is called. It is not attached.
    pub fn retire(&mut self) {
        with!(&mut self.backend, vcpu => vcpu.retire());
    }

    /// Makes the vCPU accessible: [`Self::attach`] does, otherwise this has to come before what
    /// follows, with no other vCPU attached.
    pub fn select(&self) {
        with!(&self.backend, vcpu => vcpu.select());
    }

    /// Copies groups of state into a message buffer.
    pub fn store(&self, mtd: Mtd, state: &UnsafeCell<State>) {
        with!(&self.backend, vcpu => state::store(vcpu, &self.common, mtd, state));
    }

    /// Takes groups of state from a message buffer. Those that are in the CPU while the vCPU is
    /// attached can be taken only when it is not.
    ///
    /// A group with a value that is not allowed changes nothing, and the next [`Self::run`] exits
    /// with [`Exit::EntryFailed`], whose qualification names the group.
    pub fn load(&mut self, mtd: Mtd, state: &UnsafeCell<State>) {
        let limits = &self.platform.limits;
        let common = &mut self.common;
        with!(&mut self.backend, vcpu => state::load(vcpu, common, limits, mtd, state));
    }

    /// The vCPU leaves the guest for a reason that is not the guest's: nothing qualifies the exit,
    /// and a halt ends. With `passed` there is no deadline until the VMM sets another.
    pub fn stop(&mut self, passed: bool) {
        self.common.exit = ExitInfo::default();
        self.common.halted = false;
        self.common.deadline *= u64::from(!passed);
    }

    /// Whether the guest waits for [`Self::stop`] or for new state; and the TSC value at which the
    /// vCPU is to exit with [`Exit::Deadline`], 0 for none.
    pub const fn waits(&self) -> (bool, u64) {
        (self.common.halted, self.common.deadline)
    }

    /// The groups that the next run would name.
    #[cfg(test)]
    pub(super) const fn refused(&self) -> Mtd {
        self.common.refused
    }
}

// A size class of kernel memory.
const _: () = assert!(size_of::<Guest>() <= 512);
