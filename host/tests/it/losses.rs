//! Every message that was delivered into an outbox is either written or counted as lost.

use serde_json::json;

use crate::{
    harness::Node,
    raw::{CLOSE, RawClient, TEXT},
};

/// Sends to `slow`, who does not read, until its outbox is full, and returns how many messages were delivered.
async fn fill(node: &Node) -> f64 {
    let mut ann = node.client("ann").await;
    let text = "y".repeat(30_000);
    let mut delivered = 0.0;
    loop {
        let message = json!({"type": "x", "payload": text, "receiverId": "slow", "id": "f"});
        ann.send(&message.to_string()).await;
        if ann.json().await["payload"]["status"] == "offline" {
            return delivered;
        }
        delivered += 1.0;
    }
}

async fn dropped(node: &Node, reason: &str) -> f64 {
    let metric = format!("wss_messages_dropped_total{{reason=\"{reason}\"}} ");
    node.metric(&metric).await.unwrap_or_default()
}

#[tokio::test]
async fn messages_thrown_away_with_the_outbox_of_a_slow_reader_are_counted_each_once() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"1MiB\"\nmessages_per_second = 0").await;
    let mut slow = RawClient::connect(&node, "slow").await;
    let delivered = fill(&node).await;
    let mut read = 0.0;
    loop {
        match slow.frame().await.unwrap().unwrap() {
            (TEXT, _) => read += 1.0,
            (CLOSE, payload) => {
                assert_eq!(payload[..2], 4001_u16.to_be_bytes());
                break;
            }
            _ => {}
        }
    }
    // The last message did not fit into the outbox, so it was lost too.
    let lost = delivered - read + 1.0;
    assert!(lost > 30.0, "the outbox held many: {lost}");
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    assert_eq!(dropped(&node, "slow_consumer").await, lost);
    for reason in ["connection_lost", "close_timeout", "closing"] {
        assert_eq!(dropped(&node, reason).await, 0.0, "{reason}");
    }
}

#[tokio::test]
async fn messages_that_wait_for_a_connection_that_is_lost_are_counted() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"64MiB\"\nmessages_per_second = 0").await;
    let slow = node.client("slow").await;
    let mut ann = node.client("ann").await;
    let text = "y".repeat(60_000);
    // More than the system's socket buffers hold.
    for id in 0..300 {
        let message =
            json!({"type": "x", "payload": text, "receiverId": "slow", "id": id.to_string()});
        ann.send(&message.to_string()).await;
        assert_eq!(ann.json().await["payload"]["status"], "delivered");
    }
    slow.stream().set_zero_linger().unwrap();
    drop(slow);
    node.until_metric(
        "wss_messages_dropped_total{reason=\"connection_lost\"} ",
        |lost| lost > 1.0,
    )
    .await;
    assert_eq!(dropped(&node, "slow_consumer").await, 0.0);
}

#[tokio::test]
async fn messages_that_a_closed_client_does_not_take_in_time_are_counted() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"64MiB\"\nmessages_per_second = 0").await;
    let mut slow = RawClient::connect(&node, "slow").await;
    let mut ann = node.client("ann").await;
    let text = "y".repeat(60_000);
    for id in 0..300 {
        let message =
            json!({"type": "x", "payload": text, "receiverId": "slow", "id": id.to_string()});
        ann.send(&message.to_string()).await;
        assert_eq!(ann.json().await["payload"]["status"], "delivered");
    }
    // It sends a close, and does not read what is queued before the answer.
    slow.send(0x80 | CLOSE, &1000_u16.to_be_bytes()).await;
    node.until_metric(
        "wss_messages_dropped_total{reason=\"close_timeout\"} ",
        |lost| lost > 1.0,
    )
    .await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    assert_eq!(dropped(&node, "connection_lost").await, 0.0);
}
