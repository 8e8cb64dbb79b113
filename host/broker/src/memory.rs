//! The embedded broker: nodes of one process, joined by a [`MemoryHub`].
//!
//! A server with `broker.kind = "memory"` is the only node of its hub. Several nodes on one hub behave like a cluster, so
//! tests can run more than one node without Redis.

mod histories;
mod log;
mod once;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use futures_util::{
    FutureExt,
    future::{self, BoxFuture, join_all},
};
use signalbox_protocol::{Epoch, Frame, Position};
use signalbox_telemetry::trace::Trace;
use tokio::time::Instant;

use self::{histories::MemoryHistories, once::OnceTable};
use super::{
    AppendKind, AppendOnce, Appended, Broker, BrokerError, CaughtUp, HistoryName, HistoryPage,
    HistoryQuery, LocalNode, MemberReport, MembersElsewhere, NodeReport, OnceClaim, OnceSettlement,
    OnceState, OwnedHistoryName, PostOutcome, PostedFrame, Publication, Retention, Revocation,
    RevocationSet, RevokeError, RoomReport, Target, UserRequest, members,
};

/// Connects the nodes of one process.
pub struct MemoryHub {
    /// Read for every message and written when a node comes or goes.
    nodes: ArcSwap<Vec<Member>>,
    user_nodes: DashMap<String, BTreeSet<String>>,
    room_nodes: DashMap<String, BTreeSet<String>>,
    histories: MemoryHistories,
    once: OnceTable,
    revocations: RevocationSet,
}

impl Default for MemoryHub {
    fn default() -> Self {
        let revocations = RevocationSet::default();
        // There is nothing to read: they begin and end with the process.
        revocations.note_read();
        Self {
            nodes: ArcSwap::default(),
            user_nodes: DashMap::new(),
            room_nodes: DashMap::new(),
            histories: MemoryHistories::default(),
            once: OnceTable::default(),
            revocations,
        }
    }
}

impl MemoryHub {
    /// Sets the most bytes that all histories may take together, 256 MiB by default. Beyond it, the oldest
    /// messages of the histories that were least recently appended to are discarded. Positions take at most a quarter of it;
    /// those of the least recently used histories are forgotten.
    pub fn set_history_bytes_max(&self, bytes: usize) {
        self.histories.set_bytes_max(bytes);
    }

    /// The bytes that all histories take, with what is charged for their management.
    pub fn history_bytes(&self) -> usize {
        self.histories.bytes()
    }

    /// The number of messages that were discarded from histories because of the limit of their bytes.
    pub fn history_evicted(&self) -> u64 {
        self.histories.evicted()
    }
}

#[derive(Clone)]
struct Member {
    id: String,
    node: Arc<dyn LocalNode>,
}

/// One node's place at a [`MemoryHub`].
pub struct MemoryBroker {
    hub: Arc<MemoryHub>,
    own: Member,
}

impl MemoryBroker {
    /// Joins `hub` as `id`, which no other member may have.
    pub fn join(hub: Arc<MemoryHub>, id: &str, node: Arc<dyn LocalNode>) -> Self {
        let own = Member {
            id: id.to_owned(),
            node,
        };
        hub.nodes.rcu(|nodes| {
            let mut nodes = Vec::clone(nodes);
            nodes.push(own.clone());
            nodes
        });
        Self { hub, own }
    }

    fn publish_now(&self, target: Target<'_>, frame: &Frame) -> usize {
        let nodes = self.hub.nodes.load();
        let others = nodes.iter().filter(|member| member.id != self.own.id);
        let reached = |holders: Option<&BTreeSet<String>>| {
            let holds =
                |member: &&Member| holders.is_some_and(|holders| holders.contains(&member.id));
            others
                .clone()
                .filter(holds)
                .filter(|member| member.node.deliver(target, frame) > 0)
                .count()
        };
        match target {
            _ if nodes.len() < 2 => 0,
            Target::User(user) => reached(self.hub.user_nodes.get(user).as_deref()),
            Target::Room(room) => reached(self.hub.room_nodes.get(room).as_deref()),
            Target::Everyone => others
                .clone()
                .filter(|member| member.node.deliver(target, frame) > 0)
                .count(),
        }
    }

    fn append_now(&self, name: HistoryName<'_>, frame: &Frame, retention: Retention) -> Appended {
        let histories = &self.hub.histories;
        let now = histories.now();
        let deliver = |at: &Position, frame: &Frame| self.deliver_kept(name, at, frame);
        let (position, (connections, nodes)) =
            histories.append(name, frame, retention, now, deliver);
        Appended {
            kind: AppendKind::New,
            position,
            connections,
            nodes,
        }
    }

