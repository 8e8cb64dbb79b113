//! `websocket-app` servers and our nodes share one Redis.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};

use crate::{
    harness::PATIENCE,
    redis::{Cluster, Server, WebsocketApp, until},
    redis_nodes::{Nodes, Outcome, Peer},
};

const COMPAT: &str = "compat = \"websocket-app\"";

async fn next(receiver: &mut UnboundedReceiver<String>) -> Value {
    let text = timeout(PATIENCE, receiver.recv()).await;
    let text = text.expect("a message arrives").expect("the server lives");
    serde_json::from_str(&text).expect("a message is JSON")
}

async fn both_directions(cluster: &Nodes, other: &WebsocketApp) {
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    let mut old = other.connect("old").await;
    for n in 0..50 {
        assert_eq!(ann.ask("old", n).await, Outcome::Delivered);
        assert!(other.send("old", "bob", "chat_message", &json!(n)).await);
        assert_eq!(bob.ask("ann", n).await, Outcome::Delivered);
    }
    for n in 0..50 {
        let message = next(&mut old).await;
        assert_eq!(
            (&message["payload"], &message["senderId"]),
            (&json!(n), &json!("ann"))
        );
        let message = bob.delivery().await;
        assert_eq!(
            (&message["payload"], &message["senderId"]),
            (&json!(n), &json!("old"))
        );
        assert_eq!(ann.delivery().await["payload"], n);
    }
    // Disconnect on both sides.
    other.disconnect("old").await;
    bob.close().await;
    until("both are offline for each other", async || {
        let theirs = other.send("old", "bob", "chat_message", &json!(0)).await;
        (ann.ask("old", 100).await == Outcome::Offline && !theirs).then_some(())
    })
    .await;
    let mut old = other.connect("old").await;
    let mut bob = Peer::connect(&cluster.nodes[1], "bob").await;
    assert_eq!(ann.ask("old", 101).await, Outcome::Delivered);
    // Messages published while the old route was cached may still be in flight.
    until("the last message arrives", async || {
        (next(&mut old).await["payload"] == 101).then_some(())
    })
    .await;
    assert!(other.send("old", "bob", "chat_message", &json!(102)).await);
    until("the last message arrives", async || {
        (bob.delivery().await["payload"] == 102).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_both_kinds_of_server_reach_each_other() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), COMPAT).await;
    let other = WebsocketApp::start(&server.url()).await;
    both_directions(&cluster, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_both_kinds_of_server_reach_each_other_in_a_cluster_of_redis() {
    let redis_cluster = Cluster::start().await;
    let cluster = Nodes::start(2, &redis_cluster.urls(), COMPAT).await;
    let other = WebsocketApp::start(&redis_cluster.urls()).await;
    both_directions(&cluster, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_lease_stays_in_a_route_as_long_as_its_user_is_online() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), COMPAT).await;
    let other =
        WebsocketApp::start_refreshing_every(Duration::from_millis(100), &server.url()).await;
    let mut old = other.connect("old").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    // Longer than any cached answer of Redis is used.
    let online = format!("user_online:old:{}", other.id());
    for n in 0..3 {
        assert_eq!(ann.ask("old", n).await, Outcome::Delivered);
        assert_eq!(next(&mut old).await["payload"], n);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:old"]).await;
    assert_eq!(servers, [other.id()]);
    assert_eq!(
        cluster.nodes[0]
            .metric("wss_redis_routes_pruned_total ")
            .await,
        Some(0.0)
    );
    // The mark disappears with the server, as after a crash.
    drop(other);
    server.command::<()>(&["DEL", &online]).await;
    until("the dead server is removed", async || {
        ann.ask("old", 9).await;
        let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:old"]).await;
        servers.is_empty().then_some(())
    })
    .await;
    assert_eq!(ann.ask("old", 10).await, Outcome::Offline);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_online_mark_lives_as_long_as_the_last_connection() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), COMPAT).await;
    let first = Peer::connect(&cluster.nodes[0], "ann").await;
    let second = Peer::connect(&cluster.nodes[0], "ann").await;
    let marks = async || -> Vec<String> { server.command(&["KEYS", "user_online:ann:n0-*"]).await };
    let [mark] = &marks().await[..] else {
        panic!("one mark for one server");
    };
    let ttl: u64 = server.command(&["TTL", mark]).await;
    assert!((1..=60).contains(&ttl), "{ttl}");
    first.close().await;
    let mut bob = Peer::connect(&cluster.nodes[0], "bob").await;
    assert_eq!(bob.ask("ann", 1).await, Outcome::Delivered);
    assert_eq!(marks().await.len(), 1);
    second.close().await;
    until("the mark is gone", async || {
        marks().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_and_without_compat_reach_each_other() {
    let cluster = Cluster::start().await;
    let with = Nodes::start(1, &cluster.urls(), COMPAT).await;
    let without = Nodes::start(1, &cluster.urls(), "").await;
    let mut ann = Peer::connect(&with.nodes[0], "ann").await;
    let mut bob = Peer::connect(&without.nodes[0], "bob").await;
    for n in 0..20 {
        assert_eq!(ann.ask("bob", n).await, Outcome::Delivered);
        assert_eq!(bob.delivery().await["payload"], n);
        assert_eq!(bob.ask("ann", n).await, Outcome::Delivered);
        assert_eq!(ann.delivery().await["payload"], n);
    }
    assert!(
        bob.take_until_marker(&mut ann).await.is_empty(),
        "nothing comes both ways"
    );
}
