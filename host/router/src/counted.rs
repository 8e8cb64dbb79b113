//! Changes of rooms after which the caller knows how many connections of the user are in the room.
//!
//! Such changes of one user happen one after another, each together with its count. So of several connections that join at the
//! same time one is the first, and of several that leave one is the last.

use std::sync::Arc;

use super::{Connection, LocalTable, Router};

impl LocalTable {
    /// Carries out `change` of the membership of a connection of `user` in `room`, and counts the user's connections in it
    /// afterwards. `change` must not look up users.
    pub(super) fn counted<T>(
        &self,
        user: &str,
        room: &str,
        change: impl FnOnce() -> T,
    ) -> (T, usize) {
        // Keeps other counted changes of the user out. Locks of rooms and connections are taken after that of users.
        let entry = self.users.get_mut(user);
        let result = change();
        let connections = entry.iter().flat_map(|entry| &entry.connections);
        let members = connections.filter(|connection| connection.is_member(room));
        (result, members.count())
    }

    /// Removes `connection`. Returns its rooms, each with the number of the user's other connections in it.
    fn remove_counted(&self, connection: &Arc<Connection>) -> Vec<(Arc<str>, usize)> {
        self.all.remove(&connection.number());
        let left: Vec<_> = {
            let mut entry = self.users.get_mut(connection.user());
            if let Some(entry) = &mut entry {
                let others = &mut entry.connections;
                others.retain(|other| other.number() != connection.number());
            }
            let rooms = connection.retire().into_iter();
            let count = |room: &str| {
                let others = entry.iter().flat_map(|entry| &entry.connections);
                others.filter(|other| other.is_member(room)).count()
            };
            rooms.map(|room| (room.clone(), count(&room))).collect()
        };
        for (room, _) in &left {
            self.rooms.remove(connection, room);
        }
        left
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
