//! The evidence against a version on trial: failed calls, their users, and whether the previous version survives the
//! same calls.
//!
//! One client alone must not be able to veto a version. So failures are counted by user, those of one user count for at
//! most as many as those of all others together, and only the share that the previous version survives counts. Some
//! calls of each user are replayed, and stand for the rest.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use signalbox_telemetry::metrics::FailureKind;

/// The number of users that can be told apart, at 64 bytes each. More users than that share buckets, which makes them look
/// like fewer; of five users, two share one in 1,600 versions.
const PLACES: u64 = 16_384;

/// The maximum number of calls of one user that are replayed, so that no user keeps the others from their turn.
const ASKED_MAX: u64 = 32;

/// The buckets in which users are counted. Nobody can predict the bucket of a user, so nobody can hide behind another.
#[derive(Clone, Debug, Default)]
pub(super) struct UserBuckets(RandomState);

/// The bucket of one user.
pub(super) type UserBucket = u64;

impl UserBuckets {
    pub(super) fn of(&self, user: &str) -> UserBucket {
        self.0.hash_one(user) % PLACES
    }

    /// Users of whom no two have the same bucket.
    #[cfg(test)]
    pub(super) fn distinct_users<const N: usize>(&self) -> [String; N] {
        let mut taken = std::collections::BTreeSet::new();
        let mut users = (0..).map(|number| format!("user-{number}"));
        std::array::from_fn(|_| {
            let user = users.find(|user| taken.insert(self.of(user)));
            user.expect("there are more buckets than users")
        })
    }
}

/// The failures that count, and the number of users that they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCount {
    /// The number of failures.
    pub failures: u64,
    /// The number of users.
    pub users: usize,
}

/// Adds up the failures of all users. Those of one user count for at most as many as those of all others together.
pub(super) fn counted(of_users: impl Iterator<Item = u64>) -> FailureCount {
    let (mut total, mut most, mut users) = (0_u64, 0, 0);
    for failures in of_users.filter(|failures| *failures > 0) {
        total += failures;
        most = most.max(failures);
        users += 1;
    }
    let others = total - most;
    FailureCount {
        failures: others + most.min(others),
        users,
    }
}

/// A failed call whose user and kind are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedCall {
    bucket: UserBucket,
    broken: bool,
}

/// Collects the evidence against a version on trial.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    buckets: UserBuckets,
    users: Mutex<BTreeMap<UserBucket, UserFailures>>,
}

/// The failures of one user.
#[derive(Clone, Copy, Debug, Default)]
struct UserFailures {
    /// All failures.
    all: FailedCalls,
    /// Traps, calls that ran out of time, and calls that wanted more memory than they may have.
    broken: FailedCalls,
    /// Calls that were or are to be replayed.
    asked: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct FailedCalls {
    failures: u64,
    /// Failures that were replayed on the previous version.
    replayed: u64,
    /// Replayed failures that the previous version survived.
    survived: u64,
}

impl FailedCalls {
    fn add(&mut self, survived: bool) {
        self.replayed += 1;
        self.survived += u64::from(survived);
    }

    /// The number of survived failures, extrapolated from the replayed ones to all.
    fn counted(self) -> u64 {
        let estimate = u128::from(self.failures) * u128::from(self.survived);
        let estimate = estimate.checked_div(self.replayed.into());
        estimate
            .and_then(|count| count.try_into().ok())
            .unwrap_or(0)
    }
}

/// The evidence at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvidenceSummary {
    /// Failures of any kind that count.
    pub all: FailureCount,
    /// Failures that broke the call.
    pub broken: FailureCount,
    /// Whether calls are still to be replayed.
    pub is_open: bool,
}

impl Evidence {
    /// Records that a call of `user` failed. Returns the case if the call is to be replayed, after which the caller
    /// reports [`Self::asked`] or [`Self::not_asked`].
    pub(super) fn failed(&self, user: &str, kind: FailureKind) -> Option<FailedCall> {
        let (bucket, broken) = (self.buckets.of(user), is_broken(kind));
        let mut users = self.users();
        let suffered = users.entry(bucket).or_default();
        suffered.all.failures += 1;
        suffered.broken.failures += u64::from(broken);
        if suffered.asked >= ASKED_MAX {
            return None;
        }
        suffered.asked += 1;
        Some(FailedCall { bucket, broken })
    }

    /// Records that the same call was made to the previous version, and whether that survived it.
    pub(super) fn asked(&self, case: FailedCall, survived: bool) {
        if let Some(suffered) = self.users().get_mut(&case.bucket) {
            suffered.all.add(survived);
            if case.broken {
                suffered.broken.add(survived);
            }
        }
    }

    /// Records that there was no room to replay the call.
    pub(super) fn not_asked(&self, case: FailedCall) {
        if let Some(suffered) = self.users().get_mut(&case.bucket) {
            suffered.asked -= 1;
        }
    }

    /// The evidence so far.
    pub(super) fn found(&self) -> EvidenceSummary {
        let users = self.users();
        EvidenceSummary {
            all: counted(users.values().map(|suffered| suffered.all.counted())),
            broken: counted(users.values().map(|suffered| suffered.broken.counted())),
            is_open: users
                .values()
                .any(|suffered| suffered.asked > suffered.all.replayed),
        }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<UserBucket, UserFailures>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the call trapped, wanted more memory than it may have, or ran out of time.
fn is_broken(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Trap | FailureKind::Deadline | FailureKind::Memory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(evidence: &Evidence, user: &str, times: u64, survived: bool) {
        for _ in 0..times {
            if let Some(case) = evidence.failed(user, FailureKind::Trap) {
                evidence.asked(case, survived);
            }
        }
    }

    #[test]
    fn failures_of_one_user_alone_count_for_nothing() {
        let evidence = Evidence::default();
        fail(&evidence, "ann", 10_000, true);
        assert_eq!(evidence.found().all.failures, 0);
        assert_eq!(evidence.found().all.users, 1);
    }

    #[test]
    fn one_user_counts_for_no_more_than_all_others_together() {
        let counted = |failures: &[u64]| counted(failures.iter().copied()).failures;
        assert_eq!(counted(&[1_000, 1, 1]), 4);
        assert_eq!(counted(&[5, 5, 5]), 15);
        assert_eq!(counted(&[7, 7, 6]), 20);
        assert_eq!(counted(&[]), 0);
    }

    #[test]
    fn failures_shared_by_the_previous_version_do_not_count() {
        let evidence = Evidence::default();
        for user in ["ann", "bob", "eve"] {
            fail(&evidence, user, 10, false);
        }
        assert_eq!(evidence.found().all, FailureCount::default());
        assert!(!evidence.found().is_open);
    }

    #[test]
    fn the_calls_that_are_asked_again_tell_of_the_others() {
        let evidence = Evidence::default();
        // More calls of each user than are replayed; of the replayed ones, one half survives.
        for user in evidence.buckets.distinct_users::<3>() {
            fail(&evidence, &user, 16, false);
            fail(&evidence, &user, 984, true);
        }
        let found = evidence.found();
        assert_eq!(found.broken, found.all);
        assert_eq!(
            found.all,
            FailureCount {
                failures: 1_500,
                users: 3
            }
        );
    }

    #[test]
    fn calls_without_room_are_not_waited_for() {
        let evidence = Evidence::default();
        let case = evidence.failed("ann", FailureKind::Output).unwrap();
        assert!(evidence.found().is_open);
        evidence.not_asked(case);
        assert!(!evidence.found().is_open);
        assert_eq!(evidence.found().broken, FailureCount::default());
    }
}
