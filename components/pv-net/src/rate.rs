//! A token bucket: how much a port may send.

/// Tokens come at a steady rate and are kept up to a limit. Times are TSC values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens in a second.
    rate: u64,
    /// Most tokens.
    limit: u64,
    /// TSC ticks in a second.
    frequency: u64,
    /// Tokens by `at`; what was spent beyond them is owed.
    tokens: i128,
    at: u64,
}

impl Bucket {
    /// A full bucket that keeps what comes in `limit`.
    #[must_use]
    pub fn new(rate: u64, limit: u64, frequency: u64, now: u64) -> Self {
        Self {
            rate: rate.max(1),
            limit: limit.max(1),
            frequency: frequency.max(1),
            tokens: limit.max(1).into(),
            at: now,
        }
    }

    /// Whether something may be sent; if not, the time when it may.
    ///
    /// # Errors
    /// That time.
    pub fn ready(&mut self, now: u64) -> Result<(), u64> {
        let ticks = now.saturating_sub(self.at);
        let earned = u128::from(ticks) * u128::from(self.rate) / u128::from(self.frequency);
        if earned > 0 {
            let earned = i128::try_from(earned).unwrap_or(i128::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(self.limit.into());
            self.at = now;
        }
        if self.tokens > 0 {
            return Ok(());
        }
        let missing = u128::try_from(1 - self.tokens).unwrap_or(1);
        let ticks = (missing * u128::from(self.frequency)).div_ceil(self.rate.into());
        Err(self.at.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }

    /// Takes tokens, also more than there are: the next ones pay for it.
    pub fn spend(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_sub(tokens.into());
    }
}

#[cfg(test)]
mod tests {
    use super::Bucket;

    #[test]
    fn a_burst_and_then_the_rate() {
        // 1000 tokens in a second of 1,000,000 ticks, 100 at once.
        let mut bucket = Bucket::new(1000, 100, 1_000_000, 0);
        bucket.spend(100);
        assert_eq!(bucket.ready(0), Err(1000));
        assert_eq!(bucket.ready(999), Err(1000));
        assert_eq!(bucket.ready(1000), Ok(()));
        bucket.spend(10);
        assert_eq!(bucket.ready(1000), Err(11_000));
        assert_eq!(bucket.ready(11_000), Ok(()));
    }

    #[test]
    fn idle_time_earns_no_more_than_the_limit() {
        let mut bucket = Bucket::new(1000, 100, 1_000_000, 0);
        assert_eq!(bucket.ready(u64::MAX / 2), Ok(()));
        bucket.spend(100);
        assert!(bucket.ready(u64::MAX / 2).is_err());
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let mut bucket = Bucket::new(5000, 1500, 2_000_000, 0);
        let (mut now, mut sent) = (0, 0);
        while now < 20_000_000 {
            match bucket.ready(now) {
                Ok(()) => {
                    bucket.spend(1500);
                    sent += 1500;
                }
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((50_000..=53_000).contains(&sent), "{sent}");
    }
}
