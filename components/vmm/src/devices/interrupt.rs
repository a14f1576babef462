//! Interrupt messages, and where they wait for a vCPU.
//!
//! A vCPU's local APIC belongs to the handler of its exits alone. Everybody else — I/O APIC, other
//! vCPUs — posts into its [`Inbox`] and recalls it; the handler takes the inbox over into the local
//! APIC before it decides what to inject.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::num::{high32, low8, low32, usize_of};

/// Most vCPUs of a VM: one bit each in [`Targets`].
pub const MAX_VCPUS: u32 = 64;

/// Destination that means everybody.
pub const BROADCAST: u32 = u32::MAX;

/// Delivery mode (Intel SDM vol. 3, 10.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The vector, to every destination.
    Fixed,
    /// The vector, to one of the destinations.
    LowestPriority,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI; the vector names the page.
    Startup,
    /// SMI, external interrupt or reserved: there is nothing it could reach.
    None,
}

impl Delivery {
    /// From bits 8..11 of an ICR, LVT or redirection entry.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            _ => Self::None,
        }
    }
}

/// Who receives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An APIC id, or [`BROADCAST`].
    Physical(u32),
    /// A logical address, matched against each APIC's own, or [`BROADCAST`].
    Logical(u32),
    /// The sender.
    Own(u32),
    /// Everybody.
    All,
    /// Everybody but the sender.
    Others(u32),
}

/// A message on the APIC bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who receives it.
    pub to: Destination,
    /// What it does there.
    pub delivery: Delivery,
    /// Vector.
    pub vector: u8,
    /// Level-triggered: its EOI goes back to the I/O APIC.
    pub level: bool,
}

/// The vCPUs that a message reached and that have to look into their inbox, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "whoever got a message has to be recalled"]
pub struct Targets(pub u64);

impl Targets {
    /// The indices.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..MAX_VCPUS).filter(move |n| self.0 >> n & 1 != 0)
    }

    /// Without one vCPU: usually the one whose exit is being handled.
    pub const fn without(self, vcpu: u32) -> Self {
        Self(self.0 & !(1 << (vcpu % MAX_VCPUS)))
    }

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a local APIC can be addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// APIC id.
    pub id: u32,
    /// Enabled in `IA32_APIC_BASE`.
    pub enabled: bool,
    /// In x2APIC mode.
    pub x2apic: bool,
    /// Enabled in the spurious interrupt vector register.
    pub software_enabled: bool,
    /// Logical destination register.
    pub ldr: u32,
    /// xAPIC: cluster model.
    pub cluster: bool,
}

impl Address {
    const ENABLED: u64 = 1 << 32;
    const X2APIC: u64 = 1 << 33;
    const SOFTWARE: u64 = 1 << 34;
    const CLUSTER: u64 = 1 << 35;

    fn to_word(self) -> u64 {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        u64::from(self.ldr)
            | flag(self.enabled, Self::ENABLED)
            | flag(self.x2apic, Self::X2APIC)
            | flag(self.software_enabled, Self::SOFTWARE)
            | flag(self.cluster, Self::CLUSTER)
    }

    fn from_word(id: u32, word: u64) -> Self {
        Self {
            id,
            enabled: word & Self::ENABLED != 0,
            x2apic: word & Self::X2APIC != 0,
            software_enabled: word & Self::SOFTWARE != 0,
            cluster: word & Self::CLUSTER != 0,
            ldr: low32(word),
        }
    }

    /// Whether a message to `to` is for this APIC (Intel SDM vol. 3, 10.6.2 and 10.12.10).
    fn matches(self, to: Destination) -> bool {
        match to {
            Destination::Physical(id) => id == BROADCAST || id == self.id,
            Destination::Own(id) => id == self.id,
            Destination::Others(id) => id != self.id,
            Destination::All | Destination::Logical(BROADCAST) => true,
            Destination::Logical(mda) if self.x2apic => {
                mda >> 16 == self.ldr >> 16 && mda & self.ldr & 0xffff != 0
            }
            Destination::Logical(mda) => {
                let (mda, own) = (mda & 0xff, self.ldr >> 24);
                if self.cluster {
                    mda >> 4 == own >> 4 && mda & own & 0xf != 0
                } else {
                    mda & own != 0
                }
            }
        }
    }
}

/// Events beside vectors that wait in an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Vectors are waiting.
    pub vectors: bool,
    /// An NMI.
    pub nmi: bool,
    /// An INIT.
    pub init: bool,
    /// A start-up IPI with its vector.
    pub startup: Option<u8>,
    /// Something outside the guest wants the vCPU's attention.
    pub attention: bool,
}

/// What others have sent to a vCPU.
#[derive(Debug, Default)]
pub struct Inbox {
    vectors: [AtomicU32; 8],
    levels: [AtomicU32; 8],
    events: AtomicU32,
    address: AtomicU64,
}

const VECTORS: u32 = 1 << 0;
const NMI: u32 = 1 << 1;
const INIT: u32 = 1 << 2;
const STARTUP: u32 = 1 << 3;
const ATTENTION: u32 = 1 << 4;
const STARTUP_VECTOR_SHIFT: u32 = 8;

