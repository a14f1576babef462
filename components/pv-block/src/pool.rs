//! Memory for the data of requests, in units of which a request gets some that lie together. Pure.

/// Most units of a pool.
pub const MOST: u32 = u64::BITS;

/// Units that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub at: u32,
    /// How many; not 0.
    pub len: u32,
}

impl Run {
    const fn mask(self) -> u64 {
        u64::MAX >> (MOST - self.len) << self.at
    }
}

/// Which units are in use.
#[derive(Debug)]
pub struct Pool {
    units: u32,
    /// A bit for each.
    used: u64,
}

impl Pool {
    /// A pool of so many units, or [`MOST`].
    #[must_use]
    pub fn new(units: u32) -> Self {
        Self { units: units.min(MOST), used: 0 }
    }

    /// Takes up to `want` units: all of them where so many lie together, else as many as do. `None`
    /// where all are in use.
    pub fn take(&mut self, want: u32) -> Option<Run> {
        let free = |at: u32| (self.used >> at).trailing_zeros().min(self.units - at);
        let runs = (0..self.units).map(|at| Run { at, len: free(at).min(want) });
        // The first of the longest.
        let longest = runs.reduce(|best, run| if run.len > best.len { run } else { best })?;
        let run = Some(longest).filter(|run| run.len > 0)?;
        self.used |= run.mask();
        Some(run)
    }

    /// Gives back what [`Self::take`] returned.
    pub const fn give(&mut self, run: Run) {
        self.used &= !run.mask();
    }
}

#[cfg(test)]
mod tests;
