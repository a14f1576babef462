//! The machine as it was found.

use super::Result;
use super::acpi::{MadtEntry, Tables, madt_entries};
use super::bytes::Physical;
use super::memory::{self, Input, Plan, Range};
use super::multiboot2::BootInfo;
use crate::arch::ioapic::{Description, MAX_IOAPICS};
use crate::arch::{apic, cpu, start};
use crate::log;
use crate::num::{low32, u64_of};
use heapless::Vec;
use ipc::info::{Info, MAX_CPUS, MAX_MODULES, Memory, MemoryKind, Module};

/// ACPI tables whose place is looked at.
const MAX_TABLES: usize = 64;
/// CPUs with a larger id need x2APIC mode.
const MAX_XAPIC_ID: u32 = 254;

/// The machine: fixed-capacity lists, no allocation.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// APIC ids of the CPUs that can be used, the boot CPU first.
    pub cpus: Vec<u32, MAX_CPUS>,
    /// I/O APICs.
    pub ioapics: Vec<Description, MAX_IOAPICS>,
    /// For each ISA line its GSI in bits 0 to 15, and how it signals: see [`super::acpi`].
    pub isa_irqs: [u32; 16],
    /// Local APIC pin that carries NMI.
    pub nmi_pin: Option<u8>,
    /// Physical address of the local APIC's registers.
    pub lapic: u64,
    /// Boot modules; the first one is the root task's image.
    pub modules: Vec<Module, MAX_MODULES>,
    /// Physical address of a copy of the ACPI root pointer, in a firmware region; 0: none.
    pub rsdp: u64,
    /// The kernel image.
    pub image: Range,
    /// Whose physical memory is.
    pub memory: Plan,
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

/// Describes the machine from the loader's boot information at a physical address, and logs what
/// it finds.
///
/// # Errors
/// Names what keeps the kernel from starting.
pub fn discover(physical: &impl Physical, boot_info: u64, facts: &Facts) -> Result<Machine> {
    let info = BootInfo::read(physical, boot_info)?;
    log!("loaded by {}, image at {:#x}", info.loader, facts.image.start);
    if info.modules.is_empty() {
        return Err("the boot loader passed no modules: the first is the root task");
    }
    let mut machine = Machine {
        isa_irqs: core::array::from_fn(|line| low32(u64_of(line))),
        lapic: facts.lapic,
        modules: info.modules.clone(),
        image: facts.image,
        ..Machine::default()
    };
    // The boot CPU is the first, whatever the tables say.
    let _ = machine.cpus.push(facts.boot_apic_id);

    let mut tables = Vec::new();
    let acpi = info.rsdp.ok_or("no ACPI root pointer").and_then(|(rsdp, offset)| {
        machine.rsdp = boot_info + u64_of(offset);
        machine.read_acpi(physical, rsdp, facts, &mut tables)
    });
    if let Err(error) = acpi {
        log!("warning: {error}: one CPU, no device interrupts");
    }

    let ranges: Vec<_, MAX_MODULES> =
        machine.modules.iter().map(|module| Range::new(module.base, module.size)).collect();
    let mut registers: Vec<_, { MAX_IOAPICS + 1 }> =
        machine.ioapics.iter().map(|ioapic| ioapic.base).collect();
    let _ = registers.push(machine.lapic);
    let input = Input {
        image: facts.image,
        boot_info: Range::new(boot_info, u64_of(info.size)),
        modules: &ranges,
        tables: &tables,
        registers: &registers,
        physical_bits: facts.physical_bits,
        pool_size: kernel_memory(info.command_line)?,
    };
    machine.memory = memory::plan(info.memory_map(), &input)?;
    if machine.memory.trampoline.is_none() && machine.cpus.len() > 1 {
        log!("warning: no free page below 1 MiB: one CPU");
        machine.cpus.truncate(1);
    }
    let Plan { ram, pool, .. } = machine.memory;
    log!(
        "memory: {} MiB, of which {} MiB at {:#x} for the kernel",
        ram >> 20,
        pool.size() >> 20,
        pool.start
    );
    log!("CPUs: {}, I/O APICs: {}", machine.cpus.len(), machine.ioapics.len());
    for module in &machine.modules {
        log!("module {:#x}, {} KiB: {}", module.base, module.size.div_ceil(1024), module.name());
    }
    Ok(machine)
}

