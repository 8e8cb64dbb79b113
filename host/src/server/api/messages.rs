//! `POST /api/messages`.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::read;
use crate::{
    metrics::events::MessageRejected,
    protocol::{ErrorCode, ROOM_NAME_BYTES_MAX, USER_ID_BYTES_MAX, event_type, inbound},
    server::{
        AppState,
        error::{ApiError, json},
    },
    session::backend::{self, NotSent, Posted, To},
    trace::Parent,
};

/// What a backend wants sent. The payload borrows from the body, and its bytes go out as they came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostMessage<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default, rename = "receiverId", alias = "receiverID")]
    receiver: Option<String>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    everyone: bool,
    #[serde(default, rename = "senderId", alias = "senderID")]
    sender: Option<String>,
    #[serde(default)]
    raw: bool,
}

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
        span.set("messaging.message.id", message_id.clone());
    }
    let posted = Posted {
        trace: span.as_ref(),
        ..message.posted()
    };
    let sent = backend::post(&state.services, &message_id, posted).await;
    if let Some(span) = &span {
        match &sent {
            Ok(status) => span.set("signalbox.status", status.as_str()),
            Err(NotSent::Rejected { rejection, .. }) => {
                span.set("signalbox.rejection", rejection.code.clone());
            }
            Err(NotSent::Refused { code, .. }) => span.fail(code.as_str()),
        }
    }
    let status = sent?;
    let answer = Answer {
        message_id: &message_id,
        status: status.as_str(),
    };
    Ok(json(StatusCode::OK, &answer))
}

/// The trace that the backend began, where it says so and has it recorded.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    Parent::parse(headers.get("traceparent")?.to_str().ok()?)
}

type Wrong = (ErrorCode, String);

impl<'a> PostMessage<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Wrong> {
        let wrong = |code, message: &str| Err((code, message.to_owned()));
        let Ok(text) = std::str::from_utf8(body) else {
            return wrong(ErrorCode::InvalidFrame, "the body is not UTF-8");
        };
        if inbound::is_too_deep(text) {
            return wrong(
                ErrorCode::TooDeep,
                "the JSON is nested more than 100 levels deep",
            );
        }
        let mut message: Self = serde_json::from_str(text).map_err(|error| {
            let reason = format!("the body is not a message: {error}");
            (ErrorCode::InvalidFrame, reason)
        })?;
        if !event_type::is_valid(&message.event_type) {
            return wrong(
                ErrorCode::InvalidType,
                "`type` must be 1 to 64 of `A-Z a-z 0-9 _ . : -`",
            );
        }
        if event_type::is_built_in(&message.event_type) {
            return wrong(
                ErrorCode::ReservedType,
                "this type is built in and cannot be sent",
            );
        }
        // As on the wire, an empty name is none.
        message.receiver = message.receiver.filter(|name| !name.is_empty());
        message.room = message.room.filter(|name| !name.is_empty());
        let named = [
            message.receiver.is_some(),
            message.room.is_some(),
            message.everyone,
        ];
        if named.into_iter().filter(|named| *named).count() > 1 {
            return wrong(
                ErrorCode::InvalidReceiver,
                "name one of `receiverId`, `room` and `everyone`",
            );
        }
        let is_long = |name: &Option<String>, bytes_max| {
            name.as_ref().is_some_and(|name| name.len() > bytes_max)
        };
        if is_long(&message.receiver, USER_ID_BYTES_MAX) {
            return wrong(
                ErrorCode::InvalidReceiver,
                "`receiverId` is longer than 255 bytes",
            );
        }
        if is_long(&message.sender, USER_ID_BYTES_MAX) {
            return wrong(
                ErrorCode::InvalidFrame,
                "`senderId` is longer than 255 bytes",
            );
        }
        if is_long(&message.room, ROOM_NAME_BYTES_MAX) {
            return wrong(ErrorCode::InvalidRoom, "`room` is longer than 255 bytes");
        }
        Ok(message)
    }

    fn posted(&self) -> Posted<'_> {
        let to = match (&self.receiver, &self.room) {
            (Some(user), _) => Some(To::User(user.into())),
            (None, Some(room)) => Some(To::Room(room.into())),
            (None, None) => self.everyone.then_some(To::Everyone),
        };
        Posted {
            event_type: &self.event_type,
            sender: self.sender.as_deref().unwrap_or_default(),
            to,
            payload: self.payload.map_or("null", RawValue::get),
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
        assert_eq!(posted.to, Some(To::User("u1".into())));
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
        let empty = br#"{"type":"news","receiverId":"","room":null,"everyone":false}"#;
        assert_eq!(PostMessage::parse(empty).unwrap().posted().to, None);
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
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"a","receiverId":5}"#,
            r#"{"type":"a","type":"b"}"#,
            r#"{"type":"a","recieverId":"u"}"#,
            r#"{"type":"a"} x"#,
        ] {
            assert_eq!(code(body), ErrorCode::InvalidFrame, "{body}");
        }
        assert_eq!(code(r#"{"type":"a b"}"#), ErrorCode::InvalidType);
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
