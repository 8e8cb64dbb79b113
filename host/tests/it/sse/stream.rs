//! The stream of a connection, from its first event to its last.

use serde_json::json;

use super::{
    HISTORY,
    client::{EventClient, Part},
};
use crate::{
    admin::{WITH_KEY, admin},
    harness::Node,
    redis::until,
};

#[tokio::test]
async fn a_stream_begins_with_welcome_and_carries_the_same_frames_as_a_websocket() {
    let node = Node::start("").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    for (header, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("connection", "close"),
    ] {
        assert_eq!(ann.head.header(header), Some(value));
    }
    assert_eq!(ann.head.header("content-length"), None);
    assert_eq!(ann.welcome["userId"], "ann");
    assert_eq!(ann.welcome["limits"]["frameBytesMax"], 65_536);
    assert!(ann.key().len() == 32 && ann.key().bytes().all(|c| c.is_ascii_hexdigit()));
    let mut bob = node.reachable("bob").await;
    ann.send(r#"{"type":"x","payload":"to bob","receiverId":"bob","id":"1"}"#)
        .await;
    assert_eq!(bob.json().await["payload"], "to bob");
    let ack = ann.json().await;
    assert_eq!(
        (&ack["payload"]["id"], &ack["payload"]["status"]),
        (&json!("1"), &json!("delivered"))
    );
    bob.send(r#"{"type":"x","payload":"to ann","receiverId":"ann"}"#)
        .await;
    let message = ann.json().await;
    assert_eq!(
        (&message["payload"], &message["senderId"]),
        (&json!("to ann"), &json!("bob"))
    );
    ann.send(r#"{"type":"join","room":"r","id":"2"}"#).await;
    assert_eq!(ann.json().await["type"], "joined");
    assert_eq!(ann.json().await["payload"]["id"], "2");
    ann.send(r#"{"type":"x","payload":"to all","room":"r"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], "to all");
    assert_eq!(ann.last_id, None, "users have no history");
}

#[tokio::test]
async fn a_frame_with_line_breaks_arrives_whole_and_large_ones_too() {
    let node = Node::start("").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    ann.send("{\"type\":\"x\",\"payload\":{\n\"a\":\n1},\"receiverId\":\"ann\"}")
        .await;
    let frame = ann.text().await;
    assert!(frame.contains("{\n\"a\":\n1}"), "{frame}");
    let large = "x".repeat(60_000);
    for _ in 0..10 {
        ann.send(&json!({"type": "x", "payload": large, "receiverId": "ann"}).to_string())
            .await;
        assert_eq!(ann.json().await["payload"], large.as_str());
    }
}

#[tokio::test]
async fn a_proxy_may_speak_http_1_0() {
    let node = Node::start("").await;
    let mut ann = EventClient::open(&node, "GET /sse?userId=ann HTTP/1.0").await;
    assert_eq!(ann.head.header("transfer-encoding"), None);
    ann.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(ann.json().await["payload"]["id"], "1");
}

#[tokio::test]
async fn a_stream_without_messages_carries_comments_and_the_silence_of_its_client_does_not_end_it()
{
    let node = Node::start("[server]\nping_interval = \"10ms\"\nidle_timeout = \"50ms\"").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    // As many as come in several times the idle timeout, during which nothing is heard from the client.
    for _ in 0..30 {
        assert_eq!(ann.part().await, Part::Comment);
    }
    ann.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(ann.json().await["payload"]["id"], "1");
}

#[tokio::test]
async fn a_client_that_ends_its_request_has_left_properly() {
    let node = Node::start("").await;
    let ann = EventClient::connect(&node, "ann").await;
    let path = ann.path();
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    assert_eq!(node.metric("wss_sse_connections ").await, Some(1.0));
    let key = ann.key().to_owned();
    drop(ann);
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
    until("its box is gone", async || {
        (node.post(&path, &key, &[], "{}").await.status == 404).then_some(())
    })
    .await;
    assert_eq!(node.metric("wss_sse_connections ").await, Some(0.0));
    assert_eq!(
        node.metric("wss_unexpected_disconnects_total ").await,
        Some(0.0)
    );
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_is_closed_with_4001_and_delays_no_other_client() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"64KiB\"\nmessages_per_second = 0").await;
    let mut slow = EventClient::connect(&node, "slow").await;
    let mut ann = node.reachable("ann").await;
    ann.flood("slow").await;
    assert_eq!(slow.closed().await, 4001);
    node.until_metric("wss_closes_total{code=\"slow_consumer\"} ", |closes| {
        closes == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_although_its_outbox_has_room() {
    let node = Node::start(
        "[server]\nping_interval = \"1s\"\nidle_timeout = \"5s\"\n\
         [limits]\noutbox_bytes_max = \"64MiB\"\nmessages_per_second = 0",
    )
    .await;
    let _deaf = EventClient::connect(&node, "deaf").await;
    let mut ann = node.reachable("ann").await;
    // More than the system's socket buffers hold, and less than the outbox does.
    let message = json!({"type": "x", "payload": "y".repeat(60_000), "receiverId": "deaf"});
    for _ in 0..300 {
        ann.send(&message.to_string()).await;
    }
    ann.expect_silence().await;
    node.until_metric("wss_sse_connections ", |open| open == 0.0)
        .await;
    let full = node.metric("wss_closes_total{code=\"slow_consumer\"} ");
    assert_eq!(full.await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_a_stream_with_a_close_event() {
    let node = Node::start("").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    node.terminate();
    assert_eq!(ann.closed().await, 4000);
    node.stopped().await;
}

#[tokio::test]
async fn an_operator_sees_the_transport_of_a_connection_and_can_close_it() {
    let node = Node::start(WITH_KEY).await;
    let mut ann = EventClient::connect(&node, "ann").await;
    let _bob = node.reachable("bob").await;
    for (user, transport) in [("ann", "sse"), ("bob", "websocket")] {
        let path = format!("/admin/connections?user={user}");
        let found = until("the connection is listed", async || {
            let body = admin(&node, "GET", &path).await.body;
            (body["total"] == 1).then_some(body)
        })
        .await;
        assert_eq!(found["connections"][0]["transport"], transport, "{found}");
    }
    let path = format!("/admin/connections/{}", ann.id());
    assert_eq!(admin(&node, "DELETE", &path).await.status, 200);
    assert_eq!(ann.closed().await, 4501);
}

#[tokio::test]
async fn the_id_of_the_last_event_brings_the_messages_that_were_missed() {
    let node = Node::start(HISTORY).await;
    let mut ann = EventClient::connect(&node, "ann").await;
    let place = &ann.welcome["user"];
    let epoch = place["epoch"].as_str().expect("an epoch").to_owned();
    let id = |offset: u64| Some(format!("{epoch}:{offset}"));
    assert_eq!(ann.last_id, id(0), "`welcome` sets the place");
    let mut bob = node.reachable("bob").await;
    let send = async |bob: &mut crate::harness::Client, n: u64| {
        let frame = json!({"type": "x", "payload": n, "receiverId": "ann", "id": "1"});
        bob.send(&frame.to_string()).await;
        bob.json().await;
    };
    send(&mut bob, 1).await;
    assert_eq!(ann.json().await["offset"], 1);
    assert_eq!(ann.last_id, id(1));
    // A message to a room has no ID.
    ann.send(r#"{"type":"join","room":"r"}"#).await;
    ann.json().await;
    ann.send(r#"{"type":"x","payload":"r","room":"r"}"#).await;
    assert_eq!(ann.json().await["room"], "r");
    assert_eq!(ann.last_id, id(1));
    let last = ann.last_id.clone().expect("an ID");
    drop(ann);
    send(&mut bob, 2).await;
    send(&mut bob, 3).await;
    let mut ann = EventClient::resume(&node, "ann", &last).await;
    assert_eq!(ann.welcome["user"]["recovered"], true);
    assert_eq!(ann.welcome["user"]["count"], 2);
    for n in [2, 3] {
        let message = ann.json().await;
        assert_eq!(
            (&message["payload"], &message["offset"]),
            (&json!(n), &json!(n))
        );
        assert_eq!(ann.last_id, id(n));
    }
    // The header wins over the query, which an EventSource repeats, and an empty one does not count.
    let head = format!("GET /sse?userId=ann&since={epoch}:1 HTTP/1.1\r\nLast-Event-ID: {epoch}:2");
    let ann = EventClient::open(&node, &head).await;
    assert_eq!(ann.welcome["user"]["count"], 1);
    let head = format!("GET /sse?userId=ann&since={epoch}:1 HTTP/1.1\r\nLast-Event-ID: ");
    let ann = EventClient::open(&node, &head).await;
    assert_eq!(ann.welcome["user"]["count"], 2);
}
