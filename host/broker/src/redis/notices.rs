//! Notices of changed routes, so that other nodes stop using the routes that they have cached.
//!
//! One text for each batch of routes that was written, on a channel to which only nodes listen. It carries nothing that is not
//! in Redis too: if a notice is lost, the old route is used until its cache entry expires.

use serde::{Deserialize, Serialize};

use super::{held::HeldMessages, keys::RouteName, lookup::Lookup};

/// The type of notices. Nothing else on the channel has it.
const TYPE: &str = "signalbox.routes";

#[derive(Debug, Serialize, Deserialize)]
struct Notice<S> {
    r#type: S,
    users: Vec<S>,
    rooms: Vec<S>,
}

/// The notice that the routes of `names` changed.
pub(super) fn text<'n>(names: impl Iterator<Item = RouteName<'n>>) -> String {
    let mut notice = Notice {
        r#type: TYPE,
        users: Vec::new(),
        rooms: Vec::new(),
    };
    for name in names {
        match name {
            RouteName::User(user) => notice.users.push(user),
            RouteName::Room(room) => notice.rooms.push(room),
        }
    }
    // Strings in lists always serialize.
    serde_json::to_string(&notice).unwrap_or_default()
}

/// Handles a notice: drops these routes from the cache, and wakes messages that wait for these users.
///
/// # Errors
/// Returns the reason if it cannot be understood.
pub(super) fn handle(text: &str, lookup: &Lookup, held: &HeldMessages) -> Result<(), String> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_carries_every_name() {
        let names = [
            RouteName::User("u\"\n1"),
            RouteName::Room("r"),
            RouteName::User("\u{0}ä"),
        ];
        let notice: Notice<String> = serde_json::from_str(&text(names.into_iter())).unwrap();
        assert_eq!(notice.users, ["u\"\n1", "\u{0}ä"]);
        assert_eq!(notice.rooms, ["r"]);
        assert_eq!(notice.r#type, TYPE);
    }
}
