//! A device between its VMM and its back end, and the turns that all devices of a back end take.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::ptr::NonNull;

use ipc::proto::board::Orders;
use ipc::proto::start::{Area, Start};
use ipc::proto::virtio::Epoch;
use sysroot::num::usize_of;
use sysroot::{log, process, time};

use crate::chain::Chain;
use crate::follow::{Follow, Seen, Step};
use crate::queue::{Queue, QueueError, RING_FEATURES};
use crate::ram::Ram;
use crate::session::{Desk, Seat, Tally};

/// Most chains that a back end takes from one device in a turn, so that none keeps the others
/// waiting.
pub const TURN: usize = 32;

/// What a kind of devices does.
pub trait Backend {
    /// A driver set up the device `at`, or the back end came back: its queues are in use.
    fn enter(&mut self, _links: &mut Links, _at: usize) {}

    /// The queues of the device `at` are gone. Drops the chains it holds, and returns whether
    /// nothing is under way any more that would touch the guest's memory or take effect after what
    /// the next driver asks for. Called until that is so.
    fn leave(&mut self, _links: &mut Links, _at: usize) -> bool {
        true
    }

    /// A turn of the device `at`, whose queues are in use: handles at most about [`TURN`] chains.
    /// Returns whether it could go on at once. A queue of which the back end wants to hear again
    /// has to have been found empty by [`Link::pop`].
    fn turn(&mut self, links: &mut Links, at: usize) -> bool;

    /// Signals came in; bits below [`crate::session::FIRST_BADGE`] are the back end's own.
    fn woken(&mut self, _links: &mut Links, _badges: u64) {}

    /// There is nothing to do at once. Has devices of the machine tell by interrupt from now on, and
    /// returns whether there is something by now.
    fn rest(&mut self) -> bool {
        false
    }

    /// When to wake up at the latest, as a TSC value.
    fn deadline(&self) -> Option<u64> {
        None
    }
}

/// A device on this side.
#[derive(Debug)]
pub struct Link {
    seat: &'static Seat,
    name: &'static str,
    ram: Option<Ram>,
    follow: Follow,
    features: u64,
    queues: Vec<Option<Queue>>,
    /// Why the driver cannot go on.
    fault: Option<String>,
}

impl Link {
    /// The device of a seat, whose client has this name and this memory.
    #[must_use]
    pub fn new(seat: &'static Seat, name: &'static str, ram: Option<Ram>) -> Self {
        Self {
            seat,
            name,
            ram,
            follow: Follow::default(),
            features: 0,
            queues: Vec::new(),
            fault: None,
        }
    }

    /// Name of the client.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Index of the client in the start block.
    #[must_use]
    pub const fn client(&self) -> usize {
        self.seat.client
    }