impl Inbox {
    /// Whether anything has come in since the last [`Self::take`].
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // A hint; `take` orders the data.
        self.events.load(Ordering::Relaxed) == 0
    }

    /// Tells senders how the local APIC can be addressed now.
    pub fn publish(&self, address: Address) {
        // Orders nothing: a message sent at the same time may use the old or the new address.
        self.address.store(address.to_word(), Ordering::Relaxed);
    }

    /// Asks for the vCPU's attention. Returns whether it has to be recalled.
    #[must_use]
    pub fn attention(&self) -> bool {
        self.post(ATTENTION)
    }

    /// Adds an event; `false` where the vCPU has been told already and has not looked yet.
    fn post(&self, event: u32) -> bool {
        // Release: whoever takes the event sees the vector bits that were set before.
        self.events.fetch_or(event, Ordering::Release) == 0
    }

    fn post_vector(&self, vector: u8, level: bool) -> bool {
        let bit = 1 << (vector % 32);
        let index = usize::from(vector / 32);
        // Ordered by `post`.
        if let (Some(vectors), Some(levels)) = (self.vectors.get(index), self.levels.get(index)) {
            if level {
                levels.fetch_or(bit, Ordering::Relaxed);
            }
            vectors.fetch_or(bit, Ordering::Relaxed);
        }
        self.post(VECTORS)
    }

    fn post_startup(&self, vector: u8) -> bool {
        // Only the first of several start-up IPIs counts.
        let bits = STARTUP | u32::from(vector) << STARTUP_VECTOR_SHIFT;
        let result = self.events.fetch_update(Ordering::Release, Ordering::Relaxed, |events| {
            (events & STARTUP == 0).then_some(events | bits)
        });
        result == Ok(0)
    }

    /// Forgets everything, the address included.
    pub fn clear(&self) {
        self.take();
        self.take_vectors().for_each(drop);
        self.publish(Address::default());
    }

    /// Takes all events.
    pub fn take(&self) -> Events {
        // Acquire: see `post`.
        let events = self.events.swap(0, Ordering::Acquire);
        Events {
            vectors: events & VECTORS != 0,
            nmi: events & NMI != 0,
            init: events & INIT != 0,
            startup: (events & STARTUP != 0)
                .then_some(low8(u64::from(events >> STARTUP_VECTOR_SHIFT))),
            attention: events & ATTENTION != 0,
        }
    }

    /// Takes all vectors: word index, edge and level bits.
    pub fn take_vectors(&self) -> impl Iterator<Item = (usize, u32, u32)> + '_ {
        self.vectors.iter().zip(&self.levels).enumerate().map(|(n, (vectors, levels))| {
            // Ordered by `take`. Levels are read last so that a vector posted meanwhile cannot
            // lose its level bit.
            let bits = vectors.swap(0, Ordering::Relaxed);
            let level = levels.fetch_and(!bits, Ordering::Relaxed) & bits;
            (n, bits & !level, level)
        })
    }
}

/// All inboxes of a VM.
#[derive(Debug)]
pub struct ApicBus {
    inboxes: Vec<Inbox>,
}

impl ApicBus {
    /// A bus of `vcpus` APICs with ids from 0 on.
    #[must_use]
    pub fn new(vcpus: u32) -> Self {
        Self { inboxes: (0..vcpus.min(MAX_VCPUS)).map(|_| Inbox::default()).collect() }
    }

    /// The inbox of a vCPU.
    #[must_use]
    pub fn inbox(&self, vcpu: u32) -> Option<&Inbox> {
        self.inboxes.get(usize_of(u64::from(vcpu)))
    }

    /// Puts a message into the inboxes of its destinations.
    pub fn deliver(&self, message: Message) -> Targets {
        let mut targets = Targets::default();
        for (id, inbox) in (0u32..).zip(&self.inboxes) {
            let address = Address::from_word(id, inbox.address.load(Ordering::Relaxed));
            if !address.enabled || !address.matches(message.to) {
                continue;
            }
            let recall = match message.delivery {
                Delivery::Fixed | Delivery::LowestPriority => {
                    if !address.software_enabled {
                        continue;
                    }
                    inbox.post_vector(message.vector, message.level)
                }
                Delivery::Nmi => inbox.post(NMI),
                Delivery::Init => inbox.post(INIT),
                Delivery::Startup => inbox.post_startup(message.vector),
                Delivery::None => false,
            };
            if recall {
                targets.0 |= 1 << id;
            }
            if message.delivery == Delivery::LowestPriority {
                break;
            }
        }
        targets
    }
}

/// Splits an ICR (Intel SDM vol. 3, 10.6.1 and 10.12.9) of the APIC `own`.
#[must_use]
pub fn from_icr(icr: u64, own: u32, x2apic: bool) -> Message {
    let low = low32(icr);
    let destination = match high32(icr) {
        d if x2apic => d,
        d if d >> 24 == 0xff => BROADCAST,
        d => d >> 24,
    };
    let to = match low >> 18 & 3 {
        1 => Destination::Own(own),
        2 => Destination::All,
        3 => Destination::Others(own),
        _ if low & 1 << 11 != 0 => Destination::Logical(destination),
        _ => Destination::Physical(destination),
    };
    let delivery = match Delivery::from_bits(low >> 8) {
        // INIT level de-assert does nothing on processors newer than the Pentium.
        Delivery::Init if low & (1 << 14 | 1 << 15) == 1 << 15 => Delivery::None,
        other => other,
    };
    Message { to, delivery, vector: low8(u64::from(low)), level: false }
}

#[cfg(test)]
mod tests;
