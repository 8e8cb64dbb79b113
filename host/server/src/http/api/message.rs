//! A message from a backend, as JSON.

use signalbox_protocol::{Destination, ErrorCode, EventType, NotSendable, RoomName, UserId};

use super::object::{BodyError, NameList, Object};
use crate::session::backend::Posted;

/// The most users that one message names.
const USERS_MAX: usize = 1_000;

/// The most rooms that one message names.
const ROOMS_MAX: usize = 100;

/// The names of the fields, for error messages.
const FIELDS: &str = "`type`, `payload`, `receiverId`, `receiverIds`, `room`, `rooms`, `everyone`, `senderId` and `raw`";

/// A message from a backend. The payload borrows from the body, and is sent unchanged.
#[derive(Debug)]
pub(super) struct PostMessage<'a> {
    pub(super) event_type: EventType<'static>,
    payload: Option<&'a str>,
    pub(super) to: Receivers,
    /// `None` for the platform.
    sender: Option<UserId<'static>>,
    raw: bool,
    /// The length of its list of receivers as JSON, in bytes.
    list_bytes: usize,
}

/// The receivers of a message from a backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receivers {
    /// `None` if none is named.
    One(Option<Destination<'static>>),
    /// Each gets a message of its own.
    Each(Vec<Destination<'static>>),
}

/// The fields that name receivers.
struct ReceiverFields {
    receiver: Option<String>,
    receivers: Option<NameList>,
    room: Option<String>,
    rooms: Option<NameList>,
    everyone: bool,
}

impl<'a> PostMessage<'a> {
    /// Parses `body`, by the rules of the wire.
    ///
    /// # Errors
    /// Returns the fault if it is no message that backends may send.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let mut object = Object::parse(body)?;
        // As on the WebSocket, an empty name counts as absent.
        let given = |name: Option<String>| name.filter(|name| !name.is_empty());
        let event_type = object.text(&["type"])?.unwrap_or_default();
        let payload = object.json("payload")?;
        let to = ReceiverFields {
            receiver: given(object.text(&["receiverId", "receiverID"])?),
            receivers: object.names("receiverIds", USERS_MAX)?,
            room: given(object.text(&["room"])?),
            rooms: object.names("rooms", ROOMS_MAX)?,
            everyone: object.flag("everyone")?,
        };
        let sender = given(object.text(&["senderId", "senderID"])?);
        let raw = object.flag("raw")?;
        object.finish(FIELDS)?;
        let lists = [&to.receivers, &to.rooms].into_iter().flatten();
        let list_bytes = lists.map(|list| list.bytes).sum();
        Ok(Self {
            event_type: parse_type(event_type)?,
            payload,
            to: to.parse()?,
            sender: sender.map(parse_sender).transpose()?,
            raw,
            list_bytes,
        })
    }

    /// The length of its list of receivers as JSON, in bytes; 0 if it has none.
    pub(super) fn list_bytes(&self) -> usize {
        self.list_bytes
    }

    /// The number of messages that it stands for.
    pub(super) fn count(&self) -> usize {
        match &self.to {
            Receivers::One(_) => 1,
            Receivers::Each(list) => list.len(),
        }
    }

    /// The message for one of its receivers.
    pub(super) fn posted(&self, to: Option<Destination<'static>>) -> Posted<'_> {
        Posted {
            event_type: self.event_type.borrowed(),
            sender: self.sender.as_deref().unwrap_or_default(),
            to,
            payload: self.payload.unwrap_or("null"),
            raw: self.raw,
            trace: None,
            once: None,
        }
    }
}

impl ReceiverFields {
    fn parse(self) -> Result<Receivers, BodyError> {
        let named = [
            self.receiver.is_some(),
            self.receivers.is_some(),
            self.room.is_some(),
            self.rooms.is_some(),
            self.everyone,
        ];
        if named.into_iter().filter(|named| *named).count() > 1 {
            return Err(wrong(
                ErrorCode::InvalidReceiver,
                "name one of `receiverId`, `receiverIds`, `room`, `rooms` and `everyone`",
            ));
        }
        if let Some(list) = self.receivers {
            let users = list.names.into_iter().map(parse_user);
            return Ok(Receivers::Each(users.collect::<Result<_, _>>()?));
        }
        if let Some(list) = self.rooms {
            let rooms = list.names.into_iter().map(parse_room);
            return Ok(Receivers::Each(rooms.collect::<Result<_, _>>()?));
        }
        let user = self.receiver.map(parse_user).transpose()?;
        let room = self.room.map(parse_room).transpose()?;
        let everyone = self.everyone.then_some(Destination::Everyone);
        Ok(Receivers::One(user.or(room).or(everyone)))
    }
}

fn parse_type(name: String) -> Result<EventType<'static>, BodyError> {
    EventType::parse_sendable(name).map_err(|reason| match reason {
        NotSendable::Malformed => wrong(
            ErrorCode::InvalidType,
            "`type` must be 1 to 64 of `A-Z a-z 0-9 _ . : -`",
        ),
        NotSendable::BuiltIn(_) => wrong(
            ErrorCode::ReservedType,
            "this type is built in and cannot be sent",
        ),
    })
}