    /// Its counters.
    #[must_use]
    pub const fn tally(&self) -> &'static Tally {
        &self.seat.tally
    }

    /// Whether its queues are in use.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.follow.is_active() && self.fault.is_none()
    }

    /// Features that the driver agreed to, while queues are in use.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// The guest's memory, while queues are in use.
    #[must_use]
    pub fn ram(&self) -> Option<&Ram> {
        self.ram.as_ref().filter(|_| self.is_active())
    }

    /// Takes the next chain of a queue. `None` where there is none, the driver does not use the
    /// queue, or broke a rule.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        let outcome = self.queue(queue)?.pop();
        self.checked(queue, outcome).flatten()
    }

    /// Undoes the last [`Self::pop`] of a queue.
    pub fn put_back(&mut self, queue: usize, chain: Chain) {
        if let Some(queue) = self.queue(queue) {
            queue.put_back(chain);
        }
    }

    /// Completes a chain into whose writable part `written` bytes were written. The driver gets its
    /// interrupt at the end of the round. Nothing where the chain is of an epoch that is over.
    pub fn complete(&mut self, queue: usize, chain: Chain, written: u32) {
        let outcome = self.queue(queue).map(|q| q.complete(chain, written));
        if let Some(outcome) = outcome {
            self.checked(queue, outcome);
        }
    }

    /// Chains of a queue that were taken and are not published yet.
    #[must_use]
    pub fn in_flight(&self, queue: usize) -> u16 {
        self.queues.get(queue).and_then(Option::as_ref).map_or(0, Queue::in_flight)
    }

    /// What tells the chain that is completed next from all others of the device: its epoch, and the
    /// index that it will have in the used ring.
    #[must_use]
    pub fn next_used(&self, queue: usize) -> Option<(Epoch, u16)> {
        let index = self.queues.get(queue).and_then(Option::as_ref)?.next_used();
        Some((self.follow.epoch()?, index))
    }

    /// [`Queue::be_patient`], for queues whose drivers look for themselves.
    pub fn be_patient(&mut self, queue: usize, ticks: u64) {
        if let Some(queue) = self.queue(queue) {
            queue.be_patient(ticks);
        }
    }

    /// When an interrupt is due that was held back, as a TSC value.
    fn due(&self) -> Option<u64> {
        self.queues.iter().flatten().filter_map(Queue::due).min()
    }

    /// The driver broke a rule of the device: it needs a reset.
    pub fn give_up(&mut self, reason: impl Display) {
        if self.is_active() {
            self.fault = Some(alloc::format!("{reason}"));
        }
    }

    fn queue(&mut self, queue: usize) -> Option<&mut Queue> {
        let active = self.is_active();
        self.queues.get_mut(queue).and_then(Option::as_mut).filter(|_| active)
    }

    fn checked<T>(&mut self, queue: usize, outcome: Result<T, QueueError>) -> Option<T> {
        outcome.map_err(|e| self.give_up(format_args!("queue {queue}: {e}"))).ok()
    }

    /// Sets up the queues that the driver wants.
    fn set_up(&mut self) -> Result<(), String> {
        let setup = self.seat.shared.setup();
        let description = &self.seat.description;
        let extra = setup.features & !(description.features | RING_FEATURES);
        if extra != 0 {
            return Err(alloc::format!("features {extra:#x} were not offered"));
        }
        let ram = self.ram.as_ref().ok_or("no memory to work on")?;
        let queues = setup.queues.iter().take(description.queues.into()).enumerate();
        self.queues = queues
            .map(|(n, queue)| {
                Queue::new(ram.clone(), queue, setup.features, description.queue_size)
                    .map_err(|e| alloc::format!("queue {n}: {e}"))
            })
            .collect::<Result<_, _>>()?;
        self.features = setup.features;
        Ok(())
    }

    /// Gives up where the driver broke a rule.
    fn settle(&mut self) {
        let mut interrupt = self.seat.take_joined();
        for index in 0..self.queues.len() {
            let outcome = self.queue(index).map(|q| q.wants_interrupt(time::now()));
            interrupt |= outcome.and_then(|o| self.checked(index, o)).unwrap_or(false);
        }
        if interrupt {
            self.seat.notify();
        }
    }

    /// Ends the epoch of a driver that broke a rule; the step that follows.
    fn fail(&mut self) -> Option<Step> {
        let reason = self.fault.take()?;
        let epoch = self.follow.epoch()?;
        let tally = &self.seat.tally;
        Tally::add(&tally.broken, 1);
        let count = tally.broken.load(core::sync::atomic::Ordering::Relaxed);
        // A driver that does nothing else must not fill the log.
        if count <= 8 || count.is_power_of_two() {
            log!("{}: device needs a reset ({count}): {reason}", self.name);
        }
        self.seat.shared.give_up(epoch);
        let step = self.follow.give_up();
        self.seat.notify();
        step
    }
}

/// All devices of a back end.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
    orders: &'static Orders,
}

