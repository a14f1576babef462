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
    /// The operator ended it.
    Killed,
    /// It kept the RAM of a VM that was gone.
    Silent,
}

impl Report {
    /// As a word that is not zero.
    #[must_use]
    pub fn to_word(self) -> u64 {
        match self {
            Self::Exit(code) => 1 << 32 | u64::from(code),
            Self::Fault(vector) => 2 << 32 | u64::from(vector),
            Self::Killed => 3 << 32,
            Self::Silent => 4 << 32,
        }
    }

    /// The reverse of [`Self::to_word`].
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let value = u32::try_from(word & 0xffff_ffff).ok()?;
        match word >> 32 {
            1 => Some(Self::Exit(value)),
            2 => Some(Self::Fault(u8::try_from(value).ok()?)),
            3 => Some(Self::Killed),
            4 => Some(Self::Silent),
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
    pub restarts: u32,
    /// How often it failed in a row.
    pub failures: u16,
    /// Whether it ran at all.
    pub ran: bool,
    /// TSC when it was started.
    pub since: u64,
    /// How its last life ended.
    pub last: Option<Report>,
}

/// A component that ran for so many milliseconds is not in a crash loop: its next failure counts as
/// the first.
const STABLE: u64 = 30_000;
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
    /// It stays down: it failed as often in a row as it may.
    GivenUp,
}

impl Life {
    /// A component that has not been started.
    #[must_use]
    pub const fn new(policy: Restart) -> Self {
        Self {
            state: State::Waiting,
            policy,
            restarts: 0,
            failures: 0,
            ran: false,
            since: 0,
            last: None,
        }
    }

    /// It was started when the TSC stood at `now`.
    pub const fn started(&mut self, now: u64) {
        self.state = State::Running;
        self.restarts = self.restarts.saturating_add(self.ran as u32);
        self.ran = true;
        self.since = now;
    }

    /// The operator wants it to run, from the start and whatever was.
    pub const fn begin_anew(&mut self) {
        self.state = State::Waiting;
        self.failures = 0;
    }

    /// It is not to be started.
    pub const fn refused(&mut self) {
        self.state = State::Failed;
    }

    /// It ended or failed. `now` is the TSC, `khz` its ticks per millisecond.
    pub fn ended(&mut self, report: Report, now: u64, khz: u64) -> Verdict {
        self.last = Some(report);
        if report == Report::Exit(0) {
            self.state = State::Ended;
            return Verdict::Ended;
        }
        if now.saturating_sub(self.since) >= STABLE.saturating_mul(khz) {
            self.failures = 0;
        }
        let counts = report != Report::Killed;
        match self.policy {
            Restart::OnFailure { max } if self.failures < max || !counts => {
                let doublings = if counts { u32::from(self.failures).min(16) } else { 0 };
                let doubled = FIRST_PAUSE.checked_shl(doublings);
                let pause = doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
                self.failures = self.failures.saturating_add(counts.into());
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

/// Notices when the last VM goes off, each time that this happens.
#[derive(Debug, Default)]
pub struct LastVm {
    off: bool,
}

impl LastVm {
    /// Looks at the lives of all VMs: whether none of them goes on any more, one of them was lived,
    /// and that was not so at the last look.
    #[must_use]
    pub fn goes_off<'a>(&mut self, vms: impl Iterator<Item = &'a Life>) -> bool {
        let (mut ran, mut over) = (false, true);
        for vm in vms {
            ran |= vm.ran;
            over &= vm.is_over();
        }
        let before = core::mem::replace(&mut self.off, ran && over);
        self.off && !before
    }
}

#[cfg(test)]
mod tests;
