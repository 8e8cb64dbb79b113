//! Formats what arrives for people.

use serde_json::{Value, value::RawValue};
use signalbox_client::{Error, Message};

/// Parses a value. Returns its JSON text as a string if it cannot be parsed, such as half of a surrogate pair.
fn value(json: &RawValue) -> Value {
    serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().into())
}

/// Formats a message as one line.
pub(crate) fn message(message: &Message) -> String {
    let room = match message.room.as_deref() {
        None | Some("") => String::new(),
        Some(room) => format!("[{room}] "),
    };
    let sender = match message.sender.as_str() {
        "" => "the server",
        sender => sender,
    };
    let payload = value(&message.payload);
    let text = payload.as_str().or(payload["text"].as_str());
    match text {
        Some(text) if message.event_type == "chat_message" => format!("{room}{sender}: {text}"),
        _ => format!("{room}{sender} sent {}: {payload}", message.event_type),
    }
}

/// Formats the error of the frame with this ID as one line.
pub(crate) fn error(id: &str, error: &Error) -> String {
    let id = if id.is_empty() {
        String::new()
    } else {
        format!("{id}: ")
    };
    let plugin = match &error.plugin {
        None => String::new(),
        Some(plugin) => format!(" (plugin {plugin})"),
    };
    format!("! {id}{}{plugin}: {}", error.code, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(frame: &str) -> String {
        message(&serde_json::from_str(frame).unwrap())
    }

    #[test]
    fn every_message_is_a_readable_line() {
        for (frame, expected) in [
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
        ] {
            assert_eq!(line(frame), expected);
        }
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_shown_as_it_stands() {
        let deep = "[".repeat(500) + &"]".repeat(500);
        for payload in [r#""spam \ud83d""#, r#"{"text":"\ude00"}"#, "1e400", &deep] {
            let frame =
                format!(r#"{{"type":"chat_message","payload":{payload},"senderId":"ann"}}"#);
            assert_eq!(line(&frame), format!("ann: {payload}"));
        }
    }
}
