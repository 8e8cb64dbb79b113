//! `POST /api/messages`.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::{
    Destination, ErrorCode, ROOM_NAME_BYTES_MAX, USER_ID_BYTES_MAX, event_type,
};
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
    event_type: String,
    payload: Option<&'a str>,
    receiver: Option<String>,
    room: Option<String>,
    everyone: bool,
    sender: Option<String>,
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
        span.set("signalbox.type", message.event_type.clone());
        span.set("messaging.message.id", message_id.clone());
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
        let message = Self::read(Object::parse(body)?)?;
        message.check()?;
        Ok(message)
    }

    fn read(mut object: Object<'a>) -> Result<Self, BodyError> {
        // As on the WebSocket, an empty name counts as absent.
        let given = |name: Option<String>| name.filter(|name| !name.is_empty());
        let message = Self {
            event_type: object.text(&["type"])?.unwrap_or_default(),
            payload: object.json("payload")?,
            receiver: given(object.text(&["receiverId", "receiverID"])?),
            room: given(object.text(&["room"])?),
            everyone: object.flag("everyone")?,
            sender: object.text(&["senderId", "senderID"])?,
            raw: object.flag("raw")?,
        };
        object.finish(FIELDS)?;
        Ok(message)
    }

    fn check(&self) -> Result<(), BodyError> {
        let wrong = |code, message: &str| Err((code, message.to_owned()));
        if !event_type::is_valid(&self.event_type) {
            return wrong(
                ErrorCode::InvalidType,
                "`type` must be 1 to 64 of `A-Z a-z 0-9 _ . : -`",
            );
        }
        if event_type::is_built_in(&self.event_type) {
            return wrong(
                ErrorCode::ReservedType,
                "this type is built in and cannot be sent",
            );
        }
        let named = [self.receiver.is_some(), self.room.is_some(), self.everyone];
        if named.into_iter().filter(|named| *named).count() > 1 {
            return wrong(
                ErrorCode::InvalidReceiver,
                "name one of `receiverId`, `room` and `everyone`",
            );
        }
        let is_long = |name: &Option<String>, bytes_max| {
            name.as_ref().is_some_and(|name| name.len() > bytes_max)
        };
        if is_long(&self.receiver, USER_ID_BYTES_MAX) {
            return wrong(
                ErrorCode::InvalidReceiver,
                "`receiverId` is longer than 255 bytes",
            );
        }
        if is_long(&self.sender, USER_ID_BYTES_MAX) {
            return wrong(
                ErrorCode::InvalidFrame,
                "`senderId` is longer than 255 bytes",
            );
        }
        if is_long(&self.room, ROOM_NAME_BYTES_MAX) {
            return wrong(ErrorCode::InvalidRoom, "`room` is longer than 255 bytes");
        }
        Ok(())
    }

    fn posted(&self) -> Posted<'_> {
        let to = match (&self.receiver, &self.room) {
            (Some(user), _) => Some(Destination::User(user.into())),
            (None, Some(room)) => Some(Destination::Room(room.into())),
            (None, None) => self.everyone.then_some(Destination::Everyone),
        };
        Posted {
            event_type: &self.event_type,
            sender: self.sender.as_deref().unwrap_or_default(),
            to,
            payload: self.payload.unwrap_or("null"),
            raw: self.raw,
            trace: None,
        }
    }
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
        assert_eq!(posted.to, Some(Destination::User("u1".into())));
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
