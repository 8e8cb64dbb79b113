//! A client's frame, taken apart without copying its payload.

use std::{borrow::Cow, fmt};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ErrorCode, JSON_DEPTH_MAX, ROOM_NAME_BYTES_MAX, USER_ID_BYTES_MAX, event_type};

/// Longest `id`, in characters.
pub const ID_CHARS_MAX: usize = 64;

/// What a client said. Everything borrows from the frame where the JSON allows it.
///
/// Names of fields are matched in any case, and the last of two fields of one name counts, as in Go's
/// `encoding/json`, with which the clients of `websocket-app` grew up. Unknown fields are passed over: so are
/// `senderId` and `timestamp`, which are the server's to say.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The event type, spelled well.
    pub event_type: Cow<'a, str>,
    /// The payload's JSON text as it stood in the frame; `null` where there was none.
    pub payload: &'a str,
    /// The user to deliver to.
    pub receiver: Option<Cow<'a, str>>,
    /// The room to deliver to.
    pub room: Option<Cow<'a, str>>,
    /// Asks for an `ack`.
    pub id: Option<Cow<'a, str>>,
}

/// Why a frame is refused. The connection stays open.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EnvelopeError {
    /// The code for the `error` frame.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
    /// The frame's `id`, where it could be read.
    pub id: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Reads the frame `text`.
    ///
    /// # Errors
    /// [`EnvelopeError`] where it is no JSON object, lacks a well spelled `type`, or exceeds a limit of the protocol.
    pub fn parse(text: &'a str) -> Result<Self, EnvelopeError> {
        if is_too_deep(text) {
            return Err(refuse(
                ErrorCode::TooDeep,
                "the JSON is nested more than 100 levels deep",
                None,
            ));
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| {
            refuse(
                ErrorCode::InvalidFrame,
                format!("the frame is not a message: {error}"),
                None,
            )
        })?;
        fields.check()
    }
}

/// Whom a message is for that another node or a backend published. Its bytes are handed on as they are.
#[derive(Debug)]
pub struct Address<'a> {
    /// The user.
    pub receiver: Option<Cow<'a, str>>,
    /// The room.
    pub room: Option<Cow<'a, str>>,
}

impl<'a> Address<'a> {
    /// Reads no more of `text` than who it is for.
    ///
    /// # Errors
    /// Why it is no message.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let given = |field: Option<Cow<'a, str>>| field.filter(|text| !text.is_empty());
        Ok(Self {
            receiver: given(fields.receiver),
            room: given(fields.room),
        })
    }
}

/// The fields as they stand in the frame.
#[derive(Default)]
struct Fields<'a> {
    event_type: Option<Cow<'a, str>>,
    payload: Option<&'a RawValue>,
    receiver: Option<Cow<'a, str>>,
    room: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn check(self) -> Result<Envelope<'a>, EnvelopeError> {
        // An empty text is how a Go client leaves a field out.
        let given = |field: Option<Cow<'a, str>>| field.filter(|text| !text.is_empty());
        let (receiver, room, id) = (given(self.receiver), given(self.room), given(self.id));
        if id
            .as_ref()
            .is_some_and(|id| id.chars().count() > ID_CHARS_MAX)
        {
            return Err(refuse(
                ErrorCode::InvalidId,
                "`id` is longer than 64 characters",
                None,
            ));
        }
        let fail = |code, message: &str| Err(refuse(code, message, id.as_deref()));
        let Some(event_type) = self.event_type.filter(|name| event_type::is_valid(name)) else {
            return fail(
                ErrorCode::InvalidType,
                "`type` must be 1 to 64 of `A-Z a-z 0-9 _ . : -`",
            );
        };
        if receiver.is_some() && room.is_some() {
            return fail(
                ErrorCode::InvalidReceiver,
                "name `receiverId` or `room`, not both",
            );
        }
        if receiver
            .as_ref()
            .is_some_and(|user| user.len() > USER_ID_BYTES_MAX)
        {
            return fail(
                ErrorCode::InvalidReceiver,
                "`receiverId` is longer than 255 bytes",
            );
        }
        if room
            .as_ref()
            .is_some_and(|room| room.len() > ROOM_NAME_BYTES_MAX)
        {
            return fail(ErrorCode::InvalidRoom, "`room` is longer than 255 bytes");
        }
        let payload = self.payload.map_or("null", RawValue::get);
        Ok(Envelope {
            event_type,
            payload,
            receiver,
            room,
            id,
        })
    }
}

