//! Delivery between nodes through Redis.

use std::{collections::HashMap, path::Path};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::Node,
    logged::Logged,
    redis::{Cluster, Options, Server, User, until},
    redis_nodes::{Nodes, Outcome, Peer, Talk, by_sender, config, until_ready},
    webhooks::receiver::Receiver,
};

/// Deterministic pseudo-random numbers, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        // The constants of Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Every user sends `each` messages to random users; each message arrives once and in order.
async fn random_pairs(cluster: &Nodes, users: usize, each: u64) {
    let names: Vec<String> = (0..users).map(|index| format!("user{index}")).collect();
    let mut peers = cluster.peers(&names).await;
    let mut chance = Chance(42);
    let mut expected: HashMap<(String, String), Vec<u64>> = HashMap::new();
    for n in 0..each {
        let mut sending = Vec::new();
        for peer in &mut peers {
            let receiver = &names[chance.below(users)];
            let way = (receiver.clone(), peer.user.clone());
            expected.entry(way).or_default().push(n);
            sending.push(peer.send(receiver, n));
        }
        join_all(sending).await;
    }
    for peer in &mut peers {
        let mine = expected.iter().filter(|((to, _), _)| *to == peer.user);
        let mine: HashMap<String, Vec<u64>> = mine
            .map(|((_, from), n)| (from.clone(), n.clone()))
            .collect();
        let count = mine.values().map(Vec::len).sum();
        let received = peer.take(count).await;
        assert_eq!(by_sender(&received), mine, "{}", peer.user);
    }
    // Any further message would be a duplicate.
    let (first, rest) = peers.split_at_mut(1);
    for peer in rest {
        assert!(peer.take_until_marker(&mut first[0]).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_on_two_nodes_get_everything_once_and_in_order() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    random_pairs(&cluster, 1000, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_on_eight_nodes_get_everything_once_and_in_order() {
    let server = Server::start().await;
    let cluster = Nodes::start(8, &server.url(), "").await;
    random_pairs(&cluster, 1000, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_on_a_cluster_of_redis_get_everything_once_and_in_order() {
    let redis_cluster = Cluster::start().await;
    let cluster = Nodes::start(3, &redis_cluster.urls(), "").await;
    random_pairs(&cluster, 200, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_connections_on_several_nodes_gets_a_message_on_each() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bobs = [
        Peer::connect(&cluster.nodes[0], "bob").await,
        Peer::connect(&cluster.nodes[1], "bob").await,
        Peer::connect(&cluster.nodes[2], "bob").await,
        Peer::connect(&cluster.nodes[2], "bob").await,
    ];
    for n in 0..20 {
        assert_eq!(ann.ask("bob", n).await, Outcome::Delivered);
    }
    for bob in &mut bobs {
        let received = bob.take_until_marker(&mut ann).await;
        let numbers: Vec<u64> = by_sender(&received).remove("ann").unwrap_or_default();
        let expected: Vec<u64> = (0..20).collect();
        // Besides the numbers, it contains the end marker that was sent for another connection of bob.
        assert_eq!(numbers[..20], expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_spans_nodes_and_ends_with_its_members() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let names = ["ann", "bob", "cid", "dan"].map(str::to_owned);
    let mut peers = cluster.peers(&names).await;
    for peer in &mut peers {
        peer.join("r").await;
    }
    let message = |n: u64| json!({"type": "test", "payload": n, "room": "r"});
    for n in 0..20 {
        assert_eq!(peers[0].ask_json(message(n)).await, Outcome::Delivered);
    }
    for peer in &mut peers {
        let received: Vec<_> = peer
            .take(21)
            .await
            .into_iter()
            .filter(|frame| frame["type"] == "test")
            .collect();
        let expected: Vec<u64> = (0..20).collect();
        assert_eq!(by_sender(&received)["ann"], expected, "{}", peer.user);
        assert_eq!(received[0]["room"], "r");
    }
    for peer in peers {
        peer.close().await;
    }
    until("the room is gone from Redis", async || {
        let keys: Vec<String> = server.command(&["KEYS", "room_servers:*"]).await;
        keys.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_says_whether_a_node_holds_the_receiver() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    assert_eq!(ann.ask("bob", 0).await, Outcome::Offline);
    let bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(ann.ask("bob", 1).await, Outcome::Delivered);
    bob.close().await;
    until("the sender is told that the user is offline", async || {
        (ann.ask("bob", 2).await == Outcome::Offline).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_costs_at_most_one_command_if_the_route_is_known() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut talk = Talk::start(&cluster, 10).await;
    talk.rounds_delivered(1).await;
    server.reset_commandstats().await;
    let rounds = 200;
    talk.rounds_delivered(rounds).await;
    let stats = server.commandstats().await;
    let messages = (rounds * 20) as u64;
    let published = stats["publish"];
    let asked = ["smembers", "get"].map(|name| stats.get(name).copied().unwrap_or(0));
    // Probes are published too, one a second by each node, and each of the 20 routes is looked up now and then.
    assert!(published >= messages, "{stats:?}");
    assert!(published < messages + messages / 10, "{stats:?}");
    let overhead: u64 = asked.iter().sum();
    assert!(
        overhead < messages / 4,
        "{overhead} of {messages}: {stats:?}"
    );
    talk.finish(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_reach_users_by_publishing_and_malformed_texts_do_no_harm() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut peers = cluster.peers(&["ann".to_owned(), "bob".to_owned()]).await;
    let node: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    let channel = format!("server:{}", node[0]);
    let alive: bool = server
        .command(&["EXISTS", &format!("server_alive:{}", node[0])])
        .await;
    assert!(alive, "the lease of the server is there");
    let malformed = [
        "no json",
        "{}",
        "[1]",
        r#"{"receiverID":7,"type":"x"}"#,
        r#"{"type":"x","payload":1}"#,
        "",
    ];
    for text in malformed {
        server.command::<u64>(&["PUBLISH", &channel, text]).await;
    }
    let message = r#"{"type":"quiz_ready","payload":{"id":1.50},"receiverID":"bob","senderId":"worker","timestamp":"t","extra":[1]}"#;
    let listeners: u64 = server.command(&["PUBLISH", &channel, message]).await;
    assert_eq!(listeners, 1);
    let received = peers[1].delivery().await;
    let mut expected = serde_json::from_str::<serde_json::Value>(message).unwrap();
    expected.as_object_mut().unwrap().remove("extra");
    assert_eq!(received, expected);
    cluster.nodes[1]
        .until_metric("wss_redis_malformed_total ", |count| {
            count == malformed.len() as f64
        })
        .await;

    server
        .command::<u64>(&["PUBLISH", "broadcast", "no json"])
        .await;
    let broadcast = r#"{"type":"notice","payload":"all","senderId":"worker"}"#;
    server
        .command::<u64>(&["PUBLISH", "broadcast", broadcast])
        .await;
    for peer in &mut peers {
        assert_eq!(peer.delivery().await["type"], "notice");
    }
    let status = cluster.nodes[1].get("/ready").await.0;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_another_prefix_are_another_cluster() {
    let server = Server::start().await;
    let ours = Nodes::start(2, &server.url(), "key_prefix = \"ours:\"").await;
    let theirs = Nodes::start(1, &server.url(), "key_prefix = \"theirs:\"").await;
    let mut peers = ours.peers(&["ann".to_owned(), "bob".to_owned()]).await;
    let _other_bob = Peer::connect(&theirs.nodes[0], "bob").await;
    let mut stranger = Peer::connect(&theirs.nodes[0], "stranger").await;
    assert_eq!(peers[0].ask("bob", 1).await, Outcome::Delivered);
    assert_eq!(stranger.ask("ann", 2).await, Outcome::Offline);
    assert_eq!(peers[1].delivery().await["payload"], 1);
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    let is_prefixed = |key: &String| key.starts_with("ours:") || key.starts_with("theirs:");
    assert!(keys.iter().all(is_prefixed), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_private_authority_and_a_user_with_a_password() {
    let user = User {
        name: "signalbox",
        password: "hush",
    };
    let server = Server::start_with(Options {
        user: Some(user),
        tls: true,
        ..Options::default()
    })
    .await;
    let ca = format!("ca_file = \"{}\"", server.ca_file().display());
    let cluster = Nodes::start(2, &server.url(), &ca).await;
    let talk = &mut Talk::start(&cluster, 2).await;
    talk.rounds_delivered(10).await;

    // Without the authority or with wrong credentials, a node logs why it is not ready, and never a password.
    for (url, redis) in [
        (server.url(), String::new()),
        (server.url().replace("hush", "wrong-hush"), ca),
    ] {
        let node = Logged::start(&[], &config("refused", &url, &redis)).await;
        let says_why = |line: &Value| {
            let line = line.to_string().to_lowercase();
            let words = ["certificate", "wrongpass", "noauth"];
            line.contains("not ready: ") && words.iter().any(|word| line.contains(word))
        };
        until("the node says why it is not ready", async || {
            let (status, reason) = node.get("/ready").await;
            assert_eq!(status, 503);
            let expected = "not ready: messages from other nodes do not arrive; the log says why\n";
            assert_eq!(reason, expected);
            (!node.lines(says_why).is_empty()).then_some(())
        })
        .await;
        assert!(
            node.lines(|line| line.to_string().contains("hush"))
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_rules_of_the_manual_are_enough() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/redis.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let rules = manual
        .lines()
        .find(|line| line.starts_with("user signalbox on >PASSWORD "))
        .expect("the rules");
    let server = Server::start_with(Options {
        settings: vec![rules.replace("PASSWORD", "hush")],
        ..Options::default()
    })
    .await;
    let url = server.url().replace("redis://", "redis://signalbox:hush@");
    let rule = "[[rooms]]\nmatch = \"kept\"\nhistory = { size = 2, time = \"1m\" }\n\
                [[rooms]]\nmatch = \"seen\"\npresence = true\nmembers_max = 2\n\
                [users]\nhistory = { size = 2, time = \"1m\" }\n";
    let api = "[api]\nkeys = [\"first-key-of-tests\"]\n";
    let receiver = Receiver::start().await;
    let events = [
        "connected",
        "room_occupied",
        "room_vacated",
        "member_joined",
        "member_left",
    ];
    let api = format!("{api}{}", receiver.webhook(&events, ""));
    let cluster = Nodes::start(2, &url, &format!("{rule}{api}")).await;
    let path = "/api/users/eve/disconnect";
    let block = cluster.nodes[0].post(path, "first-key-of-tests", &[], r#"{"block":"1h"}"#);
    let answer = block.await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut talk = Talk::start(&cluster, 2).await;
    talk.rounds_delivered(10).await;
    let mut peers = cluster.peers(&["ann".to_owned(), "bob".to_owned()]).await;
    for room in ["r", "kept"] {
        for peer in &mut peers {
            peer.join(room).await;
        }
        let message = json!({"type": "test", "payload": 1, "room": room});
        assert_eq!(peers[0].ask_json(message).await, Outcome::Delivered);
    }
    for peer in &mut peers {
        let join = json!({"type": "join", "room": "seen", "payload": {"presence": true}});
        assert_eq!(peer.ask_json(join).await, Outcome::Delivered);
    }
    while peers[0].delivery().await["type"] != "presence" {}
    for node in &cluster.nodes {
        let name = [("Idempotency-Key", "k")];
        let message = r#"{"type":"test","payload":2,"receiverId":"nobody"}"#;
        let sent = node.post("/api/messages", "first-key-of-tests", &name, message);
        let sent = sent.await;
        assert_eq!(sent.status, 200, "{}", sent.body);
    }
    receiver
        .until_event(|event| event["type"] == "member_joined")
        .await;
    talk.finish(0).await;
    // If a client answers the close, the node has all its time left for Redis.
    for (node, mut peer) in cluster.nodes.into_iter().zip(peers) {
        node.terminate();
        peer.until_closed().await;
        node.stopped().await;
    }
    let mut keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    keys.sort();
    // Events that the last node left to the next one.
    keys.retain(|key| !key.starts_with("signalbox:{webhooks}:"));
    let once = keys.remove(0);
    assert!(
        once.starts_with("once:api:") && once.ends_with(":k"),
        "{once}"
    );
    let of_users: Vec<String> = keys
        .extract_if(.., |key| key.starts_with("user_history:"))
        .collect();
    assert!(!of_users.is_empty());
    assert_eq!(
        keys,
        [
            "room_history:{kept}:head",
            "room_history:{kept}:log",
            "signalbox:revoked:until"
        ]
    );
    // A node sends no command that the ACL denies.
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]).await;
    assert!(log.is_empty(), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_without_redis_serves_and_heals_when_it_comes() {
    let mut server = Server::start().await;
    server.kill9();
    let node = Node::start(&config("early", &server.url(), "")).await;
    let (status, reason) = node.get("/ready").await;
    assert_eq!(status, 503);
    assert!(reason.contains("messages from other nodes"), "{reason}");
    let mut ann = Peer::connect(&node, "ann").await;
    let mut bob = Peer::connect(&node, "bob").await;
    assert_eq!(ann.ask("bob", 1).await, Outcome::Delivered);
    assert_eq!(bob.delivery().await["payload"], 1);
    assert_eq!(
        ann.ask("elsewhere", 2).await,
        Outcome::Retryable("unavailable".to_owned())
    );
    server.restart_empty().await;
    until_ready(&node).await;
    let late = Node::start(&config("late", &server.url(), "")).await;
    until_ready(&late).await;
    let mut cid = Peer::connect(&late, "cid").await;
    assert_eq!(cid.ask("bob", 3).await, Outcome::Delivered);
    assert_eq!(bob.delivery().await["payload"], 3);
    assert_eq!(ann.ask("cid", 4).await, Outcome::Delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_delivers_until_its_last_connection_is_gone_and_leaves_nothing() {
    let server = Server::start().await;
    let mut cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(ann.ask("bob", 1).await, Outcome::Delivered);
    assert_eq!(bob.delivery().await["payload"], 1);
    let going = cluster.nodes.remove(1);
    going.terminate();
    bob.until_closed().await;
    let mut again = Peer::connect(&cluster.nodes[0], "bob").await;
    assert_eq!(ann.ask("bob", 2).await, Outcome::Delivered);
    assert_eq!(again.delivery().await["payload"], 2);
    going.stopped().await;
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    assert_eq!(
        keys.iter().filter(|key| key.contains("n1")).count(),
        0,
        "{keys:?}"
    );
    let of_bob: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    assert!(of_bob.iter().all(|id| id.starts_with("n0-")), "{of_bob:?}");
}
