//! The user thread control block: the message buffer of an execution context.
//!
//! One page, shared between the kernel and one execution context. The kernel treats every word
//! of it as untrusted.

use crate::cap::Range;
use crate::state::State;

/// Number of untyped message words.
pub const WORDS: usize = 288;

/// Number of typed items.
pub const ITEMS: usize = 32;

/// A typed item: a range of capabilities to delegate or translate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Item {
    /// Sender: the range, its rights mask and flags. Receiver: what arrived ([`crate::cap::Range`]
    /// with the rights that were granted); 0 where a translation found nothing.
    pub range: u64,
    /// Sender: first unit of the range in the sender's space. Receiver: first unit in its own.
    pub base: u64,
    /// Sender: offset in units into the receiver's window. Receiver: the badge of a semaphore
    /// capability that was translated, else 0.
    pub offset: u64,
    /// Badge that a delegated semaphore capability gets (object items, first of a lineage only).
    pub badge: u64,
}

impl Item {
    /// An item that delegates `range` at `base` to `offset` in the receiver's window.
    #[inline]
    #[must_use]
    pub const fn delegate(range: Range, base: u64, offset: u64) -> Self {
        Self { range: range.0, base, offset, badge: 0 }
    }
}

/// A window for incoming capabilities: naturally aligned, `2^order` units, closed when `open` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// First unit.
    pub base: u64,
    /// Bit 7: window is open. Bits 0..6: order.
    pub order: u64,
}

impl Window {
    /// No capability is accepted.
    pub const CLOSED: Self = Self { base: 0, order: 0 };

    /// An open window of `2^order` units at `base`.
    #[inline]
    #[must_use]
    pub const fn open(base: u64, order: u8) -> Self {
        Self { base, order: 0x80 | order as u64 }
    }

    /// Base and order where the window is open and well formed.
    #[inline]
    #[must_use]
    pub const fn get(self) -> Option<(u64, u8)> {
        let order = self.order & 0x3f;
        if self.order & !0x3f != 0x80 || self.base & ((1 << order) - 1) != 0 {
            return None;
        }
        Some((self.base, order as u8))
    }
}

/// Layout of the UTCB page (4096 bytes).
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Utcb {
    /// Receive windows by [`crate::cap::Space`] number.
    pub windows: [Window; 3],
    /// Free for the owner: thread-local data of the run-time library.
    pub user: [u64; 2],
    reserved: [u64; 8],
    /// Architectural state of an event (exception or vCPU exit), selected by an MTD.
    pub state: State,
    /// Typed items.
    pub items: [Item; ITEMS],
    /// Untyped words.
    pub words: [u64; WORDS],
}

const _: () = assert!(core::mem::size_of::<Utcb>() == 4096);

impl Utcb {
    /// A cleared buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            windows: [Window::CLOSED; 3],
            user: [0; 2],
            reserved: [0; 8],
            state: State::new(),
            items: [Item { range: 0, base: 0, offset: 0, badge: 0 }; ITEMS],
            words: [0; WORDS],
        }
    }
}

impl Default for Utcb {
    fn default() -> Self {
        Self::new()
    }
}

/// Message descriptor: how many words (bits 0..16) and items (bits 16..24) travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Message(pub u64);

impl Message {
    /// Nothing but the call itself.
    pub const EMPTY: Self = Self(0);

    /// `words` untyped words and `items` typed items; each is capped at what a UTCB holds.
    #[inline]
    #[must_use]
    pub const fn new(words: usize, items: usize) -> Self {
        let words = if words > WORDS { WORDS } else { words };
        let items = if items > ITEMS { ITEMS } else { items };
        Self(words as u64 | (items as u64) << 16)
    }

    /// Whether it has no items, no more words than there are, and nothing else.
    #[inline]
    #[must_use]
    pub const fn is_plain(self) -> bool {
        self.0 <= WORDS as u64
    }

    /// The same with its counts capped and nothing else.
    #[inline]
    #[must_use]
    pub const fn normal(self) -> Self {
        Self::new(self.words(), self.items())
    }

    /// Number of words, at most [`WORDS`].
    #[inline]
    #[must_use]
    pub const fn words(self) -> usize {
        let n = (self.0 & 0xffff) as usize;
        if n > WORDS { WORDS } else { n }
    }

    /// Number of items, at most [`ITEMS`].
    #[inline]
    #[must_use]
    pub const fn items(self) -> usize {
        let n = (self.0 >> 16 & 0xff) as usize;
        if n > ITEMS { ITEMS } else { n }
    }
}
