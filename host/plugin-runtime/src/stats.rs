//! Counters of one version of a plugin since it went live, for reports to operators, and for judging the version.
//!
//! [`PluginMetrics`] counts the same over all versions and never resets, as scrapers
//! expect. These counters start at zero whenever a version goes live.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use signalbox_protocol::ClientInfo;
use signalbox_telemetry::metrics::{
    Counter, FailureKind, Gauge, Histogram, HistogramSnapshot, PluginMetrics, bound_us,
};

use super::{
    call::{ReplayCall, user_of},
    call_error::CallError,
    call_window::{CallWindow, RecentCalls},
    log::clean,
    replay::Replays,
};

/// The counters of one version.
#[derive(Debug, Default)]
pub struct VersionStats {
    call_time: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
    instances: Gauge,
    memory_bytes: Gauge,
    last_error: Mutex<Option<LastError>>,
    recent: CallWindow,
    /// Receives failed calls while the version is on trial.
    replays: Mutex<Weak<Replays>>,
}

/// The latest call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When it failed.
    pub at: SystemTime,
    /// The kind of failure.
    pub kind: FailureKind,
    /// For the plugin's author, in one line of at most 1 KiB.
    pub message: String,
}

/// Counts an instance: in its plugin's metrics and in its version's stats.
#[derive(Debug)]
pub(super) struct InstanceGauge {
    plugin: Arc<PluginMetrics>,
    version: Arc<VersionStats>,
}

impl InstanceGauge {
    pub(super) fn of(plugin: &Arc<PluginMetrics>, version: &Arc<VersionStats>) -> Self {
        Self {
            plugin: plugin.clone(),
            version: version.clone(),
        }
    }

    /// Counts an instance that starts (1) or ends (-1), and the change of its linear memory in bytes.
    pub(super) fn changed(&self, instances: i64, memory_bytes: i64) {
        self.plugin.instances.add(instances);
        self.plugin.memory_bytes.add(memory_bytes);
        self.version.instances.add(instances);
        self.version.memory_bytes.add(memory_bytes);
    }
}

impl VersionStats {
    /// Counts a call that took `elapsed`.
    pub(super) fn called(&self, elapsed: Duration, error: Option<&CallError>) {
        self.call_time.record(elapsed);
        if let Some(error) = error {
            self.failed(error);
        }
    }

    /// Counts a failure of a call that was counted before.
    pub(super) fn failed(&self, error: &CallError) {
        self.failures[error.kind as usize].increment();
        *self.last_error_slot() = Some(LastError {
            at: SystemTime::now(),
            kind: error.kind,
            message: clean(&error.detail),
        });
    }

    /// Records a failed call and its user: for the judgment on this version, if it is on trial, and as a baseline for
    /// the next one.
    #[cold]
    pub(super) fn blame(
        &self,
        error: &CallError,
        client: Option<&Arc<ClientInfo>>,
        call: &ReplayCall<'_>,
    ) {
        self.recent.failed(user_of(client, call), Instant::now());
        let replays = self.replays_slot().upgrade();
        if let Some(replays) = replays {
            replays.offer(error, client, call);
        }
    }

    /// Offers calls that fail from now on for a replay, as long as `replays` exists.
    pub fn replay_to(&self, replays: &Arc<Replays>) {
        *self.replays_slot() = Arc::downgrade(replays);
    }

    /// Records how many calls there have been until now.
    pub fn mark(&self) {
        self.recent
            .mark(self.call_time.snapshot().count(), Instant::now());
    }

    /// The calls of the last minutes.
    pub fn lately(&self) -> RecentCalls {
        self.recent
            .lately(self.call_time.snapshot().count(), Instant::now())
    }

    fn replays_slot(&self) -> MutexGuard<'_, Weak<Replays>> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of calls that failed in this way.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize].get()
    }

    /// The latest call that failed.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error_slot().clone()
    }

    /// Instances that exist.
    pub fn instances(&self) -> i64 {
        self.instances.get()
    }

    /// Bytes of their linear memories.
    pub fn memory_bytes(&self) -> i64 {
        self.memory_bytes.get()
    }

    /// Times of all calls, however they ended.
    pub fn call_time(&self) -> HistogramSnapshot {
        self.call_time.snapshot()
    }

    fn last_error_slot(&self) -> MutexGuard<'_, Option<LastError>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time, in milliseconds, that `share` (0 to 1) of the durations do not exceed, rounded up to the bound of its
/// bucket. `None` if there are no durations, or if the time is above every bound.
pub fn quantile_ms(durations: &HistogramSnapshot, share: f64) -> Option<f64> {
    let count = durations.count();
    // At least the first duration.
    let rank = ((count as f64 * share).ceil() as u64).max(1);
    let mut below = 0;
    let bucket = durations.buckets.iter().position(|bucket| {
        below += bucket.count;
        count > 0 && below >= rank
    })?;
    bound_us(bucket).map(|us| us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_below_which_that_share_is() {
        let times = Histogram::default();
        assert_eq!(quantile_ms(&times.snapshot(), 0.5), None);
        (0..98).for_each(|_| times.record(Duration::from_millis(1)));
        (0..2).for_each(|_| times.record(Duration::from_secs(1)));
        let (p50, p99) = (
            quantile_ms(&times.snapshot(), 0.5).unwrap(),
            quantile_ms(&times.snapshot(), 0.99).unwrap(),
        );
        assert!((1.0..2.0).contains(&p50), "{p50}");
        assert!((1000.0..2000.0).contains(&p99), "{p99}");
        let forever = Histogram::default();
        forever.record(Duration::from_secs(10_000));
        assert_eq!(quantile_ms(&forever.snapshot(), 0.5), None);
    }

    #[test]
    fn the_last_error_is_the_latest_in_one_line() {
        let stats = VersionStats::default();
        assert_eq!(stats.last_error(), None);
        let error = |detail: &str| CallError::new(FailureKind::Trap, detail);
        stats.called(Duration::ZERO, Some(&error("first")));
        stats.failed(&error("second\nline"));
        let last = stats.last_error().unwrap();
        assert_eq!(
            (last.kind, last.message.as_str()),
            (FailureKind::Trap, "second line")
        );
        assert_eq!(stats.failures(FailureKind::Trap), 2);
        assert_eq!(stats.call_time().count(), 1);
    }
}
