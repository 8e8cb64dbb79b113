//! What nodes ask each other about a user.

use crate::protocol::CloseCode;

/// What each node that holds a user is to do about their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRequest {
    /// Count them.
    Count,
    /// Close them, after what is queued.
    Disconnect {
        /// The code of the close frame.
        code: CloseCode,
        /// Its reason, for people.
        reason: String,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// How many connections were concerned.
    Connections(usize),
    /// Nothing in time. It may have done what was asked all the same.
    Nothing,
    /// It is a server of `websocket-app`, which cannot be asked.
    CannotBeAsked,
}
