//! Rooms and members, as they are reported.

use std::sync::Arc;

use signalbox_config::WebhookEvent;

use crate::event::EventDetail;

/// A room, or a user in a room with presence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WatchedName {
    Room(Arc<str>),
    Member { room: Arc<str>, user: Arc<str> },
}

impl WatchedName {
    pub(crate) fn room(&self) -> &str {
        match self {
            Self::Room(room) | Self::Member { room, .. } => room,
        }
    }

    /// The events that report that it came, and that it went.
    pub(crate) const fn events(&self) -> (WebhookEvent, WebhookEvent) {
        match self {
            Self::Room(_) => (WebhookEvent::RoomOccupied, WebhookEvent::RoomVacated),
            Self::Member { .. } => (WebhookEvent::MemberJoined, WebhookEvent::MemberLeft),
        }
    }

    pub(crate) fn detail(&self) -> EventDetail<'_> {
        let user_id = match self {
            Self::Room(_) => None,
            Self::Member { user, .. } => Some(&**user),
        };
        EventDetail {
            room: Some(self.room()),
            user_id,
            ..EventDetail::default()
        }
    }

    /// As noted in the queue: a JSON array of the room, and the user if it is a member.
    pub(crate) fn encode(&self) -> String {
        let parts: &[&str] = match self {
            Self::Room(room) => &[room],
            Self::Member { room, user } => &[room, user],
        };
        // Texts always serialize.
        serde_json::to_string(parts).unwrap_or_default()
    }

    /// The name that was noted as `text`; `None` if it is malformed.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let parts: Vec<String> = serde_json::from_str(text).ok()?;
        match <[String; 2]>::try_from(parts) {
            Ok([room, user]) => Some(Self::Member {
                room: room.into(),
                user: user.into(),
            }),
            Err(parts) => match <[String; 1]>::try_from(parts) {
                Ok([room]) => Some(Self::Room(room.into())),
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_names_are_unique_and_read_back_unchanged() {
        let room = WatchedName::Room("a\",\"b".into());
        let member = WatchedName::Member {
            room: "a".into(),
            user: "b".into(),
        };
        assert_ne!(room.encode(), member.encode());
        for name in [room, member] {
            assert_eq!(WatchedName::decode(&name.encode()), Some(name));
        }
        for malformed in ["", "[]", "[1]", "a", "[\"a\",\"b\",\"c\"]"] {
            assert_eq!(WatchedName::decode(malformed), None, "{malformed}");
        }
    }
}
