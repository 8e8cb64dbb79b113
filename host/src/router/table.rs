//! The connections of this node: by user, by room, and all of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};

use super::{Connection, PushError, Pushed, cork};
use crate::{
    broker::{ConnectionReport, LISTED_MAX, LocalNode, Target, UserRequest},
    metrics::{DropReason, Metrics},
    protocol::Frame,
};

/// Who is connected to this node.
///
/// Guards of the maps are held while frames are pushed into outboxes, which never waits, and never across an `await`.
pub struct LocalTable {
    users: DashMap<Box<str>, UserEntry>,
    rooms: DashMap<Arc<str>, RoomEntry>,
    all: DashMap<u64, Arc<Connection>>,
    slots: AtomicUsize,
    outbox_bytes_max: AtomicUsize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct UserEntry {
    /// Connections and upgrades under way.
    slots: usize,
    connections: Vec<Arc<Connection>>,
}

#[derive(Default)]
struct RoomEntry {
    members: HashMap<u64, Arc<Connection>>,
    /// The members as a list, made by the first message after a change: so a message to a large room does not hold
    /// the room while it goes out.
    list: Option<Arc<[Arc<Connection>]>>,
}

/// The right to be connected: taken before the upgrade, given back when it is dropped.
pub struct Slot {
    table: Arc<LocalTable>,
    user: Box<str>,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotRefused {
    /// The user has as many connections as one may have.
    #[error("too many connections of this user")]
    User,
    /// The node has as many connections as it may have.
    #[error("this node has no room for another connection")]
    Node,
}

impl LocalTable {
    /// An empty table; each outbox is bounded by `outbox_bytes_max`.
    pub fn new(outbox_bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            users: DashMap::new(),
            rooms: DashMap::new(),
            all: DashMap::new(),
            slots: AtomicUsize::new(0),
            outbox_bytes_max: AtomicUsize::new(outbox_bytes_max),
            metrics,
        }
    }

    /// Changes the bound of every outbox, also of those that exist.
    pub fn set_outbox_bytes_max(&self, bytes: usize) {
        self.outbox_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Takes a slot for a connection of `user`, where at most `per_user` and `in_all` are taken then; 0: no limit.
    ///
    /// # Errors
    /// [`SlotRefused`] with the limit that is reached.
    pub fn reserve(
        self: &Arc<Self>,
        user: &str,
        per_user: usize,
        in_all: usize,
    ) -> Result<Slot, SlotRefused> {
        let taken = self.slots.fetch_add(1, Ordering::Relaxed) + 1;
        if in_all > 0 && taken > in_all {
            self.slots.fetch_sub(1, Ordering::Relaxed);
            return Err(SlotRefused::Node);
        }
        let mut entry = self.users.entry(user.into()).or_default();
        if per_user > 0 && entry.slots >= per_user {
            self.slots.fetch_sub(1, Ordering::Relaxed);
            return Err(SlotRefused::User);
        }
        entry.slots += 1;
        drop(entry);
        self.metrics.active_connections.add(1);
        Ok(Slot {
            table: self.clone(),
            user: user.into(),
        })
    }

    /// Puts `frame` into one connection's outbox, sees to it that it is written, and says whether it was taken.
    pub fn push(&self, connection: &Arc<Connection>, frame: Frame) -> bool {
        let pushed = self.try_push(connection, frame);
        if pushed == Err(PushError::Closing) {
            self.metrics
                .messages_dropped
                .of(DropReason::Closing)
                .increment();
        }
        pushed.is_ok()
    }

    /// The same; that it is being closed is not counted.
    fn try_push(&self, connection: &Arc<Connection>, frame: Frame) -> Result<(), PushError> {
        let pushed = connection
            .outbox()
            .push(frame, self.outbox_bytes_max.load(Ordering::Relaxed));
        match pushed {
            Ok(Pushed::Unwritten) if !cork::hold(connection) => {
                connection.outbox().wake_to_write();
            }
            Err(PushError::Full) => self
                .metrics
                .messages_dropped
                .of(DropReason::SlowConsumer)
                .increment(),
            Ok(_) | Err(PushError::Closing) => {}
        }
        pushed.map(drop)
    }

    /// Connections that are open, in no order.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.all.iter().map(|entry| entry.value().clone()).collect()
    }

    /// How many connections are open or being opened.
    pub fn len(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&self, connection: Arc<Connection>) {
        self.all.insert(connection.number(), connection.clone());
        let mut entry = self.users.entry(connection.user().into()).or_default();
        entry.connections.push(connection);
    }

