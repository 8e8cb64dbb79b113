//! All histories of a hub, and the limit of their bytes.
//!
//! Each history has a separate lock. A message is delivered under it, so all receivers get the messages in one
//! order. [`DiscardQueues`] says which history to discard next; a history moves there at most about once a second.
//!
//! No thread locks two histories at a time. It may lock the map or the queues while it has a history, and not the other way
//! round.

mod queues;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use signalbox_protocol::{Epoch, Frame, Position};

use self::queues::{DiscardQueues, Place};
use super::log::MemoryHistory;
use crate::{HistoryName, HistoryPage, HistoryQuery, OwnedHistoryName, Retention};

/// The limit of all bytes until another one is set.
const BYTES_MAX: usize = 256 << 20;

/// Positions may take one of this many equal parts of the limit.
const POSITIONS_SHARE: usize = 4;

/// Charged for each history in addition to its name and its messages: its state, and its entries in the map and the queues.
const HISTORY_OVERHEAD: usize = 512;

/// The most histories that one sweep looks at.
const SWEEP_MAX: usize = 4_096;

/// The histories. The parameter `now` of a method is the result of [`MemoryHistories::now`] shortly before.
pub(super) struct MemoryHistories {
    /// Those of rooms.
    rooms: HistoryCells,
    /// Those of users.
    users: HistoryCells,
    queues: Mutex<DiscardQueues>,
    started: Instant,
    next_id: AtomicU64,
    bytes_max: AtomicUsize,
    message_bytes: AtomicUsize,
    position_bytes: AtomicUsize,
    evicted: AtomicU64,
    /// The second in which the last sweep was made.
    swept: AtomicU64,
}

/// Histories by the room or user.
type HistoryCells = DashMap<Box<str>, Arc<HistoryCell>>;

/// One history.
struct HistoryCell {
    id: u64,
    name: OwnedHistoryName,
    state: Mutex<CellState>,
}

struct CellState {
    history: MemoryHistory,
    /// Its place in the queues; `None` until its first use ends.
    place: Option<Place>,
    /// The second for which it is in the queue of deadlines.
    due: Option<u64>,
    /// Its share of [`MemoryHistories::message_bytes`].
    charged: usize,
    /// It has left the map.
    is_forgotten: bool,
}

impl Default for MemoryHistories {
    fn default() -> Self {
        Self {
            rooms: DashMap::new(),
            users: DashMap::new(),
            queues: Mutex::default(),
            started: Instant::now(),
            next_id: AtomicU64::new(0),
            bytes_max: AtomicUsize::new(BYTES_MAX),
            message_bytes: AtomicUsize::new(0),
            position_bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            swept: AtomicU64::new(0),
        }
    }
}

impl MemoryHistories {
    /// The time since the hub began.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Appends `frame`, and calls `deliver` with its position and the frame with its number. Calls for one history are made one
    /// after another, in the order of the numbers.
    pub(super) fn append<R>(
        &self,
        name: HistoryName<'_>,
        frame: &Frame,
        retention: Retention,
        now: Duration,
        deliver: impl FnOnce(&Position, &Frame) -> R,
    ) -> (Position, R) {
        self.with(name, retention, now, |history| {
            let frame = history.append(frame, retention, now);
            let position = history.position();
            let delivered = deliver(&position, &frame);
            (position, delivered)
        })
    }

    /// Reads from the history `name`, and creates it if there is none.
    pub(super) fn read(
        &self,
        name: HistoryName<'_>,
        query: HistoryQuery,
        retention: Retention,
        now: Duration,
    ) -> HistoryPage {
        self.with(name, retention, now, |history| {
            history.read(query, retention, now)
        })
    }

    /// Reads from the history `name`, if there is one.
    pub(super) fn read_existing(
        &self,
        name: HistoryName<'_>,
        query: HistoryQuery,
        retention: Retention,
        now: Duration,
    ) -> Option<HistoryPage> {
        let cell = self.find(name)?;
        let mut state = cell.state();
        if state.is_forgotten || state.history.is_over(now) {
            return None;
        }
        let page = state.history.read(query, retention, now);
        self.settle(&cell, &mut state);
        Some(page)
    }

    /// The position of the history `name`, if there is one.
    pub(super) fn position(&self, name: HistoryName<'_>, now: Duration) -> Option<Position> {
        let cell = self.find(name)?;
        let state = cell.state();
        let is_there = !state.is_forgotten && !state.history.is_over(now);
        is_there.then(|| state.history.position())
    }

    /// Begins another epoch in the history `name`, if its epoch is `epoch`.
    pub(super) fn reset(&self, name: HistoryName<'_>, epoch: &Epoch) {
        let Some(cell) = self.find(name) else {
            return;
        };
        let mut state = cell.state();
        if !state.is_forgotten && state.history.position().epoch == *epoch {
            state.history.reset();
            self.settle(&cell, &mut state);
        }
    }

