//! Measures disks and networks from within a guest.
//!
//! The same program runs in a VM and on the machine itself: what differs is what is measured. It is
//! the first process behind a short script, takes its orders from the environment, and prints
//! lines `BENCH name unit value`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod disk;
pub mod exits;
pub mod ping;
pub mod stream;

use std::fmt::Display;

/// Says a figure.
pub fn say(name: impl Display, unit: &str, value: f64) {
    println!("BENCH {name} {unit} {value:.4}");
}

/// Value at a part of a sorted list, 0.5 for its middle.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    // A list's length is far below what a float holds, and the product within the list.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    #[expect(clippy::cast_sign_loss)]
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A count as a float; exact for any count that comes up.
#[must_use]
#[expect(clippy::cast_precision_loss)]
pub const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles() {
        let list = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!((quantile(&list, 0.5) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&list, 1.0) - 5.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
