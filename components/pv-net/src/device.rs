//! The virtio network device, and the way of a frame from its sender to its receivers.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use ipc::proto::virtio::MAX_CONFIG;
use sysroot::log;
use sysroot::num::usize_of;
use virtio::chain::{Chain, Cursor};
use virtio::link::{Backend, Links, TURN};
use virtio::session::{Description, Tally};

use crate::frame::{HEADER, Mac, addresses};
use crate::header::{Todo, feature};
use crate::join::Joined;
use crate::offload;
use crate::options::Options;
use crate::port::{self, Delivery, NoFrame, Payload, TRANSMIT};
use crate::rate::Bucket;
use crate::switch::{Place, Reason, Switch, Verdict};
use crate::uplink::Uplink;

/// Device id (virtio 1.2, 5.1.1).
const NETWORK: u32 = 1;
/// Most descriptors of a queue.
const QUEUE_SIZE: u16 = 256;
/// How long a sender waits for a receiver without room, in milliseconds.
const PATIENCE_MS: u64 = 5;
/// Frames to nobody in particular that a VM may send: in a second, and at once.
const FLOODS: u64 = 500;
const FLOODS_AT_ONCE: u64 = 100;
/// A rate limit lets this part of a second's bytes through at once, and at least this many bytes.
const BURST_PART: u64 = 10;
const BURST: u64 = 64 << 10;
/// Frames that are taken from an uplink before the VMs have their turn.
const INTAKE: usize = 64;

/// The device that a card is.
#[must_use]
pub fn describe(mac: Mac) -> Description {
    use feature::{
        CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MAC, MRG_RXBUF, STATUS,
    };
    // The configuration space (virtio 1.2, 5.1.4): address, link up.
    let mut config: heapless::Vec<u8, MAX_CONFIG> = mac.0.into_iter().collect();
    let [low, high] = 1u16.to_le_bytes();
    let _ = config.push(low);
    let _ = config.push(high);
    Description {
        device: NETWORK,
        features: CSUM
            | GUEST_CSUM
            | GUEST_TSO4
            | GUEST_TSO6
            | HOST_TSO4
            | HOST_TSO6
            | MAC
            | MRG_RXBUF
            | STATUS,
        queues: 2,
        queue_size: QUEUE_SIZE,
        config,
    }
}

/// The TSC, or what stands for it in a test.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Its value.
    pub now: fn() -> u64,
    /// Ticks in a second.
    pub frequency: u64,
}

/// A VM's card.
#[derive(Debug)]
struct Card {
    /// Place in the switch.
    place: usize,
    /// What the configuration lets it send.
    rate: Option<Bucket>,
    /// What it may send to nobody in particular.
    floods: Bucket,
    /// Until when its next frame waits for its receiver.
    until: Option<u64>,
    /// How many segments of that frame the receiver has already.
    segments: usize,
    /// When to look at it again.
    wake: Option<u64>,
    /// Frames that were dropped as their source was not the card's address.
    spoofed: u64,
}

/// What is at a place of the switch.
#[derive(Clone, Copy, Debug)]
enum Station {
    /// The card of a client.
    Vm(usize),
    /// An uplink.
    Uplink(usize),
}

/// A frame on its way.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    todo: Todo,
    payload: Payload<'a>,
}

/// The switch with everything that is plugged into it.
#[derive(Debug)]
pub struct Net<'n> {
    clock: Clock,
    networks: Vec<&'n str>,
    switch: Switch,
    /// By place.
    stations: Vec<Station>,
    /// By client.
    cards: Vec<Option<Card>>,
    uplinks: Vec<(usize, Box<dyn Uplink>)>,
    /// An uplink has more frames.
    more: bool,
    /// What came in from an uplink and waits for what may follow at once.
    joined: Joined,
    chains: Vec<Chain>,
    /// A frame in one piece.
    whole: Vec<u8>,
}

