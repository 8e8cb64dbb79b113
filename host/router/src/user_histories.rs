//! The histories of users on this node: each is kept in order as that of a room whose members are the user's connections.
//!
//! Once users have had a history, all connections are such members until the node ends, so that nothing is lost when
//! histories are switched off and on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use signalbox_broker::{BrokerError, HistoryName, Retention};

use super::{
    Connection, HistoryJoin, JoinedHistory, Router,
    rooms::{RoomKind, RoomTable},
};

/// The users of this node as rooms, and how much of their histories is kept.
pub(super) struct UserHistories {
    pub(super) rooms: RoomTable,
    /// Whether messages to users are kept.
    is_on: AtomicBool,
    /// The last [`Retention`]; 0 if there was none.
    size: AtomicUsize,
    time_ms: AtomicU64,
}

impl Default for UserHistories {
    fn default() -> Self {
        Self {
            rooms: RoomTable::new(RoomKind::OfUser),
            is_on: AtomicBool::new(false),
            size: AtomicUsize::new(0),
            time_ms: AtomicU64::new(0),
        }
    }
}

impl UserHistories {
    /// How much of each history is kept; `None` if nothing is.
    pub(super) fn retention(&self) -> Option<Retention> {
        // Read for every message to a user.
        if self.is_on.load(Ordering::Relaxed) {
            self.last_retention()
        } else {
            None
        }
    }

    /// Follows the history of the user of `connection`, which is in the table, if users have had histories.
    pub(super) fn admit(&self, connection: &Arc<Connection>) {
        if let Some(retention) = self.last_retention() {
            self.rooms.join(connection, connection.user());
            self.rooms.follow(connection.user(), retention);
        }
    }

    /// Forgets `connection`, which is gone.
    pub(super) fn remove(&self, connection: &Connection) {
        if self.last_retention().is_some() {
            self.rooms.remove(connection, connection.user());
        }
    }

    fn set(&self, retention: Option<Retention>) {
        if let Some(Retention { size, time }) = retention {
            let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            self.time_ms.store(time, Ordering::Release);
            self.size.store(size, Ordering::Release);
        }
        self.is_on.store(retention.is_some(), Ordering::Release);
    }

    fn last_retention(&self) -> Option<Retention> {
        let size = self.size.load(Ordering::Acquire);
        let time = Duration::from_millis(self.time_ms.load(Ordering::Acquire));
        (size > 0).then_some(Retention { size, time })
    }
}

impl Router {
    /// Sets how much of the history of each user is kept; `None` switches the histories off.
    pub fn set_user_retention(&self, retention: Option<Retention>) {
        let histories = &self.table.user_histories;
        let was_off = histories.retention().is_none();
        histories.set(retention);
        if was_off && retention.is_some() {
            // A connection that comes meanwhile is in the table, or finds the new retention.
            for connection in self.table.connections() {
                histories.admit(&connection);
            }
        }
    }

    /// How much of the history of each user is kept; `None` if nothing is.
    pub fn user_retention(&self) -> Option<Retention> {
        self.table.user_histories.retention()
    }

    /// Makes `connection` reachable like [`Router::connect`], and lets it catch up with the history of its user. The messages
    /// of that history wait until [`Router::go_live`]. Returns `None` if the connection is gone.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if the history could not be read. The connection is reachable then, and gets live messages.
    pub async fn connect_with_history(
        &self,
        connection: &Arc<Connection>,
        join: HistoryJoin,
    ) -> Result<Option<JoinedHistory>, BrokerError> {
        let user = connection.user();
        let bytes_max = self.table.outbox_bytes_max();
        let rooms = &self.table.user_histories.rooms;
        let gated = rooms.join_gated(connection, user, join.retention, bytes_max);
        self.connect(connection).await;
        let Some((delivered, is_new)) = gated else {
            return Ok(None);
        };
        let (at, replay) = self
            .catch_up_or_give_up(connection, HistoryName::User(user), delivered, &join)
            .await?;
        Ok(Some(JoinedHistory {
            is_new,
            connections: 0,
            at,
            replay,
        }))
    }
}

#[cfg(test)]
mod tests;
