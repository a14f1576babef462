//! I/O APIC (Intel 82093AA; register layout as in ICH datasheets).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::interrupt::{BROADCAST, Delivery, Destination, Message};
use crate::num::{low8, low32};

/// Input pins; pin `n` is global system interrupt `n`.
pub const PINS: u32 = 24;

const VERSION: u32 = 0x11;
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const REG_ID: u32 = 0;
const REG_VERSION: u32 = 1;
const REG_ARBITRATION: u32 = 2;
const REG_TABLE: u32 = 0x10;

/// Bits of a redirection entry.
mod entry {
    pub(super) const LOGICAL: u64 = 1 << 11;
    pub(super) const LOW: u64 = 1 << 13;
    pub(super) const REMOTE_IRR: u64 = 1 << 14;
    pub(super) const LEVEL: u64 = 1 << 15;
    pub(super) const MASKED: u64 = 1 << 16;
    /// Vector, delivery mode, destination mode, polarity, trigger, mask, destination.
    pub(super) const WRITABLE: u64 = 0xff00_0000_0001_afff;
}

/// What edges at the pins send, for devices that raise many: without the I/O APIC's lock.
#[derive(Debug)]
pub struct Routes([AtomicU64; PINS as usize]);

impl Routes {
    fn publish(&self, pin: usize, entry: u64) {
        if let Some(route) = self.0.get(pin) {
            // Orders nothing: an edge at the same time may go the old or the new way.
            route.store(entry, Ordering::Relaxed);
        }
    }

    /// The message of a pin that is unmasked and edge-triggered; the others need the I/O APIC.
    #[must_use]
    pub fn edge(&self, pin: u32) -> Option<Message> {
        let entry = self.0.get(pin as usize)?.load(Ordering::Relaxed);
        (entry & (entry::MASKED | entry::LEVEL | entry::LOW) == 0).then(|| message(entry))
    }
}

/// An I/O APIC.
#[derive(Debug)]
pub struct IoApic {
    routes: Arc<Routes>,
    id: u32,
    select: u32,
    table: [u64; PINS as usize],
    /// Level of each input, as the devices drive it (active high).
    lines: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// After reset: every pin masked.
    #[must_use]
    pub fn new() -> Self {
        let routes = Arc::new(Routes([const { AtomicU64::new(entry::MASKED) }; PINS as usize]));
        Self { routes, id: 0, select: 0, table: [entry::MASKED; PINS as usize], lines: 0 }
    }

    /// Masks every pin, as after reset.
    pub fn reset(&mut self) {
        (self.id, self.select, self.lines) = (0, 0, 0);
        self.table = [entry::MASKED; PINS as usize];
        self.publish();
    }

    /// What edges send.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    fn publish(&self) {
        for (pin, entry) in self.table.iter().enumerate() {
            self.routes.publish(pin, *entry);
        }
    }

    /// Reads four bytes of the register page.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        match offset & 0xff {
            SELECT => self.select,
            WINDOW => self.register(),
            _ => 0,
        }
    }

    /// Writes four bytes of the register page; a pin that becomes ready sends its message.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<Message> {
        match offset & 0xff {
            SELECT => {
                self.select = value & 0xff;
                None
            }
            WINDOW => self.set_register(value),
            _ => None,
        }
    }

    fn register(&self) -> u32 {
        match self.select {
            REG_ID | REG_ARBITRATION => self.id << 24,
            REG_VERSION => VERSION | (PINS - 1) << 16,
            select => {
                let entry = self.selected(select).and_then(|pin| self.table.get(pin));
                entry.map_or(0, |e| low32(if select & 1 == 0 { *e } else { *e >> 32 }))
            }
        }
    }

    fn selected(&self, select: u32) -> Option<usize> {
        Some((select.checked_sub(REG_TABLE)? / 2) as usize)
    }

    fn set_register(&mut self, value: u32) -> Option<Message> {
        if self.select == REG_ID {
            self.id = value >> 24 & 0xf;
            return None;
        }
        let pin = self.selected(self.select)?;
        let high = self.select & 1 != 0;
        let entry = self.table.get_mut(pin)?;
        let value = u64::from(value);
        let new =
            if high { *entry & 0xffff_ffff | value << 32 } else { *entry & !0xffff_ffff | value };
        let kept = *entry & (entry::REMOTE_IRR | 1 << 12);
        let old = core::mem::replace(entry, new & entry::WRITABLE | kept);
        // An edge pin forgets what it had sent (as the guest's own recovery code expects).
        if *entry & entry::LEVEL == 0 {
            *entry &= !entry::REMOTE_IRR;
        }
        let entry = *entry;
        self.routes.publish(pin, entry);
        if entry & entry::LEVEL != 0 {
            return self.service_level(pin);
        }
        // A rise while it was masked is not lost.
        let unmasked = old & !entry & entry::MASKED != 0;
        (unmasked && self.is_asserted(pin, entry)).then(|| message(entry))
    }

    fn is_asserted(&self, pin: usize, entry: u64) -> bool {
        (self.lines >> pin & 1 != 0) != (entry & entry::LOW != 0)
    }

    /// A device drives the input of a pin.
    pub fn set_line(&mut self, pin: u32, high: bool) -> Option<Message> {
        if pin >= PINS {
            return None;
        }
        let bit = 1 << pin;
        let was = self.lines & bit != 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        let index = pin as usize;
        let entry = *self.table.get(index)?;
        if entry & entry::LEVEL != 0 {
            return self.service_level(index);
        }
        let asserted = high != (entry & entry::LOW != 0);
        (was != high && asserted && entry & entry::MASKED == 0).then(|| message(entry))
    }

    /// Sends a level-triggered interrupt that is asserted, unmasked and not yet in service.
    fn service_level(&mut self, pin: usize) -> Option<Message> {
        let entry = self.table.get_mut(pin)?;
        let asserted = (self.lines >> pin & 1 != 0) != (*entry & entry::LOW != 0);
        if !asserted || *entry & (entry::MASKED | entry::REMOTE_IRR) != 0 {
            return None;
        }
        *entry |= entry::REMOTE_IRR;
        Some(message(*entry))
    }

    /// A local APIC finished a level-triggered vector: pins that are still asserted send again.
    pub fn eoi(&mut self, vector: u8, mut send: impl FnMut(Message)) {
        for pin in 0..self.table.len() {
            let Some(entry) = self.table.get_mut(pin) else { break };
            let mine = low8(*entry) == vector && *entry & entry::LEVEL != 0;
            if mine && *entry & entry::REMOTE_IRR != 0 {
                *entry &= !entry::REMOTE_IRR;
                if let Some(message) = self.service_level(pin) {
                    send(message);
                }
            }
        }
    }
}

fn message(entry: u64) -> Message {
    let destination = match low32(entry >> 56) {
        0xff => BROADCAST,
        id => id,
    };
    let to = if entry & entry::LOGICAL != 0 {
        Destination::Logical(destination)
    } else {
        Destination::Physical(destination)
    };
    let delivery = Delivery::from_bits(low32(entry >> 8));
    Message { to, delivery, vector: low8(entry), level: entry & entry::LEVEL != 0 }
}

#[cfg(test)]
mod tests;
