//! How much each console may print, so that none that floods takes the time of the others: neither
//! in this component nor, as it has a high priority, on its CPU.

use alloc::vec::Vec;

/// Length of a period in milliseconds.
const PERIOD_MS: u64 = 10;
/// Bytes that a console may print in a period: 800 KiB in a second.
const BYTES: usize = 8 * 1024;

/// What the consoles printed in this period.
#[derive(Debug, Default)]
pub struct Shares {
    since: u64,
    used: Vec<usize>,
    refused: bool,
}

impl Shares {
    /// Bytes that a console may print now.
    pub fn left(&mut self, now: u64, console: usize) -> usize {
        if now.saturating_sub(self.since) >= PERIOD_MS {
            *self = Self { since: now, ..Self::default() };
        }
        let left = BYTES.saturating_sub(self.used.get(console).copied().unwrap_or(0));
        self.refused |= left == 0;
        left
    }

    /// A console printed so many bytes.
    pub fn charge(&mut self, console: usize, bytes: usize) {
        if self.used.len() <= console {
            self.used.resize(console + 1, 0);
        }
        if let Some(used) = self.used.get_mut(console) {
            *used = used.saturating_add(bytes);
        }
    }

    /// When a console that had nothing left can go on.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.refused.then_some(self.since + PERIOD_MS)
    }
}

#[cfg(test)]
mod tests;