impl<'n> Net<'n> {
    /// A switch with nothing plugged in.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self {
            clock,
            networks: Vec::new(),
            switch: Switch::new(),
            stations: Vec::new(),
            cards: Vec::new(),
            uplinks: Vec::new(),
            more: false,
            joined: Joined::new(),
            chains: Vec::new(),
            whole: Vec::new(),
        }
    }

    fn network(&mut self, name: &'n str) -> usize {
        let known = self.networks.iter().position(|n| *n == name);
        known.unwrap_or_else(|| {
            self.networks.push(name);
            self.networks.len() - 1
        })
    }

    /// Plugs in the card of a client. Nothing where another has the same address.
    pub fn attach(&mut self, client: usize, options: &Options<'n>) -> bool {
        let network = self.network(options.network);
        let place = Place { network, mac: Some(options.mac) };
        if self.switch.has(place) {
            return false;
        }
        let Clock { now, frequency } = self.clock;
        let bucket = |rate, limit| Bucket::new(rate, limit, frequency, now());
        let card = Card {
            place: self.switch.add(place),
            rate: options.rate.map(|rate| bucket(rate, (rate / BURST_PART).max(BURST))),
            floods: bucket(FLOODS, FLOODS_AT_ONCE),
            until: None,
            segments: 0,
            wake: None,
            spoofed: 0,
        };
        self.stations.push(Station::Vm(client));
        if self.cards.len() <= client {
            self.cards.resize_with(client + 1, || None);
        }
        if let Some(slot) = self.cards.get_mut(client) {
            *slot = Some(card);
        }
        true
    }

    /// Plugs an uplink into a network.
    pub fn add_uplink(&mut self, network: &'n str, uplink: Box<dyn Uplink>) {
        let network = self.network(network);
        let place = self.switch.add(Place { network, mac: None });
        self.stations.push(Station::Uplink(self.uplinks.len()));
        self.uplinks.push((place, uplink));
    }

    fn card(&mut self, client: usize) -> Option<&mut Card> {
        self.cards.get_mut(client).and_then(Option::as_mut)
    }

    fn seconds(&self, now: u64) -> u64 {
        now / self.clock.frequency.max(1)
    }

    /// Moves the next frame that a VM sends. Whether it may send another at once.
    fn next(&mut self, links: &mut Links, at: usize) -> bool {
        let now = (self.clock.now)();
        let Some(link) = links.get_mut(at) else { return false };
        let client = link.client();
        let Some(card) = self.card(client) else { return false };
        if let Some(Err(when)) = card.rate.as_mut().map(|rate| rate.ready(now)) {
            card.wake = Some(when);
            return false;
        }
        let Some(chain) = link.pop(TRANSMIT) else { return false };
        let Some(ram) = link.ram().cloned() else { return false };
        let features = link.features();
        let (sent, start) = match port::sent(&ram, &chain, features) {
            Ok(found) => found,
            Err(NoFrame::Malformed) => {
                link.give_up("frame without a header");
                return false;
            }
            Err(NoFrame::Invalid) => {
                Tally::add(&link.tally().failed, 1);
                link.complete(TRANSMIT, chain, 0);
                return true;
            }
        };
        let frame = Frame { todo: sent.todo, payload: Payload::Guest(&ram, start) };
        let (destination, source) = addresses(sent.ethernet);
        let place = card.place;
        let mut segments = card.segments;
        let verdict = self.switch.forward(place, source, destination, self.seconds(now));
        let sender = Some((client, &mut segments));
        let delivery = self.carry(links, sender, place, verdict, frame, now);
        let patience = self.clock.frequency / 1000 * PATIENCE_MS;
        let Some(link) = links.get_mut(at) else { return false };
        let Some(card) = self.card(client) else { return false };
        if delivery == Delivery::Full {
            // A receiver that takes some of a frame makes room.
            if segments > card.segments {
                (card.until, card.segments) = (None, segments);
            }
            let until = *card.until.get_or_insert(now + patience);
            if now < until {
                link.put_back(TRANSMIT, chain);
                card.wake = Some(until);
                return false;
            }
        }
        (card.until, card.segments) = (None, 0);
        if let Some(rate) = &mut card.rate {
            rate.spend(sent.len);
        }
        let tally = link.tally();
        if delivery == Delivery::Done {
            Tally::add(&tally.from_guest, 1);
            Tally::add(&tally.bytes_from_guest, sent.len);
        } else {
            Tally::add(&tally.failed, 1);
        }
        if verdict == Verdict::Drop(Reason::Spoofed) {
            card.spoofed += 1;
            if card.spoofed.is_power_of_two() {
                let count = card.spoofed;
                log!("{}: {count} frames from {source}, not its own address", link.name());
            }
        }
        link.complete(TRANSMIT, chain, 0);
        true
    }

    /// Brings a frame to whom it is for. With a sender that waits where there is no room comes how
    /// many segments of the frame have arrived.
    fn carry(
        &mut self,
        links: &mut Links,
        sender: Option<(usize, &mut usize)>,
        from: usize,
        verdict: Verdict,
        frame: Frame<'_>,
        now: u64,
    ) -> Delivery {
        let (client, segments) = sender.unzip();
        let uplinks_only = match verdict {
            Verdict::Drop(_) => return Delivery::Lost,
            Verdict::To(to) => return self.send(links, to, frame, segments.unwrap_or(&mut 0)),
            Verdict::All => false,
            Verdict::Uplinks => true,
        };
        if let Some(card) = client.and_then(|client| self.card(client)) {
            if card.floods.ready(now).is_err() {
                return Delivery::Lost;
            }
            card.floods.spend(1);
        }
        for to in 0..self.stations.len() {
            if self.switch.is_other(from, to, uplinks_only) {
                // Whoever has no room misses it.
                let _ = self.send(links, to, frame, &mut 0);
            }
        }
        Delivery::Done
    }

    /// Brings a frame to one place, but for the first `segments` of it; counts further ones there.
    fn send(
        &mut self,
        links: &mut Links,
        to: usize,
        frame: Frame<'_>,
        segments: &mut usize,
    ) -> Delivery {
        let features = match self.stations.get(to) {
            Some(Station::Vm(client)) => {
                let link = links.position(*client).and_then(|at| links.get(at));
                let Some(link) = link.filter(|l| l.is_active()) else { return Delivery::Lost };
                link.features()
            }
            Some(Station::Uplink(n)) => self.uplinks.get(*n).map_or(0, |(_, u)| u.features()),
            None => return Delivery::Lost,
        };
        if frame.todo.suits(features) {
            return self.hand_over(links, to, frame);
        }
        let mut whole = core::mem::take(&mut self.whole);
        let mut outcome = Delivery::Lost;
        if gather(frame.payload, &mut whole) {
            let finished = offload::finish(&mut whole, frame.todo, *segments, &mut |bytes| {
                let frame = Frame { todo: Todo::default(), payload: Payload::Bytes(bytes) };
                outcome = self.hand_over(links, to, frame);
                if outcome == Delivery::Full {
                    return ControlFlow::Break(());
                }
                *segments += 1;
                ControlFlow::Continue(())
            });
            if finished.is_err() {
                outcome = Delivery::Lost;
            }
        }
        self.whole = whole;
        outcome
    }

    /// Gives a frame to one place as it is.
    fn hand_over(&mut self, links: &mut Links, to: usize, frame: Frame<'_>) -> Delivery {
        let Frame { todo, payload } = frame;
        match self.stations.get(to) {
            Some(Station::Vm(client)) => {
                let at = links.position(*client);
                let Some(link) = at.and_then(|at| links.get_mut(at)) else {
                    return Delivery::Lost;
                };
                let outcome = port::deliver(link, todo, payload, &mut self.chains);
                if outcome == Delivery::Done {
                    Tally::add(&link.tally().to_guest, 1);
                    Tally::add(&link.tally().bytes_to_guest, payload.left());
                }
                outcome
            }
            Some(Station::Uplink(n)) => {
                let uplink = self.uplinks.get_mut(*n);
                uplink.map_or(Delivery::Lost, |(_, uplink)| uplink.send(todo, payload))
            }
            None => Delivery::Lost,
        }
    }

    /// Takes a frame from an uplink. Whether there was one.
    fn intake(&mut self, links: &mut Links, n: usize, frame: &mut Vec<u8>) -> bool {
        let Some((_, uplink)) = self.uplinks.get_mut(n) else { return false };
        let Some(todo) = uplink.receive(frame) else { return false };
        if !self.joined.take(frame, todo) {
            self.release(links, n);
            if !self.joined.take(frame, todo) {
                self.arrived(links, n, todo, frame);
            }
        }
        true
    }

    /// Brings on its way what was joined of the frames of an uplink.
    fn release(&mut self, links: &mut Links, n: usize) {
        if !self.joined.is_empty() {
            let mut joined = core::mem::take(&mut self.joined);
            let todo = joined.finish();
            self.arrived(links, n, todo, joined.bytes());
            joined.clear();
            self.joined = joined;
        }
    }

    /// Brings a frame that came in from an uplink on its way.
    fn arrived(&mut self, links: &mut Links, n: usize, todo: Todo, frame: &[u8]) {
        let Some(place) = self.uplinks.get(n).map(|(place, _)| *place) else { return };
        let Some(header) = frame.first_chunk::<HEADER>() else { return };
        let (destination, source) = addresses(*header);
        let now = (self.clock.now)();
        let verdict = self.switch.forward(place, source, destination, self.seconds(now));
        let frame = Frame { todo, payload: Payload::Bytes(frame) };
        // What does not arrive is sent again by whoever sent it.
        let _ = self.carry(links, None, place, verdict, frame, now);
    }
}

