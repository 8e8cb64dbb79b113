//! What carries messages between nodes.
//!
//! Every node has one [`Broker`]. The router hands it what connections on *other* nodes must get; the broker of those
//! nodes hands it to their [`LocalNode`]. A connection on the sender's own node never gets a message through the
//! broker, so each connection has one path and order holds on it.
//!
//! The comments on [`Broker`] are the contract; `tests/it/broker.rs` is the suite that every implementation passes.

mod memory;
mod redis;
mod users;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use memory::{MemoryBroker, MemoryHub};
pub use redis::RedisBroker;
pub use users::{ConnectionReport, LISTED_MAX, NodeReport, Told, UserRequest};

use crate::{protocol::Frame, trace::Trace};

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Every connection of one user.
    User(&'a str),
    /// Every member of one room.
    Room(&'a str),
    /// Every connection.
    Everyone,
}

/// The part of a node that a broker talks to: who is connected here.
pub trait LocalNode: Send + Sync {
    /// Whether a connection of `user` is on this node now that takes frames: one that is being closed does not.
    fn holds_user(&self, user: &str) -> bool;

    /// Whether a member of `room` is on this node now.
    fn holds_room(&self, room: &str) -> bool;

    /// Puts `frame` into the outbox of every connection of `target` on this node and returns how many took it. Never
    /// blocks: a connection that cannot keep up loses itself, not the others' time.
    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize;

    /// Does `request` for every connection of `user` on this node, and returns how many those were. A connection that is
    /// being closed already is none any more. Never blocks.
    fn carry_out(&self, user: &str, request: &UserRequest) -> usize;

    /// The connections of `user`, at most [`LISTED_MAX`] of them, for [`UserRequest::List`].
    fn list(&self, user: &str) -> Vec<ConnectionReport>;
}

/// The other nodes, as one node sees them.
pub trait Broker: Send + Sync {
    /// Publishes `frame` to every other node that holds `target`, and returns how many those are. The frame says itself
    /// whom it is for, as every delivery does (`receiverID`, `room`): some brokers carry nothing else. Frames of one
    /// caller to one target arrive in the order of the calls, each at most once. A frame for a user who leaves such a
    /// node before it arrives follows them to wherever they come within some seconds. `here`: connections of this node
    /// have it already. What is done for it is a part of `trace`, on the other nodes too, as far as they can be told.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, where nobody can tell which nodes those are.
    fn publish<'a>(
        &'a self,
        target: Target<'a>,
        frame: &'a Frame,
        here: bool,
        trace: Trace<'a>,
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;

    /// Some if `user` is connected here, and frames for them that were published by this node may still be on their way
    /// from where the user was: what is delivered here before the future is done may overtake those.
    fn catch_up<'a>(&'a self, user: &'a str) -> Option<BoxFuture<'a, ()>>;

    /// Has every other node that holds `user` carry out `request`. Nodes that turn out to hold nobody are left out.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, where nobody can tell which nodes those are. A node that
    /// does not answer is no error: its report says so.
    fn ask_about<'a>(
        &'a self,
        user: &'a str,
        request: &'a UserRequest,
    ) -> BoxFuture<'a, Result<Vec<NodeReport>, BrokerError>>;

    /// Something changed about `user` on this node. The broker looks up [`LocalNode::holds_user`] when it writes, so
    /// that calls may come late, twice, or in any order.
    fn user_changed(&self, user: &str);

    /// Something changed about the members of `room` on this node; see [`Broker::user_changed`].
    fn room_changed(&self, room: &str);

    /// Returns when other nodes can find what [`Broker::user_changed`] told of `user`, or when it is known that they
    /// cannot be told now.
    fn user_settled<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()>;

    /// The same for [`Broker::room_changed`].
    fn room_settled<'a>(&'a self, room: &'a str) -> BoxFuture<'a, ()>;

    /// The server IDs of all nodes that are alive, sorted; this one is among them once the others can know of it.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, where nobody can tell.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<String>, BrokerError>>;

    /// Returns when a message to oneself would come back.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] with the reason, where it would not.
    fn probe(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Takes this node off the map, within `time`. What was published to it until then is delivered or follows its user;
    /// later messages for it count as undeliverable.
    fn leave(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// What goes wrong between nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker does not answer.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
}
