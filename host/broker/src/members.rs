//! The users in rooms with presence.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use signalbox_protocol::MemberInfo;

/// A user in a room with presence, as one node knows them, or all nodes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// The user's ID.
    pub user: Arc<str>,
    /// The user's connections in the room, at least 1.
    pub connections: usize,
    /// When the first of them joined: milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: u64,
    /// The claim `info` of the token of the last one that joined.
    pub info: Option<MemberInfo>,
}

/// The users in a room on other nodes, as one node counts them for a user who wants to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembersElsewhere {
    /// The number of users that are on other nodes and not on this one.
    pub users: usize,
    /// Whether the user who wants to join is among them.
    pub has_user: bool,
    /// Whether this is no rough count, which may be too high and never includes the user.
    pub is_exact: bool,
}

impl MembersElsewhere {
    /// Nobody but the user who wants to join.
    pub const ONLY_USER: Self = Self {
        users: 1,
        has_user: true,
        is_exact: true,
    };

    /// Counts `others`, who are on other nodes; `is_here` returns whether a user is on this node too.
    pub(crate) fn count<'u>(
        others: impl Iterator<Item = &'u str>,
        user: &str,
        is_here: impl Fn(&str) -> bool,
    ) -> Self {
        let users: HashSet<&str> = others.filter(|other| !is_here(other)).collect();
        Self {
            users: users.len(),
            has_user: users.contains(user),
            is_exact: true,
        }
    }
}

/// Adds up the reports of several nodes: one for each user, in the order of their IDs.
pub(crate) fn sum(reports: impl IntoIterator<Item = MemberReport>) -> Arc<[MemberReport]> {
    let mut users = BTreeMap::<Arc<str>, (MemberReport, u64)>::new();
    for report in reports {
        match users.entry(report.user.clone()) {
            Entry::Vacant(entry) => {
                let since = report.since_ms;
                entry.insert((report, since));
            }
            Entry::Occupied(mut entry) => add(entry.get_mut(), report),
        }
    }
    users.into_values().map(|(report, _)| report).collect()
}

/// Adds `other` to a sum. `newest` is the time of the node whose info the sum has: the last one that the user came to.
fn add((sum, newest): &mut (MemberReport, u64), other: MemberReport) {
    sum.connections = sum.connections.saturating_add(other.connections);
    sum.since_ms = sum.since_ms.min(other.since_ms);
    if other.since_ms > *newest {
        *newest = other.since_ms;
        sum.info = other.info;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(user: &str, connections: usize, since_ms: u64) -> MemberReport {
        MemberReport {
            user: user.into(),
            connections,
            since_ms,
            info: MemberInfo::parse(&format!(r#"{{"n":{since_ms}}}"#)),
        }
    }

    #[test]
    fn a_user_on_several_nodes_is_one_with_all_connections_since_the_first() {
        let reports = [
            report("bob", 1, 7),
            report("ann", 2, 30),
            report("ann", 1, 10),
            report("ann", 4, 20),
        ];
        let mut ann = report("ann", 7, 30);
        ann.since_ms = 10;
        assert_eq!(*sum(reports), [ann, report("bob", 1, 7)]);
        assert!(sum([]).is_empty());
    }

    #[test]
    fn users_with_local_connections_are_not_counted_as_remote() {
        let count = |user| {
            let others = ["ann", "bob", "bob", "here"].into_iter();
            MembersElsewhere::count(others, user, |other| other == "here")
        };
        for (user, has_user) in [("bob", true), ("eve", false), ("here", false)] {
            let expected = MembersElsewhere {
                users: 2,
                has_user,
                is_exact: true,
            };
            assert_eq!(count(user), expected);
        }
    }
}
