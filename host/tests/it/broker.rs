//! The contract of a broker: the suite that every one passes. A broker joins it with one line at the end and a function
//! that makes a cluster of it.

use std::{
    any::Any,
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{join, join_all},
};
use signalbox::{
    broker::{
        Broker, ConnectionReport, LocalNode, MemoryBroker, MemoryHub, NodeReport, RedisBroker,
        Target, Told, UserRequest,
    },
    config::{RedisCompat, RedisConfig, RedisMode},
    metrics::Metrics,
    protocol::{CloseCode, Frame, outbound::Delivery},
    trace::Tracer,
};

use crate::redis::{Cluster as RedisCluster, Server, until};

/// Texts that reached somebody.
type Reached = tokio::sync::Mutex<Vec<String>>;

/// A node that writes down what it is told to deliver.
#[derive(Default)]
struct Recorder {
    users: Mutex<HashSet<String>>,
    rooms: Mutex<HashSet<String>>,
    got: Mutex<HashMap<String, Vec<String>>>,
    asked: Mutex<Vec<(String, UserRequest)>>,
    /// The messages to users that the nodes of the cluster delivered, in their order.
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
        // Held until it is written down: a user who leaves now has got it before what others deliver later.
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

    fn carry_out(&self, user: &str, request: &UserRequest) -> usize {
        let asked = (user.to_owned(), request.clone());
        self.asked.lock().unwrap().push(asked);
        // Whoever is connected has two connections.
        if self.holds_user(user) { 2 } else { 0 }
    }

    fn list(&self, user: &str) -> Vec<ConnectionReport> {
        let report = |number: u64| ConnectionReport {
            id: format!("c-{number}"),
            address: "[::1]:1".to_owned(),
            connected_at_ms: number,
            v1: true,
            rooms: 3,
        };
        let numbers = if self.holds_user(user) { 0..2 } else { 0..0 };
        numbers.map(report).collect()
    }
}

struct Node {
    recorder: Arc<Recorder>,
    broker: Box<dyn Broker>,
}

impl Node {
    async fn connect(&self, user: &str) {
        self.recorder.users.lock().unwrap().insert(user.to_owned());
        self.broker.user_changed(user);
        self.broker.user_settled(user).await;
    }

    async fn disconnect(&self, user: &str) {
        self.recorder.users.lock().unwrap().remove(user);
        self.broker.user_changed(user);
        self.broker.user_settled(user).await;
    }

    /// Publishes numbers to `user`, one after another, until `done`. Those that reach somebody are added to `reached`, which is
    /// locked while one is on its way.
    async fn publish_until(&self, user: &str, reached: &Reached, done: impl Future<Output = ()>) {
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

    async fn join(&self, room: &str) {
        self.recorder.rooms.lock().unwrap().insert(room.to_owned());
        self.broker.room_changed(room);
        self.broker.room_settled(room).await;
    }

    async fn publish(&self, target: Target<'_>, text: &str) -> usize {
        self.broker
            .publish(target, &frame(target, text), false, None)
            .await
            .unwrap()
    }

    /// How many nodes say of how many connections each that they did what was asked.
    async fn ask(&self, user: &str, request: &UserRequest) -> Vec<Told> {
        let reports = self.broker.ask_about(user, request).await.unwrap();
        let nodes: HashSet<&String> = reports.iter().map(|report| &report.node).collect();
        assert_eq!(nodes.len(), reports.len(), "each node answers once");
        reports
            .into_iter()
            .map(|NodeReport { told, .. }| told)
            .collect()
    }

    fn asked(&self) -> Vec<(String, UserRequest)> {
        self.recorder.asked.lock().unwrap().clone()
    }

    fn got(&self, name: &str) -> Vec<String> {
        self.recorder
            .got
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until as much came as is expected, and compares it.
    async fn expect<S: AsRef<str>>(&self, name: &str, expected: &[S]) {
        let enough = async || (self.got(name).len() >= expected.len()).then_some(());
        until(&format!("messages for {name}"), enough).await;
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        assert_eq!(self.got(name), expected, "{name}");
    }
}

/// A delivery of `text`.
fn frame(target: Target<'_>, text: &str) -> Frame {
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

fn text_in(frame: &Frame) -> String {
    let delivery: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
    delivery["payload"].as_str().unwrap().to_owned()
}

/// Nodes that find each other, and what has to live as long as they do.
struct Cluster {
    nodes: Vec<Node>,
    log: Arc<Mutex<Vec<String>>>,
    _backend: Box<dyn Any>,
}

async fn a_user_is_reached_on_other_nodes_only(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].connect("u").await;
    nodes[1].connect("u").await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 1);
    nodes[1].expect("user u", &["x"]).await;
    assert_eq!(nodes[2].publish(Target::User("u"), "y").await, 2);
    nodes[0].expect("user u", &["y"]).await;
    nodes[1].expect("user u", &["x", "y"]).await;
}

async fn nobody_is_reached_where_nobody_is(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    nodes[1].disconnect("u").await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::User("never"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::Room("never"), "x").await, 0);
}

