//! The users of this node in rooms with presence, with their connections.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use dashmap::DashMap;
use signalbox_broker::{MemberReport, MembersElsewhere};
use signalbox_protocol::{MemberInfo, timestamp::unix_millis};

use crate::Connection;

/// The users in each room with presence. The lock of a room is never held while the broker is called: the broker asks for
/// members under its own locks.
#[derive(Default)]
pub(crate) struct LocalMembers(DashMap<Arc<str>, HashMap<Arc<str>, LocalMember>>);

struct LocalMember {
    /// The numbers of the user's connections in the room.
    connections: Vec<u64>,
    since_ms: u64,
    info: Option<MemberInfo>,
}

/// Whether a connection is counted as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// It is not: the room has no presence, or it is no member.
    Off,
    /// It was already.
    Already,
    /// It is from now on.
    New,
}

impl LocalMembers {
    /// Counts `connection` if `is_on`, which is called under the lock of the room: a later change finds the connection here.
    pub(super) fn count(
        &self,
        connection: &Connection,
        room: &str,
        is_on: impl FnOnce() -> bool,
    ) -> Counting {
        let mut users = self.0.entry(room.into()).or_default();
        // Under the lock too: a later change of it finds the connection here.
        let info = connection.member_info(room);
        let counting = if is_on() {
            insert(&mut users, connection, info)
        } else {
            Counting::Off
        };
        drop(users);
        self.remove_if_empty(room);
        counting
    }

    /// Counts `connection` before it joins, if `is_on`, which is called under the lock of the room. Returns `false` if the room
    /// would have more than `max` users, with those `elsewhere`.
    pub(super) fn reserve(
        &self,
        connection: &Connection,
        room: &str,
        max: usize,
        elsewhere: MembersElsewhere,
        is_on: impl FnOnce() -> bool,
    ) -> bool {
        let mut users = self.0.entry(room.into()).or_default();
        let info = connection.member_info(room);
        let has_place = elsewhere.has_user
            || users.contains_key(connection.user())
            || users.len() + elsewhere.users < max;
        if is_on() && has_place {
            insert(&mut users, connection, info);
        }
        drop(users);
        self.remove_if_empty(room);
        has_place
    }

    /// Shows the current `info` of `connection`, and returns whether it is another one than before.
    pub(super) fn refresh(&self, connection: &Connection, room: &str) -> bool {
        let info = connection.member_info(room);
        let Some(mut users) = self.0.get_mut(room) else {
            return false;
        };
        let Some(member) = users.get_mut(connection.user()) else {
            return false;
        };
        let is_changed = member.info != info && member.connections.contains(&connection.number());
        if is_changed {
            member.info = info;
        }
        is_changed
    }

    /// Removes `connection`, and returns whether it was counted.
    pub(super) fn remove(&self, connection: &Connection, room: &str) -> bool {
        let Some(mut users) = self.0.get_mut(room) else {
            return false;
        };
        let Some(member) = users.get_mut(connection.user()) else {
            return false;
        };
        let before = member.connections.len();
        member
            .connections
            .retain(|number| *number != connection.number());
        let was_counted = member.connections.len() < before;
        if member.connections.is_empty() {
            users.remove(connection.user());
        }
        drop(users);
        self.remove_if_empty(room);
        was_counted
    }

    /// Removes the rooms that are not to be kept, and returns their users, each with the room.
    pub(super) fn retain(&self, is_kept: impl Fn(&str) -> bool) -> Vec<(Arc<str>, Arc<str>)> {
        let mut removed = Vec::new();
        self.0.retain(|room, users| {
            let is_kept = is_kept(room);
            if !is_kept {
                removed.extend(users.keys().map(|user| (room.clone(), user.clone())));
            }
            is_kept
        });
        removed
    }

    pub(crate) fn member(&self, room: &str, user: &str) -> Option<MemberReport> {
        let users = self.0.get(room)?;
        let (user, member) = users.get_key_value(user)?;
        Some(member.report(user))
    }

    pub(crate) fn members(&self, room: &str) -> Vec<MemberReport> {
        self.0.get(room).map_or_else(Vec::new, |users| {
            let reports = users.iter().map(|(user, member)| member.report(user));
            reports.collect()
        })
    }

