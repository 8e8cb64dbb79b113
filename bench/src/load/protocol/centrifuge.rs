//! The JSON protocol of the Go library centrifuge, as `bench/peers/centrifuge` speaks it.
//!
//! A command has an ID, and the reply has the same one. Publications are pushes without an ID. A frame holds one text or
//! several, one on each line. `{}` is a ping and its answer.

use super::{Destination, Envelope, Incoming, Protocol, answer_to, channel, split_digits};

/// The server of `bench/peers/centrifuge`.
#[derive(Debug)]
pub(in crate::load) struct Centrifuge;

impl Protocol for Centrifuge {
    fn path(&self) -> &'static str {
        "/connection/websocket"
    }

    fn greeting(&self) -> Option<&'static str> {
        Some("{\"id\":1,\"connect\":{}}")
    }

    fn join(&self, room: &str) -> Option<String> {
        Some(format!(
            "{{\"id\":2,\"subscribe\":{{\"channel\":\"room:{room}\"}}}}"
        ))
    }

    fn several_in_a_frame(&self) -> bool {
        true
    }

    /// The library replies to every publication, so a message has an ID with and without `acks`.
    fn envelope(&self, destination: Destination<'_>, _acks: bool) -> Envelope {
        let publish = format!(
            ",\"publish\":{{\"channel\":\"{}\",\"data\":",
            channel(destination)
        );
        Envelope::with_id("{\"id\":", &publish, "}}")
    }

    fn classify(&self, text: &[u8]) -> Incoming {
        if text == b"{}" {
            return Incoming::Answer("{}");
        }
        if text.starts_with(b"{\"push\":{\"disconnect\"") {
            return Incoming::Error;
        }
        let Some(reply) = text.strip_prefix(b"{\"id\":") else {
            return Incoming::Other;
        };
        let (id, rest) = split_digits(reply);
        if rest.starts_with(b",\"error\"") {
            Incoming::Error
        } else {
            answer_to(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::message::{Stamp, StampReader};

    #[test]
    fn a_publication_names_the_channel_and_has_an_id() {
        let envelope = Centrifuge.envelope(Destination::User("bench-1"), false);
        assert_eq!(
            envelope.head,
            "{\"id\":1000000000,\"publish\":{\"channel\":\"user:bench-1\",\"data\":"
        );
        assert_eq!((envelope.id_at, envelope.tail.as_str()), (Some(6), "}}"));
        assert_eq!(
            Centrifuge.join("bench-room").as_deref(),
            Some("{\"id\":2,\"subscribe\":{\"channel\":\"room:bench-room\"}}")
        );
    }

    /// The texts of centrifuge 0.40.1, as recorded.
    #[test]
    fn texts_are_told_apart() {
        for (text, meaning) in [
            (
                r#"{"id":1,"connect":{"client":"ea8d1523-98f2-4a60-b3ba-3dfee1c1d7f7","subs":{"user:bench-0":{}},"ping":25,"pong":true}}"#,
                Incoming::Ready,
            ),
            (r#"{"id":2,"subscribe":{}}"#, Incoming::Ready),
            (r#"{"id":1000000005,"publish":{}}"#, Incoming::Ack),
            (
                r#"{"id":1000000007,"error":{"code":103,"message":"permission denied"}}"#,
                Incoming::Error,
            ),
            ("{}", Incoming::Answer("{}")),
            (
                r#"{"push":{"disconnect":{"code":3501,"reason":"bad request"}}}"#,
                Incoming::Error,
            ),
            (
                r#"{"push":{"channel":"user:bench-1","join":{}}}"#,
                Incoming::Other,
            ),
            ("", Incoming::Other),
        ] {
            assert_eq!(Centrifuge.classify(text.as_bytes()), meaning, "{text}");
        }
    }

    #[test]
    fn the_numbers_are_found_in_each_line_of_a_frame() {
        let mut stamps = StampReader::default();
        let frame = br#"{"push":{"channel":"room:bench-room","pub":{"data":{"text":"x","t":1000000000000078,"n":1000000006,"s":0}}}}
{"id":1000000006,"publish":{}}
{"push":{"channel":"room:bench-room","pub":{"data":{"text":"x","t":1000000000000079,"n":1000000007,"s":4}}}}"#;
        let found: Vec<_> = frame
            .split(|byte| *byte == b'\n')
            .map(|line| stamps.read(line, true))
            .collect();
        let stamp = |time_ns, number, sender| {
            Some(Stamp {
                time_ns,
                number,
                sender,
            })
        };
        assert_eq!(found, [stamp(78, 6, 0), None, stamp(79, 7, 4)]);
    }
}
