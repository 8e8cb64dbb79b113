//! The connected users and the rooms, with the writers of their connections.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::socket::SharedWriter;

/// The members of one room.
pub(super) type Room = RwLock<Vec<Arc<SharedWriter>>>;

/// Connected users and rooms by name.
#[derive(Debug, Default)]
pub(super) struct Registry {
    users: RwLock<HashMap<Box<str>, Arc<SharedWriter>>>,
    rooms: RwLock<HashMap<Box<str>, Arc<Room>>>,
}

impl Registry {
    /// The connection of a user, if there is one.
    pub(super) fn user(&self, user: &str) -> Option<Arc<SharedWriter>> {
        read(&self.users).get(user).cloned()
    }

    /// Adds a user and closes an older connection of the same user. Dropping the guard removes the user again.
    pub(super) fn enter(self: &Arc<Self>, user: &str, writer: &Arc<SharedWriter>) -> UserGuard {
        if let Some(older) = write(&self.users).insert(user.into(), Arc::clone(writer)) {
            older.close();
        }
        UserGuard {
            registry: Arc::clone(self),
            user: user.into(),
            writer: Arc::clone(writer),
        }
    }

    /// Adds a member to a room. A room exists from its first member to its last.
    pub(super) fn join(self: &Arc<Self>, room: &str, writer: &Arc<SharedWriter>) -> RoomGuard {
        let mut rooms = write(&self.rooms);
        let members = Arc::clone(rooms.entry(room.into()).or_default());
        write(&members).push(Arc::clone(writer));
        RoomGuard {
            registry: Arc::clone(self),
            name: room.into(),
            members,
            writer: Arc::clone(writer),
        }
    }
}

/// A user's entry; dropping it removes exactly this connection.
#[derive(Debug)]
pub(super) struct UserGuard {
    registry: Arc<Registry>,
    user: Box<str>,
    writer: Arc<SharedWriter>,
}

impl Drop for UserGuard {
    fn drop(&mut self) {
        let mut users = write(&self.registry.users);
        if users
            .get(&self.user)
            .is_some_and(|current| Arc::ptr_eq(current, &self.writer))
        {
            users.remove(&self.user);
        }
    }
}

/// A membership; dropping it leaves the room.
#[derive(Debug)]
pub(super) struct RoomGuard {
    registry: Arc<Registry>,
    name: Box<str>,
    members: Arc<Room>,
    writer: Arc<SharedWriter>,
}

impl RoomGuard {
    /// The current members.
    pub(super) fn members(&self) -> RwLockReadGuard<'_, Vec<Arc<SharedWriter>>> {
        read(&self.members)
    }
}

impl Drop for RoomGuard {
    fn drop(&mut self) {
        // Locks rooms before members, as in `join`: an empty room must not be removed while a member joins it.
        let mut rooms = write(&self.registry.rooms);
        let mut members = write(&self.members);
        members.retain(|member| !Arc::ptr_eq(member, &self.writer));
        if members.is_empty() {
            rooms.remove(&self.name);
        }
    }
}

/// The maps are consistent at every step, so a lock poisoned by a panic elsewhere can still be used.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
