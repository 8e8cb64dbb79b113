//! The order in which histories are discarded.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{HistoryCell, MemoryHistory};

/// A second since the hub began, and the ID of the history, which makes it unique.
pub(super) type Rank = (u64, u64);

/// A place in one of the two queues for eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has messages.
    Messages(Rank),
    /// It has a position only.
    Position(Rank),
}

/// The histories in that order. Those with the same second are in the order in which they were created.
#[derive(Default)]
pub(super) struct DiscardQueues {
    /// Those with messages, by the second of the last append.
    pub(super) messages: BTreeMap<Rank, Arc<HistoryCell>>,
    /// Those without, by the second of the last use.
    pub(super) positions: BTreeMap<Rank, Arc<HistoryCell>>,
    /// All, by a second after which something may have to be discarded because of its age.
    pub(super) deadlines: BTreeMap<Rank, Arc<HistoryCell>>,
}

impl Place {
    /// The place that `history`, which has the ID `id`, should have.
    pub(super) fn of(history: &MemoryHistory, id: u64) -> Self {
        if history.len() > 0 {
            Self::Messages((history.appended().as_secs(), id))
        } else {
            Self::Position((history.used().as_secs(), id))
        }
    }
}

impl DiscardQueues {
    /// Puts a history into the queue for eviction.
    pub(super) fn enter(&mut self, place: Place, cell: Arc<HistoryCell>) {
        match place {
            Place::Messages(rank) => self.messages.insert(rank, cell),
            Place::Position(rank) => self.positions.insert(rank, cell),
        };
    }

    /// Removes a history from the queue for eviction.
    pub(super) fn leave(&mut self, place: Option<Place>) {
        match place {
            Some(Place::Messages(rank)) => self.messages.remove(&rank),
            Some(Place::Position(rank)) => self.positions.remove(&rank),
            None => None,
        };
    }

    /// Changes the deadline of a history.
    pub(super) fn move_deadline(&mut self, from: Option<u64>, to: u64, cell: &Arc<HistoryCell>) {
        self.end(from, cell.id);
        self.deadlines.insert((to, cell.id), cell.clone());
    }

    /// Removes the deadline of the history `id`.
    pub(super) fn end(&mut self, due: Option<u64>, id: u64) {
        if let Some(due) = due {
            self.deadlines.remove(&(due, id));
        }
    }

    /// The history without messages that was least recently used, or if there is none, [`DiscardQueues::least_appended`].
    pub(super) fn least_used(&self) -> Option<(Place, Arc<HistoryCell>)> {
        let first = self.positions.first_key_value();
        let first = first.map(|(rank, cell)| (Place::Position(*rank), cell.clone()));
        first.or_else(|| self.least_appended())
    }

    /// The history with messages that was least recently appended to.
    pub(super) fn least_appended(&self) -> Option<(Place, Arc<HistoryCell>)> {
        let first = self.messages.first_key_value();
        first.map(|(rank, cell)| (Place::Messages(*rank), cell.clone()))
    }

    /// A history whose deadline is over, with the second for which it is queued.
    pub(super) fn due(&self, now: Duration) -> Option<(u64, Arc<HistoryCell>)> {
        let (&(due, _), cell) = self.deadlines.first_key_value()?;
        (due <= now.as_secs()).then(|| (due, cell.clone()))
    }
}