async fn a_user_who_comes_is_reached_at_once(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    for round in 0..20 {
        let user = format!("u{round}");
        assert_eq!(nodes[0].publish(Target::User(&user), "early").await, 0);
        nodes[1].connect(&user).await;
        assert_eq!(nodes[0].publish(Target::User(&user), "x").await, 1);
        nodes[1].expect(&format!("user {user}"), &["x"]).await;
    }
}

async fn a_room_is_published_once_for_each_node(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[1].join("r").await;
    nodes[1].join("r").await;
    nodes[2].join("r").await;
    assert_eq!(nodes[0].publish(Target::Room("r"), "x").await, 2);
    assert_eq!(nodes[0].publish(Target::Room("r"), "y").await, 2);
    nodes[1].expect("room r", &["x", "y"]).await;
    nodes[2].expect("room r", &["x", "y"]).await;
}

async fn everyone_is_every_other_node(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    nodes[0].publish(Target::Everyone, "x").await;
    nodes[2].expect("everyone", &["x"]).await;
    nodes[1].expect("everyone", &["x"]).await;
    nodes[1].publish(Target::Everyone, "y").await;
    // What comes from elsewhere comes; what a node sent itself does not come back.
    nodes[0].expect("everyone", &["y"]).await;
    nodes[2].expect("everyone", &["x", "y"]).await;
    assert_eq!(nodes[1].got("everyone"), ["x"]);
}

async fn frames_to_one_target_keep_their_order(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    let sent: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for text in &sent {
        assert_eq!(nodes[0].publish(Target::User("u"), text).await, 1);
    }
    nodes[1].expect("user u", &sent).await;
}

async fn a_user_who_moves_gets_all_that_was_published_once_and_in_order(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes,
        log,
        _backend,
    } = make(4).await;
    let reached = Reached::default();
    nodes[1].connect("u").await;
    let moves = async {
        // To another node, and away and back to the same one. A message follows a user three times.
        for round in [[(1, 2), (2, 3)], [(3, 3), (3, 1)], [(1, 1), (1, 1)]].repeat(10) {
            for (from, to) in round {
                nodes[from].disconnect("u").await;
                nodes[to].connect("u").await;
            }
            until_all_came(&log, &reached).await;
        }
    };
    nodes[0].publish_until("u", &reached, moves).await;
    until_all_came(&log, &reached).await;
}

/// Waits until as many messages came as reached somebody by now, and compares them.
async fn until_all_came(log: &Mutex<Vec<String>>, reached: &Reached) {
    let reached = reached.lock().await;
    until("all has come", async || {
        (log.lock().unwrap().len() >= reached.len()).then_some(())
    })
    .await;
    assert_eq!(*log.lock().unwrap(), *reached);
}

