//! What clients and the server say to each other.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Node, WITH_CHAT};

#[tokio::test]
async fn a_client_of_websocket_app_gets_exactly_its_five_fields() {
    let node = Node::start(WITH_CHAT).await;
    let (mut u1, mut u2) = (node.client("u1").await, node.client("u2").await);
    u1.send(r#"{"type":"chat_message","payload":"hi","receiverId":"u2"}"#)
        .await;
    let text = u2.text().await;
    let start =
        r#"{"type":"chat_message","payload":"hi","receiverID":"u2","senderId":"u1","timestamp":""#;
    let timestamp = text
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(r#""}"#));
    let timestamp = timestamp.unwrap_or_else(|| panic!("{text}"));
    assert!(
        timestamp.ends_with('Z') && timestamp.contains('.') && timestamp.contains('T'),
        "{timestamp}"
    );
}

#[tokio::test]
async fn a_message_passes_the_chat_plugin() {
    let node = Node::start(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send(r#"{"type":"chat_message","payload":{"n":12345678901234567890,"text":"  hi  "},"receiverId":"bob"}"#).await;
    assert!(
        bob.text()
            .await
            .contains(r#""payload":{"n":12345678901234567890,"text":"hi"}"#)
    );
    ann.send(r#"{"type":"chat_message","payload":"  ","receiverId":"bob","id":"7"}"#)
        .await;
    let error = ann.json().await;
    assert_eq!(error["type"], "error");
    assert_eq!(
        (&error["payload"]["id"], &error["payload"]["code"]),
        (&json!("7"), &json!("blank"))
    );
    assert_eq!(error["payload"]["plugin"], "chat");
    ann.send(r#"{"type":"chat.me","payload":"waves","receiverId":"bob","id":"8"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    assert_eq!(
        bob.json().await["payload"],
        json!({"text": "* ann waves", "me": true})
    );
}

#[tokio::test]
async fn without_any_plugin_messages_are_routed() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send_raw(Message::binary(
        &br#"{"TYPE":"x","PAYLOAD":[1.50],"RECEIVERID":"bob"}"#[..],
    ))
    .await;
    assert!(
        bob.text()
            .await
            .starts_with(r#"{"type":"x","payload":[1.50],"receiverID":"bob""#)
    );
}

#[tokio::test]
async fn an_ack_says_what_became_of_the_message() {
    let node = Node::start(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send(r#"{"type":"chat_message","payload":1,"receiverId":"bob","id":"a"}"#)
        .await;
    let ack = ann.json().await;
    assert_eq!(
        (&ack["type"], &ack["payload"]["status"]),
        (&json!("ack"), &json!("delivered"))
    );
    assert_eq!(bob.json().await["messageId"], ack["payload"]["messageId"]);
    ann.send(r#"{"type":"chat_message","payload":1,"receiverId":"nobody","id":"b"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["status"], "offline");
    ann.send(r#"{"type":"heartbeat","id":"c"}"#).await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
}

#[tokio::test]
async fn a_bad_frame_gets_an_error_and_the_connection_stays() {
    let node = Node::start(WITH_CHAT).await;
    let mut ann = node.client("ann").await;
    for (frame, code) in [
        ("garbage", "invalid_frame"),
        (r#"{"payload":1}"#, "invalid_type"),
        (r#"{"type":"welcome"}"#, "reserved_type"),
        (r#"{"type":"x"}"#, "no_receiver"),
        (r#"{"type":"x","room":"r"}"#, "not_in_room"),
        (
            r#"{"type":"latency_report","payload":"fast"}"#,
            "invalid_payload",
        ),
    ] {
        ann.send(frame).await;
        assert_eq!(ann.json().await["payload"]["code"], code, "{frame}");
    }
    ann.send_raw(Message::binary(vec![0xff, 0xfe])).await;
    assert_eq!(ann.json().await["payload"]["code"], "invalid_frame");
    ann.send(r#"{"type":"heartbeat","id":"still"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
}

#[tokio::test]
async fn v1_clients_are_welcomed_and_told_of_rooms() {
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
async fn nobody_comes_in_without_saying_who_they_are() {
    let node = Node::start("").await;
    let mut request = String::from("/ws");
    for expected in ["missing userId", "missing userId"] {
        let (status, body) = upgrade(&node, &request).await;
        assert_eq!((status, body.trim()), (400, expected));
        request = "/ws?userId=".to_owned();
    }
}

/// Status and body of a refused upgrade.
async fn upgrade(node: &Node, path: &str) -> (u16, String) {
    let url = format!("ws://{}{path}", node.address);
    match tokio_tungstenite::connect_async(url).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            (
                answer.status().as_u16(),
                String::from_utf8_lossy(&body).into_owned(),
            )
        }
        other => panic!("the upgrade was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn probes_answer_and_closed_interfaces_are_closed() {
    let node = Node::start(WITH_CHAT).await;
    assert_eq!(node.get("/health").await.0, 200);
    assert_eq!(node.get("/ready").await.0, 200);
    assert_eq!(node.get("/api/messages").await.0, 401);
    assert_eq!(node.get("/admin/plugins").await.0, 401);
    assert!(
        node.get("/metrics")
            .await
            .1
            .contains("wss_active_connections 0")
    );
}

#[tokio::test]
async fn a_drain_turns_ready_red_and_closes_with_4000() {
    let node = Node::start("[server]\ndrain_timeout = \"2s\"").await;
    let mut clients = Vec::new();
    for index in 0..5 {
        clients.push(node.client(&format!("u{index}")).await);
    }
    node.terminate();
    for client in &mut clients {
        assert_eq!(client.closed().await, 4000);
    }
    node.stopped().await;
}

#[tokio::test]
async fn clean_closes_are_no_unexpected_disconnects_and_lost_connections_are() {
    let node = Node::start("").await;
    node.client("ann").await.close().await;
    node.until_metric("wss_active_connections ", |value| value == 0.0)
        .await;
    node.until_metric("wss_unexpected_disconnects_total ", |value| value == 0.0)
        .await;
    drop(node.client("bob").await);
    node.until_metric("wss_unexpected_disconnects_total ", |value| value == 1.0)
        .await;
}
