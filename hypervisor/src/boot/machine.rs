//! The machine as it was found.

use super::Result;
use super::acpi::{find_madt, madt_entries};
use super::bytes::Physical;
use super::memory::{self, Plan, Range};
use super::multiboot2::BootInfo;
use crate::arch::ioapic::{Description, MAX_IOAPICS};
use crate::arch::{apic, cpu, start};
use crate::log;
use crate::num::{low32, u64_of};
use heapless::Vec;
use ipc::info::{Info, MAX_CPUS, MAX_MODULES, Memory, Module};

/// The machine: fixed-capacity lists, no allocation.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// APIC ids of the CPUs that can be used, the boot CPU first.
    pub cpus: Vec<u32, MAX_CPUS>,
    /// I/O APICs.
    pub ioapics: Vec<Description, MAX_IOAPICS>,
    /// For each ISA line its GSI in bits 0 to 15, and how it signals: see [`super::acpi`].
    pub isa_irqs: [u32; 16],
    /// Physical address of the local APIC's registers.
    pub lapic: u64,
    /// Boot modules; the first one is the root task's image.
    pub modules: Vec<Module, MAX_MODULES>,
    /// Physical address of a copy of the ACPI root pointer, in a firmware region; 0: none.
    pub rsdp: u64,
    /// The kernel image, page aligned.
    pub image: Range,
    /// Whether CPUs with large APIC ids can be reached.
    pub x2apic: bool,
    /// Width of a physical address.
    pub physical_bits: u8,
    /// Whose physical memory is.
    pub memory: Plan,
}

/// Describes the machine, of which `machine` has what its boot CPU says, from the loader's boot
/// information at a physical address, and logs what it finds.
///
/// # Errors
/// Names what keeps the kernel from starting.
pub fn discover(mut machine: Machine, physical: &impl Physical, boot_info: u64) -> Result<Machine> {
    let info = BootInfo::read(physical, boot_info)?;
    log!("loaded at {:#x}", machine.image.start);
    if info.modules.is_empty() {
        return Err("the boot loader passed no modules: the first is the root task");
    }
    machine.modules = info.modules.clone();
    let (rsdp, offset) = info.rsdp.ok_or("no ACPI root pointer")?;
    machine.rsdp = boot_info + u64_of(offset);
    let tables = machine.read_acpi(physical, rsdp)?;
    let own = Range::new(boot_info, u64_of(info.size));
    let pool_size = kernel_memory(info.command_line)?;
    machine.memory = memory::plan(info.memory_map(), &machine, own, tables, pool_size)?;
    let Plan { ram, pool, .. } = machine.memory;
    log!(
        "memory: {} MiB, of which {} MiB at {:#x} for the kernel",
        ram >> 20,
        pool.size() >> 20,
        pool.start
    );
    for module in &machine.modules {
        log!("module {:#x}, {} KiB: {}", module.base, module.size.div_ceil(1024), module.name());
    }
    Ok(machine)
}

/// The size in `kernel-memory=` on a command line, in bytes.
fn kernel_memory(line: &str) -> Result<Option<u64>> {
    let mut words = line.split_ascii_whitespace();
    let value = words.find_map(|word| word.strip_prefix("kernel-memory="));
    let wrong = "command line: kernel-memory= takes a number of bytes";
    value.map(|bytes| bytes.parse().map_err(|_| wrong)).transpose()
}

impl Machine {
    /// What this CPU, the boot CPU, says; the image is at `load_base`.
    pub fn new(load_base: u64) -> Self {
        let features = cpu::features();
        Self {
            // The boot CPU is the first, whatever the tables say.
            cpus: Vec::from_iter([cpu::initial_apic_id()]),
            isa_irqs: core::array::from_fn(|line| low32(u64_of(line))),
            lapic: apic::base(),
            image: Range::new(load_base, start::image_layout().end),
            x2apic: features.x2apic,
            physical_bits: features.physical_bits,
            ..Self::default()
        }
    }

    /// Takes processors and interrupt controllers from ACPI; returns an address among its tables.
    fn read_acpi(&mut self, physical: &impl Physical, rsdp: &[u8]) -> Result<u64> {
        let (tables, madt) = find_madt(physical, rsdp)?;
        for (kind, entry) in madt_entries(madt) {
            // One that is too short is no worse than a missing one.
            let _ = self.take(kind, entry);
        }
        Ok(tables)
    }

    /// Where the root task's image lies.
    pub fn root_image(&self) -> Range {
        self.modules.first().map_or(Range::default(), |m| Range::new(m.base, m.size))
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
