//! The wire protocol of Signalbox: `docs/protocol.md`.

use super::{Destination, Envelope, Incoming, Protocol, contains};

/// A server that speaks the wire protocol of Signalbox.
#[derive(Debug)]
pub(in crate::load) struct Signalbox;

impl Protocol for Signalbox {
    /// The upgrade is answered before plugins admit the connection, and before it has its place in the router.
    fn settling(&self) -> Option<&'static str> {
        Some("{\"type\":\"heartbeat\",\"id\":\"there\"}")
    }

    fn join(&self, room: &str) -> Option<String> {
        Some(format!(
            "{{\"type\":\"join\",\"room\":\"{room}\",\"id\":\"join\"}}"
        ))
    }

    fn envelope(&self, destination: Destination<'_>, acks: bool) -> Envelope {
        let tail = match destination {
            Destination::User(user) => format!(",\"receiverId\":\"{user}\"}}"),
            Destination::Room { room, .. } => format!(",\"room\":\"{room}\"}}"),
        };
        if acks {
            let before_id = "{\"type\":\"chat_message\",\"id\":\"";
            Envelope::with_id(before_id, "\",\"payload\":", tail)
        } else {
            Envelope::plain("{\"type\":\"chat_message\",\"payload\":", tail)
        }
    }

    fn classify(&self, text: &[u8]) -> Incoming {
        if contains(text, b"\"type\":\"error\"") {
            Incoming::Error
        } else if contains(text, b"\"type\":\"joined\"") {
            Incoming::Ready
        } else if contains(text, b"\"type\":\"ack\"") {
            // Every other ID is that of a message.
            let ready = [&b"\"id\":\"join\""[..], b"\"id\":\"there\""];
            if ready.iter().any(|id| contains(text, id)) {
                Incoming::Ready
            } else if contains(text, b"\"status\":\"offline\"") {
                // Every receiver is connected, so the message is lost.
                Incoming::Error
            } else {
                Incoming::Ack
            }
        } else {
            Incoming::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_asks_for_an_ack_with_its_id() {
        let plain = Signalbox.envelope(Destination::User("b"), false);
        assert_eq!(plain.head, "{\"type\":\"chat_message\",\"payload\":");
        assert_eq!(
            (plain.id_at, plain.tail.as_str()),
            (None, ",\"receiverId\":\"b\"}")
        );
        let acked = Signalbox.envelope(
            Destination::Room {
                room: "r",
                sender: 1,
            },
            true,
        );
        assert_eq!(
            acked.head,
            "{\"type\":\"chat_message\",\"id\":\"1000000000\",\"payload\":"
        );
        assert_eq!(
            (acked.id_at, acked.tail.as_str()),
            (Some(29), ",\"room\":\"r\"}")
        );
    }

    #[test]
    fn answers_are_told_apart() {
        for (text, meaning) in [
            (
                r#"{"type":"ack","payload":{"id":"1000000007","messageId":"a","status":"delivered"}}"#,
                Incoming::Ack,
            ),
            (
                r#"{"type":"ack","payload":{"id":"1000000007","messageId":"a","status":"offline"}}"#,
                Incoming::Error,
            ),
            (
                r#"{"type":"ack","payload":{"id":"there","messageId":"a","status":"handled"}}"#,
                Incoming::Ready,
            ),
            (
                r#"{"type":"joined","payload":{"id":"join","room":"r"}}"#,
                Incoming::Ready,
            ),
            (
                r#"{"type":"error","payload":{"code":"blank"}}"#,
                Incoming::Error,
            ),
            (r#"{"type":"notice"}"#, Incoming::Other),
        ] {
            assert_eq!(Signalbox.classify(text.as_bytes()), meaning, "{text}");
        }
    }
}