async fn a_user_with_two_devices_gets_nothing_twice_on_either_while_one_moves(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(4).await;
    nodes[1].connect("u").await;
    nodes[2].connect("u").await;
    let moves = async {
        for (from, to) in [(2, 3), (3, 2)].repeat(20) {
            nodes[from].disconnect("u").await;
            nodes[to].connect("u").await;
        }
    };
    let reached = Reached::default();
    nodes[0].publish_until("u", &reached, moves).await;
    let reached = reached.into_inner();
    nodes[1].expect("user u", &reached).await;
    for node in &nodes[2..] {
        let got = node.got("user u");
        let numbers = got.iter().map(|text| text.parse::<u64>().unwrap());
        assert!(numbers.is_sorted_by(|a, b| a < b), "{got:?}");
    }
}

async fn a_node_that_leaves_loses_nothing_that_was_published(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes,
        log,
        _backend,
    } = make(3).await;
    nodes[1].connect("u").await;
    let leaves = async {
        for _ in 0..20 {
            nodes[1].connect("u").await;
        }
        nodes[1].disconnect("u").await;
        nodes[2].connect("u").await;
        nodes[1].broker.leave(Duration::from_secs(10)).await;
    };
    let reached = Reached::default();
    nodes[0].publish_until("u", &reached, leaves).await;
    until_all_came(&log, &reached).await;
}

async fn the_other_nodes_that_hold_a_user_are_asked_and_answer(
    make: impl AsyncFn(usize) -> Cluster,
) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let strange = "u\"{}:\n\0ä";
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, []);
    for node in &nodes[..2] {
        node.connect("u").await;
        node.connect(strange).await;
    }
    let two = || Told::Connections(2);
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, [two()]);
    assert_eq!(nodes[2].ask("u", &UserRequest::Count).await, [two(), two()]);
    let disconnect = UserRequest::Disconnect {
        code: CloseCode::KICKED,
        reason: "\"enough\"".to_owned(),
    };
    assert_eq!(nodes[0].ask(strange, &disconnect).await, [two()]);
    let asked = nodes[1].asked();
    assert_eq!(asked.last(), Some(&(strange.to_owned(), disconnect)));
    assert_eq!(nodes[2].asked(), [], "it holds nobody");
    nodes[1].disconnect("u").await;
    assert_eq!(nodes[0].ask("u", &UserRequest::Count).await, []);
}

async fn a_node_lists_connections_and_closes_one_for_another(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    assert_eq!(nodes[0].ask("u", &UserRequest::List).await, []);
    nodes[1].connect("u").await;
    let list = Told::Listed(nodes[1].recorder.list("u"));
    assert_eq!(nodes[0].ask("u", &UserRequest::List).await, [list]);
    let one = UserRequest::DisconnectOne {
        connection: "c\"1".to_owned(),
        code: CloseCode::KICKED,
        reason: String::new(),
    };
    nodes[0].ask("u", &one).await;
    assert_eq!(nodes[1].asked().last(), Some(&("u".to_owned(), one)));
}

async fn every_node_knows_which_there_are(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(3).await;
    let known = async |node: &Node| node.broker.nodes().await.unwrap();
    until("all nodes are known", async || {
        (known(&nodes[0]).await.len() == 3).then_some(())
    })
    .await;
    let all = known(&nodes[0]).await;
    assert!(all.is_sorted(), "{all:?}");
    assert_eq!(known(&nodes[2]).await, all);
    nodes[1].broker.leave(Duration::from_secs(10)).await;
    let left = known(&nodes[0]).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|node| all.contains(node)));
}

async fn a_node_that_left_is_neither_reached_nor_well(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    nodes[1].connect("u").await;
    nodes[1].join("r").await;
    nodes[1].broker.probe().await.unwrap();
    nodes[1].broker.leave(Duration::from_secs(10)).await;
    assert_eq!(nodes[0].publish(Target::User("u"), "x").await, 0);
    assert_eq!(nodes[0].publish(Target::Room("r"), "x").await, 0);
    assert!(nodes[1].broker.probe().await.is_err());
    nodes[0].broker.probe().await.unwrap();
}

