//! Whether a version that is on trial is good enough: by its calls alone, and those of the version before it.

use crate::{config::ProbationConfig, metrics::FailureKind, plugin::VersionFigures};

/// Broken calls, at least: one or two are an accident, whatever share they are.
const BROKEN_MIN: u64 = 3;

/// Failures, at least, before their rate is compared: the count of ten rare events strays by a third by chance.
const FAILURES_MIN: u64 = 10;

/// Calls of the version before, at least, before its rate is one to compare with.
const CALLS_BEFORE_MIN: u64 = 100;

/// How often the rate of the version before a version may fail.
const RATE_FACTOR: f64 = 2.0;

/// What a version did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Calls, however they ended.
    pub(super) calls: u64,
    /// Those that trapped, wanted more memory than there is, or ran out of time.
    pub(super) broken: u64,
    /// Those that failed in any way.
    pub(super) failures: u64,
}

/// What is to become of a version that is on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is too early to say.
    Wait,
    /// It is good.
    Passed,
    /// It is not, for this reason.
    Failed(String),
}

impl Tally {
    /// Of all calls until now.
    pub(super) fn of(figures: &VersionFigures) -> Self {
        let kinds = FailureKind::ALL.map(|kind| (kind, figures.failures(kind)));
        let is_broken = |kind| {
            matches!(
                kind,
                FailureKind::Trap | FailureKind::Deadline | FailureKind::Memory
            )
        };
        let broken = kinds.iter().filter(|(kind, _)| is_broken(*kind));
        Self {
            calls: figures.call_time().count(),
            broken: broken.map(|(_, count)| count).sum(),
            failures: kinds.iter().map(|(_, count)| count).sum(),
        }
    }

    /// What came since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            broken: self.broken.saturating_sub(earlier.broken),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }

    fn percent(self, count: u64) -> f64 {
        // The calls are counted a moment before their failures are.
        100.0 * count as f64 / self.calls.max(1) as f64
    }
}

/// Judges what a version did on trial, in the light of what the version `before` it did. `over`: its time is.
pub(super) fn judge(rules: &ProbationConfig, before: Tally, own: Tally, over: bool) -> Judgement {
    if let Some(reason) = broken(rules, before, own, over).or_else(|| doubled(rules, before, own)) {
        return Judgement::Failed(reason);
    }
    if over || own.calls >= rules.calls {
        return Judgement::Passed;
    }
    Judgement::Wait
}

/// Too many calls broke: more than the rule allows and than of the version before, which going back would not better.
fn broken(rules: &ProbationConfig, before: Tally, own: Tally, over: bool) -> Option<String> {
    if own.broken < BROKEN_MIN {
        return None;
    }
    let (percent, percent_before) = (own.percent(own.broken), before.percent(before.broken));
    let is_worse = before.calls < rules.calls_min || percent > percent_before;
    let allowed = if own.calls >= rules.calls_min {
        f64::from(rules.failure_percent)
    } else if over {
        // Few calls say little, but if half of them broke they say enough.
        50.0_f64.next_down()
    } else {
        return None;
    };
    (is_worse && percent > allowed).then(|| {
        let (broken, calls) = (own.broken, own.calls);
        format!("{broken} of {calls} calls trapped or ran out of time ({percent:.1} %)")
    })
}

/// It fails more than twice as often as the version before.
fn doubled(rules: &ProbationConfig, before: Tally, own: Tally) -> Option<String> {
    let enough = own.calls >= rules.calls_min
        && own.failures >= FAILURES_MIN
        && before.calls >= CALLS_BEFORE_MIN;
    let (percent, percent_before) = (own.percent(own.failures), before.percent(before.failures));
    (enough && percent > RATE_FACTOR * percent_before).then(|| {
        let (failures, calls) = (own.failures, own.calls);
        format!(
            "{failures} of {calls} calls failed ({percent:.1} %), of the version before it {percent_before:.1} %"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(calls: u64, broken: u64, failures: u64) -> Tally {
        Tally {
            calls,
            broken,
            failures,
        }
    }

    fn verdict(before: Tally, own: Tally, over: bool) -> &'static str {
        match judge(&ProbationConfig::default(), before, own, over) {
            Judgement::Wait => "wait",
            Judgement::Passed => "passed",
            Judgement::Failed(_) => "failed",
        }
    }

    const GOOD: Tally = Tally {
        calls: 10_000,
        broken: 0,
        failures: 0,
    };

    #[test]
    fn over_five_percent_of_broken_calls_fail_it_and_one_or_two_accidents_do_not() {
        assert_eq!(verdict(GOOD, tally(19, 3, 3), false), "wait");
        assert_eq!(verdict(GOOD, tally(20, 2, 2), false), "wait");
        assert_eq!(verdict(GOOD, tally(20, 3, 3), false), "failed");
        assert_eq!(verdict(tally(0, 0, 0), tally(100, 5, 5), false), "wait");
        assert_eq!(verdict(tally(0, 0, 0), tally(100, 6, 6), false), "failed");
    }

    #[test]
    fn it_ends_with_its_time_or_its_calls_whichever_comes_first() {
        assert_eq!(verdict(GOOD, tally(999, 0, 0), false), "wait");
        assert_eq!(verdict(GOOD, tally(1_000, 0, 0), false), "passed");
        assert_eq!(verdict(GOOD, tally(0, 0, 0), true), "passed");
    }

    #[test]
    fn of_few_calls_half_must_break() {
        assert_eq!(verdict(GOOD, tally(3, 3, 3), false), "wait");
        assert_eq!(verdict(GOOD, tally(3, 3, 3), true), "failed");
        assert_eq!(verdict(GOOD, tally(6, 3, 3), true), "failed");
        assert_eq!(verdict(GOOD, tally(7, 3, 3), true), "passed");
        assert_eq!(verdict(GOOD, tally(2, 2, 2), true), "passed");
    }

    #[test]
    fn twice_the_failures_of_the_version_before_fail_it() {
        let before = tally(1_000, 0, 10);
        assert_eq!(verdict(before, tally(500, 0, 10), false), "wait");
        assert_eq!(verdict(before, tally(500, 0, 11), false), "failed");
        assert_eq!(verdict(before, tally(100, 0, 9), false), "wait");
        // Who was hardly called sets no standard.
        assert_eq!(verdict(tally(99, 0, 0), tally(500, 0, 20), false), "wait");
        assert_eq!(verdict(GOOD, tally(500, 0, 10), false), "failed");
    }

    #[test]
    fn going_back_to_what_was_as_bad_would_better_nothing() {
        let before = tally(1_000, 100, 100);
        assert_eq!(verdict(before, tally(1_000, 90, 90), false), "passed");
        assert_eq!(verdict(before, tally(500, 60, 60), false), "failed");
    }

    #[test]
    fn the_reason_has_the_figures() {
        let rules = ProbationConfig::default();
        let Judgement::Failed(reason) = judge(&rules, GOOD, tally(40, 10, 12), false) else {
            panic!("it is bad");
        };
        assert_eq!(reason, "10 of 40 calls trapped or ran out of time (25.0 %)");
        let before = tally(1_000, 0, 10);
        let Judgement::Failed(reason) = judge(&rules, before, tally(500, 0, 50), false) else {
            panic!("it is bad");
        };
        assert_eq!(
            reason,
            "50 of 500 calls failed (10.0 %), of the version before it 1.0 %"
        );
    }

    #[test]
    fn only_what_came_since_counts() {
        let (earlier, now) = (tally(10, 1, 2), tally(30, 2, 5));
        assert_eq!(now.since(earlier), tally(20, 1, 3));
    }
}
