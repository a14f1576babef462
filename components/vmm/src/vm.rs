//! A VM: its configuration, what its vCPUs share, and its life from start to restart.

mod virtio;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ipc::event::Exit;
use ipc::proto::board::EXITS;
use sysroot::sync::Mutex;

use crate::acpi;
use crate::boot::linux::{self, Loaded, Payload};
use crate::bus::Devices;
use crate::console::Console;
use crate::devices::interrupt::{ApicBus, MAX_VCPUS, Targets};
use crate::devices::ioapic::Routes;
use crate::devices::pvclock::Clock;
use crate::devices::virtio::slot::Slot;
use crate::devices::virtio::{Link, MAX_DEVICES};
use crate::host::Host;
use crate::memory::Ram;
use crate::num::{high32, low32};
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
    routes: Arc<Routes>,
    virtio: Vec<Slot>,
    cpuid: cpuid::Policy,
    clock: Clock,
    loaded: Mutex<Loaded>,
    counters: &'a Counters,
    /// Release when it changes back to running: the restarted vCPUs see the loaded memory.
    phase: AtomicU32,
    /// The VM stands still. Relaxed: who changes it recalls every vCPU.
    paused: AtomicBool,
    /// vCPUs that wait for the restart; one more while the guest is loaded.
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
        links: Vec<Box<dyn Link>>,
        counters: &'a Counters,
        host_cpuid: cpuid::Host<'_>,
    ) -> Result<Self, VmmError> {
        if config.vcpus == 0 || config.vcpus > MAX_VCPUS.min(acpi::MAX_VCPUS) {
            return Err(VmmError::Vcpus(config.vcpus));
        }
        if links.len() > MAX_DEVICES {
            return Err(VmmError::Devices(links.len()));
        }
        let loaded = load(&config, links.len(), &ram)?;
        let devices = Devices::new(console);
        Ok(Self {
            apics: ApicBus::new(config.vcpus),
            routes: devices.routes(),
            devices: Mutex::new(devices),
            virtio: links.into_iter().map(Slot::new).collect(),
            cpuid: cpuid::Policy::new(config.vcpus, host_cpuid),
            clock: Clock::new(config.tsc_khz, config.start_tsc, config.wall_ns),
            loaded: Mutex::new(loaded),
            counters,
            paused: AtomicBool::new(false),
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
        self.attention_of(host, 0);
    }

    fn attention_of(&self, host: &dyn Host, vcpu: u32) {
        if let Some(inbox) = self.apics.inbox(vcpu)
            && inbox.attention()
        {
            host.recall(vcpu);
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

    /// A vCPU has stopped for the restart, for the first time or again because a back end has let
    /// go of the guest's memory. When all have, one of them loads the guest again; then the others
    /// are recalled and it returns `true`.
    ///
    /// # Errors
    /// The guest cannot be loaded, which it could before.
    pub fn gather(&self, host: &dyn Host, vcpu: u32, first: bool) -> Result<bool, VmmError> {
        // AcqRel: the last one sees what all others have done.
        if first {
            self.gathered.fetch_add(1, Ordering::AcqRel);
        }
        let all = self.config.vcpus;
        if self.gathered.load(Ordering::Acquire) != all || !self.restart_virtio(vcpu) {
            return Ok(false);
        }
        let loading =
            self.gathered.compare_exchange(all, all + 1, Ordering::AcqRel, Ordering::Acquire);
        if loading.is_err() {
            return Ok(false);
        }
        self.devices.lock().reset();
        for n in 0..self.config.vcpus {
            if let Some(inbox) = self.apics.inbox(n) {
                inbox.clear();
            }
        }
        *self.loaded.lock() = load(&self.config, self.virtio.len(), &self.ram)?;
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
    pub fn count(&self, exit: Exit) {
        if let Some(counter) = self.counters.get(usize::from(exit.number())) {
            // Statistics order nothing.
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What CPUID shows of the exits so far; `None` for other leaves.
    #[must_use]
    pub fn counted(&self, leaf: u32, sub: u32) -> Option<cpuid::Registers> {
        use ipc::guest::{EXITS, LEAF, SIGNATURE};
        match leaf {
            LEAF => {
                let [b, c, d] = SIGNATURE;
                Some([EXITS, b, c, d])
            }
            EXITS => {
                let counter = usize::try_from(sub).ok().and_then(|n| self.counters.get(n));
                let count = counter.map_or(0, |counter| counter.load(Ordering::Relaxed));
                Some([low32(count), high32(count), 0, 0])
            }
            _ => None,
        }
    }

    /// Exits of all vCPUs so far.
    #[must_use]
    pub fn exits(&self) -> Exits {
        Exits(self.counters.each_ref().map(|counter| counter.load(Ordering::Relaxed)))
    }
}

/// Puts the guest and its tables into RAM.
fn load(config: &Config<'_>, devices: usize, ram: &Ram) -> Result<Loaded, VmmError> {
    let payload = Payload {
        kernel: config.kernel,
        initrd: config.initrd,
        cmdline: config.cmdline,
        rsdp: crate::boot::layout::ACPI,
    };
    let loaded = linux::load(ram, &payload)?;
    acpi::write(ram, config.vcpus, devices)?;
    Ok(loaded)
}

/// Where exits are counted, by [`Exit::number`].
pub type Counters = [AtomicU64; EXITS];

/// Numbers of exits by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exits([u64; EXITS]);

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