async fn strange_names_are_only_names(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let long = format!("{}abc", "😀".repeat(63));
    let strange = [
        "a:b",
        "a b",
        "{a}",
        "a}b{",
        "{}",
        "a\nb",
        "a\r\nDEL x\r\n",
        "*",
        "a*",
        "[a]",
        "?",
        "ä€😀",
        "\0",
        "server",
        "server_alive:n0",
        &long,
    ];
    for name in strange {
        nodes[1].connect(name).await;
        nodes[1].join(name).await;
    }
    for name in strange {
        assert_eq!(
            nodes[0].publish(Target::User(name), name).await,
            1,
            "{name:?}"
        );
        assert_eq!(
            nodes[0].publish(Target::Room(name), name).await,
            1,
            "{name:?}"
        );
        nodes[1].expect(&format!("user {name}"), &[name]).await;
        nodes[1].expect(&format!("room {name}"), &[name]).await;
    }
    for nobody in ["a", "b", "user_servers:a", "a:b:c", "[b]", ""] {
        assert_eq!(
            nodes[0].publish(Target::User(nobody), "x").await,
            0,
            "{nobody:?}"
        );
    }
}

async fn concurrent_changes_end_at_the_truth(make: impl AsyncFn(usize) -> Cluster) {
    let Cluster {
        nodes, _backend, ..
    } = make(2).await;
    let nodes = Arc::new(nodes);
    let flickers = (0..8).map(|task| {
        let nodes = nodes.clone();
        tokio::task::spawn_blocking(move || {
            for round in 0..500 {
                let mut users = nodes[1].recorder.users.lock().unwrap();
                if (task + round) % 2 == 0 {
                    users.insert("u".to_owned());
                } else {
                    users.remove("u");
                }
                drop(users);
                nodes[1].broker.user_changed("u");
            }
        })
    });
    join_all(flickers).await;
    nodes[1].broker.user_settled("u").await;
    let holds = nodes[1].recorder.holds_user("u");
    assert_eq!(
        nodes[0].publish(Target::User("u"), "x").await,
        usize::from(holds)
    );
}

macro_rules! passes_the_contract {
    ($broker:ident: $make:expr; $($requirement:ident)*) => {
        mod $broker {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $requirement() {
                    super::$requirement($make).await;
                }
            )*
        }
    };
    ($broker:ident: $make:expr) => {
        passes_the_contract! { $broker: $make;
            a_user_is_reached_on_other_nodes_only
            nobody_is_reached_where_nobody_is
            a_user_who_comes_is_reached_at_once
            a_room_is_published_once_for_each_node
            everyone_is_every_other_node
            frames_to_one_target_keep_their_order
            a_user_who_moves_gets_all_that_was_published_once_and_in_order
            a_user_with_two_devices_gets_nothing_twice_on_either_while_one_moves
            a_node_that_leaves_loses_nothing_that_was_published
            the_other_nodes_that_hold_a_user_are_asked_and_answer
            a_node_lists_connections_and_closes_one_for_another
            every_node_knows_which_there_are
            a_node_that_left_is_neither_reached_nor_well
            strange_names_are_only_names
            concurrent_changes_end_at_the_truth
        }
    };
}

