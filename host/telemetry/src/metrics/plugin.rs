//! Metrics of plugins: those that the host records for each, and those that each plugin records itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::{Counter, Gauge, Histogram, Named, OTHER};

/// Maximum number of metrics that one plugin may define.
const GUEST_FIGURES_MAX: usize = 100;

/// Maximum number of a plugin's rejection codes that are counted separately.
const REJECTION_CODES_MAX: usize = 20;

/// Longest name of a plugin's own metric, in bytes.
const GUEST_NAME_BYTES_MAX: usize = 64;

/// The kind of failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The guest trapped: a panic, an exhausted stack, an illegal access.
    Trap,
    /// CPU or wall time ran out.
    Deadline,
    /// The guest asked for more memory than it may use.
    Memory,
    /// Its answer broke a rule.
    Output,
    /// No instance was available: the plugin is not loaded, does not start, or all instances are busy.
    Unavailable,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Output,
        Self::Unavailable,
    ];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The new version is live.
    Live,
    /// The new version was refused; the old one keeps serving.
    Refused,
    /// The new version was rolled back because it failed; the old one serves again.
    RolledBack,
}

impl SwapOutcome {
    const ALL: [Self; 3] = [Self::Live, Self::Refused, Self::RolledBack];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// The result of handing over the state of a `single` plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverOutcome {
    /// The new version is live with the state of the old one.
    HandedOver,
    /// The new version is live without that state.
    BegunAnew,
    /// The new version is not live, because it did not get that state.
    GivenUp,
}

impl HandoverOutcome {
    const ALL: [Self; 3] = [Self::HandedOver, Self::BegunAnew, Self::GivenUp];

    const fn as_str(self) -> &'static str {
        match self {
            Self::HandedOver => "handed_over",
            Self::BegunAnew => "begun_anew",
            Self::GivenUp => "given_up",
        }
    }
}

/// The result of a copied call for a shadow version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOutcome {
    /// Both versions gave the same answer.
    Same,
    /// Their answers differed.
    Different,
    /// No copy was made: too many are queued.
    QueueFull,
    /// No copy was made: it and the queued copies together have too many bytes.
    QueueBytes,
}

impl ShadowOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [
        Self::Same,
        Self::Different,
        Self::QueueFull,
        Self::QueueBytes,
    ];

    /// Its name in metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::QueueFull => "queue_full",
            Self::QueueBytes => "queue_bytes",
        }
    }
}

/// A counter for each [`ShadowOutcome`].
#[derive(Debug, Default)]
pub struct ByShadowOutcome([Counter; ShadowOutcome::ALL.len()]);

impl ByShadowOutcome {
    /// The counter of `outcome`.
    pub fn of(&self, outcome: ShadowOutcome) -> &Counter {
        &self.0[outcome as usize]
    }
}

/// The host's metrics of one plugin, across all its versions.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    /// Calls, however they ended.
    pub calls: Counter,
    /// Time of a call, from the host's side.
    pub call_time: Histogram,
    /// Log lines that were over the limit.
    pub log_lines_dropped: Counter,
    /// Values for the plugin's own metrics that were not recorded.
    pub guest_values_refused: Counter,
    /// Instances that exist, of all versions.
    pub instances: Gauge,
    /// The linear memory of those instances.
    pub memory_bytes: Gauge,
    /// Copied calls for a shadow version.
    pub shadow: ByShadowOutcome,
    /// Time for which messages were held for a handover, recorded for each attempt.
    pub handover_time: Histogram,
    /// The plugin's own metrics.
    pub guest: GuestMetrics,
    failures: [Counter; FailureKind::ALL.len()],
    swaps: [Counter; SwapOutcome::ALL.len()],
    handovers: [Counter; HandoverOutcome::ALL.len()],
    rejections: Named<Counter, REJECTION_CODES_MAX>,
    other_rejections: Counter,
}

