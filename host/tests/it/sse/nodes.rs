//! Streams in a cluster: any node takes the frames, and a client that moves loses nothing.

use serde_json::json;

use super::{HISTORY, client::EventClient};
use crate::{
    harness::{Endpoint, Node},
    process::{self, Signal},
    redis::{Server, until},
    redis_nodes::{Nodes, config, until_ready},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_the_frames_of_a_stream() {
    let server = Server::start().await;
    let cluster = Nodes::start(3, &server.url(), "").await;
    let mut ann = EventClient::connect(&cluster.nodes[0], "ann").await;
    for (number, node) in cluster.nodes.iter().cycle().take(9).enumerate() {
        let frame = json!({"type": "x", "payload": {"n": number}, "receiverId": "ann"});
        assert_eq!(ann.post_to(node, &frame.to_string()).await.status, 202);
    }
    for number in 0..9 {
        assert_eq!(ann.json().await["payload"]["n"], number);
    }
    let (other, frame) = (&cluster.nodes[1], r#"{"type":"heartbeat","id":"1"}"#);
    let wrong = other.post(&ann.path(), &"0".repeat(32), &[], frame).await;
    assert_eq!(
        (wrong.status, wrong.error_code().as_str()),
        (401, "unauthorized")
    );
    let nonce = ann.id().split_once('-').expect("a nonce").0;
    for nobody in [&*format!("{nonce}-ffff"), "0123456789ab-1"] {
        let answer = other
            .post(&format!("/sse/{nobody}"), ann.key(), &[], frame)
            .await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "unknown_connection")
        );
    }
    // Line breaks and quotes survive the way.
    let frame = "{\"type\":\"heartbeat\",\n\"id\":\"\\\"1\\u0000\"}";
    assert_eq!(ann.post_to(other, frame).await.status, 202);
    assert_eq!(ann.json().await["payload"]["id"], "\"1\0");
    let big = "x".repeat(70_000);
    assert_eq!(ann.post_to(other, &big).await.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_the_connections_node_holds_wherever_a_frame_is_posted() {
    let server = Server::start().await;
    let start = async |name: &str, bytes: &str| {
        let config = config(name, &server.url(), "");
        let limits = format!("[limits]\nframe_bytes_max = \"{bytes}\"\n");
        let node = Node::start(&config.replace("[limits]\n", &limits)).await;
        until_ready(&node).await;
        node
    };
    let (small, large) = (start("a", "1KiB").await, start("b", "1MiB").await);
    let ann = EventClient::connect(&small, "ann").await;
    let answer = ann.post_to(&large, &"x".repeat(1025)).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (413, "too_big")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_for_a_node_that_was_killed_may_be_sent_again_and_its_client_recovers_elsewhere() {
    let server = Server::start().await;
    let start = async |name: &str| {
        let config = format!("{}{HISTORY}", config(name, &server.url(), ""));
        let node = process::Server::start(&config).await;
        until_ready(&node).await;
        node
    };
    let (mut doomed, other) = (start("a").await, start("b").await);
    let mut ann = EventClient::connect(&doomed, "ann").await;
    let mut bob = EventClient::connect(&other, "bob").await;
    let tell = async |bob: &mut EventClient, node: &Endpoint, n: u64| {
        let frame = json!({"type": "x", "payload": n, "receiverId": "ann", "id": "1"});
        until("the message is accepted", async || {
            assert_eq!(bob.post_to(node, &frame.to_string()).await.status, 202);
            (bob.json().await["type"] == "ack").then_some(())
        })
        .await;
    };
    tell(&mut bob, &other, 1).await;
    assert_eq!(ann.json().await["payload"], 1);
    // The other node has posted to it before.
    assert_eq!(ann.post_to(&other, "{}").await.status, 202);
    assert_eq!(ann.json().await["type"], "error");
    doomed.signal(Signal::KILL);
    doomed.ended().await;
    let answer = ann.post_to(&other, "{}").await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "no_answer")
    );
    assert!(answer.header("retry-after").is_some());
    tell(&mut bob, &other, 2).await;
    let last = ann.last_id.take().expect("an ID");
    let mut ann = EventClient::resume(&other, "ann", &last).await;
    assert_eq!(ann.welcome["user"]["recovered"], true);
    assert_eq!(ann.json().await["payload"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_asked_is_503() {
    let server = Server::start().await;
    let cluster = Nodes::start(1, &server.url(), "").await;
    for (name, lease) in [("old-0123456789ab", "7"), ("deaf-ba9876543210", "8")] {
        let () = server
            .command(&["SET", &format!("server_alive:{name}"), lease])
            .await;
        let () = server.command(&["SADD", "signalbox:nodes", name]).await;
    }
    for connection in ["0123456789ab-1", "ba9876543210-1"] {
        let path = format!("/sse/{connection}");
        let key = "0".repeat(32);
        let answer = cluster.nodes[0].post(&path, &key, &[], "{}").await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "no_answer"),
            "{connection}"
        );
    }
}

#[tokio::test]
async fn nodes_without_redis_know_only_their_own_streams() {
    let (one, two) = (Node::start("").await, Node::start("").await);
    let ann = EventClient::connect(&one, "ann").await;
    let answer = ann.post_to(&two, "{}").await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "unknown_connection")
    );
}
