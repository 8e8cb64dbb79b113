//! The frames of the protocol.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::error::Error;
use crate::events::{Member, Message};

/// A place in a history: the last message that the application got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// A position as the server reports it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Place {
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    offset: u64,
    pub(crate) recovered: Option<bool>,
    pub(crate) reason: Option<String>,
    /// The number of old messages that follow.
    #[serde(default)]
    count: u64,
}

impl Place {
    /// The position before the messages that follow. None if there is no history.
    pub(crate) fn start(&self) -> Option<Position> {
        (!self.epoch.is_empty()).then(|| Position {
            epoch: self.epoch.clone(),
            offset: self.offset.saturating_sub(self.count),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Limits {
    #[serde(rename = "frameBytesMax", default)]
    pub(crate) frame_bytes_max: usize,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Welcome {
    #[serde(rename = "userId", default)]
    pub(crate) user_id: String,
    #[serde(rename = "nodeId", default)]
    pub(crate) node_id: String,
    #[serde(rename = "heartbeatIntervalMs", default)]
    pub(crate) heartbeat_interval_ms: u64,
    #[serde(default)]
    pub(crate) limits: Limits,
    pub(crate) user: Option<Place>,
}

/// The payload of an `ack`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Ack {
    pub(crate) id: String,
    #[serde(rename = "messageId")]
    pub(crate) message_id: Option<String>,
    #[serde(default)]
    pub(crate) status: String,
    pub(crate) data: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) duplicate: bool,
    pub(crate) room: Option<Place>,
    pub(crate) history: Option<crate::events::Page>,
}

pub(crate) type Answered = Result<Ack, Error>;

/// The payload of `joined` and `left`.
#[derive(Debug, Deserialize)]
pub(crate) struct RoomPayload {
    #[serde(default)]
    pub(crate) room: String,
    /// Present in place of the room if it is about the messages to the user.
    pub(crate) user: Option<Place>,
    #[serde(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PresencePayload {
    pub(crate) room: String,
    #[serde(default)]
    pub(crate) total: u64,
    pub(crate) members: Option<Vec<Member>>,
    pub(crate) joined: Option<Vec<Member>>,
    pub(crate) left: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ExpiringPayload {
    #[serde(rename = "expiresInMs", default)]
    pub(crate) expires_in_ms: u64,
}

/// A frame of the client.
#[derive(Debug, Default, Serialize)]
pub(crate) struct OutgoingFrame {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) payload: Value,
    #[serde(rename = "receiverId", skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<String>,
    pub(crate) id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) once: bool,
}

impl OutgoingFrame {
    pub(crate) fn about(event_type: &str, room: Option<&str>) -> Self {
        Self {
            event_type: event_type.to_owned(),
            room: room.map(str::to_owned),
            ..Self::default()
        }
    }

    pub(crate) fn text(&self) -> String {
        // Strings, numbers and JSON values always have a text.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct JoinPayload<'j> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<&'j Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) presence: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<&'j str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryPayload {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
}

/// Reads a frame. All of them have the form of a message.
pub(crate) fn decode(text: &str) -> Result<Message, String> {
    let message: Message = serde_json::from_str(text)
        .map_err(|error| format!("a frame is not one of the protocol: {error}"))?;
    if message.event_type.is_empty() {
        return Err("a frame has no type".to_owned());
    }
    Ok(message)
}

/// Reads the payload of a built-in frame.
pub(crate) fn payload<'m, T: Deserialize<'m>>(message: &'m Message) -> Result<T, String> {
    serde_json::from_str(message.payload.get())
        .map_err(|error| format!("a frame of type {} is invalid: {error}", message.event_type))
}
