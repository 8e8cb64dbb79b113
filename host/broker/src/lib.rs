//! Carries messages between nodes.
//!
//! Every node has one [`Broker`]. The router gives it the messages for connections on *other* nodes; the broker of each such
//! node gives them to its [`LocalNode`]. A connection on the sender's own node never gets a message through the
//! broker, so each connection has one path and order holds on it.
//!
//! The comments on [`Broker`] are the contract; `tests/it/broker/mod.rs` is the test suite for every implementation. The one
//! that goes through Redis, `RedisBroker`, needs the cargo feature `redis`.

mod history;
mod members;
mod memory;
mod once;
mod posts;
#[cfg(feature = "redis")]
mod redis;
mod revocations;
mod users;

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Either, Ready};
pub use history::{
    AppendKind, AppendOnce, Appended, HistoryName, HistoryPage, HistoryQuery, KeptMessage,
    OwnedHistoryName, Retention,
};
pub use members::{MemberReport, MembersElsewhere};
pub use memory::{MemoryBroker, MemoryHub};
pub use once::{FINGERPRINT_BYTES, ONCE_LEASE, OnceClaim, OnceKey, OnceSettlement, OnceState};
pub use posts::{PostOutcome, PostedFrame, SendKey};
#[cfg(feature = "redis")]
pub use redis::RedisBroker;
pub use revocations::{
    Denial, REVOCATIONS_MAX, Revocation, RevocationSet, RevokeError, Revoked, TokenMark,
};
use signalbox_protocol::{Epoch, Frame, Position};
use signalbox_telemetry::trace::Trace;
pub use users::{ConnectionReport, LISTED_MAX, NodeReport, RoomReport, UserAnswer, UserRequest};

