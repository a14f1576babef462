//! The life of the system: starts components in order, notices how they end, starts them again.

use alloc::boxed::Box;
use alloc::vec::Vec;

use config::{MachineAction, System};
use ipc::info::Info;
use ipc::proto::console::Console;
use ipc::proto::service::Protocol;
use ipc::status::Status;
use sysroot::arch::PARK_CODE;
use sysroot::cap::{Cap, Semaphore};
use sysroot::num::usize_of;
use sysroot::portal::{Config, Handler};
use sysroot::{log, process, selector, syscall, time};

use crate::cleaner::Cleaner;
use crate::desk::{Clerk, Desk};
use crate::functions::{self, Grant};
use crate::grant::{copy, shared, zero};
use crate::memory::{Memory, PAGE, Span};
use crate::place::{Command, Place, Wire};
use crate::policy::{LastVm, Life, Report, State, Verdict};
use crate::ram::{Ram, Step};
use crate::spawn::{Child, Doors, Host, find_module};
use crate::{output, plan, power};

mod guests;

/// One component.
struct Ward {
    life: Life,
    child: Option<Child>,
    doors: Option<Doors>,
}

struct Supervisor {
    info: &'static Info,
    system: &'static System,
    memory: Memory,
    desk: &'static Desk,
    clerks: Vec<Handler<Clerk>>,
    wards: Vec<Ward>,
    /// RAM of the VMs, by index of the component.
    rams: Vec<Ram>,
    /// Memory of the stores of each component.
    stores: Vec<Vec<Vec<Span>>>,
    /// PCI functions of the components.
    grants: Vec<Grant>,
    cleaner: &'static Cleaner,
    /// The VM whose RAM the cleaner has.
    cleaning: Option<usize>,
    bell: Cap<Semaphore>,
    park: u64,
    rings: (u64, u64),
    /// Index of the component that provides the console.
    console: Option<usize>,
    last_vm: LastVm,
}

/// Runs for good.
pub fn run(info: &'static Info, memory: Memory) {
    log!(
        "root: {} CPUs, {} MiB free, {} modules",
        info.cpus().len(),
        memory.total() >> 20,
        info.modules().len()
    );
    let Some(system) = load(info) else {
        log!("root: nothing to do; halted");
        return;
    };
    match Supervisor::new(info, system, memory) {
        Ok(mut supervisor) => supervisor.run(),
        Err(status) => log!("root: cannot set up supervision: {status}"),
    }
}

