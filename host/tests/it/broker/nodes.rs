//! Nodes of one cluster that record their deliveries.

use std::{
    any::Any,
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt as _,
    future::{self, join},
};
use signalbox::{
    broker::{
        Appended, Broker, ConnectionReport, HistoryName, HistoryPage, HistoryQuery, LocalNode,
        MemberReport, MemoryBroker, MemoryHub, NodeReport, OwnedHistoryName, PendingAnswer,
        PostOutcome, PostedFrame, RedisBroker, Retention, Revoked, RoomReport, SendKey, Target,
        UserAnswer, UserRequest,
    },
    metrics::Metrics,
    protocol::{Frame, MemberInfo, Position, outbound::Delivery},
    trace::Tracer,
};

use tokio::task::yield_now;

use crate::redis::{self, Cluster as RedisCluster, Server, until};

/// How much the histories of the tests keep: for as long as any test takes.
pub(super) const RETENTION: Retention = Retention {
    size: 200,
    time: Duration::from_secs(3600),
};

/// The key of every connection.
pub(super) const KEY: SendKey = SendKey::new([7; 16]);

/// Texts that reached somebody.
pub(super) type Reached = tokio::sync::Mutex<Vec<String>>;

#[derive(Default)]
pub(super) struct Recorder {
    pub(super) users: Mutex<HashSet<String>>,
    rooms: Mutex<HashSet<String>>,
    got: Mutex<HashMap<String, Vec<String>>>,
    asked: Mutex<Vec<(String, UserRequest)>>,
    pub(super) enforced: Mutex<Vec<Revoked>>,
    /// The messages of histories: name, number and text.
    kept: Mutex<Vec<(String, u64, String)>>,
    /// The frames that were posted.
    pub(super) posts: Mutex<Vec<String>>,
    /// How often histories had to be checked.
    checks: AtomicUsize,
    /// The connections of members, by room and user.
    members: Mutex<BTreeMap<(String, String), usize>>,
    /// The rooms whose members changed.
    changed_rooms: Mutex<HashSet<String>>,
    /// How often all members had to be checked.
    member_checks: AtomicUsize,
    /// The messages to users that all nodes of the cluster delivered, in order.
    log: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn logging_to(log: &Arc<Mutex<Vec<String>>>) -> Arc<Self> {
        Arc::new(Self {
            log: log.clone(),
            ..Self::default()
        })
    }
}

impl LocalNode for Recorder {
    fn holds_user(&self, user: &str) -> bool {
        self.users.lock().unwrap().contains(user)
    }

    fn holds_room(&self, room: &str) -> bool {
        self.rooms.lock().unwrap().contains(room)
    }

    fn deliver(&self, target: Target<'_>, frame: &Frame) -> usize {
        // Keep the lock until the delivery is recorded, so that a user who leaves now receives it before later
        // deliveries on other nodes.
        let users = self.users.lock().unwrap();
        let name = match target {
            Target::User(user) if users.contains(user) => format!("user {user}"),
            Target::Room(room) if self.holds_room(room) => format!("room {room}"),
            Target::Everyone => "everyone".to_owned(),
            Target::User(_) | Target::Room(_) => return 0,
        };
        let text = text_in(frame);
        if matches!(target, Target::User(_)) {
            self.log.lock().unwrap().push(text.clone());
        }
        self.got.lock().unwrap().entry(name).or_default().push(text);
        1
    }

    fn deliver_kept(&self, name: HistoryName<'_>, at: &Position, frame: &Frame) -> usize {
        let is_here = match name {
            HistoryName::Room(room) => self.holds_room(room),
            HistoryName::User(user) => self.holds_user(user),
        };
        if !is_here {
            return 0;
        }
        assert_eq!(offset_in(frame), at.offset);
        let kept = (name.to_string(), at.offset, text_in(frame));
        self.kept.lock().unwrap().push(kept);
        1
    }

    fn check_histories(&self) {
        self.checks.fetch_add(1, Ordering::Relaxed);
    }

