//! The machine as it was found.

use super::acpi::{self, MadtEntry, Signature, Tables, madt_entries};
use super::bytes::Physical;
use super::memory::{self, Input, Range, Region};
use super::multiboot2::{self, BootInfo, MemoryMap, Tag};
use crate::arch::ioapic::{Description, MAX_IOAPICS};
use crate::arch::{apic, cpu, start};
use crate::num::{low32, u64_of};
use core::fmt;
use heapless::{String, Vec};
use ipc::info::{Cpu, Info, MAX_CPUS, MAX_MEMORY, MAX_MODULES, Memory, MemoryKind, NAME_LEN};

/// Entry of [`Machine::isa_irqs`]: level-triggered.
pub const IRQ_LEVEL: u32 = 1 << 16;
/// Entry of [`Machine::isa_irqs`]: active low.
pub const IRQ_ACTIVE_LOW: u32 = 1 << 17;

/// ACPI tables whose place is looked at.
const MAX_TABLES: usize = 64;
/// CPUs with a larger id need x2APIC mode.
const MAX_XAPIC_ID: u32 = 254;

/// A boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where; its start is page aligned.
    pub range: Range,
    /// Its command line, cut, zero padded.
    pub name: [u8; NAME_LEN],
}

impl Module {
    /// In the form of the information page.
    #[must_use]
    pub const fn info(&self) -> ipc::info::Module {
        ipc::info::Module { base: self.range.start, size: self.range.size(), name: self.name }
    }
}

/// The machine: fixed-capacity lists, no allocation.
#[derive(Clone, Debug)]
pub struct Machine {
    /// APIC ids of the CPUs that can be used, the boot CPU first.
    pub cpus: Vec<u32, MAX_CPUS>,
    /// I/O APICs.
    pub ioapics: Vec<Description, MAX_IOAPICS>,
    /// For each ISA line its GSI in bits 0 to 15, [`IRQ_LEVEL`], [`IRQ_ACTIVE_LOW`].
    pub isa_irqs: [u32; 16],
    /// Local APIC pin that carries NMI.
    pub nmi_pin: Option<u8>,
    /// Physical address of the local APIC's registers.
    pub lapic: u64,
    /// Whose physical memory is.
    pub regions: Vec<Region, MAX_MEMORY>,
    /// Boot modules; the first one is the root task's image.
    pub modules: Vec<Module, MAX_MODULES>,
    /// Physical address of a copy of the ACPI root pointer, in a firmware region; 0: none.
    pub rsdp: u64,
    /// The kernel image.
    pub image: Range,
    /// The kernel's memory.
    pub pool: Range,
    /// Page below 1 MiB where other CPUs start.
    pub trampoline: Option<u64>,
    /// Bytes of RAM.
    pub ram: u64,
    /// Who loaded the kernel.
    pub loader: String<32>,
    /// What is not as it should be but does not stop the boot.
    pub warnings: Vec<Warning, 8>,
}

/// Something that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Without ACPI: one CPU, no device interrupts.
    Acpi(acpi::Error),
    /// The loader passed no ACPI root pointer.
    NoAcpi,
    /// CPUs that are not used.
    CpusLeftOut(usize),
    /// Bytes of memory that nobody gets.
    MemoryLeftOut(u64),
    /// No page below 1 MiB is free: one CPU.
    NoTrampoline,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Acpi(error) => write!(f, "{error}: one CPU, no device interrupts"),
            Self::NoAcpi => f.write_str("no ACPI: one CPU, no device interrupts"),
            Self::CpusLeftOut(count) => write!(f, "{count} CPUs are not used"),
            Self::MemoryLeftOut(bytes) => {
                write!(f, "{} KiB of memory are not used: too many ranges", bytes >> 10)
            }
            Self::NoTrampoline => f.write_str("no free page below 1 MiB: one CPU"),
        }
    }
}

/// Why the kernel cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The loader's information is damaged.
    BootInfo(multiboot2::Error),
    /// The loader passed no memory map.
    NoMemoryMap,
    /// The loader passed no modules, so there is no root task.
    NoModules,
    /// More modules than the information page holds.
    TooManyModules,
    /// Memory cannot be laid out.
    Memory(memory::Error),
    /// `kernel-memory=` on the command line is not a size.
    KernelMemoryOption,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::BootInfo(error) => error.fmt(f),
            Self::NoMemoryMap => f.write_str("the boot loader passed no memory map"),
            Self::NoModules => {
                f.write_str("the boot loader passed no modules: the first is the root task")
            }
            Self::TooManyModules => write!(f, "more than {MAX_MODULES} boot modules"),
            Self::Memory(error) => error.fmt(f),
            Self::KernelMemoryOption => {
                f.write_str("command line: kernel-memory= takes a size such as 64M")
            }
        }
    }
}

/// What the processor says about itself and the image.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The kernel image, page aligned.
    pub image: Range,
    /// APIC id of the boot CPU.
    pub boot_apic_id: u32,
    /// Physical address of the local APIC's registers.
    pub lapic: u64,
    /// Whether CPUs with large APIC ids can be reached.
    pub x2apic: bool,
    /// Width of a physical address.
    pub physical_bits: u8,
}

