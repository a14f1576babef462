//! A vCPU: what of it is not in the processor, and what it takes from the outside before it runs
//! on — interrupts, start-up, restart.

use ipc::event::Exit;
use ipc::exit::Exception;
use ipc::state::{Activity, Inject, Mtd, State};

use crate::boot::entry;
use crate::cpu::{CR0_PE, RFLAGS_IF};
use crate::devices::interrupt::Events;
use crate::devices::lapic::Lapic;
use crate::devices::pvclock::PvCpu;
use crate::host::Host;
use crate::report::{self, Stop, VmmError};
use crate::vm::{Phase, Vm};

/// Every group that a reply can carry.
pub const EVERYTHING: Mtd = Mtd::all().difference(Mtd::QUAL);

/// What a vCPU does when it does not handle an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// It runs.
    Running,
    /// It waits for an interrupt.
    Halted,
    /// It waits for the back end of a device, to execute the same instruction again.
    Stalled,
    /// It waits for a start-up IPI.
    WaitForStartup,
}

/// The answer to an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on with these groups of the state.
    Reply(Mtd),
    /// The VM is over.
    Stop(Stop),
}

/// A vCPU. It belongs to the handler of its exits; others reach it through its inbox.
#[derive(Debug)]
pub struct Vcpu {
    pub(crate) index: u32,
    pub(crate) lapic: Lapic,
    pub(crate) pv: PvCpu,
    pub(crate) run: Run,
    pub(crate) xcr0: u64,
    pub(crate) tsc_offset: u64,
    pub(crate) mtrr_default: u64,
    nmi: bool,
    /// The deadline that the kernel has.
    armed: u64,
    /// An exit is requested for when an interrupt can be taken.
    window: bool,
    /// The same for an NMI.
    nmi_window: bool,
    generation: u32,
    gathered: bool,
    /// While the VM stands still: what is to be delivered when it goes on.
    paused: Option<Inject>,
}

/// `IA32_MTRR_DEF_TYPE`: enabled, write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

impl Vcpu {
    /// The vCPU with APIC id `index`; 0 starts, the others wait.
    #[must_use]
    pub fn new(vm: &Vm<'_>, index: u32) -> Self {
        let mut lapic = Lapic::new(index, vm.config().tsc_khz);
        if vm.config().x2apic {
            lapic.enable_x2apic();
        }
        let vcpu = Self {
            index,
            lapic,
            pv: PvCpu::default(),
            run: if index == 0 { Run::Running } else { Run::WaitForStartup },
            xcr0: 1,
            tsc_offset: 0,
            mtrr_default: MTRR_WRITE_BACK,
            nmi: false,
            armed: 0,
            window: false,
            nmi_window: false,
            generation: vm.generation(),
            gathered: false,
            paused: None,
        };
        vcpu.publish(vm);
        vcpu
    }

    /// Its number, which is its APIC id.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What it does.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// Tells the others how its local APIC can be addressed.
    pub(crate) fn publish(&self, vm: &Vm<'_>) {
        if let Some(inbox) = vm.apics().inbox(self.index) {
            inbox.publish(self.lapic.address());
        }
    }

    /// Handles an exit: `state` holds the groups that [`crate::exits::portal`] names for it.
    pub fn handle(
        &mut self,
        vm: &Vm<'_>,
        host: &dyn Host,
        exit: Exit,
        state: &mut State,
    ) -> Action {
        vm.count(exit);
        let valid = crate::exits::portal(exit);
        let mut handling = Handling {
            cpu: self,
            vm,
            host,
            state,
            valid,
            reply: Mtd::empty(),
            event: Inject::NONE,
            unshadowed: false,
        };
        match handling.answer(exit) {
            Ok(()) => Action::Reply(handling.reply),
            Err(stop) => {
                handling.last_words(&stop);
                Action::Stop(stop)
            }
        }
    }
}

/// The handling of one exit.
pub(crate) struct Handling<'a, 'v> {
    pub(crate) cpu: &'a mut Vcpu,
    pub(crate) vm: &'a Vm<'v>,
    pub(crate) host: &'a dyn Host,
    pub(crate) state: &'a mut State,
    /// Groups that `state` holds.
    valid: Mtd,
    /// Groups that go back.
    pub(crate) reply: Mtd,
    /// What is to be delivered to the guest.
    pub(crate) event: Inject,
    /// An instruction was completed: a shadow before it is over.
    unshadowed: bool,
}

