//! Notices of changed routes and members, so that other nodes stop using what they know of them.
//!
//! One text for each batch that was written, on a channel to which only nodes listen. It carries nothing that is not
//! in Redis too: if a notice about a route is lost, the old route is used until its cache entry expires. A notice about members is
//! published until Redis takes it, and a node that gets none checks all rooms once it listens again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{held::HeldMessages, keys::RouteName, lookup::Lookup};
use crate::LocalNode;

/// The type of notices. Nothing else on the channel has it.
const TYPE: &str = "signalbox.routes";

/// Names that changed.
#[derive(Debug, Default)]
pub(super) struct ChangedNames<'n> {
    /// Users with a changed route.
    pub(super) users: Vec<&'n str>,
    /// Rooms with a changed route.
    pub(super) rooms: Vec<&'n str>,
    /// Rooms with changed members.
    pub(super) members: BTreeSet<&'n str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Notice<S: Ord> {
    r#type: S,
    users: Vec<S>,
    rooms: Vec<S>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    members: BTreeSet<S>,
}

impl ChangedNames<'_> {
    /// The notice about them; `None` if there are none.
    pub(super) fn text(self) -> Option<String> {
        if self.users.is_empty() && self.rooms.is_empty() && self.members.is_empty() {
            return None;
        }
        let notice = Notice {
            r#type: TYPE,
            users: self.users,
            rooms: self.rooms,
            members: self.members,
        };
        // Strings in lists always serialize.
        Some(serde_json::to_string(&notice).unwrap_or_default())
    }
}

/// Handles a notice: drops these routes from the cache, wakes messages that wait for these users, and has the node
/// look at the members of these rooms.
///
/// # Errors
/// Returns the reason if it cannot be understood.
pub(super) fn handle(
    text: &str,
    lookup: &Lookup,
    held: &HeldMessages,
    node: &dyn LocalNode,
) -> Result<(), String> {
    let notice: Notice<String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if notice.r#type != TYPE {
        return Err(format!("its type is not {TYPE:?}"));
    }
    for user in &notice.users {
        lookup.changed(RouteName::User(user));
        held.poke(user);
    }
    for room in &notice.rooms {
        lookup.changed(RouteName::Room(room));
    }
    for room in &notice.members {
        node.members_changed(room);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_carries_every_name() {
        let names = ChangedNames {
            users: vec!["u\"\n1", "\u{0}ä"],
            rooms: vec!["r"],
            members: ["m", "n", "m"].into(),
        };
        let text = names.text().expect("there are names");
        let notice: Notice<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(notice.users, ["u\"\n1", "\u{0}ä"]);
        assert_eq!(notice.rooms, ["r"]);
        assert_eq!(notice.members.into_iter().collect::<Vec<_>>(), ["m", "n"]);
        assert_eq!(notice.r#type, TYPE);
        assert_eq!(ChangedNames::default().text(), None);
    }

    #[test]
    fn a_notice_without_members_is_read_as_before() {
        let text = r#"{"type":"signalbox.routes","users":["u"],"rooms":[]}"#;
        let notice: Notice<String> = serde_json::from_str(text).unwrap();
        assert!(notice.members.is_empty());
        let names = ChangedNames {
            users: vec!["u"],
            ..ChangedNames::default()
        };
        assert_eq!(names.text().as_deref(), Some(text));
    }
}