    fn carry_out(&self, user: &str, request: &UserRequest) -> PendingAnswer {
        let asked = (user.to_owned(), request.clone());
        self.asked.lock().unwrap().push(asked);
        // Every connected user has two connections.
        let connections = if self.holds_user(user) { 2 } else { 0 };
        match request {
            UserRequest::List => future::ready(UserAnswer::Listed(self.list(user))).left_future(),
            UserRequest::Join { .. } | UserRequest::Leave { .. } => {
                let answer = UserAnswer::RoomChanged {
                    connections,
                    failed: connections / 2,
                };
                let later = async move {
                    yield_now().await;
                    answer
                };
                later.boxed().right_future()
            }
            _ => future::ready(UserAnswer::Connections(connections)).left_future(),
        }
    }

    /// Takes frames for connections that are named like a user here, with [`KEY`].
    fn take_post(&self, post: PostedFrame<'_>) -> PostOutcome {
        if !self.holds_user(post.connection) {
            return PostOutcome::Unknown;
        }
        if !post.key.is(KEY) {
            return PostOutcome::WrongKey;
        }
        let posts = &mut *self.posts.lock().unwrap();
        posts.push(post.text.to_owned());
        PostOutcome::Taken
    }

    /// Every room with members has three of them.
    fn count_members(&self, room: &str) -> usize {
        if self.holds_room(room) { 3 } else { 0 }
    }

    fn enforce(&self, revoked: &Revoked) {
        self.enforced.lock().unwrap().push(revoked.clone());
    }

    fn member(&self, room: &str, user: &str) -> Option<MemberReport> {
        let members = self.members(room);
        members.into_iter().find(|member| &*member.user == user)
    }

    fn members(&self, room: &str) -> Vec<MemberReport> {
        let members = self.members.lock().unwrap();
        let in_room = members.iter().filter(|((name, _), _)| name == room);
        in_room
            .map(|((_, user), connections)| member(user, *connections))
            .collect()
    }

    fn members_changed(&self, room: &str) {
        self.changed_rooms.lock().unwrap().insert(room.to_owned());
    }

