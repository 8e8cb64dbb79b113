//! The cells that figures are kept in: sharded, relaxed, never locked.

use std::{
    array,
    sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Shards of a cell. More threads than that share them, which costs time and no correctness.
const SHARDS: usize = 8;

/// A cache line of its own for each shard, so that threads do not take turns.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % SHARDS);
    MINE.with(|mine| *mine)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Shard; SHARDS]);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.0[shard()].0.fetch_add(by, Relaxed);
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `by`, which may be negative.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets, in microseconds: powers of two from 1 µs to 67 s. Durations beyond count in one more.
pub const BUCKET_BOUNDS_US: [u64; 27] = {
    let mut bounds = [0; 27];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = 1 << index;
        index += 1;
    }
    bounds
};

const BUCKETS: usize = BUCKET_BOUNDS_US.len() + 1;

/// Durations, in buckets whose bounds double.
#[derive(Debug)]
pub struct Histogram([HistogramShard; SHARDS]);

#[derive(Debug)]
#[repr(align(64))]
struct HistogramShard {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// What a [`Histogram`] holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many fell into each bucket, not cumulated; the last is for those above every bound.
    pub buckets: [u64; BUCKETS],
    /// All durations together, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self(array::from_fn(|_| HistogramShard {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
        }))
    }
}

impl Histogram {
    /// Records `duration`.
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let us = ns.div_ceil(1000);
        // The smallest power of two that is not below `us`.
        let bucket = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        let shard = &self.0[shard()];
        shard.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        shard.sum_ns.fetch_add(ns, Relaxed);
    }

    /// All shards together.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets = array::from_fn(|bucket| {
            self.0
                .iter()
                .map(|shard| shard.buckets[bucket].load(Relaxed))
                .sum()
        });
        let sum_ns = self
            .0
            .iter()
            .map(|shard| shard.sum_ns.load(Relaxed))
            .fold(0, u64::wrapping_add);
        HistogramSnapshot { buckets, sum_ns }
    }
}

impl HistogramSnapshot {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their mean, in milliseconds; 0 where there were none.
    pub fn mean_ms(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum_ns as f64 / 1e6 / count as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_sums_what_all_threads_add() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.get(), 20_000);
    }

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_is_next() {
        let histogram = Histogram::default();
        let durations = [
            0,
            1,
            1_000,
            1_001,
            2_000,
            2_001,
            66_000_000_000,
            68_000_000_000,
            u64::MAX,
        ];
        durations
            .iter()
            .for_each(|ns| histogram.record(Duration::from_nanos(*ns)));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..3], [3, 2, 1]);
        assert_eq!(snapshot.buckets[26..], [1, 2]);
        assert_eq!(snapshot.count(), durations.len() as u64);
    }

    #[test]
    fn the_mean_of_nothing_is_zero() {
        assert_eq!(Histogram::default().snapshot().mean_ms(), 0.0);
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(10));
        histogram.record(Duration::from_millis(20));
        assert_eq!(histogram.snapshot().mean_ms(), 15.0);
    }
}