    /// Delivers a message of a history on all nodes. Returns the number of connections of this node, and of other nodes, that
    /// took it.
    fn deliver_kept(&self, name: HistoryName<'_>, at: &Position, frame: &Frame) -> (usize, usize) {
        let connections = self.own.node.deliver_kept(name, at, frame);
        let nodes = self.hub.nodes.load();
        if nodes.len() < 2 {
            return (connections, 0);
        }
        let holders = match name {
            HistoryName::Room(room) => self.hub.room_nodes.get(room),
            HistoryName::User(user) => self.hub.user_nodes.get(user),
        };
        let holds = |member: &&Member| {
            let mut holders = holders.iter();
            member.id != self.own.id && holders.any(|holders| holders.contains(&member.id))
        };
        let reached = nodes
            .iter()
            .filter(holds)
            .filter(|member| member.node.deliver_kept(name, at, frame) > 0);
        (connections, reached.count())
    }

    async fn ask(&self, user: &str, request: &UserRequest) -> Vec<NodeReport> {
        let holders = self.others(&self.hub.user_nodes, user);
        let reports = holders.into_iter().map(|member| {
            let answer = member.node.carry_out(user, request);
            async move {
                NodeReport {
                    node: member.id,
                    answer: answer.await,
                }
            }
        });
        let mut reports = join_all(reports).await;
        reports.retain(|report| !report.answer.is_nobody());
        reports
    }

    fn count_members_now(&self, room: &str) -> Vec<RoomReport> {
        let holders = self.others(&self.hub.room_nodes, room).into_iter();
        let reports = holders.map(|member| RoomReport {
            members: Some(member.node.count_members(room)),
            node: member.id,
        });
        reports.filter(|report| report.members != Some(0)).collect()
    }

    /// The other nodes that hold `name`.
    fn others(&self, map: &DashMap<String, BTreeSet<String>>, name: &str) -> Vec<Member> {
        let holders = map.get(name).as_deref().cloned().unwrap_or_default();
        let nodes = self.hub.nodes.load();
        let others = nodes
            .iter()
            .filter(|member| member.id != self.own.id && holders.contains(&member.id));
        others.cloned().collect()
    }

    fn revoke_now(&self, revocation: &Revocation) -> Result<(), RevokeError> {
        let revocations = &self.hub.revocations;
        if revocations.insert(revocation, SystemTime::now())? {
            for member in self.hub.nodes.load().iter() {
                member.node.enforce(&revocation.of);
            }
        }
        Ok(())
    }

    /// Records whether this node holds `name`. The entry is locked before the node is asked, so the last of several
    /// concurrent calls records the final state.
    fn note(&self, map: &DashMap<String, BTreeSet<String>>, name: &str, holds: impl Fn() -> bool) {
        let mut holders = map.entry(name.to_owned()).or_default();
        if holds() {
            holders.insert(self.own.id.clone());
        } else {
            holders.remove(&self.own.id);
        }
        drop(holders);
        map.remove_if(name, |_, holders| holders.is_empty());
    }
}