async fn memory_cluster(size: usize) -> Cluster {
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

async fn redis_server(size: usize) -> Cluster {
    let server = Server::start().await;
    let log = Arc::default();
    Cluster {
        nodes: redis_nodes(&server.url(), size, &log).await,
        log,
        _backend: Box::new(server),
    }
}

async fn redis_cluster(size: usize) -> Cluster {
    let cluster = RedisCluster::start().await;
    let log = Arc::default();
    Cluster {
        nodes: redis_nodes(&cluster.urls(), size, &log).await,
        log,
        _backend: Box::new(cluster),
    }
}

async fn redis_nodes(urls: &str, size: usize, log: &Arc<Mutex<Vec<String>>>) -> Vec<Node> {
    let config = RedisConfig {
        urls: urls.split(',').map(str::to_owned).collect(),
        mode: RedisMode::Auto,
        sentinel_master: None,
        ca_file: None,
        compat: RedisCompat::None,
        key_prefix: String::new(),
        command_timeout: Duration::from_secs(5),
    };
    let node = |index: usize| {
        let recorder = Recorder::logging_to(log);
        let metrics = Arc::<Metrics>::default();
        let (name, tracer) = (format!("n{index}"), Tracer::default());
        let broker = RedisBroker::join(&config, &name, recorder.clone(), metrics, tracer);
        Node {
            recorder,
            broker: Box::new(broker.expect("a legal address")),
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

#[tokio::test]
async fn messages_follow_a_user_back_to_the_server_that_passed_them_on_in_order() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 3, &Arc::default()).await;
    let [sender, home, away] = nodes.as_slice() else {
        panic!("three nodes")
    };
    let route = async || -> Vec<String> { server.command(&["SMEMBERS", "user_servers:u"]).await };
    let until_no_route = async || {
        until("the server finds nobody", async || {
            route().await.is_empty().then_some(())
        })
        .await;
    };
    away.connect("u").await;
    let away_id = route().await.remove(0);
    away.disconnect("u").await;
    home.connect("u").await;
    let mut sent = Vec::new();
    for round in 0..10 {
        sent.extend(["before", "away", "back"].map(|when| format!("{when} {round}")));
        let [before, late, back] = sent.last_chunk().expect("three");
        assert_eq!(sender.publish(Target::User("u"), before).await, 1);
        home.expect("user u", &sent[..sent.len() - 2]).await;
        // They leave, and no server has noticed.
        home.recorder.users.lock().unwrap().remove("u");
        assert_eq!(sender.publish(Target::User("u"), late).await, 1);
        until_no_route().await;
        // They come elsewhere, and leave again.
        server
            .command::<()>(&["SADD", "user_servers:u", &away_id])
            .await;
        until_no_route().await;
        // They come back, and the next message races with the one that follows them.
        home.recorder.users.lock().unwrap().insert("u".to_owned());
        home.broker.user_changed("u");
        until("they are found", async || {
            (sender.publish(Target::User("u"), back).await == 1).then_some(())
        })
        .await;
        home.expect("user u", &sent).await;
    }
}

#[tokio::test]
async fn a_message_waits_for_the_one_before_it_that_was_forwarded_wherever_the_user_is_by_now() {
    for comes_back in [true, false] {
        let server = Server::start().await;
        let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
        let [first, last] = nodes.as_slice() else {
            panic!("two nodes")
        };
        let now_at = if comes_back { first } else { last };
        first.connect("u").await;
        first.disconnect("u").await;
        first.connect("marker").await;
        // A server between the two that keeps what it gets.
        let client = ::redis::Client::open(server.url()).expect("an address");
        let mut between = client.get_async_pubsub().await.expect("a connection");
        between.subscribe("server:b-1").await.expect("it listens");
        let _: () = server.command(&["SET", "server_alive:b-1", "3"]).await;
        let _: () = server.command(&["SADD", "user_servers:u", "b-1"]).await;
        let publish = async |node: &str, text: &str| {
            let words = ["PUBLISH", &format!("server:{node}"), text];
            assert_eq!(server.command::<u64>(&words).await, 1);
        };
        let to = |user, text| frame(Target::User(user), text);
        publish("n0", to("u", "one").as_str()).await;
        let one = between.on_message().next().await.expect("a message");
        let one: String = one.get_payload().expect("a text");
        assert!(one.contains("signalbox.to") && one.contains("one"), "{one}");
        // The user goes on, and the first server gets one more for them.
        let _: () = server.command(&["SREM", "user_servers:u", "b-1"]).await;
        now_at.connect("u").await;
        publish("n0", to("u", "two").as_str()).await;
        publish("n0", to("marker", "x").as_str()).await;
        first.expect("user marker", &["x"]).await;
        assert_eq!(now_at.got("user u"), Vec::<String>::new());
        let now_at_id = if comes_back { "n0" } else { "n1" };
        publish(now_at_id, &one).await;
        now_at.expect("user u", &["one", "two"]).await;
    }
}

passes_the_contract!(memory: super::memory_cluster);
passes_the_contract!(redis: super::redis_server);
passes_the_contract!(cluster_of_redis: super::redis_cluster);
