//! Each limit is exceeded, and another connection keeps working.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::{Node, PATIENCE},
    raw::{BINARY, CONTINUATION, FIN, RawClient, TEXT, upgrade_head},
};

/// A frame of exactly this many bytes, with an `id`.
fn frame_of(bytes: usize) -> String {
    let frame = |text: &str| format!(r#"{{"type":"heartbeat","id":"1","payload":"{text}"}}"#);
    frame(&"x".repeat(bytes - frame("").len()))
}

#[tokio::test]
async fn a_frame_of_the_limit_is_served_and_one_byte_more_closes_with_1009() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let mut bob = node.client("bob").await;
    let (good, bad) = (frame_of(1024), frame_of(1025));
    for (good, bad) in [
        (Message::text(good.clone()), Message::text(bad.clone())),
        (Message::binary(good), Message::binary(bad)),
        // Binary frames are limited by size too.
        (
            Message::binary(vec![0xff; 1024]),
            Message::binary(vec![0xff; 1025]),
        ),
    ] {
        let mut ann = node.client("ann").await;
        ann.send_raw(good).await;
        assert!(["ack", "error"].contains(&ann.json().await["type"].as_str().unwrap()));
        ann.send_raw(bad).await;
        assert_eq!(ann.closed().await, 1009);
        bob.expect_silence().await;
    }
    node.until_metric("wss_closes_total{code=\"too_big\"} ", |closes| {
        closes == 3.0
    })
    .await;
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 3.0)
        .await;
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message_and_over_the_limit_closes_with_1009() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let (mut ann, mut bob) = (
        RawClient::connect(&node, "ann").await,
        node.client("bob").await,
    );
    for (kind, message) in [(TEXT, frame_of(900)), (BINARY, frame_of(1024))] {
        let (first, rest) = message.as_bytes().split_at(500);
        ann.send(kind, first).await;
        ann.send(CONTINUATION, &rest[..100]).await;
        ann.send(FIN | CONTINUATION, &rest[100..]).await;
        let (_, answer) = ann.frame().await.unwrap().unwrap();
        assert!(answer.starts_with(br#"{"type":"ack""#));
    }
    // Each fragment is below the limit.
    ann.send(TEXT, &[b'x'; 1000]).await;
    ann.send(FIN | CONTINUATION, &[b'x'; 25]).await;
    assert_eq!(ann.closed().await, 1009);
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_huge_frame_sees_1009_and_no_reset() {
    let node = Node::start("").await;
    for _ in 0..5 {
        let mut ann = RawClient::connect(&node, "ann").await;
        // More than the system's socket buffers hold, so the client is still sending when the server has read enough;
        // but no more than a busy server can read and discard within its time for a close.
        ann.send(FIN | BINARY, &vec![0; 12 << 20]).await;
        assert_eq!(ann.closed().await, 1009);
        ann.ended().await.expect("the connection is not reset");
    }
}

#[tokio::test]
async fn messages_before_an_oversized_frame_are_answered() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    // Both arrive in one read.
    let good = br#"{"type":"heartbeat","id":"first"}"#;
    let mut bytes = vec![0x81, 0x80 | good.len() as u8, 0, 0, 0, 0];
    bytes.extend(good);
    bytes.extend([0x82, 0x80 | 126, 0xff, 0xff, 0, 0, 0, 0]);
    ann.send_bytes(&bytes).await;
    let (kind, payload) = ann.frame().await.unwrap().unwrap();
    assert_eq!(kind, TEXT);
    assert!(String::from_utf8(payload).unwrap().contains("first"));
    assert_eq!(ann.closed().await, 1009);
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
        error["payload"]["code"], "rate_limited",
        "the third of two: {error}"
    );
    assert_eq!(
        (&error["payload"]["id"], &error["payload"]["retryable"]),
        (&json!("2"), &json!(true))
    );
    bob.expect_silence().await;
}

#[tokio::test]
async fn garbage_counts_as_messages_too() {
    let node = Node::start("[limits]\nmessages_per_second = 1\nmessages_burst = 1").await;
    for garbage in [Message::text("garbage"), Message::binary(vec![0xff])] {
        let mut ann = node.client("ann").await;
        ann.send_raw(garbage.clone()).await;
        assert_eq!(ann.error_code().await, "invalid_frame");
        for _ in 0..20 {
            ann.send_raw(garbage.clone()).await;
        }
        // On a slow machine some of them may be within the rate.
        let mut codes = Vec::new();
        for _ in 0..20 {
            codes.push(ann.error_code().await);
        }
        assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    }
}

#[tokio::test]
async fn connections_per_user_and_node_are_bounded() {
    let node = Node::start("[limits]\nconnections_per_user_max = 1\nconnections_max = 2").await;
    let mut ann = node.client("ann").await;
    let answer = node.refused("/ws?userId=ann", &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (429, "too_many_connections")
    );
    let bob = node.client("bob").await;
    let answer = node.refused("/ws?userId=cid", &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "node_full")
    );
    ann.expect_silence().await;
    bob.close().await;
    node.until_metric("wss_active_connections ", |value| value == 1.0)
        .await;
    node.client("cid").await.expect_silence().await;
    for reason in ["user_limit", "node_limit"] {
        let metric = format!("wss_upgrades_refused_total{{reason=\"{reason}\"}} ");
        assert_eq!(node.metric(&metric).await, Some(1.0));
    }
}