impl Links {
    /// The devices of a desk.
    #[must_use]
    pub fn of(desk: &'static Desk, start: &Start<'static>) -> Option<Self> {
        let orders = process::orders()?;
        let link = |seat: &'static Seat| {
            let client = start.clients.get(seat.client);
            let ram = client.and_then(|c| c.ram).and_then(ram);
            Link::new(seat, client.map_or("", |c| c.name), ram)
        };
        Some(Self::new(desk.seats.iter().map(link).collect(), orders))
    }

    /// These devices, whose memory is there as `orders` say.
    #[must_use]
    pub const fn new(links: Vec<Link>, orders: &'static Orders) -> Self {
        Self { links, orders }
    }

    /// Number of devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// A device.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&Link> {
        self.links.get(at)
    }

    /// A device.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Link> {
        self.links.get_mut(at)
    }

    /// The device of a client.
    #[must_use]
    pub fn position(&self, client: usize) -> Option<usize> {
        self.links.iter().position(|l| l.client() == client)
    }

    /// Two different devices.
    pub fn pair(&mut self, a: usize, b: usize) -> Option<(&mut Link, &mut Link)> {
        let [a, b] = self.links.get_disjoint_mut([a, b]).ok()?;
        Some((a, b))
    }

    /// When another round is due at the latest, as a TSC value.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.links.iter().filter_map(Link::due).min()
    }

    /// Whether a driver uses the device, or will as soon as this back end has taken up the queues: from
    /// its first round on, where a life before it worked on them.
    #[must_use]
    pub fn is_driven(&self, at: usize) -> bool {
        self.links.get(at).is_some_and(|link| {
            let seen = self.seen(link);
            seen.life.is_mapped() && seen.wanted.is_active() && !seen.broken
        })
    }

    fn seen(&self, link: &Link) -> Seen {
        let shared = link.seat.shared;
        Seen {
            life: self.orders.life(link.seat.client),
            wanted: shared.wanted(),
            broken: shared.is_broken(),
        }
    }

    /// A turn for every device. Returns whether there is more to do at once.
    pub fn round<B: Backend + ?Sized>(&mut self, backend: &mut B) -> bool {
        let mut more = false;
        for at in 0..self.links.len() {
            self.follow(backend, at);
            if self.links.get(at).is_some_and(Link::is_active) {
                more |= backend.turn(self, at);
            }
        }
        for at in 0..self.links.len() {
            let Some(link) = self.links.get_mut(at) else { continue };
            link.settle();
            if link.fail().is_some() {
                self.let_go(backend, at);
            }
        }
        more
    }

    /// Does what VMM and root task want by now.
    fn follow<B: Backend + ?Sized>(&mut self, backend: &mut B, at: usize) {
        loop {
            let Some(link) = self.links.get(at) else { return };
            let (shared, seen) = (link.seat.shared, self.seen(link));
            let mut follow = link.follow;
            let step = follow.step(seen, || backend.leave(self, at));
            let Some(link) = self.links.get_mut(at) else { return };
            link.follow = follow;
            match step {
                None => return,
                Some(Step::Leave) => self.let_go(backend, at),
                // Where the root task does not want it any more, it has decided without.
                Some(Step::Release(life)) => {
                    let _ = process::release(link.seat.client, life);
                }
                Some(Step::Reach(epoch)) => {
                    shared.reach(epoch);
                    link.seat.notify();
                }
                Some(Step::Enter(epoch)) => {
                    let outcome = link.set_up();
                    shared.reach(epoch);
                    link.seat.notify();
                    match outcome {
                        Ok(()) => backend.enter(self, at),
                        // It is reported at the end of the round.
                        Err(reason) => link.fault = Some(reason),
                    }
                    return;
                }
            }
        }
    }

    /// Takes the queues away.
    fn let_go<B: Backend + ?Sized>(&mut self, backend: &mut B, at: usize) {
        if let Some(link) = self.links.get_mut(at) {
            link.queues.clear();
            link.fault = None;
            link.features = 0;
        }
        // The answer is asked for again before the next epoch.
        let _ = backend.leave(self, at);
    }
}

/// Serves all devices for good.
pub fn run<B: Backend + ?Sized>(mut links: Links, backend: &mut B) -> ! {
    /// A time that is over: signals are taken without waiting.
    const PAST: u64 = 1;
    loop {
        let more = links.round(backend) || backend.rest();
        let deadlines = [backend.deadline(), links.deadline()];
        let deadline = if more { Some(PAST) } else { deadlines.into_iter().flatten().min() };
        let badges = process::semaphore().down_all(deadline).unwrap_or(0);
        backend.woken(&mut links, badges);
    }
}

/// The memory of a client's VM.
fn ram(area: Area) -> Option<Ram> {
    let base = NonNull::new(core::ptr::with_exposed_provenance_mut(usize_of(area.base)))?;
    // SAFETY: the root task maps it there, aligned to pages, or nothing; nothing else is placed
    // there. Queues use it in a life in which it is mapped.
    Some(unsafe { Ram::new(base, area.size) })
}

#[cfg(test)]
mod tests;
