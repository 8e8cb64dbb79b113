//! Converts messages that other nodes and workers publish to the form that clients know.

use std::{borrow::Cow, time::SystemTime};

use super::{
    EventType, NotSendable, RoomName, UserId,
    fields::{Text, WrongKind},
    outbound::{is_plain, push_json_string},
    reader,
};

/// Maximum length of a `timestamp` or a `messageId` that is passed on, in bytes.
const SHORT_TEXT_BYTES_MAX: usize = 64;

/// A message that may go to clients.
#[derive(Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// The frame. Borrowed if it was published in the form that clients get, as our own nodes do.
    pub frame: Cow<'a, str>,
    /// The user that it is for.
    pub receiver: Option<UserId<'a>>,
    /// The room that it is for; `None` if it is for a user.
    pub room: Option<RoomName<'a>>,
}

/// Why a text is not a message, for the operator's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(Cow<'static, str>);

/// Checks a published message for clients, and reduces it to the fields that they know, in their order.
///
/// Field names match as in Go's `encoding/json`. A missing `timestamp` becomes `now`, a missing `receiverID` or
/// `senderId` is empty, and a missing payload is `null`. Other fields are dropped, and so is a `room` if a receiver is
/// named. The payload keeps its bytes. Normalising the result again changes nothing.
///
/// # Errors
/// Returns [`Malformed`] if it breaks the rules for [JSON](super::json::check), is not an object, its `type` is missing,
/// malformed or [built in](EventType::is_built_in), or a field has a value of the wrong kind or is too long.
pub fn normalise(text: &str, now: SystemTime) -> Result<Published<'_>, Malformed> {
    let fields = reader::fields(text).map_err(|error| Malformed(error.to_string().into()))?;
    let event_type = read_type(fields.event_type)?;
    let receiver = read(
        fields.receiver,
        UserId::parse,
        "its `receiverID` is not a text of at most 255 bytes",
    )?;
    let room = match receiver {
        Some(_) => None,
        None => read(
            fields.room,
            RoomName::parse,
            "its `room` is not a text of at most 255 bytes",
        )?,
    };
    let sender = read(
        fields.sender,
        UserId::parse,
        "its `senderId` is not a text of at most 255 bytes",
    )?;
    let timestamp = read(
        fields.timestamp,
        short,
        "its `timestamp` is not a text of at most 64 bytes",
    )?;
    let message_id = read(
        fields.message_id,
        short,
        "its `messageId` is not a text of at most 64 bytes",
    )?;
    let now = timestamp.is_none().then(|| super::timestamp::text(now));
    let pieces = Pieces {
        event_type: &event_type,
        payload: fields.payload.unwrap_or("null"),
        receiver: receiver.as_deref().unwrap_or_default(),
        sender: sender.as_deref().unwrap_or_default(),
        timestamp: timestamp.as_deref().or(now.as_deref()).unwrap_or_default(),
        room: room.as_deref(),
        message_id: message_id.as_deref(),
    };
    let frame = if pieces.are(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(pieces.frame())
    };
    Ok(Published {
        frame,
        receiver,
        room,
    })
}

fn read_type(field: Text<'_>) -> Result<EventType<'_>, Malformed> {
    let reason = match field.read() {
        Ok(Some(name)) => match EventType::parse_sendable(name) {
            Ok(event_type) => return Ok(event_type),
            Err(NotSendable::BuiltIn(_)) => "its `type` is reserved for the server",
            Err(NotSendable::Malformed) => "its `type` is not 1 to 64 of `A-Z a-z 0-9 _ . : -`",
        },
        Ok(None) => "it has no `type`",
        Err(WrongKind) => "its `type` is not 1 to 64 of `A-Z a-z 0-9 _ . : -`",
    };
    Err(Malformed(reason.into()))
}

fn read<'a, T>(
    field: Text<'a>,
    parse: impl FnOnce(Cow<'a, str>) -> Option<T>,
    wrong: &'static str,
) -> Result<Option<T>, Malformed> {
    let wrong = || Malformed(wrong.into());
    match field.read() {
        Ok(text) => text.map(|text| parse(text).ok_or_else(wrong)).transpose(),
        Err(WrongKind) => Err(wrong()),
    }
}

fn short(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    (text.len() <= SHORT_TEXT_BYTES_MAX).then_some(text)
}

/// The parts of a frame.
struct Pieces<'a> {
    event_type: &'a str,
    /// JSON text.
    payload: &'a str,
    receiver: &'a str,
    sender: &'a str,
    timestamp: &'a str,
    room: Option<&'a str>,
    message_id: Option<&'a str>,
}

/// A piece of a frame.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// JSON, written unchanged.
    Json(&'a str),
    /// A text that is written as a JSON string.
    Text(&'a str),
}

impl<'a> Pieces<'a> {
    /// The pieces in the order of the protocol, which is also that of
    /// [`Delivery::encode`](super::outbound::Delivery::encode).
    fn in_order(&self) -> impl Iterator<Item = Piece<'a>> {
        use Piece::{Json, Text};
        let required = [
            Json(r#"{"type":"#),
            Text(self.event_type),
            Json(r#","payload":"#),
            Json(self.payload),
            Json(r#","receiverID":"#),
            Text(self.receiver),
            Json(r#","senderId":"#),
            Text(self.sender),
            Json(r#","timestamp":"#),
            Text(self.timestamp),
        ];
        let room = self.room.map(|room| [Json(r#","room":"#), Text(room)]);
        let message_id = self
            .message_id
            .map(|id| [Json(r#","messageId":"#), Text(id)]);
        let optional = room.into_iter().chain(message_id).flatten();
        required.into_iter().chain(optional).chain([Json("}")])
    }

    /// Whether `text` already is that frame; needs no copy.
    fn are(&self, text: &str) -> bool {
        let rest = self.in_order().try_fold(text, |rest, piece| match piece {
            Piece::Json(json) => rest.strip_prefix(json),
            Piece::Text(text) if is_plain(text) => rest
                .strip_prefix('"')?
                .strip_prefix(text)?
                .strip_prefix('"'),
            Piece::Text(text) => {
                let mut string = String::new();
                push_json_string(&mut string, text);
                rest.strip_prefix(&*string)
            }
        });
        rest == Some("")
    }

    fn frame(&self) -> String {
        self.in_order().fold(String::new(), |mut frame, piece| {
            match piece {
                Piece::Json(json) => frame.push_str(json),
                Piece::Text(text) => push_json_string(&mut frame, text),
            }
            frame
        })
    }
}

#[cfg(test)]
mod tests;
