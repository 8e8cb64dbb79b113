//! Users move between nodes, and nodes stop and come back: messages acked as `delivered` arrive once and in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    harness::{Endpoint, Node},
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, by_sender, config, until_ready},
};

/// Numbers, by sender and receiver.
type Numbers = BTreeMap<(String, String), Vec<u64>>;

/// The nodes that clients can connect to, and the outcomes of their messages.
#[derive(Default)]
struct World {
    places: Mutex<Vec<Endpoint>>,
    delivered: Mutex<Numbers>,
    received: Mutex<Numbers>,
    over: AtomicBool,
}

impl World {
    fn of(cluster: &Nodes) -> Arc<Self> {
        let places = cluster.nodes.iter().map(|node| **node).collect();
        Arc::new(Self {
            places: Mutex::new(places),
            ..Self::default()
        })
    }

    /// The place with index `turn`, modulo their number.
    fn place(&self, turn: usize) -> Endpoint {
        let places = self.places.lock().unwrap();
        places[turn % places.len()]
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Connects as `user` to the place `turn`, or to the next one that accepts the connection.
    async fn connect(&self, user: &str, turn: &mut usize) -> Peer {
        loop {
            if let Ok(peer) = Peer::try_connect(&self.place(*turn), user).await {
                return peer;
            }
            *turn += 1;
            tokio::task::yield_now().await;
        }
    }

    fn note(map: &Mutex<Numbers>, from: &str, to: &str, n: u64) {
        let way = (from.to_owned(), to.to_owned());
        map.lock().unwrap().entry(way).or_default().push(n);
    }

    /// Receives as `user`, and reconnects to the next place whenever the connection ends.
    async fn receive(self: Arc<Self>, user: String, mut turn: usize) {
        loop {
            let mut peer = self.connect(&user, &mut turn).await;
            while let Some(frame) = peer.frame().await {
                if frame["type"] == "test" {
                    let from = frame["senderId"].as_str().expect("a sender");
                    let n = frame["payload"].as_u64().expect("a number");
                    Self::note(&self.received, from, &user, n);
                }
            }
            turn += 1;
        }
    }

    /// Sends as `user` to each of `receivers` in turn until the test is over, and reconnects to the next place whenever
    /// the connection ends.
    async fn send(self: Arc<Self>, user: String, receivers: Vec<String>, mut turn: usize) {
        let mut n = 0;
        while !self.is_over() {
            let mut peer = self.connect(&user, &mut turn).await;
            while !self.is_over() {
                n += 1;
                let to = &receivers[n as usize % receivers.len()];
                match peer.ask_while_open(to, n).await {
                    Some(Outcome::Delivered) => Self::note(&self.delivered, &user, to, n),
                    Some(_) => {}
                    None => break,
                }
            }
            turn += 1;
        }
    }

    /// Checks that delivered messages arrived once and in order, and others at most once.
    async fn check(&self) {
        let delivered = self.delivered.lock().unwrap().clone();
        let count: usize = delivered.values().map(Vec::len).sum();
        assert!(count > 100, "only {count} messages were delivered");
        for (way, delivered) in delivered {
            let received = until(
                &format!("everything from {way:?} has arrived"),
                async || {
                    let received = self.received.lock().unwrap();
                    let received = received.get(&way)?;
                    let has = |n| received.contains(n);
                    delivered.iter().all(has).then(|| received.clone())
                },
            )
            .await;
            let in_order = received.iter().filter(|n| delivered.contains(n));
            assert!(in_order.is_sorted(), "{way:?} out of order: {received:?}");
            let mut once = received.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), received.len(), "{way:?} twice: {received:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_under_load_lose_double_and_reorder_nothing_that_was_delivered() {
    let server = Server::start().await;
    let mut cluster = Nodes::start(3, &server.url(), "").await;
    let world = World::of(&cluster);
    let receivers: Vec<String> = (0..20).map(|index| format!("r{index}")).collect();
    let mut receiving = JoinSet::new();
    for (turn, user) in receivers.iter().enumerate() {
        receiving.spawn(world.clone().receive(user.clone(), turn));
    }
    let sending = (0..6).map(|turn| {
        let sending = world
            .clone()
            .send(format!("s{turn}"), receivers.clone(), turn);
        tokio::spawn(sending)
    });
    let sending: Vec<_> = sending.collect();
    for round in 0..2 {
        for index in 0..cluster.nodes.len() {
            let old = cluster.nodes.remove(index);
            old.terminate();
            old.stopped().await;
            let name = format!("n{index}-{round}");
            let new = Node::start(&config(&name, &server.url(), "")).await;
            until_ready(&new).await;
            world.places.lock().unwrap()[index] = *new;
            cluster.nodes.insert(index, new);
        }
    }
    world.over.store(true, Ordering::Release);
    for sent in join_all(sending).await {
        sent.expect("the sender is running");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_moves_gets_every_message_once_and_in_order_from_any_node() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let world = World::of(&cluster);
    let sending = (0..3).map(|turn| {
        let receivers = vec!["bob".to_owned()];
        tokio::spawn(world.clone().send(format!("s{turn}"), receivers, turn))
    });
    let sending: Vec<_> = sending.collect();
    // From each node to each, including to the same node, without a pause.
    for turn in [0, 1, 2, 2, 1, 0].repeat(5) {
        let mut bob = Peer::connect(&world.place(turn), "bob").await;
        for _ in 0..20 {
            let frame = bob.frame().await.expect("it stays open");
            note_delivery(&world, &frame);
        }
        bob.send_close().await;
        while let Some(frame) = bob.frame().await {
            note_delivery(&world, &frame);
        }
    }
    let mut bob = Peer::connect(&world.place(1), "bob").await;
    world.over.store(true, Ordering::Release);
    let rest = async {
        loop {
            note_delivery(&world, &bob.frame().await.expect("it stays open"));
        }
    };
    let checked = async {
        for sent in join_all(sending).await {
            sent.expect("the sender is running");
        }
        world.check().await;
    };
    tokio::select! {
        () = rest => unreachable!("it never ends"),
        () = checked => {}
    }
}

fn note_delivery(world: &World, frame: &Value) {
    if frame["type"] == "test" {
        let from = frame["senderId"].as_str().expect("a sender");
        let n = frame["payload"].as_u64().expect("a number");
        World::note(&world.received, from, "bob", n);
    }
}

/// The channel of the server that holds `user`.
async fn channel(server: &Server, user: &str) -> String {
    let key = format!("user_servers:{user}");
    let servers: Vec<String> = server.command(&["SMEMBERS", &key]).await;
    assert_eq!(servers.len(), 1, "{servers:?}");
    format!("server:{}", servers[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_published_to_a_users_former_node_is_forwarded_once() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let bob = Peer::connect(&cluster.nodes[0], "bob").await;
    let first = channel(&server, "bob").await;
    let mut device = Peer::connect(&cluster.nodes[1], "bob").await;
    bob.close().await;
    until("the first slot is released", async || {
        let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
        (servers.len() == 1).then_some(())
    })
    .await;
    let second = channel(&server, "bob").await;
    let mut other = Peer::connect(&cluster.nodes[2], "bob").await;
    let message = |n: u64| json!({"type": "test", "payload": n, "receiverID": "bob", "senderId": "w", "timestamp": "t"});
    // The worker looked the route up before he moved, and its other publish arrives.
    for n in 0..20 {
        let text = message(n).to_string();
        for channel in [&first, &second] {
            server.command::<u64>(&["PUBLISH", channel, &text]).await;
        }
    }
    let expected: Vec<u64> = (0..20).collect();
    for device in [&mut device, &mut other] {
        let received = device.take(20).await;
        let mut numbers = by_sender(&received).remove("w").expect("it came");
        // Direct and forwarded messages take two paths.
        numbers.sort_unstable();
        assert_eq!(numbers, expected);
    }
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    for device in [&mut device, &mut other] {
        let more = device.take_until_marker(&mut ann).await;
        let more = by_sender(&more).remove("w");
        assert_eq!(more, None, "it came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_servers_that_say_so_in_their_lease_get_marked_messages() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let client = ::redis::Client::open(server.url()).expect("an address");
    for (name, lease, is_marked) in [
        ("old", "1", false),
        ("traces", "2", false),
        ("new", "3", true),
    ] {
        let (route, alive) = (
            format!("user_servers:{name}"),
            format!("server_alive:{name}-1"),
        );
        let id = format!("{name}-1");
        server.command::<()>(&["SADD", &route, &id]).await;
        server.command::<()>(&["SET", &alive, lease]).await;
        let mut subscriber = client.get_async_pubsub().await.expect("a connection");
        let subscribed = subscriber.subscribe(format!("server:{id}")).await;
        subscribed.expect("it subscribes");
        assert_eq!(ann.ask(name, 1).await, Outcome::Delivered);
        let published = subscriber.on_message().next().await.expect("a message");
        let published: String = published.get_payload().expect("a text");
        assert_eq!(
            published.starts_with(r#"{"type":"signalbox.to","#),
            is_marked,
            "{published}"
        );
        let message = published.lines().last().expect("a line");
        let message: Value = serde_json::from_str(message).expect("the message is JSON");
        assert_eq!(message["payload"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_user_who_left_is_counted() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    let bob = Peer::connect(&cluster.nodes[0], "bob").await;
    let channel = channel(&server, "bob").await;
    bob.close().await;
    let message =
        r#"{"type":"test","payload":1,"receiverID":"bob","senderId":"w","timestamp":"t"}"#;
    server.command::<u64>(&["PUBLISH", &channel, message]).await;
    cluster.nodes[0]
        .until_metric("wss_messages_dropped_total{reason=\"moved\"}", |count| {
            count == 1.0
        })
        .await;
}
