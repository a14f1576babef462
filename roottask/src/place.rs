//! What handlers and supervisor know of a component and of a session, in atomic places: handlers
//! take no locks.
//!
//! Relaxed where nothing else says so: the bell orders what is left here against the supervisor
//! that looks for it.

use alloc::vec::Vec;
use core::ptr::from_ref;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use config::Component;
use heapless::String;
use ipc::cap::Selector;
use ipc::proto::board::{Figures, Life as RamLife, Orders};
use ipc::proto::root::{Cause, Entry, MAX_ACCOUNTED, State as Shown};
use ipc::proto::start::MAX_CLIENTS;
use sysroot::cap::{Cap, Pd, Sc};
use sysroot::num::u64_of;
use sysroot::service::WINDOW_ORDER;
use sysroot::{selector, syscall, time};

use crate::plan::Session;
use crate::policy::{Life, Report, State};

/// A component.
#[derive(Debug)]
pub struct Place {
    /// What the configuration says of it.
    pub component: &'static Component,
    /// The first [`Report`] of its current life, as a word; 0 for none.
    report: AtomicU64,
    /// It has said that it is ready.
    ready: AtomicBool,
    /// The operator's [`Command`]; 0 for none.
    command: AtomicU8,
    /// What it is told.
    pub orders: &'static Orders,
    /// What it tells.
    pub figures: &'static Figures,
    shown: Board,
    /// Selectors of scheduling contexts that count as its own; 0 for none.
    accounted: [AtomicU64; MAX_ACCOUNTED],
}

/// What the supervisor shows to operators. Its parts can be of different moments.
#[derive(Debug, Default)]
struct Board {
    state: AtomicU8,
    restarts: AtomicU32,
    /// The last [`Report`], as a word.
    last: AtomicU64,
    since: AtomicU64,
    cpu: AtomicU32,
    /// Selectors of protection domain and main scheduling context; 0 for none.
    pd: AtomicU64,
    sc: AtomicU64,
}

/// What an operator wants of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// It is to end.
    Kill,
    /// It is to start anew.
    Restart,
    /// Its VM is to stand still.
    Pause,
    /// Its VM is to go on.
    Resume,
}

impl Command {
    const ALL: [Self; 4] = [Self::Kill, Self::Restart, Self::Pause, Self::Resume];

    const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// What there is of a component that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Its protection domain.
    pub pd: Cap<Pd>,
    /// The scheduling context of its main thread.
    pub sc: Option<Cap<Sc>>,
    /// The CPU of that.
    pub cpu: u16,
}

