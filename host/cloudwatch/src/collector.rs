//! Turns metrics that count from the start into intervals.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use signalbox_telemetry::metrics::{
    Bucket, HistogramSnapshot, bound_us,
    readings::{Family, MetricRow, Reading},
    table::{CloudWatch, Metric, MetricKind, SERVER_ID},
};

use super::interval::{Amount, Interval, Samples, Series, SeriesValue};

/// Remembers the last readings.
pub(super) struct Collector {
    server_id: String,
    read_at: SystemTime,
    counts: HashMap<Cell, u64>,
    distributions: HashMap<Cell, HistogramSnapshot>,
}

/// A metric, and the values of its labels.
type Cell = (&'static str, Vec<String>);

impl Collector {
    /// Counts from `now` on, when everything is 0.
    pub(super) fn new(server_id: &str, now: SystemTime) -> Self {
        Self {
            server_id: server_id.to_owned(),
            read_at: now,
            counts: HashMap::new(),
            distributions: HashMap::new(),
        }
    }

    /// Returns the amounts since the last call, for the metrics that CloudWatch gets.
    pub(super) fn collect(&mut self, families: Vec<Family>, now: SystemTime) -> Interval {
        let mut interval = Interval::new(self.read_at, now);
        self.read_at = now;
        for Family { metric, rows } in families {
            let Some(pushed) = metric.cloudwatch else {
                continue;
            };
            if metric.kind == MetricKind::Counter {
                self.start_at_zero(metric, pushed, &mut interval);
            }
            for MetricRow { labels, reading } in rows {
                if let Some(amount) = self.amount(metric, &labels, reading) {
                    self.spread(metric, pushed, &labels, &amount, &mut interval);
                }
            }
        }
        interval
    }

    /// Adds zeros for the counts of this server and of all servers: they are pushed even if nothing happened, so that
    /// alarms can tell silence from zero.
    fn start_at_zero(&self, metric: &Metric, pushed: CloudWatch, interval: &mut Interval) {
        for set in pushed.dimensions.iter().filter(|set| is_of_servers(set)) {
            let series = self.series(metric, pushed, set, &[]);
            let amount = Amount::Count(0);
            let unit = metric.unit;
            interval.add(series, SeriesValue { unit, amount });
        }
    }

    /// The amount that came to a cell since the last call, or the value of a gauge; `None` if nothing came.
    fn amount(
        &mut self,
        metric: &'static Metric,
        labels: &[String],
        reading: Reading,
    ) -> Option<Amount> {
        let cell = || (metric.name(), labels.to_vec());
        match reading {
            Reading::Gauge(value) => Some(Amount::Samples(Samples::one(value))),
            Reading::Count(count) => {
                let before = self.counts.insert(cell(), count).unwrap_or_default();
                let more = count.saturating_sub(before);
                (more > 0).then_some(Amount::Count(more))
            }
            Reading::Distribution(snapshot) => {
                let before = self.distributions.entry(cell()).or_default();
                let buckets = advance(before, &snapshot);
                (!buckets.is_empty()).then_some(Amount::Distribution(buckets))
            }
            Reading::Info => None,
        }
    }

    /// Adds a cell's amount to every series that it belongs to.
    fn spread(
        &self,
        metric: &Metric,
        pushed: CloudWatch,
        labels: &[String],
        amount: &Amount,
        interval: &mut Interval,
    ) {
        for set in pushed.dimensions {
            let value = SeriesValue {
                unit: metric.unit,
                amount: amount.clone(),
            };
            interval.add(self.series(metric, pushed, set, labels), value);
        }
    }

    fn series(
        &self,
        metric: &Metric,
        pushed: CloudWatch,
        set: &[&'static str],
        labels: &[String],
    ) -> Series {
        let value = |name: &str| match name {
            SERVER_ID => self.server_id.clone(),
            name => {
                let is_it = |label: &&str| label.eq_ignore_ascii_case(name);
                let place = metric.labels.iter().position(is_it);
                let label = place.and_then(|place| labels.get(place));
                label.cloned().unwrap_or_default()
            }
        };
        Series {
            metric: pushed.name,
            dimensions: set.iter().map(|name| (*name, value(name))).collect(),
        }
    }
}

fn is_of_servers(set: &[&str]) -> bool {
    set.iter().all(|name| *name == SERVER_ID)
}

/// Returns the amounts in `now` that are not in `before`, and adds them to `before`: the amounts pushed so far.
///
/// A recording in progress may be in a bucket's count but not yet in its sum. So that the mean of a bucket always lies
/// in the bucket, its sum is clamped to the bounds, and the next call settles the difference.
fn advance(before: &mut HistogramSnapshot, now: &HistogramSnapshot) -> BTreeMap<usize, Bucket> {
    let mut more = BTreeMap::new();
    let buckets = before.buckets.iter_mut().zip(&now.buckets);
    for (number, (before, now)) in buckets.enumerate() {
        let count = now.count.saturating_sub(before.count);
        if count == 0 {
            continue;
        }
        let (low, high) = bounds_ns(number);
        // The difference is negative if a sum was rounded up before.
        let came = now.sum_ns.wrapping_sub(before.sum_ns).cast_signed().max(0);
        let (least, most) = (low.saturating_mul(count), high.saturating_mul(count));
        let sum_ns = came.cast_unsigned().clamp(least, most);
        before.count = now.count;
        before.sum_ns = before.sum_ns.wrapping_add(sum_ns);
        more.insert(number, Bucket { count, sum_ns });
    }
    more
}

/// The least and the largest duration of a bucket, in nanoseconds.
fn bounds_ns(bucket: usize) -> (u64, u64) {
    let below = bucket.checked_sub(1).and_then(bound_us);
    let low = below.map_or(0, |us| us * 1000 + 1);
    let high = bound_us(bucket).map_or(u64::MAX, |us| us * 1000);
    (low, high)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signalbox_telemetry::metrics::{
        DropReason, FailureKind, Metrics, NodeStatus, readings::read,
    };

    use super::*;

    fn dimensions(of: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        of.iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    }

    fn amount<'i>(
        interval: &'i Interval,
        metric: &'static str,
        of: &[(&'static str, &str)],
    ) -> Option<&'i Amount> {
        let dimensions = dimensions(of);
        let value = interval.values.get(&Series { metric, dimensions });
        value.map(|value| &value.amount)
    }

    fn collect(collector: &mut Collector, metrics: &Metrics) -> Interval {
        let status = NodeStatus {
            broker_up: true,
            ..NodeStatus::default()
        };
        collector.collect(read(metrics, &status), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn counts_are_per_interval_and_zeros_are_sent_for_servers_only() {
        let metrics = Metrics::default();
        let mut collector = Collector::new("n1", SystemTime::UNIX_EPOCH);
        metrics.messages.add(5);
        metrics.messages_dropped.of(DropReason::Offline).add(2);
        metrics.messages_dropped.of(DropReason::Plugin).add(1);
        let first = collect(&mut collector, &metrics);
        for set in [&[("ServerID", "n1")][..], &[]] {
            let of = |metric| amount(&first, metric, set);
            assert_eq!(of("MessagesTotal"), Some(&Amount::Count(5)));
            assert_eq!(of("MessagesDropped"), Some(&Amount::Count(3)));
            assert_eq!(of("MessagesDelivered"), Some(&Amount::Count(0)));
            assert_eq!(of("PluginFailures"), Some(&Amount::Count(0)));
            assert_eq!(of("AverageLatencyMs"), None);
        }
        let offline = amount(&first, "MessagesDropped", &[("Reason", "offline")]);
        assert_eq!(offline, Some(&Amount::Count(2)));
        let closing = amount(&first, "MessagesDropped", &[("Reason", "closing")]);
        assert_eq!(closing, None);

        metrics.messages.add(1);
        let second = collect(&mut collector, &metrics);
        let of = |metric| amount(&second, metric, &[]);
        assert_eq!(of("MessagesTotal"), Some(&Amount::Count(1)));
        assert_eq!(of("MessagesDropped"), Some(&Amount::Count(0)));
        assert_eq!(
            of("ActiveConnections"),
            Some(&Amount::Samples(Samples::one(0.0)))
        );
    }

    #[test]
    fn values_with_the_same_dimensions_are_added_up() {
        let metrics = Metrics::default();
        let mut collector = Collector::new("n1", SystemTime::UNIX_EPOCH);
        for plugin in ["a", "b"] {
            let plugin = metrics.plugins.of(plugin);
            plugin.failures(FailureKind::Trap).add(1);
            plugin.failures(FailureKind::Deadline).add(2);
            plugin.call_time.record(Duration::from_millis(3));
        }
        let interval = collect(&mut collector, &metrics);
        let failures = |of: &[_]| amount(&interval, "PluginFailures", of).cloned();
        assert_eq!(failures(&[]), Some(Amount::Count(6)));
        assert_eq!(failures(&[("Plugin", "a")]), Some(Amount::Count(3)));
        assert_eq!(
            failures(&[("Plugin", "b"), ("Kind", "trap")]),
            Some(Amount::Count(1))
        );
        let server = [("ServerID", "n1"), ("Plugin", "a")];
        let Some(Amount::Distribution(buckets)) = amount(&interval, "PluginCallMs", &server) else {
            panic!("{interval:?}");
        };
        let bucket = Bucket {
            count: 1,
            sum_ns: 3_000_000,
        };
        assert_eq!(buckets.values().collect::<Vec<_>>(), [&bucket]);
    }

    #[test]
    fn a_sum_that_lags_behind_its_count_is_settled_later_and_nothing_is_lost() {
        let mut now = HistogramSnapshot::default();
        let mut previous = HistogramSnapshot::default();
        // Three recordings of 1.1 µs, of which one has not reached the sum yet.
        now.buckets[1] = Bucket {
            count: 3,
            sum_ns: 2_200,
        };
        let first = advance(&mut previous, &now)[&1];
        assert_eq!(
            (first.count, first.sum_ns),
            (3, 3_003),
            "at the lower bound"
        );
        // The sum is complete, and ahead of its next count.
        now.buckets[1].sum_ns = 3_300 + 1_500;
        assert_eq!(advance(&mut previous, &now), BTreeMap::new());
        now.buckets[1].count = 4;
        let second = advance(&mut previous, &now)[&1];
        assert_eq!(first.sum_ns + second.sum_ns, 3_300 + 1_500);
    }

    #[test]
    fn the_bounds_of_buckets_leave_no_gap() {
        for bucket in 1..signalbox_telemetry::metrics::BUCKETS {
            assert_eq!(bounds_ns(bucket).0, bounds_ns(bucket - 1).1 + 1);
        }
    }
}
