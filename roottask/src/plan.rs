//! What each component gets, worked out from the configuration before anything is created.

use alloc::vec::Vec;

use config::{Component, Device, System};
use ipc::event::HOST_EVENTS;
use ipc::proto::service::Protocol;
use ipc::proto::start::{
    Area, MAX_CLIENTS, MAX_DEVICES, MAX_RANGES, MAX_STORES, MAX_USES, MAX_VCPUS, PARK_SELECTOR,
    layout,
};
use ipc::proto::virtio::Virtio;

use crate::memory::PAGE;

/// A use of a service: the user's session with the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Index of the component that provides the service.
    pub provider: usize,
    /// Index of the session among those of the provider.
    pub client: usize,
    /// Index of the component that uses it.
    pub user: usize,
    /// Index of the use among those of the user.
    pub place: usize,
    /// CPUs on which the user needs a portal, one bit each.
    pub cpus: u64,
    /// Bytes of memory that both sides share, a power of two; 0 for none.
    pub shared: u64,
    /// Whether the provider works on the RAM of the user's VM.
    pub lends: bool,
}

/// A CPU number of the configuration on a machine that may have fewer CPUs.
#[must_use]
pub fn cpu(wanted: u16, cpus: u16) -> u16 {
    wanted % cpus.max(1)
}

/// CPUs that threads of a component run on, one bit each.
#[must_use]
pub fn cpu_mask(component: &Component, cpus: u16) -> u64 {
    let vcpus = component.vm.iter().flat_map(|vm| vm.vcpus.iter());
    core::iter::once(&component.cpu)
        .chain(vcpus)
        .fold(0, |mask, &n| mask | 1u64.checked_shl(cpu(n, cpus).into()).unwrap_or(0))
}

/// All sessions, in the order of their users.
#[must_use]
pub fn sessions(system: &System, cpus: u16) -> Vec<Session> {
    let mut all: Vec<Session> = Vec::new();
    for (user, component) in system.components.iter().enumerate() {
        for (place, used) in component.uses.iter().enumerate() {
            let provider = usize::from(used.provider);
            let client = all.iter().filter(|s| s.provider == provider).count();
            let cpus = cpu_mask(component, cpus);
            let shared = ipc::proto::shared_order(&used.service).map_or(0, |order| PAGE << order);
            let lends = used.service == Virtio::NAME && component.vm.is_some();
            all.push(Session { provider, client, user, place, cpus, shared, lends });
        }
    }
    all
}

/// Areas within `all` for these sizes, aligned so that they take few capabilities.
fn areas(all: Area, sizes: impl Iterator<Item = u64>) -> impl Iterator<Item = Area> {
    const ALIGN: u64 = 1 << 30;
    let mut next = all.base;
    sizes.map(move |size| {
        let area = Area { base: next, size };
        next = area.end().next_multiple_of(ALIGN);
        area
    })
}

/// The VMs whose RAM a component works on, by index, and where it finds that; each once, however
/// many sessions it has.
#[must_use]
pub fn lent(
    system: &System,
    sessions: impl Iterator<Item = Session>,
    provider: usize,
) -> Vec<(usize, Area)> {
    let mut users: Vec<usize> = Vec::new();
    for session in sessions.filter(|s| s.provider == provider && s.lends) {
        if !users.contains(&session.user) {
            users.push(session.user);
        }
    }
    let ram = |&user: &usize| {
        system.components.get(user).and_then(|c| c.vm.as_ref()).map_or(0, |vm| vm.ram)
    };
    let places = areas(layout::CLIENT_RAM, users.iter().map(ram)).collect::<Vec<_>>();
    users.into_iter().zip(places).collect()
}

/// Where the stores of a component are.
pub fn stores(component: &Component) -> impl Iterator<Item = Area> + '_ {
    areas(layout::STORES, component.stores.iter().map(|s| s.size))
}

/// Why a component that is valid by itself exceeds what a start block holds.
///
/// # Errors
/// What there is too much of.
pub fn check(component: &Component, clients: usize) -> Result<(), &'static str> {
    let devices = &component.devices;
    let limits = [
        (component.uses.len() > MAX_USES, "uses too many services"),
        (clients > MAX_CLIENTS, "its services have too many users"),
        (devices.len() > MAX_DEVICES, "has too many devices"),
        (component.stores.len() > MAX_STORES, "has too many stores"),
        (
            devices.iter().any(|d| {
                d.ports.len() > MAX_RANGES || d.mmio.len() > MAX_RANGES || d.irqs.len() > MAX_RANGES
            }),
            "has a device with too many resources",
        ),
        (
            component.vm.as_ref().is_some_and(|vm| vm.vcpus.len() > MAX_VCPUS),
            "has too many virtual CPUs",
        ),
    ];
    limits.into_iter().find(|(bad, _)| *bad).map_or(Ok(()), |(_, why)| Err(why))
}

/// Selectors that a device takes for interrupts.
fn interrupts_of(device: &Device) -> usize {
    device.irqs.len() + device.pci.map_or(0, |_| MAX_RANGES)
}

/// Where capabilities are in a component's object space. They lie close together, as the kernel
/// charges the component for every part of its object space that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selectors {
    /// Portals to the root task, one per CPU.
    pub root: u32,
    /// Event portals, [`HOST_EVENTS`] per CPU.
    pub events: u32,
    /// Interrupts of devices, in order.
    pub interrupts: u32,
    /// Session portals: one per CPU for each use.
    pub uses: u32,
    /// Everything from here on is free.
    pub free: u32,
}

impl Selectors {
    /// Protection domain.
    pub const PD: u32 = 1;
    /// Main execution context.
    pub const EC: u32 = 2;
    /// Its scheduling context.
    pub const SC: u32 = 3;
    /// Main semaphore.
    pub const SEMAPHORE: u32 = 5;
    const FIRST: u32 = 8;

    /// The selectors of a component on a machine.
    #[must_use]
    pub fn of(component: &Component, cpus: u16) -> Self {
        const EVENTS: u32 = 32;
        const _: () = assert!(EVENTS as u64 == HOST_EVENTS && Selectors::FIRST > PARK_SELECTOR);
        let count = |n: usize| u32::try_from(n).unwrap_or(0);
        let cpus = u32::from(cpus);
        let root = Self::FIRST;
        let events = (root + cpus).next_multiple_of(EVENTS);
        let interrupts = events + EVENTS * cpus;
        let uses = interrupts + count(component.devices.iter().map(interrupts_of).sum());
        let free = uses + cpus * count(component.uses.len());
        Self { root, events, interrupts, uses, free }
    }

    /// First session portal of a use.
    #[must_use]
    pub fn use_at(&self, place: usize, cpus: u16) -> u32 {
        self.uses + u32::from(cpus) * u32::try_from(place).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
