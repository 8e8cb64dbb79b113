//! What nodes ask each other about a user.

use serde::{Deserialize, Serialize};

use crate::protocol::CloseCode;

/// Most connections that one node lists for a [`UserRequest::List`].
pub const LISTED_MAX: usize = 1_000;

/// What each node that holds a user is to do about their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRequest {
    /// Count them.
    Count,
    /// Say what each of them is.
    List,
    /// Close them, after what is queued.
    Disconnect {
        /// The code of the close frame.
        code: CloseCode,
        /// Its reason, for people.
        reason: String,
    },
    /// Close the one with this name, after what is queued. It concerns no other.
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
    /// When it came: milliseconds since 1970-01-01T00:00:00Z.
    pub connected_at_ms: u64,
    /// Whether it speaks `signalbox.v1`.
    pub v1: bool,
    /// How many rooms it is in.
    pub rooms: usize,
}

/// What came of a [`UserRequest`] on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The server ID of the node.
    pub node: String,
    /// What it says.
    pub told: Told,
}

/// What a node that holds a user, as far as is known, says to a [`UserRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// How many connections were concerned.
    Connections(usize),
    /// Which connections there are: the answer to [`UserRequest::List`].
    Listed(Vec<ConnectionReport>),
    /// Nothing in time. It may have done what was asked all the same.
    Nothing,
    /// It is a server of `websocket-app`, which cannot be asked.
    CannotBeAsked,
}

impl Told {
    /// Whether the node turned out to hold nobody.
    pub fn is_nobody(&self) -> bool {
        match self {
            Self::Connections(count) => *count == 0,
            Self::Listed(list) => list.is_empty(),
            Self::Nothing | Self::CannotBeAsked => false,
        }
    }
}