    /// Takes `connection` out, and returns the rooms that it was in.
    pub(super) fn remove(&self, connection: &Arc<Connection>) -> BTreeSet<Arc<str>> {
        self.all.remove(&connection.number());
        if let Some(mut entry) = self.users.get_mut(connection.user()) {
            entry
                .connections
                .retain(|other| other.number() != connection.number());
        }
        let rooms = connection.retire();
        for room in &rooms {
            self.remove_member(connection, room);
        }
        rooms
    }

    pub(super) fn join(&self, connection: &Arc<Connection>, room: &str) -> bool {
        let name: Arc<str> = room.into();
        let mut entry = self.rooms.entry(name.clone()).or_default();
        // Noted under the room's lock: a connection that goes meanwhile finds the room in its list, waits for the
        // lock, and takes itself out again.
        if !connection.note_joined(name) {
            drop(entry);
            self.rooms
                .remove_if(room, |_, entry| entry.members.is_empty());
            return false;
        }
        entry.list = None;
        entry
            .members
            .insert(connection.number(), connection.clone());
        true
    }

    pub(super) fn leave(&self, connection: &Arc<Connection>, room: &str) -> bool {
        let left = connection.note_left(room);
        if left {
            self.remove_member(connection, room);
        }
        left
    }

    fn remove_member(&self, connection: &Connection, room: &str) {
        if let Entry::Occupied(mut entry) = self.rooms.entry(room.into()) {
            let room = entry.get_mut();
            room.list = None;
            room.members.remove(&connection.number());
            if room.members.is_empty() {
                entry.remove();
            }
        }
    }

    fn members(&self, room: &str) -> Option<Arc<[Arc<Connection>]>> {
        if let Some(list) = self.rooms.get(room)?.list.clone() {
            return Some(list);
        }
        let mut entry = self.rooms.get_mut(room)?;
        let list: Arc<[_]> = entry.members.values().cloned().collect();
        entry.list = Some(list.clone());
        Some(list)
    }
}

impl LocalNode for LocalTable {
    fn holds_user(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(|entry| {
            entry
                .connections
                .iter()
                .any(|open| !open.outbox().is_closing())
        })
    }

    fn holds_room(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize {
        let push = |connection: &Arc<Connection>| self.push(connection, frame.clone());
        let taken = match target {
            // A connection that is being closed is none of the user's any more. If there is no other, the message is not
            // lost yet: it may follow the user.
            Target::User(user) => self.users.get(user).map_or(0, |entry| {
                entry
                    .connections
                    .iter()
                    .filter(|connection| self.try_push(connection, frame.clone()).is_ok())
                    .count()
            }),
            Target::Room(room) => self.members(room).map_or(0, |list| {
                list.iter().filter(|connection| push(connection)).count()
            }),
            Target::Everyone => self.all.iter().filter(|entry| push(entry.value())).count(),
        };
        self.metrics.messages_delivered.add(taken as u64);
        taken
    }

    fn carry_out(&self, user: &str, request: &UserRequest) -> usize {
        let Some(entry) = self.users.get(user) else {
            return 0;
        };
        let open = entry
            .connections
            .iter()
            .filter(|connection| !connection.outbox().is_closing());
        match request {
            UserRequest::Count | UserRequest::List => open.count(),
            UserRequest::Disconnect { code, reason } => open
                .inspect(|connection| connection.outbox().close(*code, reason.as_str()))
                .count(),
            UserRequest::DisconnectOne {
                connection,
                code,
                reason,
            } => open
                .filter(|open| open.client().connection == *connection)
                .inspect(|one| one.outbox().close(*code, reason.as_str()))
                .count(),
        }
    }

    fn list(&self, user: &str) -> Vec<ConnectionReport> {
        let Some(entry) = self.users.get(user) else {
            return Vec::new();
        };
        entry
            .connections
            .iter()
            .filter(|connection| !connection.outbox().is_closing())
            .take(LISTED_MAX)
            .map(|connection| connection.report())
            .collect()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut entry) = self.table.users.get_mut(&self.user) {
            entry.slots -= 1;
        }
        self.table.users.remove_if(&self.user, |_, entry| {
            entry.slots == 0 && entry.connections.is_empty()
        });
        self.table.slots.fetch_sub(1, Ordering::Relaxed);
        self.table.metrics.active_connections.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientInfo, CloseCode};

