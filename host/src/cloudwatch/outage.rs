//! Logs the state of pushing: once that it fails, with advice, and once that it works again.

use tracing::{info, warn};

use super::client::{PushError, PushErrorKind};
use crate::metrics::CloudWatchMetrics;

/// What was said since pushing went well.
#[derive(Debug, Default)]
pub(super) struct Outage {
    said: Vec<PushErrorKind>,
    dropping: bool,
    /// Not of one outage: what is wrong with values does not pass.
    refused: bool,
}

impl Outage {
    /// A request was taken.
    pub(super) fn taken(&mut self, metrics: &CloudWatchMetrics) {
        metrics.pushes_ok.increment();
    }

    /// Everything was taken.
    pub(super) fn over(&mut self) {
        if !self.said.is_empty() {
            info!("metrics reach CloudWatch again");
        }
        self.said.clear();
        self.dropping = false;
    }

    /// A request failed. Each kind of reason is said once: what to do differs.
    pub(super) fn failed(&mut self, metrics: &CloudWatchMetrics, error: &PushError) {
        metrics.pushes_failed.increment();
        if self.said.contains(&error.kind) {
            return;
        }
        self.said.push(error.kind);
        warn!(
            "metrics do not reach CloudWatch: {error}; they are kept for an hour, and this is said once"
        );
    }

    /// CloudWatch found a request wrong, which is thrown away.
    pub(super) fn refused(&mut self, metrics: &CloudWatchMetrics, error: &PushError) {
        metrics.pushes_refused.increment();
        if !std::mem::replace(&mut self.refused, true) {
            warn!("CloudWatch does not take some metrics: {error}; this is said once");
        }
    }

    /// So many intervals waited for too long.
    pub(super) fn dropped(&mut self, metrics: &CloudWatchMetrics, intervals: u32) {
        if intervals == 0 {
            return;
        }
        metrics.intervals_dropped.add(u64::from(intervals));
        if !std::mem::replace(&mut self.dropping, true) {
            warn!("metrics have not reached CloudWatch for an hour; the oldest are thrown away");
        }
    }
}
