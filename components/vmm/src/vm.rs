//! A VM: its configuration, what its vCPUs share, and its life from start to restart.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipc::event::Exit;
use sysroot::sync::Mutex;

use crate::acpi;
use crate::boot::linux::{self, Loaded, Payload};
use crate::bus::Devices;
use crate::console::Console;
use crate::devices::interrupt::{ApicBus, MAX_VCPUS, Targets};
use crate::devices::pvclock::Clock;
use crate::host::Host;
use crate::memory::Ram;
use crate::policy::cpuid;
use crate::report::VmmError;

/// What a VM is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The bzImage.
    pub kernel: &'a [u8],
    /// Initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// Host TSC at the start.
    pub start_tsc: u64,
    /// Nanoseconds since 1970 at the start.
    pub wall_ns: u64,
    /// Start with local APICs in x2APIC mode, as the firmware of large machines does: a guest that
    /// knows it needs no accesses through memory. Otherwise it switches by itself.
    pub x2apic: bool,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest runs.
    Running,
    /// It asked for a restart: vCPUs gather.
    Resetting,
    /// It has stopped for good.
    Stopped,
}

const RUNNING: u32 = 0;
const RESETTING: u32 = 1;
const STOPPED: u32 = 2;

/// What all vCPUs of a VM share.
pub struct Vm<'a> {
    config: Config<'a>,
    ram: Ram,
    apics: ApicBus,
    devices: Mutex<Devices>,
    cpuid: cpuid::Policy,
    clock: Clock,
    loaded: Mutex<Loaded>,
    counters: Vec<Counters>,
    /// Release when it changes back to running: the restarted vCPUs see the loaded memory.
    phase: AtomicU32,
    /// vCPUs that wait for the restart.
    gathered: AtomicU32,
    /// Number of starts; written before `phase` says running.
    generation: AtomicU32,
}

impl<'a> Vm<'a> {
    /// Builds a VM and loads its kernel.
    ///
    /// # Errors
    /// The configuration cannot be realized; nothing of the guest has run.
    pub fn new(
        config: Config<'a>,
        ram: Ram,
        console: Box<dyn Console>,
        host_cpuid: cpuid::Host<'_>,
    ) -> Result<Self, VmmError> {
        if config.vcpus == 0 || config.vcpus > MAX_VCPUS.min(acpi::MAX_VCPUS) {
            return Err(VmmError::Vcpus(config.vcpus));
        }
        let loaded = load(&config, &ram)?;
        Ok(Self {
            apics: ApicBus::new(config.vcpus),
            devices: Mutex::new(Devices::new(console)),
            cpuid: cpuid::Policy::new(config.vcpus, host_cpuid),
            clock: Clock::new(config.tsc_khz, config.start_tsc, config.wall_ns),
            loaded: Mutex::new(loaded),
            counters: (0..config.vcpus).map(|_| Counters::default()).collect(),
            phase: AtomicU32::new(RUNNING),
            gathered: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            config,
            ram,
        })
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config<'a> {
        &self.config
    }

    /// Its RAM.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Its APICs.
    #[must_use]
    pub fn apics(&self) -> &ApicBus {
        &self.apics
    }

    /// Its devices.
    #[must_use]
    pub fn devices(&self) -> &Mutex<Devices> {
        &self.devices
    }

    /// What CPUID shows.
    #[must_use]
    pub fn cpuid(&self) -> &cpuid::Policy {
        &self.cpuid
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where its kernel starts.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        *self.loaded.lock()
    }

    /// Something outside needs the VM's attention: console input, or room for output. Takes no
    /// lock, so it may be called at any priority.
    pub fn attention(&self, host: &dyn Host) {
        if let Some(inbox) = self.apics.inbox(0)
            && inbox.attention()
        {
            host.recall(0);
        }
    }

    /// Recalls whoever got a message, but for the vCPU `but` whose exit is being handled: it looks
    /// into its inbox anyway.
    pub fn recall(&self, host: &dyn Host, targets: Targets, but: u32) {
        for vcpu in targets.without(but).iter() {
            host.recall(vcpu);
        }
    }

