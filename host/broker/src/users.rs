//! Requests between nodes about the connections of a user, and about the members of a room.

use serde::{Deserialize, Serialize};
use signalbox_protocol::CloseCode;

/// The most connections that one node lists for a [`UserRequest::List`].
pub const LISTED_MAX: usize = 1_000;

/// A request to each node that holds a user, about their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRequest {
    /// Count them.
    Count,
    /// List them.
    List,
    /// Make them members of a room.
    Join {
        /// The name of the room.
        room: String,
    },
    /// End their membership in a room.
    Leave {
        /// The name of the room.
        room: String,
    },
    /// Close them, after the queued frames.
    Disconnect {
        /// The code of the close frame.
        code: CloseCode,
        /// Its reason, for people.
        reason: String,
    },
    /// Close the one with this name, after its queued frames.
    DisconnectOne {
        /// The name of the connection.
        connection: String,
        /// The code of the close frame.
        code: CloseCode,
        /// Its reason, for people.
        reason: String,
    },
}

/// One connection, as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Its name, unique in the cluster.
    pub id: String,
    /// The peer's address and port.
    pub address: String,
    /// When it was opened: milliseconds since 1970-01-01T00:00:00Z.
    pub connected_at_ms: u64,
    /// Whether the client uses `signalbox.v1`.
    pub v1: bool,
    /// Whether its frames go out as server-sent events, and not over a WebSocket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub event_stream: bool,
    /// How many rooms it is in.
    pub rooms: usize,
}

/// The result of a [`UserRequest`] on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The server ID of the node.
    pub node: String,
    /// Its answer.
    pub answer: UserAnswer,
}

/// The number of members of a room on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomReport {
    /// The server ID of the node.
    pub node: String,
    /// The connections that are members; `None` if the node did not answer in time.
    pub members: Option<usize>,
}

/// The answer to a [`UserRequest`] of a node that, as far as is known, holds the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAnswer {
    /// The number of connections that the request concerned.
    Connections(usize),
    /// The connections: the answer to [`UserRequest::List`].
    Listed(Vec<ConnectionReport>),
    /// The answer to [`UserRequest::Join`] and [`UserRequest::Leave`].
    RoomChanged {
        /// The connections that are members now, or that were members until now.
        connections: usize,
        /// The connections that could not join or leave, or did not in time.
        failed: usize,
    },
    /// No answer in time. The node may have carried out the request all the same.
    Nothing,
    /// It is a server of `websocket-app`, which cannot be asked.
    CannotBeAsked,
}

impl UserAnswer {
    /// Whether the node turned out to hold nobody.
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::Connections(count) => *count == 0,
            Self::Listed(list) => list.is_empty(),
            Self::RoomChanged {
                connections,
                failed,
            } => connections + failed == 0,
            Self::Nothing | Self::CannotBeAsked => false,
        }
    }
}
