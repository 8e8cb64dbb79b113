//! The recent calls of a version: the baseline for its successor. The whole lifetime of a version is no baseline,
//! because a client may have made it fail last week.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::evidence::{UserBucket, UserBuckets, counted};

/// The approximate length of the period.
const WINDOW: Duration = Duration::from_secs(300);

/// The maximum number of failures whose users are known. If there are more, the latest ones stand for all.
const FAILURES_MAX: usize = 1024;

/// The calls of that period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentCalls {
    /// All calls.
    pub calls: u64,
    /// Calls that failed. Those of one user count for at most as many as those of all other users together.
    pub failures: u64,
}

/// Keeps track of the recent calls of a version.
#[derive(Debug, Default)]
pub(super) struct CallWindow {
    buckets: UserBuckets,
    state: Mutex<WindowState>,
}

#[derive(Debug, Default)]
struct WindowState {
    /// The total number of calls at each mark, the earliest first. The first mark is as old as the period, or as the
    /// version.
    marks: VecDeque<(Instant, u64)>,
    failures: VecDeque<(Instant, UserBucket)>,
    /// When the latest failure that was dropped for lack of room happened, and how many were dropped.
    forgotten: Option<(Instant, u64)>,
}

impl CallWindow {
    /// Records a failed call of `user`.
    pub(super) fn failed(&self, user: &str, now: Instant) {
        let bucket = self.buckets.of(user);
        let mut state = self.state();
        if state.failures.len() == FAILURES_MAX
            && let Some((at, _)) = state.failures.pop_front()
        {
            let count = state.forgotten.map_or(0, |(_, count)| count);
            state.forgotten = Some((at, count + 1));
        }
        state.failures.push_back((now, bucket));
    }

    /// Records that there have been `calls` calls until now. Must be called from time to time.
    pub(super) fn mark(&self, calls: u64, now: Instant) {
        let mut state = self.state();
        state.marks.push_back((now, calls));
        state.prune(now);
    }

    /// The recent calls, given that there have been `calls` calls in total.
    pub(super) fn lately(&self, calls: u64, now: Instant) -> RecentCalls {
        let mut state = self.state();
        state.prune(now);
        let before = match state.marks.front() {
            Some((at, before)) if now.saturating_duration_since(*at) >= WINDOW => *before,
            _ => 0,
        };
        let mut of_users = BTreeMap::<UserBucket, u64>::new();
        for (_, bucket) in &state.failures {
            *of_users.entry(*bucket).or_default() += 1;
        }
        let known = state.failures.len() as u64;
        let all = known + state.forgotten.map_or(0, |(_, count)| count);
        let counted = counted(of_users.into_values()).failures;
        let failures = (counted * all).checked_div(known).unwrap_or(0);
        RecentCalls {
            calls: calls.saturating_sub(before),
            failures,
        }
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WindowState {
    fn prune(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        while self.marks.get(1).is_some_and(|(at, _)| is_old(*at)) {
            self.marks.pop_front();
        }
        let since = self.marks.front().filter(|(at, _)| is_old(*at));
        let Some(since) = since.map(|(at, _)| *at) else {
            return;
        };
        while self.failures.front().is_some_and(|(at, _)| *at < since) {
            self.failures.pop_front();
        }
        self.forgotten = self.forgotten.filter(|(at, _)| *at >= since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_events_do_not_count() {
        let (recent, start) = (CallWindow::default(), Instant::now());
        for user in recent.buckets.distinct_users::<3>() {
            recent.failed(&user, start);
        }
        recent.mark(100, start + Duration::from_secs(1));
        let soon = start + Duration::from_secs(2);
        let lately = recent.lately(120, soon);
        assert_eq!(
            lately,
            RecentCalls {
                calls: 120,
                failures: 3
            }
        );
        let later = soon + WINDOW;
        recent.mark(500, later);
        assert_eq!(
            recent.lately(520, later),
            RecentCalls {
                calls: 420,
                failures: 0
            }
        );
    }

    #[test]
    fn one_user_alone_sets_no_standard() {
        let (recent, now) = (CallWindow::default(), Instant::now());
        (0..500).for_each(|_| recent.failed("ann", now));
        assert_eq!(recent.lately(1_000, now).failures, 0);
    }

    #[test]
    fn memory_is_bounded_and_evicted_counts_are_estimated() {
        let (recent, now) = (CallWindow::default(), Instant::now());
        for number in 0..10 * FAILURES_MAX {
            recent.failed(&format!("user-{}", number % 64), now);
        }
        assert_eq!(recent.state().failures.len(), FAILURES_MAX);
        let lately = recent.lately(100_000, now);
        assert_eq!(lately.failures, 10 * FAILURES_MAX as u64);
    }
}