    /// Sets the limit of all bytes, and enforces it.
    pub(super) fn set_bytes_max(&self, bytes: usize) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
        self.enforce_limit();
    }

    /// The bytes that all histories are charged for.
    pub(super) fn bytes(&self) -> usize {
        self.message_bytes.load(Ordering::Relaxed) + self.position_bytes.load(Ordering::Relaxed)
    }

    /// The number of messages that were discarded because of the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Runs `act` on the history `name`, which is created if there is none.
    fn with<R>(
        &self,
        name: HistoryName<'_>,
        retention: Retention,
        now: Duration,
        act: impl FnOnce(&mut MemoryHistory) -> R,
    ) -> R {
        let result = loop {
            let cell = self.cell(name, retention, now);
            let mut state = cell.state();
            if !state.is_forgotten {
                let result = act(&mut state.history);
                self.settle(&cell, &mut state);
                break result;
            }
        };
        self.enforce_limit();
        self.sweep_once_a_second(now);
        result
    }

    fn find(&self, name: HistoryName<'_>) -> Option<Arc<HistoryCell>> {
        let (cells, name) = self.cells(name);
        cells.get(name).map(|cell| cell.clone())
    }

    /// The map with the history `name`, and its key there.
    fn cells<'n>(&self, name: HistoryName<'n>) -> (&HistoryCells, &'n str) {
        match name {
            HistoryName::Room(room) => (&self.rooms, room),
            HistoryName::User(user) => (&self.users, user),
        }
    }

    fn cell(&self, name: HistoryName<'_>, retention: Retention, now: Duration) -> Arc<HistoryCell> {
        if let Some(cell) = self.find(name) {
            return cell;
        }
        let owned = OwnedHistoryName::from(name);
        let (cells, key) = self.cells(name);
        let new = || {
            Arc::new(HistoryCell {
                id: self.next_id.fetch_add(1, Ordering::Relaxed),
                name: owned,
                state: Mutex::new(CellState {
                    history: MemoryHistory::new(retention, now),
                    place: None,
                    due: None,
                    charged: 0,
                    is_forgotten: false,
                }),
            })
        };
        cells.entry(key.into()).or_insert_with(new).clone()
    }

    /// Brings the charge and the queues up to date after a change of a history.
    fn settle(&self, cell: &Arc<HistoryCell>, state: &mut CellState) {
        self.charge_messages(state);
        if state.place.is_none() {
            self.position_bytes
                .fetch_add(cell.charge(), Ordering::Relaxed);
        }
        let place = Place::of(&state.history, cell.id);
        // The deadline is rounded up. A later one than in the queue is noticed by the sweep.
        let due = state.history.deadline().as_secs().saturating_add(1);
        let moves = state.place != Some(place);
        let is_earlier = state.due.is_none_or(|queued| due < queued);
        if !moves && !is_earlier {
            return;
        }
        let mut queues = self.queues();
        if moves {
            queues.leave(state.place);
            queues.enter(place, cell.clone());
            state.place = Some(place);
        }
        if is_earlier {
            queues.move_deadline(state.due, due, cell);
            state.due = Some(due);
        }
    }

    fn charge_messages(&self, state: &mut CellState) {
        let bytes = state.history.bytes();
        if bytes > state.charged {
            self.message_bytes
                .fetch_add(bytes - state.charged, Ordering::Relaxed);
        } else {
            self.message_bytes
                .fetch_sub(state.charged - bytes, Ordering::Relaxed);
        }
        state.charged = bytes;
    }

    /// Discards messages and positions until the limit is kept.
    fn enforce_limit(&self) {
        let max = || self.bytes_max.load(Ordering::Relaxed);
        let positions = || self.position_bytes.load(Ordering::Relaxed);
        while positions() > max() / POSITIONS_SHARE && self.forget_least_used() {}
        while self.bytes() > max() && self.discard_oldest(max()) {}
    }

    /// Forgets the history that was least recently used, unless it has just changed. Returns whether there was one.
    fn forget_least_used(&self) -> bool {
        let Some((place, cell)) = self.queues().least_used() else {
            return false;
        };
        let mut state = cell.state();
        if state.place == Some(place) && !state.is_forgotten {
            self.count_evicted(state.history.len());
            self.forget(&cell, &mut state);
        }
        true
    }

    /// Discards messages of the history that was least recently appended to, unless it has just changed, until at most `max`
    /// bytes are left. Returns whether there was one with messages.
    fn discard_oldest(&self, max: usize) -> bool {
        let Some((place, cell)) = self.queues().least_appended() else {
            return false;
        };
        let mut state = cell.state();
        if state.place == Some(place) && !state.is_forgotten {
            let excess = self.bytes().saturating_sub(max);
            let discarded = state.history.discard(excess);
            self.count_evicted(discarded);
            self.settle(&cell, &mut state);
        }
        true
    }

    fn count_evicted(&self, messages: usize) {
        self.evicted.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Removes a history from the map and the queues.
    fn forget(&self, cell: &HistoryCell, state: &mut CellState) {
        state.is_forgotten = true;
        self.message_bytes
            .fetch_sub(state.charged, Ordering::Relaxed);
        self.position_bytes
            .fetch_sub(cell.charge(), Ordering::Relaxed);
        let mut queues = self.queues();
        queues.leave(state.place);
        queues.end(state.due, cell.id);
        drop(queues);
        let (cells, key) = self.cells(cell.name.borrowed());
        cells.remove(key);
    }

    fn sweep_once_a_second(&self, now: Duration) {
        let (second, last) = (now.as_secs(), self.swept.load(Ordering::Relaxed));
        let is_first = || {
            let swept = &self.swept;
            swept.compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
        };
        if second > last && is_first().is_ok() {
            self.sweep(now);
        }
    }

    /// Discards messages and positions that are too old.
    fn sweep(&self, now: Duration) {
        for _ in 0..SWEEP_MAX {
            let Some((due, cell)) = self.queues().due(now) else {
                return;
            };
            let mut state = cell.state();
            if state.due != Some(due) || state.is_forgotten {
                continue;
            }
            if state.history.is_over(now) {
                self.forget(&cell, &mut state);
            } else {
                state.history.expire(now);
                self.queues().end(state.due.take(), cell.id);
                self.settle(&cell, &mut state);
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, DiscardQueues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryCell {
    /// The bytes that its position is charged for.
    fn charge(&self) -> usize {
        let (HistoryName::Room(name) | HistoryName::User(name)) = self.name.borrowed();
        name.len() + HISTORY_OVERHEAD
    }

    fn state(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
