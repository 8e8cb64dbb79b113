//! Parses a client's frame without copying its payload.

use std::borrow::Cow;

use super::{
    ErrorCode, EventType, RoomName, UserId,
    fields::{Fields, Text, WrongKind},
    reader::{self, Unreadable},
};

/// Maximum length of an `id`, in characters.
pub const ID_CHARS_MAX: usize = 64;

/// A client's message. Everything borrows from the frame if the JSON allows it.
///
/// Field names are matched as in Go's `encoding/json`, and the last of two fields with the same name counts. Unknown
/// fields are ignored, and so are `senderId` and `timestamp`, which only the server sets.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The event type.
    pub event_type: EventType<'a>,
    /// The JSON text of the payload, unchanged from the frame; `null` if there was none.
    pub payload: &'a str,
    /// The user to deliver to.
    pub receiver: Option<UserId<'a>>,
    /// The room to deliver to.
    pub room: Option<RoomName<'a>>,
    /// Asks for an `ack`.
    pub id: Option<Cow<'a, str>>,
    /// Whether a repetition with the same `id`, which is then `Some`, must not be handled again.
    pub once: bool,
}

/// The protocol that a client was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `signalbox.v1`, which the client offered.
    V1,
    /// The protocol of `websocket-app`, which has no `id` and no `room`: if a client uses these fields for itself, they
    /// are ignored unless the value is legal.
    WebsocketApp,
}

/// Why a frame is refused. The connection stays open.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EnvelopeError {
    /// The code for the `error` frame.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
    /// The frame's `id`, if it could be read.
    pub id: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Parses the frame `text` of a client of `signalbox.v1`.
    ///
    /// # Errors
    /// Returns [`EnvelopeError`] if it is not a JSON object, lacks a well-formed `type`, or exceeds a limit of the
    /// protocol.
    pub fn parse(text: &'a str) -> Result<Self, EnvelopeError> {
        Self::parse_as(text, Dialect::V1)
    }

    /// Parses the frame `text` of a client that speaks `dialect`.
    ///
    /// # Errors
    /// As for [`Envelope::parse`].
    pub fn parse_as(text: &'a str, dialect: Dialect) -> Result<Self, EnvelopeError> {
        let fields = reader::fields(text).map_err(|error| refuse_text(&error, text))?;
        let id = read_id(fields.id, dialect)?;
        let refused = |(code, message)| refuse(code, message, id.as_deref());
        let event_type = read_type(fields.event_type).map_err(refused)?;
        let receiver = read_receiver(fields.receiver).map_err(refused)?;
        let room = match (read_room(fields.room), dialect) {
            (Ok(room), Dialect::V1) => room,
            (Err(wrong), Dialect::V1) => return Err(refused(wrong)),
            (room, Dialect::WebsocketApp) => room.ok().flatten().filter(|_| receiver.is_none()),
        };
        if receiver.is_some() && room.is_some() {
            let message = "name `receiverId` or `room`, not both";
            return Err(refused((ErrorCode::InvalidReceiver, message)));
        }
        let once = read_once(fields.once, id.is_some(), dialect).map_err(refused)?;
        Ok(Envelope {
            event_type,
            payload: fields.payload.unwrap_or("null"),
            receiver,
            room,
            id,
            once,
        })
    }
}

type Wrong = (ErrorCode, &'static str);

fn read_id(id: Text<'_>, dialect: Dialect) -> Result<Option<Cow<'_, str>>, EnvelopeError> {
    let is_long = |id: &str| id.len() > ID_CHARS_MAX && id.chars().count() > ID_CHARS_MAX;
    let wrong = match id.read() {
        Ok(Some(id)) if is_long(&id) => (ErrorCode::InvalidId, "`id` is longer than 64 characters"),
        Ok(id) => return Ok(id),
        Err(WrongKind) => (ErrorCode::InvalidFrame, "`id` must be a string"),
    };
    match dialect {
        Dialect::V1 => Err(refuse(wrong.0, wrong.1, None)),
        Dialect::WebsocketApp => Ok(None),
    }
}

fn read_once(once: Option<&str>, has_id: bool, dialect: Dialect) -> Result<bool, Wrong> {
    let wrong = match once {
        None | Some("false") => return Ok(false),
        Some("true") if has_id => return Ok(true),
        Some("true") => "`once` needs an `id`, by which a repetition is recognised",
        Some(_) => "`once` must be true or false",
    };
    match dialect {
        Dialect::V1 => Err((ErrorCode::InvalidFrame, wrong)),
        Dialect::WebsocketApp => Ok(false),
    }
}

fn read_type(event_type: Text<'_>) -> Result<EventType<'_>, Wrong> {
    let name = event_type
        .read()
        .map_err(|WrongKind| (ErrorCode::InvalidFrame, "`type` must be a string"))?;
    name.and_then(EventType::parse).ok_or((
        ErrorCode::InvalidType,
        "`type` must be 1 to 64 of `A-Z a-z 0-9 _ . : -`",
    ))
}

fn read_receiver(receiver: Text<'_>) -> Result<Option<UserId<'_>>, Wrong> {
    let too_long = (
        ErrorCode::InvalidReceiver,
        "`receiverId` is longer than 255 bytes",
    );
    match receiver.read() {
        Ok(user) => user
            .map(|user| UserId::parse(user).ok_or(too_long))
            .transpose(),
        Err(WrongKind) => Err((ErrorCode::InvalidFrame, "`receiverId` must be a string")),
    }
}

fn read_room(room: Text<'_>) -> Result<Option<RoomName<'_>>, Wrong> {
    let too_long = (ErrorCode::InvalidRoom, "`room` is longer than 255 bytes");
    match room.read() {
        Ok(room) => room
            .map(|room| RoomName::parse(room).ok_or(too_long))
            .transpose(),
        Err(WrongKind) => Err((ErrorCode::InvalidFrame, "`room` must be a string")),
    }
}

/// Refuses a frame without readable fields. If it breaks a rule for JSON, its `id` may still be legal.
fn refuse_text(error: &Unreadable, text: &str) -> EnvelopeError {
    match error {
        Unreadable::Rule(fault) => {
            let fields = Fields::parse(text).unwrap_or_default();
            let id = read_id(fields.id, Dialect::WebsocketApp).unwrap_or_default();
            refuse(fault.code(), fault.to_string(), id.as_deref())
        }
        Unreadable::Syntax(reason) => {
            let message = format!("the frame is not a message: {reason}");
            refuse(ErrorCode::InvalidFrame, message, None)
        }
    }
}

fn refuse(code: ErrorCode, message: impl Into<String>, id: Option<&str>) -> EnvelopeError {
    EnvelopeError {
        code,
        message: message.into(),
        id: id.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
