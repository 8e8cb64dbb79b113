//! Compares the rooms and users of this node with their histories, and delivers messages that were lost on the way here.
//!
//! A message may be lost between nodes: the subscription was renewed, or the publisher had an old route. The next message of
//! the history shows the gap; a regular comparison finds a loss that no message follows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use signalbox_broker::{
    Broker, BrokerError, HistoryName, HistoryPage, HistoryQuery, OwnedHistoryName,
};
use signalbox_protocol::Position;
use signalbox_telemetry::{
    metrics::Metrics,
    supervise::{self, OwnedTask},
};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, warn};

use super::{
    LocalTable,
    rooms::{Comparison, ComparisonStart},
};

/// How often all histories are compared.
const CHECK_INTERVAL: Duration = Duration::from_secs(25);

/// A history of which a message was delivered within this time is compared message by message after Redis was away, because it
/// may have lost the last ones and given their numbers to others.
const BUSY_TIME: Duration = Duration::from_secs(60);

/// How long a read that failed is delayed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The most missing messages of one history that are delivered late. If there are more, members reload their state.
const REPAIRED_MAX: usize = 1_000;

/// The number of histories that are read at a time.
const READS: usize = 4;

/// The histories that must be compared with the messages that were delivered, each with the time.
#[derive(Debug, Default)]
pub(super) struct RepairQueue {
    names: Mutex<HashMap<OwnedHistoryName, QueuedRepair>>,
    all: AtomicBool,
    wake: Notify,
}

#[derive(Clone, Copy, Debug)]
struct QueuedRepair {
    due: RepairTime,
    /// Whether it is unnecessary once no message waits for an earlier one.
    only_if_waiting: bool,
}

/// When a history is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RepairTime {
    Now,
    /// After the time that messages on their way may take, counted from the first time that the queue is read.
    Soon,
    At(Instant),
}

impl RepairQueue {
    /// Compares the history `name` as soon as possible.
    pub(super) fn add(&self, name: HistoryName<'_>) {
        self.insert(name, RepairTime::Now, false);
    }

    /// Compares the history `name` if a message still waits for an earlier one after the time that messages may take.
    pub(super) fn add_if_waiting(&self, name: HistoryName<'_>) {
        self.insert(name, RepairTime::Soon, true);
    }

    /// Compares the history `name` after the time that messages may take.
    fn add_soon(&self, name: HistoryName<'_>) {
        self.insert(name, RepairTime::Soon, false);
    }

