//! When clients reconnected, from the moment at which their node was asked to end.

use super::nodes::drain_time;
use super::report::Report;
use super::verdict::{Restart, failed_attempts, restart_before};

/// The parts into which the time of a restart is divided.
const SLICES: usize = 10;

/// The longest bar of the table, in characters.
const BAR_MAX: usize = 8;

/// The reconnects of some clients.
#[derive(Debug)]
pub(super) struct Histogram {
    /// The reconnects in each slice, over all restarts. The slices of a restart divide the time that it had to close its
    /// connections, or the time until the last client was back if that was longer. So a slow machine changes nothing.
    slices: [usize; SLICES],
    /// Milliseconds from the beginning of the restart, in order.
    times: Vec<u64>,
}

/// Counts the reconnects of these clients.
pub(super) fn of(reports: &[Report], restarts: &[Restart]) -> Histogram {
    let mut slices = [0; SLICES];
    let mut times = Vec::new();
    for (number, restart) in restarts.iter().enumerate() {
        let reconnects = reports.iter().flat_map(Report::reconnects);
        let after: Vec<_> = reconnects
            .filter(|time| restart_before(restarts, **time) == Some(number))
            .map(|time| time - restart.began)
            .collect();
        let drain = u64::try_from(drain_time().as_millis()).unwrap_or(u64::MAX);
        let whole = after.iter().copied().fold(drain, u64::max) + 1;
        for time in &after {
            let slice = usize::try_from(time * SLICES as u64 / whole).unwrap_or(SLICES - 1);
            slices[slice] += 1;
        }
        times.extend(after);
    }
    times.sort_unstable();
    Histogram { slices, times }
}

impl Histogram {
    /// Whether one slice has more than half of the reconnects. A few reconnects tell nothing.
    pub(super) fn has_spike(&self) -> bool {
        let most = self.slices.iter().max().copied().unwrap_or_default();
        self.times.len() >= SLICES && 2 * most > self.times.len()
    }

    /// The time until this part of the clients was back, in seconds.
    fn quantile(&self, part: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let index = (last as f64 * part).round() as usize;
        self.times.get(index).copied().unwrap_or_default() as f64 / 1_000.0
    }

    fn bars(&self) -> String {
        let most = self.slices.iter().max().copied().unwrap_or_default().max(1);
        let bar = |count: &usize| {
            let steps = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
            let height = count * BAR_MAX;
            match height.div_ceil(most) {
                0 => '·',
                height => steps[(height - 1).min(BAR_MAX - 1)],
            }
        };
        self.slices.iter().map(bar).collect()
    }
}

/// A line for each SDK.
pub(super) fn table(reports: &[(&'static str, Vec<Report>)], restarts: &[Restart]) -> String {
    let mut text = format!(
        "  {:<11} {:>7} {:>10} {:>7} {:>8} {:>7} {:>7}  tenths of the time\n",
        "reconnects", "clients", "reconnects", "failed", "first", "median", "last"
    );
    for (name, reports) in reports {
        let histogram = of(reports, restarts);
        let failed: usize = reports.iter().map(failed_attempts).sum();
        text += &format!(
            "  {name:<11} {:>7} {:>10} {failed:>7} {:>6.2} s {:>5.2} s {:>5.2} s  {} {:?}\n",
            reports.len(),
            histogram.times.len(),
            histogram.quantile(0.0),
            histogram.quantile(0.5),
            histogram.quantile(1.0),
            histogram.bars(),
            histogram.slices,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::{RESTARTS, good};
    use super::*;

    fn reports(times: impl Iterator<Item = u64>) -> Vec<Report> {
        let client = |time| Report {
            connected: vec![1, RESTARTS[0].began + time],
            ..good()
        };
        times.map(client).collect()
    }

    #[test]
    fn reconnects_that_are_spread_are_no_spike_however_long_they_take() {
        for factor in [1, 20] {
            let spread = of(&reports((0..40).map(|n| n * 100 * factor)), &RESTARTS[..1]);
            assert!(!spread.has_spike(), "{spread:?}");
            assert_eq!(spread.slices.iter().sum::<usize>(), 40);
        }
    }

    #[test]
    fn reconnects_at_the_same_time_are_a_spike() {
        let at_once = (0..30).map(|n| 100 + n).chain((0..10).map(|n| n * 400));
        let spike = of(&reports(at_once), &RESTARTS[..1]);
        assert!(spike.has_spike(), "{spike:?}");
    }

    #[test]
    fn the_table_has_a_line_for_each_sdk() {
        let reports = [("go", vec![good()]), ("rust", vec![good()])];
        let text = table(&reports, &RESTARTS);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("1.00 s") && lines[1].contains("3.00 s"),
            "{text}"
        );
    }
}
