//! The connections that asked for the presence of rooms, and the rooms whose users must be read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::roster::Roster;
use crate::Connection;

/// The watched rooms. There are at most as many watchers as connections may join rooms.
#[derive(Default)]
pub(super) struct WatchTable {
    state: Mutex<WatchState>,
    wake: Notify,
}

#[derive(Default)]
struct WatchState {
    rooms: HashMap<Arc<str>, WatchedRoom>,
    /// The rooms to be read, each with the time.
    due: HashMap<Arc<str>, Instant>,
}

#[derive(Default)]
struct WatchedRoom {
    /// By the number of the connection.
    watchers: HashMap<u64, Watcher>,
    /// The users that the watchers know of.
    roster: Arc<Roster>,
    /// When it may be read again.
    not_before: Option<Instant>,
}

struct Watcher {
    connection: Arc<Connection>,
    stage: WatchStage,
}

/// What a watcher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchStage {
    /// Nothing.
    New,
    /// Nothing, and the room is being read for it.
    Reading,
    /// The users of the room.
    Informed,
}

/// The watchers of a room after it was read.
#[derive(Default)]
pub(super) struct RoomWatchers {
    /// They know nothing yet.
    pub(super) new: Vec<Arc<Connection>>,
    /// They know the earlier users.
    pub(super) informed: Vec<Arc<Connection>>,
}

impl WatchTable {
    /// Adds `connection` to the watchers of `room`, unless it has left the room meanwhile.
    pub(super) fn add(&self, connection: &Arc<Connection>, room: &str) {
        let mut state = self.state();
        // Under the lock: a connection that leaves later finds itself here.
        if !connection.is_member(room) {
            return;
        }
        let name: Arc<str> = room.into();
        let watcher = Watcher {
            connection: connection.clone(),
            stage: WatchStage::New,
        };
        let watched = state.rooms.entry(name.clone()).or_default();
        watched.watchers.insert(connection.number(), watcher);
        state.read_soon(&name);
        drop(state);
        self.wake.notify_one();
    }

    /// Removes `connection` from the watchers of `room`.
    pub(super) fn remove(&self, connection: &Connection, room: &str) {
        let mut state = self.state();
        let Some(watched) = state.rooms.get_mut(room) else {
            return;
        };
        watched.watchers.remove(&connection.number());
        if watched.watchers.is_empty() {
            state.rooms.remove(room);
            state.due.remove(room);
        }
    }

    /// Has `room` read soon, if it is watched.
    pub(super) fn changed(&self, room: &str) {
        let mut state = self.state();
        let Some((name, _)) = state.rooms.get_key_value(room) else {
            return;
        };
        let name = name.clone();
        state.read_soon(&name);
        drop(state);
        self.wake.notify_one();
    }

