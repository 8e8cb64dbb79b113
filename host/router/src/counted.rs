//! Changes of rooms after which the caller knows how many connections of the user are in the room.
//!
//! Such changes of one user happen one after another, each together with its count. So of several connections that join at the
//! same time one is the first, and of several that leave one is the last.

use std::{
    array,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Connection, LocalTable, Router};

/// Users share so many locks.
const LOCKS: usize = 64;

/// The locks under which the rooms of a user change and are counted. They are taken before all others.
pub(super) struct UserTurns {
    hasher: RandomState,
    locks: [Mutex<()>; LOCKS],
}

impl Default for UserTurns {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            locks: array::from_fn(|_| Mutex::default()),
        }
    }
}

impl UserTurns {
    fn take(&self, user: &str) -> MutexGuard<'_, ()> {
        let number = self.hasher.hash_one(user) as usize % LOCKS;
        let turn = self.locks[number].lock();
        turn.unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalTable {
    /// Carries out `change` of the membership of a connection of `user` in `room`, and counts the user's connections in it
    /// afterwards.
    pub(super) fn counted<T>(
        &self,
        user: &str,
        room: &str,
        change: impl FnOnce() -> T,
    ) -> (T, usize) {
        let _turn = self.user_turns.take(user);
        let result = change();
        (result, self.count_connections(user, room))
    }

    /// Removes `connection`. Returns its rooms, each with the number of the user's other connections in it.
    fn remove_counted(&self, connection: &Arc<Connection>) -> Vec<(Arc<str>, usize)> {
        let user = connection.user();
        let _turn = self.user_turns.take(user);
        let left = self.remove(connection).into_iter();
        left.map(|room| {
            let others = self.count_connections(user, &room);
            (room, others)
        })
        .collect()
    }

    fn count_connections(&self, user: &str, room: &str) -> usize {
        let entry = self.users.get(user);
        let connections = entry.iter().flat_map(|entry| &entry.connections);
        connections
            .filter(|connection| connection.is_member(room))
            .count()
    }
}

impl Router {
    /// Like [`Router::join`]. Returns the number of the user's connections on this node that are members of `room`; `None` if
    /// `connection` is a member already.
    pub async fn join_counted(&self, connection: &Arc<Connection>, room: &str) -> Option<usize> {
        let join = || self.table.rooms.join(connection, room);
        let (joined, count) = self.table.counted(connection.user(), room, join);
        self.settle_join(connection, room, joined).await;
        joined.then_some(count)
    }

    /// Like [`Router::leave`]. Returns the number of the user's connections on this node that are still members of `room`;
    /// `None` if `connection` was not a member.
    pub fn leave_counted(&self, connection: &Arc<Connection>, room: &str) -> Option<usize> {
        let leave = || self.table.leave(connection, room);
        let (left, count) = self.table.counted(connection.user(), room, leave);
        if left {
            self.ended_membership(connection, room);
        }
        left.then_some(count)
    }

    /// Like [`Router::disconnect`]. Returns the rooms that `connection` was in, each with the number of the user's connections
    /// on this node that are still members.
    pub fn disconnect_counted(&self, connection: &Arc<Connection>) -> Vec<(Arc<str>, usize)> {
        let left = self.table.remove_counted(connection);
        for (room, _) in &left {
            self.ended_membership(connection, room);
        }
        self.broker.user_changed(connection.user());
        left
    }
}
