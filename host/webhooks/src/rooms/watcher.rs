//! The task that looks up what changed, and reports it.

use std::{collections::HashSet, future, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use signalbox_broker::{Broker, BrokerError, LocalNode};
use signalbox_router::LocalTable;
use signalbox_telemetry::supervise;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::debug;

use super::{ChangeMarks, WatchedName, WatchedRooms, leaving::LeavingNames};
use crate::{OccupancyChange, QueueUnavailable, QueuedEvent, Shared};

/// The most names that are looked up and reported together.
const BATCH: usize = 256;

/// How often the list of nodes is read, to notice one that died.
const NODES_INTERVAL: Duration = Duration::from_secs(10);

/// Time after which other nodes have written again what Redis lost.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// How often all that was reported is read without a reason.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The running task.
pub(crate) struct RoomWatcher {
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Why changes could not be reported.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Queue(#[from] QueueUnavailable),
}

impl RoomWatcher {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        rooms: Arc<WatchedRooms>,
        table: Arc<LocalTable>,
        broker: Arc<dyn Broker>,
    ) -> Self {
        let (ending, is_ending) = watch::channel(false);
        let state = OccupancyReporter {
            shared: shared.clone(),
            rooms,
            table,
            broker,
            known: HashSet::new(),
            leaving: LeavingNames::default(),
            in_doubt: HashSet::new(),
            nodes: HashSet::new(),
            nodes_at: Instant::now(),
            sweep_at: None,
            is_ending,
        };
        let task = supervise::spawn("rooms of webhooks", &shared.metrics, state, |state| {
            state.run().boxed()
        });
        Self { ending, task }
    }

    /// Reports what is left to report, until `by` at the latest, and ends.
    pub(crate) async fn finish(self, by: Instant) {
        self.ending.send_replace(true);
        let abort = self.task.abort_handle();
        if timeout_at(by, self.task).await.is_err() {
            abort.abort();
        }
    }
}

struct OccupancyReporter {
    shared: Arc<Shared>,
    rooms: Arc<WatchedRooms>,
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    /// The rooms and members on this node that were reported.
    known: HashSet<WatchedName>,
    /// Those that left this node.
    leaving: LeavingNames,
    /// Those of them that this node has reported, and looks up once more: another node may have them by now.
    in_doubt: HashSet<WatchedName>,
    /// The nodes that were alive.
    nodes: HashSet<String>,
    /// When they are read again.
    nodes_at: Instant,
    /// When all that was reported is read.
    sweep_at: Option<Instant>,
    is_ending: watch::Receiver<bool>,
}

impl OccupancyReporter {
    async fn run(&mut self) {
        while !*self.is_ending.borrow() {
            if self.is_ending.has_changed().is_err() {
                // Nobody can end the task any more.
                return;
            }
            if self.rooms.is_watching() {
                if let Err(error) = self.turn().await {
                    debug!(%error, "changes of rooms were not reported; trying again");
                    self.pause(sleep(RETRY_PAUSE)).await;
                    continue;
                }
            } else {
                self.forget();
            }
            let (rooms, due) = (self.rooms.clone(), self.next_due());
            self.pause(async move {
                tokio::select! {
                    () = rooms.woken.notified() => {}
                    () = until(due) => {}
                }
            })
            .await;
        }
        if let Err(error) = self.end().await {
            debug!(%error, "the last changes of rooms were not reported");
        }
    }

    /// Looks up and reports everything that is due.
    async fn turn(&mut self) -> Result<(), ReportError> {
        let marks = self.rooms.take_marks();
        self.note(marks).await?;
        self.report_leaving().await?;
        let now = Instant::now();
        if self.nodes_at <= now {
            self.look_for_dead_nodes().await?;
            self.nodes_at = now + NODES_INTERVAL.mul_f64(0.8 + 0.4 * fastrand::f64());
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep().await?;
            self.sweep_at = Some(Instant::now() + SWEEP_INTERVAL);
        }
        Ok(())
    }

    /// Reports what came, and remembers what left.
    async fn note(&mut self, mut marks: ChangeMarks) -> Result<(), ReportError> {
        if marks.all {
            // Whether others still know it is doubtful.
            self.known.clear();
            marks.changed.extend(self.all_here());
            self.sweep_at = Some(Instant::now() + SETTLE_TIME);
        }
        let due = Instant::now() + self.rooms.grace();
        let mut came = Vec::new();
        for name in &marks.changed {
            if !self.is_here(name) {
                self.leaving.add(name.clone(), due);
            } else {
                self.leaving.remove(name);
                self.in_doubt.remove(name);
                if !self.known.contains(name) {
                    came.push(name.clone());
                }
            }
        }
        for batch in came.chunks(BATCH) {
            if let Err(error) = self.report_here(batch).await {
                marks.changed.retain(|name| !self.known.contains(name));
                self.rooms.restore(marks);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Everything on this node that webhooks want to know of.
    fn all_here(&self) -> Vec<WatchedName> {
        let mut names = Vec::new();
        if self.rooms.wants_rooms() {
            let rooms = self.table.held_rooms().into_iter();
            names.extend(rooms.map(WatchedName::Room));
        }
        if self.rooms.wants_members() {
            let members = self.table.held_members().into_iter();
            names.extend(members.map(|(room, user)| WatchedName::Member { room, user }));
        }
        names.retain(|name| self.rooms.wants(name));
        names
    }

    /// Reports `names`, which are on this node.
    async fn report_here(&mut self, names: &[WatchedName]) -> Result<(), ReportError> {
        self.settled(names).await;
        let here = names.iter().filter(|name| self.is_here(name));
        let here: Vec<(&WatchedName, bool)> = here.map(|name| (name, true)).collect();
        self.push(&here).await?;
        self.known
            .extend(here.into_iter().map(|(name, _)| name.clone()));
        Ok(())
    }

    /// Reports what left this node long enough ago, and did not come back.
    async fn report_leaving(&mut self) -> Result<(), ReportError> {
        loop {
            let now = Instant::now();
            let due = self.leaving.take_due(now, BATCH);
            if due.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.report_elsewhere(&due).await {
                for name in due {
                    self.leaving.add(name, now);
                }
                return Err(error);
            }
        }
    }

    /// Reports `names`, which are not on this node, as away if no other node has them. A node that has them reports that itself,
    /// and a second report could arrive after they left it; so this node adds one only to correct its own.
    async fn report_elsewhere(&mut self, names: &[WatchedName]) -> Result<(), ReportError> {
        self.settled(names).await;
        let away = names.iter().filter(|name| !self.is_here(name));
        let away: Vec<&WatchedName> = away.collect();
        let is_elsewhere = self.are_elsewhere(&away).await?;
        let mut states: Vec<_> = away.into_iter().zip(is_elsewhere).collect();
        for (name, _) in &states {
            self.known.remove(name);
        }
        states.retain(|(name, is_elsewhere)| !is_elsewhere || self.in_doubt.contains(name));
        let added = self.push(&states).await?;
        let now = Instant::now();
        for ((name, _), added) in states.into_iter().zip(added) {
            if added {
                self.in_doubt.insert(name.clone());
                self.leaving.add(name.clone(), now);
            } else {
                self.in_doubt.remove(name);
            }
        }
        Ok(())
    }

    /// Whether each of `names` is on another node.
    async fn are_elsewhere(&self, names: &[&WatchedName]) -> Result<Vec<bool>, BrokerError> {
        let (mut rooms, mut members) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                WatchedName::Room(room) => rooms.push(&**room),
                WatchedName::Member { room, user } => members.push((&**room, &**user)),
            }
        }
        let mut occupied = match rooms.is_empty() {
            true => Vec::new(),
            false => self.broker.occupied_elsewhere(&rooms).await?,
        }
        .into_iter();
        let mut present = match members.is_empty() {
            true => Vec::new(),
            false => self.broker.present_elsewhere(&members).await?,
        }
        .into_iter();
        let states = names.iter().map(|name| match name {
            WatchedName::Room(_) => occupied.next().unwrap_or_default(),
            WatchedName::Member { .. } => present.next().unwrap_or_default(),
        });
        Ok(states.collect())
    }

    /// Reports names, each with whether it is there. Returns which reports were news.
    async fn push(&self, states: &[(&WatchedName, bool)]) -> Result<Vec<bool>, QueueUnavailable> {
        let event = |(name, is_there): &(&WatchedName, bool)| {
            let (came, went) = name.events();
            let (event, change) = match is_there {
                true => (came, OccupancyChange::Came(name.encode())),
                false => (went, OccupancyChange::Went(name.encode())),
            };
            let hooks = self.shared.hooks.of(event, Some(name.room()));
            QueuedEvent {
                text: self.shared.source.encode(event, name.detail()),
                queues: hooks.iter().map(|hook| hook.address()).collect(),
                change: Some(change),
            }
        };
        let events: Vec<QueuedEvent> = states.iter().map(event).collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.push(&events).await
    }

    /// Reads the list of nodes. If one is gone, what it reported is looked up.
    async fn look_for_dead_nodes(&mut self) -> Result<(), BrokerError> {
        let nodes: HashSet<String> = self.broker.nodes().await?.into_iter().collect();
        if self.nodes.difference(&nodes).next().is_some() {
            self.sweep_at = Some(Instant::now());
        }
        self.nodes = nodes;
        Ok(())
    }

    /// Looks up everything that was reported as there and is not on this node.
    async fn sweep(&mut self) -> Result<(), ReportError> {
        let queue = self.shared.queue.clone();
        let mut cursor = 0;
        loop {
            let page = queue.reported(cursor).await?;
            let names = page.names.iter();
            let names = names.filter_map(|name| WatchedName::decode(name));
            let away: Vec<WatchedName> = names.filter(|name| !self.is_here(name)).collect();
            for batch in away.chunks(BATCH) {
                self.report_elsewhere(batch).await?;
            }
            cursor = page.next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Returns when other nodes can see the state of `names` on this node, or it is clear that they cannot now.
    async fn settled(&self, names: &[WatchedName]) {
        let settled = names.iter().map(|name| match name {
            WatchedName::Room(room) => self.broker.room_settled(room),
            WatchedName::Member { room, user } => self.broker.member_settled(room, user),
        });
        join_all(settled).await;
    }

    fn is_here(&self, name: &WatchedName) -> bool {
        match name {
            WatchedName::Room(room) => self.table.holds_room(room),
            WatchedName::Member { room, user } => self.table.member(room, user).is_some(),
        }
    }

    /// If no other node is there, nobody else reports what left this one.
    async fn end(&mut self) -> Result<(), ReportError> {
        if !self.rooms.is_watching() || self.broker.nodes().await?.len() > 1 {
            return Ok(());
        }
        let marks = self.rooms.take_marks();
        self.note(marks).await?;
        self.leaving.hurry(Instant::now());
        self.report_leaving().await
    }

    fn forget(&mut self) {
        drop(self.rooms.take_marks());
        self.known.clear();
        self.leaving.clear();
        self.in_doubt.clear();
        self.sweep_at = None;
    }

    fn next_due(&self) -> Option<Instant> {
        if !self.rooms.is_watching() {
            return None;
        }
        let times = [Some(self.nodes_at), self.sweep_at, self.leaving.next_due()];
        times.into_iter().flatten().min()
    }

    /// Waits for `end`, or until the task is to end.
    async fn pause(&mut self, end: impl Future<Output = ()>) {
        tokio::select! {
            () = end => {}
            _ = self.is_ending.changed() => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}
