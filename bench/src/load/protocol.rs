//! The protocols of the servers that can be measured: the frames that a client sends, and the meaning of a frame that
//! arrives.
//!
//! Nothing here is called for a message that arrives: messages are found by their numbers, whatever is around them.

/// Added to the sequence number. The sum has 10 digits for the first nine billion messages of a sender. It is also the ID
/// of a message that has one, and fits into 32 bits for the first three billion.
pub(super) const NUMBER_BASE: u64 = 1_000_000_000;

/// The destination of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination<'a> {
    /// One user.
    User(&'a str),
    /// One room. Messages carry the sender's index, because a receiver checks the order of each sender
    /// separately.
    Room { room: &'a str, sender: usize },
}

/// How the load generator talks to one kind of server. The user of a connection is in the query, as `userId`.
#[derive(Debug)]
pub(super) struct Protocol {
    /// Path and query of the upgrade if the URL has none.
    pub(super) path: &'static str,
    /// Whether the query has the receiver too, as `peer` or `room`.
    pub(super) receiver_in_query: bool,
    /// The first frame of a client, which the server answers with an [`Incoming::Ready`].
    pub(super) greeting: Option<&'static str>,
    /// A frame that the server answers with an [`Incoming::Ready`] once messages reach the connection, also from other
    /// servers. `None` if they do as soon as it is open and greeted.
    pub(super) settling: Option<&'static str>,
    /// The frame that enters the room `$`, which the server answers with an [`Incoming::Ready`]. `None` if the query
    /// has the room.
    pub(super) join: Option<&'static str>,
    /// Whether the server can confirm a message to its sender.
    pub(super) can_ack: bool,
    /// Whether a frame may hold several texts, one on each line.
    pub(super) several_in_a_frame: bool,
    /// The text around the payload of a message. With `true` the message asks for a confirmation.
    pub(super) envelope: fn(Destination<'_>, bool) -> Envelope,
    /// The meaning of a text that is no message of ours.
    pub(super) classify: fn(&[u8]) -> Incoming,
}

/// The text around the payload of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Everything before the payload.
    pub(super) head: String,
    /// Where the digits of the message's ID begin in `head`. `None` if the message has no ID.
    pub(super) id_at: Option<usize>,
    /// Everything after the payload.
    pub(super) tail: String,
}

impl Envelope {
    /// A text in which `#` stands for the digits of the message's ID, if it has one, and `$` for the payload. Neither is in
    /// the name of a user or a room.
    fn new(text: &str) -> Self {
        let (head, tail) = text.split_once('$').unwrap_or((text, ""));
        Self {
            head: head.replacen('#', &NUMBER_BASE.to_string(), 1),
            id_at: head.find('#'),
            tail: tail.to_owned(),
        }
    }
}

/// The meaning of a text that is no message of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The server answered a greeting, a settling frame or a join.
    Ready,
    /// The server confirmed a message.
    Ack,
    /// The server wants this text at once, or it closes the connection.
    Answer(&'static str),
    /// The server refused something.
    Error,
    /// Nothing that a load generator needs.
    Other,
}

/// A server that speaks the wire protocol of Signalbox: `docs/protocol.md`. It answers the upgrade before plugins admit
/// the connection, and before the connection has its place in the router.
pub(super) const SIGNALBOX: Protocol = Protocol {
    path: "/ws",
    receiver_in_query: false,
    greeting: None,
    settling: Some(r#"{"type":"heartbeat","id":"there"}"#),
    join: Some(r#"{"type":"join","room":"$","id":"join"}"#),
    can_ack: true,
    several_in_a_frame: false,
    envelope: |destination, acks| {
        let id = if acks { "\"id\":\"#\"," } else { "" };
        let to = match destination {
            Destination::User(user) => format!(r#""receiverId":"{user}""#),
            Destination::Room { room, .. } => format!(r#""room":"{room}""#),
        };
        Envelope::new(&format!(
            r#"{{"type":"chat_message",{id}"payload":$,{to}}}"#
        ))
    },
    classify: |text| {
        let has = |part: &str| contains(text, part.as_bytes());
        if has(r#""type":"error""#) {
            Incoming::Error
        } else if has(r#""type":"joined""#) {
            Incoming::Ready
        } else if !has(r#""type":"ack""#) {
            Incoming::Other
        } else if has(r#""id":"join""#) || has(r#""id":"there""#) {
            // Every other ID is that of a message.
            Incoming::Ready
        } else if has(r#""status":"offline""#) {
            // Every receiver is connected, so the message is lost.
            Incoming::Error
        } else {
            Incoming::Ack
        }
    },
};

/// `signalbox-bench relay`: the receiver or the room is in the query, and frames are forwarded unread. Messages are those
/// that Signalbox would get.
pub(super) const RELAY: Protocol = Protocol {
    receiver_in_query: true,
    settling: None,
    join: None,
    can_ack: false,
    envelope: |destination, _| (SIGNALBOX.envelope)(destination, false),
    ..SIGNALBOX
};

/// The Socket.IO server of `bench/peers/socketio`: Socket.IO v5 in Engine.IO v4, over WebSocket alone.
///
/// The first digit is the type of the Engine.IO packet: `0` open, `2` ping, `3` pong, `4` message. A message is a packet
/// of Socket.IO, whose type is the second digit: `0` connect, `1` disconnect, `2` event, `3` ack, `4` connect error. An
/// event that wants an ack has an ID before its arguments.
pub(super) const SOCKET_IO: Protocol = Protocol {
    path: "/socket.io/?EIO=4&transport=websocket",
    greeting: Some("40"),
    settling: None,
    join: Some(r#"421["join","$"]"#),
    envelope: |destination, acks| {
        let id = if acks { "#" } else { "" };
        let (event, to) = match destination {
            Destination::User(user) => ("message", user),
            Destination::Room { room, .. } => ("room_message", room),
        };
        Envelope::new(&format!(r#"42{id}["{event}","{to}",$]"#))
    },
    classify: |text| match text {
        b"2" => Incoming::Answer("3"),
        [b'4', b'0', ..] => Incoming::Ready,
        [b'4', b'3', ack @ ..] => answer_to(split_digits(ack).0),
        [b'4', b'1' | b'4', ..] => Incoming::Error,
        _ => Incoming::Other,
    },
    ..SIGNALBOX
};

/// The server on the Go library centrifuge of `bench/peers/centrifuge`, with its JSON protocol.
///
/// A command has an ID, and the reply has the same one. Publications are pushes without an ID. A frame holds one text or
/// several, one on each line. `{}` is a ping and its answer. The library replies to every publication, so a message has an
/// ID with and without `acks`.
pub(super) const CENTRIFUGE: Protocol = Protocol {
    path: "/connection/websocket",
    greeting: Some(r#"{"id":1,"connect":{}}"#),
    settling: None,
    join: Some(r#"{"id":2,"subscribe":{"channel":"room:$"}}"#),
    several_in_a_frame: true,
    envelope: |destination, _| {
        let channel = match destination {
            Destination::User(user) => format!("user:{user}"),
            Destination::Room { room, .. } => format!("room:{room}"),
        };
        Envelope::new(&format!(
            r#"{{"id":#,"publish":{{"channel":"{channel}","data":$}}}}"#
        ))
    },
    classify: |text| {
        if text == b"{}" {
            return Incoming::Answer("{}");
        }
        if text.starts_with(br#"{"push":{"disconnect""#) {
            return Incoming::Error;
        }
        let Some(reply) = text.strip_prefix(br#"{"id":"#) else {
            return Incoming::Other;
        };
        let (id, rest) = split_digits(reply);
        if rest.starts_with(br#","error""#) {
            Incoming::Error
        } else {
            answer_to(id)
        }
    },
    ..SIGNALBOX
};

/// Splits the digits at the beginning of a text from the rest.
fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// The meaning of an answer with this ID: those of messages are long, and all others have one digit.
fn answer_to(id: &[u8]) -> Incoming {
    if id.len() > 1 {
        Incoming::Ack
    } else {
        Incoming::Ready
    }
}

/// Whether `text` contains `part`.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::message::{Stamp, StampReader};

    const PROTOCOLS: [(&str, Protocol); 4] = [
        ("signalbox", SIGNALBOX),
        ("relay", RELAY),
        ("socket.io", SOCKET_IO),
        ("centrifuge", CENTRIFUGE),
    ];

    /// Splits the lines of a table into the protocol, a word and the rest.
    fn rows(table: &str) -> impl Iterator<Item = (Protocol, &str, &str)> {
        table.trim().lines().map(|line| {
            let (name, rest) = line.trim().split_once(' ').expect("a protocol");
            let (word, rest) = rest.trim().split_once(' ').unwrap_or((rest, ""));
            let known = PROTOCOLS.into_iter().find(|(known, _)| *known == name);
            (known.expect("a known protocol").1, word, rest)
        })
    }

    #[test]
    fn a_message_names_its_receiver_and_may_ask_for_an_ack_with_its_id() {
        let table = r#"
            signalbox user {"type":"chat_message","payload":$,"receiverId":"b"}
            signalbox room {"type":"chat_message","id":"1000000000","payload":$,"room":"r"}
            relay user {"type":"chat_message","payload":$,"receiverId":"b"}
            relay room {"type":"chat_message","payload":$,"room":"r"}
            socket.io user 42["message","b",$]
            socket.io room 421000000000["room_message","r",$]
            centrifuge user {"id":1000000000,"publish":{"channel":"user:b","data":$}}
            centrifuge room {"id":1000000000,"publish":{"channel":"room:r","data":$}}"#;
        for (protocol, to, text) in rows(table) {
            let (room, sender) = ("r", 1);
            let destination = match to {
                "user" => Destination::User("b"),
                _ => Destination::Room { room, sender },
            };
            // Those to a room ask for an ack.
            let Envelope { head, id_at, tail } = (protocol.envelope)(destination, to == "room");
            assert_eq!(
                (format!("{head}${tail}").as_str(), id_at),
                (text, text.find("1000"))
            );
        }
    }

    /// The frames of socket.io 4.8.4 and of centrifuge 0.40.1, as recorded.
    #[test]
    fn answers_are_distinguished() {
        let table = r#"
            signalbox Ack {"type":"ack","payload":{"id":"1000000007","messageId":"a","status":"delivered"}}
            signalbox Error {"type":"ack","payload":{"id":"1000000007","messageId":"a","status":"offline"}}
            signalbox Ready {"type":"ack","payload":{"id":"there","messageId":"a","status":"handled"}}
            signalbox Ready {"type":"joined","payload":{"id":"join","room":"r"}}
            signalbox Error {"type":"error","payload":{"code":"blank"}}
            signalbox Other {"type":"notice"}
            socket.io Other 0{"sid":"T2Ad6ezr9NlFlIRQAAAA","upgrades":[],"pingInterval":25000,"maxPayload":1000000}
            socket.io Ready 40{"sid":"b_4SbYk5ejUn0yxuAAAA"}
            socket.io Ready 431[]
            socket.io Ack 431000000006[]
            socket.io Answer("3") 2
            socket.io Error 44/nope,{"message":"Invalid namespace"}
            socket.io Error 41
            socket.io Other 42["news",1]
            socket.io Other
            centrifuge Ready {"id":1,"connect":{"client":"ea8d1523","subs":{"user:bench-0":{}},"ping":25,"pong":true}}
            centrifuge Ready {"id":2,"subscribe":{}}
            centrifuge Ack {"id":1000000005,"publish":{}}
            centrifuge Error {"id":1000000007,"error":{"code":103,"message":"permission denied"}}
            centrifuge Answer("{}") {}
            centrifuge Error {"push":{"disconnect":{"code":3501,"reason":"bad request"}}}
            centrifuge Other {"push":{"channel":"user:bench-1","join":{}}}
            centrifuge Other"#;
        for (protocol, meaning, text) in rows(table) {
            let found = (protocol.classify)(text.as_bytes());
            assert_eq!(format!("{found:?}"), meaning, "{text}");
        }
    }

    #[test]
    fn the_numbers_are_found_in_the_texts_of_every_protocol() {
        let mut stamps = StampReader::default();
        #[rustfmt::skip]
        let texts = [
            (r#"42["message","b",{"text":"x","t":1000000000000077,"n":1000000005}]"#, false, Some((77, 5, 0))),
            (r#"42["message","b",{"text":"x","t":1000000000000078,"n":1000000006,"s":3}]"#, true, Some((78, 6, 3))),
            (r#"{"push":{"pub":{"data":{"text":"x","t":1000000000000079,"n":1000000007,"s":4}}}}"#, true, Some((79, 7, 4))),
            ("431000000006[]", false, None),
            (r#"40{"sid":"b_4SbYk5ejUn0yxuAAAA"}"#, false, None),
            (r#"{"id":1000000006,"publish":{}}"#, true, None),
        ];
        for (text, with_sender, numbers) in texts {
            let stamp = numbers.map(|(time_ns, number, sender)| Stamp {
                time_ns,
                number,
                sender,
            });
            assert_eq!(stamps.read(text.as_bytes(), with_sender), stamp, "{text}");
        }
    }
}