impl Handling<'_, '_> {
    /// Makes groups valid that the portal does not transfer.
    pub(crate) fn need(&mut self, groups: Mtd) -> Result<(), Stop> {
        // What goes back is newer than what the kernel has.
        let missing = groups.difference(self.valid | self.reply);
        if !missing.is_empty() {
            let fetched = self.host.fetch(self.cpu.index, missing, self.state);
            fetched.map_err(|status| Stop::Vmm(VmmError::State(status)))?;
            self.valid |= missing;
        }
        Ok(())
    }

    fn answer(&mut self, exit: Exit) -> Result<(), Stop> {
        if self.vm.phase() != Phase::Running || self.vm.generation() != self.cpu.generation {
            return self.gather(exit);
        }
        if exit == Exit::Startup {
            return self.start();
        }
        if self.valid.contains(Mtd::INJECT) {
            // What the exit interrupted; it is delivered again.
            let interrupted = Inject(self.state.inject);
            if interrupted.is_valid() {
                self.event = interrupted.event();
            }
        }
        if let Some(event) = self.cpu.paused.take() {
            self.event = event;
        }
        let settle = crate::exits::dispatch(self, exit)?;
        // The guest asked for a restart.
        if self.vm.phase() != Phase::Running {
            return self.gather(exit);
        }
        if settle && self.vm.is_paused() {
            return self.pause();
        }
        if settle { self.settle(exit) } else { Ok(()) }
    }

    /// The VM restarts or has stopped.
    fn gather(&mut self, exit: Exit) -> Result<(), Stop> {
        if self.vm.phase() == Phase::Resetting {
            let first = !core::mem::replace(&mut self.cpu.gathered, true);
            let last = self.vm.gather(self.host, self.cpu.index, first)?;
            if !last {
                self.park();
                return Ok(());
            }
        }
        if self.vm.phase() == Phase::Stopped {
            self.park();
            return Ok(());
        }
        if self.vm.generation() != self.cpu.generation || exit == Exit::Startup {
            *self.cpu = Vcpu::new(self.vm, self.cpu.index);
        }
        self.start()
    }

    /// The VM stands still: what was to be delivered waits with the vCPU.
    fn pause(&mut self) -> Result<(), Stop> {
        self.need(Mtd::ACTIVITY)?;
        let activity = Activity::from_bits_truncate(self.state.activity) | Activity::HALTED;
        self.cpu.paused = Some(self.event);
        (self.cpu.armed, self.cpu.window, self.cpu.nmi_window) = (0, false, false);
        (self.state.inject, self.state.deadline) = (Inject::NONE.0, 0);
        self.state.activity = activity.bits();
        self.reply |= Mtd::ACTIVITY | Mtd::INJECT | Mtd::DEADLINE;
        Ok(())
    }

    fn park(&mut self) {
        self.state.activity = Activity::HALTED.bits();
        (self.state.inject, self.state.deadline) = (Inject::NONE.0, 0);
        self.reply = Mtd::ACTIVITY | Mtd::INJECT | Mtd::DEADLINE;
    }

    /// The vCPU starts with the VM: the first one in the kernel, the others wait.
    fn start(&mut self) -> Result<(), Stop> {
        if self.cpu.run == Run::Running {
            let loaded = self.vm.loaded();
            entry::long_mode(self.state, loaded.entry, loaded.zero_page);
            self.reply = EVERYTHING;
            return Ok(());
        }
        self.park();
        self.settle(Exit::Startup)
    }

    /// The exiting instruction is complete. `nominal` is its length where neither processor nor
    /// kernel knows it.
    pub(crate) fn advance(&mut self, nominal: u64) -> Result<(), Stop> {
        let length = match self.state.instruction_length {
            0 => nominal,
            known => known,
        };
        self.state.rip = self.state.rip.wrapping_add(length);
        self.completed()
    }

    /// The same for an instruction that has moved RIP already.
    pub(crate) fn completed(&mut self) -> Result<(), Stop> {
        use crate::cpu::{RFLAGS_RF, RFLAGS_TF};
        const DR6_BS: u64 = 1 << 14;
        self.state.rflags &= !RFLAGS_RF;
        self.reply |= Mtd::RIP;
        self.unshadowed = true;
        if self.state.rflags & RFLAGS_TF != 0 {
            // Single step: the trap that the processor would have taken.
            self.need(Mtd::DR)?;
            self.state.dr6 |= DR6_BS;
            self.reply |= Mtd::DR;
            self.raise(1, None)?;
        }
        Ok(())
    }

