//! Shorthands for the values that a plugin returns.

use serde::Serialize;

use crate::{
    Action, Destination, Disconnection, Draft, Message, Rejection, Reply,
    bindings::imports::signalbox::plugin::{room_state::RoomError, store::StoreError},
    payload,
};

impl Destination {
    /// Every connection of the user called `id`.
    pub fn user(id: impl Into<String>) -> Self {
        Self::User(id.into())
    }

    /// Every member of the room called `name`.
    pub fn room(name: impl Into<String>) -> Self {
        Self::Room(name.into())
    }
}

impl Draft {
    /// Creates a message to `to` with `payload` as JSON.
    ///
    /// ```
    /// use signalbox_plugin::{Destination, Draft};
    ///
    /// let draft = Draft::new("game.move", Destination::room("table-7"), &["e2", "e4"])?;
    /// assert_eq!(draft.payload, r#"["e2","e4"]"#);
    /// # Ok::<(), signalbox_plugin::Rejection>(())
    /// ```
    ///
    /// # Errors
    /// Fails as [`payload::to_json`] does.
    pub fn new<T: Serialize + ?Sized>(
        event_type: impl Into<String>,
        to: impl Into<Option<Destination>>,
        payload: &T,
    ) -> Result<Self, Rejection> {
        Ok(Self {
            event_type: event_type.into(),
            destination: to.into(),
            payload: payload::to_json(payload)?,
        })
    }
}

impl Message {
    /// Returns this message with a new payload, for [`Outcome::Changed`](crate::Outcome::Changed).
    ///
    /// # Errors
    /// Fails as [`payload::to_json`] does.
    pub fn with_payload<T: Serialize + ?Sized>(&self, payload: &T) -> Result<Draft, Rejection> {
        Draft::new(self.event_type.as_str(), self.destination.clone(), payload)
    }
}

impl Action {
    /// Sends a message from the platform to the connection that the call is about.
    ///
    /// ```
    /// use signalbox_plugin::Action;
    ///
    /// let action = Action::reply("quiz.score", &42)?;
    /// # assert!(matches!(action, Action::Announce(draft) if draft.payload == "42"));
    /// # Ok::<(), signalbox_plugin::Rejection>(())
    /// ```
    ///
    /// # Errors
    /// Fails as [`payload::to_json`] does.
    pub fn reply<T: Serialize + ?Sized>(
        event_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self, Rejection> {
        Draft::new(event_type, Destination::Sender, payload).map(Self::Announce)
    }
}

impl Reply {
    /// Answers a request with `data` as JSON.
    ///
    /// # Errors
    /// Fails as [`payload::to_json`] does.
    pub fn new<T: Serialize + ?Sized>(data: &T) -> Result<Self, Rejection> {
        Ok(Self {
            data: payload::to_json(data)?,
            actions: Vec::new(),
        })
    }

    /// The same answer, with `actions`, which are carried out before it is sent.
    ///
    /// ```
    /// use signalbox_plugin::{Action, Reply};
    ///
    /// let reply = Reply::new(&true)?.with(vec![Action::Join("lobby".to_owned())]);
    /// assert_eq!((&*reply.data, reply.actions.len()), ("true", 1));
    /// # Ok::<(), signalbox_plugin::Rejection>(())
    /// ```
    #[must_use]
    pub fn with(self, actions: Vec<Action>) -> Self {
        Self { actions, ..self }
    }
}

impl Disconnection {
    /// Closes with `code`, 4000 to 4999: below 4500 the client reconnects by itself, from 4500 on it does not.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl Rejection {
    /// A rejection with a code for programs (1–64 of `a-z 0-9 _ . -`) and a reason for people.
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            reason: reason.into(),
        }
    }
}

/// Lets `?` turn a failed store operation into a refusal of the message.
impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge => Self::new("store_full", "there is no room to keep this"),
            StoreError::NotANumber => Self::new("store_value", "what is kept is not a number"),
            StoreError::TooManyCalls => {
                Self::new("store_calls", "this needs too many calls to the store")
            }
            StoreError::Unavailable => {
                Self::new("store_unavailable", "the store does not answer; try again")
            }
        }
    }
}

/// Lets `?` turn a failed reading of a room into a refusal of the message.
impl From<RoomError> for Rejection {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::SwitchedOff => Self::new(
                "room_switched_off",
                "this room does not keep what this needs",
            ),
            RoomError::Invalid => Self::new("room_invalid", "there is no such room"),
            RoomError::TooManyCalls => {
                Self::new("room_calls", "this needs too many calls to the server")
            }
            RoomError::Unavailable => {
                Self::new("room_unavailable", "the room cannot be read; try again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_draft_has_a_destination_or_none() {
        let to = |draft: Result<Draft, Rejection>| draft.map(|draft| draft.destination);
        assert_eq!(
            to(Draft::new("a", Destination::user("bob"), "x")),
            Ok(Some(Destination::User("bob".to_owned())))
        );
        assert_eq!(to(Draft::new("a", None, "x")), Ok(None));
    }

    #[test]
    fn another_payload_leaves_type_and_destination_alone() {
        let message = Message {
            destination: Some(Destination::room("r")),
            ..testing::message("a", "1")
        };
        assert_eq!(
            message.with_payload(&[1, 2]),
            Ok(Draft {
                event_type: "a".to_owned(),
                destination: Some(Destination::room("r")),
                payload: "[1,2]".to_owned(),
            })
        );
    }

    #[test]
    fn a_reply_goes_to_the_sender_alone_and_comes_from_the_platform() {
        let Ok(Action::Announce(draft)) = Action::reply("a", "x") else {
            panic!("a reply is an announcement");
        };
        assert_eq!(draft.destination, Some(Destination::Sender));
    }

    #[test]
    fn every_error_of_a_room_is_a_refusal_with_a_legal_code() {
        for error in [
            RoomError::SwitchedOff,
            RoomError::Invalid,
            RoomError::TooManyCalls,
            RoomError::Unavailable,
        ] {
            let code = Rejection::from(error).code;
            let is_legal = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(code.starts_with("room_") && code.bytes().all(is_legal));
        }
    }

    #[test]
    fn every_error_of_the_store_is_a_refusal_with_a_legal_code() {
        for error in [
            StoreError::TooLarge,
            StoreError::NotANumber,
            StoreError::TooManyCalls,
            StoreError::Unavailable,
        ] {
            let code = Rejection::from(error).code;
            assert!(
                code.starts_with("store_")
                    && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }
}