impl Facts {
    /// What this CPU, the boot CPU, says; the image is at `load_base`.
    #[must_use]
    pub fn collect(load_base: u64) -> Self {
        let features = cpu::features();
        Self {
            image: Range::new(load_base, start::image_layout().end),
            boot_apic_id: cpu::initial_apic_id(),
            lapic: apic::base(),
            x2apic: features.x2apic,
            physical_bits: features.physical_bits,
        }
    }
}

/// Describes the machine from the loader's boot information at a physical address.
///
/// # Errors
/// Names what keeps the kernel from starting.
pub fn discover(
    physical: &impl Physical,
    boot_info: u64,
    facts: &Facts,
) -> Result<Machine, BootError> {
    let info = BootInfo::read(physical, boot_info).map_err(BootError::BootInfo)?;
    let loaded = Loaded::collect(&info)?;
    let mut machine = Machine {
        cpus: Vec::new(),
        ioapics: Vec::new(),
        isa_irqs: core::array::from_fn(|line| low32(u64_of(line))),
        nmi_pin: None,
        lapic: facts.lapic,
        regions: Vec::new(),
        modules: loaded.modules,
        rsdp: 0,
        image: facts.image,
        pool: Range::default(),
        trampoline: None,
        ram: 0,
        loader: String::new(),
        warnings: Vec::new(),
    };
    // A name that does not fit is not worth a failure.
    let _ = machine.loader.push_str(loaded.loader);
    // The boot CPU is the first, whatever the tables say.
    let _ = machine.cpus.push(facts.boot_apic_id);

    let mut tables = Vec::new();
    match loaded.rsdp {
        Some((rsdp, offset)) => {
            machine.rsdp = boot_info + u64_of(offset);
            if let Err(error) = machine.read_acpi(physical, rsdp, facts, &mut tables) {
                machine.warn(Warning::Acpi(error));
            }
        }
        None => machine.warn(Warning::NoAcpi),
    }

    let ranges: Vec<Range, MAX_MODULES> = machine.modules.iter().map(|m| m.range).collect();
    let mut registers: Vec<u64, { MAX_IOAPICS + 1 }> =
        machine.ioapics.iter().map(|ioapic| ioapic.base).collect();
    let _ = registers.push(machine.lapic);
    let input = Input {
        image: facts.image,
        boot_info: Range::new(boot_info, u64_of(info.size())),
        modules: &ranges,
        tables: &tables,
        registers: &registers,
        physical_bits: facts.physical_bits,
        pool_size: loaded.pool_size,
    };
    let plan = memory::plan(loaded.memory.entries(), &input).map_err(BootError::Memory)?;
    machine.regions = plan.regions;
    machine.pool = plan.pool;
    machine.trampoline = plan.trampoline;
    machine.ram = plan.ram;
    if plan.left_out > 0 {
        machine.warn(Warning::MemoryLeftOut(plan.left_out));
    }
    if plan.trampoline.is_none() && machine.cpus.len() > 1 {
        machine.warn(Warning::NoTrampoline);
        machine.cpus.truncate(1);
    }
    Ok(machine)
}

/// What of the boot information is of interest.
struct Loaded<'a> {
    memory: MemoryMap<'a>,
    modules: Vec<Module, MAX_MODULES>,
    rsdp: Option<(&'a [u8], usize)>,
    loader: &'a str,
    pool_size: Option<u64>,
}

impl<'a> Loaded<'a> {
    fn collect(info: &BootInfo<'a>) -> Result<Self, BootError> {
        let mut memory = None;
        let mut modules = Vec::new();
        let mut rsdp: Option<(&[u8], usize)> = None;
        let mut loader = "";
        let mut pool_size = None;
        for tag in info.tags() {
            match tag {
                Tag::CommandLine(line) => pool_size = kernel_memory(line)?,
                Tag::Loader(name) => loader = name,
                Tag::Module(module) => {
                    let range = Range { start: module.start, end: module.end };
                    let name = module.name.as_bytes();
                    let name = core::array::from_fn(|at| name.get(at).copied().unwrap_or_default());
                    let full = |_| BootError::TooManyModules;
                    modules.push(Module { range, name }).map_err(full)?;
                }
                Tag::MemoryMap(map) => memory = Some(map),
                // The newer of two copies is the longer one.
                Tag::Rsdp { bytes, offset } => {
                    if rsdp.is_none_or(|(old, _)| old.len() < bytes.len()) {
                        rsdp = Some((bytes, offset));
                    }
                }
            }
        }
        if modules.is_empty() {
            return Err(BootError::NoModules);
        }
        let memory = memory.ok_or(BootError::NoMemoryMap)?;
        Ok(Self { memory, modules, rsdp, loader, pool_size })
    }
}

