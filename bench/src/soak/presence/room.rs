//! A room: its clients, the events in it, and the truth about its users.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::figures::EventKind;
use super::visitor::{Place, PresenceWorld, Stays, Visitor};
use crate::lock;

/// The clients of a room, and its users: some have two clients.
const VISITORS: usize = 12;
const USERS: usize = 9;

/// How often a client comes and goes in one event.
const FLAPS: usize = 5;

/// How long to wait for clients that are late, as a multiple of the time that they have.
const LATE: u32 = 4;

/// Interval between two comparisons.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A room and its clients, which end when it is dropped.
pub(super) struct Room {
    pub(super) visitors: Vec<Arc<Visitor>>,
    stays: Stays,
    _tasks: JoinSet<()>,
}

impl Room {
    pub(super) fn new(world: &Arc<PresenceWorld>, number: usize) -> Self {
        let stays = Stays::default();
        let mut tasks = JoinSet::new();
        let visitor = |index: usize| {
            let user = format!("r{number}u{}", index % USERS);
            let visitor = Visitor::new(world.clone(), user, name(number), stays.clone());
            tasks.spawn(visitor.clone().live());
            visitor
        };
        Self {
            visitors: (0..VISITORS).map(visitor).collect(),
            stays: stays.clone(),
            _tasks: tasks,
        }
    }

    /// Lets two thirds of the clients come.
    pub(super) async fn fill(&mut self) {
        for index in (0..VISITORS).filter(|index| index % 3 != 2) {
            self.visitors[index].wanted.send_replace(Place::Inside);
        }
        self.settle().await;
    }

    /// Lets something happen, and returns when it has.
    pub(super) async fn event(&mut self) -> EventKind {
        let index = fastrand::usize(..VISITORS);
        let visitor = self.visitors[index].clone();
        let place = *visitor.wanted.borrow();
        let kind = match (place, fastrand::u8(..4)) {
            (_, 0) => EventKind::Flapping,
            (Place::Away, _) => EventKind::Connect,
            (Place::Inside, 1) => EventKind::Disconnect,
            (Place::Inside, _) => EventKind::Leave,
            (Place::Outside, _) => EventKind::Join,
        };
        let end = match kind {
            EventKind::Connect | EventKind::Join => Place::Inside,
            EventKind::Disconnect => Place::Away,
            EventKind::Leave => Place::Outside,
            _ => [Place::Away, Place::Outside, Place::Inside][fastrand::usize(..3)],
        };
        if kind == EventKind::Flapping {
            for _ in 0..FLAPS {
                for place in [Place::Inside, Place::Away] {
                    visitor.wanted.send_replace(place);
                    // Sometimes it turns back before it has arrived.
                    if fastrand::bool() {
                        visitor.settled().await;
                    }
                }
            }
        }
        visitor.wanted.send_replace(end);
        self.settle().await;
        kind
    }

    /// Sends away half of the clients that are connected to `node`. They do not notice that it fails.
    pub(super) fn give_up(&mut self, node: usize) {
        for visitor in &self.visitors {
            let is_there = visitor.node.load(Ordering::Relaxed) == node;
            if is_there && fastrand::bool() {
                visitor.wanted.send_replace(Place::Away);
            }
        }
        self.truth();
    }

    /// Waits until every client is at its place, and notes the truth.
    pub(super) async fn settle(&self) {
        for visitor in &self.visitors {
            visitor.settled().await;
        }
        self.truth();
    }

    /// The users who are in the room.
    fn truth(&self) -> BTreeSet<String> {
        let inside = |visitor: &&Arc<Visitor>| *visitor.wanted.borrow() == Place::Inside;
        let inside = self.visitors.iter().filter(inside);
        let users: BTreeSet<String> = inside.map(|visitor| visitor.user.clone()).collect();
        let mut stays = lock(&self.stays);
        stays.retain(|user, _| users.contains(user));
        for user in &users {
            stays.entry(user.clone()).or_insert_with(Instant::now);
        }
        users
    }

    /// Waits until each client in the room knows the truth, and returns how long that took; `None` if it took longer than
    /// [`LATE`] times `bound`. Prints who is late after `bound`.
    pub(super) async fn until_known(&self, bound: Duration) -> Option<Duration> {
        let began = Instant::now();
        let truth = self.truth();
        let mut is_late = false;
        while began.elapsed() <= bound * LATE {
            if self.unaware(&truth).is_none() {
                return Some(began.elapsed());
            }
            if began.elapsed() > bound && !is_late {
                is_late = true;
                eprintln!("late: {}", self.difference().unwrap_or_default());
            }
            sleep(POLL_INTERVAL).await;
        }
        None
    }

    /// Describes a client that does not know the truth.
    pub(super) fn difference(&self) -> Option<String> {
        let truth = self.truth();
        let visitor = self.unaware(&truth)?;
        let place = *visitor.place.borrow();
        let view = visitor.view();
        let knows = view.users();
        Some(format!(
            "{} is {place:?} and knows {knows:?} instead of {truth:?}",
            visitor.user
        ))
    }

    fn unaware(&self, truth: &BTreeSet<String>) -> Option<&Arc<Visitor>> {
        self.visitors.iter().find(|visitor| {
            let (wanted, place) = (*visitor.wanted.borrow(), *visitor.place.borrow());
            wanted != place || (place == Place::Inside && !visitor.view().is(truth))
        })
    }
}

/// The name of a room.
pub(super) fn name(number: usize) -> String {
    format!("seen:{number}")
}