    fn table() -> Arc<LocalTable> {
        Arc::new(LocalTable::new(1 << 20, Arc::default()))
    }

    fn connection(user: &str) -> Arc<Connection> {
        let client = ClientInfo {
            connection: format!("c-{user}"),
            user: user.to_owned(),
            claims: "{}".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            connected_at_ms: 0,
        };
        Arc::new(Connection::new(client, true))
    }

    fn frame() -> Frame {
        Frame::from("x".to_owned())
    }

    #[test]
    fn slots_are_bounded_by_user_and_by_node_and_come_back() {
        let table = table();
        let one = table.reserve("a", 2, 3).unwrap();
        let _two = table.reserve("a", 2, 3).unwrap();
        assert_eq!(table.reserve("a", 2, 3).err(), Some(SlotRefused::User));
        let _three = table.reserve("b", 2, 3).unwrap();
        assert_eq!(table.reserve("c", 2, 3).err(), Some(SlotRefused::Node));
        drop(one);
        assert!(table.reserve("a", 2, 3).is_ok());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_user_with_two_connections_gets_a_message_on_both_until_the_last_is_gone() {
        let table = table();
        let (one, two) = (connection("a"), connection("a"));
        table.insert(one.clone());
        table.insert(two.clone());
        assert_eq!(table.deliver(Target::User("a"), &frame()), 2);
        table.remove(&one);
        assert!(table.holds_user("a"));
        assert_eq!(table.deliver(Target::User("a"), &frame()), 1);
        table.remove(&two);
        assert!(!table.holds_user("a"));
    }

    #[test]
    fn a_users_connections_are_counted_and_closed_and_nobody_elses() {
        let table = table();
        let (one, two, other) = (connection("a"), connection("a"), connection("b"));
        for connection in [&one, &two, &other] {
            table.insert(connection.clone());
        }
        assert_eq!(table.carry_out("a", &UserRequest::Count), 2);
        assert_eq!(table.carry_out("nobody", &UserRequest::Count), 0);
        let only = UserRequest::DisconnectOne {
            connection: "c-b".to_owned(),
            code: CloseCode::KICKED,
            reason: String::new(),
        };
        assert_eq!(table.carry_out("a", &only), 0, "another user's");
        assert!(!other.outbox().is_closing());
        assert_eq!(table.list("a"), [one.report(), two.report()]);
        one.outbox().close(CloseCode::DRAIN, "");
        assert_eq!(table.list("a"), [two.report()]);
        let disconnect = UserRequest::Disconnect {
            code: CloseCode::KICKED,
            reason: "enough".to_owned(),
        };
        assert_eq!(table.carry_out("a", &disconnect), 1, "one goes already");
        assert_eq!(table.carry_out("a", &UserRequest::Count), 0);
        assert!(two.outbox().is_closing() && !other.outbox().is_closing());
    }

    #[test]
    fn members_join_once_and_a_room_goes_with_its_last_member() {
        let table = table();
        let (one, two) = (connection("a"), connection("b"));
        assert!(table.join(&one, "r") && !table.join(&one, "r") && table.join(&two, "r"));
        assert_eq!(table.deliver(Target::Room("r"), &frame()), 2);
        assert!(table.leave(&one, "r") && !table.leave(&one, "r"));
        assert_eq!(table.deliver(Target::Room("r"), &frame()), 1);
        assert_eq!(table.remove(&two).len(), 1);
        assert!(!table.holds_room("r") && table.rooms.is_empty());
    }

    #[test]
    fn a_connection_that_is_gone_cannot_join() {
        let table = table();
        let one = connection("a");
        table.remove(&one);
        assert!(!table.join(&one, "r"));
        assert!(table.rooms.is_empty());
    }

    #[test]
    fn a_full_outbox_is_counted_and_costs_the_others_nothing() {
        let table = table();
        let (slow, well) = (connection("a"), connection("b"));
        table.insert(slow.clone());
        table.insert(well);
        table.set_outbox_bytes_max(100);
        assert_eq!(table.deliver(Target::User("a"), &frame()), 1);
        assert_eq!(table.deliver(Target::User("a"), &frame()), 0);
        assert!(slow.outbox().is_closing());
        assert_eq!(table.deliver(Target::User("b"), &frame()), 1);
        assert_eq!(
            table
                .metrics
                .messages_dropped
                .of(DropReason::SlowConsumer)
                .get(),
            1
        );
    }
}