    fn recall_others(&self, host: &dyn Host, but: u32) {
        for vcpu in (0..self.config.vcpus).filter(|n| *n != but) {
            host.recall(vcpu);
        }
    }

    /// Where it is in its life.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            RUNNING => Phase::Running,
            RESETTING => Phase::Resetting,
            _ => Phase::Stopped,
        }
    }

    /// Number of restarts so far.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        // Ordered by `phase`.
        self.generation.load(Ordering::Relaxed)
    }

    /// The guest asked for a restart: all other vCPUs are recalled.
    pub fn begin_reset(&self, host: &dyn Host, vcpu: u32) {
        let changed =
            self.phase.compare_exchange(RUNNING, RESETTING, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.recall_others(host, vcpu);
        }
    }

    /// A vCPU has stopped for the restart. The last one loads the guest again; then the others are
    /// recalled and it returns `true`.
    ///
    /// # Errors
    /// The guest cannot be loaded, which it could before.
    pub fn gather(&self, host: &dyn Host, vcpu: u32) -> Result<bool, VmmError> {
        // AcqRel: the last one sees what all others have done.
        let before = self.gathered.fetch_add(1, Ordering::AcqRel);
        if before + 1 < self.config.vcpus {
            return Ok(false);
        }
        self.devices.lock().reset();
        for n in 0..self.config.vcpus {
            if let Some(inbox) = self.apics.inbox(n) {
                inbox.clear();
            }
        }
        *self.loaded.lock() = load(&self.config, &self.ram)?;
        self.gathered.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.phase.store(RUNNING, Ordering::Release);
        self.recall_others(host, vcpu);
        Ok(true)
    }

    /// The VM has come to its end: every vCPU stops at its next exit.
    pub fn stop(&self, host: &dyn Host, vcpu: u32) {
        self.phase.store(STOPPED, Ordering::Release);
        self.recall_others(host, vcpu);
    }

    /// Counts an exit.
    #[inline]
    pub fn count(&self, vcpu: u32, exit: Exit) {
        if let Some(counters) = self.counters.get(vcpu as usize) {
            counters.add(exit);
        }
    }

    /// Exits of all vCPUs so far.
    #[must_use]
    pub fn exits(&self) -> Exits {
        let mut sum = Exits::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        sum
    }
}

/// Puts the guest and its tables into RAM.
fn load(config: &Config<'_>, ram: &Ram) -> Result<Loaded, VmmError> {
    let payload = Payload {
        kernel: config.kernel,
        initrd: config.initrd,
        cmdline: config.cmdline,
        rsdp: crate::boot::layout::ACPI,
    };
    let loaded = linux::load(ram, &payload)?;
    acpi::write(ram, config.vcpus)?;
    Ok(loaded)
}

/// Numbers of exits: enough for every [`Exit`].
const COUNTERS: usize = 32;

/// Exits of a vCPU; only its own handler writes.
#[derive(Debug, Default)]
struct Counters([AtomicU64; COUNTERS]);

impl Counters {
    fn add(&self, exit: Exit) {
        if let Some(counter) = self.0.get(usize::from(exit.number())) {
            // One writer, so load and store do; statistics order nothing.
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    fn add_to(&self, sum: &mut Exits) {
        for (sum, counter) in sum.0.iter_mut().zip(&self.0) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
}

/// Numbers of exits by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exits([u64; COUNTERS]);

impl Exits {
    /// Exits for a reason.
    #[must_use]
    pub fn of(&self, exit: Exit) -> u64 {
        self.0.get(usize::from(exit.number())).copied().unwrap_or(0)
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("cpuid", self.of(Exit::Cpuid)),
            ("io", self.of(Exit::Io)),
            ("msr", self.of(Exit::MsrRead) + self.of(Exit::MsrWrite)),
            ("memory", self.of(Exit::Memory)),
            ("hlt", self.of(Exit::Hlt)),
            ("window", self.of(Exit::InterruptWindow)),
            ("deadline", self.of(Exit::Deadline)),
            ("recall", self.of(Exit::Recall)),
        ];
        write!(f, "exits total={}", self.total())?;
        let mut rest = self.total();
        for (name, count) in named {
            write!(f, " {name}={count}")?;
            rest -= count;
        }
        write!(f, " other={rest}")
    }
}