impl PluginMetrics {
    /// Calls that failed in this way.
    pub fn failures(&self, kind: FailureKind) -> &Counter {
        &self.failures[kind as usize]
    }

    /// Counts a message, a connection or a join that the plugin refused with `code`. Plugins define their own codes, so
    /// only the first twenty count by name.
    pub fn rejected(&self, code: &str) {
        let named = match code {
            OTHER => None,
            code => self
                .rejections
                .get_or_make(code, Counter::default, Counter::increment),
        };
        named.unwrap_or_else(|| self.other_rejections.increment());
    }

    /// Counts a swap.
    pub fn swapped(&self, outcome: SwapOutcome) {
        self.swaps[outcome as usize].increment();
    }

    /// Counts the outcome of a handover of state.
    pub fn handed_over(&self, outcome: HandoverOutcome) {
        self.handovers[outcome as usize].increment();
    }

    /// Number of rejections by the plugin, by code; [`OTHER`] last.
    pub(super) fn rejections(&self) -> Vec<(String, u64)> {
        let codes = self.rejections.all();
        let named = codes
            .iter()
            .map(|(code, count)| (code.to_string(), count.get()));
        let other = (OTHER.to_owned(), self.other_rejections.get());
        named.chain([other]).collect()
    }

    /// Number of swaps, by outcome.
    pub(super) fn swaps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SwapOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str(), self.swaps[outcome as usize].get()))
    }

    /// Number of handovers, by outcome.
    pub(super) fn handovers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        HandoverOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str(), self.handovers[outcome as usize].get()))
    }
}

/// The metrics of every plugin that was ever configured in this process, by name.
///
/// Entries stay when a plugin is removed from the configuration: counters must not go backwards.
#[derive(Debug, Default)]
pub struct PluginTable(RwLock<BTreeMap<String, Arc<PluginMetrics>>>);

impl PluginTable {
    /// Returns the metrics of `name`, which are created if they are missing. Called when a version is built, not during
    /// calls.
    pub fn of(&self, name: &str) -> Arc<PluginMetrics> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.entry(name.to_owned()).or_default().clone()
    }

    /// The metrics of all plugins, sorted by name.
    pub fn all(&self) -> Vec<(String, Arc<PluginMetrics>)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .iter()
            .map(|(name, metrics)| (name.clone(), metrics.clone()))
            .collect()
    }
}

/// The metrics that a plugin records itself, bounded in number and in the spelling of names.
#[derive(Debug, Default)]
pub struct GuestMetrics(Named<GuestMetric, GUEST_FIGURES_MAX>);

/// One of a plugin's own metrics.
#[derive(Debug)]
pub enum GuestMetric {
    /// Created by `count`.
    Count(Box<Counter>),
    /// Created by `observe`.
    Observed(Box<Histogram>),
}

/// Why a plugin's metric was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestMetricError {
    /// The name is not 1–64 of `a-z 0-9 _`.
    #[error("a metric's name must be 1 to 64 of `a-z 0-9 _`")]
    Name,
    /// It would be the plugin's 101st metric.
    #[error("a plugin may have 100 metrics")]
    TooMany,
    /// The name is used for a metric of the other kind.
    #[error("this name is used for a metric of the other kind")]
    Kind,
}

impl GuestMetrics {
    /// Adds `by` to the count called `name`.
    ///
    /// # Errors
    /// Returns a [`GuestMetricError`] if nothing was recorded.
    pub fn count(&self, name: &str, by: u64) -> Result<(), GuestMetricError> {
        let new = || GuestMetric::Count(Box::default());
        self.record(name, new, |figure| match figure {
            GuestMetric::Count(counter) => {
                counter.add(by);
                Ok(())
            }
            GuestMetric::Observed(_) => Err(GuestMetricError::Kind),
        })
    }

