//! Who is in a room: rooms with presence, their users on this node, and the members that want to know.
//!
//! [`LocalMembers`] counts the connections of each user, in rooms with presence only. The broker shares these counts with other
//! nodes, and knows the users of all nodes. [`WatchTable`] has the connections that asked for presence, and the task in [`task`]
//! informs them. It reads the users of a room when something changed there, and compares them with those that the members know:
//! its reports follow from the state and not from events, so they converge to the truth whatever was lost.

mod local;
mod roster;
pub(super) mod task;
mod watches;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use signalbox_broker::{BrokerError, MemberReport, MembersElsewhere};

use self::{
    local::{Counting, LocalMembers},
    watches::WatchTable,
};
use super::{Connection, LocalTable, Router};

/// Returns the most users of a room with presence, 0 for no limit; `None` for a room without presence.
pub type PresenceRule = Arc<dyn Fn(&str) -> Option<usize> + Send + Sync>;

/// The settings of presence. By default no room has it.
#[derive(Clone, Default)]
pub struct PresenceSettings {
    /// Time from the last connection of a user in a room to the report that the user left.
    pub grace: Duration,
    /// The shortest time between two reports about a room.
    pub flush: Duration,
    /// The most users of a room that are listed; of more, only the number is reported.
    pub listed_max: usize,
    /// The rooms with presence; `None` if there are none.
    pub rule: Option<PresenceRule>,
}

impl fmt::Debug for PresenceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceSettings")
            .field("grace", &self.grace)
            .field("flush", &self.flush)
            .field("listed_max", &self.listed_max)
            .finish_non_exhaustive()
    }
}

/// Why a connection gets no place in a room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceRefused {
    /// The room has as many users as its rule allows.
    #[error("the room has {0} users, as many as its rule allows")]
    Full(usize),
    /// It is unknown how many users it has.
    #[error(transparent)]
    Unknown(#[from] BrokerError),
}

/// The presence of this node.
#[derive(Default)]
pub(super) struct Presence {
    settings: RwLock<PresenceSettings>,
    /// Whether any room has presence. Without any, joins and leaves cost nothing more than this.
    has_rooms: AtomicBool,
    /// Whether anything was ever counted or watched.
    is_used: AtomicBool,
    local: LocalMembers,
    watches: WatchTable,
}

impl Presence {
    /// The users in `room` on this node.
    pub(super) fn local(&self) -> &LocalMembers {
        &self.local
    }

    /// The users of `room` may have changed on any node.
    pub(super) fn changed(&self, room: &str) {
        self.watches.changed(room);
    }

    /// The users of any room may have changed.
    pub(super) fn check_all(&self) {
        self.watches.check_all();
    }

    fn settings(&self) -> PresenceSettings {
        let settings = self.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rule of `room`; `None` if it has no presence.
    fn members_max(&self, room: &str) -> Option<usize> {
        if !self.has_rooms.load(Ordering::Acquire) {
            return None;
        }
        let settings = self.settings.read();
        let settings = settings.unwrap_or_else(PoisonError::into_inner);
        settings.rule.as_ref().and_then(|rule| rule(room))
    }

    fn has_presence(&self, room: &str) -> bool {
        self.members_max(room).is_some()
    }

    fn set(&self, settings: PresenceSettings) {
        let has_rooms = settings.rule.is_some();
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        self.has_rooms.store(has_rooms, Ordering::Release);
    }

    fn count(&self, connection: &Connection, room: &str) -> Counting {
        if !self.has_presence(room) {
            return Counting::Off;
        }
        self.is_used.store(true, Ordering::Release);
        let is_on = || self.has_presence(room) && connection.is_member(room);
        self.local.count(connection, room, is_on)
    }

    /// Shows the current `info` of a member. Returns whether it changed.
    pub(super) fn refresh(&self, connection: &Connection, room: &str) -> bool {
        self.has_presence(room) && self.local.refresh(connection, room)
    }

    /// Forgets a connection that left `room`. Returns whether it was counted.
    fn forget(&self, connection: &Connection, room: &str) -> bool {
        if !self.is_used.load(Ordering::Acquire) {
            return false;
        }
        self.watches.remove(connection, room);
        self.local.remove(connection, room)
    }
}

impl Router {
    /// Changes how members learn who is in their rooms, and which rooms have presence.
    pub fn set_presence(&self, settings: PresenceSettings) {
        let presence = &self.table.presence;
        presence.set(settings);
        for (room, user) in presence.local.retain(|room| presence.has_presence(room)) {
            self.member_changed(&room, &user);
        }
        presence
            .watches
            .restart(|room| !presence.has_presence(room));
        if !presence.has_rooms.load(Ordering::Acquire) {
            return;
        }
        let rooms = self
            .table
            .rooms
            .connections(|room| presence.has_presence(room));
        let mut counted = Vec::new();
        for (room, connections) in rooms {
            let new = connections.into_iter();
            let new = new.filter(|one| presence.count(one, &room) == Counting::New);
            counted.extend(new.map(|connection| (room.clone(), connection)));
        }
        // Not earlier: members get all users of their rooms at once.
        for (room, connection) in counted {
            self.member_changed(&room, connection.user());
        }
        presence.check_all();
    }

