//! Two pages by which a component and the root task tell each other what changes while both run.
//!
//! The root task writes [`Orders`] and signals [`super::start::NOTIFY`]; the component writes
//! [`Figures`], and the root task reads them when somebody asks.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ring::Shareable;
use super::start::MAX_CLIENTS;

/// Read-only for the component.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub struct Orders {
    /// Not zero: the VM is to stand still.
    paused: AtomicU32,
    /// For each client with a VM, the life of its memory: odd while it is mapped. Even: the
    /// component may not touch it any more and says so by `Released`.
    lives: [AtomicU32; MAX_CLIENTS],
}

impl Shareable for Orders {}

impl Orders {
    /// Whether the VM is to stand still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) != 0
    }

    /// The life of a client's memory; 0 where there is no such client.
    #[must_use]
    pub fn life(&self, client: usize) -> Life {
        Life(self.lives.get(client).map_or(0, |l| l.load(Ordering::Acquire)))
    }

    /// Root task: stops the VM or lets it run.
    pub fn pause(&self, on: bool) {
        self.paused.store(on.into(), Ordering::Release);
    }

    /// Root task: the memory of a client is mapped now, or is about to go.
    pub fn set_life(&self, client: usize, life: Life) {
        if let Some(cell) = self.lives.get(client) {
            cell.store(life.0, Ordering::Release);
        }
    }
}

/// Counts the lives of a VM's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(pub u32);

impl Life {
    /// Whether the memory is mapped.
    #[must_use]
    pub const fn is_mapped(self) -> bool {
        self.0 & 1 != 0
    }

    /// The state that follows: mapped after unmapped, and the reverse.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Numbers of exits by [`crate::event::Exit`], summed over all vCPUs.
pub const EXITS: usize = 32;

/// Written by the component.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Figures {
    /// Exits of its VM by reason.
    pub exits: [AtomicU64; EXITS],
}

impl Shareable for Figures {}
