//! Encodes the frames that the server sends.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tungstenite::Utf8Bytes;

use super::{ErrorCode, HistoryExcerpt, RoomPosition, timestamp};

/// A text frame, encoded once and shared by all its receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Utf8Bytes);

impl Frame {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty; no frame of the protocol is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same frame with `offset` as its last field. It must be a non-empty JSON object without that field, as a
    /// [`Delivery`] is.
    #[must_use]
    pub fn with_offset(&self, offset: u64) -> Self {
        const FIELD: usize = r#","offset":"#.len() + 16;
        let mut text = String::with_capacity(self.len() + FIELD);
        text.push_str(self.as_str().strip_suffix('}').unwrap_or(self.as_str()));
        text.push_str(r#","offset":"#);
        text.push_str(&offset.to_string());
        text.push('}');
        text.into()
    }

    /// The frame from which [`Frame::with_offset`] made this one.
    #[must_use]
    pub fn without_offset(&self, offset: u64) -> Self {
        let end = format!(r#","offset":{offset}}}"#);
        match self.as_str().strip_suffix(&end) {
            Some(before) => [before, "}"].concat().into(),
            None => self.clone(),
        }
    }

    /// The same answer as a repetition of an earlier one. It must be an `ack` or an `error`.
    #[must_use]
    pub fn duplicate(answer: &str) -> Self {
        let payload = answer.strip_suffix("}}").unwrap_or(answer);
        Self::from(format!(r#"{payload},"duplicate":true}}}}"#))
    }

    /// Converts it to the text for the socket, without a copy.
    pub fn into_text(self) -> Utf8Bytes {
        self.0
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// A message on its way to a client.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The event type, well-formed.
    pub event_type: &'a str,
    /// The payload as JSON text, sent unchanged.
    pub payload: &'a str,
    /// The receiving user; empty for a message to a room or to everyone.
    pub receiver: &'a str,
    /// The user who sent it; empty for the platform.
    pub sender: &'a str,
    /// When the server received it.
    pub timestamp: SystemTime,
    /// The room that it was addressed to.
    pub room: Option<&'a str>,
    /// The message ID, if the sender got it.
    pub message_id: Option<&'a str>,
}

impl Delivery<'_> {
    /// Encodes it. The order of the fields is part of the protocol.
    pub fn encode(&self) -> Frame {
        const FIXED: usize = 160;
        let variable =
            self.payload.len() + self.receiver.len() + self.sender.len() + self.event_type.len();
        let optional = self.room.map_or(0, str::len) + self.message_id.map_or(0, str::len);
        let mut text = String::with_capacity(FIXED + variable + optional);
        text.push_str(r#"{"type":"#);
        push_json_string(&mut text, self.event_type);
        text.push_str(r#","payload":"#);
        text.push_str(self.payload);
        text.push_str(r#","receiverID":"#);
        push_json_string(&mut text, self.receiver);
        text.push_str(r#","senderId":"#);
        push_json_string(&mut text, self.sender);
        text.push_str(r#","timestamp":""#);
        timestamp::push(&mut text, self.timestamp);
        text.push('"');
        if let Some(room) = self.room {
            text.push_str(r#","room":"#);
            push_json_string(&mut text, room);
        }
        if let Some(id) = self.message_id {
            text.push_str(r#","messageId":"#);
            push_json_string(&mut text, id);
        }
        text.push('}');
        text.into()
    }
}

/// The result of a message in its `ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckStatus {
    /// A connection of the receiver was found, on this node or another.
    Delivered,
    /// No node holds the receiver.
    Offline,
    /// No node holds the receiver, and the message waits in a history.
    Kept,
    /// The server or a plugin handled it.
    Handled,
}

impl AckStatus {
    /// The status as text, as used in the `ack`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Offline => "offline",
            Self::Kept => "kept",
            Self::Handled => "handled",
        }
    }
}

/// A version of a plugin that saw a message, in the form used by an `ack`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SeenBy<'a> {
    /// The plugin.
    pub name: &'a str,
    /// The version that the component declares; `None` if it declares none.
    pub version: Option<&'a str>,
    /// The first twelve hex digits of its SHA-256.
    pub sha256: &'a str,
}

/// The payload of an `ack`: the answer to a frame with an `id`.
#[derive(Clone, Copy, Debug)]
pub struct AckPayload<'a> {
    /// The `id` of the frame.
    pub id: &'a str,
    /// The message ID.
    pub message_id: &'a str,
    /// The result.
    pub status: AckStatus,
    /// The place in the history of a room that was joined.
    pub room: Option<&'a RoomPosition>,
    /// The messages that were asked for.
    pub history: Option<&'a HistoryExcerpt>,
    /// A plugin's answer to a request: JSON text.
    pub data: Option<&'a str>,
    /// The versions of plugins that saw the message, in order, if its sender wants them.
    pub plugins: Option<&'a [SeenBy<'a>]>,
}

impl<'a> AckPayload<'a> {
    /// One without optional fields.
    pub fn new(id: &'a str, message_id: &'a str, status: AckStatus) -> Self {
        Self {
            id,
            message_id,
            status,
            room: None,
            history: None,
            data: None,
            plugins: None,
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> Frame {
        let mut text = String::with_capacity(96 + self.id.len() + self.message_id.len());
        text.push_str(r#"{"type":"ack","payload":{"id":"#);
        push_json_string(&mut text, self.id);
        text.push_str(r#","messageId":"#);
        push_json_string(&mut text, self.message_id);
        text.push_str(r#","status":""#);
        text.push_str(self.status.as_str());
        text.push('"');
        if let Some(room) = self.room {
            push_field(&mut text, "room", room);
        }
        if let Some(history) = self.history {
            text.push_str(r#","history":"#);
            text.push_str(&history.encode());
        }
        if let Some(data) = self.data {
            text.push_str(r#","data":"#);
            text.push_str(data);
        }
        if let Some(plugins) = self.plugins {
            push_field(&mut text, "plugins", plugins);
        }
        text.push_str("}}");
        text.into()
    }
}

/// Appends a field after others. Texts and numbers under text keys always serialize.
fn push_field<T: Serialize + ?Sized>(text: &mut String, name: &str, value: &T) {
    text.push_str(",\"");
    text.push_str(name);
    text.push_str("\":");
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
}

/// The payload of an `error`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ErrorPayload<'a> {
    /// The `id` of the frame that the error answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The code, for programs.
    pub code: &'a str,
    /// The message, for people.
    pub message: &'a str,
    /// The plugin that refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<&'a str>,
    /// Whether the same frame may succeed later.
    pub retryable: bool,
}

impl<'a> ErrorPayload<'a> {
    /// An error of the server itself.
    pub fn new(id: Option<&'a str>, code: ErrorCode, message: &'a str) -> Self {
        Self {
            id,
            code: code.as_str(),
            message,
            plugin: None,
            retryable: code.retryable(),
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> Frame {
        typed("error", self)
    }
}

/// The payload of `welcome`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome<'a> {
    /// The ID of this connection, unique in the cluster.
    pub connection_id: &'a str,
    /// The user ID of the client.
    pub user_id: &'a str,
    /// The node that holds the connection.
    pub node_id: &'a str,
    /// The silence after which the server pings, in milliseconds.
    #[serde(serialize_with = "as_millis")]
    pub heartbeat_interval_ms: Duration,
    /// The time until the token of the client expires, in milliseconds; `None` without a token.
    #[serde(
        serialize_with = "as_millis_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub token_expires_in_ms: Option<Duration>,
    /// The place of the client in the history of its user; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a RoomPosition>,
    /// Limits for the client.
    pub limits: WelcomeLimits,
    /// The key with which the client posts frames; `None` over a WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_key: Option<&'a str>,
}

/// The limits that a client can run into.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeLimits {
    /// Maximum length of a frame, in bytes.
    pub frame_bytes_max: usize,
    /// Sustained messages per second; 0 means no limit.
    pub messages_per_second: u32,
    /// Messages in one burst.
    pub messages_burst: u32,
    /// Maximum number of rooms at a time.
    pub rooms_max: usize,
}

impl Welcome<'_> {
    /// Encodes it.
    pub fn encode(&self) -> Frame {
        typed("welcome", self)
    }
}

/// `token_expiring`: the token of the client expires after `left`, unless it is replaced.
pub fn token_expiring(left: Duration) -> Frame {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Expiring {
        #[serde(serialize_with = "as_millis")]
        expires_in_ms: Duration,
    }
    let payload = Expiring {
        expires_in_ms: left,
    };
    typed("token_expiring", &payload)
}

/// `joined`: the connection is a member of the room from now on. In a room with a history, `at` is its place there; a later
/// `joined` of the same room tells a member that messages may be missing before its new place.
pub fn joined(room: &str, at: Option<&RoomPosition>) -> Frame {
    let reason = None;
    typed("joined", &RoomPayload { room, at, reason })
}

/// `joined` without a room: messages to the user of the connection may be missing before its new place `at` in their history.
pub fn user_position(at: &RoomPosition) -> Frame {
    #[derive(Serialize)]
    struct UserPayload<'a> {
        user: &'a RoomPosition,
    }
    typed("joined", &UserPayload { user: at })
}

/// `left`: the connection is no longer a member of the room. `reason` is `Some` if neither the client nor a backend or plugin
/// wanted that.
pub fn left(room: &str, reason: Option<&str>) -> Frame {
    let at = None;
    typed("left", &RoomPayload { room, at, reason })
}

#[derive(Serialize)]
struct RoomPayload<'a> {
    room: &'a str,
    #[serde(flatten)]
    at: Option<&'a RoomPosition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Encodes a frame of the server itself. Its payload must serialize without an error.
pub(super) fn typed<P: Serialize>(event_type: &str, payload: &P) -> Frame {
    #[derive(Serialize)]
    struct Typed<'a, P> {
        #[serde(rename = "type")]
        event_type: &'a str,
        payload: &'a P,
    }
    // Strings and numbers under string keys always serialize.
    serde_json::to_string(&Typed {
        event_type,
        payload,
    })
    .unwrap_or_default()
    .into()
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn as_millis_or_null<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_millis(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// Whether `text` needs no escape in a JSON string; hardly any name needs one.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\')
}

/// Appends `text` as a JSON string.
pub(super) fn push_json_string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // A str always serializes.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