#[tokio::test]
async fn an_upgrade_that_does_not_come_to_its_end_takes_no_place() {
    let node = Node::start("[limits]\nconnections_max = 1\nconnections_per_user_max = 1").await;
    for _ in 0..20 {
        // It sends a request and does not wait for the response.
        let mut ann = node.tcp().await;
        let request = upgrade_head("/ws?userId=ann") + "\r\n";
        ann.write_all(request.as_bytes()).await.unwrap();
        drop(ann);
    }
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
    node.client("ann").await.expect_silence().await;
}

#[tokio::test]
async fn a_request_must_be_whole_in_time_and_takes_no_place_before() {
    let node = Node::start("[limits]\nupgrade_timeout = \"5s\"\nconnections_max = 1").await;
    let head = upgrade_head("/ws?userId=slow");
    let (mut nothing, mut half, mut drips) = (node.tcp().await, node.tcp().await, node.tcp().await);
    half.write_all(head.as_bytes()).await.unwrap();
    drips.write_all(head.as_bytes()).await.unwrap();
    drips.write_all(b"X-More: ").await.unwrap();
    let dripping = async {
        let mut answer = [0; 64];
        while drips.write_all(b"x").await.is_ok() {
            tokio::select! {
                _ = drips.read(&mut answer) => break,
                // So slowly that the time limit applies, not the limit on the header length.
                () = sleep(Duration::from_millis(5)) => {}
            }
        }
    };
    let mut ann = node.client("ann").await;
    ann.expect_silence().await;
    timeout(PATIENCE, dripping)
        .await
        .expect("a client that drips is disconnected");
    for stream in [&mut nothing, &mut half] {
        let mut answer = Vec::new();
        // The end, or a reset: in either case it is closed.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("a client that stops halfway is disconnected");
    }
    // Open connections stay open.
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_connection_is_in_a_bounded_number_of_rooms() {
    let node = Node::start("[limits]\nrooms_per_connection_max = 1").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let join = |room: &str| json!({"type": "join", "room": room, "id": "j"}).to_string();
    ann.send(&join("a")).await;
    assert_eq!(ann.json().await["type"], "ack");
    ann.send(&join("b")).await;
    assert_eq!(ann.error_code().await, "too_many_rooms");
    // Joining a room again takes no further slot.
    ann.send(&join("a")).await;
    assert_eq!(ann.json().await["type"], "ack");
    bob.send(&join("b")).await;
    assert_eq!(bob.json().await["type"], "ack");
    ann.send(r#"{"type":"leave","room":"a"}"#).await;
    ann.send(&join("b")).await;
    assert_eq!(ann.json().await["type"], "ack");
}

#[tokio::test]
async fn names_of_rooms_and_users_have_at_most_255_bytes() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    // The limit is in bytes, not characters.
    for longest in ["r".repeat(255), format!("{}r", "ä".repeat(127))] {
        let longer = format!("{longest}r");
        for (name, code) in [(&longest, None), (&longer, Some("invalid_room"))] {
            ann.send(&json!({"type": "join", "room": name, "id": "j"}).to_string())
                .await;
            match code {
                None => assert_eq!(ann.json().await["type"], "ack"),
                Some(code) => assert_eq!(ann.error_code().await, code),
            }
        }
        ann.send(&json!({"type": "x", "receiverId": longest, "id": "i"}).to_string())
            .await;
        assert_eq!(ann.json().await["payload"]["status"], "offline");
        ann.send(&json!({"type": "x", "receiverId": longer}).to_string())
            .await;
        assert_eq!(ann.error_code().await, "invalid_receiver");
    }
    ann.send(&json!({"type": "t".repeat(64), "receiverId": "ann"}).to_string())
        .await;
    assert_eq!(ann.json().await["type"], "t".repeat(64));
    ann.send(&json!({"type": "t".repeat(65), "receiverId": "ann"}).to_string())
        .await;
    assert_eq!(ann.error_code().await, "invalid_type");
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_4001_and_delays_no_other_client() {
    let node = Node::start("[limits]\noutbox_bytes_max = \"64KiB\"\nmessages_per_second = 0").await;
    let (mut slow, mut ann, mut bob) = (
        node.client("slow").await,
        node.client("ann").await,
        node.client("bob").await,
    );
    let flood =
        json!({"type": "x", "payload": "y".repeat(30_000), "receiverId": "slow", "id": "f"})
            .to_string();
    // Until the system's buffers and the outbox are full.
    loop {
        ann.send(&flood).await;
        let status = ann.json().await["payload"]["status"].clone();
        // A client that does not read does not delay messages to others.
        ann.send(r#"{"type":"x","payload":1,"receiverId":"bob"}"#)
            .await;
        assert_eq!(bob.json().await["payload"], 1);
        if status == "offline" {
            break;
        }
    }
    assert_eq!(slow.closed().await, 4001);
    node.until_metric(
        "wss_messages_dropped_total{reason=\"slow_consumer\"} ",
        |value| value >= 1.0,
    )
    .await;
    node.until_metric("wss_closes_total{code=\"slow_consumer\"} ", |closes| {
        closes == 1.0
    })
    .await;
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 1.0)
        .await;
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_slow_reader_that_never_reads_again_gives_its_place_back() {
    let node = Node::start(
        "[limits]\noutbox_bytes_max = \"64KiB\"\nmessages_per_second = 0\nconnections_per_user_max = 1",
    )
    .await;
    let mut ann = node.client("ann").await;
    let _slow = RawClient::connect(&node, "slow").await;
    ann.flood("slow").await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    node.client("slow").await.expect_silence().await;
}