    /// Reserves a place in `room` for `connection`, which must call [`Router::join`] or [`Router::join_with_history`] next. A
    /// user who is in the room already has a place. Nodes that reserve the last places at the same time may give a few too many.
    ///
    /// # Errors
    /// Returns [`PlaceRefused`] if the room is full, or if that is unknown.
    pub async fn reserve_place(
        &self,
        connection: &Connection,
        room: &str,
    ) -> Result<(), PlaceRefused> {
        let presence = &self.table.presence;
        let max = presence.members_max(room).unwrap_or_default();
        if max == 0 {
            return Ok(());
        }
        presence.is_used.store(true, Ordering::Release);
        let (user, is_on) = (connection.user(), || presence.has_presence(room));
        let reserve = |elsewhere| {
            let local = &presence.local;
            local.reserve(connection, room, max, elsewhere, is_on)
        };
        if presence.local.member(room, user).is_some() && reserve(MembersElsewhere::ONLY_USER) {
            return Ok(());
        }
        let mut enough = max.saturating_sub(presence.local.len(room));
        loop {
            let elsewhere = self.broker.members_elsewhere(room, user, enough);
            let elsewhere = elsewhere.await?;
            if reserve(elsewhere) {
                return Ok(());
            }
            if elsewhere.is_exact {
                return Err(PlaceRefused::Full(max));
            }
            // Others took places here meanwhile.
            enough = 0;
        }
    }

    /// Informs `connection` about the users in `room` from now on, until it leaves, while the room has presence.
    pub fn watch_members(&self, connection: &Arc<Connection>, room: &str) {
        let presence = &self.table.presence;
        presence.is_used.store(true, Ordering::Release);
        presence.watches.add(connection, room);
    }

    /// The users in `room` on all nodes, in the order of their IDs; `None` if it has no presence.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if they cannot be read.
    pub async fn members(&self, room: &str) -> Result<Option<Arc<[MemberReport]>>, BrokerError> {
        if !self.table.presence.has_presence(room) {
            return Ok(None);
        }
        self.broker.members(room).await.map(Some)
    }

    /// The users of this node in rooms with presence, once for each room.
    pub fn present_users(&self) -> usize {
        self.table.presence.local.users()
    }

    /// Counts a connection that joined `room`, and returns once other nodes can see it, or once it is clear that they cannot
    /// now.
    pub(super) async fn count_member(&self, connection: &Connection, room: &str) {
        if self.table.presence.count(connection, room) != Counting::Off {
            self.member_changed(room, connection.user());
            self.broker.member_settled(room, connection.user()).await;
        }
    }

    /// Ends the presence of a connection that left `room`, or did not join it after all.
    pub(super) fn forget_member(&self, connection: &Connection, room: &str) {
        if self.table.presence.forget(connection, room) {
            self.member_changed(room, connection.user());
        }
    }
}

impl LocalTable {
    /// The bytes that the list of a room's users may take: it must fit into the outbox of a member.
    fn list_bytes_max(&self) -> usize {
        self.outbox_bytes_max() / 2
    }
}
