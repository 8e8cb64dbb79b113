//! Distributions of durations, in buckets that are fine enough for percentiles.
//!
//! Bounds double in four steps, so no bucket is wider than a quarter of its lower bound. Each bucket has its own sum,
//! so its mean is known, and sums and averages are exact however wide the bucket is.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::cells::{SHARDS, shard};

/// Number of steps in which a bound doubles, as a power of two.
const STEPS_LOG2: u32 = 2;
const STEPS: usize = 1 << STEPS_LOG2;

/// The largest bound is this many powers of two above 1 µs: 67 s.
const OCTAVES: u32 = 26;

/// Number of buckets of a histogram; the last one is for values above every bound.
pub const BUCKETS: usize = (OCTAVES as usize - STEPS_LOG2 as usize + 1) * STEPS + 1;

/// The largest duration of a bucket, in microseconds; `None` for the last.
pub const fn bound_us(bucket: usize) -> Option<u64> {
    if bucket >= BUCKETS - 1 {
        return None;
    }
    // The inverse of `bucket_of`.
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    let (first, width) = match octave {
        0 => (0, 1),
        octave => (1 << (octave as u32 + STEPS_LOG2 - 1), 1 << (octave - 1)),
    };
    Some(first + width * (step as u64 + 1))
}

/// The bucket of a duration of `us` microseconds, rounded up.
fn bucket_of(us: u64) -> usize {
    // A bound belongs to the bucket below it.
    let x = us.saturating_sub(1);
    if x < STEPS as u64 {
        return x as usize;
    }
    let octave = x.ilog2();
    let step = (x >> (octave - STEPS_LOG2)) as usize % STEPS;
    ((octave - STEPS_LOG2 + 1) as usize * STEPS + step).min(BUCKETS - 1)
}

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram([Shard; SHARDS]);

/// The buckets of one thread, as far as there are enough shards.
#[derive(Debug)]
#[repr(align(64))]
struct Shard([BucketCell; BUCKETS]);

/// Count and sum together, so that recording touches one cache line.
#[derive(Debug, Default)]
#[repr(align(16))]
struct BucketCell {
    count: AtomicU64,
    sum_ns: AtomicU64,
}

/// The contents of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Number of durations.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum_ns: u64,
}

/// The contents of a [`Histogram`] at one moment. A recording in progress may already be in the count of a bucket and
/// not yet in its sum, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Each bucket on its own, not cumulative.
    pub buckets: [Bucket; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self(array::from_fn(|_| {
            Shard(array::from_fn(|_| BucketCell::default()))
        }))
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        let buckets = [Bucket::default(); BUCKETS];
        Self { buckets }
    }
}

impl Histogram {
    /// Records `duration`.
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.0[shard()].0[bucket_of(ns.div_ceil(1000))];
        bucket.count.fetch_add(1, Relaxed);
        bucket.sum_ns.fetch_add(ns, Relaxed);
    }

    /// Adds up all shards.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        for shard in &self.0 {
            for (bucket, cell) in snapshot.buckets.iter_mut().zip(&shard.0) {
                bucket.count += cell.count.load(Relaxed);
                bucket.sum_ns = bucket.sum_ns.wrapping_add(cell.sum_ns.load(Relaxed));
            }
        }
        snapshot
    }
}

impl HistogramSnapshot {
    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// The sum of the durations, in milliseconds.
    pub fn sum_ms(&self) -> f64 {
        let sums = self.buckets.iter().map(|bucket| bucket.sum_ns);
        sums.fold(0, u64::wrapping_add) as f64 / 1e6
    }

    /// The mean of the durations, in milliseconds; 0 if there are none.
    pub fn mean_ms(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum_ms() / count as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_includes_its_upper_bound() {
        for bucket in 0..BUCKETS - 1 {
            let bound = bound_us(bucket).unwrap();
            assert_eq!(bucket_of(bound), bucket, "{bound}");
            assert_eq!(bucket_of(bound + 1), bucket + 1, "{bound}");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bound_us(BUCKETS - 2), Some(1 << OCTAVES));
        assert_eq!(bound_us(BUCKETS - 1), None);
    }

    #[test]
    fn buckets_are_at_most_a_quarter_wide_and_every_power_of_two_is_a_bound() {
        let bounds: Vec<u64> = (0..BUCKETS).filter_map(bound_us).collect();
        for pair in bounds.windows(2).filter(|pair| pair[0] >= STEPS as u64) {
            assert!((pair[1] - pair[0]) * 4 <= pair[0], "{pair:?}");
        }
        assert!((0..=OCTAVES).all(|power| bounds.contains(&(1 << power))));
    }

    #[test]
    fn sums_and_the_mean_are_exact() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().mean_ms(), 0.0);
        histogram.record(Duration::from_millis(10));
        histogram.record(Duration::from_millis(20));
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.mean_ms()), (2, 15.0));
        let filled = snapshot.buckets.iter().filter(|bucket| bucket.count > 0);
        assert_eq!(
            filled.map(|bucket| bucket.sum_ns).collect::<Vec<_>>(),
            [10_000_000, 20_000_000]
        );
    }
}
