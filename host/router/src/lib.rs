//! The connections of this node, and the delivery of messages to their receivers.
//!
//! [`Router`] sends: to the connections on this node directly, through [`LocalTable`], and to other nodes through the
//! broker. [`Connection`] is the shared state of a client: its name and its [`Outbox`]. The sender writes the outbox to the socket,
//! at the end of its turn if it is in a [write batch](write_batch()).

mod catch_up;
mod connection;
mod counted;
mod grants;
mod history;
mod observer;
mod outbox;
mod post_boxes;
mod presence;
mod read_back;
mod repair;
mod revocations;
mod room_changes;
mod rooms;
mod slots;
mod table;
mod user_histories;
mod write_batch;

use std::{sync::Arc, time::Duration};

pub use catch_up::ReplayLimits;
pub use connection::Connection;
use futures_util::future::join;
pub use grants::{GraceDelay, GrantEnd, RoomGrant};
pub use history::{HistoryJoin, JoinedHistory};
pub use observer::RoomObserver;
pub use outbox::{CloseRequest, FrameEncoder, Outbox, PendingWrite, PushError, SocketSink};
pub use post_boxes::{PostBoxes, PostReceiver};
pub use presence::{PlaceRefused, PresenceRule, PresenceSettings};
pub use room_changes::{RoomAction, RoomChange, RoomChangeResult};
use signalbox_broker::{Broker, BrokerError, CaughtUp, LocalNode, Target};
pub use signalbox_broker::{
    ConnectionReport, LISTED_MAX, MemberReport, NodeReport, PostOutcome, PostedFrame, RoomReport,
    SendKey, UserAnswer, UserRequest,
};
use signalbox_protocol::{CloseCode, Frame};
use signalbox_telemetry::{
    metrics::{DropReason, Metrics},
    supervise::OwnedTask,
    trace::Trace,
};
pub use slots::{ConnectionSlot, SlotLimits, SlotRefused};
pub use table::LocalTable;
pub use write_batch::write_batch;

/// Sends messages to their receivers, on any node.
pub struct Router {
    table: Arc<LocalTable>,
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    _repairs: OwnedTask,
    _presence: OwnedTask,
}

/// The receivers that a message reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Connections on this node that accepted it.
    pub connections: usize,
    /// Other nodes that it was published to.
    pub nodes: usize,
}

/// The result of a [`UserRequest`].
#[derive(Debug)]
pub struct UserOutcome {
    /// The answer of this node.
    pub here: UserAnswer,
    /// The answers of the other nodes that hold the user; an error if those nodes are unknown.
    pub elsewhere: Result<Vec<NodeReport>, BrokerError>,
}

/// The number of members of a room.
#[derive(Debug)]
pub struct RoomCount {
    /// The connections on this node that are members.
    pub here: usize,
    /// The answers of the other nodes with members; an error if those nodes are unknown.
    pub elsewhere: Result<Vec<RoomReport>, BrokerError>,
}

impl Reach {
    /// Whether it reached anybody.
    pub fn anybody(self) -> bool {
        self.connections + self.nodes > 0
    }
}

impl Router {
    /// A router for the connections in `table` and the other nodes behind `broker`. `message_time_max` is the time that a
    /// message from another node may take; after it, one that is missing of a history is read there.
    pub fn new(
        table: Arc<LocalTable>,
        broker: Arc<dyn Broker>,
        metrics: Arc<Metrics>,
        message_time_max: Duration,
    ) -> Self {
        let repairs = repair::start(table.clone(), broker.clone(), &metrics, message_time_max);
        let presence = presence::task::start(table.clone(), broker.clone(), &metrics);
        Self {
            table,
            broker,
            metrics,
            _repairs: repairs,
            _presence: presence,
        }
    }

    /// The connections of this node.
    pub fn table(&self) -> &Arc<LocalTable> {
        &self.table
    }

    /// The other nodes.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Sends `frame` to `target` as part of `trace`: directly on this node, and through the broker elsewhere. If a user
    /// has just moved here from another node, waits until earlier messages have followed them.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if no connection here accepted it and other receivers are unknown.
    pub async fn send(
        &self,
        target: Target<'_>,
        frame: &Frame,
        trace: Trace<'_>,
    ) -> Result<Reach, BrokerError> {
        let connections = match target {
            Target::User(user) => self.deliver_to_user(user, frame).await,
            Target::Room(_) | Target::Everyone => self.table.deliver(target, frame),
        };
        if let Some(span) = trace {
            span.set("signalbox.connections", connections as i64);
        }
        match self
            .broker
            .publish(target, frame, connections > 0, trace)
            .await
        {
            Ok(0) if connections == 0 => {
                self.metrics
                    .messages_dropped
                    .of(DropReason::Offline)
                    .increment();
                Ok(Reach {
                    connections,
                    nodes: 0,
                })
            }
            Ok(nodes) => Ok(Reach { connections, nodes }),
            Err(_) if connections > 0 => Ok(Reach {
                connections,
                nodes: 0,
            }),
            Err(error) => Err(error),
        }
    }