    /// The instruction, or what comes after it, raises an exception. In real mode none has an
    /// error code.
    pub(crate) fn raise(&mut self, vector: u8, error: Option<u32>) -> Result<(), Stop> {
        self.need(Mtd::CR)?;
        let error = error.filter(|_| self.state.cr0 & CR0_PE != 0);
        let Exception { vector, error } = Exception { vector, error };
        self.event = Inject::exception(vector, error);
        Ok(())
    }

    /// #GP(0).
    pub(crate) fn raise_gp(&mut self) -> Result<(), Stop> {
        self.raise(13, Some(0))
    }

    /// #UD.
    pub(crate) fn raise_ud(&mut self) -> Result<(), Stop> {
        self.raise(6, None)
    }

    /// Before the vCPU goes on: takes over what others have sent, decides what is delivered, and
    /// whether it runs.
    fn settle(&mut self, exit: Exit) -> Result<(), Stop> {
        if self.take_inbox()? {
            return Ok(());
        }
        // An INIT of the bootstrap processor.
        if self.vm.phase() != Phase::Running {
            return self.gather(exit);
        }
        if exit == Exit::Deadline && self.cpu.run == Run::Stalled {
            self.cpu.run = Run::Running;
        }
        let deadline = self.deadline();
        if deadline != self.cpu.armed || exit == Exit::Deadline {
            self.cpu.armed = deadline;
            self.state.deadline = deadline;
            self.reply |= Mtd::DEADLINE;
        }
        if self.cpu.run == Run::WaitForStartup {
            self.state.activity = Activity::HALTED.bits();
            self.reply |= Mtd::ACTIVITY;
            return Ok(());
        }
        let interrupted = self.event;
        let nmi_window = self.offer_nmi()?;
        let window = self.offer_interrupt()?;
        let delivered = self.event != interrupted;
        // What was interrupted goes on by itself unless the reply says something else.
        let raised = self.event.is_valid() && !self.was_interrupted();
        if delivered || raised || window != self.cpu.window || nmi_window != self.cpu.nmi_window {
            let mut word = self.event;
            if window {
                word = word.with_interrupt_window();
            }
            if nmi_window {
                word = word.with_nmi_window();
            }
            self.state.inject = word.0;
            self.reply |= Mtd::INJECT;
            (self.cpu.window, self.cpu.nmi_window) = (window, nmi_window);
        }
        if self.event.is_valid() && matches!(self.cpu.run, Run::Halted | Run::Stalled) {
            self.cpu.run = Run::Running;
        }
        self.set_activity(exit);
        if self.cpu.lapic.eoi_is_silent() {
            self.cpu.pv.offer_eoi(self.vm.ram());
        }
        Ok(())
    }

    /// When the vCPU has something to do by itself: its timer, or a look at what it waits for, as a
    /// back end that dies does not say so.
    fn deadline(&self) -> u64 {
        const PATIENCE_MS: u64 = 100;
        let timer = self.cpu.lapic.deadline();
        if self.cpu.run != Run::Stalled {
            return timer;
        }
        let retry = self.host.tsc().saturating_add(self.vm.config().tsc_khz * PATIENCE_MS);
        if timer == 0 { retry } else { timer.min(retry) }
    }

    /// Whether `event` is what the exit interrupted, and nothing else.
    fn was_interrupted(&self) -> bool {
        self.valid.contains(Mtd::INJECT)
            && Inject(self.state.inject).is_valid()
            && Inject(self.state.inject).event() == self.event
    }

    fn set_activity(&mut self, exit: Exit) {
        let halted = matches!(self.cpu.run, Run::Halted | Run::Stalled);
        let told = matches!(exit, Exit::Hlt | Exit::Recall | Exit::Deadline);
        if !halted && !told {
            return;
        }
        let mut activity = Activity::from_bits_truncate(self.state.activity);
        if !self.valid.contains(Mtd::ACTIVITY) {
            activity = Activity::empty();
        }
        activity.set(Activity::HALTED, halted);
        if self.unshadowed {
            activity.remove(Activity::INTERRUPT_SHADOW);
        }
        self.state.activity = activity.bits();
        self.reply |= Mtd::ACTIVITY;
    }

    /// Whether the guest cannot take an event now because of the instruction before.
    fn in_shadow(&self) -> bool {
        !self.unshadowed
            && self.valid.contains(Mtd::ACTIVITY)
            && Activity::from_bits_truncate(self.state.activity)
                .contains(Activity::INTERRUPT_SHADOW)
    }

