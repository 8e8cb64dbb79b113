//! Connects many nodes into one cluster through Redis.
//!
//! Routes: a set of server IDs for each user and room. [`routes`] alone writes it; [`lookup`] reads and caches it. A server ID
//! counts only while its lease is valid ([`lease`]). A server without one is dead for good, because every boot has a new ID,
//! and any node that finds it removes it.
//!
//! Messages: [`publish`] publishes a message once for each node that holds its receiver, on that node's channel, as the bytes
//! that the clients get. [`subscriber`] listens there, and proves once a second that published messages come back; [`inbox`] delivers
//! them. Requests between nodes ([`control`]) and frames that clients post to any node ([`posted`]) go the same way. A node that gets nothing back for three seconds reports that
//! and subscribes again.
//!
//! Guarantees: at most once between nodes, and in order per sender and receiver. A sender gets `offline` if no living node
//! holds the receiver, and an error within the command timeout if Redis did not take the message or the receiver's node does
//! not listen. [`held`] keeps the order for users who move.
//!
//! Revocations of tokens and blocks of users ([`revocations`]) are one key in Redis, and every node knows all of them.
//! Members of rooms with presence: a hash for each room, written like routes, and read by [`members`].
//!
//! Histories of rooms and users ([`history`]) are keys in Redis. A message is appended first and then published; a node that misses
//! it finds it in the history.

mod control;
mod deduplicator;
mod echo_filter;
mod fences;
mod health;
mod held;
mod history;
mod holders;
mod inbox;
mod join;
mod kept;
mod keys;
mod lease;
mod line;
mod lookup;
mod marks;
mod member_fields;
mod member_leases;
mod members;
mod nodes;
mod notices;
mod once;
mod outgoing;
mod owned;
mod post;
mod posted;
mod publish;
mod questions;
mod revocations;
mod routes;
mod subscriber;
mod tasks;
mod traced;
mod waiting;
mod writer;
mod written;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use signalbox_protocol::{Epoch, Frame, Position};
use signalbox_redis_client::{Commands, Unavailable};
use signalbox_telemetry::{metrics::Metrics, trace::Trace};
use tokio::time::{Instant, timeout, timeout_at};

use self::{
    control::Control,
    echo_filter::EchoFilter,
    health::Health,
    held::HeldMessages,
    history::RedisHistories,
    holders::Holders,
    keys::{Ability, KeyNames, RouteName, ServerId},
    lookup::Lookup,
    members::RedisMembers,
    once::OnceKeys,
    outgoing::Outgoing,
    posted::PostedFrames,
    publish::{LineBefore, PublishedMessage},
    revocations::ClusterRevocations,
    routes::RouteWriter,
    subscriber::SubscriptionDrain,
    tasks::Tasks,
};
use super::{
    AppendOnce, Appended, Broker, BrokerError, CaughtUp, HistoryName, HistoryPage, HistoryQuery,
    LocalNode, MemberReport, MembersElsewhere, NodeReport, OnceClaim, OnceSettlement, OnceState,
    OwnedHistoryName, PostOutcome, PostedFrame, Publication, Retention, Revocation, RevocationSet,
    RevokeError, RoomReport, Target, UserAnswer, UserRequest,
};

/// The share of the time for leaving in which this node's routes are removed. Routes that are left behind are found dead by
/// the missing lease.
const WITHDRAW_SHARE: f64 = 0.4;

/// The share in which messages for users who left are passed on. The rest is for messages that came in last.
const SETTLE_SHARE: f64 = 0.3;

/// One node's place in a cluster of nodes that meet at Redis.
pub struct RedisBroker {
    commands: Commands,
    keys: Arc<KeyNames>,
    routes: Arc<RouteWriter>,
    holders: Arc<Holders>,
    lookup: Arc<Lookup>,
    held: Arc<HeldMessages>,
    outgoing: Arc<Outgoing>,
    histories: Arc<RedisHistories>,
    revocations: Arc<ClusterRevocations>,
    members: RedisMembers,
    once: OnceKeys,
    node: Arc<dyn LocalNode>,
    control: Arc<Control>,
    posts: Arc<PostedFrames>,
    health: Arc<Health>,
    own_broadcasts: Arc<EchoFilter>,
    farewell: SubscriptionDrain,
    tasks: Mutex<Tasks>,
    metrics: Arc<Metrics>,
    /// Whether traces are passed to other nodes.
    traces: bool,
}