/// The configuration, checked.
fn load(info: &'static Info) -> Option<&'static System> {
    let name = config::MODULE_NAME;
    let Some((_, module)) = find_module(info, name) else {
        log!("root: no boot module \"{name}\": there is no configuration");
        return None;
    };
    match config::decode(module) {
        Ok(system) => {
            log!("root: config \"{}\": {} components", system.name, system.components.len());
            Some(Box::leak(Box::new(system)))
        }
        Err(error) => {
            log!("root: {error}");
            None
        }
    }
}

/// A zeroed page for good.
fn page(memory: &mut Memory) -> Option<Span> {
    let span = memory.take(PAGE, PAGE)?;
    zero(span);
    Some(span)
}

/// The memory of a component's stores, with what they begin with.
fn stores(
    info: &'static Info,
    memory: &mut Memory,
    component: &config::Component,
) -> Option<Vec<Vec<Span>>> {
    let mut stores = Vec::new();
    for store in &component.stores {
        let Some(spans) = memory.take_pieces(store.size, PAGE) else {
            log!("root: too little memory for store \"{}\" of {}", store.name, component.name);
            return None;
        };
        let content = store.content.as_ref().map(|name| find_module(info, name));
        let mut content = match content {
            Some(None) => {
                log!("root: store \"{}\" of {} has no content", store.name, component.name);
                &[]
            }
            Some(Some((_, bytes))) => bytes,
            None => &[],
        };
        for &span in &spans {
            zero(span);
            let size = content.len().min(usize_of(span.size));
            let (now, rest) = content.split_at(size);
            copy(span, 0, now);
            content = rest;
        }
        stores.push(spans);
    }
    Some(stores)
}

impl Supervisor {
    fn new(
        info: &'static Info,
        system: &'static System,
        mut memory: Memory,
    ) -> Result<Self, Status> {
        let cpus = process::start().cpus;
        let bell = syscall::create_sm(selector::alloc()?, process::pd(), 0)?;
        let mut sessions = Vec::new();
        for session in plan::sessions(system, cpus) {
            let mut base = 0;
            if session.shared > 0 {
                let span = memory.take(session.shared, session.shared).ok_or(Status::Quota)?;
                zero(span);
                base = span.base;
            }
            sessions.push((session, base));
        }
        let mut places = Vec::new();
        for component in &system.components {
            let orders = page(&mut memory).and_then(shared).ok_or(Status::Quota)?;
            let figures = page(&mut memory).and_then(shared).ok_or(Status::Quota)?;
            places.push(Place::new(component, orders, figures));
        }
        let desk = Desk::new(places, sessions.into_iter(), cpus, bell.restrict());
        let desk: &'static Desk = Box::leak(Box::new(desk));
        let mut clerks = Vec::new();
        for cpu in 0..cpus {
            let clerk = Box::leak(Box::new(Clerk::new(desk)));
            let handler = Handler::new(Config::on(cpu), clerk)?;
            // SAFETY: it has no portal yet.
            unsafe { sysroot::service::accept_objects(&handler)? };
            clerks.push(handler);
        }
        let park = page(&mut memory).ok_or(Status::Quota)?;
        copy(park, 0, &PARK_CODE);
        // A ring for each CPU's handler and for this thread.
        let size = (output::STRIDE * (u64::from(cpus) + 1)).next_power_of_two();
        let rings = memory.take_aligned(size, PAGE).ok_or(Status::Quota)?;
        zero(rings);
        let ward =
            |c: &config::Component| Ward { life: Life::new(c.restart), child: None, doors: None };
        let console = |c: &config::Component| c.provides.iter().any(|s| s == Console::NAME);
        let stores = system.components.iter().map(|c| stores(info, &mut memory, c));
        let stores = stores.collect::<Option<_>>().ok_or(Status::Quota)?;
        Ok(Self {
            info,
            system,
            rams: system.components.iter().map(|_| Ram::default()).collect(),
            stores,
            grants: functions::find(info, system, &mut memory),
            // CPU 0 has the interrupts and the services.
            cleaner: Cleaner::start(cpus.saturating_sub(1), bell.restrict())?,
            cleaning: None,
            memory,
            desk,
            clerks,
            wards: system.components.iter().map(ward).collect(),
            bell,
            park: park.base,
            rings: (rings.base, rings.size),
            console: system.components.iter().position(console),
            last_vm: LastVm::default(),
        })
    }

    fn run(&mut self) {
        loop {
            let begin = time::now();
            self.take_reports();
            self.take_orders();
            self.reclaim();
            self.clean();
            self.start_what_can();
            self.rewire();
            self.hand_over_output();
            self.show();
            self.finish();
            // Those who are waited for had no time on this CPU.
            let busy = time::now().saturating_sub(begin);
            self.rams.iter_mut().for_each(|ram| ram.excuse(busy));
            let _ = self.bell.down_all(self.next_deadline());
        }
    }

    fn name(&self, index: usize) -> &'static str {
        self.system.components.get(index).map_or("", |c| c.name.as_str())
    }

    fn life(&self, index: usize) -> Option<&Life> {
        self.wards.get(index).map(|w| &w.life)
    }

    /// Components that ended since the last look.
    fn take_reports(&mut self) {
        for index in 0..self.wards.len() {
            let report = self.desk.places.get(index).and_then(Place::take_report);
            if let Some(report) = report {
                self.end(index, report);
            }
        }
    }

    /// What operators want.
    fn take_orders(&mut self) {
        for index in 0..self.wards.len() {
            let Some(place) = self.desk.places.get(index) else { continue };
            let Some(command) = place.take_order() else { continue };
            let runs = self.wards.get(index).is_some_and(|w| w.child.is_some());
            match command {
                Command::Kill | Command::Restart if runs => self.end(index, Report::Killed),
                Command::Pause | Command::Resume => self.pause(index, command == Command::Pause),
                Command::Kill => {
                    if let Some(ward) = self.wards.get_mut(index) {
                        // Nor does it start by itself any more.
                        ward.life.refused();
                    }
                }
                Command::Restart => {}
            }
            if command == Command::Restart
                && let Some(ward) = self.wards.get_mut(index)
            {
                ward.life.begin_anew();
            }
        }
    }

    /// Tells a VM to stand still or to go on.
    fn pause(&self, index: usize, on: bool) {
        let child = self.wards.get(index).and_then(|w| w.child.as_ref());
        let Some((place, child)) = self.desk.places.get(index).zip(child) else { return };
        place.orders.pause(on);
        let _ = child.bell.up();
        log!("root: VM \"{}\" {}", self.name(index), if on { "stands still" } else { "goes on" });
    }

    /// Shows to operators how things are.
    fn show(&self) {
        for (place, ward) in self.desk.places.iter().zip(&self.wards) {
            place.show(&ward.life, ward.child.as_ref().map(Child::running));
        }
    }

    fn end(&mut self, index: usize, report: Report) {
        if self.console == Some(index) {
            output::detach(u64::from(process::start().cpus) + 1);
        }
        let child = self.wards.get_mut(index).and_then(|w| w.child.take());
        if let Some(child) = child {
            self.host().destroy(index, child);
        }
        if let Some(place) = self.desk.places.get(index) {
            // What it did besides does not concern its next life.
            let _ = place.take_report();
            place.forget();
        }
        self.rams.iter_mut().for_each(|ram| ram.forget(index));
        self.end_ram(index);
        for wire in self.desk.wires.iter().filter(|w| w.session.provider == index) {
            wire.clear();
        }
        let name = self.name(index);
        let Some(ward) = self.wards.get_mut(index) else { return };
        let verdict = ward.life.ended(report, time::now(), self.info.tsc_khz);
        match report {
            Report::Exit(0) => log!("root: component \"{name}\" ended"),
            Report::Exit(code) => log!("root: component \"{name}\" failed with code {code}"),
            Report::Fault(_) => log!("root: component \"{name}\" failed"),
            Report::Killed => log!("root: component \"{name}\" was ended by the operator"),
            Report::Silent => log!("root: component \"{name}\" was ended: it kept the RAM"),
        }
        match verdict {
            Verdict::Ended => {}
            Verdict::Restart(ms) => {
                log!(
                    "root: component \"{name}\" starts again in {ms} ms (restart {})",
                    ward.life.restarts.saturating_add(1)
                );
            }
            Verdict::Down => {
                log!("root: component \"{name}\" stays down");
                self.tell_users(index);
            }
            Verdict::GivenUp => {
                log!(
                    "root: component \"{name}\" stays down: it failed {} times in a row",
                    u32::from(ward.life.failures) + 1
                );
                self.tell_users(index);
            }
        }
    }

    /// Says who waits now until the operator starts a component again.
    fn tell_users(&self, provider: usize) {
        for (index, ward) in self.wards.iter().enumerate() {
            let mut sessions = self.desk.wires.iter().map(|w| &w.session);
            let uses = sessions.any(|s| s.provider == provider && s.user == index);
            if uses && ward.child.is_some() {
                log!("root: \"{}\" waits until it is started again", self.name(index));
            }
        }
    }

    fn host(&mut self) -> Host<'_> {
        Host {
            info: self.info,
            memory: &mut self.memory,
            clerks: &self.clerks,
            wires: &self.desk.wires,
            places: &self.desk.places,
            rams: &mut self.rams,
            stores: &self.stores,
            grants: &self.grants,
            park: self.park,
            rings: self.rings,
        }
    }

    /// Starts every component whose turn it is.
    fn start_what_can(&mut self) {
        for index in 0..self.wards.len() {
            let due = match self.life(index).map(|l| l.state) {
                Some(State::Waiting) => true,
                Some(State::Backoff(until)) => time::now() >= until,
                _ => false,
            };
            if due && !self.rams.get(index).is_some_and(Ram::is_leaving) {
                self.try_start(index);
            }
        }
    }

    fn try_start(&mut self, index: usize) {
        let mine = || self.desk.wires.iter().filter(|w| w.session.user == index);
        let lost = mine().find(|w| self.life(w.session.provider).is_none_or(Life::is_over));
        if let Some(wire) = lost {
            log!(
                "root: component \"{}\" not started: its provider \"{}\" does not run",
                self.name(index),
                self.name(wire.session.provider)
            );
            return self.refuse(index);
        }
        let complete = mine().all(Wire::is_complete);
        let ready = match self.prepare(index) {
            Ok(ready) => ready,
            Err(why) => {
                log!("root: component \"{}\" not started: {why}", self.name(index));
                return self.refuse(index);
            }
        };
        if complete && ready {
            self.start(index);
        } else if let Some(ward) = self.wards.get_mut(index) {
            ward.life.state = State::Waiting;
        }
    }

    fn refuse(&mut self, index: usize) {
        if let Some(ward) = self.wards.get_mut(index) {
            ward.life.refused();
        }
    }

    fn start(&mut self, index: usize) {
        let name = self.name(index);
        let doors = match self.wards.get_mut(index).and_then(|w| w.doors.take()) {
            Some(doors) => Ok(doors),
            None => Doors::new(&self.clerks, index),
        };
        let doors = match doors {
            Ok(doors) => doors,
            Err(status) => {
                log!("root: component \"{name}\" not started: its portals: {status}");
                return self.refuse(index);
            }
        };
        let (system, is_console) = (self.system, self.console == Some(index));
        let outcome = self.host().spawn(system, index, &doors, is_console);
        let Some(ward) = self.wards.get_mut(index) else { return };
        ward.doors = Some(doors);
        match outcome {
            Ok(child) => {
                let wanted = system.components.get(index).map_or(0, |c| c.cpu);
                if wanted != child.cpu {
                    log!("root: component \"{name}\": there is no CPU {wanted}");
                }
                let image = system.components.get(index).map_or("", |c| c.image.as_str());
                log!("root: started {name} ({image}) on CPU {}", child.cpu);
                ward.life.started(time::now());
                ward.child = Some(child);
                self.lend(index);
            }
            Err(why) => {
                log!("root: component \"{name}\" not started: {why}");
                ward.life.refused();
            }
        }
    }

    /// Sessions whose provider came back go to users that kept running.
    fn rewire(&mut self) {
        for wire in &self.desk.wires {
            if !wire.is_complete() || !wire.take_fresh() {
                continue;
            }
            let Some(component) = self.system.components.get(wire.session.user) else { continue };
            let child = self.wards.get_mut(wire.session.user).and_then(|w| w.child.take());
            let Some(child) = child else { continue };
            let outcome = self.host().wire_up(&child, component, wire);
            let bell = child.bell;
            if let Some(ward) = self.wards.get_mut(wire.session.user) {
                ward.child = Some(child);
            }
            match outcome {
                Ok(()) => {
                    let _ = bell.up();
                }
                Err(status) => log!(
                    "root: component \"{}\" does not get its session with \"{}\": {status}",
                    self.name(wire.session.user),
                    self.name(wire.session.provider)
                ),
            }
        }
    }

    /// Lines go to the console as soon as it is ready.
    fn hand_over_output(&self) {
        let Some(index) = self.console else { return };
        let ready = self.desk.places.get(index).is_some_and(Place::is_ready);
        if ready
            && !output::is_attached()
            && let Some(child) = self.wards.get(index).and_then(|w| w.child.as_ref())
        {
            log!("root: console \"{}\" takes over", self.name(index));
            output::attach(self.rings.0, child.bell);
        }
    }

    /// What is to happen when the last VM is off.
    fn finish(&mut self) {
        let components = self.system.components.iter().zip(&self.wards);
        let vms = components.filter(|(c, _)| c.vm.is_some()).map(|(_, w)| &w.life);
        if !self.last_vm.goes_off(vms) {
            return;
        }
        log!("root: the last VM is off");
        if self.system.on_last_vm_off == MachineAction::PowerOff {
            power::off(self.info);
        }
    }

    /// When the next component is to be started again.
    fn next_deadline(&self) -> Option<u64> {
        let start = self.wards.iter().filter_map(|w| match w.life.state {
            State::Backoff(until) => Some(until),
            _ => None,
        });
        let patience = self.rams.iter().filter_map(|r| match r.step(0, |_, _| false) {
            Step::Wait(until) => Some(until),
            _ => None,
        });
        start.chain(patience).min()
    }
}
