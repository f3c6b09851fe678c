//! How long to wait before something is tried again: twice as long after each failure, bounded, and spread, so that what failed together does not come again together.

use std::time::Duration;

/// Waits that double. Every wait lies between half of its full length and that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The full wait after the first failure, in seconds.
    pub first_seconds: f64,
    /// The longest full wait, in seconds.
    pub longest_seconds: f64,
}

impl Backoff {
    /// For loops that ask the database: it is back within seconds, or nothing goes on anyway.
    pub const DATABASE: Backoff = Backoff {
        first_seconds: 0.5,
        longest_seconds: 5.0,
    };

    /// Seconds to wait after failure number `failures` (from 1).
    #[must_use]
    pub fn seconds(self, failures: u32) -> f64 {
        // From 2^64 on nothing is left to double.
        let doublings = i32::try_from(failures.saturating_sub(1).min(64)).unwrap_or(64);
        let full = (self.first_seconds * 2f64.powi(doublings)).min(self.longest_seconds);
        full.max(0.0) * rand::random_range(0.5..=1.0)
    }
}

/// Failures in a row of one loop.
#[derive(Clone, Copy, Debug)]
pub struct Failures {
    backoff: Backoff,
    in_a_row: u32,
}

impl Failures {
    /// None yet.
    #[must_use]
    pub fn new(backoff: Backoff) -> Failures {
        Failures { backoff, in_a_row: 0 }
    }

    /// One more; how long to wait now.
    pub fn wait(&mut self) -> Duration {
        self.in_a_row = self.in_a_row.saturating_add(1);
        Duration::try_from_secs_f64(self.backoff.seconds(self.in_a_row)).unwrap_or(Duration::MAX)
    }

    /// It went well.
    pub fn over(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_TO_A_HUNDRED: Backoff = Backoff {
        first_seconds: 5.0,
        longest_seconds: 100.0,
    };

    #[test]
    fn a_wait_doubles_is_spread_and_stays_within_its_bounds() {
        for (failures, full) in [(0, 5.0), (1, 5.0), (2, 10.0), (3, 20.0), (6, 100.0), (u32::MAX, 100.0)] {
            let waits: Vec<f64> = (0..100).map(|_| FIVE_TO_A_HUNDRED.seconds(failures)).collect();
            assert!(
                waits.iter().all(|wait| (full / 2.0..=full).contains(wait)),
                "{failures}: {waits:?}"
            );
            assert!(waits.iter().any(|wait| (wait - waits[0]).abs() > 1e-9), "spread");
        }
        let none = Backoff {
            first_seconds: 0.0,
            longest_seconds: 0.0,
        };
        assert!(none.seconds(3).abs() < 1e-9);
    }

    #[test]
    fn failures_in_a_row_wait_longer_until_it_goes_well() {
        let mut failures = Failures::new(FIVE_TO_A_HUNDRED);
        let waits = [failures.wait(), failures.wait(), failures.wait()].map(|wait| wait.as_secs_f64());
        assert!(waits[0] <= 5.0 && (5.0..=10.0).contains(&waits[1]) && (10.0..=20.0).contains(&waits[2]));
        failures.over();
        assert!(failures.wait().as_secs_f64() <= 5.0);
    }
}