/// The size in `kernel-memory=` on a command line: bytes, or with K, M or G.
fn kernel_memory(line: &str) -> Result<Option<u64>, BootError> {
    let mut words = line.split_ascii_whitespace();
    let Some(value) = words.find_map(|word| word.strip_prefix("kernel-memory=")) else {
        return Ok(None);
    };
    let units = [("K", 10), ("M", 20), ("G", 30), ("", 0)];
    let number = |(unit, shift)| Some((value.strip_suffix(unit)?, shift));
    units
        .into_iter()
        .find_map(number)
        .and_then(|(digits, shift)| digits.parse::<u64>().ok()?.checked_mul(1 << shift))
        .map(Some)
        .ok_or(BootError::KernelMemoryOption)
}

impl Machine {
    fn warn(&mut self, warning: Warning) {
        // Each kind comes once at most, and there are fewer kinds than places.
        let _ = self.warnings.push(warning);
    }

    /// Takes processors and interrupt controllers from ACPI, and notes where tables are.
    fn read_acpi(
        &mut self,
        physical: &impl Physical,
        rsdp: &[u8],
        facts: &Facts,
        places: &mut Vec<u64, MAX_TABLES>,
    ) -> Result<(), acpi::Error> {
        let tables = Tables::from_root_pointer(physical, rsdp)?;
        let all = [tables.root_address, tables.dsdt()].into_iter().chain(tables.addresses());
        places.extend(all.take(MAX_TABLES));
        let mut left_out = 0;
        for entry in madt_entries(&tables.find(Signature::MADT)?) {
            match entry {
                MadtEntry::Cpu { apic_id } if self.cpus.contains(&apic_id) => {}
                MadtEntry::Cpu { apic_id } => {
                    let reachable = facts.x2apic || apic_id <= MAX_XAPIC_ID;
                    if !reachable || self.cpus.push(apic_id).is_err() {
                        left_out += 1;
                    }
                }
                MadtEntry::IoApic { base, gsi } => {
                    // Lines of one too many stay without interrupts.
                    let _ = self.ioapics.push(Description { base, gsi });
                }
                MadtEntry::Override { line, gsi, level, active_low } => {
                    if let Some(irq) = self.isa_irqs.get_mut(usize::from(line)) {
                        *irq = gsi & 0xffff
                            | if level { IRQ_LEVEL } else { 0 }
                            | if active_low { IRQ_ACTIVE_LOW } else { 0 };
                    }
                }
                MadtEntry::NmiPin(pin) => self.nmi_pin = Some(pin),
            }
        }
        if left_out > 0 {
            self.warn(Warning::CpusLeftOut(left_out));
        }
        Ok(())
    }

    /// Takes `size` bytes (whole pages) of free memory between 1 MiB and 4 GiB for good; 0 where
    /// nothing is asked for.
    pub fn take_free(&mut self, size: u64) -> Option<u64> {
        const USABLE: Range = Range { start: 1 << 20, end: 1 << 32 };
        if size == 0 {
            return Some(0);
        }
        // From the end of a region, so that the list does not grow.
        let region = self.regions.iter_mut().find(|region| {
            region.kind == MemoryKind::Free
                && region.range.end <= USABLE.end
                && region.range.size() > size
                && region.range.end - size >= USABLE.start
        })?;
        region.range.end -= size;
        Some(region.range.end)
    }

    /// Fills the lists of the information page: CPUs, memory, modules but the root task's own,
    /// ISA interrupts and the ACPI root pointer.
    pub fn describe(&self, info: &mut Info) {
        info.rsdp = self.rsdp;
        info.isa_irqs = self.isa_irqs;
        info.cpu_count = low32(u64_of(self.cpus.len()));
        for (slot, &apic_id) in info.cpus.iter_mut().zip(&self.cpus) {
            *slot = Cpu { apic_id, reserved: 0 };
        }
        info.memory_count = low32(u64_of(self.regions.len()));
        for (slot, region) in info.memory.iter_mut().zip(&self.regions) {
            *slot = Memory {
                base: region.range.start,
                size: region.range.size(),
                kind: region.kind.number().into(),
            };
        }
        let modules = self.modules.get(1..).unwrap_or(&[]);
        info.module_count = low32(u64_of(modules.len()));
        for (slot, module) in info.modules.iter_mut().zip(modules) {
            *slot = module.info();
        }
    }

    /// Logs what was found, for a person to read.
    pub fn report(&self) {
        if !self.loader.is_empty() {
            crate::log!("loaded by {}, image at {:#x}", self.loader, self.image.start);
        }
        crate::log!(
            "memory: {} MiB, of which {} MiB at {:#x} for the kernel",
            self.ram >> 20,
            self.pool.size() >> 20,
            self.pool.start
        );
        crate::log!("CPUs: {}, I/O APICs: {}", self.cpus.len(), self.ioapics.len());
        for module in &self.modules {
            let info = module.info();
            crate::log!(
                "module {:#x}, {} KiB: {}",
                info.base,
                info.size.div_ceil(1024),
                info.name()
            );
        }
        for warning in &self.warnings {
            crate::log!("warning: {warning}");
        }
    }
}

#[cfg(test)]
mod tests;