    /// All users, each with the room.
    pub(crate) fn all(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let rooms = self.0.iter();
        let users = rooms.flat_map(|entry| {
            let room = entry.key().clone();
            let users: Vec<Arc<str>> = entry.value().keys().cloned().collect();
            users.into_iter().map(move |user| (room.clone(), user))
        });
        users.collect()
    }

    /// The number of users in `room`.
    pub(super) fn len(&self, room: &str) -> usize {
        self.0.get(room).map_or(0, |users| users.len())
    }

    /// The number of users in all rooms, once for each room.
    pub(super) fn users(&self) -> usize {
        self.0.iter().map(|users| users.len()).sum()
    }

    fn remove_if_empty(&self, room: &str) {
        self.0.remove_if(room, |_, users| users.is_empty());
    }
}

impl LocalMember {
    fn report(&self, user: &Arc<str>) -> MemberReport {
        MemberReport {
            user: user.clone(),
            connections: self.connections.len(),
            since_ms: self.since_ms,
            info: self.info.clone(),
        }
    }
}

fn insert(
    users: &mut HashMap<Arc<str>, LocalMember>,
    connection: &Connection,
    info: Option<MemberInfo>,
) -> Counting {
    let member = users
        .entry(connection.user().into())
        .or_insert_with(|| LocalMember {
            connections: Vec::new(),
            since_ms: unix_millis(SystemTime::now()),
            info: None,
        });
    if member.connections.contains(&connection.number()) {
        return Counting::Already;
    }
    member.connections.push(connection.number());
    member.info = info;
    Counting::New
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::connection;

    const NOBODY: MembersElsewhere = MembersElsewhere {
        users: 0,
        has_user: false,
        is_exact: true,
    };

    #[test]
    fn a_user_is_a_member_from_the_first_connection_to_the_last() {
        let local = LocalMembers::default();
        let (one, two) = (connection("ann"), connection("ann"));
        assert_eq!(local.count(&one, "r", || true), Counting::New);
        assert_eq!(local.count(&one, "r", || true), Counting::Already);
        assert_eq!(local.count(&two, "r", || true), Counting::New);
        let connections =
            |local: &LocalMembers| local.member("r", "ann").map(|ann| ann.connections);
        assert_eq!(connections(&local), Some(2));
        assert!(local.remove(&one, "r") && !local.remove(&one, "r"));
        assert_eq!(connections(&local), Some(1));
        assert!(local.remove(&two, "r"));
        assert_eq!((connections(&local), local.len("r")), (None, 0));
        assert!(local.0.is_empty());
    }

    #[test]
    fn a_connection_that_is_gone_by_then_is_not_counted() {
        let local = LocalMembers::default();
        assert_eq!(
            local.count(&connection("ann"), "r", || false),
            Counting::Off
        );
        assert!(local.0.is_empty());
    }

    #[test]
    fn places_are_limited_by_users_of_all_nodes_and_not_by_connections() {
        let local = LocalMembers::default();
        let elsewhere = |users, has_user| MembersElsewhere {
            users,
            has_user,
            ..NOBODY
        };
        let reserve =
            |user: &str, elsewhere| local.reserve(&connection(user), "r", 3, elsewhere, || true);
        assert!(!reserve("ann", elsewhere(3, false)));
        assert!(reserve("ann", elsewhere(3, true)), "it is there already");
        assert!(reserve("ann", elsewhere(3, false)), "it is here already");
        assert!(reserve("bob", elsewhere(1, false)));
        assert!(!reserve("eve", elsewhere(1, false)));
        assert!(reserve("eve", NOBODY));
        assert_eq!(local.len("r"), 3);
    }

    #[test]
    fn rooms_that_lose_presence_lose_their_members() {
        let local = LocalMembers::default();
        local.count(&connection("ann"), "a", || true);
        local.count(&connection("bob"), "b", || true);
        let removed = local.retain(|room| room == "a");
        let bob: (Arc<str>, Arc<str>) = ("b".into(), "bob".into());
        assert_eq!(removed, [bob]);
        assert_eq!((local.len("a"), local.len("b")), (1, 0));
        assert_eq!(local.users(), 1);
    }
}
