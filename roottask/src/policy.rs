//! What becomes of a component: a state machine without effects.

use config::Restart;

/// Where a component is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for the services that it uses.
    Waiting,
    /// It runs.
    Running,
    /// It failed and is started again when the TSC reaches this.
    Backoff(u64),
    /// It ended in order.
    Ended,
    /// It is given up.
    Failed,
}

/// What a component did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It ended with a code.
    Exit(u32),
    /// It raised an exception with this vector.
    Fault(u8),
}

impl Report {
    /// As a word that is not zero.
    #[must_use]
    pub fn to_word(self) -> u64 {
        match self {
            Self::Exit(code) => 1 << 32 | u64::from(code),
            Self::Fault(vector) => 2 << 32 | u64::from(vector),
        }
    }

    /// The reverse of [`Self::to_word`].
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let value = u32::try_from(word & 0xffff_ffff).ok()?;
        match word >> 32 {
            1 => Some(Self::Exit(value)),
            2 => Some(Self::Fault(u8::try_from(value).ok()?)),
            _ => None,
        }
    }
}

/// One component under supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// What to do when it fails.
    pub policy: Restart,
    /// How often it was started again.
    pub restarts: u16,
    /// Whether it ran at all.
    pub ran: bool,
}

/// First pause before a restart in milliseconds; doubles with each one, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: u64 = 100;
/// Longest pause before a restart in milliseconds.
const LONGEST_PAUSE: u64 = 5000;

/// What follows from the end of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It ended in order.
    Ended,
    /// It is started again after this many milliseconds.
    Restart(u64),
    /// It stays down: it may not be restarted.
    Down,
    /// It stays down: it was restarted as often as it may be.
    GivenUp,
}

impl Life {
    /// A component that has not been started.
    #[must_use]
    pub const fn new(policy: Restart) -> Self {
        Self { state: State::Waiting, policy, restarts: 0, ran: false }
    }

    /// It was started.
    pub const fn started(&mut self) {
        self.state = State::Running;
        self.ran = true;
    }

    /// It is not to be started.
    pub const fn refused(&mut self) {
        self.state = State::Failed;
    }

    /// It ended or failed. `now` is the TSC, `khz` its ticks per millisecond.
    pub fn ended(&mut self, report: Report, now: u64, khz: u64) -> Verdict {
        if report == Report::Exit(0) {
            self.state = State::Ended;
            return Verdict::Ended;
        }
        match self.policy {
            Restart::OnFailure { max } if self.restarts < max => {
                let doubled = FIRST_PAUSE.checked_shl(u32::from(self.restarts).min(16));
                let pause = doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
                self.restarts += 1;
                self.state = State::Backoff(now.saturating_add(pause.saturating_mul(khz)));
                Verdict::Restart(pause)
            }
            policy => {
                self.state = State::Failed;
                if policy == Restart::Never { Verdict::Down } else { Verdict::GivenUp }
            }
        }
    }

    /// Whether it will never run again.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Failed)
    }
}

/// Whether the last VM is off: none of these lives goes on, and one of them was lived.
#[must_use]
pub fn last_vm_is_off<'a>(vms: impl Iterator<Item = &'a Life>) -> bool {
    let (mut ran, mut over) = (false, true);
    for vm in vms {
        ran |= vm.ran;
        over &= vm.is_over();
    }
    ran && over
}

#[cfg(test)]
mod tests;
