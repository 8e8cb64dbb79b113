//! Each limit is gone over, and another connection keeps working.

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::Node;

#[tokio::test]
async fn a_frame_over_the_limit_closes_with_1009() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send(&format!(
        r#"{{"type":"x","payload":"{}"}}"#,
        "x".repeat(1100)
    ))
    .await;
    assert_eq!(ann.closed().await, 1009);
    bob.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(bob.json().await["type"], "ack");
}

#[tokio::test]
async fn messages_over_the_rate_are_refused() {
    let node = Node::start("[limits]\nmessages_per_second = 1\nmessages_burst = 2").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for id in 0..3 {
        ann.send(&json!({"type": "heartbeat", "id": id.to_string()}).to_string())
            .await;
    }
    assert_eq!(ann.json().await["type"], "ack");
    assert_eq!(ann.json().await["type"], "ack");
    let error = ann.json().await;
    assert_eq!(
        (&error["payload"]["code"], &error["payload"]["retryable"]),
        (&json!("rate_limited"), &json!(true))
    );
    bob.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(bob.json().await["type"], "ack");
}

#[tokio::test]
async fn a_user_and_a_node_have_so_many_connections() {
    let node = Node::start("[limits]\nconnections_per_user_max = 1\nconnections_max = 2").await;
    let _ann = node.client("ann").await;
    assert_eq!(refused(node.connect("ann", None).await.err()), 429);
    let bob = node.client("bob").await;
    assert_eq!(refused(node.connect("cid", None).await.err()), 503);
    bob.close().await;
    node.until_metric("wss_active_connections ", |value| value == 1.0)
        .await;
    node.client("cid").await;
}

fn refused(error: Option<Error>) -> u16 {
    match error {
        Some(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("the upgrade was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_connection_is_in_so_many_rooms() {
    let node = Node::start("[limits]\nrooms_per_connection_max = 1").await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"join","room":"a","id":"1"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
    ann.send(r#"{"type":"join","room":"b","id":"2"}"#).await;
    assert_eq!(ann.json().await["payload"]["code"], "too_many_rooms");
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_4001_and_delays_nobody() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"64KiB\"\nmessages_per_second = 0").await;
    let (mut slow, mut ann, mut bob) = (
        node.client("slow").await,
        node.client("ann").await,
        node.client("bob").await,
    );
    assert!(slow.stream().nodelay().is_ok());
    let flood =
        json!({"type": "x", "payload": "y".repeat(30_000), "receiverId": "slow", "id": "f"})
            .to_string();
    // Until the buffers of the system and the outbox are full.
    loop {
        ann.send(&flood).await;
        if ann.json().await["payload"]["status"] == "offline" {
            break;
        }
    }
    ann.send(r#"{"type":"x","payload":1,"receiverId":"bob"}"#)
        .await;
    assert_eq!(bob.json().await["payload"], 1);
    assert_eq!(slow.closed().await, 4001);
    node.until_metric(
        "wss_messages_dropped_total{reason=\"slow_consumer\"} ",
        |value| value >= 1.0,
    )
    .await;
}
