//! The rooms that plugins read in tests, as cases describe them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::value::RawValue;
use signalbox::{
    config::{Limits, PresenceConfig},
    plugin::{RoomMember, RoomMessage, RoomState, RoomStateError},
    protocol::{EventType, RoomName, UserId},
};

/// The rooms of a file or of a case, by name.
pub(super) type DescribedRooms = BTreeMap<String, DescribedRoom>;

/// The contents of a room.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DescribedRoom {
    /// The connections in the room; those of its `members` if it is missing.
    count: Option<u32>,
    /// `None` if the room has no presence.
    members: Option<Vec<DescribedMember>>,
    /// `None` if the room has no history.
    history: Option<Vec<DescribedMessage>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedMember {
    user: String,
    #[serde(default = "one")]
    connections: u32,
    #[serde(default)]
    info: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedMessage {
    offset: u64,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    sender: String,
    payload: Box<RawValue>,
    /// Milliseconds since 1970.
    #[serde(default)]
    timestamp: u64,
}

fn one() -> u32 {
    1
}

/// Checks the names and the order in `rooms`.
///
/// # Errors
/// Returns a text that says what is wrong, and in which room.
pub(super) fn check(rooms: &DescribedRooms) -> Result<(), String> {
    for (name, room) in rooms {
        room.check(name)
            .map_err(|error| format!("room {name:?}: {error}"))?;
    }
    Ok(())
}

impl DescribedRoom {
    fn check(&self, name: &str) -> Result<(), String> {
        if RoomName::parse(name).is_none() {
            return Err("the name of a room has 1 to 255 bytes".to_owned());
        }
        let mut members = self.members.iter().flatten();
        if members.any(|member| UserId::parse(member.user.as_str()).is_none()) {
            return Err("`user` has 1 to 255 bytes".to_owned());
        }
        let history = self.history.as_deref().unwrap_or_default();
        if !history.is_sorted_by(|one, next| one.offset < next.offset) {
            return Err("each `offset` must be greater than the one before".to_owned());
        }
        let unsendable = |message: &&DescribedMessage| {
            EventType::parse_sendable(message.event_type.as_str()).is_err()
        };
        match history.iter().find(unsendable) {
            Some(message) => Err(format!("no message has the type {:?}", message.event_type)),
            None => Ok(()),
        }
    }

    fn members(&self) -> Option<Vec<RoomMember>> {
        let members = self.members.as_ref()?.iter().map(|member| RoomMember {
            user: member.user.clone(),
            connections: member.connections,
            info: member.info.as_deref().map(|info| info.get().to_owned()),
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by(|one, other| one.user.cmp(&other.user));
        members.truncate(PresenceConfig::default().members_max);
        Some(members)
    }

    fn history(&self, before: Option<u64>, limit: u32) -> Option<Vec<RoomMessage>> {
        let all = self.history.as_ref()?.iter();
        let kept = all.filter(|message| before.is_none_or(|before| message.offset < before));
        let kept: Vec<_> = kept
            .map(|message| RoomMessage {
                offset: message.offset,
                event_type: message.event_type.clone(),
                sender: message.sender.clone(),
                payload: message.payload.get().to_owned(),
                timestamp_ms: message.timestamp,
            })
            .collect();
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let most = most.min(Limits::default().history_replay_max);
        Some(kept[kept.len().saturating_sub(most)..].to_vec())
    }
}

/// Answers what the current case describes.
#[derive(Default)]
pub(super) struct TestRooms(Mutex<DescribedRooms>);

impl TestRooms {
    /// Makes `rooms` the ones that plugins read.
    pub(super) fn set(&self, rooms: &DescribedRooms) {
        self.rooms().clone_from(rooms);
    }

    fn rooms(&self) -> MutexGuard<'_, DescribedRooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, name: &str) -> DescribedRoom {
        self.rooms().get(name).cloned().unwrap_or_default()
    }
}

impl RoomState for TestRooms {
    fn count<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<u32, RoomStateError>> {
        let room = self.room(room);
        let members = room.members.iter().flatten();
        let connections = members.map(|member| member.connections).sum();
        let count = room.count.unwrap_or(connections);
        async move { Ok(count) }.boxed()
    }

    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomMember>, RoomStateError>> {
        let members = self.room(room).members();
        async move { members.ok_or(RoomStateError::SwitchedOff) }.boxed()
    }

    fn history<'a>(
        &'a self,
        room: &'a str,
        before: Option<u64>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<RoomMessage>, RoomStateError>> {
        let history = self.room(room).history(before, limit);
        async move { history.ok_or(RoomStateError::SwitchedOff) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(text: &str) -> DescribedRooms {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn a_room_state_matches_its_description_and_other_rooms_are_empty() {
        let described = rooms(
            r#"{"r":{"members":[{"user":"eve"},{"user":"ann","connections":2,"info":{"n": 1}}],
                "history":[{"offset":7,"type":"a","payload":1},{"offset":8,"type":"b","payload":2}]}}"#,
        );
        assert_eq!(check(&described), Ok(()));
        let state = TestRooms::default();
        state.set(&described);
        assert_eq!(state.count("r").await, Ok(3));
        let members = state.members("r").await.unwrap();
        assert_eq!((&*members[0].user, &*members[1].user), ("ann", "eve"));
        assert_eq!(members[0].info.as_deref(), Some(r#"{"n": 1}"#));
        let offsets = async |before, limit| {
            let history = state.history("r", before, limit).await.unwrap();
            history.iter().map(|kept| kept.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(None, 9).await, [7, 8]);
        assert_eq!(offsets(None, 1).await, [8]);
        assert_eq!(offsets(Some(8), 9).await, [7]);
        let off = Err(RoomStateError::SwitchedOff);
        assert_eq!(state.count("other").await, Ok(0));
        assert_eq!(state.members("other").await, off);
    }

    #[test]
    fn a_room_that_cannot_exist_is_named() {
        let backwards =
            r#"[{"offset":8,"type":"a","payload":1},{"offset":7,"type":"a","payload":1}]"#;
        for (text, part) in [
            (r#"{"":{}}"#.to_owned(), "1 to 255 bytes"),
            (r#"{"r":{"members":[{"user":""}]}}"#.to_owned(), "`user`"),
            (format!(r#"{{"r":{{"history":{backwards}}}}}"#), "greater"),
            (
                r#"{"r":{"history":[{"offset":1,"type":"join","payload":1}]}}"#.to_owned(),
                "\"join\"",
            ),
        ] {
            let error = check(&rooms(&text)).expect_err(&text);
            assert!(
                error.starts_with("room ") && error.contains(part),
                "{error}"
            );
        }
    }
}
