//! The additional frames of `signalbox.v1`, which clients without it do not get.

use std::collections::BTreeSet;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Node, WITH_CHAT},
    raw::{FIN, RawClient, TEXT, upgrade_head},
};

#[tokio::test]
async fn the_welcome_has_the_limits_for_v1_clients() {
    let node = Node::start(
        "[server]\nnode_id = \"n1\"\nping_interval = \"7s\"\n[limits]\nframe_bytes_max = \"2KiB\"\n\
         messages_per_second = 3\nmessages_burst = 4\nrooms_per_connection_max = 5",
    )
    .await;
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let (mut ann, answer) = node
            .upgrade(
                "/ws?userId=ann",
                &[("Sec-WebSocket-Protocol", "other, signalbox.v1")],
            )
            .await
            .unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "signalbox.v1");
        let mut welcome = ann.json().await;
        let payload = welcome["payload"].as_object_mut().unwrap();
        let node_id = payload.remove("nodeId").unwrap();
        assert!(node_id.as_str().unwrap().starts_with("n1-"), "{node_id}");
        let id = payload.remove("connectionId").unwrap();
        assert!(ids.insert(id.as_str().unwrap().to_owned()));
        assert_eq!(
            welcome,
            json!({"type": "welcome", "payload": {"userId": "ann", "heartbeatIntervalMs": 7000, "limits": {
                "frameBytesMax": 2048, "messagesPerSecond": 3, "messagesBurst": 4, "roomsMax": 5,
            }}})
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_welcome_is_the_first_frame_even_if_others_send_at_once() {
    let node = Node::start("[limits]\nmessages_per_second = 0").await;
    let (mut bob, stop) = (node.client("bob").await, CancellationToken::new());
    let stopped = stop.clone();
    let flood = tokio::spawn(async move {
        let mut delivered = 0;
        while !stopped.is_cancelled() {
            bob.send(r#"{"type":"x","receiverId":"ann","id":"i"}"#)
                .await;
            delivered += u32::from(bob.json().await["payload"]["status"] == "delivered");
        }
        delivered
    });
    for _ in 0..30 {
        let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
        assert_eq!(ann.json().await["type"], "welcome");
        assert_eq!(ann.json().await["type"], "x");
        ann.close().await;
    }
    stop.cancel();
    assert!(flood.await.unwrap() >= 30);
}

#[tokio::test]
async fn v1_clients_get_welcome_and_joined_frames() {
    let node = Node::start("").await;
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    let welcome = ann.json().await;
    assert_eq!(
        (&welcome["type"], &welcome["payload"]["userId"]),
        (&json!("welcome"), &json!("ann"))
    );
    ann.send(r#"{"type":"join","room":"r"}"#).await;
    assert_eq!(
        ann.json().await,
        json!({"type": "joined", "payload": {"room": "r"}})
    );
    let mut bob = node.client("bob").await;
    bob.send(r#"{"type":"join","room":"r","id":"j"}"#).await;
    assert_eq!(
        bob.json().await["type"],
        "ack",
        "without the subprotocol there is no `joined`"
    );
    bob.send(r#"{"type":"x","payload":1,"room":"r"}"#).await;
    for client in [&mut ann, &mut bob] {
        let message = client.json().await;
        assert_eq!(
            (
                &message["room"],
                &message["senderId"],
                &message["receiverID"]
            ),
            (&json!("r"), &json!("bob"), &json!(""))
        );
    }
    ann.send(r#"{"type":"leave","room":"r"}"#).await;
    assert_eq!(ann.json().await["type"], "left");
}

#[tokio::test]
async fn a_client_without_a_subprotocol_gets_nothing_that_it_did_not_ask_for() {
    let node = Node::start(WITH_CHAT).await;
    let mut ann = node.client("ann").await;
    for frame in [
        r#"{"type":"join","room":"r"}"#,
        r#"{"type":"join","room":"r"}"#,
        r#"{"type":"leave","room":"r"}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"latency_report","payload":12.5}"#,
        r#"{"type":"chat_message","payload":"hi","receiverId":"nobody"}"#,
    ] {
        ann.send(frame).await;
        ann.expect_silence().await;
    }
}

#[tokio::test]
async fn an_unknown_subprotocol_is_ignored() {
    let node = Node::start("").await;
    let head = upgrade_head("/ws?userId=ann") + "Sec-WebSocket-Protocol: soap, chat\r\n";
    let (mut ann, answer) = RawClient::open(&node, &head).await;
    assert!(!answer.contains("sec-websocket-protocol"), "{answer}");
    ann.send(FIN | TEXT, br#"{"type":"heartbeat","id":"1"}"#)
        .await;
    let (kind, payload) = ann.frame().await.unwrap().unwrap();
    assert_eq!(kind, TEXT);
    assert!(payload.starts_with(br#"{"type":"ack""#), "no welcome");
}
