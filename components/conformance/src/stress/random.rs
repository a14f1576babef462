//! Numbers that look random and repeat with the seed.

/// A xorshift generator.
pub(super) struct Random(u64);

impl Random {
    /// Any seed will do.
    pub(super) fn new(seed: u64) -> Self {
        // Seeds that differ in a few bits shall not begin alike; zero would stay zero.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// Less than `n`, which is not zero.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Less than `n`, as an index.
    pub(super) fn index(&mut self, n: usize) -> usize {
        sysroot::num::usize_of(self.below(sysroot::num::u64_of(n)))
    }

    /// Less than `n`, as a byte.
    pub(super) fn byte(&mut self, n: u8) -> u8 {
        u8::try_from(self.below(n.into())).unwrap_or(0)
    }

    /// An order up to `max`; small ones come more often.
    pub(super) fn order(&mut self, max: u8) -> u8 {
        let a = self.byte(max + 1);
        a.min(self.byte(max + 1))
    }
}
