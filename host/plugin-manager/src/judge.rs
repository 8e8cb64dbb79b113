//! Decides whether a version on trial is good enough: by those of its failed calls that the previous version survives,
//! compared with the recent record of the previous version.

use signalbox_config::ProbationConfig;
use signalbox_plugin_runtime::{EvidenceSummary, RecentCalls};

/// The minimum number of broken calls: one or two are an accident, whatever their share is.
const BROKEN_MIN: u64 = 3;

/// The minimum number of failures before their rate is compared: a count of ten rare events varies by a third by
/// chance.
const FAILURES_MIN: u64 = 10;

/// The minimum number of calls of the previous version before its rate serves for comparison.
const CALLS_BEFORE_MIN: u64 = 100;

/// How many times the failure rate of the previous version is allowed.
const RATE_FACTOR: f64 = 2.0;

/// The verdict on a version on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TrialVerdict {
    /// It is too early to say.
    Wait,
    /// The version is good.
    Passed,
    /// The version is bad, for this reason.
    Failed(String),
}

/// How much of the time of a trial has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialPhase {
    Running,
    /// The time is over, but failed calls may still be replayed.
    Over,
    /// The trial waits for nothing more.
    Final,
}

/// The calls of a version on trial.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TrialCalls {
    /// Calls, however they ended.
    pub(super) calls: u64,
    /// The calls that count as evidence against it.
    pub(super) found: EvidenceSummary,
}

impl TrialCalls {
    fn percent(&self, count: u64) -> f64 {
        percent(count, self.calls)
    }
}

/// Calls are counted a moment before their failures are.
fn percent(count: u64, calls: u64) -> f64 {
    100.0 * count as f64 / calls.max(1) as f64
}

/// Judges a version's calls on trial, compared with the recent calls of the previous version, `before`.
pub(super) fn judge(
    rules: &ProbationConfig,
    before: RecentCalls,
    own: TrialCalls,
    phase: TrialPhase,
) -> TrialVerdict {
    let over = phase != TrialPhase::Running;
    if let Some(reason) = broken(rules, own, over).or_else(|| doubled(rules, before, own)) {
        return TrialVerdict::Failed(reason);
    }
    let is_due = over || own.calls >= rules.calls;
    if is_due && (!own.found.is_open || phase == TrialPhase::Final) {
        return TrialVerdict::Passed;
    }
    TrialVerdict::Wait
}

/// Returns the reason for a failure if too many calls broke that the previous version survives.
fn broken(rules: &ProbationConfig, own: TrialCalls, over: bool) -> Option<String> {
    let broken = own.found.broken;
    if broken.failures < BROKEN_MIN || broken.users < rules.users_min {
        return None;
    }
    let percent = own.percent(broken.failures);
    let allowed = if own.calls >= rules.calls_min {
        f64::from(rules.failure_percent)
    } else if over {
        // A few calls prove little, but if half of them broke, that is enough.
        50.0_f64.next_down()
    } else {
        return None;
    };
    (percent > allowed).then(|| {
        let (calls, users) = (own.calls, broken.users);
        let broken = broken.failures;
        format!(
            "{broken} of {calls} calls trapped or ran out of time ({percent:.1} %), of {users} users, and the \
             previous version survives the same calls"
        )
    })
}

/// Returns the reason for a failure if the version fails more than twice as often as the previous one, counting only
/// failures that the previous one survives.
fn doubled(rules: &ProbationConfig, before: RecentCalls, own: TrialCalls) -> Option<String> {
    let all = own.found.all;
    let enough = own.calls >= rules.calls_min
        && all.failures >= FAILURES_MIN
        && all.users >= rules.users_min
        && before.calls >= CALLS_BEFORE_MIN;
    let percent_before = percent(before.failures, before.calls);
    let percent = own.percent(all.failures);
    (enough && percent > RATE_FACTOR * percent_before).then(|| {
        let (failures, calls, users) = (all.failures, own.calls, all.users);
        format!(
            "{failures} of {calls} calls failed ({percent:.1} %), of {users} users, of the previous version recently \
             {percent_before:.1} %"
        )
    })
}

#[cfg(test)]
mod tests {
    use signalbox_plugin_runtime::FailureCount;

    use super::*;

