//! Creating one component: a protection domain with exactly what the configuration names.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use config::{Component, System};
use ipc::PAGE_SIZE;
use ipc::cap::{MemRights, Rights, Selector};
use ipc::event::HOST_EVENTS;
use ipc::info::{Features, Info, MemoryKind, root};
use ipc::proto::board::Life;
use ipc::proto::start::{Area, NOTIFY, PAGES, PARK_SELECTOR, Start, THREAD_BLOCK, layout};
use ipc::state::Mtd;
use ipc::status::Status;
use sysroot::cap::{Cap, Ec, Interrupt, Pd, Portal, Sc, Semaphore, Up};
use sysroot::num::{u64_of, usize_of};
use sysroot::portal::Handler;
use sysroot::syscall::{self, EcStart};
use sysroot::{process, selector, thread};

use crate::desk::Clerk;
use crate::functions::{self, Grant, lies_in};
use crate::grant::{bytes, copy, give, give_all, zero};
use crate::image::{self, Image};
use crate::memory::{LARGE_PAGE, Memory, PAGE, Span, port_chunks};
use crate::place::{Place, Running, Wire};
use crate::plan::{Selectors, Session, lent};
use crate::ram::Ram;
use crate::start_block::{Given, describe, device_memory, isa_interrupt, module_area};

/// Bytes of a component's first stack: what its thread block takes beside UTCB and start block.
const STACK: u64 = 96 * 1024;
const _: () = assert!(STACK + (2 + PAGES as u64) * PAGE <= THREAD_BLOCK);

/// What spawning needs of the rest of the root task.
pub struct Host<'a> {
    /// The machine.
    pub info: &'static Info,
    /// Free memory.
    pub memory: &'a mut Memory,
    /// The handler on each CPU.
    pub clerks: &'a [Handler<Clerk>],
    /// Sessions and the portals that providers handed over.
    pub wires: &'a [Wire],
    /// What components are told and tell while they run, by index.
    pub places: &'a [Place],
    /// RAM of the VMs, by index of the component.
    pub rams: &'a mut [Ram],
    /// Memory of the stores of each component.
    pub stores: &'a [Vec<Vec<Span>>],
    /// PCI functions of the components.
    pub grants: &'a [Grant],
    /// Physical address of the page with the parking code.
    pub park: u64,
    /// Physical address and size of the log rings.
    pub rings: (u64, u64),
}

/// A component that was created.
#[derive(Debug)]
pub struct Child {
    /// Its protection domain.
    pub pd: Cap<Pd>,
    /// The CPU that its main thread runs on.
    pub cpu: u16,
    /// Signals its main semaphore in the root task's name.
    pub bell: Cap<Semaphore, Up>,
    sc: Option<Cap<Sc>>,
    objects: Vec<Selector>,
    memory: Vec<Span>,
    interrupts: Vec<Cap<Interrupt>>,
}

impl Child {
    /// What operators want to know of it.
    #[must_use]
    pub const fn running(&self) -> Running {
        Running { pd: self.pd, sc: self.sc, cpu: self.cpu }
    }
}

/// Portals to the root task that a component gets: calls and events, per CPU. They survive
/// restarts.
#[derive(Debug)]
pub struct Doors {
    calls: Vec<Cap<Portal>>,
    events: Vec<Cap<Portal>>,
}

impl Doors {
    /// Creates the portals of the component with this index.
    ///
    /// # Errors
    /// Kernel memory or selectors are used up.
    pub fn new(clerks: &[Handler<Clerk>], index: usize) -> Result<Self, Status> {
        let id = u64_of(index);
        let calls = clerks.iter().map(|c| c.portal(id)).collect::<Result<_, _>>()?;
        let mtd = Mtd::GPR_BSD | Mtd::RIP | Mtd::QUAL;
        let event = |c: &Handler<Clerk>| c.event_portal(selector::alloc()?, id, mtd);
        let events = clerks.iter().map(event).collect::<Result<_, _>>()?;
        Ok(Self { calls, events })
    }
}

/// Why a component was not created.
pub type Refusal = String;

