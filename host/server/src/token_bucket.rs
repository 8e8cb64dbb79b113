//! A rate limit with a burst.

use std::time::{Duration, Instant};

/// A bucket that fills with a number of tokens per second, up to a burst, and starts full.
///
/// Rate and burst are passed with each call, so a changed configuration applies at once.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// `None` until the first token is taken: until then, the bucket holds the burst of the call.
    tokens: Option<f64>,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            tokens: None,
            filled_at: now,
        }
    }

    /// The tokens in the bucket at `now`.
    pub(crate) fn tokens(&self, now: Instant, per_second: f64, burst: f64) -> f64 {
        let passed = now.saturating_duration_since(self.filled_at);
        let gained = passed.as_secs_f64() * per_second;
        (self.tokens.unwrap_or(burst) + gained).min(burst)
    }

    /// Takes a token and returns how many are left.
    ///
    /// # Errors
    /// Returns how long it takes until the bucket holds a token, if it is empty.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        per_second: f64,
        burst: f64,
    ) -> Result<f64, Duration> {
        let tokens = self.tokens(now, per_second, burst);
        self.filled_at = now;
        if tokens < 1.0 {
            self.tokens = Some(tokens);
            let wait = Duration::try_from_secs_f64((1.0 - tokens) / per_second);
            return Err(wait.unwrap_or(Duration::MAX));
        }
        self.tokens = Some(tokens - 1.0);
        Ok(tokens - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate_and_an_empty_bucket_says_how_long_to_wait() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert_eq!(bucket.take(start, 10.0, 2.0), Ok(1.0));
        assert_eq!(bucket.take(start, 10.0, 2.0), Ok(0.0));
        let wait = bucket.take(start, 10.0, 2.0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(bucket.take(start + wait, 10.0, 2.0), Ok(0.0));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.tokens(later, 10.0, 2.0), 2.0, "at most the burst");
    }

    #[test]
    fn a_rate_of_nothing_never_refills() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert_eq!(bucket.take(start, 0.0, 1.0), Ok(0.0));
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(later, 0.0, 1.0), Err(Duration::MAX));
    }
}
