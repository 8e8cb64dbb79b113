//! Decides whether and when to reconnect.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest wait between two attempts.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// Whether a client reconnects after a close with `code`: after the server's codes 4000 to 4499, and after standard codes
/// that stand for a failure. 1006 means that the connection was lost without a close frame.
pub(crate) fn comes_back(code: u16) -> bool {
    matches!(code, 4000..=4499 | 1001 | 1005 | 1006 | 1011..=1014)
}

/// Whether a client retries after the server answered the upgrade with this HTTP status.
pub(crate) fn tries_again(status: u16) -> bool {
    status == 429 || status >= 500
}

/// Exponential backoff with jitter, so that clients that lost the same node do not reconnect at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// Starts again with the first wait. Called after a connection that lasted.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns the next wait: a random time between half of an interval that doubles and all of it.
    pub(crate) fn wait(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(WAIT_MAX);
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        // The microseconds of the clock are random enough here.
        full.mul_f64(0.5 + f64::from(nanos / 1_000 % 1_000) / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_close_code_says_whether_to_come_back() {
        for code in [4000, 4001, 4002, 4003, 4499, 1001, 1006, 1012] {
            assert!(comes_back(code), "{code}");
        }
        for code in [4500, 4501, 4502, 4999, 1000, 1002, 1008, 1009] {
            assert!(!comes_back(code), "{code}");
        }
    }

    #[test]
    fn a_refused_upgrade_is_tried_again_where_that_may_help() {
        assert!(tries_again(503) && tries_again(429));
        assert!(!tries_again(400) && !tries_again(401) && !tries_again(403));
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for full in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            let wait = backoff.wait();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }
}