impl Place {
    /// A component that does not run yet.
    #[must_use]
    pub fn new(
        component: &'static Component,
        orders: &'static Orders,
        figures: &'static Figures,
    ) -> Self {
        Self {
            component,
            report: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            command: AtomicU8::new(0),
            orders,
            figures,
            shown: Board::default(),
            accounted: [const { AtomicU64::new(0) }; MAX_ACCOUNTED],
        }
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
            self.orders.set_life(client, RamLife::default());
        }
        for exits in &self.figures.exits {
            exits.store(0, Ordering::Relaxed);
        }
    }

    /// Notes what it did, where that is the first report of this life.
    pub fn report(&self, report: Report) {
        let word = report.to_word();
        let _ = self.report.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes what it reported, which ends its life.
    pub fn take_report(&self) -> Option<Report> {
        Report::from_word(self.report.swap(0, Ordering::Relaxed))
    }

    /// It says that it is ready, or its life is over.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether it has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Counts the time of these scheduling contexts as its own; whether there is room for all.
    pub fn account(&self, contexts: &[Selector]) -> bool {
        let free = self.accounted.iter().filter(|cell| cell.load(Ordering::Relaxed) == 0);
        if contexts.len() > free.clone().count() {
            return false;
        }
        for (cell, context) in free.zip(contexts) {
            cell.store(context.0, Ordering::Relaxed);
        }
        true
    }

    /// Its life is over, and with it what it handed over.
    pub fn forget(&self) {
        free_windows(&self.accounted);
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Leaves an operator's command; whether the one before was taken.
    pub fn order(&self, command: Command) -> bool {
        let number = command.number();
        self.command.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes the operator's command.
    pub fn take_order(&self) -> Option<Command> {
        let number = self.command.swap(0, Ordering::Relaxed);
        Command::ALL.into_iter().find(|c| c.number() == number)
    }

    /// Shows its state to operators.
    pub fn show(&self, life: &Life, running: Option<Running>) {
        let state = match life.state {
            State::Waiting => 0,
            State::Running => 1,
            State::Backoff(_) => 2,
            State::Ended => 3,
            State::Failed => 4,
        };
        let board = &self.shown;
        board.state.store(state, Ordering::Relaxed);
        board.restarts.store(life.restarts, Ordering::Relaxed);
        board.last.store(life.last.map_or(0, Report::to_word), Ordering::Relaxed);
        board.since.store(life.since, Ordering::Relaxed);
        board.cpu.store(running.map_or(0, |r| r.cpu.into()), Ordering::Relaxed);
        board.pd.store(running.map_or(0, |r| r.pd.raw()), Ordering::Relaxed);
        let sc = running.and_then(|r| r.sc).map_or(0, Cap::raw);
        board.sc.store(sc, Ordering::Relaxed);
    }

    /// What operators see.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let (board, component) = (&self.shown, self.component);
        let state = match board.state.load(Ordering::Relaxed) {
            1 if self.orders.is_paused() => Shown::Paused,
            1 => Shown::Running,
            2 => Shown::Restarting,
            3 => Shown::Ended,
            4 => Shown::Failed,
            _ => Shown::Waiting,
        };
        let runs = matches!(state, Shown::Running | Shown::Paused);
        let (cause, detail) = match Report::from_word(board.last.load(Ordering::Relaxed)) {
            None => (Cause::Nothing, 0),
            Some(Report::Exit(code)) => (Cause::Exit, code),
            Some(Report::Fault(vector)) => (Cause::Fault, vector.into()),
            Some(Report::Killed) => (Cause::Killed, 0),
            Some(Report::Silent) => (Cause::Silent, 0),
        };
        let held = |cell: &AtomicU64| Some(cell.load(Ordering::Relaxed)).filter(|&s| s != 0);
        // Where the component is being taken apart, there is nothing to be read.
        let account = held(&board.pd).and_then(|s| syscall::account(Cap::new(Selector(s))).ok());
        let contexts = core::iter::once(&board.sc).chain(&self.accounted).filter_map(held);
        let ticks = contexts
            .filter_map(|s| syscall::consumed(Cap::new(Selector(s))).ok())
            .fold(0, u64::saturating_add);
        let ms = |ticks| time::ms_of_ticks(ticks);
        let uptime = time::now().saturating_sub(board.since.load(Ordering::Relaxed));
        let stores: u64 = component.stores.iter().map(|s| s.size).sum();
        let mut exits = heapless::Vec::new();
        if component.vm.is_some() {
            exits.extend(self.figures.exits.iter().map(|e| e.load(Ordering::Relaxed)));
        }
        Entry {
            name: short(&component.name),
            image: short(&component.image),
            state,
            vm: component.vm.is_some(),
            cpu: u16::try_from(board.cpu.load(Ordering::Relaxed)).unwrap_or(0),
            restarts: board.restarts.load(Ordering::Relaxed),
            cause,
            detail,
            uptime_ms: if runs { ms(uptime) } else { 0 },
            cpu_ms: if runs { ms(ticks) } else { 0 },
            memory: component.memory.saturating_add(stores),
            ram: component.vm.as_ref().map_or(0, |vm| vm.ram),
            kernel_used: account.map_or(0, |a| a.used),
            kernel_limit: account.map_or(component.quota.into(), |a| a.limit),
            exits,
        }
    }
}

/// A name, cut off where it is longer than names are.
fn short<const N: usize>(name: &str) -> String<N> {
    let mut short = String::new();
    name.chars().take_while(|&c| short.push(c).is_ok()).for_each(drop);
    short
}

/// Empties these places and everything that came in with what they held: every call that brought
/// capabilities left its whole window behind.
fn free_windows(places: &[AtomicU64]) {
    let mut windows: Vec<u64> = Vec::new();
    for place in places {
        let window = place.swap(0, Ordering::AcqRel) >> WINDOW_ORDER << WINDOW_ORDER;
        if window != 0 && !windows.contains(&window) {
            windows.push(window);
            selector::delete_range(Selector(window), WINDOW_ORDER);
        }
    }
}

/// A session.
#[derive(Debug)]
pub struct Wire {
    /// Which one.
    pub session: Session,
    /// Physical address of the memory that its sides share.
    pub memory: u64,
    /// Selector of the portal on each CPU, as the provider handed it over; 0 for none.
    portals: Vec<AtomicU64>,
    /// The user has not got them yet.
    fresh: AtomicBool,
    /// The last life of the user's RAM that the provider let go of.
    released: AtomicU32,
}

impl Wire {
    /// A session whose provider does not run yet.
    #[must_use]
    pub fn new(session: Session, memory: u64, cpus: u16) -> Self {
        Self {
            session,
            memory,
            portals: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            fresh: AtomicBool::new(false),
            released: AtomicU32::new(0),
        }
    }

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

    /// The provider hands over portals for these CPUs of the session.
    pub fn put(&self, cpus: u64, portals: impl Iterator<Item = Selector>) {
        let wanted = (0u16..).zip(&self.portals).filter(|(cpu, _)| cpus >> cpu & 1 != 0);
        for ((_, place), selector) in wanted.zip(portals) {
            place.store(selector.0, Ordering::Release);
        }
        self.fresh.store(true, Ordering::Release);
    }

    /// The provider let go of this life of the user's RAM. Release: what it did with the memory
    /// comes before that is taken back.
    pub fn release(&self, life: RamLife) {
        self.released.store(life.0, Ordering::Release);
    }

    /// Whether the provider let go of this life of the user's RAM.
    #[must_use]
    pub fn has_released(&self, life: RamLife) -> bool {
        self.released.load(Ordering::Acquire) == life.0
    }

    /// Forgets the portals of a provider that died, and whatever else it handed over with them.
    pub fn clear(&self) {
        free_windows(&self.portals);
        self.fresh.store(false, Ordering::Release);
    }
}
