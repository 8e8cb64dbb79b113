//! Random waits.

use std::time::Duration;

use super::WAIT_MAX;

/// A source of random numbers from 0 to 1.
pub(crate) type Random = Box<dyn FnMut() -> f64 + Send>;

/// Counts attempts. Before attempt n it waits a random time from 0 to min(longest, first × 2ⁿ): full jitter.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            attempts: 0,
        }
    }

    /// Starts with a later attempt.
    pub(crate) fn at(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Returns the wait before the next attempt.
    pub(crate) fn next(&mut self, random: &mut Random) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
        doubled
            .min(self.longest)
            .min(WAIT_MAX)
            .mul_f64(random().clamp(0.0, 1.0))
    }

    /// Returns a wait like that before the first attempt, and counts the attempt nevertheless.
    pub(crate) fn next_short(&mut self, random: &mut Random) -> Duration {
        let wait = self.clone().at(0).next(random);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Makes the next attempt the first one again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}
