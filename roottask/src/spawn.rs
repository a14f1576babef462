//! Creating one component: a protection domain with exactly what the configuration names.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use config::{Component, System};
use ipc::PAGE_SIZE;
use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::event::HOST_EVENTS;
use ipc::info::{Info, MemoryKind, root};
use ipc::proto::start::{Area, NOTIFY, PAGES, PARK_SELECTOR, Start, THREAD_BLOCK, layout};
use ipc::state::Mtd;
use ipc::status::Status;
use sysroot::cap::{Cap, Ec, Interrupt, Pd, Portal, Sc, Semaphore, Up};
use sysroot::num::{u64_of, usize_of};
use sysroot::portal::Handler;
use sysroot::syscall::{self, EcStart};
use sysroot::{process, selector, thread};

use crate::desk::{Clerk, Wire};
use crate::image::{self, Image};
use crate::memory::{LARGE_PAGE, Memory, PAGE, Span, chunks, port_chunks};
use crate::plan::Selectors;
use crate::start_block::{Given, describe, isa_interrupt, mmio_areas, module_area};

/// Bytes of a component's first stack: the largest that its thread block takes.
const STACK: u64 = 64 * 1024;

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
    objects: Vec<Selector>,
    memory: Vec<Span>,
    interrupts: Vec<Cap<Interrupt>>,
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
    component: &'a Component,
    image: Image<'a>,
    start: Start<'a>,
    given: Given,
    doors: &'a Doors,
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
        self.check_devices(component)?;
        let sessions = self.wires.iter().map(|w| w.session);
        let start = describe(self.info, system, sessions, index, given)
            .map_err(|_| "its start block cannot be written")?;

        let order = Order { index, component, image, start, given, doors };
        let mut child = self.create_objects(component)?;
        match self.fill(&mut child, &order).and_then(|()| self.run(&mut child, &order)) {
            Ok(()) => Ok(child),
            Err(why) => {
                self.destroy(child);
                Err(why)
            }
        }
    }

    /// Takes a component apart and takes back what it had.
    pub fn destroy(&mut self, child: Child) {
        // The protection domain first: with it goes everything that runs in it.
        for object in child.objects {
            selector::delete(object);
        }
        for interrupt in child.interrupts {
            // It may have bound it, or not.
            let _ = syscall::unbind_interrupt(interrupt);
        }
        for span in child.memory {
            self.memory.give(span);
        }
    }

    fn create_objects(&mut self, component: &Component) -> Result<Child, Refusal> {
        let own = process::pd();
        let at = selector::alloc().map_err(refuse("selectors"))?;
        let pd = syscall::create_pd(at, own, component.quota.into())
            .map_err(refuse("its protection domain"))?;
        let cpu = crate::plan::cpu(component.cpu, self.cpus());
        let mut child = Child {
            pd,
            cpu,
            bell: Cap::new(at),
            objects: vec![at],
            memory: Vec::new(),
            interrupts: Vec::new(),
        };
        match Self::semaphores(&mut child) {
            Ok(()) => Ok(child),
            Err(status) => {
                self.destroy(child);
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
    fn check_devices(&self, component: &Component) -> Result<(), Refusal> {
        for device in &component.devices {
            for &(base, size) in &device.mmio {
                let kinds = [MemoryKind::Device, MemoryKind::Trace].map(|k| u64::from(k.number()));
                let found = self.info.memory().iter().any(|m| {
                    kinds.contains(&m.kind)
                        && m.base <= base
                        && base + size <= m.base.saturating_add(m.size)
                });
                if !found {
                    let name = &device.name;
                    return Err(format!("device \"{name}\": {base:#x} is not device memory"));
                }
            }
            for &line in &device.irqs {
                isa_interrupt(self.info, line).ok_or_else(|| {
                    format!("device \"{}\": no interrupt line {line}", device.name)
                })?;
            }
        }
        Ok(())
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
        let stack = self.take(child, STACK, STACK, "its stack")?;
        let end = layout::THREADS.base + THREAD_BLOCK;
        give(pd, stack.base, end - STACK, STACK, MemRights::RW).map_err(refuse("its stack"))?;
        self.start_block(child, &order.start)?;
        let code = MemRights::READ | MemRights::EXECUTE;
        give(pd, self.park, layout::PARK, PAGE, code).map_err(refuse("its parking page"))?;
        if let Some(log) = order.start.log {
            give(pd, self.rings.0, log.base, log.size, MemRights::RW).map_err(refuse("the log"))?;
        }
        self.share(child, order).map_err(refuse("memory of its sessions"))?;
        self.machine(child, order)?;
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
        let mut at = area.base;
        for piece in pieces {
            zero(piece);
            give(child.pd, piece.base, at, piece.size, rights).map_err(refuse(what))?;
            at += piece.size;
        }
        Ok(())
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
        self.fill_area(child, vm.ram, LARGE_PAGE, MemRights::all(), "RAM of its VM")?;
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
        for mmio in mmio_areas(order.component) {
            let area = mmio.mapped;
            give(child.pd, mmio.physical, area.base, area.size, MemRights::RW)?;
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

/// Delegates memory of the root task to appear elsewhere in a component.
fn give(pd: Cap<Pd>, from: u64, to: u64, size: u64, rights: MemRights) -> Result<(), Status> {
    let offset = from % PAGE;
    for (source, target, order) in chunks(from - offset, to - offset, size + offset) {
        give_chunk(pd, source, target, order, rights)?;
    }
    Ok(())
}

/// One chunk, in halves where the kernel does not take it whole.
fn give_chunk(
    pd: Cap<Pd>,
    source: u64,
    target: u64,
    order: u8,
    rights: MemRights,
) -> Result<(), Status> {
    let range = Range::memory(order, rights);
    // SAFETY: the root task uses memory that it has given to a component only to fill it before
    // the component runs, and the log rings, which are atomic.
    match unsafe { syscall::delegate_memory(pd, range, source, target) } {
        Err(Status::BadCap | Status::BadParam) if order > 0 => {
            let half = 1 << (order - 1);
            give_chunk(pd, source, target, order - 1, rights)?;
            give_chunk(pd, source + half, target + half, order - 1, rights)
        }
        outcome => outcome,
    }
}

/// Memory that was just taken, as bytes.
fn bytes(span: Span) -> &'static mut [u8] {
    let start = core::ptr::with_exposed_provenance_mut(usize_of(span.base));
    // SAFETY: free memory is mapped where it physically is; the span is the caller's alone, and
    // nobody runs yet that it was delegated to.
    unsafe { core::slice::from_raw_parts_mut(start, usize_of(span.size)) }
}

/// Clears memory that may hold what others left behind.
pub fn zero(span: Span) {
    bytes(span).fill(0);
}

/// Copies bytes to an offset in memory that was just taken.
pub fn copy(span: Span, offset: u64, from: &[u8]) {
    let to = bytes(span).get_mut(usize_of(offset)..);
    if let Some(to) = to.and_then(|t| t.get_mut(..from.len())) {
        to.copy_from_slice(from);
    }
}
