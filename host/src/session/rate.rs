//! How many messages a connection may send.

use tokio::time::Instant;

use crate::config::Limits;

/// A bucket that fills with `messages_per_second` tokens a second up to `messages_burst`, and starts full.
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// None until the first message, when the burst that holds then is put in.
    tokens: Option<f64>,
    filled_at: Instant,
}

impl TokenBucket {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: None,
            filled_at: now,
        }
    }

    /// Takes a token, if one is there. The limits are those that hold now, so a changed configuration acts at once.
    pub(super) fn take(&mut self, now: Instant, limits: &Limits) -> bool {
        if limits.messages_per_second == 0 {
            return true;
        }
        let burst = f64::from(limits.messages_burst.max(1));
        let gained = now.duration_since(self.filled_at).as_secs_f64()
            * f64::from(limits.messages_per_second);
        let tokens = (self.tokens.unwrap_or(burst) + gained).min(burst);
        self.filled_at = now;
        self.tokens = Some(if tokens >= 1.0 { tokens - 1.0 } else { tokens });
        tokens >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds() {
        let limits = Limits {
            messages_per_second: 10,
            messages_burst: 3,
            ..Limits::default()
        };
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now);
        assert_eq!((0..5).filter(|_| bucket.take(now, &limits)).count(), 3);
        assert!(bucket.take(now + Duration::from_millis(150), &limits));
        assert!(!bucket.take(now + Duration::from_millis(150), &limits));
        let later = now + Duration::from_secs(60);
        assert_eq!((0..5).filter(|_| bucket.take(later, &limits)).count(), 3);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits {
            messages_per_second: 0,
            ..Limits::default()
        };
        let mut bucket = TokenBucket::new(Instant::now());
        assert!((0..10_000).all(|_| bucket.take(Instant::now(), &limits)));
    }
}