/// The receivers of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Every connection of one user.
    User(&'a str),
    /// Every member of one room.
    Room(&'a str),
    /// Every connection.
    Everyone,
}

/// The part of a node that a broker talks to: its connections.
pub trait LocalNode: Send + Sync {
    /// Whether `user` has a connection on this node that takes frames. One that is being closed takes none.
    fn holds_user(&self, user: &str) -> bool;

    /// Whether a member of `room` is on this node now.
    fn holds_room(&self, room: &str) -> bool;

    /// Puts `frame` into the outbox of every connection of `target` on this node and returns how many took it. Never
    /// blocks: a connection that cannot keep up is closed and does not delay the others.
    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize;

    /// Delivers message number `at.offset` of a history to the connections of its owner on this node and returns how many
    /// took it. Messages may come twice and in any order; the node delivers each once, in the order of their numbers. Never
    /// blocks.
    fn deliver_kept(&self, name: HistoryName<'_>, at: &Position, frame: &Frame) -> usize;

    /// Messages for this node may have been lost on their way: it must compare what it delivered from histories with what
    /// they contain.
    fn check_histories(&self);

    /// Carries out `request` for every connection of `user` on this node. A connection that is being closed does not count.
    /// Never blocks: longer work continues whether or not the result is awaited, for a few seconds at most.
    fn carry_out(&self, user: &str, request: &UserRequest) -> PendingAnswer;

    /// Gives a frame to a connection on this node. Never blocks, and never returns [`PostOutcome::NoAnswer`].
    fn take_post(&self, post: PostedFrame<'_>) -> PostOutcome;

    /// The number of connections on this node that are members of `room`.
    fn count_members(&self, room: &str) -> usize;

    /// Closes the connections that `revoked` is about. Never blocks.
    fn enforce(&self, revoked: &Revoked);

    /// `user` as a member of `room` on this node; `None` if no connection of theirs is in it, or if it has no presence.
    fn member(&self, room: &str, user: &str) -> Option<MemberReport>;

    /// The users in `room` on this node, each once; none if it has no presence.
    fn members(&self, room: &str) -> Vec<MemberReport>;

    /// The result of [`Broker::members`] may have changed for `room`. Never blocks.
    fn members_changed(&self, room: &str);

    /// The result of [`Broker::members`] may have changed for any room. Never blocks.
    fn check_members(&self);
}

/// The answer of a node to a [`UserRequest`]: at once, or once it has been carried out.
pub type PendingAnswer = Either<Ready<UserAnswer>, BoxFuture<'static, UserAnswer>>;

/// The number of nodes that a frame was published to: at once, or once it has been sent.
pub type Publication<'a> =
    Either<Ready<Result<usize, BrokerError>>, BoxFuture<'a, Result<usize, BrokerError>>>;

/// Whether a frame for a user may be delivered to their connections on this node.
pub enum CaughtUp<'a> {
    /// It may: no earlier frame is on its way, even if the user connects here meanwhile.
    Yes,
    /// It may once the future completes.
    After(BoxFuture<'a, ()>),
    /// It may not: earlier frames are on their way, and the user is not connected here.
    Elsewhere,
}

/// The other nodes, as one node sees them.
pub trait Broker: Send + Sync {
    /// Publishes `frame` to every other node that holds `target`, and returns the number of those nodes. The frame names its
    /// receiver, as every delivery does (`receiverID`, `room`): some brokers carry nothing else. Frames of one
    /// caller to one target arrive in the order of the calls, each at most once. A frame for a user who leaves a node
    /// before it arrives there follows them to any node that they connect to within a few seconds. `here`: connections of
    /// this node have it already. The work is part of `trace`, on other nodes too if they support traces.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if the nodes that hold `target` cannot be found.
    fn publish<'a>(
        &'a self,
        target: Target<'a>,
        frame: &'a Frame,
        here: bool,
        trace: Trace<'a>,
    ) -> Publication<'a>;

    /// Appends `frame` to the history `name`, and gives it with its number to every node that holds the room or user, including
    /// this one, by [`LocalNode::deliver_kept`]. A node that misses it finds it in the history. A repetition, as `once` tells,
    /// is not appended: the message that is in the history is given to those nodes once more, which deliver it if they have
    /// not yet.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if the message was not appended, or if that is unknown.
    fn append<'a>(
        &'a self,
        name: HistoryName<'a>,
        frame: &'a Frame,
        retention: Retention,
        once: Option<AppendOnce<'a>>,
        trace: Trace<'a>,
    ) -> BoxFuture<'a, Result<Appended, BrokerError>>;

    /// Reads messages from the history `name`, and its position. Creates the history if there is none, so that its
    /// position can be compared later. Concurrent calls for one history may share a read, which began after all of them.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if it cannot be read.
    fn read_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<HistoryPage, BrokerError>>;

    /// Reads like [`Broker::read_history`], and returns `None` if there is no history: it creates none.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if it cannot be read.
    fn find_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Option<HistoryPage>, BrokerError>>;

    /// The positions of the histories `names`, in the same order; `None` for one that does not exist.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] if they cannot be read, within the command timeout for each few hundred of them.
    fn history_positions<'a>(
        &'a self,
        names: &'a [OwnedHistoryName],
    ) -> BoxFuture<'a, Result<Vec<Option<Position>>, BrokerError>>;

    /// Discards the history `name`, and begins another one with a new epoch, if its epoch is still `epoch`.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if it was not discarded, or if that is unknown.
    fn reset_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        epoch: &'a Epoch,
        retention: Retention,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Whether frames for `user` that this node published may still be on their way from the user's previous node, so that one
    /// which is delivered here now would overtake them. Read for every message to a user.
    fn catch_up<'a>(&'a self, user: &'a str) -> CaughtUp<'a>;

    /// Makes every other node that holds `user` carry out `request`. Nodes that turn out to hold no connection of
    /// `user` are left out.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if the nodes that hold `user` cannot be found. A node that
    /// does not answer is not an error: its report says so.
    fn ask_about<'a>(
        &'a self,
        user: &'a str,
        request: &'a UserRequest,
    ) -> BoxFuture<'a, Result<Vec<NodeReport>, BrokerError>>;

    /// Gives a frame to a connection on another node, within a few times the command timeout. The frame may arrive even if
    /// the result is [`PostOutcome::NoAnswer`].
    fn post_elsewhere<'a>(&'a self, post: PostedFrame<'a>) -> BoxFuture<'a, PostOutcome>;

    /// Whether each of `users` is connected to another node, in the same order. The number of round trips does not depend
    /// on the number of nodes.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within a few times the command timeout, if that cannot be found out.
    fn connected_elsewhere<'a>(
        &'a self,
        users: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>>;

    /// Whether each of `rooms` has members on another node, in the same order. The number of round trips does not depend on
    /// the number of nodes.
    ///
    /// # Errors
    /// As for [`Broker::connected_elsewhere`].
    fn occupied_elsewhere<'a>(
        &'a self,
        rooms: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>>;

    /// Whether each of `members`, a room with presence and a user, has a connection in the room on another node, in the same
    /// order.
    ///
    /// # Errors
    /// As for [`Broker::connected_elsewhere`].
    fn present_elsewhere<'a>(
        &'a self,
        members: &'a [(&'a str, &'a str)],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>>;

    /// Counts the members of `room` on every other node that has some. Nodes that turn out to have none are left out.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if the nodes that hold `room` cannot be found. A node that
    /// does not answer is not an error: its report says so.
    fn count_members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomReport>, BrokerError>>;

    /// Claims a message for this node, unless it is claimed or answered already. A claim lasts for [`ONCE_LEASE`] unless it is
    /// settled or renewed.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within a few times the command timeout, if it is unknown whether it is claimed. It may be
    /// claimed for [`ONCE_LEASE`] nevertheless.
    fn begin_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
    ) -> BoxFuture<'a, Result<OnceState, BrokerError>>;

    /// Settles a claim. Returns `false`, without an effect, if it had ended.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if it was not settled, or if that is unknown.
    fn settle_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
        settlement: OnceSettlement<'a>,
    ) -> BoxFuture<'a, Result<bool, BrokerError>>;

    /// Makes `revocation`, and has it [enforced](LocalNode::enforce) by every node, including this one: within a second
    /// if the node is connected, and otherwise once it is again. Nodes that start later know it too, unless the broker
    /// itself has ended meanwhile. Making it again is harmless.
    ///
    /// # Errors
    /// [`RevokeError`] if it was not made, or if it is unknown, within the command timeout, whether all nodes know it.
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), RevokeError>>;

    /// The revocations that this node knows.
    fn revocations(&self) -> &RevocationSet;

    /// The connections of `user` on this node changed. The broker asks [`LocalNode::holds_user`] when it writes, so calls may
    /// come late, twice, or in any order.
    fn user_changed(&self, user: &str);

    /// The members of `room` on this node changed; see [`Broker::user_changed`].
    fn room_changed(&self, room: &str);

    /// The result of [`LocalNode::member`] for `room` and `user` changed; see [`Broker::user_changed`]. All nodes learn it by
    /// [`LocalNode::members_changed`] once [`Broker::members`] includes it.
    fn member_changed(&self, room: &str, user: &str);

    /// The users in `room` on all nodes, each once, in the order of their IDs. Those of a node that died are included until
    /// other nodes notice that. Concurrent calls for one room may share a read, which began after all of them.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within four times the command timeout, if they cannot be read.
    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Arc<[MemberReport]>, BrokerError>>;

    /// Counts the users in `room` on other nodes, for `user`, who wants to join on this one: exactly if there may be `enough` of
    /// them, and otherwise perhaps roughly.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within five times the command timeout, if they cannot be counted.
    fn members_elsewhere<'a>(
        &'a self,
        room: &'a str,
        user: &'a str,
        enough: usize,
    ) -> BoxFuture<'a, Result<MembersElsewhere, BrokerError>>;

    /// Returns when a node has died that had users in a result of [`Broker::members`]. It caused no
    /// [`LocalNode::members_changed`].
    fn member_node_lost(&self) -> BoxFuture<'_, ()>;

    /// Returns when other nodes can see the last [`Broker::user_changed`] of `user`, or as soon as it is known that this is
    /// impossible now.
    fn user_settled<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()>;

    /// Like [`Broker::user_settled`], for [`Broker::room_changed`].
    fn room_settled<'a>(&'a self, room: &'a str) -> BoxFuture<'a, ()>;

    /// Like [`Broker::user_settled`], for [`Broker::member_changed`].
    fn member_settled<'a>(&'a self, room: &'a str, user: &'a str) -> BoxFuture<'a, ()>;

    /// The server IDs of all nodes that are alive, sorted; this one is among them once others can see it.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], within the command timeout, if they cannot be read.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<String>, BrokerError>>;

    /// Checks that a message from this node to itself would arrive.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] with the reason why it would not.
    fn probe(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Removes this node from the cluster, within `time`. Messages that were published to it until then are delivered or follow
    /// their user; later messages for it are undeliverable.
    fn leave(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// A failure between nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker does not answer.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
}