    /// Adds `value` to the distribution called `name`. The unit is the plugin's own; values are kept with a resolution
    /// of a thousandth. A negative value or NaN counts as 0.
    ///
    /// # Errors
    /// Returns a [`GuestMetricError`] if nothing was recorded.
    pub fn observe(&self, name: &str, value: f64) -> Result<(), GuestMetricError> {
        let new = || GuestMetric::Observed(Box::default());
        self.record(name, new, |figure| match figure {
            // One unit is stored as one millisecond.
            GuestMetric::Observed(histogram) => {
                histogram.record(duration_of_ms(value));
                Ok(())
            }
            GuestMetric::Count(_) => Err(GuestMetricError::Kind),
        })
    }

    /// All metrics of the plugin, sorted by name.
    pub fn all(&self) -> Arc<BTreeMap<Box<str>, Arc<GuestMetric>>> {
        self.0.all()
    }

    fn record(
        &self,
        name: &str,
        new: fn() -> GuestMetric,
        record: impl Fn(&GuestMetric) -> Result<(), GuestMetricError>,
    ) -> Result<(), GuestMetricError> {
        // The name of an existing metric has been checked already.
        if let Some(recorded) = self.0.get(name, &record) {
            return recorded;
        }
        let spelled_well = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || name.len() > GUEST_NAME_BYTES_MAX || !spelled_well {
            return Err(GuestMetricError::Name);
        }
        self.0
            .get_or_make(name, new, &record)
            .unwrap_or(Err(GuestMetricError::TooMany))
    }
}

/// Returns `value` milliseconds; 0 for a negative value or NaN, and a million seconds for anything beyond that.
pub fn duration_of_ms(value: f64) -> Duration {
    const MAX: Duration = Duration::from_secs(1_000_000);
    if value.is_nan() || value <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(value / 1e3).map_or(MAX, |duration| duration.min(MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_at_most_100_metrics() {
        let stats = GuestMetrics::default();
        for index in 0..GUEST_FIGURES_MAX {
            stats.count(&format!("m{index}"), 1).unwrap();
        }
        assert_eq!(stats.count("one_more", 1), Err(GuestMetricError::TooMany));
        assert_eq!(stats.count("m7", 1), Ok(()));
        assert_eq!(stats.all().len(), GUEST_FIGURES_MAX);
    }

    #[test]
    fn names_and_kinds_of_a_plugins_metrics_are_checked() {
        let stats = GuestMetrics::default();
        for bad in ["", "A", "a-b", "ä", &"x".repeat(65)] {
            assert_eq!(stats.count(bad, 1), Err(GuestMetricError::Name), "{bad}");
        }
        stats.count("a", 1).unwrap();
        assert_eq!(stats.observe("a", 1.0), Err(GuestMetricError::Kind));
    }

    #[test]
    fn values_that_are_no_durations_are_bounded() {
        for (value, expected) in [
            (f64::NAN, 0),
            (-1.0, 0),
            (f64::INFINITY, 1_000_000),
            (1500.0, 1),
        ] {
            assert_eq!(duration_of_ms(value).as_secs(), expected, "{value}");
        }
    }

    #[test]
    fn codes_beyond_the_first_twenty_count_as_other() {
        let metrics = PluginMetrics::default();
        for code in 0..REJECTION_CODES_MAX + 5 {
            metrics.rejected(&format!("code{code:02}"));
            metrics.rejected("code00");
        }
        metrics.rejected(OTHER);
        let rejections = metrics.rejections();
        assert_eq!(rejections.len(), REJECTION_CODES_MAX + 1);
        assert_eq!(rejections[0], ("code00".to_owned(), 26));
        assert_eq!(rejections.last(), Some(&(OTHER.to_owned(), 6)));
    }

    #[test]
    fn figures_of_a_plugin_outlive_its_versions() {
        let table = PluginTable::default();
        table.of("chat").calls.increment();
        assert_eq!(table.of("chat").calls.get(), 1);
    }
}