    fn check_members(&self) {
        self.member_checks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Recorder {
    pub(super) fn list(&self, user: &str) -> Vec<ConnectionReport> {
        let report = |number: u64| ConnectionReport {
            id: format!("c-{number}"),
            address: "[::1]:1".to_owned(),
            connected_at_ms: number,
            v1: true,
            event_stream: number > 0,
            rooms: 3,
        };
        let numbers = if self.holds_user(user) { 0..2 } else { 0..0 };
        numbers.map(report).collect()
    }
}

/// A member as all nodes report it.
pub(super) fn member(user: &str, connections: usize) -> MemberReport {
    MemberReport {
        user: user.into(),
        connections,
        since_ms: 1_700_000_000_000,
        info: MemberInfo::parse(r#"{"name":"Ann"}"#),
    }
}

pub(super) struct Node {
    pub(super) recorder: Arc<Recorder>,
    pub(super) broker: Box<dyn Broker>,
}

impl Node {
    pub(super) async fn connect(&self, user: &str) {
        self.recorder.users.lock().unwrap().insert(user.to_owned());
        self.broker.user_changed(user);
        self.broker.user_settled(user).await;
    }

    pub(super) async fn disconnect(&self, user: &str) {
        self.recorder.users.lock().unwrap().remove(user);
        self.broker.user_changed(user);
        self.broker.user_settled(user).await;
    }

    /// Publishes numbers to `user`, one after another, until `done`. Adds those that reach somebody to `reached`, which
    /// stays locked while a message is in flight.
    pub(super) async fn publish_until(
        &self,
        user: &str,
        reached: &Reached,
        done: impl Future<Output = ()>,
    ) {
        let is_done = Cell::new(false);
        let publish = async {
            for n in (0..).take_while(|_: &u64| !is_done.get()) {
                let mut reached = reached.lock().await;
                let text = n.to_string();
                if self.publish(Target::User(user), &text).await > 0 {
                    reached.push(text);
                }
            }
        };
        join(publish, done.map(|()| is_done.set(true))).await;
    }

    pub(super) async fn join(&self, room: &str) {
        self.recorder.rooms.lock().unwrap().insert(room.to_owned());
        self.broker.room_changed(room);
        self.broker.room_settled(room).await;
    }

    /// Sets the number of connections that `user` has in `room`.
    pub(super) async fn set_member(&self, room: &str, user: &str, connections: usize) {
        let name = (room.to_owned(), user.to_owned());
        {
            let mut members = self.recorder.members.lock().unwrap();
            members.remove(&name);
            if connections > 0 {
                members.insert(name, connections);
            }
        }
        self.broker.member_changed(room, user);
        self.broker.member_settled(room, user).await;
    }

    pub(super) async fn members(&self, room: &str) -> Vec<MemberReport> {
        self.broker.members(room).await.unwrap().to_vec()
    }

    /// Whether this node knows that the members of `room` changed since the last call.
    pub(super) fn has_changed_members(&self, room: &str) -> bool {
        self.recorder.changed_rooms.lock().unwrap().remove(room)
    }

    /// Waits until this node knows that the members of `room` changed since the last call.
    pub(super) async fn until_members_changed(&self, room: &str) {
        let changed = async || self.has_changed_members(room).then_some(());
        until(&format!("the members of {room} changed"), changed).await;
    }

    /// How often all members had to be checked.
    pub(super) fn member_checks(&self) -> usize {
        self.recorder.member_checks.load(Ordering::Relaxed)
    }

    pub(super) async fn publish(&self, target: Target<'_>, text: &str) -> usize {
        self.broker
            .publish(target, &frame(target, text), false, None)
            .await
            .unwrap()
    }

    pub(super) async fn append(&self, room: &str, text: &str) -> Appended {
        self.append_to(HistoryName::Room(room), text).await
    }

    pub(super) async fn append_to(&self, name: HistoryName<'_>, text: &str) -> Appended {
        let frame = frame(name.into(), text);
        let appended = self.broker.append(name, &frame, RETENTION, None, None);
        appended.await.unwrap()
    }

    pub(super) async fn read(&self, room: &str, query: HistoryQuery) -> HistoryPage {
        self.read_from(HistoryName::Room(room), query).await
    }

    pub(super) async fn read_from(
        &self,
        name: HistoryName<'_>,
        query: HistoryQuery,
    ) -> HistoryPage {
        let page = self.broker.read_history(name, query, RETENTION);
        page.await.unwrap()
    }

    /// Reads like [`Node::read_from`], and creates nothing.
    pub(super) async fn find(
        &self,
        name: HistoryName<'_>,
        query: HistoryQuery,
    ) -> Option<HistoryPage> {
        let page = self.broker.find_history(name, query, RETENTION);
        page.await.unwrap()
    }

    pub(super) async fn positions(&self, rooms: &[&str]) -> Vec<Option<Position>> {
        let rooms = rooms.iter().map(|room| HistoryName::Room(room));
        let names: Vec<_> = rooms.map(OwnedHistoryName::from).collect();
        self.broker.history_positions(&names).await.unwrap()
    }

    /// The numbers and texts that were delivered from the history of `room`.
    pub(super) fn kept(&self, room: &str) -> Vec<(u64, String)> {
        self.kept_of(HistoryName::Room(room))
    }

    pub(super) fn kept_of(&self, name: HistoryName<'_>) -> Vec<(u64, String)> {
        let name = name.to_string();
        let kept = self.recorder.kept.lock().unwrap();
        let of_name = kept.iter().filter(|(of, ..)| *of == name);
        let messages = of_name.map(|(_, offset, text)| (*offset, text.clone()));
        messages.collect()
    }

    /// How often histories had to be checked.
    pub(super) fn checks(&self) -> usize {
        self.recorder.checks.load(Ordering::Relaxed)
    }

    pub(super) async fn ask(&self, user: &str, request: &UserRequest) -> Vec<UserAnswer> {
        let reports = self.broker.ask_about(user, request).await.unwrap();
        let nodes: HashSet<&String> = reports.iter().map(|report| &report.node).collect();
        assert_eq!(nodes.len(), reports.len(), "each node answers once");
        reports
            .into_iter()
            .map(|NodeReport { answer, .. }| answer)
            .collect()
    }

    /// The numbers of members that other nodes report.
    pub(super) async fn member_counts(&self, room: &str) -> Vec<Option<usize>> {
        let reports = self.broker.count_members(room).await.unwrap();
        let nodes: HashSet<&String> = reports.iter().map(|report| &report.node).collect();
        assert_eq!(nodes.len(), reports.len(), "each node answers once");
        reports
            .into_iter()
            .map(|RoomReport { members, .. }| members)
            .collect()
    }

    pub(super) async fn leave(&self, room: &str) {
        self.recorder.rooms.lock().unwrap().remove(room);
        self.broker.room_changed(room);
        self.broker.room_settled(room).await;
    }

    pub(super) fn asked(&self) -> Vec<(String, UserRequest)> {
        self.recorder.asked.lock().unwrap().clone()
    }

    pub(super) fn got(&self, name: &str) -> Vec<String> {
        self.recorder
            .got
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until as many messages have arrived as are expected, and compares them.
    pub(super) async fn expect<S: AsRef<str>>(&self, name: &str, expected: &[S]) {
        let enough = async || (self.got(name).len() >= expected.len()).then_some(());
        until(&format!("messages for {name}"), enough).await;
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        assert_eq!(self.got(name), expected, "{name}");
    }
}

pub(super) fn frame(target: Target<'_>, text: &str) -> Frame {
    let (receiver, room) = match target {
        Target::User(user) => (user, None),
        Target::Room(room) => ("", Some(room)),
        Target::Everyone => ("", None),
    };
    Delivery {
        event_type: "test",
        payload: &serde_json::to_string(text).unwrap(),
        receiver,
        sender: "s",
        timestamp: SystemTime::now(),
        room,
        message_id: None,
    }
    .encode()
}

/// The payload of a frame for clients.
pub(super) fn text_in(frame: &Frame) -> String {
    json_of(frame)["payload"].as_str().unwrap().to_owned()
}

/// The number of a frame of a history.
pub(super) fn offset_in(frame: &Frame) -> u64 {
    json_of(frame)["offset"].as_u64().unwrap()
}

fn json_of(frame: &Frame) -> serde_json::Value {
    serde_json::from_str(frame.as_str()).unwrap()
}

/// Nodes that discover each other, and the backend, which must outlive them.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) _backend: Box<dyn Any>,
}

pub(super) async fn memory_cluster(size: usize) -> Cluster {
    let hub = Arc::new(MemoryHub::default());
    let log = Arc::default();
    let node = |index: usize| {
        let recorder = Recorder::logging_to(&log);
        let broker = MemoryBroker::join(hub.clone(), &format!("n{index}"), recorder.clone());
        Node {
            recorder,
            broker: Box::new(broker),
        }
    };
    Cluster {
        nodes: (0..size).map(node).collect(),
        log,
        _backend: Box::new(()),
    }
}

pub(super) async fn redis_server(size: usize) -> Cluster {
    let server = Server::start().await;
    through_redis(&server.url(), size, Box::new(server)).await
}

pub(super) async fn redis_cluster(size: usize) -> Cluster {
    let cluster = RedisCluster::start().await;
    through_redis(&cluster.urls(), size, Box::new(cluster)).await
}

async fn through_redis(urls: &str, size: usize, backend: Box<dyn Any>) -> Cluster {
    let log = Arc::default();
    Cluster {
        nodes: redis_nodes(urls, size, &log).await,
        log,
        _backend: backend,
    }
}

pub(super) async fn redis_nodes(
    urls: &str,
    size: usize,
    log: &Arc<Mutex<Vec<String>>>,
) -> Vec<Node> {
    let config = redis::config(urls, "", Duration::from_secs(5));
    let node = |index: usize| {
        let recorder = Recorder::logging_to(log);
        let metrics = Arc::<Metrics>::default();
        let (name, tracer) = (format!("n{index}"), Tracer::default());
        let broker = RedisBroker::join(&config, &name, recorder.clone(), metrics, tracer);
        Node {
            recorder,
            broker: Box::new(broker.expect("a valid address")),
        }
    };
    let nodes: Vec<Node> = (0..size).map(node).collect();
    for node in &nodes {
        until("the broker is connected", async || {
            node.broker.probe().await.ok()
        })
        .await;
    }
    nodes
}
