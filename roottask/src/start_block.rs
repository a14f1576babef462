//! Writing down for a component what it was given.

use config::{Component, System};
use heapless::Vec;
use ipc::cap::Selector;
use ipc::info::Info;
use ipc::proto::start::{
    Area, Client, Device, Error, Interrupt, Mmio, Objects, Pci, Start, Store, THREAD_BLOCK, Used,
    Vm, layout,
};

use sysroot::process;

use crate::functions::Grant;
use crate::memory::{LARGE_PAGE, PAGE};
use crate::plan::{Selectors, Session, cpu, lent, stores};

/// What only exists once the component's memory has been taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// Heap.
    pub heap: u64,
    /// Kernel image of the VM: physical address and size.
    pub kernel: (u64, u64),
    /// Initial RAM disk of the VM, likewise.
    pub initrd: Option<(u64, u64)>,
    /// Size of the root task's log rings, for the console; 0 for the others.
    pub log: u64,
}

/// Where the modules of a VM are mapped: at the same offset in a large page as in physical memory,
/// so that it takes few capabilities.
#[must_use]
pub fn module_area(index: u64, (base, size): (u64, u64)) -> Area {
    const SLOT: u64 = 4 << 30;
    Area { base: layout::MODULES.base + index * SLOT + base % LARGE_PAGE, size }
}

/// Memory that belongs to a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Ranges that the configuration names, or the BARs of a PCI function.
    pub ranges: alloc::vec::Vec<Mmio>,
    /// The configuration page of a PCI function.
    pub config: Option<Mmio>,
    /// Memory that the function may access by itself.
    pub dma: Option<Mmio>,
}

/// Where the memory of a component's devices is mapped, in their order.
#[must_use]
pub fn device_memory(
    component: &Component,
    index: usize,
    grants: &[Grant],
) -> alloc::vec::Vec<DeviceMemory> {
    let mut next = layout::DEVICES.base;
    let mut place = |physical: u64, size: u64| {
        let base = next.next_multiple_of(LARGE_PAGE) + physical % LARGE_PAGE;
        next = base.saturating_add(size);
        Mmio { mapped: Area { base, size }, physical }
    };
    let mut all = alloc::vec::Vec::new();
    for (n, device) in component.devices.iter().enumerate() {
        let mut memory = DeviceMemory::default();
        for &(physical, size) in &device.mmio {
            memory.ranges.push(place(physical, size));
        }
        if let Some(grant) = grants.iter().find(|g| (g.component, g.device) == (index, n)) {
            for bar in &grant.function.bars {
                memory.ranges.push(place(bar.base, bar.size));
            }
            memory.config = Some(place(grant.function.config, PAGE));
            memory.dma = grant.dma.map(|span| place(span.base, span.size));
        }
        all.push(memory);
    }
    all
}

/// Trigger flags and GSI of an ISA interrupt line.
#[must_use]
pub fn isa_interrupt(info: &Info, line: u8) -> Option<(u32, u64)> {
    let word = *info.isa_irqs.get(usize::from(line))?;
    let (gsi, flags) = (word & 0xffff, u64::from(word >> 16 & 3));
    (gsi < info.gsi_count).then_some((gsi, flags))
}

/// Hands out addresses of the window area for memory that the root task maps there.
struct Windows(u64);

impl Windows {
    /// An aligned area of a power of two of bytes; `None` for none.
    fn take(&mut self, size: u64) -> Option<Area> {
        if size == 0 {
            return None;
        }
        let base = self.0.next_multiple_of(size);
        self.0 = base + size;
        Some(Area { base, size })
    }
}

