//! Learns of changes of the rooms of this node.

use std::sync::Arc;

#[cfg(doc)]
use signalbox_broker::LocalNode;

use super::{LocalTable, Router};

/// Is informed when the rooms of this node change. It looks up the state itself, so a call may come late, twice, or for
/// nothing. Never blocks.
pub trait RoomObserver: Send + Sync {
    /// The result of [`LocalNode::holds_room`] for `room` may have changed.
    fn room_changed(&self, room: &str);

    /// The result of [`LocalNode::member`] for `room` and `user` may have changed.
    fn member_changed(&self, room: &str, user: &str);

    /// Other nodes may have lost their knowledge of the rooms of this node.
    fn check_all(&self);
}

impl LocalTable {
    /// Informs `observer` of changes of rooms.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn RoomObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The rooms with members on this node.
    pub fn held_rooms(&self) -> Vec<Arc<str>> {
        self.rooms.names()
    }

    /// The users in rooms with presence on this node, each with the room.
    pub fn held_members(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.presence.local().all()
    }
}

impl Router {
    /// Informs other nodes, and the observer, that the members of `room` changed.
    pub(super) fn room_changed(&self, room: &str) {
        self.broker.room_changed(room);
        if let Some(observer) = &self.table.observer {
            observer.room_changed(room);
        }
    }

    /// Informs other nodes, and the observer, that `user` as a member of `room` changed.
    pub(super) fn member_changed(&self, room: &str, user: &str) {
        self.broker.member_changed(room, user);
        if let Some(observer) = &self.table.observer {
            observer.member_changed(room, user);
        }
    }
}
