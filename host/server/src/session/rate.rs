//! Limits the rate of a connection, and detects floods.

use signalbox_config::Limits;
use tokio::time::Instant;

use crate::token_bucket::TokenBucket;

/// A fragment of at least this size is not charged as a small one: the limits on size and number of messages bound it.
const LARGE_FRAGMENT_BYTES: usize = 1 << 10;
/// Maximum number of small fragments in one message.
const SMALL_FRAGMENTS_MAX: u32 = 1024;
/// The burst of control frames and fragments that does not count as a flood, in seconds of the sustained rate.
const CONTROL_BURST_SECONDS: u32 = 10;
/// Messages over the limit, per second and in one burst, that are allowed under even the tightest limit before they count as a
/// flood.
const REFUSED_MIN: u32 = 100;

/// The allowance of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    messages: TokenBucket,
    /// For messages over the limit, because refusing them costs time too.
    refused: TokenBucket,
    controls: TokenBucket,
    /// Of the message that is being received.
    small_fragments: u32,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateDecision {
    /// It is handled.
    Handle,
    /// It is refused.
    Refuse {
        /// Whether the error should name the message's `id`; `false` if the connection is far over its limit.
        with_id: bool,
    },
    /// The connection is closed.
    Flood,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: TokenBucket::new(now.into_std()),
            refused: TokenBucket::new(now.into_std()),
            controls: TokenBucket::new(now.into_std()),
            small_fragments: 0,
        }
    }

    /// Charges a message.
    pub(super) fn message(&mut self, now: Instant, limits: &Limits) -> RateDecision {
        self.small_fragments = 0;
        let (rate, burst) = (limits.messages_per_second, limits.messages_burst);
        if rate == 0 || take(&mut self.messages, now, rate, burst).is_some() {
            return RateDecision::Handle;
        }
        let (rate, burst) = (rate.max(REFUSED_MIN), burst.max(REFUSED_MIN));
        match take(&mut self.refused, now, rate, burst) {
            Some(left) => RateDecision::Refuse {
                with_id: left >= f64::from(burst / 2),
            },
            None => RateDecision::Flood,
        }
    }

    /// Charges a control frame, and returns whether the connection may continue.
    pub(super) fn control(&mut self, now: Instant, limits: &Limits) -> bool {
        let rate = limits.control_frames_per_second;
        let burst = rate.saturating_mul(CONTROL_BURST_SECONDS);
        rate == 0 || take(&mut self.controls, now, rate, burst).is_some()
    }

    /// Charges a fragment of `bytes`, and returns whether the connection may continue.
    pub(super) fn fragment(&mut self, bytes: usize, now: Instant, limits: &Limits) -> bool {
        if bytes >= LARGE_FRAGMENT_BYTES {
            return true;
        }
        self.small_fragments += 1;
        self.small_fragments <= SMALL_FRAGMENTS_MAX && self.control(now, limits)
    }
}

/// Takes a token if there is one, and returns the number left. A burst is at least one token.
fn take(bucket: &mut TokenBucket, now: Instant, per_second: u32, burst: u32) -> Option<f64> {
    let (per_second, burst) = (f64::from(per_second), f64::from(burst.max(1)));
    bucket.take(now.into_std(), per_second, burst).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(messages_per_second: u32, messages_burst: u32) -> Limits {
        Limits {
            messages_per_second,
            messages_burst,
            ..Limits::default()
        }
    }

    fn handled(allowance: &mut Allowance, messages: usize, now: Instant, limits: &Limits) -> usize {
        (0..messages)
            .filter(|_| allowance.message(now, limits) == RateDecision::Handle)
            .count()
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds() {
        let (limits, now) = (limits(10, 3), Instant::now());
        let mut allowance = Allowance::new(now);
        assert_eq!(handled(&mut allowance, 5, now, &limits), 3);
        let soon = now + Duration::from_millis(150);
        assert_eq!(handled(&mut allowance, 2, soon, &limits), 1);
        let later = now + Duration::from_secs(60);
        assert_eq!(handled(&mut allowance, 5, later, &limits), 3);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits {
            control_frames_per_second: 0,
            ..limits(0, 1)
        };
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!(handled(&mut allowance, 10_000, now, &limits), 10_000);
        assert!((0..10_000).all(|_| allowance.control(now, &limits)));
    }

    #[test]
    fn a_client_far_over_the_limit_is_answered_without_an_id_and_then_closed() {
        let (limits, now) = (limits(200, 400), Instant::now());
        let mut allowance = Allowance::new(now);
        let verdicts: Vec<_> = (0..1_000)
            .map(|_| allowance.message(now, &limits))
            .collect();
        let count = |wanted| verdicts.iter().filter(|is| **is == wanted).count();
        assert_eq!(count(RateDecision::Handle), 400);
        assert_eq!(count(RateDecision::Refuse { with_id: true }), 200);
        assert_eq!(count(RateDecision::Refuse { with_id: false }), 200);
        assert_eq!(verdicts.last(), Some(&RateDecision::Flood));
    }

    #[test]
    fn a_client_slightly_over_the_limit_stays_connected() {
        let (limits, start) = (limits(200, 400), Instant::now());
        let mut allowance = Allowance::new(start);
        for message in 0..300_000 {
            let now = start + Duration::from_micros(message * 1_000_000 / 380);
            assert_ne!(allowance.message(now, &limits), RateDecision::Flood);
        }
    }

    #[test]
    fn a_burst_of_control_frames_is_no_flood_and_a_flood_is() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut allowance = Allowance::new(start);
        assert!((0..500).all(|_| allowance.control(start, &limits)));
        assert!(!allowance.control(start, &limits));
        for frame in 1..10_000 {
            let now = start + Duration::from_millis(frame * 20);
            assert!(allowance.control(now, &limits), "50 a second");
        }
    }

    #[test]
    fn large_fragments_are_free_and_small_ones_are_bounded_in_each_message() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let default = Limits::default();
        assert!((0..10_000).all(|_| allowance.fragment(1024, now, &default)));
        let unlimited = Limits {
            control_frames_per_second: 0,
            ..default
        };
        for _ in 0..3 {
            assert!((0..SMALL_FRAGMENTS_MAX).all(|_| allowance.fragment(9, now, &unlimited)));
            allowance.message(now, &unlimited);
        }
        assert!((0..SMALL_FRAGMENTS_MAX).all(|_| allowance.fragment(9, now, &unlimited)));
        assert!(!allowance.fragment(9, now, &unlimited));
    }
}
