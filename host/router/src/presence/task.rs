//! Informs the members of rooms about the users there.

use std::{future, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use signalbox_broker::Broker;
use signalbox_protocol::Frame;
use signalbox_telemetry::{
    metrics::{Counter, Metrics},
    supervise::{self, OwnedTask},
};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::roster::{Roster, RosterChange, RosterLimits, diff};
use crate::{Connection, LocalTable};

/// The number of rooms that are read at a time.
const READS: usize = 4;

/// How many times longer the pause between two reads is if the users of a room are only counted: the reads are larger, and the
/// number is less urgent.
const COUNTED_PAUSE: u32 = 10;

/// How long a read that failed is delayed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Starts the task that reads rooms and informs their members.
pub(crate) fn start(
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    metrics: &Arc<Metrics>,
) -> OwnedTask {
    let reporter = Reporter {
        table,
        broker,
        metrics: metrics.clone(),
    };
    supervise::spawn("presence", metrics, reporter, |reporter| {
        reporter.run().boxed()
    })
    .into()
}

struct Reporter {
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
}

impl Reporter {
    async fn run(&self) {
        let watches = &self.table.presence.watches;
        let mut node_lost = self.broker.member_node_lost();
        loop {
            let due = watches.take_due(Instant::now());
            stream::iter(due)
                .for_each_concurrent(READS, |room| async move { self.refresh(&room).await })
                .await;
            let is_watching = watches.is_watching();
            tokio::select! {
                () = watches.woken() => {}
                () = until(watches.next_due()) => {}
                () = &mut node_lost, if is_watching => {
                    node_lost = self.broker.member_node_lost();
                    watches.check_all();
                }
            }
        }
    }

    /// Reads the users of `room`, and informs its watchers.
    async fn refresh(&self, room: &str) {
        let presence = &self.table.presence;
        if !presence.has_presence(room) {
            return;
        }
        let Some(known) = presence.watches.begin(room) else {
            return;
        };
        let now = match self.broker.members(room).await {
            Ok(now) => now,
            Err(error) => {
                debug!(%error, room, "the users of a room could not be read; trying again");
                presence.watches.retry(room, Instant::now() + RETRY_PAUSE);
                return;
            }
        };
        let settings = presence.settings();
        let limits = RosterLimits {
            grace: settings.grace,
            users: settings.listed_max,
            bytes: self.table.list_bytes_max(),
        };
        let at = Instant::now();
        let (roster, change) = diff(&known, &now, at, limits);
        let report = roster.report(room, &change);
        let times = if roster.is_counted() {
            COUNTED_PAUSE
        } else {
            1
        };
        let not_before = at + settings.flush * times;
        let next = roster.grace_ends(settings.grace);
        let watchers = presence
            .watches
            .finish(room, roster.clone(), not_before, next);
        if !watchers.new.is_empty() {
            let counter = self.counter(&roster, &RosterChange::All);
            self.push(&watchers.new, &roster.snapshot(room), counter);
        }
        if let Some(report) = report {
            let counter = self.counter(&roster, &change);
            self.push(&watchers.informed, &report, counter);
        }
    }

    /// The counter of frames about `change`, which led to `roster`.
    fn counter(&self, roster: &Roster, change: &RosterChange) -> &Counter {
        let presence = &self.metrics.presence;
        match change {
            _ if roster.is_counted() => &presence.totals,
            RosterChange::All => &presence.lists,
            _ => &presence.changes,
        }
    }

    fn push(&self, connections: &[Arc<Connection>], frame: &Frame, counter: &Counter) {
        counter.add(connections.len() as u64);
        for connection in connections {
            self.table.push(connection, frame.clone());
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}