    /// Delivers a pending NMI; returns whether it has to wait.
    fn offer_nmi(&mut self) -> Result<bool, Stop> {
        if !self.cpu.nmi {
            return Ok(false);
        }
        self.need(Mtd::ACTIVITY)?;
        let blocked =
            Activity::from_bits_truncate(self.state.activity).contains(Activity::NMI_BLOCKED);
        if blocked || self.event.is_valid() || self.in_shadow() {
            return Ok(true);
        }
        self.cpu.nmi = false;
        self.event = Inject::nmi();
        Ok(false)
    }

    /// Delivers the interrupt that the local APIC has next; returns whether one has to wait.
    fn offer_interrupt(&mut self) -> Result<bool, Stop> {
        if !self.cpu.lapic.has_requests() {
            return Ok(false);
        }
        self.collect_eoi();
        // The guest moves CR8 without an exit.
        self.need(Mtd::CR8 | Mtd::RIP)?;
        self.take_cr8();
        let Some(vector) = self.cpu.lapic.pending() else { return Ok(false) };
        let enabled = self.state.rflags & RFLAGS_IF != 0;
        if !enabled || self.event.is_valid() || self.in_shadow() {
            return Ok(true);
        }
        self.cpu.lapic.acknowledge(vector);
        self.event = Inject::interrupt(vector);
        Ok(false)
    }

    /// `CR8` is the upper half of the task priority.
    fn take_cr8(&mut self) {
        let tpr = self.cpu.lapic.tpr();
        if u64::from(tpr >> 4) != self.state.cr8 {
            self.cpu.lapic.set_tpr(crate::num::low8(self.state.cr8 << 4));
        }
    }

    /// If the guest ended its interrupt without an exit, the local APIC learns of it now.
    pub(crate) fn collect_eoi(&mut self) {
        if self.cpu.pv.collect_eoi(self.vm.ram()) {
            // Only edge-triggered vectors are ended silently.
            let _ = self.cpu.lapic.eoi();
        }
    }

    /// Takes over what others have sent. Returns whether the vCPU starts from anew.
    fn take_inbox(&mut self) -> Result<bool, Stop> {
        let Some(inbox) = self.vm.apics().inbox(self.cpu.index) else { return Ok(false) };
        while !inbox.is_empty() {
            let Events { vectors, nmi, init, startup, attention } = inbox.take();
            if attention {
                if self.cpu.run == Run::Stalled {
                    self.cpu.run = Run::Running;
                }
                let targets = self.vm.devices().lock().poll(self.vm.apics());
                self.vm.recall(self.host, targets, self.cpu.index);
            }
            if vectors {
                self.cpu.lapic.take_vectors(inbox);
            }
            self.cpu.nmi |= nmi && self.cpu.run != Run::WaitForStartup;
            if init {
                self.init();
            }
            if let Some(vector) = startup
                && self.cpu.run == Run::WaitForStartup
            {
                self.start_at(vector);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// INIT: the vCPU waits for a start-up IPI. The bootstrap processor would start its firmware,
    /// which restarts the VM.
    fn init(&mut self) {
        if self.cpu.index == 0 {
            self.vm.begin_reset(self.host, self.cpu.index);
        }
        self.cpu.lapic.init();
        self.cpu.publish(self.vm);
        self.cpu.pv = PvCpu::default();
        self.cpu.run = Run::WaitForStartup;
        self.cpu.nmi = false;
        self.event = Inject::NONE;
    }

    /// A start-up IPI: real mode at the page that the vector names.
    fn start_at(&mut self, vector: u8) {
        entry::startup_ipi(self.state, vector);
        self.state.tsc_offset = self.cpu.tsc_offset;
        self.cpu.xcr0 = self.state.xcr0;
        self.cpu.armed = 0;
        (self.cpu.window, self.cpu.nmi_window) = (false, false);
        self.cpu.run = Run::Running;
        self.reply = EVERYTHING;
    }

    /// The window that was asked for has come.
    pub(crate) fn window_came(&mut self, nmi: bool) {
        if nmi {
            self.cpu.nmi_window = false;
        } else {
            self.cpu.window = false;
        }
    }

    /// The VM ends here: says why, and what it did.
    fn last_words(&mut self, stop: &Stop) {
        self.vm.stop(self.host, self.cpu.index);
        self.vm.devices().lock().flush();
        self.host.log(format_args!("{stop}"));
        if matches!(stop, Stop::Guest(_)) && self.need(EVERYTHING).is_ok() {
            self.host.log(format_args!("vCPU {}:", self.cpu.index));
            report::registers(self.state, |line| self.host.log(line));
        }
        self.host.log(format_args!("{}", self.vm.exits()));
    }
}

#[cfg(test)]
mod tests;
