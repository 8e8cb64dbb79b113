//! Messages that workers publish for clients are validated and converted to the protocol's format.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    harness::{Client, Node},
    process::{self, Signal},
    redis::{Server, until},
    redis_nodes::{Nodes, Outcome, Peer, config},
};

const MALFORMED: &str = "wss_redis_malformed_total ";

/// A node, the channel of its server, and a client.
async fn start(server: &Server) -> (Nodes, String, Client) {
    let cluster = Nodes::start(1, &server.url(), "").await;
    let bob = cluster.nodes[0].connect("bob", Some("signalbox.v1")).await;
    let mut bob = bob.expect("bob is accepted");
    // Once this frame arrives, others can reach him.
    assert_eq!(bob.json().await["type"], "welcome");
    let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
    (cluster, format!("server:{}", servers[0]), bob)
}

async fn publish(server: &Server, channel: &str, text: &str) {
    let listeners: u64 = server.command(&["PUBLISH", channel, text]).await;
    assert_eq!(listeners, 1, "{text}");
}

/// Checks that no other message arrived: the next one is the one published now.
async fn expect_nothing(server: &Server, channel: &str, bob: &mut Client) {
    publish(server, channel, r#"{"type":"last","receiverID":"bob"}"#).await;
    let next = bob.json().await;
    assert_eq!(next["type"], "last", "{next}");
}

async fn expect_malformed(node: &Node, count: usize) {
    node.until_metric(MALFORMED, |malformed| malformed == count as f64)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_fields_are_brought_into_one_spelling_and_the_payload_keeps_its_bytes() {
    let server = Server::start().await;
    let (_fleet, channel, mut bob) = start(&server).await;
    let expected = r#"{"type":"quiz_ready","payload":{ "b":1.50, "a":"\u00e4"},"receiverID":"bob","senderId":"quiz","timestamp":"2026-01-02T03:04:05Z"}"#;
    for text in [
        expected,
        r#"{"type":"quiz_ready","payload":{ "b":1.50, "a":"\u00e4"},"receiverId":"bob","senderID":"quiz","timestamp":"2026-01-02T03:04:05Z"}"#,
        r#"{"TIMESTAMP":"2026-01-02T03:04:05Z","SENDERID":"quiz","RECEIVERID":"bob","PAYLOAD":{ "b":1.50, "a":"\u00e4"},"TYPE":"quiz_ready"}"#,
        r#"{ "priority": 5, "receiverid": "bob", "type": "quiz_ready", "payload": { "b":1.50, "a":"\u00e4"}, "id": [7],
             "ſenderid": "quiz", "timestamp": "2026-01-02T03:04:05Z", "room": "ignored" }"#,
    ] {
        publish(&server, &channel, text).await;
        assert_eq!(bob.text().await, expected, "{text}");
    }
    publish(&server, &channel, r#"{"receiverID":"bob","type":"bare"}"#).await;
    let bare = bob.text().await;
    let start = r#"{"type":"bare","payload":null,"receiverID":"bob","senderId":"","timestamp":"2"#;
    assert!(
        bare.starts_with(start) && bare.ends_with(r#"Z"}"#),
        "{bare}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_published_message_is_counted_and_not_delivered() {
    let server = Server::start().await;
    let (cluster, channel, mut bob) = start(&server).await;
    let number = format!(
        r#"{{"type":"a","receiverID":"bob","payload":{}}}"#,
        "1".repeat(401)
    );
    let deep = format!(
        r#"{{"type":"a","receiverID":"bob","payload":{}{}}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    let long = format!(r#"{{"type":"a","receiverID":"{}"}}"#, "b".repeat(256));
    let malformed = [
        r#"{"receiverID":"bob","payload":"no type"}"#,
        r#"{"type":null,"receiverID":"bob"}"#,
        r#"{"type":5,"receiverID":"bob"}"#,
        r#"{"type":"two words","receiverID":"bob"}"#,
        r#"{"type":"ack","payload":{"id":"1","status":"delivered"},"receiverID":"bob"}"#,
        r#"{"type":"\u0061ck","receiverID":"bob"}"#,
        r#"{"type":"error","receiverID":"bob"}"#,
        r#"{"type":"welcome","receiverID":"bob"}"#,
        r#"{"type":"presence","receiverID":"bob"}"#,
        r#"{"type":"token_expiring","receiverID":"bob"}"#,
        r#"{"type":"a","reciever":"bob"}"#,
        r#"{"type":"a","receiverID":7}"#,
        r#"{"type":"a","receiverID":["bob"]}"#,
        r#"{"type":"a","receiverID":"bob","senderId":{"id":1}}"#,
        r#"{"type":"a","receiverID":"bob","timestamp":1700000000}"#,
        r#"["a",1,"bob"]"#,
        r#""a""#,
        "42",
        "null",
        r#"{"type":"a","receiverID":"bob"} and more"#,
        r#"{"type":"a","receiverID":"bob","payload":"\ud83d"}"#,
        r#"{"type":"a","receiverID":"bob","payload":{"\uDE00":1}}"#,
        r#"{"type":"a","receiverID":"bob","other":["\ud83d"]}"#,
        &number,
        &deep,
        &long,
    ];
    for text in malformed {
        publish(&server, &channel, text).await;
    }
    expect_malformed(&cluster.nodes[0], malformed.len()).await;
    expect_nothing(&server, &channel, &mut bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_is_validated_and_one_with_a_receiver_reaches_only_that_receiver() {
    let server = Server::start().await;
    let (cluster, channel, mut bob) = start(&server).await;
    let mut eve = cluster.nodes[0].reachable("eve").await;
    for malformed in [
        r#"{"payload":"no type"}"#,
        r#"{"type":"ack"}"#,
        r#"{"type":"a","payload":"\ud83d"}"#,
        "[]",
    ] {
        publish(&server, "broadcast", malformed).await;
    }
    expect_malformed(&cluster.nodes[0], 4).await;
    publish(
        &server,
        "broadcast",
        r#"{"type":"notice","senderID":"w","receiverId":"bob"}"#,
    )
    .await;
    let notice = bob.json().await;
    assert_eq!(
        (&notice["receiverID"], &notice["senderId"]),
        (&json!("bob"), &json!("w"))
    );
    publish(&server, "broadcast", r#"{"Type":"notice","Payload":1}"#).await;
    for client in [&mut bob, &mut eve] {
        let notice = client.json().await;
        assert_eq!(
            (&notice["type"], &notice["payload"], &notice["receiverID"]),
            (&json!("notice"), &json!(1), &json!(""))
        );
    }
    expect_nothing(&server, &channel, &mut bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_between_nodes_read_back_unchanged() {
    let server = Server::start().await;
    let cluster = Nodes::start(2, &server.url(), "").await;
    let mut ann = Peer::connect(&cluster.nodes[0], "ann").await;
    let mut bob = cluster.nodes[1]
        .connect("b%22ob", Some("signalbox.v1"))
        .await
        .unwrap();
    assert_eq!(bob.json().await["type"], "welcome");
    assert_eq!(ann.ask("b\"ob", 1).await, Outcome::Delivered);
    let text = bob.text().await;
    let start = r#"{"type":"m","payload":1,"receiverID":"b\"ob","senderId":"ann","timestamp":""#;
    let message: Value = serde_json::from_str(&text).unwrap();
    let start = start.replace(r#""m""#, &message["type"].to_string());
    assert!(text.starts_with(&start), "{text}");
    assert!(message["messageId"].is_string(), "{text}");
    for node in &cluster.nodes {
        assert_eq!(node.metric(MALFORMED).await, Some(0.0));
    }
}

/// The messages wait in its socket. It must not count its own pause as silence of Redis and drop the subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_delivers_messages_published_during_its_stop() {
    let server = Server::start().await;
    let node = process::Server::start(&config("stopped", &server.url(), "")).await;
    until("the node is ready", async || {
        (node.get("/ready").await.0 == 200).then_some(())
    })
    .await;
    let mut bob = node.client("bob").await;
    let servers = until("the route is written", async || {
        let servers: Vec<String> = server.command(&["SMEMBERS", "user_servers:bob"]).await;
        (!servers.is_empty()).then_some(servers)
    })
    .await;
    let channel = format!("server:{}", servers[0]);
    for n in 0..3 {
        node.signal(Signal::STOP);
        let text = json!({"type": "meanwhile", "receiverID": "bob", "payload": n}).to_string();
        publish(&server, &channel, &text).await;
        // Longer than the limit on silence.
        sleep(Duration::from_secs(4)).await;
        node.signal(Signal::CONT);
        assert_eq!(bob.json().await["payload"], n);
    }
    node.until_metric("wss_redis_subscriber_rebuilds_total ", |count| count == 0.0)
        .await;
}
