//! Formats incoming frames for people.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// A frame from the server.
#[derive(Debug)]
pub(crate) struct Incoming {
    event_type: String,
    payload: Value,
    sender: String,
    room: String,
}

/// The fields as raw JSON, because other users choose their content.
#[derive(Deserialize)]
struct Envelope<'f> {
    #[serde(rename = "type", borrow)]
    event_type: &'f RawValue,
    #[serde(default)]
    payload: Option<&'f RawValue>,
    #[serde(rename = "senderId", default)]
    sender: Option<&'f RawValue>,
    #[serde(default)]
    room: Option<&'f RawValue>,
}

/// Parses a value. Returns its JSON text as a string if it cannot be parsed, such as half of a surrogate pair.
fn value(json: &RawValue) -> Value {
    serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().into())
}

fn text(json: Option<&RawValue>) -> String {
    match json.map(value) {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The meaning of a frame to the client, in addition to the line that it shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The answer to the frame with this `id`, and whether the server did what was asked.
    Answer { id: String, good: bool },
    /// A message from a user or the platform.
    Message,
    /// Something else.
    Notice,
}

impl Incoming {
    /// Parses a frame, regardless of the content of its fields.
    ///
    /// # Errors
    /// Fails if it is not an object with a `type`.
    pub(crate) fn read(frame: &str) -> Result<Self, serde_json::Error> {
        let envelope: Envelope<'_> = serde_json::from_str(frame)?;
        Ok(Self {
            event_type: text(Some(envelope.event_type)),
            payload: envelope.payload.map(value).unwrap_or_default(),
            sender: text(envelope.sender),
            room: text(envelope.room),
        })
    }

    pub(crate) fn meaning(&self) -> Meaning {
        match self.event_type.as_str() {
            "ack" | "error" => Meaning::Answer {
                id: self.text_of("id").to_owned(),
                good: self.event_type == "ack",
            },
            "welcome" | "joined" | "left" | "token_expiring" => Meaning::Notice,
            _ => Meaning::Message,
        }
    }

    /// Formats the frame as one line.
    pub(crate) fn line(&self) -> String {
        match self.event_type.as_str() {
            "welcome" => format!(
                "connected as {} to node {}",
                self.text_of("userId"),
                self.text_of("nodeId")
            ),
            "ack" => format!("  {}: {}", self.text_of("id"), self.text_of("status")),
            "error" => self.error(),
            "joined" | "left" => format!("{} {}", self.event_type, self.text_of("room")),
            "token_expiring" => {
                format!("the token expires in {} ms", self.payload["expiresInMs"])
            }
            _ => self.message(),
        }
    }

    fn message(&self) -> String {
        let room = match self.room.as_str() {
            "" => String::new(),
            room => format!("[{room}] "),
        };
        let sender = match self.sender.as_str() {
            "" => "the server",
            sender => sender,
        };
        let text = self.payload.as_str().or(self.payload["text"].as_str());
        match text {
            Some(text) if self.event_type == "chat_message" => format!("{room}{sender}: {text}"),
            _ => format!("{room}{sender} sent {}: {}", self.event_type, self.payload),
        }
    }

    fn error(&self) -> String {
        let (id, plugin) = (self.text_of("id"), self.text_of("plugin"));
        let id = if id.is_empty() {
            String::new()
        } else {
            format!("{id}: ")
        };
        let plugin = match plugin {
            "" => String::new(),
            plugin => format!(" (plugin {plugin})"),
        };
        format!(
            "! {id}{}{plugin}: {}",
            self.text_of("code"),
            self.text_of("message")
        )
    }

    fn text_of(&self, field: &str) -> &str {
        self.payload[field].as_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(frame: &str) -> Incoming {
        Incoming::read(frame).unwrap()
    }

    #[test]
    fn every_kind_of_frame_is_a_readable_line() {
        for (frame, line) in [
            (
                r#"{"type":"chat_message","payload":{"text":"hi"},"receiverID":"bob","senderId":"ann","timestamp":""}"#,
                "ann: hi",
            ),
            (
                r#"{"type":"chat_message","payload":"hi","receiverID":"","senderId":"ann","room":"lobby"}"#,
                "[lobby] ann: hi",
            ),
            (
                r#"{"type":"score","payload":[1],"receiverID":"bob","senderId":""}"#,
                "the server sent score: [1]",
            ),
            (
                r#"{"type":"welcome","payload":{"userId":"ann","nodeId":"a"}}"#,
                "connected as ann to node a",
            ),
            (
                r#"{"type":"joined","payload":{"room":"lobby"}}"#,
                "joined lobby",
            ),
            (
                r#"{"type":"token_expiring","payload":{"expiresInMs":30000}}"#,
                "the token expires in 30000 ms",
            ),
            (
                r#"{"type":"ack","payload":{"id":"1","messageId":"m","status":"offline"}}"#,
                "  1: offline",
            ),
            (
                r#"{"type":"error","payload":{"id":"2","code":"blank","message":"the text is blank","plugin":"chat","retryable":false}}"#,
                "! 2: blank (plugin chat): the text is blank",
            ),
            (
                r#"{"type":"error","payload":{"code":"invalid_frame","message":"no","retryable":false}}"#,
                "! invalid_frame: no",
            ),
        ] {
            assert_eq!(incoming(frame).line(), line);
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_is_shown_as_it_stands_and_counts() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        for payload in [r#""spam \ud83d""#, r#"{"text":"\ude00"}"#, "1e400", &deep] {
            let frame =
                format!(r#"{{"type":"chat_message","payload":{payload},"senderId":"ann"}}"#);
            let incoming = incoming(&frame);
            assert_eq!(incoming.line(), format!("ann: {payload}"));
            assert_eq!(incoming.meaning(), Meaning::Message);
        }
        for frame in [
            r#"{"type":7,"payload":null,"senderId":null,"room":[1]}"#,
            r#"{"type":"ack","payload":null}"#,
            r#"{"type":"error","payload":[7]}"#,
            r#"{"type":"welcome","payload":"x"}"#,
        ] {
            assert!(!incoming(frame).line().is_empty(), "{frame}");
        }
        for frame in ["", "null", "[]", "{}", "7", r#""a""#, "{"] {
            assert!(Incoming::read(frame).is_err(), "{frame}");
        }
    }

    #[test]
    fn acks_and_errors_answer_what_was_sent() {
        let answer = |frame| incoming(frame).meaning();
        assert_eq!(
            answer(r#"{"type":"ack","payload":{"id":"1","status":"delivered"}}"#),
            Meaning::Answer {
                id: "1".into(),
                good: true
            }
        );
        assert_eq!(
            answer(r#"{"type":"error","payload":{"id":"1","code":"blank"}}"#),
            Meaning::Answer {
                id: "1".into(),
                good: false
            }
        );
        assert_eq!(answer(r#"{"type":"note","payload":1}"#), Meaning::Message);
        assert_eq!(
            answer(r#"{"type":"left","payload":{"room":"r"}}"#),
            Meaning::Notice
        );
    }
}
