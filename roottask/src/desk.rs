//! The root task's service and the handler of its components' exceptions.
//!
//! Handlers run on their callers' time, on every CPU, and that time can end at any moment. So they
//! take no locks: they leave what they learn in atomic places and ring the supervisor's bell.

use alloc::vec::Vec;
use core::fmt::Write;
use core::ptr::from_ref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use heapless::String;
use ipc::cap::Selector;
use ipc::exit::Exception;
use ipc::proto::board::{Figures, Life, Orders};
use ipc::proto::root::{Exit, Log, Publish, Ready, Released, Root, Server};
use ipc::proto::service::{Fault, Incoming};
use ipc::proto::start::{MAX_CLIENTS, layout};
use ipc::state::{Mtd, State};
use ipc::utcb::Message;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::num::u64_of;
use sysroot::portal::{CallHandler, EventHandler};
use sysroot::service::Served;

use crate::output;
use crate::plan::Session;
use crate::policy::Report;

/// What the handlers know of a component and learn from it. Relaxed where nothing else says so:
/// the bell orders what is left here against the supervisor that looks for it.
#[derive(Debug)]
pub struct Place {
    /// Its name.
    pub name: alloc::string::String,
    /// The first [`Report`] of its current life, as a word; 0 for none.
    report: AtomicU64,
    /// It has said that it is ready.
    ready: AtomicBool,
    /// What it is told.
    pub orders: &'static Orders,
    /// What it tells.
    pub figures: &'static Figures,
}

/// What the handlers know of a session.
#[derive(Debug)]
pub struct Wire {
    /// The session.
    pub session: Session,
    /// Physical address of the memory that its sides share.
    pub memory: u64,
    /// Selector of the portal on each CPU, as the provider handed it over; 0 for none.
    portals: Vec<AtomicU64>,
    /// The user has not got them yet.
    fresh: AtomicBool,
    /// The last [`Life`] of the user's RAM that the provider let go of.
    released: AtomicU32,
}

/// Where components report.
#[derive(Debug)]
pub struct Desk {
    /// By index of the component.
    pub places: Vec<Place>,
    /// All sessions.
    pub wires: Vec<Wire>,
    bell: Cap<Semaphore, Up>,
}

impl Desk {
    /// A desk for these components, and sessions with the addresses of their memory.
    pub fn new(
        places: Vec<Place>,
        sessions: impl Iterator<Item = (Session, u64)>,
        cpus: u16,
        bell: Cap<Semaphore, Up>,
    ) -> Self {
        let wire = |(session, memory)| Wire {
            session,
            memory,
            portals: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            fresh: AtomicBool::new(false),
            released: AtomicU32::new(0),
        };
        Self { places, wires: sessions.map(wire).collect(), bell }
    }

    fn place(&self, id: u64) -> Option<&Place> {
        usize::try_from(id).ok().and_then(|n| self.places.get(n))
    }

    /// The session that a provider knows by this number.
    fn wire(&self, provider: u64, client: u16) -> Option<&Wire> {
        let provider = usize::try_from(provider).ok()?;
        let mut own = self.wires.iter().filter(|w| w.session.provider == provider);
        own.find(|w| w.session.client == usize::from(client))
    }

    fn ring(&self) {
        let _ = self.bell.up();
    }

    fn report(&self, place: &Place, report: Report) {
        // Only the first one of a life counts.
        let _ = place.report.compare_exchange(
            0,
            report.to_word(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        self.ring();
    }
}

impl Place {
    /// A component that does not run yet.
    #[must_use]
    pub const fn new(
        name: alloc::string::String,
        orders: &'static Orders,
        figures: &'static Figures,
    ) -> Self {
        let (report, ready) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { name, report, ready, orders, figures }
    }

    /// Physical addresses of the pages with orders and figures.
    #[must_use]
    pub fn pages(&self) -> [u64; 2] {
        [u64_of(from_ref(self.orders).addr()), u64_of(from_ref(self.figures).addr())]
    }

    /// A new life begins: no orders, no figures.
    pub fn reset(&self) {
        self.orders.pause(false);
        for client in 0..MAX_CLIENTS {
            self.orders.set_life(client, Life::default());
        }
        for exits in &self.figures.exits {
            exits.store(0, Ordering::Relaxed);
        }
    }

    /// Takes what it reported, which ends its life.
    pub fn take_report(&self) -> Option<Report> {
        let report = Report::from_word(self.report.swap(0, Ordering::Relaxed));
        if report.is_some() {
            self.ready.store(false, Ordering::Relaxed);
        }
        report
    }

    /// Whether it has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

impl Wire {
    /// Selector of the portal on a CPU.
    #[must_use]
    pub fn portal(&self, cpu: u16) -> Option<Selector> {
        let selector = self.portals.get(usize::from(cpu))?.load(Ordering::Acquire);
        (selector != 0).then_some(Selector(selector))
    }

    /// Whether the provider has handed over all portals of the session.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        (0u16..).zip(&self.portals).all(|(cpu, portal)| {
            self.session.cpus >> cpu & 1 == 0 || portal.load(Ordering::Acquire) != 0
        })
    }

