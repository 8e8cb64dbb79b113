//! The protocols of the servers that can be measured. Each is one module: the frames that it sends, and the meaning of
//! a frame that arrives.
//!
//! None of them is called for a message that arrives: messages are found by their numbers, whatever is around them.

mod centrifuge;
mod relay;
mod signalbox;
mod socket_io;

use std::fmt::Debug;

pub(super) use centrifuge::Centrifuge;
pub(super) use relay::Relay;
pub(super) use signalbox::Signalbox;
pub(super) use socket_io::SocketIo;

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

/// The server's view of a connection before any message, for protocols that have it in the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It receives and sends nothing.
    Idle,
    /// It is a member of this room.
    Member(String),
    /// It sends to this user.
    Peer(String),
}

/// How the load generator talks to one kind of server. The user of a connection is in the query, as `userId`.
pub(super) trait Protocol: Debug + Sync {
    /// Path and query of the upgrade if the URL has none.
    fn path(&self) -> &'static str {
        "/ws"
    }

    /// Parameters of the query in addition to the user, each with a leading `&`.
    fn query(&self, _purpose: &Purpose) -> String {
        String::new()
    }

    /// The first frame of a client, which the server answers with an [`Incoming::Ready`].
    fn greeting(&self) -> Option<&'static str> {
        None
    }

    /// A frame that the server answers with an [`Incoming::Ready`] once messages reach the connection, also from other
    /// servers. `None` if they do as soon as it is open and greeted.
    fn settling(&self) -> Option<&'static str> {
        None
    }

    /// The frame that enters a room, which the server answers with an [`Incoming::Ready`]. `None` if the query has the
    /// room.
    fn join(&self, _room: &str) -> Option<String> {
        None
    }

    /// Whether the server can confirm a message to its sender.
    fn can_ack(&self) -> bool {
        true
    }

    /// Whether a frame may hold several texts, one on each line.
    fn several_in_a_frame(&self) -> bool {
        false
    }

    /// The text around the payload of a message. With `acks` the message asks for a confirmation.
    fn envelope(&self, destination: Destination<'_>, acks: bool) -> Envelope;

    /// The meaning of a text that is no message of ours.
    fn classify(&self, text: &[u8]) -> Incoming;
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
    /// An envelope without an ID.
    fn plain(head: impl Into<String>, tail: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            id_at: None,
            tail: tail.into(),
        }
    }

    /// An envelope with the ID between two parts of the head.
    fn with_id(before_id: &str, after_id: &str, tail: impl Into<String>) -> Self {
        Self {
            head: format!("{before_id}{NUMBER_BASE}{after_id}"),
            id_at: Some(before_id.len()),
            tail: tail.into(),
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

/// The user or the room in a channel's name.
fn channel(destination: Destination<'_>) -> String {
    match destination {
        Destination::User(user) => format!("user:{user}"),
        Destination::Room { room, .. } => format!("room:{room}"),
    }
}
