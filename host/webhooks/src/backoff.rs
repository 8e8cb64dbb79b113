//! The pauses between attempts that fail.

use std::time::Duration;

/// The bound of the first pause, and of the longest. Each is chosen at random up to its bound, so that many senders do not
/// return to a receiver at the same moment.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// The bound of a pause after `failures` in a row, at least 1.
fn bound(failures: u32) -> Duration {
    let doubled = failures.saturating_sub(1).min(16);
    (BOUNDS.0 * (1 << doubled)).min(BOUNDS.1)
}

/// The pause after `failures` in a row, at least 1.
pub(crate) fn pause(failures: u32) -> Duration {
    bound(failures).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_up_to_a_bound_that_doubles_to_five_minutes() {
        let bounds: Vec<_> = [1, 2, 3, 9, 10, u32::MAX].map(bound).into();
        let expected = [1, 2, 4, 256, 300, 300].map(Duration::from_secs);
        assert_eq!(bounds, expected);
        for failures in 1..20 {
            assert!(pause(failures) <= bound(failures));
        }
    }
}