    /// Whether the portals changed since the last look. Whoever starts the user looks too.
    pub fn take_fresh(&self) -> bool {
        self.fresh.swap(false, Ordering::AcqRel)
    }

    /// Whether the provider let go of this life of the user's RAM.
    #[must_use]
    pub fn has_released(&self, life: Life) -> bool {
        self.released.load(Ordering::Acquire) == life.0
    }

    /// Forgets the portals of a provider that died.
    pub fn clear(&self) {
        for portal in &self.portals {
            portal.store(0, Ordering::Release);
        }
    }
}

impl Server for Desk {
    fn log(&self, call: &mut Incoming, request: Log) -> Result<(), Fault> {
        let place = self.place(call.session).ok_or(Fault::Internal)?;
        let mut text = request.text;
        // A line that holds control characters could imitate others.
        if text.bytes().any(|b| b < b' ' && b != b'\t') {
            text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        }
        if output::component(&place.name, &text) { Ok(()) } else { Err(Fault::Busy) }
    }

    fn exit(&self, call: &mut Incoming, request: Exit) -> Result<(), Fault> {
        let place = self.place(call.session).ok_or(Fault::Internal)?;
        self.report(place, Report::Exit(request.code));
        Ok(())
    }

    fn publish(&self, call: &mut Incoming, request: Publish) -> Result<(), Fault> {
        let wire = self.wire(call.session, request.client).ok_or(Fault::NotFound)?;
        if request.cpus & !wire.session.cpus != 0 {
            return Err(Fault::Invalid);
        }
        if usize::try_from(request.cpus.count_ones()) != Ok(call.received.len()) {
            return Err(Fault::Capability);
        }
        let wanted = (0u16..).zip(&wire.portals).filter(|(cpu, _)| request.cpus >> cpu & 1 != 0);
        for ((_, place), selector) in wanted.zip(call.objects()) {
            place.store(selector.0, Ordering::Release);
        }
        wire.fresh.store(true, Ordering::Release);
        call.keep = true;
        self.ring();
        Ok(())
    }

    fn released(&self, call: &mut Incoming, request: Released) -> Result<(), Fault> {
        let wire = self.wire(call.session, request.client).ok_or(Fault::NotFound)?;
        // Release: what the provider did with the memory comes before it is taken back.
        wire.released.store(request.life, Ordering::Release);
        self.ring();
        Ok(())
    }

    fn ready(&self, call: &mut Incoming, _request: Ready) -> Result<(), Fault> {
        let place = self.place(call.session).ok_or(Fault::Internal)?;
        place.ready.store(true, Ordering::Relaxed);
        self.ring();
        Ok(())
    }
}

/// Vector of a page fault.
const PAGE_FAULT: u8 = 14;

/// The handler on one CPU: calls and exceptions.
#[derive(Debug)]
pub struct Clerk {
    desk: &'static Desk,
    calls: Served<Root, Desk>,
}

impl Clerk {
    /// A handler for the desk.
    #[must_use]
    pub const fn new(desk: &'static Desk) -> Self {
        Self { desk, calls: Served::new(desk) }
    }
}

impl CallHandler for Clerk {
    fn call(&self, id: u64, message: Message) -> Message {
        self.calls.call(id, message)
    }
}

impl EventHandler for Clerk {
    /// Reports the exception and parks the thread, as the component is torn down by somebody else.
    fn event(&self, id: u64, _mtd: Mtd, state: &mut State) -> Mtd {
        let [word, address, _] = state.qualification;
        let exception = Exception::from_word(word);
        let error = exception.error.unwrap_or(0);
        if let Some(place) = self.desk.place(id) {
            let mut detail: String<48> = String::new();
            // It fits; where it did not, the rest would be missing.
            let _ = match exception.vector {
                PAGE_FAULT => write!(detail, ", address {address:#x}, error {error:#x}"),
                _ if error != 0 => write!(detail, ", error {error:#x}"),
                _ => Ok(()),
            };
            output::from_handler(format_args!(
                "root: component \"{}\": {} at rip {:#x}, rsp {:#x}{detail}",
                place.name,
                exception_name(exception.vector),
                state.rip,
                state.rsp,
            ));
            self.desk.report(place, Report::Fault(exception.vector));
        }
        state.rip = layout::PARK;
        Mtd::RIP
    }
}

/// Name of an exception (SDM vol. 3, 6.15).
#[must_use]
pub const fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound exceeded",
        6 => "invalid instruction",
        7 => "use of the FPU",
        10 => "invalid TSS",
        11 => "missing segment",
        12 => "stack fault",
        13 => "protection fault",
        14 => "page fault",
        16 => "floating-point error",
        17 => "alignment error",
        19 => "SIMD error",
        _ => "exception",
    }
}
