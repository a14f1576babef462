//! The root task's service and the handler of its components' exceptions.
//!
//! Handlers run on their callers' time, on every CPU, and that time can end at any moment. So they
//! take no locks: they leave what they learn in atomic places and ring the supervisor's bell.

use alloc::vec::Vec;
use core::fmt::Write;

use heapless::String;
use ipc::exit::Exception;
use ipc::proto::board::Life;
use ipc::proto::root::{
    Account, Entry, Exit, Kill, List, Log, Pause, Publish, Ready, Released, Restart, Resume, Root,
    Server,
};
use ipc::proto::service::{Fault, Incoming, MAX_CAPS};
use ipc::proto::start::layout;
use ipc::state::{Mtd, State};
use ipc::utcb::Message;
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::portal::{CallHandler, EventHandler};
use sysroot::service::Served;

use crate::output;
use crate::place::{Command, Place, Wire};
use crate::plan::Session;
use crate::policy::Report;

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
        let wire = |(session, memory)| Wire::new(session, memory, cpus);
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

    /// Refuses callers that are no operators.
    fn operator(&self, call: &Incoming) -> Result<(), Fault> {
        let caller = self.place(call.session).ok_or(Fault::Internal)?;
        if caller.component.operator { Ok(()) } else { Err(Fault::Denied) }
    }

    /// Leaves an operator's command for the supervisor.
    fn order(&self, call: &Incoming, name: &str, command: Command) -> Result<(), Fault> {
        self.operator(call)?;
        let place = self.places.iter().find(|p| p.component.name == name);
        let place = place.ok_or(Fault::NotFound)?;
        let for_vms = matches!(command, Command::Pause | Command::Resume);
        if for_vms && place.component.vm.is_none() {
            return Err(Fault::Invalid);
        }
        if !place.order(command) {
            return Err(Fault::Busy);
        }
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        let _ = self.bell.up();
    }

    fn report(&self, place: &Place, report: Report) {
        place.report(report);
        self.ring();
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
        if output::component(&place.component.name, &text) { Ok(()) } else { Err(Fault::Busy) }
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
        wire.put(request.cpus, call.objects());
        call.keep = true;
        self.ring();
        Ok(())
    }

    fn released(&self, call: &mut Incoming, request: Released) -> Result<(), Fault> {
        let wire = self.wire(call.session, request.client).ok_or(Fault::NotFound)?;
        wire.release(Life(request.life));
        self.ring();
        Ok(())
    }

    fn ready(&self, call: &mut Incoming, _request: Ready) -> Result<(), Fault> {
        let place = self.place(call.session).ok_or(Fault::Internal)?;
        place.set_ready(true);
        self.ring();
        Ok(())
    }

    fn account(&self, call: &mut Incoming, _request: Account) -> Result<(), Fault> {
        let place = self.place(call.session).ok_or(Fault::Internal)?;
        let contexts: heapless::Vec<_, MAX_CAPS> = call.objects().collect();
        if !place.account(&contexts) {
            return Err(Fault::Limit);
        }
        call.keep = !call.received.is_empty();
        Ok(())
    }

    fn list(&self, call: &mut Incoming, request: List) -> Result<Entry, Fault> {
        self.operator(call)?;
        self.place(request.index.into()).map(Place::entry).ok_or(Fault::NotFound)
    }

    fn kill(&self, call: &mut Incoming, request: Kill) -> Result<(), Fault> {
        self.order(call, &request.name, Command::Kill)
    }

    fn restart(&self, call: &mut Incoming, request: Restart) -> Result<(), Fault> {
        self.order(call, &request.name, Command::Restart)
    }

    fn pause(&self, call: &mut Incoming, request: Pause) -> Result<(), Fault> {
        self.order(call, &request.name, Command::Pause)
    }

    fn resume(&self, call: &mut Incoming, request: Resume) -> Result<(), Fault> {
        self.order(call, &request.name, Command::Resume)
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
                place.component.name,
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

#[cfg(test)]
mod tests;
