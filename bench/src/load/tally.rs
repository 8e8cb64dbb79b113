//! Counters shared by all connections of a run, and the phases of the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use hdrhistogram::Histogram;

use crate::lock;

/// Number of error texts kept for the report.
const ERROR_TEXTS_MAX: usize = 5;

/// Latencies from 1 µs to 100 s are recorded with three significant digits; those beyond count as the bound.
const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 100_000_000_000;
const LATENCY_DIGITS: u8 = 3;

/// Counters and phases, shared by the connections, the pacing thread and the run.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
    sent: AtomicU64,
    /// Whether new messages may be sent.
    pub(super) sending: AtomicBool,
    /// Whether the run is over, so that a closing connection is expected.
    pub(super) finished: AtomicBool,
    /// The latency of messages sent from the first time on and before the second one counts, even if they arrive later.
    measured_ns: (AtomicU64, AtomicU64),
}

/// Counters that change with each arrival.
#[derive(Debug)]
pub(super) struct Counts {
    /// Messages that arrived; every copy counts.
    pub(super) delivered: u64,
    /// Latency, in nanoseconds, of the messages sent during the measured time.
    pub(super) latency: Histogram<u64>,
    /// Connections that the server has answered since the last frame that it must answer: a greeting, a join.
    pub(super) ready: usize,
    /// Confirmations of messages.
    pub(super) acked: u64,
    /// Error frames and failed sends.
    pub(super) errors: u64,
    /// Connections that closed before the end of the run.
    pub(super) closed: u64,
    /// The first few errors and close reasons.
    pub(super) first_errors: Vec<String>,
}

impl Counts {
    /// Counts an error and keeps its text if it is among the first.
    pub(super) fn error(&mut self, text: impl FnOnce() -> String) {
        self.errors += 1;
        self.keep_text(text);
    }

    /// Counts a connection that closed too early.
    pub(super) fn closed(&mut self, text: impl FnOnce() -> String) {
        self.closed += 1;
        self.keep_text(text);
    }

    fn keep_text(&mut self, text: impl FnOnce() -> String) {
        if self.first_errors.len() < ERROR_TEXTS_MAX {
            self.first_errors.push(text());
        }
    }
}

impl Tally {
    /// Creates an empty tally: nothing is measured yet, and sending is allowed.
    ///
    /// # Errors
    /// Never fails with the bounds above; the histogram checks them at run time.
    pub(super) fn new() -> anyhow::Result<Self> {
        let counts = Counts {
            delivered: 0,
            latency: Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS)?,
            ready: 0,
            acked: 0,
            errors: 0,
            closed: 0,
            first_errors: Vec::new(),
        };
        Ok(Self {
            counts: Mutex::new(counts),
            sent: 0.into(),
            sending: true.into(),
            finished: false.into(),
            measured_ns: (u64::MAX.into(), u64::MAX.into()),
        })
    }

    /// Locks the counters.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Messages handed to the kernel or queued for it.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Adds `count` to the number of messages sent.
    pub(super) fn add_sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Whether new messages may be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }

    /// Starts to count the latency of messages sent at or after this time.
    pub(super) fn measure_from(&self, time_ns: u64) {
        self.measured_ns.0.store(time_ns, Ordering::Relaxed);
    }

    /// Stops counting the latency of messages sent at or after this time.
    pub(super) fn measure_until(&self, time_ns: u64) {
        self.measured_ns.1.store(time_ns, Ordering::Relaxed);
    }

    /// Whether the latency of a message sent at this time counts.
    pub(super) fn measures(&self, time_ns: u64) -> bool {
        let (from, until) = &self.measured_ns;
        (from.load(Ordering::Relaxed)..until.load(Ordering::Relaxed)).contains(&time_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_sent_while_measuring_count() {
        let tally = Tally::new().expect("the bounds are valid");
        assert!(!tally.measures(5));
        tally.measure_from(10);
        assert!(!tally.measures(9) && tally.measures(10) && tally.measures(99));
        tally.measure_until(50);
        assert!(tally.measures(49) && !tally.measures(50));
    }

    #[test]
    fn all_errors_are_counted_and_the_first_are_kept() {
        let tally = Tally::new().expect("the bounds are valid");
        (0..20).for_each(|number| tally.counts().error(|| number.to_string()));
        let counts = tally.counts();
        let kept = counts.first_errors.len();
        assert_eq!((counts.errors, kept), (20, ERROR_TEXTS_MAX));
        assert_eq!(counts.first_errors[0], "0");
    }
}
