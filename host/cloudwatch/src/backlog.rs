//! Intervals that CloudWatch has not taken yet, an hour at most.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use aws_sdk_cloudwatch::types::MetricDatum;
use signalbox_config::StorageResolution;

use super::{
    encoder::{self, REQUEST_BYTES_MAX, REQUEST_DATUMS_MAX},
    interval::Interval,
};

/// How long an interval is kept. Older ones are of little use, and memory is bounded.
const KEPT_FOR: Duration = Duration::from_secs(3_600);

/// The time span up to which waiting intervals are merged: CloudWatch keeps no finer detail for long.
const MERGED_TO: Duration = Duration::from_secs(60);

/// Waiting intervals, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    intervals: VecDeque<Interval>,
}

/// The values that fit into one request.
pub(super) struct Batch {
    pub(super) datums: Vec<MetricDatum>,
    /// How many values of the backlog these are.
    values: usize,
}

impl Backlog {
    /// Adds the interval that has just ended. Drops intervals that are too old by now, and returns how many.
    pub(super) fn add(&mut self, interval: Interval) -> u32 {
        let oldest = interval.to.checked_sub(KEPT_FOR);
        match self.intervals.back_mut() {
            Some(last) if spans(last.from, interval.to) <= MERGED_TO => last.merge(interval),
            _ => self.intervals.push_back(interval),
        }
        let mut dropped = 0;
        while let Some(first) = self.intervals.front()
            && oldest.is_some_and(|oldest| first.to < oldest)
        {
            dropped += first.merged;
            self.intervals.pop_front();
        }
        dropped
    }

    /// How many intervals wait.
    pub(super) fn len(&self) -> u32 {
        self.intervals.iter().map(|interval| interval.merged).sum()
    }

    /// The oldest values, as many as fit into one request; `None` if nothing waits.
    pub(super) fn next_batch(&self, resolution: StorageResolution) -> Option<Batch> {
        let values = self.intervals.iter().flat_map(|interval| {
            let values = interval.values.iter();
            values.map(|(series, value)| encoder::datum(series, value, interval.to, resolution))
        });
        let mut bytes = encoder::REQUEST_BASE_BYTES;
        let mut datums = Vec::new();
        for datum in values.take(REQUEST_DATUMS_MAX) {
            bytes += encoder::bytes_max(&datum);
            if bytes > REQUEST_BYTES_MAX {
                break;
            }
            datums.push(datum);
        }
        let values = datums.len();
        (values > 0).then_some(Batch { datums, values })
    }

    /// Removes the values of `batch`, which must be the first one.
    pub(super) fn taken(&mut self, batch: &Batch) {
        let mut left = batch.values;
        while left > 0
            && let Some(first) = self.intervals.front_mut()
        {
            while left > 0 && first.values.pop_first().is_some() {
                left -= 1;
            }
            if first.values.is_empty() {
                self.intervals.pop_front();
            }
        }
    }
}

fn spans(from: SystemTime, to: SystemTime) -> Duration {
    // A clock that was set back makes no interval longer.
    to.duration_since(from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use signalbox_telemetry::metrics::table::Unit;

    use super::{
        super::interval::{Amount, Series, SeriesValue},
        *,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    /// An interval in which `series` series each counted `count`.
    fn interval(from: u64, to: u64, series: usize, count: u64) -> Interval {
        let mut interval = Interval::new(at(from), at(to));
        for number in 0..series {
            let series = Series {
                metric: "M",
                dimensions: vec![("N", format!("{number:05}"))],
            };
            let (unit, amount) = (Unit::Count, Amount::Count(count));
            interval.add(series, SeriesValue { unit, amount });
        }
        interval
    }

    fn drain(backlog: &mut Backlog) -> Vec<Vec<MetricDatum>> {
        let mut requests = Vec::new();
        while let Some(batch) = backlog.next_batch(StorageResolution::Minute) {
            backlog.taken(&batch);
            requests.push(batch.datums);
        }
        requests
    }

    fn sum(requests: &[Vec<MetricDatum>]) -> f64 {
        requests
            .iter()
            .flatten()
            .filter_map(MetricDatum::value)
            .sum()
    }

    #[test]
    fn intervals_of_a_minute_keep_their_times_and_shorter_ones_are_put_together() {
        let mut backlog = Backlog::default();
        for minute in 0..3 {
            backlog.add(interval(minute * 60, (minute + 1) * 60, 1, 5));
        }
        assert_eq!((backlog.intervals.len(), backlog.len()), (3, 3));
        for second in 0..90 {
            backlog.add(interval(180 + second, 181 + second, 1, 1));
        }
        assert_eq!((backlog.intervals.len(), backlog.len()), (5, 93));
        let requests = drain(&mut backlog);
        let sent: Vec<_> = requests[0]
            .iter()
            .map(|datum| (datum.timestamp().unwrap().secs() - 1_000_000, datum.value()))
            .collect();
        let expected = [(60, 5), (120, 5), (180, 5), (240, 60), (270, 30)];
        assert_eq!(
            sent,
            expected.map(|(at, count)| (at, Some(f64::from(count))))
        );
    }

    #[test]
    fn events_older_than_an_hour_are_discarded_and_reported() {
        let mut backlog = Backlog::default();
        let dropped: u32 = (0..70)
            .map(|minute| backlog.add(interval(minute * 60, (minute + 1) * 60, 1, 1)))
            .sum();
        assert_eq!((dropped, backlog.len()), (9, 61));
        let requests = drain(&mut backlog);
        assert_eq!(sum(&requests), 61.0);
    }

    #[test]
    fn requests_hold_at_most_a_thousand_metrics_and_nothing_is_lost_between_them() {
        let mut backlog = Backlog::default();
        backlog.add(interval(0, 60, 1500, 1));
        backlog.add(interval(60, 120, 1500, 1));
        let requests = drain(&mut backlog);
        let sizes: Vec<_> = requests.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1000, 1000, 1000]);
        assert_eq!(sum(&requests), 3000.0);
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn unsent_data_stays_for_the_next_request() {
        let mut backlog = Backlog::default();
        backlog.add(interval(0, 60, 1500, 1));
        let first = backlog.next_batch(StorageResolution::Minute).unwrap();
        backlog.taken(&first);
        // The next request fails, and later counts are added.
        backlog.next_batch(StorageResolution::Minute).unwrap();
        backlog.add(interval(60, 120, 1500, 2));
        assert_eq!(sum(&drain(&mut backlog)), 500.0 + 3000.0);
    }
}
