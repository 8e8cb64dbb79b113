//! The cells that hold metrics: sharded, with relaxed atomics, never locked.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::thread_number;

/// Shards of a cell. If there are more threads than shards, they share them, which costs time but not correctness.
pub(super) const SHARDS: usize = 8;

/// Each shard has its own cache line, to avoid false sharing.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(AtomicU64);

/// The shard of this thread.
pub(super) fn shard() -> usize {
    thread_number() % SHARDS
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

    /// The sum over all shards.
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

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_sums_over_all_threads() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|_| counter.increment()));
            }
        });
        assert_eq!(counter.get(), 20_000);
    }
}
