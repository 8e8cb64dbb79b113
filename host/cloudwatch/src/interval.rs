//! The metrics between two moments.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::SystemTime,
};

use signalbox_telemetry::metrics::{Bucket, table::Unit};

/// A series of values in CloudWatch: a metric under one set of dimensions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    /// The metric's name in CloudWatch.
    pub(super) metric: &'static str,
    /// The names and values of the dimensions.
    pub(super) dimensions: Vec<(&'static str, String)>,
}

/// The values of one series in an interval.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeriesValue {
    pub(super) unit: Unit,
    pub(super) amount: Amount,
}

/// The kinds of values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Amount {
    /// How often something happened.
    Count(u64),
    /// The value of a gauge at the end of each interval.
    Samples(Samples),
    /// Durations by the number of their bucket; empty buckets are left out.
    Distribution(BTreeMap<usize, Bucket>),
}

/// Statistics of a gauge's values, as CloudWatch needs them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Samples {
    pub(super) count: u32,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Samples {
    pub(super) fn one(value: f64) -> Self {
        Self {
            count: 1,
            sum: value,
            min: value,
            max: value,
        }
    }
}

impl Amount {
    /// Adds an amount of the same interval or of a later one.
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Samples(samples), Self::Samples(more)) => {
                samples.count += more.count;
                samples.sum += more.sum;
                samples.min = samples.min.min(more.min);
                samples.max = samples.max.max(more.max);
            }
            (Self::Distribution(buckets), Self::Distribution(more)) => {
                for (number, more) in more {
                    let bucket = buckets.entry(number).or_default();
                    bucket.count += more.count;
                    bucket.sum_ns += more.sum_ns;
                }
            }
            // A metric is of one kind, which the table fixes.
            (this, other) => *this = other,
        }
    }
}

/// The metrics between two moments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) from: SystemTime,
    /// When the values were read: their time in CloudWatch.
    pub(super) to: SystemTime,
    /// How many intervals of the configured length it stands for.
    pub(super) merged: u32,
    pub(super) values: BTreeMap<Series, SeriesValue>,
}

impl Interval {
    pub(super) fn new(from: SystemTime, to: SystemTime) -> Self {
        Self {
            from,
            to,
            merged: 1,
            values: BTreeMap::new(),
        }
    }

    /// Adds `value` to `series`.
    pub(super) fn add(&mut self, series: Series, value: SeriesValue) {
        match self.values.entry(series) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => entry.get_mut().amount.add(value.amount),
        }
    }

    /// Merges the following interval into this one.
    pub(super) fn merge(&mut self, later: Self) {
        self.to = later.to;
        self.merged += later.merged;
        for (series, value) in later.values {
            self.add(series, value);
        }
    }
}