/// Puts a frame into one piece.
fn gather(payload: Payload<'_>, whole: &mut Vec<u8>) -> bool {
    whole.clear();
    match payload {
        Payload::Bytes(bytes) => {
            whole.extend_from_slice(bytes);
            true
        }
        Payload::Guest(ram, cursor) => {
            let mut cursor: Cursor<'_> = cursor;
            whole.resize(usize_of(cursor.left()), 0);
            cursor.read(ram, whole) == Ok(whole.len())
        }
    }
}

impl Backend for Net<'_> {
    fn leave(&mut self, links: &mut Links, at: usize) -> bool {
        let client = links.get(at).map(virtio::link::Link::client);
        if let Some(card) = client.and_then(|client| self.card(client)) {
            (card.until, card.segments, card.wake) = (None, 0, None);
        }
        true
    }

    fn turn(&mut self, links: &mut Links, at: usize) -> bool {
        let client = links.get(at).map(virtio::link::Link::client);
        if let Some(card) = client.and_then(|client| self.card(client)) {
            card.wake = None;
        }
        (0..TURN).all(|_| self.next(links, at))
    }

    fn woken(&mut self, links: &mut Links, _badges: u64) {
        self.more = false;
        let mut frame = Vec::new();
        for n in 0..self.uplinks.len() {
            self.more |= (0..INTAKE).all(|_| self.intake(links, n, &mut frame));
            self.release(links, n);
        }
    }

    fn rest(&mut self) -> bool {
        // All of them are to tell.
        let news = self.uplinks.iter_mut().filter_map(|(_, u)| u.rest().then_some(()));
        self.more || news.count() > 0
    }

    fn deadline(&self) -> Option<u64> {
        self.cards.iter().flatten().filter_map(|card| card.wake).min()
    }
}

#[cfg(test)]
mod tests;
