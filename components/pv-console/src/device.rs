//! Virtio consoles (virtio 1.2, 5.3): another way to the same consoles as the VMs' serial ports.

use alloc::vec::Vec;

use ipc::proto::virtio::MAX_CONFIG;
use sysroot::num::u64_of;
use sysroot::time;
use virtio::chain::Chain;
use virtio::link::{Backend, Link, Links};

use virtio::session::{Description, Tally};

use crate::keep::Mark;

/// Device id.
const CONSOLE: u32 = 3;
/// Queue of buffers for what is typed.
const RECEIVE: usize = 0;
/// Queue of output.
const TRANSMIT: usize = 1;
const QUEUE_SIZE: u16 = 64;
/// Size of the configuration: columns, rows, ports, emergency write, none of which is offered.
const CONFIG: usize = 12;
const _: () = assert!(CONFIG <= MAX_CONFIG);
/// Bytes that are copied at once.
const CHUNK: usize = 512;
/// Typed characters that are handed over at once.
const KEYS: usize = 64;
/// Bytes of output of one device before the next one's turn.
const TURN: usize = 4096;
/// What a buffer counts at least, so that empty ones have an end as well.
const LEAST: usize = 16;

/// What a console's device is.
#[must_use]
pub fn describe() -> Description {
    let config = core::iter::repeat_n(0, CONFIG).collect();
    Description { device: CONSOLE, features: 0, queues: 2, queue_size: QUEUE_SIZE, config }
}

/// The consoles behind the devices.
pub trait Consoles {
    /// How many of these bytes are taken now.
    fn accepts(&mut self, console: usize, bytes: &[u8]) -> usize;
    /// Takes output of a device, which is printed up to `mark` then.
    fn print(&mut self, console: usize, bytes: &[u8], device: usize, mark: Mark);
    /// How far the output of a device was printed.
    fn printed(&self, device: usize) -> Mark;
    /// Copies what was typed and not taken yet; how many characters.
    fn typed(&self, console: usize, to: &mut [u8]) -> usize;
    /// The first of them were taken.
    fn taken(&mut self, console: usize, count: usize);
}

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its console.
    pub console: usize,
    /// Output that was printed in part, and how much of it.
    printing: Option<(Chain, Mark)>,
}

impl Device {
    /// The device of a console.
    #[must_use]
    pub const fn new(console: usize) -> Self {
        Self { console, printing: None }
    }

    /// Whether what is typed for a console goes to one of the devices, which are in the order of the
    /// links: it waits for one that is not taken up yet.
    pub fn take_keys(devices: &[Self], links: &Links, console: usize) -> bool {
        let mut own = (0..).zip(devices).filter(|(_, device)| device.console == console);
        own.any(|(at, _)| links.is_driven(at))
    }

    /// Prints. Whether there is more that could be printed at once.
    fn output(&mut self, link: &mut Link, at: usize, consoles: &mut impl Consoles) -> bool {
        let Some(ram) = link.ram().cloned() else { return false };
        let mut left = TURN;
        let mut buffer = [0; CHUNK];
        while left > 0 {
            let Some((chain, mut mark)) = self.next(link, at, consoles) else { return false };
            let mut cursor = chain.readable();
            cursor.advance(mark.printed.into());
            let Ok(count) = cursor.read(&ram, &mut buffer) else {
                link.give_up("output outside of memory");
                return false;
            };
            let bytes = buffer.get(..count).unwrap_or(&[]);
            let accepted = consoles.accepts(self.console, bytes).min(count);
            let done = cursor.left() == 0 && accepted == count;
            if accepted > 0 {
                mark.printed = mark.printed.saturating_add(u32::try_from(accepted).unwrap_or(0));
                let bytes = bytes.get(..accepted).unwrap_or(&[]);
                consoles.print(self.console, bytes, at, mark);
                Tally::add(&link.tally().bytes_from_guest, u64_of(accepted));
            }
            left = left.saturating_sub(accepted.max(LEAST));
            if done {
                Tally::add(&link.tally().from_guest, 1);
                link.complete(TRANSMIT, chain, 0);
            } else {
                self.printing = Some((chain, mark));
                if accepted == 0 {
                    // Whoever is in the way wakes the loop.
                    return false;
                }
            }
        }
        true
    }

    /// The chain to be printed, and how far it was. One that a life before printed in part goes on
    /// there.
    fn next(
        &mut self,
        link: &mut Link,
        at: usize,
        consoles: &impl Consoles,
    ) -> Option<(Chain, Mark)> {
        if let Some(printing) = self.printing.take() {
            return Some(printing);
        }
        let (epoch, index) = link.next_used(TRANSMIT)?;
        let chain = link.pop(TRANSMIT)?;
        let [low, high, ..] = epoch.0.to_le_bytes();
        let mark = Mark { epoch: u16::from_le_bytes([low, high]), index, printed: 0 };
        let before = consoles.printed(at);
        let same = before.epoch == mark.epoch && before.index == mark.index;
        Some((chain, if same { before } else { mark }))
    }

    /// Hands over what was typed.
    fn input(&mut self, link: &mut Link, consoles: &mut impl Consoles) {
        let Some(ram) = link.ram().cloned() else { return };
        let mut buffer = [0; KEYS];
        loop {
            let count = consoles.typed(self.console, &mut buffer);
            if count == 0 {
                return;
            }
            let Some(chain) = link.pop(RECEIVE) else { return };
            let written = chain.writable().write(&ram, buffer.get(..count).unwrap_or(&[]));
            let (Ok(count @ 1..), true) = (written, link.is_active()) else {
                return link.give_up("buffer for input without room");
            };
            consoles.taken(self.console, count);
            Tally::add(&link.tally().to_guest, 1);
            Tally::add(&link.tally().bytes_to_guest, u64_of(count));
            link.complete(RECEIVE, chain, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}

/// All devices, with the consoles behind them.
#[derive(Debug)]
pub struct Turn<'a, C> {
    /// In the order of the links.
    pub devices: &'a mut Vec<Device>,
    /// Their consoles.
    pub consoles: C,
}

impl<C: Consoles> Backend for Turn<'_, C> {
    fn enter(&mut self, links: &mut Links, at: usize) {
        if let Some(link) = links.get_mut(at) {
            // Linux waits for its output by looking, and takes an interrupt for what it has seen for
            // one that nobody wants: after 100,000 of them it switches the line off.
            link.be_patient(TRANSMIT, time::ticks_of_ms(1) / 10);
        }
    }

    fn leave(&mut self, _links: &mut Links, at: usize) -> bool {
        if let Some(device) = self.devices.get_mut(at) {
            device.printing = None;
        }
        true
    }

    fn turn(&mut self, links: &mut Links, at: usize) -> bool {
        let Some((link, device)) = links.get_mut(at).zip(self.devices.get_mut(at)) else {
            return false;
        };
        let more = device.output(link, at, &mut self.consoles);
        device.input(link, &mut self.consoles);
        more
    }
}

#[cfg(test)]
mod tests;