    /// Delivers `frame` to the connections of `user` here. If earlier messages may still be on their way, those that connect after
    /// the check do not get it.
    async fn deliver_to_user(&self, user: &str, frame: &Frame) -> usize {
        match self.broker.catch_up(user) {
            CaughtUp::Yes => {}
            CaughtUp::After(caught_up) => caught_up.await,
            CaughtUp::Elsewhere => return 0,
        }
        self.table.deliver(Target::User(user), frame)
    }

    /// Carries out `request` for every connection of `user`, here and on every other node.
    pub async fn ask_about(&self, user: &str, request: &UserRequest) -> UserOutcome {
        let here = self.table.carry_out(user, request);
        let (here, elsewhere) = join(here, self.broker.ask_about(user, request)).await;
        UserOutcome { here, elsewhere }
    }

    /// Gives `post` to its connection, on any node.
    pub async fn post(&self, post: PostedFrame<'_>) -> PostOutcome {
        match self.table.take_post(post) {
            PostOutcome::Unknown => self.broker.post_elsewhere(post).await,
            outcome => outcome,
        }
    }

    /// Counts the members of `room`, here and on every other node.
    pub async fn count_members(&self, room: &str) -> RoomCount {
        RoomCount {
            here: self.table.count_members(room),
            elsewhere: self.broker.count_members(room).await,
        }
    }

    /// Whether each of `users` is connected to any node, in the same order.
    ///
    /// # Errors
    /// Returns [`BrokerError`] if some are not connected here, and the other nodes are unknown.
    pub async fn are_online(&self, users: &[&str]) -> Result<Vec<bool>, BrokerError> {
        let mut online: Vec<bool> = users
            .iter()
            .map(|user| self.table.holds_user(user))
            .collect();
        let others = users.iter().zip(&online).filter(|(_, online)| !**online);
        let others: Vec<&str> = others.map(|(user, _)| *user).collect();
        if others.is_empty() {
            return Ok(online);
        }
        let elsewhere = self.broker.connected_elsewhere(&others).await?;
        let open = online.iter_mut().filter(|online| !**online);
        for (online, elsewhere) in open.zip(elsewhere) {
            *online = elsewhere;
        }
        Ok(online)
    }

    /// Makes `connection` reachable, and returns once other nodes can reach it too, or once it is clear that they
    /// cannot be informed now.
    pub async fn connect(&self, connection: &Arc<Connection>) {
        self.table.insert(connection.clone());
        self.enforce_on(connection);
        self.broker.user_changed(connection.user());
        self.broker.user_settled(connection.user()).await;
    }

    /// Asks the session of `connection` to close it after the queued frames. From now on, it accepts no frames, and
    /// other nodes are informed.
    pub fn close(&self, connection: &Connection, code: CloseCode, reason: &str) {
        connection.outbox().close(code, reason);
        self.broker.user_changed(connection.user());
    }

    /// Makes `connection` unreachable, and removes it from its rooms.
    pub fn disconnect(&self, connection: &Arc<Connection>) {
        for room in self.table.remove(connection) {
            self.ended_membership(connection, &room);
        }
        self.broker.user_changed(connection.user());
    }

    /// Makes `connection` a member of `room`, and returns once messages to it arrive from other nodes too, or once it
    /// is clear that they cannot be informed now. Returns `false` if it is a member already.
    pub async fn join(&self, connection: &Arc<Connection>, room: &str) -> bool {
        let joined = self.table.rooms.join(connection, room);
        self.settle_join(connection, room, joined).await;
        joined
    }

    async fn settle_join(&self, connection: &Arc<Connection>, room: &str, joined: bool) {
        if joined {
            self.room_changed(room);
            self.count_member(connection, room).await;
            self.broker.room_settled(room).await;
        } else if !connection.is_member(room) {
            self.forget_member(connection, room);
        }
    }

    /// Ends the membership of `connection` in `room`. Returns `false` if it was not a member.
    pub fn leave(&self, connection: &Arc<Connection>, room: &str) -> bool {
        let left = self.table.leave(connection, room);
        if left {
            self.ended_membership(connection, room);
        }
        left
    }

    fn ended_membership(&self, connection: &Arc<Connection>, room: &str) {
        self.forget_member(connection, room);
        self.room_changed(room);
    }
}
