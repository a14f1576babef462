//! RAM of the VMs: who has it besides the VM, and when it can be used again. No effects here.
//!
//! A component that works on the RAM of a VM is told when the VM is gone, and says when it does not
//! touch the memory any more. One that does not say so in time is ended, as it may have told a
//! device to write there.

use alloc::vec::Vec;

use ipc::proto::board::Life;

use crate::memory::Span;

/// How long a component may take to let go of a VM's memory, in milliseconds of the time that the
/// root task leaves to others.
pub const PATIENCE_MS: u64 = 2000;

/// RAM of one VM.
#[derive(Debug, Default)]
pub struct Ram {
    /// Where it is; empty while the VM has none.
    pub spans: Vec<Span>,
    /// How many of the last spans are yet to be cleared.
    dirty: usize,
    /// Its life.
    life: Life,
    /// Components that it is lent to, by index.
    holders: Vec<usize>,
    /// TSC until which the holders may take their time: the VM is gone.
    until: Option<u64>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing: the VM has its memory, or has none.
    Rest,
    /// Wait until the TSC reaches this, or a component lets go.
    Wait(u64),
    /// End these components: they took too long.
    Evict(Vec<usize>),
    /// Take the memory back: nobody uses it.
    TakeBack,
}

impl Ram {
    /// Its life: even while it is not to be touched.
    #[must_use]
    pub const fn life(&self) -> Life {
        self.life
    }

    /// Whether the VM is gone and its memory not yet taken back.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.until.is_some()
    }

    /// The VM is to get this memory, once it is cleared.
    pub fn prepare(&mut self, spans: Vec<Span>) {
        self.dirty = spans.len();
        self.spans = spans;
    }

    /// The next span to be cleared.
    #[must_use]
    pub fn dirty(&self) -> Option<Span> {
        self.spans.get(self.spans.len().checked_sub(self.dirty)?).copied()
    }

    /// The span was cleared.
    pub const fn cleared(&mut self) {
        self.dirty = self.dirty.saturating_sub(1);
    }

    /// Whether there is memory for a new life.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        !self.spans.is_empty() && self.dirty == 0
    }

    /// The VM got its memory; a new life begins.
    pub const fn begin(&mut self) {
        self.life = self.life.next();
    }

    /// A component has it mapped now.
    pub fn lend(&mut self, holder: usize) {
        if !self.holders.contains(&holder) {
            self.holders.push(holder);
        }
    }

    /// Whether a component has it mapped.
    #[must_use]
    pub fn is_lent_to(&self, holder: usize) -> bool {
        self.holders.contains(&holder)
    }

    /// A component that may have had it is gone.
    pub fn forget(&mut self, holder: usize) {
        self.holders.retain(|&h| h != holder);
    }

    /// The VM is gone: its life ends, and those who have its memory may use it until `until`.
    pub fn end(&mut self, until: u64) {
        if self.life.is_mapped() {
            self.life = self.life.next();
            self.until = Some(until);
        }
    }

    /// Nobody could do anything for so many ticks: that is not counted.
    pub fn excuse(&mut self, ticks: u64) {
        self.until = self.until.map(|until| until.saturating_add(ticks));
    }

    /// What is to be done at `now`; `released` says whether a holder let go of this life.
    pub fn step(&self, now: u64, released: impl Fn(usize, Life) -> bool) -> Step {
        let Some(until) = self.until else { return Step::Rest };
        let kept = self.holders.iter().copied().filter(|&h| !released(h, self.life));
        let late: Vec<usize> = kept.collect();
        match (late.is_empty(), now >= until) {
            (true, _) => Step::TakeBack,
            (false, false) => Step::Wait(until),
            (false, true) => Step::Evict(late),
        }
    }

    /// Takes the memory, which everybody has lost.
    pub fn take(&mut self) -> Vec<Span> {
        self.until = None;
        self.holders.clear();
        self.dirty = 0;
        core::mem::take(&mut self.spans)
    }
}

#[cfg(test)]
mod tests;
