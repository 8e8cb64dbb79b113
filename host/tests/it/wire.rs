//! The wire protocol between clients and the server.

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
async fn an_ack_has_the_outcome_of_the_message() {
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

/// The payload, exactly as it appears in a delivered frame.
fn payload_of(frame: &str) -> &str {
    let start = frame.split_once(r#","payload":"#).expect("a payload").1;
    start
        .rsplit_once(r#","receiverID":"#)
        .expect("a receiver")
        .0
}

#[tokio::test]
async fn names_of_fields_match_in_any_case_in_text_and_in_binary_frames() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for frame in [
        r#"{"type":"x","payload":1,"receiverId":"bob","id":"i"}"#,
        r#"{"type":"x","payload":1,"receiverID":"bob","id":"i"}"#,
        r#"{"TYPE":"x","PAYLOAD":1,"RECEIVERID":"bob","ID":"i"}"#,
        r#"{"Type":"x","Payload":1,"ReceiverId":"bob","Id":"i"}"#,
        r#"{"tYpE":"x","pAyLoAd":1,"rEcEiVeRiD":"bob","iD":"i"}"#,
        r#"{"\u0074ype":"x","payload":1,"receiver\u0049d":"bob","id":"i"}"#,
    ] {
        for message in [Message::text(frame), Message::binary(frame)] {
            ann.send_raw(message).await;
            assert_eq!(
                ann.json().await["payload"]["status"],
                "delivered",
                "{frame}"
            );
            let message = bob.json().await;
            assert_eq!(
                (&message["type"], &message["payload"]),
                (&json!("x"), &json!(1)),
                "{frame}"
            );
        }
    }
}

#[tokio::test]
async fn sender_and_timestamp_are_always_set_by_the_server() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send(
        r#"{"senderId":"eve","SENDERID":"eve","timestamp":"1999-01-01T00:00:00Z","messageId":"m",
        "type":"x","payload":1,"receiverId":"bob","senderid":"eve","Timestamp":1}"#,
    )
    .await;
    let text = bob.text().await;
    assert!(text.contains(r#""senderId":"ann""#), "{text}");
    for forged in ["eve", "1999", "messageId"] {
        assert!(!text.contains(forged), "{text}");
    }
}

#[tokio::test]
async fn payloads_come_through_byte_for_byte() {
    let node = Node::start(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for payload in [
        "1.50",
        "-0.0",
        "1E400",
        "1.0e+5",
        "123456789012345678901234567890.12345678901234567890",
        r#"{ "b" : 1,	"a":[ 1 ,2 ],"b":2 , "":{ } }"#,
        "{\r\n \"lines\" : [ ]\n}",
        r#""\u00e4\/\ud83d\ude00\\ud83d""#,
        "\"ä\u{1f600}\u{2028}\u{fffd}\"",
        r#""},\"receiverID\":\"eve""#,
        "null",
    ] {
        // Neither with a plugin that ignores this type, nor with one that has nothing to change.
        for event_type in ["x", "chat_message"] {
            ann.send(&format!(
                r#"{{"type":"{event_type}","payload": {payload} ,"receiverId":"bob"}}"#
            ))
            .await;
            assert_eq!(payload_of(&bob.text().await), payload, "{event_type}");
        }
    }
    ann.send(r#"{"type":"x","receiverId":"bob"}"#).await;
    assert_eq!(payload_of(&bob.text().await), "null");
}

#[tokio::test]
async fn a_message_has_an_id_only_if_the_sender_asked_for_an_ack() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.send(r#"{"type":"x","receiverId":"bob"}"#).await;
    ann.send(r#"{"type":"x","receiverId":"bob","id":""}"#).await;
    ann.send(r#"{"type":"x","receiverId":"bob","id":"1"}"#)
        .await;
    assert!(bob.json().await.get("messageId").is_none());
    assert!(bob.json().await.get("messageId").is_none());
    let ack = ann.json().await;
    assert_eq!(ack["payload"]["id"], "1", "only the third asked for an ack");
    assert_eq!(bob.json().await["messageId"], ack["payload"]["messageId"]);
}

#[tokio::test]
async fn users_may_have_any_characters_in_their_names() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for (user, encoded) in [
        ("a b", "a%20b"),
        ("a\"\\/b", "a%22%5C/b"),
        ("\0\u{1}\n\t\u{7f}", "%00%01%0A%09%7F"),
        ("ä\u{1f600}\u{2028}", "%C3%A4%F0%9F%98%80%E2%80%A8"),
        ("user_servers:*", "user_servers:*"),
    ] {
        let mut bob = node.client(encoded).await;
        for receiver in [json!(user).to_string(), escaped(user)] {
            ann.send(&format!(r#"{{"type":"x","receiverId":{receiver}}}"#))
                .await;
            assert_eq!(bob.json().await["receiverID"], user);
        }
        bob.send(r#"{"type":"x","receiverId":"ann"}"#).await;
        assert_eq!(ann.json().await["senderId"], user);
    }
}

/// As a JSON string in which every character is escaped.
fn escaped(text: &str) -> String {
    let units: Vec<String> = text
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    format!("\"{}\"", units.concat())
}

#[tokio::test]
async fn an_id_has_at_most_64_characters() {
    let node = Node::start("").await;
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    assert_eq!(ann.json().await["type"], "welcome");
    for id in ["i".repeat(64), "ä\u{1f600}".repeat(32)] {
        ann.send(&json!({"type": "heartbeat", "id": id}).to_string())
            .await;
        assert_eq!(ann.json().await["payload"]["id"], id);
        let longer = format!("{id}i");
        ann.send(&json!({"type": "heartbeat", "id": longer}).to_string())
            .await;
        assert_eq!(ann.error_code().await, "invalid_id");
    }
}

#[tokio::test]
async fn json_is_nested_at_most_100_levels_deep_and_the_connection_stays() {
    let node = Node::start(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    // The message itself is the first level.
    for (payload, code) in [
        (format!("{}{}", "[".repeat(99), "]".repeat(99)), None),
        (
            format!("{}{}", "[".repeat(100), "]".repeat(100)),
            Some("too_deep"),
        ),
        (
            format!("{}1{}", r#"{"a":"#.repeat(99), "}".repeat(99)),
            None,
        ),
        (
            format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100)),
            Some("too_deep"),
        ),
        ("[".repeat(30_000), Some("too_deep")),
    ] {
        for event_type in ["x", "chat_message"] {
            ann.send(&format!(
                r#"{{"type":"{event_type}","payload":{payload},"receiverId":"bob"}}"#
            ))
            .await;
            match code {
                None => assert_eq!(payload_of(&bob.text().await), payload),
                Some(code) => assert_eq!(ann.error_code().await, code),
            }
        }
    }
}

#[tokio::test]
async fn built_in_types_of_the_server_are_reserved_and_latency_is_a_number_from_0() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for reserved in ["welcome", "ack", "error", "joined", "left"] {
        ann.send(&json!({"type": reserved, "receiverId": "ann"}).to_string())
            .await;
        assert_eq!(ann.error_code().await, "reserved_type");
    }
    for payload in ["-1", "\"1\"", "null", "[1]", "1e999", "true"] {
        ann.send(&format!(
            r#"{{"type":"latency_report","payload":{payload}}}"#
        ))
        .await;
        assert_eq!(ann.error_code().await, "invalid_payload", "{payload}");
    }
    ann.send(r#"{"type":"latency_report","payload":0.5,"id":"1"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
}
