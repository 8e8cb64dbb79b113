//! The event types that clients may send.

use serde_json::json;

use crate::{
    guests::stamped,
    harness::{Client, Node, WITH_CHAT},
};

/// Types that only the platform sends.
const PLATFORM: [&str; 3] = ["quiz_ready", "notification", "roadmap_ready"];

const DEFAULTS: &str = "[events]\n[api]\nkeys = [\"a-key-of-a-backend\"]\n";

/// The code that `client` gets for a message of this type to bob.
async fn outcome(client: &mut Client, event_type: &str) -> String {
    let frame =
        json!({"type": event_type, "payload": {"text": "hi"}, "receiverId": "bob", "id": "1"});
    client.send(&frame.to_string()).await;
    let answer = client.json().await["payload"].take();
    let outcome = answer["status"].as_str().or(answer["code"].as_str());
    outcome.expect("a status or a code").to_owned()
}

#[tokio::test]
async fn a_client_cannot_forge_events_of_the_platform() {
    let node = Node::start(&format!("{WITH_CHAT}{DEFAULTS}")).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for forged in PLATFORM
        .iter()
        .chain(&["x", "chat_messages", "Chat_message", "chat.unknown"])
    {
        let frame = json!({"type": forged, "payload": 1, "receiverId": "bob", "id": "1"});
        ann.send(&frame.to_string()).await;
        let error = ann.json().await;
        assert_eq!(error["payload"]["code"], "forbidden_type", "{forged}");
        assert_eq!(error["payload"]["retryable"], false, "{forged}");
    }
    // Nor to a room, nor to the sender itself.
    ann.send(r#"{"type":"join","room":"r"}"#).await;
    bob.send(r#"{"type":"join","room":"r"}"#).await;
    ann.send(r#"{"type":"quiz_ready","room":"r"}"#).await;
    assert_eq!(ann.error_code().await, "forbidden_type");
    ann.send(r#"{"type":"quiz_ready","receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.error_code().await, "forbidden_type");
    ann.expect_silence().await;
    bob.expect_silence().await;
    assert_eq!(outcome(&mut ann, "chat_message").await, "delivered");
    assert_eq!(bob.json().await["type"], "chat_message");
    let rejected = "wss_messages_rejected_total{code=\"forbidden_type\"} ";
    assert_eq!(node.metric(rejected).await, Some(9.0));
}

#[tokio::test]
async fn backends_may_send_types_that_clients_may_not() {
    let node = Node::start(&format!("{WITH_CHAT}{DEFAULTS}")).await;
    let mut bob = node.reachable("bob").await;
    for event_type in PLATFORM {
        let body = json!({"type": event_type, "payload": 1, "receiverId": "bob"}).to_string();
        let answer = node
            .post("/api/messages", "a-key-of-a-backend", &[], &body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(bob.json().await["type"], event_type);
    }
}

#[tokio::test]
async fn a_type_that_a_plugin_handles_may_be_sent_and_one_that_it_only_sees_may_not() {
    let node = Node::start(&format!("{WITH_CHAT}{DEFAULTS}")).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    assert_eq!(outcome(&mut ann, "chat.me").await, "handled");
    assert_eq!(bob.json().await["payload"]["me"], true);
    // The plugin is configured for all of `chat.*`, and handles three of these types.
    assert_eq!(outcome(&mut ann, "chat.other").await, "forbidden_type");
}

#[tokio::test]
async fn no_plugin_is_asked_about_a_type_that_clients_may_not_send() {
    let stamps = format!(
        "{DEFAULTS}[[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n"
    );
    let node = Node::start_with(&[("stamp.wasm", stamped("1").as_slice())], &stamps).await;
    let calls = "wss_plugin_call_ms_count";
    let mut ann = node.client("ann").await;
    let counted = async || {
        let (_, text) = node.get("/metrics").await;
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(calls))
            .collect();
        lines.join("\n")
    };
    let before = counted().await;
    assert_eq!(outcome(&mut ann, "quiz_ready").await, "forbidden_type");
    assert_eq!(counted().await, before);
}

#[tokio::test]
async fn a_changed_list_holds_for_open_connections() {
    let node = Node::start(&format!(
        "{WITH_CHAT}[events]\nclient = [\"game.*\", \"note\"]\n"
    ))
    .await;
    let mut ann = node.client("ann").await;
    for (event_type, expected) in [
        ("game.move", "offline"),
        ("note", "offline"),
        ("gam", "forbidden_type"),
        ("notes", "forbidden_type"),
        ("chat_message", "forbidden_type"),
    ] {
        assert_eq!(
            outcome(&mut ann, event_type).await,
            expected,
            "{event_type}"
        );
    }
    let changed = format!("{WITH_CHAT}[events]\nclient = [\"chat_message\"]\n");
    node.replace("platform.toml", changed.as_bytes());
    while outcome(&mut ann, "note").await != "forbidden_type" {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&mut ann, "game.move").await, "forbidden_type");
    assert_eq!(outcome(&mut ann, "chat_message").await, "offline");
    node.replace(
        "platform.toml",
        format!("{WITH_CHAT}[events]\nclient = [\"*\"]\n").as_bytes(),
    );
    while outcome(&mut ann, "note").await != "offline" {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&mut ann, "welcome").await, "reserved_type");
}

#[tokio::test]
async fn a_type_of_a_plugin_that_is_missing_may_be_tried_again() {
    let node = Node::start(DEFAULTS).await;
    let mut ann = node.client("ann").await;
    assert_eq!(outcome(&mut ann, "game.move").await, "forbidden_type");
    let missing = format!(
        "{DEFAULTS}[[plugins]]\nname = \"game\"\npath = \"missing.wasm\"\nevents = [\"game.*\"]\n"
    );
    node.replace("platform.toml", missing.as_bytes());
    while outcome(&mut ann, "game.move").await != "plugin_failed" {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&mut ann, "other").await, "forbidden_type");
}

#[tokio::test]
async fn reserved_types_cannot_be_listed_for_clients() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for reserved in [
        "welcome",
        "ack",
        "error",
        "joined",
        "left",
        "presence",
        "token_expiring",
        "token",
        "signalbox.request",
        "signalbox.",
    ] {
        assert_eq!(
            outcome(&mut ann, reserved).await,
            "reserved_type",
            "{reserved}"
        );
    }
}
