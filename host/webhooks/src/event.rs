//! The JSON of an event.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::value::RawValue;
use signalbox_config::WebhookEvent;
use signalbox_protocol::timestamp;

/// The part of an event that depends on its type. What does not apply is left out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventDetail<'a> {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<&'a str>,
    /// The user's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connection_id: Option<&'a str>,
    /// The code of its close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u16>,
    /// The reason of its close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    /// The room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<&'a str>,
    /// The message, as its receiver would have got it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<&'a RawValue>,
    /// Whether the payload of the message is too large, and `null` instead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) payload_omitted: bool,
}

#[derive(Serialize)]
struct WrittenEvent<'a> {
    id: &'a str,
    r#type: &'static str,
    timestamp: &'a str,
    node: &'a str,
    #[serde(flatten)]
    detail: EventDetail<'a>,
}

/// Encodes the events of a node.
#[derive(Debug)]
pub(crate) struct EventSource {
    node: String,
    last: AtomicU64,
}

impl EventSource {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            last: AtomicU64::new(0),
        }
    }

    /// An ID that no other event or batch of any node has.
    pub(crate) fn next_id(&self) -> String {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}.{number}", self.node)
    }

    /// The JSON text of an event that happens now.
    pub(crate) fn encode(&self, event: WebhookEvent, detail: EventDetail<'_>) -> String {
        let written = WrittenEvent {
            id: &self.next_id(),
            r#type: event.as_str(),
            timestamp: &timestamp::text(SystemTime::now()),
            node: &self.node,
            detail,
        };
        // Texts, numbers and JSON always serialize.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

/// The body of a request.
pub(crate) fn body(batch: &str, events: &[String]) -> String {
    let length: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut body = String::with_capacity(length + batch.len() + 32);
    body.push_str("{\"id\":");
    // A text always serializes.
    body.push_str(&serde_json::to_string(batch).unwrap_or_default());
    body.push_str(",\"events\":[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(event);
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_only_its_fields_and_a_unique_id() {
        let source = EventSource::new("a-1");
        let message = RawValue::from_string("{\"payload\":1.0}".to_owned()).unwrap();
        let detail = EventDetail {
            room: Some("r"),
            message: Some(&message),
            ..EventDetail::default()
        };
        let first = source.encode(WebhookEvent::Undelivered, detail);
        let (start, rest) = first.split_once(",\"timestamp\":\"").unwrap();
        assert_eq!(start, r#"{"id":"a-1.1","type":"undelivered""#);
        let (_, rest) = rest.split_once('"').unwrap();
        assert_eq!(
            rest,
            r#","node":"a-1","room":"r","message":{"payload":1.0}}"#
        );
        let detail = EventDetail {
            user_id: Some("ä\"\n"),
            code: Some(1000),
            payload_omitted: true,
            ..EventDetail::default()
        };
        let second = source.encode(WebhookEvent::Disconnected, detail);
        assert!(second.starts_with(r#"{"id":"a-1.2","type":"disconnected","#));
        let end = r#""userId":"ä\"\n","code":1000,"payloadOmitted":true}"#;
        assert!(second.ends_with(end), "{second}");
    }

    #[test]
    fn a_body_has_the_events_in_their_order() {
        let events = ["{\"a\":1}".to_owned(), "{}".to_owned()];
        assert_eq!(body("b", &events), r#"{"id":"b","events":[{"a":1},{}]}"#);
        assert_eq!(body("b", &events[..1]), r#"{"id":"b","events":[{"a":1}]}"#);
    }
}
