//! JSON that parsers interpret differently is refused on every way in, so that a plugin sees what the receiver sees.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::Node;

/// A chat plugin with a blocked word.
const REFUSES_SPAM: &str = r#"
[api]
keys = ["a-key-of-a-backend"]

[[plugins]]
name = "chat"
path = "chat.wasm"
events = ["chat_message", "chat.*"]
config = { blocked_words = ["spam"], blocked_words_action = "refuse" }
"#;

/// Payloads that nobody may send.
fn bad_payloads() -> Vec<String> {
    let number = "1".repeat(401);
    [
        r#""spam \ud83d""#,
        r#""spam \uD83D""#,
        r#""spam \uDE00\uD83D""#,
        r#"{"text":"spam","more":["\udc00"]}"#,
        r#"{"text":"spam","\ud83d":1}"#,
        r#""spam \\\ud83d""#,
        &format!(r#"{{"text":"spam","n":{number}}}"#),
        &format!(r#"{{"text":"spam","n":[-0.{number}e5]}}"#),
    ]
    .map(str::to_owned)
    .to_vec()
}

#[tokio::test]
async fn text_that_switches_a_validator_off_is_refused_in_text_and_in_binary_frames() {
    let node = Node::start(REFUSES_SPAM).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for payload in bad_payloads() {
        let frame =
            format!(r#"{{"type":"chat_message","payload":{payload},"receiverId":"bob","id":"7"}}"#);
        for message in [Message::text(frame.clone()), Message::binary(frame.clone())] {
            ann.send_raw(message).await;
            let error = ann.json().await;
            let (code, id) = (&error["payload"]["code"], &error["payload"]["id"]);
            assert_eq!(
                (code, id),
                (&json!("invalid_payload"), &json!("7")),
                "{frame}"
            );
        }
    }
    bob.expect_silence().await;
    // A complete surrogate pair is valid.
    ann.send(r#"{"type":"chat_message","payload":"hi \ud83d\ude00","receiverId":"bob"}"#)
        .await;
    assert_eq!(bob.json().await["payload"], "hi \u{1f600}");
}

#[tokio::test]
async fn bad_text_outside_of_the_payload_is_refused_too() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for frame in [
        r#"{"type":"\ud83d","receiverId":"ann"}"#,
        r#"{"type":"x","receiverId":"\ud83d"}"#,
        r#"{"type":"x","receiverId":"ann","id":"\ud83d"}"#,
        r#"{"type":"x","receiverId":"ann","whatever":{"a":"\ud83d"}}"#,
        r#"{"type":"x","receiverId":"ann","\ud83d":null}"#,
        r#"{"type":"x","receiverId":"ann","senderId":"\ud83d"}"#,
        r#"{"type":"heartbeat","payload":"\ud83d"}"#,
    ] {
        ann.send(frame).await;
        assert_eq!(ann.error_code().await, "invalid_payload", "{frame}");
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn backends_are_held_to_the_same_json() {
    let node = Node::start(REFUSES_SPAM).await;
    let mut bob = node.reachable("bob").await;
    for payload in bad_payloads() {
        for raw in [false, true] {
            let body = format!(
                r#"{{"type":"chat_message","payload":{payload},"receiverId":"bob","raw":{raw}}}"#
            );
            let answer = node
                .post("/api/messages", "a-key-of-a-backend", &[], &body)
                .await;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.error_code(), "invalid_payload", "{body}");
        }
    }
    bob.expect_silence().await;
}

#[tokio::test]
async fn an_old_client_may_send_any_id_and_room_and_a_v1_client_may_not() {
    let node = Node::start("").await;
    let mut old = node.client("old").await;
    let mut new = node.connect("new", Some("signalbox.v1")).await.unwrap();
    assert_eq!(new.json().await["type"], "welcome");
    let mut bob = node.client("bob").await;
    let long = format!("{:?}", "x".repeat(256));
    for odd in ["5", "-1.5e999", "true", "[1]", r#"{"a":"b"}"#, &long] {
        for field in ["id", "room", "ID", "Room"] {
            let frame = format!(r#"{{"type":"x","payload":1,"{field}":{odd},"receiverId":"bob"}}"#);
            old.send(&frame).await;
            let message = bob.json().await;
            assert_eq!(
                (&message["senderId"], message.get("room")),
                (&json!("old"), None),
                "{frame}"
            );
            new.send(&frame).await;
            let code = new.error_code().await;
            let expected = match (odd.starts_with('"'), field.len()) {
                (false, _) => "invalid_frame",
                (true, 2) => "invalid_id",
                (true, _) => "invalid_room",
            };
            assert_eq!(code, expected, "{frame}");
        }
    }
    old.send(r#"{"type":"x","payload":2,"room":"kitchen","receiverId":"bob"}"#)
        .await;
    assert_eq!(bob.json().await["payload"], 2);
    new.send(r#"{"type":"x","payload":2,"room":"kitchen","receiverId":"bob"}"#)
        .await;
    assert_eq!(new.error_code().await, "invalid_receiver");
    old.send(r#"{"type":"x","receiverId":5}"#).await;
    assert_eq!(old.error_code().await, "invalid_frame");
    old.expect_silence().await;
}

#[tokio::test]
async fn one_absurd_latency_does_not_spoil_the_mean() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for ms in ["20", "40.0", "0"] {
        ann.send(&format!(
            r#"{{"type":"latency_report","payload":{ms},"id":"l"}}"#
        ))
        .await;
        assert_eq!(ann.json().await["type"], "ack");
    }
    for absurd in [
        "1e308",
        "1e999",
        "60000.5",
        "123456789012345678901234567890",
        "-1",
        "-1e308",
        r#""5""#,
        r#""NaN""#,
        "null",
        "true",
        "[5]",
        r#"{"ms":5}"#,
    ] {
        ann.send(&format!(
            r#"{{"type":"latency_report","payload":{absurd}}}"#
        ))
        .await;
        assert_eq!(ann.error_code().await, "invalid_payload", "{absurd}");
    }
    assert_eq!(node.metric("wss_average_latency_ms ").await, Some(20.0));
}

#[tokio::test]
async fn messages_are_counted_that_are_to_be_delivered_or_handled_and_nothing_else() {
    let node = Node::start(REFUSES_SPAM).await;
    let mut ann = node.client("ann").await;
    for frame in [
        r#"{"type":"heartbeat","id":"1"}"#,
        r#"{"type":"latency_report","payload":5,"id":"1"}"#,
        r#"{"type":"join","room":"r","id":"1"}"#,
        r#"{"type":"leave","room":"r","id":"1"}"#,
        r#"{"type":"welcome","id":"1"}"#,
        "not a message",
    ] {
        ann.send(frame).await;
        ann.json().await;
    }
    assert_eq!(node.metric("wss_messages_total ").await, Some(0.0));
    for frame in [
        r#"{"type":"chat_message","payload":"hi","receiverId":"nobody","id":"1"}"#,
        r#"{"type":"chat_message","payload":"spam","receiverId":"nobody","id":"1"}"#,
        r#"{"type":"chat.me","payload":"waves","receiverId":"nobody","id":"1"}"#,
    ] {
        ann.send(frame).await;
        ann.json().await;
    }
    assert_eq!(node.metric("wss_messages_total ").await, Some(3.0));
}