impl Broker for RedisBroker {
    fn publish<'a>(
        &'a self,
        target: Target<'a>,
        frame: &'a Frame,
        here: bool,
        trace: Trace<'a>,
    ) -> Publication<'a> {
        async move {
            let (name, line) = match target {
                Target::User(user) => (RouteName::User(user), LineBefore::Mark { here }),
                Target::Room(room) => (RouteName::Room(room), LineBefore::None),
                Target::Everyone => return self.broadcast(frame, trace).await,
            };
            let message = PublishedMessage {
                name,
                frame,
                line,
                trace,
            };
            self.publish_to(message).await
        }
        .boxed()
        .right_future()
    }

    fn append<'a>(
        &'a self,
        name: HistoryName<'a>,
        frame: &'a Frame,
        retention: Retention,
        once: Option<AppendOnce<'a>>,
        trace: Trace<'a>,
    ) -> BoxFuture<'a, Result<Appended, BrokerError>> {
        self.append_and_publish(name, frame, retention, once, trace)
            .boxed()
    }

    fn read_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<HistoryPage, BrokerError>> {
        async move { Ok(self.histories.read(name, query, retention).await?) }.boxed()
    }

    fn find_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Option<HistoryPage>, BrokerError>> {
        async move { Ok(self.histories.find(name, query, retention).await?) }.boxed()
    }

    fn history_positions<'a>(
        &'a self,
        names: &'a [OwnedHistoryName],
    ) -> BoxFuture<'a, Result<Vec<Option<Position>>, BrokerError>> {
        async move { Ok(self.histories.positions(names).await?) }.boxed()
    }

    fn reset_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        epoch: &'a Epoch,
        retention: Retention,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        async move { Ok(self.histories.reset(name, epoch, retention).await?) }.boxed()
    }

    fn catch_up<'a>(&'a self, user: &'a str) -> CaughtUp<'a> {
        self.lookup.catch_up(user)
    }

    fn ask_about<'a>(
        &'a self,
        user: &'a str,
        request: &'a UserRequest,
    ) -> BoxFuture<'a, Result<Vec<NodeReport>, BrokerError>> {
        async move {
            let needed = control::needed_ability(request);
            let holders = self.holders.of(RouteName::User(user)).await?;
            let others = holders
                .iter()
                .filter(|(server, _)| server != self.keys.own_id());
            let ask = async |(server, is_node): &(ServerId, bool)| NodeReport {
                node: server.to_string(),
                answer: if !is_node {
                    UserAnswer::CannotBeAsked
                } else if needed.is_none_or(|ability| self.holders.can(server, ability)) {
                    self.control.ask(server, user, request).await
                } else {
                    UserAnswer::Nothing
                },
            };
            let mut reports = join_all(others.map(ask)).await;
            reports.retain(|report| !report.answer.is_nobody());
            Ok(reports)
        }
        .boxed()
    }

    fn post_elsewhere<'a>(&'a self, post: PostedFrame<'a>) -> BoxFuture<'a, PostOutcome> {
        self.posts.post(post).boxed()
    }

    fn connected_elsewhere<'a>(
        &'a self,
        users: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        let names = users.iter().map(|user| RouteName::User(user));
        async move { Ok(self.holders.hold_elsewhere(names).await?) }.boxed()
    }

    fn occupied_elsewhere<'a>(
        &'a self,
        rooms: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        let names = rooms.iter().map(|room| RouteName::Room(room));
        async move { Ok(self.holders.hold_elsewhere(names).await?) }.boxed()
    }

    fn present_elsewhere<'a>(
        &'a self,
        members: &'a [(&'a str, &'a str)],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        async move { Ok(self.members.present_elsewhere(members).await?) }.boxed()
    }

    fn count_members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomReport>, BrokerError>> {
        async move {
            let holders = self.holders.of(RouteName::Room(room)).await?;
            let others = holders
                .iter()
                .filter(|(server, _)| server != self.keys.own_id());
            let ask = async |(server, _): &(ServerId, bool)| RoomReport {
                node: server.to_string(),
                members: if self.holders.can(server, Ability::Memberships) {
                    self.control.count_members(server, room).await
                } else {
                    None
                },
            };
            let mut reports = join_all(others.map(ask)).await;
            reports.retain(|report| report.members != Some(0));
            Ok(reports)
        }
        .boxed()
    }

    fn begin_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
    ) -> BoxFuture<'a, Result<OnceState, BrokerError>> {
        async move { Ok(self.once.begin(claim).await?) }.boxed()
    }

    fn settle_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
        settlement: OnceSettlement<'a>,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        async move { Ok(self.once.settle(claim, settlement).await?) }.boxed()
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), RevokeError>> {
        self.revocations.revoke(revocation).boxed()
    }

    fn revocations(&self) -> &RevocationSet {
        self.revocations.known()
    }

    fn user_changed(&self, user: &str) {
        self.routes.changed(RouteName::User(user));
        self.held.poke(user);
    }

    fn room_changed(&self, room: &str) {
        self.routes.changed(RouteName::Room(room));
    }

    fn member_changed(&self, room: &str, user: &str) {
        self.routes.member_changed(room, user);
    }

    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Arc<[MemberReport]>, BrokerError>> {
        async move { Ok(self.members.of(room).await?) }.boxed()
    }

    fn members_elsewhere<'a>(
        &'a self,
        room: &'a str,
        user: &'a str,
        enough: usize,
    ) -> BoxFuture<'a, Result<MembersElsewhere, BrokerError>> {
        async move { Ok(self.members.elsewhere(room, user, enough).await?) }.boxed()
    }

    fn member_node_lost(&self) -> BoxFuture<'_, ()> {
        self.members.node_lost().boxed()
    }

    fn user_settled<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()> {
        self.routes.flushed(RouteName::User(user)).boxed()
    }

    fn room_settled<'a>(&'a self, room: &'a str) -> BoxFuture<'a, ()> {
        self.routes.flushed(RouteName::Room(room)).boxed()
    }

    fn member_settled<'a>(&'a self, room: &'a str, user: &'a str) -> BoxFuture<'a, ()> {
        self.routes.member_flushed(room, user).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<String>, BrokerError>> {
        async move { Ok(nodes::living(&self.commands, &self.keys).await?) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        let link = self.commands.check().map_err(BrokerError::from);
        let well = link.and_then(|()| {
            self.health.check().map_err(BrokerError::Unavailable)?;
            let is_read = self.revocations.known().is_read();
            let unread = || BrokerError::Unavailable("revocations were not read yet".to_owned());
            is_read.then_some(()).ok_or_else(unread)
        });
        std::future::ready(well).boxed()
    }

    fn leave(&self, time: Duration) -> BoxFuture<'_, ()> {
        async move {
            let end = Instant::now() + time;
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            self.health.left();
            // Nothing may write or renew any more. Messages are still taken until no node sends here.
            tasks.end_keepers().await;
            let withdraw = async {
                self.routes.withdraw().await;
                nodes::withdraw(&self.commands, &self.keys).await;
            };
            let _ = timeout(time.mul_f64(WITHDRAW_SHARE), withdraw).await;
            // Others may ask about waiting messages as long as this node listens.
            self.held.settle(time.mul_f64(SETTLE_SHARE)).await;
            let _ = timeout_at(end, self.farewell.say()).await;
            self.held
                .end(end.saturating_duration_since(Instant::now()))
                .await;
            tasks.end_listener().await;
        }
        .boxed()
    }
}

impl From<Unavailable> for BrokerError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}
