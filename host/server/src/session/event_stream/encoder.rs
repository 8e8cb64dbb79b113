//! Encodes frames as server-sent events.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use signalbox_protocol::Frame;
use signalbox_router::FrameEncoder;

/// A comment, which clients ignore.
pub(super) const COMMENT: &[u8] = b": \n\n";

/// The beginnings of the frames that set the client's place in the history of its user.
const PLACING: [&str; 2] = [
    r#"{"type":"welcome","payload":{"#,
    r#"{"type":"joined","payload":{"user":"#,
];

/// Encodes each frame as an event. The event of a frame that sets the client's place in the history of its user, or is a message of
/// that history, has the place as its ID.
#[derive(Debug, Default)]
pub(super) struct EventEncoder {
    /// The epoch of that history, once the client knows its place.
    epoch: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Placing<'a> {
    #[serde(borrow)]
    payload: PlacingPayload<'a>,
}

#[derive(Deserialize)]
struct PlacingPayload<'a> {
    #[serde(borrow, default)]
    user: Option<Place<'a>>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
}

/// The fields of a message that tell which history it belongs to.
#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    room: Option<IgnoredAny>,
    offset: u64,
}

impl FrameEncoder for EventEncoder {
    fn encode(&mut self, frame: &Frame) -> Bytes {
        let text = frame.as_str();
        let mut event = Vec::with_capacity(text.len() + 64);
        if let (Some(offset), Some(epoch)) = (self.offset(text), &self.epoch) {
            event.extend_from_slice(b"id: ");
            event.extend_from_slice(epoch.as_bytes());
            event.push(b':');
            event.extend_from_slice(offset.to_string().as_bytes());
            event.push(b'\n');
        }
        push_data(&mut event, text);
        event.push(b'\n');
        event.into()
    }
}

impl EventEncoder {
    /// The client's offset in the history of its user after the frame `text`, if the frame changes it.
    fn offset(&mut self, text: &str) -> Option<u64> {
        if PLACING.iter().any(|beginning| text.starts_with(beginning)) {
            let placing: Placing<'_> = serde_json::from_str(text).ok()?;
            let place = placing.payload.user?;
            self.epoch = Some(place.epoch.into());
            return Some(place.offset);
        }
        if self.epoch.is_none() || !ends_with_offset(text) {
            return None;
        }
        let kept: Kept = serde_json::from_str(text).ok()?;
        kept.room.is_none().then_some(kept.offset)
    }
}

/// Whether the last field of an object is `offset`, as in each message of a history.
fn ends_with_offset(text: &str) -> bool {
    let before = text.strip_suffix('}').map(|text| {
        let is_digit = |c: char| c.is_ascii_digit();
        text.trim_end_matches(is_digit)
    });
    before.is_some_and(|before| before.ends_with(r#","offset":"#))
}

/// The last event of a stream.
pub(super) fn close_event(code: u16, reason: &str) -> Bytes {
    let data = serde_json::json!({"code": code, "reason": reason}).to_string();
    let mut event = b"event: close\n".to_vec();
    push_data(&mut event, &data);
    event.push(b'\n');
    event.into()
}

/// Appends the lines of `text`, each as a field `data`.
fn push_data(event: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let end = rest.find(['\n', '\r']);
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line.as_bytes());
        event.push(b'\n');
        rest = match (after.strip_prefix("\r\n"), after.get(1..)) {
            (Some(after), _) | (None, Some(after)) => after,
            (None, None) => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(encoder: &mut EventEncoder, text: &str) -> String {
        let event = encoder.encode(&Frame::from(text.to_owned()));
        String::from_utf8(event.into()).unwrap()
    }

    #[test]
    fn a_frame_is_one_event_and_its_line_breaks_divide_it_into_fields() {
        let mut encoder = EventEncoder::default();
        for (text, event) in [
            (r#"{"type":"x"}"#, "data: {\"type\":\"x\"}\n\n"),
            ("{\n}", "data: {\ndata: }\n\n"),
            ("{\r\n\r}\n", "data: {\ndata: \ndata: }\ndata: \n\n"),
            ("", "data: \n\n"),
        ] {
            assert_eq!(encode(&mut encoder, text), event, "{text:?}");
        }
    }

    #[test]
    fn only_frames_that_move_the_client_in_the_history_of_its_user_have_an_id() {
        let mut encoder = EventEncoder::default();
        let id = |event: String| {
            let id = event.strip_prefix("id: ")?.split_once('\n')?.0.to_owned();
            Some(id)
        };
        let message = r#"{"type":"m","payload":{"offset":1},"receiverID":"ann","senderId":"","timestamp":"","offset":8}"#;
        let mut ids = [
            message,
            r#"{"type":"welcome","payload":{"connectionId":"c","userId":"ann"}}"#,
            message,
            r#"{"type":"welcome","payload":{"connectionId":"c","user":{"epoch":"e1","offset":7,"recovered":true,"count":1},"limits":{}}}"#,
            message,
            r#"{"type":"m","payload":1,"receiverID":"","senderId":"","timestamp":"","room":"r","offset":9}"#,
            r#"{"type":"m","payload":{"offset":9},"receiverID":"ann","senderId":"","timestamp":""}"#,
            r#"{"type":"ack","payload":{"id":"1","status":"handled","data":{"a":1,"offset":5}}}"#,
            r#"{"type":"joined","payload":{"room":"r"}}"#,
            r#"{"type":"joined","payload":{"user":{"epoch":"e2","offset":0,"recovered":false,"reason":"epoch"}}}"#,
            message,
        ]
        .map(|text| id(encode(&mut encoder, text)))
        .into_iter();
        let mut next = || ids.next().unwrap();
        assert_eq!([next(), next(), next()], [None, None, None]);
        assert_eq!(next().as_deref(), Some("e1:7"));
        assert_eq!(next().as_deref(), Some("e1:8"));
        let others: Vec<_> = (0..4).map(|_| next()).collect();
        assert_eq!(others, [None, None, None, None]);
        assert_eq!(next().as_deref(), Some("e2:0"));
        assert_eq!(next().as_deref(), Some("e2:8"));
    }

    #[test]
    fn the_last_event_has_the_code_and_the_reason_as_data() {
        let event = close_event(4000, "a \"reason\"\nof two lines");
        let expected = "event: close\ndata: {\"code\":4000,\"reason\":\"a \\\"reason\\\"\\nof two lines\"}\n\n";
        assert_eq!(event, expected);
    }
}
