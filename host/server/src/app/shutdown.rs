//! Shuts the server down within `server.drain_timeout`, even if something hangs.
//!
//! Each stage has a share of the time, so that a stage that hangs leaves enough for the later ones. Time that a stage
//! does not need is left for the next one, up to its own bound.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use signalbox_protocol::CloseCode;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics_push::Pusher;
use crate::session::Services;

/// The part of the connections' time over which the close requests are spread; the rest is for the clients' answers.
const DRAIN_SPREAD: f64 = 0.7;

/// How often a drain checks the remaining connections, and closes the next ones.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// For the last push to CloudWatch, requests in progress, the last events of webhooks, and pending writes of plugin versions.
const REPORT: Share = Share {
    part: 0.2,
    max: Duration::from_secs(2),
};

/// For leaving the cluster, and the last spans.
const LEAVE: Share = Share {
    part: 0.2,
    max: Duration::from_secs(3),
};

/// For the rest of the process: its log, and its threads.
const EXIT: Share = Share {
    part: 0.05,
    max: Duration::from_millis(500),
};

/// A part of the time, with its bound.
struct Share {
    part: f64,
    max: Duration,
}

impl Share {
    fn of(&self, time: Duration) -> Duration {
        time.mul_f64(self.part).min(self.max)
    }
}

/// The tasks that are stopped after the connections.
pub(super) struct Running {
    pub(super) pusher: Option<Pusher>,
    /// Accepts and answers requests until `stop`.
    pub(super) serving: JoinHandle<()>,
    pub(super) stop: CancellationToken,
    /// Tasks that change plugins or configuration.
    pub(super) changes: Vec<JoinHandle<()>>,
}

/// Ends everything, in order, and returns within `server.drain_timeout`.
pub(super) async fn shut_down(services: &Services, running: Running) {
    let began = Instant::now();
    let time = services.live.load().server.drain_timeout;
    let leave = LEAVE.of(time);
    let left = began + time - EXIT.of(time);
    let reported = left - leave;
    drain(services, reported - REPORT.of(time)).await;
    for task in &running.changes {
        task.abort();
    }
    let report_by = reported.min(Instant::now() + REPORT.max);
    // Before this node leaves the cluster, which would look like an outage.
    let report = report(services, running, report_by);
    if timeout_at(report_by + EXIT.of(time) / 2, report)
        .await
        .is_err()
    {
        warn!("not everything could be handed over");
    }
    let leave_by = left.min(Instant::now() + LEAVE.max);
    tokio::join!(
        services
            .router
            .broker()
            .leave(leave_by.saturating_duration_since(Instant::now())),
        async {
            let _ = timeout_at(leave_by, services.tracer.stop()).await;
        },
    );
    info!(after = ?began.elapsed(), "stopped");
}

/// Ends requests, pushes the last metrics, sends or queues the last events of webhooks, and waits for pending writes of plugin versions, until `by` at the latest.
async fn report(services: &Services, running: Running, by: Instant) {
    let push = async {
        if let Some(pusher) = running.pusher {
            pusher.finish(by).await;
        }
    };
    let serve = async {
        running.stop.cancel();
        // A request that does not end must not keep the process alive.
        let _ = timeout_at(by, running.serving).await;
    };
    let keep = async {
        let _ = timeout_at(by, services.manager.kept()).await;
    };
    tokio::join!(push, serve, keep, services.webhooks.finish(by));
}

/// Marks the node as not ready, closes its connections one after another, and waits until they are gone or `deadline`
/// has passed.
async fn drain(services: &Services, deadline: Instant) {
    services.draining.store(true, Ordering::Release);
    let table = services.router.table();
    let timeout = deadline.saturating_duration_since(Instant::now());
    info!(connections = table.len(), ?timeout, "draining");
    let connections = table.connections();
    let count = connections.len();
    let mut waiting = connections.into_iter();
    let spread = timeout.mul_f64(DRAIN_SPREAD);
    let began = Instant::now();
    let tell = |connection: Arc<_>| {
        let reason = "this node is shutting down";
        services.router.close(&connection, CloseCode::DRAIN, reason);
    };
    while !table.is_empty() && Instant::now() < deadline {
        // The first connection at once, each of the others in its turn.
        let share = began.elapsed().as_secs_f64() / spread.as_secs_f64();
        let due = ((share * count as f64) as usize).saturating_add(1);
        let closed = count - waiting.len();
        waiting
            .by_ref()
            .take(due.saturating_sub(closed))
            .for_each(tell);
        if waiting.len() == 0 {
            // Connections whose upgrade was in progress.
            table.connections().into_iter().for_each(tell);
        }
        tokio::time::sleep(DRAIN_TICK).await;
    }
    if !table.is_empty() {
        warn!(
            connections = table.len(),
            "the drain time is over; the remaining connections are cut off"
        );
        table.cut_off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_more_than_half_of_the_time_and_the_other_stages_stay_bounded() {
        let tail = |time| {
            [REPORT, LEAVE, EXIT]
                .map(|share| share.of(time))
                .iter()
                .sum()
        };
        let seconds = Duration::from_secs;
        let default: Duration = tail(seconds(8));
        assert!(default < seconds(4), "{default:?}");
        let long: Duration = tail(seconds(3600));
        assert!(long < seconds(6), "{long:?}");
        let none: Duration = tail(Duration::ZERO);
        assert_eq!(none, Duration::ZERO);
    }
}