/// The start block of a component.
///
/// # Errors
/// A list is longer than a start block holds, which [`crate::plan::check`] excludes.
pub fn describe<'a>(
    info: &Info,
    system: &'a System,
    sessions: impl Iterator<Item = Session> + Clone,
    grants: &[Grant],
    index: usize,
    given: Given,
) -> Result<Start<'a>, Error> {
    let component = system.components.get(index).ok_or(Error)?;
    let cpus = u16::try_from(info.cpus().len()).unwrap_or(1);
    let selectors = Selectors::of(component, cpus);
    let mut windows = Windows(layout::WINDOWS.base);
    let log = windows.take(given.log);
    let orders = windows.take(PAGE).ok_or(Error)?;
    let figures = windows.take(PAGE).ok_or(Error)?;
    let mut uses = Vec::new();
    for (place, used) in component.uses.iter().enumerate() {
        let provider = system.components.get(usize::from(used.provider)).ok_or(Error)?;
        let portals = selectors.use_at(place, cpus);
        let own = sessions.clone().find(|s| s.user == index && s.place == place);
        let shared = windows.take(own.map_or(0, |s| s.shared));
        let used = Used { service: &used.service, provider: &provider.name, portals, shared };
        uses.push(used).map_err(|_| Error)?;
    }
    let lent = lent(system, sessions.clone(), index);
    let mut clients = Vec::new();
    for session in sessions.clone().filter(|s| s.provider == index) {
        let user = system.components.get(session.user).ok_or(Error)?;
        let used = user.uses.get(session.place).ok_or(Error)?;
        let client = Client {
            service: &used.service,
            name: &user.name,
            cpus: session.cpus,
            vm: user.vm.is_some(),
            shared: windows.take(session.shared),
            args: &used.args,
            ram: (lent.iter().filter(|_| session.lends))
                .find(|(user, _)| *user == session.user)
                .map(|(_, area)| *area),
        };
        clients.push(client).map_err(|_| Error)?;
    }
    let objects = Objects {
        pd: Selectors::PD,
        ec: Selectors::EC,
        sc: Selectors::SC,
        semaphore: Selectors::SEMAPHORE,
        root: selectors.root,
        events: selectors.events,
        free: selectors.free,
        free_count: u32::try_from(Selector::COUNT).unwrap_or(0).saturating_sub(selectors.free),
    };
    Ok(Start {
        name: &component.name,
        args: &component.args,
        tsc_khz: info.tsc_khz,
        boot_tsc: info.boot_tsc,
        wall_ms: process::try_start().map_or(0, |own| own.wall_ms),
        cpus,
        cpu: cpu(component.cpu, cpus),
        priority: component.priority,
        objects,
        heap: Area { base: layout::HEAP.base, size: given.heap },
        threads: Area {
            base: layout::THREADS.base + THREAD_BLOCK,
            size: layout::THREADS.size - THREAD_BLOCK,
        },
        windows: Area { base: windows.0, size: layout::WINDOWS.end().saturating_sub(windows.0) },
        uses,
        clients,
        devices: devices(info, component, index, grants, selectors)?,
        stores: (component.stores.iter().zip(stores(component)))
            .map(|(store, area)| Store { name: &store.name, area })
            .collect(),
        orders,
        figures,
        vm: component.vm.as_ref().map(|vm| machine(vm, cpus, given)).transpose()?,
        log,
    })
}

fn devices<'a, const N: usize>(
    info: &Info,
    component: &'a Component,
    index: usize,
    grants: &[Grant],
    selectors: Selectors,
) -> Result<Vec<Device<'a>, N>, Error> {
    let memory = device_memory(component, index, grants);
    let mut next = selectors.interrupts;
    let mut devices = Vec::new();
    for ((n, device), memory) in component.devices.iter().enumerate().zip(memory) {
        let mut interrupts = Vec::new();
        for &line in &device.irqs {
            let (_, trigger) = isa_interrupt(info, line).ok_or(Error)?;
            let interrupt = Interrupt { line, selector: next, trigger };
            interrupts.push(interrupt).map_err(|_| Error)?;
            next += 1;
        }
        let grant = grants.iter().find(|g| (g.component, g.device) == (index, n));
        let pci = grant.zip(memory.config).map(|(grant, config)| Pci {
            config: config.mapped,
            bars: grant.function.bars.iter().map(|b| b.number).collect(),
            dma: memory.dma,
            vectors: (next..).take(grant.interrupts.len()).collect(),
        });
        next += pci.as_ref().map_or(0, |p| u32::try_from(p.vectors.len()).unwrap_or(0));
        let device = Device {
            name: &device.name,
            ports: Vec::from_slice(&device.ports).map_err(|_| Error)?,
            mmio: Vec::from_slice(&memory.ranges).map_err(|_| Error)?,
            interrupts,
            pci,
        };
        devices.push(device).map_err(|_| Error)?;
    }
    Ok(devices)
}

fn machine(vm: &config::Vm, cpus: u16, given: Given) -> Result<Vm<'_>, Error> {
    let mut vcpus = Vec::new();
    for &n in &vm.vcpus {
        vcpus.push(cpu(n, cpus)).map_err(|_| Error)?;
    }
    Ok(Vm {
        ram: Area { base: layout::GUEST_RAM.base, size: vm.ram },
        kernel: module_area(0, given.kernel),
        initrd: given.initrd.map(|module| module_area(1, module)),
        cmdline: &vm.cmdline,
        vcpus,
    })
}

#[cfg(test)]
mod tests;