fn parse_user(name: String) -> Result<Destination<'static>, BodyError> {
    let user = UserId::parse(name).map(Destination::User);
    user.ok_or_else(|| {
        wrong(
            ErrorCode::InvalidReceiver,
            "a receiver's user ID must be 1 to 255 bytes long",
        )
    })
}

fn parse_room(name: String) -> Result<Destination<'static>, BodyError> {
    let room = RoomName::parse(name).map(Destination::Room);
    room.ok_or_else(|| {
        wrong(
            ErrorCode::InvalidRoom,
            "a room's name must be 1 to 255 bytes long",
        )
    })
}

fn parse_sender(user: String) -> Result<UserId<'static>, BodyError> {
    UserId::parse(user).ok_or_else(|| {
        wrong(
            ErrorCode::InvalidFrame,
            "`senderId` is longer than 255 bytes",
        )
    })
}

fn wrong(code: ErrorCode, message: &str) -> BodyError {
    (code, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> ErrorCode {
        PostMessage::parse(body.as_bytes()).unwrap_err().0
    }

    #[test]
    fn a_message_is_read_and_its_payload_keeps_its_bytes() {
        let payload = r#"{ "n": 12345678901234567890, "f": 1.10, "s":"\u00e4" , "a":[ ] }"#;
        let body = format!(
            r#"{{"type":"news","payload":{payload},"receiverId":"u\u0031","senderId":"s","raw":true}}"#
        );
        let message = PostMessage::parse(body.as_bytes()).unwrap();
        let posted = message.posted(None);
        assert_eq!(
            (posted.payload, posted.sender, posted.raw),
            (payload, "s", true)
        );
        let user = UserId::parse("u1").map(Destination::User);
        assert_eq!((message.to, message.list_bytes), (Receivers::One(user), 0));
    }

    #[test]
    fn omitted_fields_have_their_defaults() {
        let message = PostMessage::parse(br#"{"type":"news"}"#).unwrap();
        let posted = message.posted(None);
        assert_eq!(
            (posted.payload, posted.sender, posted.raw),
            ("null", "", false)
        );
        assert_eq!(message.to, Receivers::One(None));
        for empty in [
            r#"{"type":"news","receiverId":"","room":null,"everyone":false}"#,
            r#"{"type":"news","everyone":null,"raw":null,"senderId":null,"payload":null}"#,
            r#"{"type":"news","receiverIds":null,"rooms":null}"#,
        ] {
            let message = PostMessage::parse(empty.as_bytes()).unwrap();
            assert_eq!(message.to, Receivers::One(None));
        }
    }

    #[test]
    fn a_receiver_a_room_or_everyone_is_named_and_not_two_of_them() {
        let to = |body: &str| {
            let message = PostMessage::parse(body.as_bytes()).unwrap();
            format!("{:?}", message.to)
        };
        assert!(to(r#"{"type":"a","receiverID":"u"}"#).contains("User"));
        assert!(to(r#"{"type":"a","room":"r"}"#).contains("Room"));
        assert!(to(r#"{"type":"a","everyone":true}"#).contains("Everyone"));
        for body in [
            r#"{"type":"a","receiverId":"u","room":"r"}"#,
            r#"{"type":"a","receiverId":"u","everyone":true}"#,
            r#"{"type":"a","room":"r","everyone":true}"#,
            r#"{"type":"a","receiverId":"u","receiverIds":["u"]}"#,
            r#"{"type":"a","receiverIds":["u"],"rooms":["r"]}"#,
            r#"{"type":"a","rooms":["r"],"everyone":true}"#,
        ] {
            assert_eq!(code(body), ErrorCode::InvalidReceiver, "{body}");
        }
    }

    #[test]
    fn a_list_names_each_receiver_once_in_its_order() {
        let body = br#"{"type":"a","receiverIds":["b","a" ,"b"]}"#;
        let message = PostMessage::parse(body).unwrap();
        let users = ["b", "a"].map(|user| Destination::User(UserId::parse(user).unwrap()));
        assert_eq!(message.to, Receivers::Each(users.to_vec()));
        assert_eq!((message.count(), message.list_bytes()), (2, 14));
        let message = PostMessage::parse(br#"{"type":"a","rooms":["r"]}"#).unwrap();
        let room = Destination::Room(RoomName::parse("r").unwrap());
        assert_eq!(message.to, Receivers::Each(vec![room]));
    }

    #[test]
    fn a_list_has_bounds() {
        let body = |field: &str, count: usize| {
            let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            serde_json::json!({"type": "a", field: names}).to_string()
        };
        for (field, most) in [("receiverIds", 1_000), ("rooms", 100)] {
            let fits = body(field, most);
            let message = PostMessage::parse(fits.as_bytes()).unwrap();
            assert_eq!(message.count(), most);
            for count in [0, most + 1] {
                assert_eq!(code(&body(field, count)), ErrorCode::InvalidFrame);
            }
        }
        for (body, expected) in [
            (r#"{"type":"a","receiverIds":"u"}"#, ErrorCode::InvalidFrame),
            (r#"{"type":"a","receiverIds":[1]}"#, ErrorCode::InvalidFrame),
            (r#"{"type":"a","rooms":[null]}"#, ErrorCode::InvalidFrame),
            (
                r#"{"type":"a","receiverIds":[""]}"#,
                ErrorCode::InvalidReceiver,
            ),
            (r#"{"type":"a","rooms":["r",""]}"#, ErrorCode::InvalidRoom),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
    }

    #[test]
    fn the_rules_for_frames_apply_to_api_messages() {
        for body in [
            "",
            "[]",
            r#"["a",1,"u"]"#,
            r#"{"type":1}"#,
            r#"{"type":"a","room":"r","room":"r"}"#,
            r#"{"type":"a","receiverId":"u","receiverID":"u"}"#,
            r#"{"type":"a","everyone":"true"}"#,
            r#"{"type":"a","receiverId":5}"#,
            r#"{"type":"a","type":"b"}"#,
            r#"{"type":"a","recieverId":"u"}"#,
            r#"{"type":"a"} x"#,
        ] {
            assert_eq!(code(body), ErrorCode::InvalidFrame, "{body}");
        }
        for body in [
            "{}",
            r#"{"type":"a b"}"#,
            r#"{"type":null}"#,
            r#"{"type":""}"#,
        ] {
            assert_eq!(code(body), ErrorCode::InvalidType, "{body}");
        }
        for payload in [r#""\ud83d""#, r#"{"\uDC00":1}"#, &"1".repeat(401)] {
            let body = format!(r#"{{"type":"a","payload":{payload}}}"#);
            assert_eq!(code(&body), ErrorCode::InvalidPayload, "{body}");
        }
        for name in ["welcome", "join", "signalbox.request"] {
            let body = format!(r#"{{"type":"{name}"}}"#);
            assert_eq!(code(&body), ErrorCode::ReservedType, "{name}");
        }
        let long = "x".repeat(256);
        for (field, wrong) in [
            ("receiverId", ErrorCode::InvalidReceiver),
            ("room", ErrorCode::InvalidRoom),
            ("senderId", ErrorCode::InvalidFrame),
        ] {
            let body = format!(r#"{{"type":"a","{field}":"{long}"}}"#);
            assert_eq!(code(&body), wrong, "{field}");
        }
        let nested = |depth| {
            format!(
                r#"{{"type":"a","payload":{}{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert!(PostMessage::parse(nested(99).as_bytes()).is_ok());
        assert_eq!(code(&nested(100)), ErrorCode::TooDeep);
        assert_eq!(
            PostMessage::parse(b"{\"type\":\"\xff\"}").unwrap_err().0,
            ErrorCode::InvalidFrame
        );
    }
}
