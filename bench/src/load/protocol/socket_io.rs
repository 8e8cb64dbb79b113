//! Socket.IO v5 in Engine.IO v4, over WebSocket alone, as `bench/peers/socketio` speaks it.
//!
//! The first digit is the type of the Engine.IO packet: `0` open, `2` ping, `3` pong, `4` message. A message is a packet
//! of Socket.IO, whose type is the second digit: `0` connect, `1` disconnect, `2` event, `3` ack, `4` connect error. An
//! event that wants an ack has an ID before its arguments.

use super::{Destination, Envelope, Incoming, Protocol, answer_to, split_digits};

/// The Socket.IO server of `bench/peers/socketio`.
#[derive(Debug)]
pub(in crate::load) struct SocketIo;

impl Protocol for SocketIo {
    fn path(&self) -> &'static str {
        "/socket.io/?EIO=4&transport=websocket"
    }

    fn greeting(&self) -> Option<&'static str> {
        Some("40")
    }

    fn join(&self, room: &str) -> Option<String> {
        Some(format!("421[\"join\",\"{room}\"]"))
    }

    fn envelope(&self, destination: Destination<'_>, acks: bool) -> Envelope {
        let event = match destination {
            Destination::User(user) => format!("[\"message\",\"{user}\","),
            Destination::Room { room, .. } => format!("[\"room_message\",\"{room}\","),
        };
        if acks {
            Envelope::with_id("42", &event, "]")
        } else {
            Envelope::plain(format!("42{event}"), "]")
        }
    }

    fn classify(&self, text: &[u8]) -> Incoming {
        match text {
            b"2" => Incoming::Answer("3"),
            [b'4', b'0', ..] => Incoming::Ready,
            [b'4', b'3', ack @ ..] => answer_to(split_digits(ack).0),
            [b'4', b'1' | b'4', ..] => Incoming::Error,
            _ => Incoming::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::message::{Stamp, StampReader};

    #[test]
    fn an_event_names_the_receiver_and_may_ask_for_an_ack() {
        let to_user = SocketIo.envelope(Destination::User("bench-1"), false);
        assert_eq!(to_user, Envelope::plain("42[\"message\",\"bench-1\",", "]"));
        let room = Destination::Room {
            room: "bench-room",
            sender: 0,
        };
        let to_room = SocketIo.envelope(room, true);
        assert_eq!(
            to_room.head,
            "421000000000[\"room_message\",\"bench-room\","
        );
        assert_eq!((to_room.id_at, to_room.tail.as_str()), (Some(2), "]"));
        assert_eq!(
            SocketIo.join("bench-room").as_deref(),
            Some("421[\"join\",\"bench-room\"]")
        );
    }

    /// The frames of socket.io 4.8.4, as recorded.
    #[test]
    fn packets_are_told_apart() {
        for (text, meaning) in [
            (
                r#"0{"sid":"T2Ad6ezr9NlFlIRQAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
                Incoming::Other,
            ),
            (r#"40{"sid":"b_4SbYk5ejUn0yxuAAAA"}"#, Incoming::Ready),
            ("431[]", Incoming::Ready),
            ("431000000006[]", Incoming::Ack),
            ("2", Incoming::Answer("3")),
            (
                r#"44/nope,{"message":"Invalid namespace"}"#,
                Incoming::Error,
            ),
            ("41", Incoming::Error),
            (r#"42["news",1]"#, Incoming::Other),
            ("", Incoming::Other),
        ] {
            assert_eq!(SocketIo.classify(text.as_bytes()), meaning, "{text}");
        }
    }

    #[test]
    fn the_numbers_are_found_in_an_event() {
        let mut stamps = StampReader::default();
        let event = br#"42["message","bench-0",{"text":"x","t":1000000000000077,"n":1000000005}]"#;
        let stamp = Stamp {
            time_ns: 77,
            number: 5,
            sender: 0,
        };
        assert_eq!(stamps.read(event, false), Some(stamp));
        let in_room =
            br#"42["message","bench-0",{"text":"x","t":1000000000000078,"n":1000000006,"s":3}]"#;
        let stamp = Stamp {
            time_ns: 78,
            number: 6,
            sender: 3,
        };
        assert_eq!(stamps.read(in_room, true), Some(stamp));
        for other in ["431000000006[]", r#"40{"sid":"b_4SbYk5ejUn0yxuAAAA"}"#] {
            assert_eq!(stamps.read(other.as_bytes(), false), None, "{other}");
        }
    }
}
