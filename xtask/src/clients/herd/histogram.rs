//! When clients reconnected, and how long they waited before.

use super::nodes::drain_time;
use super::report::Report;
use super::verdict::{Restart, failed_attempts, restart_before};

/// The slices of a histogram.
const SLICES: usize = 10;

/// Numbers that were counted by slices, each a tenth of a whole.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    slices: [usize; SLICES],
}

impl Histogram {
    /// Counts a number. Those over `whole` are in the last slice.
    fn count(&mut self, number: u64, whole: u64) {
        let slice = usize::try_from(number * SLICES as u64 / (whole + 1));
        self.slices[slice.unwrap_or(SLICES).min(SLICES - 1)] += 1;
    }

    fn sum(&self) -> usize {
        self.slices.iter().sum()
    }

    /// Whether one slice has more than half of all. A few tell nothing.
    pub(super) fn has_spike(&self) -> bool {
        let most = self.slices.iter().max().copied().unwrap_or_default();
        self.sum() >= SLICES && 2 * most > self.sum()
    }

    /// The shares of the slices in percent.
    pub(super) fn shares(&self) -> String {
        let sum = self.sum().max(1);
        let share = |count: &usize| format!("{:>2}", (100 * count + sum / 2) / sum);
        let shares: Vec<_> = self.slices.iter().map(share).collect();
        shares.join(" ")
    }
}

/// The time of a restart at which clients were back, over all restarts. The whole of a restart is the time that its node had
/// to close its connections, or the time until the last client was back if that was longer. So a slow machine changes
/// nothing.
pub(super) fn reconnects(reports: &[Report], restarts: &[Restart]) -> Histogram {
    let mut histogram = Histogram::default();
    for number in 0..restarts.len() {
        let times = times(reports, restarts, number);
        let drain = u64::try_from(drain_time().as_millis()).unwrap_or(u64::MAX);
        let whole = times.iter().copied().fold(drain, u64::max);
        times.iter().for_each(|time| histogram.count(*time, whole));
    }
    histogram
}

/// The waits that clients chose after a loss. The whole is the wait that a tenth of them exceeds: a client whose connections
/// were short may wait much longer than others.
pub(super) fn waits(reports: &[Report]) -> Histogram {
    let mut histogram = Histogram::default();
    let waits = reports.iter().flat_map(|report| &report.waits);
    let mut waits: Vec<_> = waits.copied().collect();
    waits.sort_unstable();
    let whole = waits.get(waits.len() * 9 / 10).copied().unwrap_or_default();
    waits.iter().for_each(|wait| histogram.count(*wait, whole));
    histogram
}

/// Milliseconds from the beginning of a restart until each of its clients was back.
fn times(reports: &[Report], restarts: &[Restart], number: usize) -> Vec<u64> {
    let reconnects = reports.iter().flat_map(Report::reconnects);
    reconnects
        .filter(|time| restart_before(restarts, **time) == Some(number))
        .map(|time| time - restarts[number].began)
        .collect()
}

/// A line for each SDK.
pub(super) fn table(reports: &[(&'static str, Vec<Report>)], restarts: &[Restart]) -> String {
    let mut text = format!(
        "  {:<11} {:>7} {:>10} {:>6}  {:^24}  {:^29}  {:^29}\n",
        "",
        "clients",
        "reconnects",
        "failed",
        "first, median, last",
        "% by tenth",
        "waits, % by tenth"
    );
    for (name, reports) in reports {
        let number = 0..restarts.len();
        let mut times: Vec<_> = number
            .flat_map(|number| times(reports, restarts, number))
            .collect();
        times.sort_unstable();
        let failed: usize = reports.iter().map(failed_attempts).sum();
        let quantile = |part| format!("{:.2} s", quantile(&times, part));
        text += &format!(
            "  {name:<11} {:>7} {:>10} {failed:>6}  {:^24}  {}  {}\n",
            reports.len(),
            times.len(),
            [quantile(0.0), quantile(0.5), quantile(1.0)].join(", "),
            self::reconnects(reports, restarts).shares(),
            waits(reports).shares(),
        );
    }
    text
}

/// The time until this part of the clients was back, in seconds.
fn quantile(times: &[u64], part: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    times.get(index).copied().unwrap_or_default() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::{RESTARTS, good};
    use super::*;

    fn reconnects_at(times: impl Iterator<Item = u64>) -> Histogram {
        let client = |time| Report {
            connected: vec![1, RESTARTS[0].began + time],
            ..good()
        };
        let reports: Vec<_> = times.map(client).collect();
        reconnects(&reports, &RESTARTS[..1])
    }

    #[test]
    fn reconnects_that_are_spread_are_no_spike_however_long_they_take() {
        for factor in [1, 20] {
            let spread = reconnects_at((0..40).map(|n| n * 100 * factor));
            assert!(!spread.has_spike(), "{spread:?}");
            assert_eq!(spread.sum(), 40);
        }
    }

    #[test]
    fn reconnects_at_the_same_time_are_a_spike() {
        let spike = reconnects_at((0..30).map(|n| 100 + n).chain((0..10).map(|n| n * 400)));
        assert!(spike.has_spike(), "{spike:?}");
    }

    #[test]
    fn waits_that_are_all_alike_are_a_spike() {
        let of = |waits: Vec<u64>| waits_of(waits).has_spike();
        assert!(of(vec![500; 20]));
        assert!(!of((0..20).map(|n| n * 25).collect()));
        assert!(!of(vec![500; 3]), "three tell nothing");
    }

    fn waits_of(waits: Vec<u64>) -> Histogram {
        super::waits(&[Report { waits, ..good() }])
    }

    #[test]
    fn the_table_has_a_line_for_each_sdk() {
        let reports = [("go", vec![good()]), ("rust", vec![good()])];
        let text = table(&reports, &RESTARTS);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("1.00 s, 3.00 s, 3.00 s"), "{text}");
        assert!(lines[1].contains(" 0  0 50  0  0  0 50  0  0  0"), "{text}");
    }
}