    /// Has all watched rooms read soon.
    pub(super) fn check_all(&self) {
        let mut state = self.state();
        let names: Vec<Arc<str>> = state.rooms.keys().cloned().collect();
        for name in names {
            state.read_soon(&name);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Starts again in the rooms that are `over`: if they are read again, their watchers get all users.
    pub(super) fn restart(&self, is_over: impl Fn(&str) -> bool) {
        let mut state = self.state();
        for (room, watched) in &mut state.rooms {
            if is_over(room) {
                watched.roster = Arc::default();
                for watcher in watched.watchers.values_mut() {
                    watcher.stage = WatchStage::New;
                }
            }
        }
    }

    /// Whether any room is watched.
    pub(super) fn is_watching(&self) -> bool {
        !self.state().rooms.is_empty()
    }

    /// Takes out the rooms that are due at `now`.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        self.state().due.retain(|room, at| {
            let is_due = *at <= now;
            if is_due {
                due.push(room.clone());
            }
            !is_due
        });
        due
    }

    /// When the next room is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().due.values().min().copied()
    }

    /// Returns when a room may be due earlier than before.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The users that the watchers of `room` know of; `None` if there are no watchers. Watchers that are new now get the result
    /// of the read that follows.
    pub(super) fn begin(&self, room: &str) -> Option<Arc<Roster>> {
        let mut state = self.state();
        let watched = state.rooms.get_mut(room)?;
        for watcher in watched.watchers.values_mut() {
            if watcher.stage == WatchStage::New {
                watcher.stage = WatchStage::Reading;
            }
        }
        Some(watched.roster.clone())
    }

    /// Notes that `room` was read, is due at `next`, and not before `not_before`. Returns its watchers.
    pub(super) fn finish(
        &self,
        room: &str,
        roster: Roster,
        not_before: Instant,
        next: Option<Instant>,
    ) -> RoomWatchers {
        let mut watchers = RoomWatchers::default();
        let mut state = self.state();
        let Some(watched) = state.rooms.get_mut(room) else {
            return watchers;
        };
        watched.roster = Arc::new(roster);
        watched.not_before = Some(not_before);
        let mut has_new = false;
        for watcher in watched.watchers.values_mut() {
            match watcher.stage {
                WatchStage::New => has_new = true,
                WatchStage::Reading => watchers.new.push(watcher.connection.clone()),
                WatchStage::Informed => watchers.informed.push(watcher.connection.clone()),
            }
            if watcher.stage == WatchStage::Reading {
                watcher.stage = WatchStage::Informed;
            }
        }
        // It may have changed while it was read.
        let is_waiting = has_new || state.due.contains_key(room);
        let next = if is_waiting { Some(not_before) } else { next };
        if let Some(next) = next {
            let due = next.max(not_before);
            state.due.insert(room.into(), due);
        }
        watchers
    }

    /// Has `room` read again at `at`, because it could not be read.
    pub(super) fn retry(&self, room: &str, at: Instant) {
        let mut state = self.state();
        let Some(watched) = state.rooms.get_mut(room) else {
            return;
        };
        for watcher in watched.watchers.values_mut() {
            if watcher.stage == WatchStage::Reading {
                watcher.stage = WatchStage::New;
            }
        }
        watched.not_before = Some(at);
        state.due.insert(room.into(), at);
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchState {
    /// Has a watched room read as soon as it may be.
    fn read_soon(&mut self, room: &Arc<str>) {
        let watched = self.rooms.get(room);
        let not_before = watched.and_then(|watched| watched.not_before);
        let soonest = not_before.map_or_else(Instant::now, |at| at.max(Instant::now()));
        let due = self.due.entry(room.clone()).or_insert(soonest);
        *due = soonest.min(*due);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::table::tests::connection;

    const PAUSE: Duration = Duration::from_secs(1);

    fn watcher(table: &WatchTable, user: &str) -> Arc<Connection> {
        let connection = connection(user);
        assert!(connection.note_joined("r".into()));
        table.add(&connection, "r");
        connection
    }

    /// Reads the room now, and returns the numbers of new and of other watchers.
    fn read(table: &WatchTable) -> (usize, usize) {
        assert_eq!(table.take_due(Instant::now()), [Arc::<str>::from("r")]);
        assert!(table.begin("r").is_some());
        finish(table)
    }

    fn finish(table: &WatchTable) -> (usize, usize) {
        let again = Instant::now() + PAUSE;
        let RoomWatchers { new, informed } = table.finish("r", Roster::default(), again, None);
        (new.len(), informed.len())
    }

    fn is_due(table: &WatchTable) -> bool {
        table.next_due().is_some_and(|at| at <= Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_watcher_gets_everything_once_and_changes_afterwards() {
        let table = WatchTable::default();
        watcher(&table, "ann");
        assert_eq!(read(&table), (1, 0));
        assert_eq!(table.next_due(), None);
        table.changed("r");
        table.changed("other");
        assert!(!is_due(&table), "changes are batched");
        tokio::time::advance(PAUSE).await;
        assert_eq!(read(&table), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_comes_while_the_room_is_read_waits_for_the_next_read() {
        let table = WatchTable::default();
        let ann = watcher(&table, "ann");
        table.take_due(Instant::now());
        table.begin("r");
        watcher(&table, "bob");
        table.remove(&ann, "r");
        assert_eq!(finish(&table), (0, 0));
        assert!(!is_due(&table));
        tokio::time::advance(PAUSE).await;
        assert_eq!(read(&table), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_is_made_again_for_the_same_watchers() {
        let table = WatchTable::default();
        watcher(&table, "ann");
        table.take_due(Instant::now());
        table.begin("r");
        table.retry("r", Instant::now() + PAUSE);
        table.changed("r");
        assert!(!is_due(&table));
        tokio::time::advance(PAUSE).await;
        assert_eq!(read(&table), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_without_watchers_is_forgotten() {
        let table = WatchTable::default();
        let ann = watcher(&table, "ann");
        table.remove(&ann, "r");
        table.changed("r");
        assert_eq!(table.next_due(), None);
        assert!(!table.is_watching() && table.begin("r").is_none());
        ann.retire();
        table.add(&ann, "r");
        assert!(!table.is_watching(), "it has left");
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_of_a_room_with_a_new_epoch_get_the_full_list() {
        let table = WatchTable::default();
        watcher(&table, "ann");
        assert_eq!(read(&table), (1, 0));
        tokio::time::advance(PAUSE).await;
        table.restart(|room| room == "other");
        table.check_all();
        assert_eq!(read(&table), (0, 1));
        tokio::time::advance(PAUSE).await;
        table.restart(|room| room == "r");
        table.check_all();
        assert_eq!(read(&table), (1, 0));
    }
}
