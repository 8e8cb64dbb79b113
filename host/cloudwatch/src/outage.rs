//! Logs the state of pushing: once when it fails, with advice, and once when it works again.

use signalbox_telemetry::metrics::CloudWatchMetrics;
use tracing::{info, warn};

use super::client::{PutError, PutErrorKind};

/// The failures logged since pushing last went well.
#[derive(Debug, Default)]
pub(super) struct Outage {
    reported: Vec<PutErrorKind>,
    dropping: bool,
    /// Not reset after an outage: invalid values stay invalid.
    refused: bool,
}

impl Outage {
    /// A request was taken.
    pub(super) fn taken(&mut self, metrics: &CloudWatchMetrics) {
        metrics.pushes_ok.increment();
    }

    /// Everything was taken.
    pub(super) fn over(&mut self) {
        if !self.reported.is_empty() {
            info!("metrics reach CloudWatch again");
        }
        self.reported.clear();
        self.dropping = false;
    }

    /// A request failed. Each kind of reason is logged once, because the remedy differs.
    pub(super) fn failed(&mut self, metrics: &CloudWatchMetrics, error: &PutError) {
        metrics.pushes_failed.increment();
        if self.reported.contains(&error.kind) {
            return;
        }
        self.reported.push(error.kind);
        warn!(
            "metrics do not reach CloudWatch: {error}; they are kept for an hour; this is logged once"
        );
    }

    /// CloudWatch found a request invalid, and the request is dropped.
    pub(super) fn refused(&mut self, metrics: &CloudWatchMetrics, error: &PutError) {
        metrics.pushes_refused.increment();
        if !std::mem::replace(&mut self.refused, true) {
            warn!("CloudWatch does not accept some metrics: {error}; this is logged once");
        }
    }

    /// This many intervals waited for too long and were dropped.
    pub(super) fn dropped(&mut self, metrics: &CloudWatchMetrics, intervals: u32) {
        if intervals == 0 {
            return;
        }
        metrics.intervals_dropped.add(u64::from(intervals));
        if !std::mem::replace(&mut self.dropping, true) {
            warn!("metrics have not reached CloudWatch for an hour; the oldest are discarded");
        }
    }
}
