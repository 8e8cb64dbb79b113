//! Compares the rooms of this node with their histories, and delivers messages that were lost on the way here.
//!
//! A message may be lost between nodes: the subscription was made anew, or the publisher had an old route. The next message of
//! the room shows the gap; a regular comparison finds a loss that no message follows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use signalbox_broker::{Broker, BrokerError, HistoryPage, HistoryQuery};
use signalbox_protocol::Position;
use signalbox_telemetry::{metrics::Metrics, supervise};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, warn};

use super::{
    LocalTable,
    rooms::{Comparison, ComparisonStart},
};

/// How often all rooms are compared.
const CHECK_INTERVAL: Duration = Duration::from_secs(25);

/// A room in which a message was delivered within this time is compared message by message after Redis was away, because the
/// history may have lost the last ones and given their numbers to others.
const BUSY_TIME: Duration = Duration::from_secs(60);

/// How long a read that failed is delayed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The most missing messages of one room that are delivered late. If there are more, members load their state anew.
const REPAIRED_MAX: usize = 1_000;

/// The number of rooms that are read at a time.
const READS: usize = 4;

/// The number of rooms whose positions are read by one call.
const POSITIONS: usize = 256;

/// The rooms that must be compared with their histories, each with the time.
#[derive(Debug, Default)]
pub(super) struct RepairQueue {
    rooms: Mutex<HashMap<Arc<str>, QueuedRepair>>,
    all: AtomicBool,
    wake: Notify,
}

#[derive(Clone, Copy, Debug)]
struct QueuedRepair {
    due: RepairTime,
    /// Whether it is unnecessary once no message waits for an earlier one.
    only_if_waiting: bool,
}

/// When a room is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RepairTime {
    Now,
    /// After the time that messages on their way may take, counted from the first time that the queue is read.
    Soon,
    At(Instant),
}

impl RepairQueue {
    /// Compares `room` as soon as possible.
    pub(super) fn add(&self, room: &str) {
        self.insert(room, RepairTime::Now, false);
    }

    /// Compares `room` if a message still waits for an earlier one after the time that messages may take.
    pub(super) fn add_if_waiting(&self, room: &str) {
        self.insert(room, RepairTime::Soon, true);
    }

    /// Compares `room` after the time that messages may take.
    fn add_soon(&self, room: &str) {
        self.insert(room, RepairTime::Soon, false);
    }

    /// Compares all rooms as soon as possible.
    pub(super) fn check_all(&self) {
        self.all.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn insert(&self, room: &str, due: RepairTime, only_if_waiting: bool) {
        let mut rooms = self.rooms();
        if let Some(queued) = rooms.get_mut(room) {
            // The time of a room that waits already is not put off.
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
            rooms.insert(room.into(), queued);
        }
        drop(rooms);
        self.wake.notify_one();
    }

    /// Removes the rooms that are due, and returns them and the time of the next one. `grace` is the time that messages may
    /// take.
    fn take_due(&self, grace: Duration) -> (Vec<(Arc<str>, bool)>, Option<Instant>) {
        let now = Instant::now();
        let mut rooms = self.rooms();
        let mut next: Option<Instant> = None;
        let mut due = Vec::new();
        rooms.retain(|room, queued| {
            let at = match queued.due {
                RepairTime::Now => now,
                RepairTime::Soon => now + grace,
                RepairTime::At(at) => at,
            };
            if at <= now {
                due.push((room.clone(), queued.only_if_waiting));
                return false;
            }
            queued.due = RepairTime::At(at);
            next = Some(next.map_or(at, |next| next.min(at)));
            true
        });
        (due, next)
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<Arc<str>, QueuedRepair>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that compares rooms; it ends when this is dropped.
pub(super) struct RepairTask(AbortHandle);

impl Drop for RepairTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RepairTask {
    /// Starts it. `grace` is the time that a message may take from its sender's node.
    pub(super) fn start(
        table: Arc<LocalTable>,
        broker: Arc<dyn Broker>,
        metrics: &Arc<Metrics>,
        grace: Duration,
    ) -> Self {
        let repairer = Repairer {
            table,
            broker,
            grace,
        };
        let task = supervise::spawn("repair of rooms", metrics, repairer, |repairer| {
            repairer.run().boxed()
        });
        Self(task.abort_handle())
    }
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
                .for_each_concurrent(READS, |(room, only_if_waiting)| async move {
                    self.repair(&room, only_if_waiting).await;
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

    /// Finds the rooms that are behind their histories. `after_outage`: histories may have lost messages.
    async fn check_positions(&self, after_outage: bool) {
        let known = self.table.rooms.positions(BUSY_TIME);
        for batch in known.chunks(POSITIONS) {
            let rooms: Vec<Arc<str>> = batch.iter().map(|(room, ..)| room.clone()).collect();
            let positions = match self.broker.history_positions(&rooms).await {
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
            for ((room, delivered, is_busy), position) in batch.iter().zip(positions) {
                if after_outage && *is_busy {
                    self.table.repairs.add(room);
                } else if position.as_ref() != Some(delivered) {
                    self.table.repairs.add_soon(room);
                }
            }
        }
    }

    async fn repair(&self, room: &str, only_if_waiting: bool) {
        let Some(start) = self.table.rooms.begin_comparison(room) else {
            return;
        };
        if only_if_waiting && !start.is_waiting {
            return;
        }
        if let Err(error) = self.compare(room, &start).await {
            debug!(%error, room, "a history could not be read; trying again");
            let retry = RepairTime::At(Instant::now() + RETRY_PAUSE);
            self.table.repairs.insert(room, retry, only_if_waiting);
        }
    }

    async fn compare(&self, room: &str, start: &ComparisonStart) -> Result<(), BrokerError> {
        let page = self.read(room, start).await?;
        if self.table.compare(room, start, &page) == Comparison::RolledBack {
            warn!(
                room,
                "a history lost messages that were delivered; it begins anew, and its members load their state anew"
            );
            let Position { epoch, .. } = &page.position;
            self.broker
                .reset_history(room, epoch, start.retention)
                .await?;
            let page = self.read(room, start).await?;
            self.table.compare(room, start, &page);
        }
        Ok(())
    }

    async fn read(&self, room: &str, start: &ComparisonStart) -> Result<HistoryPage, BrokerError> {
        let query = HistoryQuery {
            after: start.after,
            before: None,
            limit: REPAIRED_MAX,
        };
        self.broker.read_history(room, query, start.retention).await
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
            .map(|(room, only_if_waiting)| (room.to_string(), only_if_waiting))
            .collect();
        due.sort();
        due
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_has_time_to_close_by_itself() {
        let queue = RepairQueue::default();
        queue.add_if_waiting("a");
        assert!(due(&queue).is_empty());
        tokio::time::advance(GRACE / 2).await;
        // More early messages do not put it off.
        queue.add_if_waiting("a");
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(due(&queue), [("a".to_owned(), true)]);
        assert!(due(&queue).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_contradiction_is_looked_into_at_once() {
        let queue = RepairQueue::default();
        queue.add_if_waiting("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(
            due(&queue),
            [("a".to_owned(), false), ("b".to_owned(), false)]
        );
    }
}