fn refuse(what: &str) -> impl FnOnce(Status) -> Refusal + '_ {
    move |status| format!("{what}: {status}")
}

/// A component to be created.
struct Order<'a> {
    index: usize,
    system: &'a System,
    component: &'a Component,
    image: Image<'a>,
    start: Start<'a>,
    given: Given,
    doors: &'a Doors,
    place: &'a Place,
}

impl Host<'_> {
    fn cpus(&self) -> u16 {
        u16::try_from(self.clerks.len()).unwrap_or(1)
    }

    /// A boot module by its name.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<(u64, &'static [u8])> {
        find_module(self.info, name)
    }

    /// Takes RAM for a VM, which is to be cleared before the VM can start.
    ///
    /// # Errors
    /// There is too little.
    pub fn prepare(&mut self, index: usize, size: u64) -> Result<(), Refusal> {
        let pieces = self.memory.take_pieces(size, LARGE_PAGE);
        let pieces = pieces.ok_or_else(|| self.too_little(size, "RAM of its VM"))?;
        if let Some(ram) = self.rams.get_mut(index) {
            ram.prepare(pieces);
        }
        Ok(())
    }

    /// Creates a component and starts it.
    ///
    /// # Errors
    /// Why not. Everything taken was given back.
    pub fn spawn(
        &mut self,
        system: &'static System,
        index: usize,
        doors: &Doors,
        is_console: bool,
    ) -> Result<Child, Refusal> {
        let component = system.components.get(index).ok_or("no such component")?;
        let clients = self.wires.iter().filter(|w| w.session.provider == index).count();
        crate::plan::check(component, clients)?;
        let module = |name: &str, what: &str| {
            self.module(name).ok_or_else(|| format!("no boot module \"{name}\" ({what})"))
        };
        let (_, file) = module(&component.image, "its image")?;
        let image = image::parse(file, layout::IMAGE)
            .map_err(|error| format!("image \"{}\": {error}", component.image))?;
        let built_for = image::version(file).unwrap_or(0);
        if built_for != ipc::ABI_VERSION {
            return Err(format!(
                "image \"{}\": built for version {built_for} of the ABI, this is version {}",
                component.image,
                ipc::ABI_VERSION
            ));
        }
        if component.vm.is_some() && !self.info.features().contains(Features::VIRTUALIZATION) {
            return Err("this machine runs no guests".into());
        }
        let mut given = Given { heap: component.memory.max(PAGE * 16), ..Given::default() };
        if let Some(vm) = &component.vm {
            let (base, bytes) = module(&vm.kernel, "kernel of its VM")?;
            given.kernel = (base, u64_of(bytes.len()));
            if let Some(name) = &vm.initrd {
                let (base, bytes) = module(name, "initial RAM disk of its VM")?;
                given.initrd = Some((base, u64_of(bytes.len())));
            }
        }
        given.log = if is_console { self.rings.1 } else { 0 };
        let place = self.places.get(index).ok_or("no such component")?;
        self.check_devices(index, component)?;
        let sessions = self.wires.iter().map(|w| w.session);
        let start = describe(self.info, system, sessions, self.grants, index, given)
            .map_err(|_| "its start block cannot be written")?;

        let order = Order { index, system, component, image, start, given, doors, place };
        let mut child = self.create_objects(index, component)?;
        match self.fill(&mut child, &order).and_then(|()| self.run(&mut child, &order)) {
            Ok(()) => Ok(child),
            Err(why) => {
                self.destroy(index, child);
                if let Some(ram) = self.rams.get_mut(index) {
                    // Nobody else has it yet.
                    ram.end(0);
                    ram.take().into_iter().for_each(|span| self.memory.give(span));
                }
                Err(why)
            }
        }
    }

    /// Takes a component apart and takes back what it had.
    pub fn destroy(&mut self, index: usize, child: Child) {
        // The protection domain first: with it goes everything that runs in it.
        for object in child.objects {
            selector::delete(object);
        }
        for interrupt in child.interrupts {
            // It may have bound it, or not.
            let _ = syscall::unbind_interrupt(interrupt);
        }
        // Before anybody else gets memory that its devices may write to.
        self.grants.iter().filter(|g| g.component == index).for_each(functions::silence);
        for span in child.memory {
            self.memory.give(span);
        }
    }

    fn create_objects(&mut self, index: usize, component: &Component) -> Result<Child, Refusal> {
        let own = process::pd();
        let at = selector::alloc().map_err(refuse("selectors"))?;
        let quota = component.quota.into();
        // Nothing in it ever runs above what the configuration says.
        let pd = syscall::create_pd_with::<Up>(at, own, quota, component.priority, None)
            .map_err(refuse("its protection domain"))?;
        let cpu = crate::plan::cpu(component.cpu, self.cpus());
        let mut child = Child {
            pd,
            cpu,
            bell: Cap::new(at),
            sc: None,
            objects: vec![at],
            memory: Vec::new(),
            interrupts: Vec::new(),
        };
        match Self::semaphores(&mut child) {
            Ok(()) => Ok(child),
            Err(status) => {
                self.destroy(index, child);
                Err(refuse("its semaphore")(status))
            }
        }
    }

    fn semaphores(child: &mut Child) -> Result<(), Status> {
        let semaphore = syscall::create_sm(selector::alloc()?, child.pd, 0)?;
        child.objects.push(semaphore.selector());
        let at = selector::alloc()?;
        child.bell = syscall::derive(process::pd(), semaphore, at, NOTIFY)?;
        child.objects.push(at);
        let slot = Selector(Selectors::SEMAPHORE.into());
        syscall::delegate_object(child.pd, semaphore, slot, Rights::FULL, 0)
    }

    /// Refuses device memory that is RAM, and interrupt lines that do not exist.
    fn check_devices(&self, index: usize, component: &Component) -> Result<(), Refusal> {
        for (n, device) in component.devices.iter().enumerate() {
            let name = &device.name;
            for &(base, size) in &device.mmio {
                let kinds = [MemoryKind::Device, MemoryKind::Trace];
                if !kinds.iter().any(|kind| lies_in(self.info, *kind, base, size)) {
                    return Err(format!("device \"{name}\": {base:#x} is not device memory"));
                }
            }
            let found = self.grants.iter().any(|g| (g.component, g.device) == (index, n));
            if device.pci.is_some() && !found {
                return Err(format!("device \"{name}\" is not there"));
            }
            for &line in &device.irqs {
                isa_interrupt(self.info, line).ok_or_else(|| {
                    format!("device \"{}\": no interrupt line {line}", device.name)
                })?;
            }
        }
        let memory = device_memory(component, index, self.grants);
        let all = memory.iter().flat_map(|m| m.ranges.iter().chain(&m.config).chain(&m.dma));
        match all.map(|m| m.mapped).find(|m| !layout::DEVICES.contains(*m)) {
            Some(area) => Err(format!("its devices have too much memory: {:#x} bytes", area.size)),
            None => Ok(()),
        }
    }

    /// Everything but the main thread.
    fn fill(&mut self, child: &mut Child, order: &Order<'_>) -> Result<(), Refusal> {
        let pd = child.pd;
        for segment in &order.image.segments {
            let span = self.take(child, segment.pages.size, PAGE, "its image")?;
            copy(span, segment.offset, segment.bytes);
            give(pd, span.base, segment.pages.base, span.size, segment.rights)
                .map_err(refuse("its image"))?;
        }
        self.fill_area(child, order.start.heap, PAGE, MemRights::RW, "its heap")?;
        let stack = self.take(child, STACK, PAGE, "its stack")?;
        let end = layout::THREADS.base + THREAD_BLOCK;
        give(pd, stack.base, end - STACK, STACK, MemRights::RW).map_err(refuse("its stack"))?;
        self.start_block(child, &order.start)?;
        let code = MemRights::READ | MemRights::EXECUTE;
        give(pd, self.park, layout::PARK, PAGE, code).map_err(refuse("its parking page"))?;
        if let Some(log) = order.start.log {
            give(pd, self.rings.0, log.base, log.size, MemRights::RW).map_err(refuse("the log"))?;
        }
        self.share(child, order).map_err(refuse("memory of its sessions"))?;
        self.board(child, order).map_err(refuse("its orders"))?;
        self.keep(child, order).map_err(refuse("its stores"))?;
        self.machine(child, order)?;
        self.borrow(child, order).map_err(refuse("RAM of the VMs that it serves"))?;
        self.devices(child, order).map_err(refuse("its devices"))?;
        self.doors(child, order).map_err(refuse("its portals"))?;
        self.connect(child, order).map_err(refuse("its sessions"))
    }

    /// Takes zeroed memory for the component in one piece.
    fn take(
        &mut self,
        child: &mut Child,
        size: u64,
        align: u64,
        what: &str,
    ) -> Result<Span, Refusal> {
        let span =
            self.memory.take_aligned(size, align).ok_or_else(|| self.too_little(size, what))?;
        child.memory.push(span);
        zero(span);
        Ok(span)
    }

    /// Fills an area of the component's address space with zeroed memory.
    fn fill_area(
        &mut self,
        child: &mut Child,
        area: Area,
        align: u64,
        rights: MemRights,
        what: &str,
    ) -> Result<(), Refusal> {
        let pieces = self.memory.take_pieces(area.size, align);
        let pieces = pieces.ok_or_else(|| self.too_little(area.size, what))?;
        child.memory.extend_from_slice(&pieces);
        pieces.iter().copied().for_each(zero);
        give_all(child.pd, &pieces, area, rights).map_err(refuse(what))
    }

    fn too_little(&self, size: u64, what: &str) -> Refusal {
        let free = self.memory.total() / 1024;
        format!("too little memory: {what} takes {} KiB, {free} KiB are free", size / 1024)
    }

    /// Memory of its sessions, on both sides.
    fn share(&self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        for wire in self.wires {
            let session = wire.session;
            let used = order.start.uses.get(session.place).filter(|_| session.user == order.index);
            let served = (order.start.clients.get(session.client))
                .filter(|_| session.provider == order.index);
            let areas = [used.and_then(|u| u.shared), served.and_then(|c| c.shared)];
            for area in areas.into_iter().flatten() {
                give(child.pd, wire.memory, area.base, area.size, MemRights::RW)?;
            }
        }
        Ok(())
    }

    /// The pages by which it and the root task tell each other of changes.
    fn board(&self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        let (orders, figures) = (order.start.orders, order.start.figures);
        order.place.reset();
        let [from, to] = order.place.pages();
        give(child.pd, from, orders.base, orders.size, MemRights::READ)?;
        give(child.pd, to, figures.base, figures.size, MemRights::RW)
    }

    /// Its stores, with what they hold from its lives before.
    fn keep(&self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        let stores = self.stores.get(order.index).into_iter().flatten();
        for (spans, store) in stores.zip(&order.start.stores) {
            give_all(child.pd, spans, store.area, MemRights::RW)?;
        }
        Ok(())
    }

    /// RAM of VMs that run and that it works for.
    fn borrow(&mut self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        for (user, _) in lent(order.system, self.sessions(), order.index) {
            self.lend(child, order.index, user, order.system)?;
        }
        Ok(())
    }

    fn sessions(&self) -> impl Iterator<Item = Session> + Clone + use<'_> {
        self.wires.iter().map(|w| w.session)
    }

    /// Maps the RAM of a VM, if it has any, for a component that works on it, and tells it.
    ///
    /// # Errors
    /// What the kernel says: mostly that the quota of the component is too small.
    pub fn lend(
        &mut self,
        child: &Child,
        provider: usize,
        user: usize,
        system: &System,
    ) -> Result<(), Status> {
        let area = lent(system, self.sessions(), provider).into_iter().find(|l| l.0 == user);
        let Some((ram, (_, area))) = self.rams.get_mut(user).zip(area) else { return Ok(()) };
        if ram.life().is_mapped() && !ram.is_lent_to(provider) {
            give_all(child.pd, &ram.spans, area, MemRights::RW)?;
            ram.lend(provider);
        }
        let life = ram.life();
        self.set_lives(provider, user, life);
        Ok(())
    }

    /// Tells a component about the RAM of a VM.
    pub fn set_lives(&self, provider: usize, user: usize, life: Life) {
        let Some(place) = self.places.get(provider) else { return };
        let sessions = self.sessions().filter(|s| s.lends && s.user == user);
        for session in sessions.filter(|s| s.provider == provider) {
            place.orders.set_life(session.client, life);
        }
    }

    fn start_block(&mut self, child: &mut Child, start: &Start<'_>) -> Result<(), Refusal> {
        let size = u64_of(PAGES * PAGE_SIZE);
        let span = self.take(child, size, PAGE, "its start block")?;
        start.encode(bytes(span)).map_err(|_| "its start block is too long".to_string())?;
        let at = layout::THREADS.base + PAGE;
        give(child.pd, span.base, at, size, MemRights::READ).map_err(refuse("its start block"))
    }

    /// RAM, kernel and initial RAM disk of the component's VM.
    fn machine(&mut self, child: &mut Child, order: &Order<'_>) -> Result<(), Refusal> {
        let Some(vm) = &order.start.vm else { return Ok(()) };
        // The guest executes from it; in the VMM's own space it is never executable.
        let what = "RAM of its VM";
        let ram = self.rams.get_mut(order.index).filter(|r| r.is_ready()).ok_or("it has no RAM")?;
        ram.begin();
        give_all(child.pd, &ram.spans, vm.ram, MemRights::all()).map_err(refuse(what))?;
        for (index, module) in (0..).zip([Some(order.given.kernel), order.given.initrd]) {
            let Some((base, size)) = module else { continue };
            let area = module_area(index, (base, size));
            give(child.pd, base, area.base, size, MemRights::READ)
                .map_err(refuse("the modules of its VM"))?;
        }
        Ok(())
    }

    fn devices(&self, child: &mut Child, order: &Order<'_>) -> Result<(), Status> {
        let ports = order.component.devices.iter().flat_map(|d| d.ports.iter());
        for (port, order) in ports.flat_map(|&(first, count)| port_chunks(first, count)) {
            match syscall::delegate_ports(child.pd, order, port) {
                // Two devices of one component may share a port.
                Ok(()) | Err(Status::Exists) => {}
                Err(status) => return Err(status),
            }
        }
        for memory in device_memory(order.component, order.index, self.grants) {
            for mmio in memory.ranges.iter().chain(&memory.config).chain(&memory.dma) {
                let area = mmio.mapped;
                give(child.pd, mmio.physical, area.base, area.size, MemRights::RW)?;
            }
        }
        let own = self.grants.iter().filter(|g| g.component == order.index);
        for grant in own {
            let pci = order.start.devices.get(grant.device).and_then(|d| d.pci.as_ref());
            let vectors = pci.into_iter().flat_map(|p| p.vectors.iter());
            for (&at, &interrupt) in vectors.zip(&grant.interrupts) {
                let source: Cap<Interrupt> = Cap::new(root::INTERRUPTS.offset(interrupt.into()));
                let at = Selector(at.into());
                syscall::delegate_object(child.pd, source, at, Rights::FULL, 0)?;
                child.interrupts.push(source);
            }
        }
        for interrupt in order.start.devices.iter().flat_map(|d| d.interrupts.iter()) {
            let Some((gsi, _)) = isa_interrupt(self.info, interrupt.line) else { continue };
            let source: Cap<Interrupt> = Cap::new(root::INTERRUPTS.offset(gsi.into()));
            let at = Selector(interrupt.selector.into());
            syscall::delegate_object(child.pd, source, at, Rights::FULL, 0)?;
            child.interrupts.push(source);
        }
        Ok(())
    }

    /// Portals to the root task, and the capabilities that every component has.
    fn doors(&self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        let (pd, objects) = (child.pd, order.start.objects);
        let at = |selector: u32| Selector(selector.into());
        for (n, portal) in (0..).zip(&order.doors.calls) {
            let to = at(objects.root).offset(n);
            syscall::delegate_object(pd, *portal, to, Rights::PT_CALL, 0)?;
        }
        for (n, portal) in (0..).zip(&order.doors.events) {
            // Not the last one, recall: that is the component's own business.
            for event in 0..HOST_EVENTS - 1 {
                let to = at(objects.events).offset(n * HOST_EVENTS + event);
                syscall::delegate_object(pd, *portal, to, Rights::PT_EVENT, 0)?;
            }
        }
        let never: Cap<Semaphore> = Cap::new(at(PARK_SELECTOR));
        syscall::delegate_object(pd, never, at(PARK_SELECTOR), Rights::SM_DOWN, 0)?;
        syscall::delegate_object(pd, pd, at(Selectors::PD), Rights::FULL, 0)
    }

    /// Hands out the session portals that are there.
    fn connect(&self, child: &Child, order: &Order<'_>) -> Result<(), Status> {
        for wire in self.wires.iter().filter(|w| w.session.user == order.index) {
            // They are handed out here; there is nothing left to rewire.
            wire.take_fresh();
            self.wire_up(child, order.component, wire)?;
        }
        Ok(())
    }

    /// Hands the portals of a session to its user.
    ///
    /// # Errors
    /// What the kernel says, where a selector is in use or memory is used up.
    pub fn wire_up(&self, child: &Child, component: &Component, wire: &Wire) -> Result<(), Status> {
        let first = Selectors::of(component, self.cpus()).use_at(wire.session.place, self.cpus());
        for cpu in 0..self.cpus() {
            if let Some(portal) = wire.portal(cpu) {
                let portal: Cap<Portal> = Cap::new(portal);
                let at = Selector((first + u32::from(cpu)).into());
                syscall::delegate_object(child.pd, portal, at, Rights::PT_CALL, 0)?;
            }
        }
        Ok(())
    }

    /// The main thread, last.
    fn run(&mut self, child: &mut Child, order: &Order<'_>) -> Result<(), Refusal> {
        self.threads(child, order).map_err(refuse("its main thread"))
    }

    fn threads(&self, child: &mut Child, order: &Order<'_>) -> Result<(), Status> {
        let block = layout::THREADS.base;
        let events = order.start.objects.events + EVENTS * u32::from(child.cpu);
        let start = EcStart {
            cpu: child.cpu,
            utcb: block,
            stack: block + THREAD_BLOCK,
            events,
            entry: Some(order.image.entry),
        };
        let at = selector::alloc()?;
        // SAFETY: it runs in a protection domain of its own.
        let ec: Cap<Ec> = unsafe { syscall::create_ec(at, child.pd, start) }?;
        child.objects.push(at);
        let slot = Selector(Selectors::EC.into());
        syscall::delegate_object(child.pd, ec, slot, Rights::FULL, 0)?;
        let at = selector::alloc()?;
        let budget = thread::default_budget();
        let priority = order.component.priority;
        let sc: Cap<Sc> = syscall::create_sc(at, child.pd, ec, priority, budget)?;
        child.objects.push(at);
        child.sc = Some(sc);
        let slot = Selector(Selectors::SC.into());
        syscall::delegate_object(child.pd, sc, slot, Rights::SC_CTRL, 0)
    }
}

/// Event portals per CPU, in the width of a selector.
const EVENTS: u32 = 32;
const _: () = assert!(EVENTS as u64 == HOST_EVENTS);

/// A boot module by its name: where it is, and its bytes.
#[must_use]
pub fn find_module(info: &'static Info, name: &str) -> Option<(u64, &'static [u8])> {
    let module = info.modules().iter().find(|m| m.name() == name)?;
    let start = core::ptr::with_exposed_provenance(usize_of(module.base));
    // SAFETY: the kernel maps modules where they physically are, and nobody writes them.
    let bytes = unsafe { core::slice::from_raw_parts(start, usize_of(module.size)) };
    Some((module.base, bytes))
}