/// The size in `kernel-memory=` on a command line: bytes, or with K, M or G.
fn kernel_memory(line: &str) -> Result<Option<u64>> {
    let mut words = line.split_ascii_whitespace();
    let Some(value) = words.find_map(|word| word.strip_prefix("kernel-memory=")) else {
        return Ok(None);
    };
    let units = [("K", 10), ("M", 20), ("G", 30), ("", 0)];
    units
        .into_iter()
        .find_map(|(unit, shift)| Some((value.strip_suffix(unit)?, shift)))
        .and_then(|(digits, shift)| digits.parse::<u64>().ok()?.checked_mul(1 << shift))
        .map(Some)
        .ok_or("command line: kernel-memory= takes a size such as 64M")
}

impl Machine {
    /// Takes processors and interrupt controllers from ACPI, and notes where tables are.
    fn read_acpi(
        &mut self,
        physical: &impl Physical,
        rsdp: &[u8],
        facts: &Facts,
        places: &mut Vec<u64, MAX_TABLES>,
    ) -> Result<()> {
        let tables = Tables::from_root_pointer(physical, rsdp)?;
        let all = [tables.root_address].into_iter().chain(tables.dsdt()).chain(tables.addresses());
        places.extend(all.take(MAX_TABLES));
        let madt = tables.find(b"APIC").ok_or("ACPI table MADT is missing or damaged")?;
        for entry in madt_entries(madt) {
            match entry {
                MadtEntry::Cpu(id) if self.cpus.contains(&id) => {}
                MadtEntry::Cpu(id) => {
                    let reachable = facts.x2apic || id <= MAX_XAPIC_ID;
                    if !reachable || self.cpus.push(id).is_err() {
                        log!("warning: the CPU with APIC id {id} is not used");
                    }
                }
                // Lines of one too many stay without interrupts.
                MadtEntry::IoApic(ioapic) => drop(self.ioapics.push(ioapic)),
                MadtEntry::Override(line, irq) => {
                    if let Some(slot) = self.isa_irqs.get_mut(usize::from(line)) {
                        *slot = irq;
                    }
                }
                MadtEntry::NmiPin(pin) => self.nmi_pin = Some(pin),
            }
        }
        Ok(())
    }

    /// Where the root task's image lies.
    pub fn root_image(&self) -> Range {
        self.modules.first().map_or(Range::default(), |m| Range::new(m.base, m.size))
    }

    /// Takes `size` bytes (whole pages) of free memory between 1 MiB and 4 GiB for good; 0 where
    /// nothing is asked for.
    pub fn take_free(&mut self, size: u64) -> Option<u64> {
        const USABLE: Range = Range { start: 1 << 20, end: 1 << 32 };
        if size == 0 {
            return Some(0);
        }
        // From the end of a region, so that the list does not grow.
        let region = self.memory.regions.iter_mut().find(|region| {
            region.kind == MemoryKind::Free
                && region.range.end <= USABLE.end
                && region.range.size() > size
                && region.range.end - size >= USABLE.start
        })?;
        region.range.end -= size;
        Some(region.range.end)
    }

    /// Fills in what the information page says about memory, modules but the root task's own, ISA
    /// interrupts and ACPI.
    pub fn describe(&self, info: &mut Info) {
        info.rsdp = self.rsdp;
        info.isa_irqs = self.isa_irqs;
        info.memory_count = low32(u64_of(self.memory.regions.len()));
        for (slot, region) in info.memory.iter_mut().zip(&self.memory.regions) {
            let (base, size) = (region.range.start, region.range.size());
            *slot = Memory { base, size, kind: region.kind.number().into() };
        }
        let modules = self.modules.get(1..).unwrap_or(&[]);
        info.module_count = low32(u64_of(modules.len()));
        for (slot, module) in info.modules.iter_mut().zip(modules) {
            *slot = *module;
        }
    }
}

#[cfg(test)]
mod tests;
