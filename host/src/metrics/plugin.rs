//! The figures of plugins: what the host counts about each, and what each counts for itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::{Counter, Histogram};

/// Most figures that one plugin may name.
const GUEST_FIGURES_MAX: usize = 100;

/// Longest name of a plugin's figure, in bytes.
const GUEST_NAME_BYTES_MAX: usize = 64;

/// What went wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The guest trapped: a panic, an exhausted stack, an illegal access.
    Trap,
    /// CPU or wall time ran out.
    Deadline,
    /// The guest wanted more memory than it may have.
    Memory,
    /// What it returned broke a rule.
    Output,
    /// No instance was to be had: the plugin is not loaded, does not start, or all instances are busy.
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

    /// As it stands in metrics and logs.
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
    /// The new version was refused, the old one serves on.
    Refused,
}

/// What the host counts about one plugin, over all its versions.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    /// Calls, however they ended.
    pub calls: Counter,
    /// Time of a call, from the host's side.
    pub call_time: Histogram,
    /// Messages that it refused.
    pub rejections: Counter,
    /// Log lines that were over the limit.
    pub log_lines_dropped: Counter,
    /// Versions that went live.
    pub swaps_live: Counter,
    /// Versions that were refused.
    pub swaps_refused: Counter,
    /// What the plugin counts for itself.
    pub guest: GuestFigures,
    failures: [Counter; FailureKind::ALL.len()],
}

impl PluginMetrics {
    /// Calls that failed in this way.
    pub fn failures(&self, kind: FailureKind) -> &Counter {
        &self.failures[kind as usize]
    }

    /// Counts a swap.
    pub fn swapped(&self, outcome: SwapOutcome) {
        match outcome {
            SwapOutcome::Live => self.swaps_live.increment(),
            SwapOutcome::Refused => self.swaps_refused.increment(),
        }
    }
}

/// The figures of every plugin that was ever configured in this process, by name.
///
/// Entries stay when a plugin is taken out of the configuration: counters must not go backwards.
#[derive(Debug, Default)]
pub struct PluginTable(RwLock<BTreeMap<String, Arc<PluginMetrics>>>);

impl PluginTable {
    /// The figures of `name`, made where they are missing. Called when a version is built, not in calls.
    pub fn of(&self, name: &str) -> Arc<PluginMetrics> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.entry(name.to_owned()).or_default().clone()
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> Vec<(String, Arc<PluginMetrics>)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .iter()
            .map(|(name, metrics)| (name.clone(), metrics.clone()))
            .collect()
    }
}

/// What a plugin counts and observes by itself, bounded in number and in the spelling of names.
#[derive(Debug, Default)]
pub struct GuestFigures(RwLock<BTreeMap<String, Arc<GuestFigure>>>);

/// One figure of a plugin's own.
#[derive(Debug)]
pub enum GuestFigure {
    /// Made by `count`.
    Count(Box<Counter>),
    /// Made by `observe`.
    Observed(Box<Histogram>),
}

/// Why a plugin's figure was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestMetricError {
    /// Not 1–64 of `a-z 0-9 _`.
    #[error("a metric's name must be 1 to 64 of `a-z 0-9 _`")]
    Name,
    /// It would be the 101st.
    #[error("a plugin may have 100 metrics")]
    TooMany,
    /// The name is taken by a figure of the other kind.
    #[error("this name is used for a metric of the other kind")]
    Kind,
}

impl GuestFigures {
    /// Adds `by` to the count called `name`.
    ///
    /// # Errors
    /// [`GuestMetricError`]; nothing is recorded then.
    pub fn count(&self, name: &str, by: u64) -> Result<(), GuestMetricError> {
        match &*self.figure(name, || GuestFigure::Count(Box::default()))? {
            GuestFigure::Count(counter) => counter.add(by),
            GuestFigure::Observed(_) => return Err(GuestMetricError::Kind),
        }
        Ok(())
    }

    /// Adds `value` to the distribution called `name`. The unit is the plugin's own; it is kept with a resolution of
    /// a thousandth. What is negative or no number counts as 0.
    ///
    /// # Errors
    /// [`GuestMetricError`]; nothing is recorded then.
    pub fn observe(&self, name: &str, value: f64) -> Result<(), GuestMetricError> {
        match &*self.figure(name, || GuestFigure::Observed(Box::default()))? {
            // One unit is kept as one millisecond.
            GuestFigure::Observed(histogram) => histogram.record(duration_of_ms(value)),
            GuestFigure::Count(_) => return Err(GuestMetricError::Kind),
        }
        Ok(())
    }

    /// All of them, sorted by name.
    pub fn all(&self) -> Vec<(String, Arc<GuestFigure>)> {
        let figures = self.0.read().unwrap_or_else(PoisonError::into_inner);
        figures
            .iter()
            .map(|(name, figure)| (name.clone(), figure.clone()))
            .collect()
    }

    fn figure(
        &self,
        name: &str,
        new: fn() -> GuestFigure,
    ) -> Result<Arc<GuestFigure>, GuestMetricError> {
        if let Some(figure) = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Ok(figure.clone());
        }
        let spelled_well = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || name.len() > GUEST_NAME_BYTES_MAX || !spelled_well {
            return Err(GuestMetricError::Name);
        }
        let mut figures = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if figures.len() >= GUEST_FIGURES_MAX && !figures.contains_key(name) {
            return Err(GuestMetricError::TooMany);
        }
        Ok(figures
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(new()))
            .clone())
    }
}

/// `value` milliseconds; 0 for what is negative or no number, a million seconds for what is beyond that.
pub(crate) fn duration_of_ms(value: f64) -> Duration {
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
    fn a_plugin_has_at_most_100_metrics_of_its_own() {
        let figures = GuestFigures::default();
        for index in 0..GUEST_FIGURES_MAX {
            figures.count(&format!("m{index}"), 1).unwrap();
        }
        assert_eq!(figures.count("one_more", 1), Err(GuestMetricError::TooMany));
        assert_eq!(figures.count("m7", 1), Ok(()));
        assert_eq!(figures.all().len(), GUEST_FIGURES_MAX);
    }

    #[test]
    fn names_and_kinds_of_a_plugins_metrics_are_checked() {
        let figures = GuestFigures::default();
        for bad in ["", "A", "a-b", "ä", &"x".repeat(65)] {
            assert_eq!(figures.count(bad, 1), Err(GuestMetricError::Name), "{bad}");
        }
        figures.count("a", 1).unwrap();
        assert_eq!(figures.observe("a", 1.0), Err(GuestMetricError::Kind));
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
    fn figures_of_a_plugin_outlive_its_versions() {
        let table = PluginTable::default();
        table.of("chat").calls.increment();
        assert_eq!(table.of("chat").calls.get(), 1);
    }
}