    /// Compares all histories as soon as possible.
    pub(super) fn check_all(&self) {
        self.all.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn insert(&self, name: HistoryName<'_>, due: RepairTime, only_if_waiting: bool) {
        let name = OwnedHistoryName::from(name);
        let mut names = self.names();
        if let Some(queued) = names.get_mut(&name) {
            // The time of one that waits already is not put off.
            if due == RepairTime::Now {
                queued.due = due;
            }
            queued.only_if_waiting &= only_if_waiting;
            if due != RepairTime::Now {
                return;
            }
        } else {
            let queued = QueuedRepair {
                due,
                only_if_waiting,
            };
            names.insert(name, queued);
        }
        drop(names);
        self.wake.notify_one();
    }

    /// Removes the histories that are due, and returns them and the time of the next one. `grace` is the time that messages may
    /// take.
    fn take_due(&self, grace: Duration) -> (Vec<(OwnedHistoryName, bool)>, Option<Instant>) {
        let now = Instant::now();
        let mut names = self.names();
        let mut next: Option<Instant> = None;
        let mut due = Vec::new();
        names.retain(|name, queued| {
            let at = match queued.due {
                RepairTime::Now => now,
                RepairTime::Soon => now + grace,
                RepairTime::At(at) => at,
            };
            if at <= now {
                due.push((name.clone(), queued.only_if_waiting));
                return false;
            }
            queued.due = RepairTime::At(at);
            next = Some(next.map_or(at, |next| next.min(at)));
            true
        });
        (due, next)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<OwnedHistoryName, QueuedRepair>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task that compares histories. `grace` is the time that a message may take from its sender's node.
pub(super) fn start(
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    metrics: &Arc<Metrics>,
    grace: Duration,
) -> OwnedTask {
    let repairer = Repairer {
        table,
        broker,
        grace,
    };
    supervise::spawn("repair of histories", metrics, repairer, |repairer| {
        repairer.run().boxed()
    })
    .into()
}

struct Repairer {
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    grace: Duration,
}

impl Repairer {
    async fn run(&self) {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks.reset();
        loop {
            let queue = &self.table.repairs;
            if queue.all.swap(false, Ordering::AcqRel) {
                self.check_positions(true).await;
            }
            let (due, next) = queue.take_due(self.grace);
            stream::iter(due)
                .for_each_concurrent(READS, |(name, only_if_waiting)| async move {
                    self.repair(name.borrowed(), only_if_waiting).await;
                })
                .await;
            let next = next.unwrap_or_else(|| Instant::now() + CHECK_INTERVAL);
            tokio::select! {
                () = queue.wake.notified() => {}
                () = sleep_until(next) => {}
                _ = checks.tick() => self.check_positions(false).await,
            }
        }
    }

    /// Finds the rooms and users that are behind their histories. `after_outage`: histories may have lost messages.
    async fn check_positions(&self, after_outage: bool) {
        let known = self.table.history_positions(BUSY_TIME);
        let names: Vec<_> = known.iter().map(|(name, _)| name.clone()).collect();
        let positions = match self.broker.history_positions(&names).await {
            Ok(positions) => positions,
            Err(error) => {
                debug!(%error, "the positions of histories could not be read");
                if after_outage {
                    // Again with the next turn.
                    self.table.repairs.all.store(true, Ordering::Release);
                }
                return;
            }
        };
        for ((name, known), position) in known.iter().zip(positions) {
            if after_outage && known.is_busy {
                self.table.repairs.add(name.borrowed());
            } else if known.is_fading || position.as_ref() != Some(&known.delivered) {
                self.table.repairs.add_soon(name.borrowed());
            }
        }
    }

    async fn repair(&self, name: HistoryName<'_>, only_if_waiting: bool) {
        let Some(start) = self.table.begin_comparison(name) else {
            return;
        };
        if only_if_waiting && !start.is_waiting {
            return;
        }
        if let Err(error) = self.compare(name, &start).await {
            debug!(%error, %name, "a history could not be read; trying again");
            let retry = RepairTime::At(Instant::now() + RETRY_PAUSE);
            self.table.repairs.insert(name, retry, only_if_waiting);
        }
    }

    async fn compare(
        &self,
        name: HistoryName<'_>,
        start: &ComparisonStart,
    ) -> Result<(), BrokerError> {
        let page = self.read(name, start).await?;
        if self.table.compare(name, start, &page) == Comparison::RolledBack {
            warn!(
                %name,
                "a history lost messages that were delivered; it starts a new epoch, and its clients load their \
                 state again"
            );
            let Position { epoch, .. } = &page.position;
            self.broker
                .reset_history(name, epoch, start.retention)
                .await?;
            let page = self.read(name, start).await?;
            self.table.compare(name, start, &page);
        }
        Ok(())
    }

    async fn read(
        &self,
        name: HistoryName<'_>,
        start: &ComparisonStart,
    ) -> Result<HistoryPage, BrokerError> {
        let query = HistoryQuery {
            after: start.after,
            before: None,
            limit: REPAIRED_MAX,
        };
        self.broker.read_history(name, query, start.retention).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(500);

    fn due(queue: &RepairQueue) -> Vec<(String, bool)> {
        let (due, _) = queue.take_due(GRACE);
        let mut due: Vec<_> = due
            .into_iter()
            .map(|(name, only_if_waiting)| (name.borrowed().to_string(), only_if_waiting))
            .collect();
        due.sort();
        due
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_has_time_to_close_by_itself() {
        let queue = RepairQueue::default();
        queue.add_if_waiting(HistoryName::Room("a"));
        assert!(due(&queue).is_empty());
        tokio::time::advance(GRACE / 2).await;
        // More early messages do not put it off.
        queue.add_if_waiting(HistoryName::Room("a"));
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(due(&queue), [("room a".to_owned(), true)]);
        assert!(due(&queue).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_contradiction_is_looked_into_at_once() {
        let queue = RepairQueue::default();
        queue.add_if_waiting(HistoryName::Room("a"));
        queue.add(HistoryName::Room("a"));
        queue.add(HistoryName::Room("b"));
        assert_eq!(
            due(&queue),
            [("room a".to_owned(), false), ("room b".to_owned(), false)]
        );
    }
}