fn refuse(code: ErrorCode, message: impl Into<String>, id: Option<&str>) -> EnvelopeError {
    EnvelopeError {
        code,
        message: message.into(),
        id: id.map(str::to_owned),
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with a `type`")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<FieldName>()? {
                    match name {
                        FieldName::Type => fields.event_type = map.next_value::<Text<'de>>()?.0,
                        FieldName::Payload => fields.payload = Some(map.next_value()?),
                        FieldName::Receiver => fields.receiver = map.next_value::<Text<'de>>()?.0,
                        FieldName::Room => fields.room = map.next_value::<Text<'de>>()?.0,
                        FieldName::Id => fields.id = map.next_value::<Text<'de>>()?.0,
                        FieldName::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[derive(Clone, Copy)]
enum FieldName {
    Type,
    Payload,
    Receiver,
    Room,
    Id,
    Other,
}

impl FieldName {
    fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("type") => Self::Type,
            7 if is("payload") => Self::Payload,
            10 if is("receiverid") => Self::Receiver,
            4 if is("room") => Self::Room,
            2 if is("id") => Self::Id,
            _ => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = FieldName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<FieldName, E> {
                Ok(FieldName::of(name))
            }
        }
        deserializer.deserialize_identifier(NameVisitor)
    }
}

/// A string or `null`; borrowed where it contains no escape.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Whether `text` is plain, valid JSON that is no deeper than the protocol allows: what a plugin must return.
pub fn is_acceptable_json(text: &str) -> bool {
    !is_too_deep(text) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether arrays and objects in `json` nest deeper than the protocol allows.
pub fn is_too_deep(json: &str) -> bool {
    exceeds_depth(json.as_bytes(), JSON_DEPTH_MAX)
}

/// Whether arrays and objects in `json` nest deeper than `max`.
///
/// serde_json skips values without recursion and so without a limit, but guests parse with recursion.
fn exceeds_depth(json: &[u8], max: usize) -> bool {
    // Each level takes an opening and a closing byte.
    if json.len() < 2 * max {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> ErrorCode {
        Envelope::parse(text).unwrap_err().code
    }

    #[test]
    fn a_websocket_app_message_is_read() {
        let envelope =
            Envelope::parse(r#"{"type":"chat_message","payload":"hi","receiverId":"u2"}"#).unwrap();
        assert_eq!(envelope.event_type, "chat_message");
        assert_eq!(envelope.payload, r#""hi""#);
        assert_eq!(envelope.receiver.as_deref(), Some("u2"));
        assert!(envelope.room.is_none() && envelope.id.is_none());
    }

    #[test]
    fn field_names_match_in_any_case() {
        for name in [
            "receiverId",
            "receiverID",
            "RECEIVERID",
            "receiverid",
            "ReceiverId",
        ] {
            let text = format!(r#"{{"TYPE":"a","Payload":1,"{name}":"u"}}"#);
            let envelope = Envelope::parse(&text).unwrap();
            assert_eq!(
                (envelope.receiver.as_deref(), envelope.payload),
                (Some("u"), "1")
            );
        }
    }

    #[test]
    fn the_payload_keeps_its_bytes() {
        let payload = r#"{ "n": 12345678901234567890, "f": 1.10, "s":"\u00e4" , "a":[ ] }"#;
        let text = format!(r#"{{"payload":{payload},"type":"a"}}"#);
        assert_eq!(Envelope::parse(&text).unwrap().payload, payload);
    }

    #[test]
    fn an_absent_payload_is_null_and_empty_names_are_absent() {
        let envelope =
            Envelope::parse(r#"{"type":"a","receiverId":"","room":null,"id":""}"#).unwrap();
        assert_eq!(envelope.payload, "null");
        assert!(envelope.receiver.is_none() && envelope.room.is_none() && envelope.id.is_none());
    }

    #[test]
    fn the_last_of_two_fields_counts_and_unknown_ones_are_passed_over() {
        let text = r#"{"type":"a","type":"b","senderId":[{"x":1}],"timestamp":7}"#;
        assert_eq!(Envelope::parse(text).unwrap().event_type, "b");
    }

    #[test]
    fn bad_frames_name_their_fault() {
        for text in [
            "",
            "x",
            "[]",
            "\"a\"",
            "{",
            r#"{"type":1}"#,
            r#"{"type":"a","receiverId":5}"#,
            r#"{"type":"a"} x"#,
        ] {
            assert_eq!(code(text), ErrorCode::InvalidFrame, "{text}");
        }
        for text in [
            "{}",
            r#"{"type":""}"#,
            r#"{"type":"a b"}"#,
            r#"{"type":null}"#,
        ] {
            assert_eq!(code(text), ErrorCode::InvalidType, "{text}");
        }
        assert_eq!(
            code(r#"{"type":"a","receiverId":"u","room":"r"}"#),
            ErrorCode::InvalidReceiver
        );
        assert_eq!(
            code(&format!(
                r#"{{"type":"a","receiverId":"{}"}}"#,
                "u".repeat(256)
            )),
            ErrorCode::InvalidReceiver
        );
        assert_eq!(
            code(&format!(r#"{{"type":"a","room":"{}"}}"#, "r".repeat(256))),
            ErrorCode::InvalidRoom
        );
        assert_eq!(
            code(&format!(r#"{{"type":"a","id":"{}"}}"#, "i".repeat(65))),
            ErrorCode::InvalidId
        );
    }

    #[test]
    fn an_error_names_the_id_where_it_could_be_read() {
        assert_eq!(
            Envelope::parse(r#"{"id":"7","type":"a b"}"#)
                .unwrap_err()
                .id
                .as_deref(),
            Some("7")
        );
    }

    #[test]
    fn json_is_at_most_100_levels_deep() {
        // The frame itself is one level.
        let nested = |depth: usize| {
            format!(
                r#"{{"type":"a","payload":{}{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert!(Envelope::parse(&nested(99)).is_ok());
        assert_eq!(code(&nested(100)), ErrorCode::TooDeep);
        assert_eq!(code(&nested(20_000)), ErrorCode::TooDeep);
        let in_a_string = format!(r#"{{"type":"a","payload":"{}\"["}}"#, "[".repeat(300));
        assert!(Envelope::parse(&in_a_string).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in "\\PC*") {
            let _ = Envelope::parse(&text);
        }

        #[test]
        fn any_mutilated_frame_is_answered_without_a_panic(cut in 0usize..120, byte in any::<u8>(), at in 0usize..120) {
            let mut bytes = br#"{"type":"chat_message","payload":{"text":"\ud83d\ude00 x","n":[1,2.5e7,null]},"receiverID":"u2","id":"i"}"#.to_vec();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            bytes.truncate(cut.max(1));
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = Envelope::parse(text);
            }
        }

        #[test]
        fn strings_come_back_as_they_were(user in "\\PC{1,60}", payload in "\\PC{0,80}") {
            let text = serde_json::json!({"type": "a", "payload": payload, "receiverId": user}).to_string();
            let envelope = Envelope::parse(&text).unwrap();
            prop_assert_eq!(envelope.receiver.as_deref(), Some(user.as_str()));
            prop_assert_eq!(serde_json::from_str::<String>(envelope.payload).unwrap(), payload);
        }
    }
}
