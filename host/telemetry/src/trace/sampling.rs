//! Chooses the messages that are traced.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A share of all messages, limited to a number per second.
#[derive(Debug)]
pub(super) struct Sampling {
    ratio: f64,
    per_second: u32,
    /// When the current second began, and how many messages were picked in it.
    window: Mutex<Option<(Instant, u32)>>,
}

impl Sampling {
    /// Picks `ratio` of all messages, from 0 to 1, and at most `per_second`.
    pub(super) fn new(ratio: f64, per_second: u32) -> Self {
        Self {
            ratio,
            per_second,
            window: Mutex::new(None),
        }
    }

    /// Whether the next message is picked.
    pub(super) fn picks(&self) -> bool {
        // From 0 to below 1, from a per-thread generator.
        fastrand::f64() < self.ratio && self.has_room()
    }

    /// Takes a place in this second, and returns whether there was one.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_at(Instant::now())
    }

    fn has_room_at(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, picked) = window
            .filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(1))
            .unwrap_or((now, 0));
        let has_room = picked < self.per_second;
        *window = Some((since, picked + u32::from(has_room)));
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_all_or_a_share_is_picked() {
        let picked = |ratio| {
            let sampling = Sampling::new(ratio, u32::MAX);
            (0..100_000).filter(|_| sampling.picks()).count()
        };
        assert_eq!((picked(0.0), picked(1.0)), (0, 100_000));
        // Five standard deviations around the mean.
        assert!((843..=1_157).contains(&picked(0.01)), "{}", picked(0.01));
    }

    #[test]
    fn traces_per_second_are_bounded() {
        let sampling = Sampling::new(1.0, 3);
        let now = Instant::now();
        let picked = |after| {
            let at = now + Duration::from_millis(after);
            (0..10).filter(|_| sampling.has_room_at(at)).count()
        };
        assert_eq!((picked(0), picked(999), picked(1_000)), (3, 0, 3));
    }
}
