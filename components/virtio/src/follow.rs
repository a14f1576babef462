//! How a device follows its VMM and the root task: one step at a time, as pure logic.
//!
//! The VMM wants epochs (virtqueues in use or not), the root task counts lives of the guest's
//! memory. Before anything new begins, what was in use is let go of, however long that takes: only
//! then is an epoch reached, or the memory given back.

use ipc::proto::board::Life;
use ipc::proto::virtio::Epoch;

/// What the others say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The life of the guest's memory.
    pub life: Life,
    /// The epoch that the VMM wants.
    pub wanted: Epoch,
    /// Whether the device gave up in that epoch, before it was restarted perhaps.
    pub broken: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Let go of the queues; go on asking whether the device is quiet.
    Leave,
    /// Tell the root task that the memory is not used in this life any more.
    Release(Life),
    /// Set up the queues of the epoch, then reach it.
    Enter(Epoch),
    /// Nothing is in use: reach the epoch.
    Reach(Epoch),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No queues.
    #[default]
    Idle,
    /// Queues in use.
    Active,
    /// No queues, but the device is not quiet.
    Leaving,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    life: Life,
    /// The last epoch that was entered or reached in this life.
    epoch: Option<Epoch>,
    state: State,
}

impl Follow {
    /// Whether queues are in use.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// The epoch in which queues are in use.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch.filter(|_| self.is_active())
    }

    /// The next step, or `None` while there is nothing to do. `quiet` tells whether the device has
    /// let go; it is asked only after [`Step::Leave`].
    pub fn step(&mut self, seen: Seen, quiet: impl FnOnce() -> bool) -> Option<Step> {
        let changed = seen.life != self.life || self.epoch != Some(seen.wanted);
        match self.state {
            State::Active if changed => {
                self.state = State::Leaving;
                return Some(Step::Leave);
            }
            State::Active => return None,
            State::Leaving if !quiet() => return None,
            State::Leaving | State::Idle => self.state = State::Idle,
        }
        if seen.life != self.life {
            // Epochs count from the start again.
            *self = Self { life: seen.life, ..Self::default() };
            if !seen.life.is_mapped() {
                return Some(Step::Release(seen.life));
            }
        }
        if !self.life.is_mapped() || self.epoch == Some(seen.wanted) {
            return None;
        }
        self.epoch = Some(seen.wanted);
        if seen.wanted.is_active() && !seen.broken {
            self.state = State::Active;
            return Some(Step::Enter(seen.wanted));
        }
        Some(Step::Reach(seen.wanted))
    }

    /// The driver broke a rule: nothing is in use until the next epoch.
    pub fn give_up(&mut self) -> Option<Step> {
        let active = self.is_active();
        self.state = if active { State::Leaving } else { self.state };
        active.then_some(Step::Leave)
    }
}

#[cfg(test)]
mod tests;
