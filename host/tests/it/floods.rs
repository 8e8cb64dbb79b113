//! Clients that send far more than they may, and clients that only appear to.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::Node,
    raw::{BINARY, CONTINUATION, FIN, PING, PONG, RawClient, TEXT},
};

/// A client frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The close code of a client that sends `start`, and then `frame` repeatedly.
async fn flood(node: &Node, start: &[u8], frame: &[u8]) -> u16 {
    let mut ann = RawClient::connect(node, "ann").await;
    ann.send_bytes(start).await;
    ann.closed_by_flood(frame.repeat(1 + 16_000 / frame.len()))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_any_kind_are_closed_with_4503_and_everybody_else_is_served() {
    // So low that any machine sends faster.
    let node = Node::start("[limits]\nmessages_per_second = 1\nmessages_burst = 1").await;
    let mut bob = node.client("bob").await;
    let large = format!(
        r#"{{"type":"x","payload":"{}","receiverId":"nobody"}}"#,
        "x".repeat(20_000)
    );
    let kinds: [(&str, Vec<u8>, Vec<u8>); 9] = [
        ("pings", vec![], frame(FIN | PING, b"")),
        ("large pings", vec![], frame(FIN | PING, &[b'x'; 125])),
        ("pongs", vec![], frame(FIN | PONG, b"")),
        (
            "empty fragments",
            frame(TEXT, b""),
            frame(CONTINUATION, b""),
        ),
        (
            "tiny fragments",
            frame(BINARY, b"x"),
            frame(CONTINUATION, b"x"),
        ),
        ("empty messages", vec![], frame(FIN | TEXT, b"")),
        ("garbage", vec![], frame(FIN | BINARY, &[0xff; 40])),
        (
            "small messages",
            vec![],
            frame(FIN | TEXT, br#"{"type":"heartbeat"}"#),
        ),
        (
            "large messages",
            vec![],
            frame(FIN | TEXT, large.as_bytes()),
        ),
    ];
    let count = kinds.len() as f64;
    for (kind, start, frame) in kinds {
        let code = flood(&node, &start, &frame).await;
        assert_eq!(code, 4503, "{kind}");
    }
    bob.send(r#"{"type":"heartbeat","id":"still"}"#).await;
    loop {
        let frame = bob.json().await;
        if frame["payload"]["id"] == "still" {
            break;
        }
    }
    node.until_metric("wss_closes_total{code=\"flood\"} ", |closes| {
        closes == count
    })
    .await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
}

#[tokio::test]
async fn a_large_message_in_fifty_fragments_and_a_burst_of_messages_are_no_flood() {
    let node = Node::start("").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    let message = json!({"type": "heartbeat", "id": "large", "payload": "x".repeat(60_000)});
    let message = message.to_string();
    for size in [message.len() / 49, 400] {
        for (index, piece) in message.as_bytes().chunks(size).enumerate() {
            ann.send(if index == 0 { TEXT } else { CONTINUATION }, piece)
                .await;
        }
        ann.send(FIN | CONTINUATION, b"").await;
        let (kind, answer) = ann.frame().await.unwrap().unwrap();
        assert_eq!(kind, TEXT);
        assert!(
            String::from_utf8(answer)
                .unwrap()
                .contains(r#""id":"large""#)
        );
    }
    let mut bob = node.client("bob").await;
    for id in 0..400 {
        bob.send(&json!({"type": "heartbeat", "id": id.to_string()}).to_string())
            .await;
    }
    for id in 0..400 {
        let ack = bob.json().await;
        assert_eq!(
            (&ack["type"], &ack["payload"]["id"]),
            (&json!("ack"), &json!(id.to_string()))
        );
    }
}

#[tokio::test]
async fn answers_of_the_server_to_its_own_pings_are_free() {
    let node =
        Node::start("[server]\nping_interval = \"10ms\"\n[limits]\ncontrol_frames_per_second = 1")
            .await;
    let mut ann = RawClient::connect(&node, "ann").await;
    // Far more than the burst.
    for _ in 0..50 {
        let (kind, payload) = ann.frame().await.unwrap().unwrap();
        assert_eq!(kind, PING);
        ann.send(FIN | PONG, &payload).await;
    }
}

#[tokio::test]
async fn a_connection_far_over_its_limit_gets_errors_without_an_id_and_is_closed() {
    let node = Node::start("[limits]\nmessages_per_second = 1\nmessages_burst = 1").await;
    let mut ann = node.client("ann").await;
    for id in 0..400 {
        let message = json!({"type": "heartbeat", "id": id.to_string()}).to_string();
        ann.send(&message).await;
    }
    let (mut named, mut nameless) = (0, 0);
    let code = loop {
        match ann.frame().await {
            Some(Ok(Message::Text(text))) => {
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                if frame["payload"]["code"] == "rate_limited" {
                    let has_id = frame["payload"].get("id").is_some();
                    *if has_id { &mut named } else { &mut nameless } += 1;
                }
            }
            Some(Ok(Message::Close(Some(close)))) => break u16::from(close.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4503);
    assert!(named > 0 && nameless > 0, "{named} and {nameless}");
}

#[tokio::test]
async fn names_of_rooms_are_bounded_by_their_bytes_too() {
    let node = Node::start("[limits]\nroom_name_bytes_max = 300").await;
    let mut ann = node.client("ann").await;
    let join = |room: &str| json!({"type": "join", "room": room, "id": "j"}).to_string();
    let (long, short) = ("l".repeat(200), "s".repeat(100));
    ann.send(&join(&long)).await;
    assert_eq!(ann.json().await["type"], "ack");
    ann.send(&join(&"x".repeat(101))).await;
    assert_eq!(ann.error_code().await, "too_many_rooms");
    for room in [&short, &short, &long] {
        ann.send(&join(room)).await;
        assert_eq!(
            ann.json().await["type"],
            "ack",
            "it fits, or it is joined already"
        );
    }
    ann.send(&json!({"type": "leave", "room": long}).to_string())
        .await;
    ann.send(&join(&"y".repeat(200))).await;
    assert_eq!(ann.json().await["type"], "ack");
}
