//! Messages to send.

use serde_json::Value;

use crate::frames::OutgoingFrame;

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    event_type: String,
    payload: Value,
    to: Option<String>,
    room: Option<String>,
    once: bool,
}

impl Outgoing {
    /// A message of this type. With neither [`to`](Self::to) nor [`room`](Self::room) a plugin must handle its type.
    #[must_use]
    pub fn new(event_type: impl Into<String>) -> Self {
        Self {
            event_type: event_type.into(),
            payload: Value::Null,
            to: None,
            room: None,
            once: false,
        }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Value>) -> Self {
        self.payload = payload.into();
        self
    }

    /// To this user.
    #[must_use]
    pub fn to(mut self, user: impl Into<String>) -> Self {
        self.to = Some(user.into());
        self
    }

    /// To this room.
    #[must_use]
    pub fn room(mut self, room: impl Into<String>) -> Self {
        self.room = Some(room.into());
        self
    }

    /// The client sends it again after a lost connection, and the server does not act twice.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

impl From<Outgoing> for OutgoingFrame {
    fn from(message: Outgoing) -> Self {
        Self {
            event_type: message.event_type,
            payload: message.payload,
            to: message.to,
            room: message.room,
            id: String::new(),
            once: message.once,
        }
    }
}
