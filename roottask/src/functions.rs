//! PCI functions that the configuration gives to components.

use alloc::vec::Vec;

use config::System;
use ipc::info::{Info, MemoryKind};
use sysroot::log;
use sysroot::num::usize_of;

use crate::firmware::ecams;
use crate::grant::zero;
use crate::memory::{Memory, PAGE, Span};
use crate::pci::{self, Ecam, Function, Registers, granted};
use crate::power::Tables;

/// A PCI function of a component.
#[derive(Debug)]
pub struct Grant {
    /// Index of the component.
    pub component: usize,
    /// Index of the device among those of the component.
    pub device: usize,
    /// What reaches it.
    pub function: Function,
    /// Interrupts for its vectors, counted from [`ipc::info::root::INTERRUPTS`] on.
    pub interrupts: Vec<u32>,
    /// Memory for DMA, which stays.
    pub dma: Option<Span>,
}

/// Configuration space in memory.
struct Bus;

impl Registers for Bus {
    fn read(&self, address: u64) -> u32 {
        // SAFETY: addresses come from `usable`: device memory that the root task holds, mapped
        // where it physically is.
        unsafe { core::ptr::with_exposed_provenance::<u32>(usize_of(address)).read_volatile() }
    }

    fn write(&self, address: u64, value: u32) {
        let register = core::ptr::with_exposed_provenance_mut::<u32>(usize_of(address));
        // SAFETY: as above.
        unsafe { register.write_volatile(value) };
    }
}

/// Configuration space that is device memory.
fn usable(info: &Info) -> Vec<Ecam> {
    let mut all = ecams(&Tables(info), info.rsdp);
    all.retain(|ecam| is_device_memory(info, ecam.start(), ecam.size()));
    all
}

/// Whether a range is device memory that the root task holds.
#[must_use]
pub fn is_device_memory(info: &Info, base: u64, size: u64) -> bool {
    lies_in(info, MemoryKind::Device, base, size)
}

/// Whether a range lies in memory of one kind.
#[must_use]
pub fn lies_in(info: &Info, kind: MemoryKind, base: u64, size: u64) -> bool {
    let kind = u64::from(kind.number());
    let Some(end) = base.checked_add(size) else { return false };
    info.memory()
        .iter()
        .any(|m| m.kind == kind && m.base <= base && end <= m.base.saturating_add(m.size))
}

/// Finds all functions that the configuration names. What cannot be handed out is reported; its
/// component does not start.
#[must_use]
pub fn find(info: &Info, system: &System, memory: &mut Memory) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    let devices = system.components.iter().enumerate().flat_map(|(component, c)| {
        c.devices.iter().enumerate().map(move |(device, d)| (component, device, d))
    });
    let wanted: Vec<_> =
        devices.filter_map(|(c, d, device)| Some((c, d, device, device.pci?))).collect();
    if wanted.is_empty() {
        return grants;
    }
    let ecams = usable(info);
    let mut interrupts = info.gsi_count..info.interrupt_count;
    for (component, device, named, pci) in wanted {
        let function = match pci::find(&Bus, &ecams, pci.which) {
            Ok(function) => function,
            Err(error) => {
                log!("root: device \"{}\": {error}", named.name);
                continue;
            }
        };
        if grants.iter().any(|g| g.function.config == function.config) {
            log!("root: device \"{}\": another device is this function", named.name);
            continue;
        }
        if !function.bars.iter().all(|b| is_device_memory(info, b.base, b.size)) {
            log!("root: device \"{}\": a BAR is not in device memory", named.name);
            continue;
        }
        let dma = match pci.dma {
            0 => None,
            size => match memory.take_aligned(size, PAGE) {
                Some(span) => {
                    zero(span);
                    Some(span)
                }
                None => {
                    log!("root: device \"{}\": too little memory for DMA", named.name);
                    continue;
                }
            },
        };
        let interrupts = interrupts.by_ref().take(granted(&function).into()).collect();
        log!(
            "root: device \"{}\" is the function at {:#x}, {} vectors",
            named.name,
            function.config,
            function.vectors
        );
        grants.push(Grant { component, device, function, interrupts, dma });
    }
    grants
}

/// The function of a component that is gone does nothing any more, and its memory holds nothing.
pub fn silence(grant: &Grant) {
    pci::silence(&Bus, grant.function.config);
    if let Some(dma) = grant.dma {
        zero(dma);
    }
}
