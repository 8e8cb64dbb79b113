//! `POST /api/messages`.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::{Destination, ErrorCode, EventType, NotSendable, RoomName, UserId};
use signalbox_telemetry::{metrics::events::MessageRejected, trace::Parent};

use super::{
    object::{self, BodyError, Object},
    read,
};
use crate::{
    http::{
        AppState,
        error::{ApiError, json},
    },
    session::backend::{self, Posted},
};

/// A message from a backend. The payload borrows from the body, and is sent unchanged.
#[derive(Debug)]
struct PostMessage<'a> {
    event_type: EventType<'static>,
    payload: Option<&'a str>,
    to: Option<Destination<'static>>,
    /// `None` for the platform.
    sender: Option<UserId<'static>>,
    raw: bool,
}

/// The names of its fields, for error messages.
const FIELDS: &str = "`type`, `payload`, `receiverId`, `room`, `everyone`, `senderId` and `raw`";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    message_id: &'a str,
    status: &'static str,
}

pub(super) async fn post(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read(&state, body).await?;
    object::check_content(&headers)?;
    let refused = |error: ApiError, code| {
        let metrics = &state.services.metrics;
        MessageRejected { metrics, code }.emit();
        error
    };
    let message = PostMessage::parse(&body)
        .map_err(|(code, message)| refused(ApiError::of(code, message), code))?;
    let message_id = state.services.ids.next();
    let span = state.services.tracer.begin_for(parent(&headers), "post");
    if let Some(span) = &span {
        span.set("signalbox.type", message.event_type.to_string());
        span.set("messaging.message.id", message_id.to_string());
    }
    let posted = Posted {
        trace: span.as_ref(),
        ..message.posted()
    };
    let status = backend::post(&state.services, &message_id, posted).await?;
    let answer = Answer {
        message_id: &message_id,
        status: status.as_str(),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// The trace that the backend began, if it sends one that is sampled.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    Parent::parse(headers.get("traceparent")?.to_str().ok()?)
}

impl<'a> PostMessage<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let mut object = Object::parse(body)?;
        // As on the WebSocket, an empty name counts as absent.
        let given = |name: Option<String>| name.filter(|name| !name.is_empty());
        let event_type = object.text(&["type"])?.unwrap_or_default();
        let payload = object.json("payload")?;
        let receiver = given(object.text(&["receiverId", "receiverID"])?);
        let room = given(object.text(&["room"])?);
        let everyone = object.flag("everyone")?;
        let sender = given(object.text(&["senderId", "senderID"])?);
        let raw = object.flag("raw")?;
        object.finish(FIELDS)?;
        Ok(Self {
            event_type: parse_type(event_type)?,
            payload,
            to: parse_destination(receiver, room, everyone)?,
            sender: sender.map(parse_sender).transpose()?,
            raw,
        })
    }

    fn posted(&self) -> Posted<'_> {
        Posted {
            event_type: self.event_type.borrowed(),
            sender: self.sender.as_deref().unwrap_or_default(),
            to: self.to.clone(),
            payload: self.payload.unwrap_or("null"),
            raw: self.raw,
            trace: None,
        }
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

fn parse_destination(
    receiver: Option<String>,
    room: Option<String>,
    everyone: bool,
) -> Result<Option<Destination<'static>>, BodyError> {
    match (receiver, room, everyone) {
        (None, None, everyone) => Ok(everyone.then_some(Destination::Everyone)),
        (Some(user), None, false) => match UserId::parse(user) {
            Some(user) => Ok(Some(Destination::User(user))),
            None => Err(wrong(
                ErrorCode::InvalidReceiver,
                "`receiverId` is longer than 255 bytes",
            )),
        },
        (None, Some(room), false) => match RoomName::parse(room) {
            Some(room) => Ok(Some(Destination::Room(room))),
            None => Err(wrong(
                ErrorCode::InvalidRoom,
                "`room` is longer than 255 bytes",
            )),
        },
        _ => Err(wrong(
            ErrorCode::InvalidReceiver,
            "name one of `receiverId`, `room` and `everyone`",
        )),
    }
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
        let posted = message.posted();
        assert_eq!(
            (posted.payload, posted.sender, posted.raw),
            (payload, "s", true)
        );
        assert_eq!(posted.to, UserId::parse("u1").map(Destination::User));
    }

    #[test]
    fn what_is_left_out_is_null_the_platform_and_nobody() {
        let message = PostMessage::parse(br#"{"type":"news"}"#).unwrap();
        let posted = message.posted();
        assert_eq!(
            (posted.payload, posted.sender, posted.raw),
            ("null", "", false)
        );
        assert_eq!(posted.to, None);
        for empty in [
            r#"{"type":"news","receiverId":"","room":null,"everyone":false}"#,
            r#"{"type":"news","everyone":null,"raw":null,"senderId":null,"payload":null}"#,
        ] {
            let message = PostMessage::parse(empty.as_bytes()).unwrap();
            assert_eq!(message.posted().to, None);
        }
    }

    #[test]
    fn a_receiver_a_room_or_everyone_is_named_and_not_two_of_them() {
        let to = |body: &str| {
            let message = PostMessage::parse(body.as_bytes()).unwrap();
            format!("{:?}", message.posted().to)
        };
        assert!(to(r#"{"type":"a","receiverID":"u"}"#).contains("User"));
        assert!(to(r#"{"type":"a","room":"r"}"#).contains("Room"));
        assert!(to(r#"{"type":"a","everyone":true}"#).contains("Everyone"));
        for body in [
            r#"{"type":"a","receiverId":"u","room":"r"}"#,
            r#"{"type":"a","receiverId":"u","everyone":true}"#,
            r#"{"type":"a","room":"r","everyone":true}"#,
        ] {
            assert_eq!(code(body), ErrorCode::InvalidReceiver, "{body}");
        }
    }

    #[test]
    fn the_rules_of_the_wire_hold() {
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
