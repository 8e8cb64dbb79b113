//! Counters shared by all connections of a run, and the phases of the run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::{CreationError, Histogram};

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
    sending: AtomicBool,
    finished: AtomicBool,
    measure_from_ns: AtomicU64,
    measure_until_ns: AtomicU64,
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
    pub(super) fn new() -> Result<Self, CreationError> {
        let latency = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS)?;
        let counts = Counts {
            delivered: 0,
            latency,
            ready: 0,
            acked: 0,
            errors: 0,
            closed: 0,
            first_errors: Vec::new(),
        };
        Ok(Self {
            counts: Mutex::new(counts),
            sent: AtomicU64::new(0),
            sending: AtomicBool::new(true),
            finished: AtomicBool::new(false),
            measure_from_ns: AtomicU64::new(u64::MAX),
            measure_until_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Locks the counters. They are plain numbers, valid even if a thread panicked while it held the lock.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn sending(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }

    /// Stops new messages from being sent.
    pub(super) fn stop_sending(&self) {
        self.sending.store(false, Ordering::Relaxed);
    }

    /// Whether the run is over, so that a closing connection is expected.
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Marks the run as over.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Starts to count the latency of messages sent at or after this time.
    pub(super) fn measure_from(&self, time_ns: u64) {
        self.measure_from_ns.store(time_ns, Ordering::Relaxed);
    }

    /// Stops counting the latency of messages sent at or after this time. Messages sent earlier count even if they
    /// arrive later.
    pub(super) fn measure_until(&self, time_ns: u64) {
        self.measure_until_ns.store(time_ns, Ordering::Relaxed);
    }

    /// Whether the latency of a message sent at this time counts.
    pub(super) fn measures(&self, time_ns: u64) -> bool {
        time_ns >= self.measure_from_ns.load(Ordering::Relaxed)
            && time_ns < self.measure_until_ns.load(Ordering::Relaxed)
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
        for number in 0..20 {
            tally.counts().error(|| number.to_string());
        }
        let counts = tally.counts();
        assert_eq!(
            (counts.errors, counts.first_errors.len()),
            (20, ERROR_TEXTS_MAX)
        );
        assert_eq!(counts.first_errors[0], "0");
    }
}