impl Broker for MemoryBroker {
    fn publish<'a>(
        &'a self,
        target: Target<'a>,
        frame: &'a Frame,
        _: bool,
        _: Trace<'a>,
    ) -> Publication<'a> {
        future::ready(Ok(self.publish_now(target, frame))).left_future()
    }

    fn append<'a>(
        &'a self,
        name: HistoryName<'a>,
        frame: &'a Frame,
        retention: Retention,
        // Appending cannot fail, so the sender gets its answer and has nothing to repeat.
        _: Option<AppendOnce<'a>>,
        _: Trace<'a>,
    ) -> BoxFuture<'a, Result<Appended, BrokerError>> {
        future::ready(Ok(self.append_now(name, frame, retention))).boxed()
    }

    fn read_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<HistoryPage, BrokerError>> {
        let histories = &self.hub.histories;
        let page = histories.read(name, query, retention, histories.now());
        future::ready(Ok(page)).boxed()
    }

    fn find_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        query: HistoryQuery,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Option<HistoryPage>, BrokerError>> {
        let histories = &self.hub.histories;
        let page = histories.read_existing(name, query, retention, histories.now());
        future::ready(Ok(page)).boxed()
    }

    fn history_positions<'a>(
        &'a self,
        names: &'a [OwnedHistoryName],
    ) -> BoxFuture<'a, Result<Vec<Option<Position>>, BrokerError>> {
        let histories = &self.hub.histories;
        let now = histories.now();
        let positions = names
            .iter()
            .map(|name| histories.position(name.borrowed(), now));
        future::ready(Ok(positions.collect())).boxed()
    }

    fn reset_history<'a>(
        &'a self,
        name: HistoryName<'a>,
        epoch: &'a Epoch,
        _: Retention,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.hub.histories.reset(name, epoch);
        future::ready(Ok(())).boxed()
    }

    /// Nothing is ever on its way: a frame is delivered when it is published.
    fn catch_up<'a>(&'a self, _: &'a str) -> CaughtUp<'a> {
        CaughtUp::Yes
    }

    fn ask_about<'a>(
        &'a self,
        user: &'a str,
        request: &'a UserRequest,
    ) -> BoxFuture<'a, Result<Vec<NodeReport>, BrokerError>> {
        async move { Ok(self.ask(user, request).await) }.boxed()
    }

    fn post_elsewhere<'a>(&'a self, post: PostedFrame<'a>) -> BoxFuture<'a, PostOutcome> {
        let nodes = self.hub.nodes.load();
        let others = nodes.iter().filter(|member| member.id != self.own.id);
        let mut outcomes = others.map(|member| member.node.take_post(post));
        let outcome = outcomes.find(|outcome| *outcome != PostOutcome::Unknown);
        future::ready(outcome.unwrap_or(PostOutcome::Unknown)).boxed()
    }

    fn connected_elsewhere<'a>(
        &'a self,
        users: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        let is_elsewhere = |user: &&str| !self.others(&self.hub.user_nodes, user).is_empty();
        future::ready(Ok(users.iter().map(is_elsewhere).collect())).boxed()
    }

    fn occupied_elsewhere<'a>(
        &'a self,
        rooms: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        let is_elsewhere = |room: &&str| !self.others(&self.hub.room_nodes, room).is_empty();
        future::ready(Ok(rooms.iter().map(is_elsewhere).collect())).boxed()
    }

    fn present_elsewhere<'a>(
        &'a self,
        members: &'a [(&'a str, &'a str)],
    ) -> BoxFuture<'a, Result<Vec<bool>, BrokerError>> {
        let nodes = self.hub.nodes.load();
        let is_elsewhere = |(room, user): &(&str, &str)| {
            let mut others = nodes.iter().filter(|member| member.id != self.own.id);
            others.any(|member| member.node.member(room, user).is_some())
        };
        future::ready(Ok(members.iter().map(is_elsewhere).collect())).boxed()
    }

    fn count_members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Vec<RoomReport>, BrokerError>> {
        future::ready(Ok(self.count_members_now(room))).boxed()
    }

    fn begin_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
    ) -> BoxFuture<'a, Result<OnceState, BrokerError>> {
        let state = self.hub.once.begin(claim, Instant::now());
        future::ready(Ok(state)).boxed()
    }

    fn settle_once<'a>(
        &'a self,
        claim: &'a OnceClaim,
        settlement: OnceSettlement<'a>,
    ) -> BoxFuture<'a, Result<bool, BrokerError>> {
        let settled = self.hub.once.settle(claim, settlement, Instant::now());
        future::ready(Ok(settled)).boxed()
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<(), RevokeError>> {
        future::ready(self.revoke_now(revocation)).boxed()
    }

    fn revocations(&self) -> &RevocationSet {
        &self.hub.revocations
    }

    fn user_changed(&self, user: &str) {
        self.note(&self.hub.user_nodes, user, || {
            self.own.node.holds_user(user)
        });
    }

    fn room_changed(&self, room: &str) {
        self.note(&self.hub.room_nodes, room, || {
            self.own.node.holds_room(room)
        });
    }

    fn member_changed(&self, room: &str, _: &str) {
        for member in self.hub.nodes.load().iter() {
            member.node.members_changed(room);
        }
    }

    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BoxFuture<'a, Result<Arc<[MemberReport]>, BrokerError>> {
        let nodes = self.hub.nodes.load();
        let reports = nodes.iter().flat_map(|member| member.node.members(room));
        future::ready(Ok(members::sum(reports))).boxed()
    }

    fn members_elsewhere<'a>(
        &'a self,
        room: &'a str,
        user: &'a str,
        _: usize,
    ) -> BoxFuture<'a, Result<MembersElsewhere, BrokerError>> {
        let nodes = self.hub.nodes.load();
        let others = nodes.iter().filter(|member| member.id != self.own.id);
        let reports: Vec<_> = others
            .flat_map(|member| member.node.members(room))
            .collect();
        let users = reports.iter().map(|report| &*report.user);
        let is_here = |user: &str| self.own.node.member(room, user).is_some();
        let elsewhere = MembersElsewhere::count(users, user, is_here);
        future::ready(Ok(elsewhere)).boxed()
    }

    /// A node that leaves says so.
    fn member_node_lost(&self) -> BoxFuture<'_, ()> {
        future::pending().boxed()
    }

    fn user_settled<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ()> {
        future::ready(()).boxed()
    }

    fn room_settled<'a>(&'a self, _: &'a str) -> BoxFuture<'a, ()> {
        future::ready(()).boxed()
    }

    fn member_settled<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, ()> {
        future::ready(()).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<String>, BrokerError>> {
        let nodes = self.hub.nodes.load();
        let mut ids: Vec<String> = nodes.iter().map(|member| member.id.clone()).collect();
        ids.sort();
        future::ready(Ok(ids)).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        let member = |member: &Member| member.id == self.own.id;
        let present = self.hub.nodes.load().iter().any(member);
        let gone = || BrokerError::Unavailable("this node has left the cluster".to_owned());
        future::ready(present.then_some(()).ok_or_else(gone)).boxed()
    }

    fn leave(&self, _: Duration) -> BoxFuture<'_, ()> {
        self.hub.nodes.rcu(|nodes| {
            let others = nodes.iter().filter(|member| member.id != self.own.id);
            others.cloned().collect::<Vec<_>>()
        });
        for member in self.hub.nodes.load().iter() {
            member.node.check_members();
        }
        future::ready(()).boxed()
    }
}