    fn own(calls: u64, broken: u64, failures: u64) -> TrialCalls {
        let of_many = |failures| FailureCount { failures, users: 5 };
        TrialCalls {
            calls,
            found: EvidenceSummary {
                all: of_many(failures),
                broken: of_many(broken),
                is_open: false,
            },
        }
    }

    fn verdict(before: RecentCalls, own: TrialCalls, over: bool) -> &'static str {
        let phase = if over {
            TrialPhase::Over
        } else {
            TrialPhase::Running
        };
        match judge(&ProbationConfig::default(), before, own, phase) {
            TrialVerdict::Wait => "wait",
            TrialVerdict::Passed => "passed",
            TrialVerdict::Failed(_) => "failed",
        }
    }

    const GOOD: RecentCalls = RecentCalls {
        calls: 10_000,
        failures: 0,
    };
    const NEVER_CALLED: RecentCalls = RecentCalls {
        calls: 0,
        failures: 0,
    };

    #[test]
    fn more_than_the_allowed_share_of_broken_calls_fails_it() {
        assert_eq!(verdict(GOOD, own(20, 2, 2), false), "wait");
        assert_eq!(verdict(GOOD, own(20, 3, 3), false), "failed");
        assert_eq!(verdict(NEVER_CALLED, own(100, 5, 5), false), "wait");
        assert_eq!(verdict(NEVER_CALLED, own(100, 6, 6), false), "failed");
    }

    #[test]
    fn it_ends_with_its_time_or_its_calls_whichever_comes_first() {
        assert_eq!(verdict(GOOD, own(999, 0, 0), false), "wait");
        assert_eq!(verdict(GOOD, own(1_000, 0, 0), false), "passed");
        assert_eq!(verdict(GOOD, own(0, 0, 0), true), "passed");
    }

    #[test]
    fn probation_waits_until_the_previous_version_has_replayed_the_failures() {
        let mut open = own(1_000, 0, 0);
        open.found.is_open = true;
        assert_eq!(verdict(GOOD, open, false), "wait");
        assert_eq!(verdict(GOOD, open, true), "wait");
        let rules = ProbationConfig::default();
        let last = judge(&rules, GOOD, open, TrialPhase::Final);
        assert_eq!(last, TrialVerdict::Passed, "not for ever");
    }

    #[test]
    fn of_few_calls_half_must_break() {
        assert_eq!(verdict(GOOD, own(3, 3, 3), false), "wait");
        assert_eq!(verdict(GOOD, own(3, 3, 3), true), "failed");
        assert_eq!(verdict(GOOD, own(6, 3, 3), true), "failed");
        assert_eq!(verdict(GOOD, own(7, 3, 3), true), "passed");
        assert_eq!(verdict(GOOD, own(2, 2, 2), true), "passed");
    }

    #[test]
    fn fewer_failing_users_than_the_minimum_cause_no_rollback() {
        for users in 0..3 {
            let mut few = own(100, 100, 100);
            few.found.all.users = users;
            few.found.broken.users = users;
            assert_eq!(verdict(GOOD, few, false), "wait");
            assert_eq!(verdict(GOOD, few, true), "passed");
        }
    }

    #[test]
    fn twice_the_failures_of_the_version_before_fail_it() {
        let before = RecentCalls {
            calls: 1_000,
            failures: 10,
        };
        assert_eq!(verdict(before, own(500, 0, 10), false), "wait");
        assert_eq!(verdict(before, own(500, 0, 11), false), "failed");
        assert_eq!(verdict(before, own(100, 0, 9), false), "wait");
        // A version with few calls is no baseline.
        let few = RecentCalls {
            calls: 99,
            failures: 0,
        };
        assert_eq!(verdict(few, own(500, 0, 20), false), "wait");
        assert_eq!(verdict(GOOD, own(500, 0, 10), false), "failed");
    }

    #[test]
    fn the_reason_has_the_figures() {
        let rules = ProbationConfig::default();
        let judge = |before, own| match judge(&rules, before, own, TrialPhase::Running) {
            TrialVerdict::Failed(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            judge(GOOD, own(40, 10, 12)),
            "10 of 40 calls trapped or ran out of time (25.0 %), of 5 users, and the previous version survives the \
             same calls"
        );
        let before = RecentCalls {
            calls: 1_000,
            failures: 10,
        };
        assert_eq!(
            judge(before, own(500, 0, 50)),
            "50 of 500 calls failed (10.0 %), of 5 users, of the previous version recently 1.0 %"
        );
    }
}
