//! The JSON that the backend API accepts, and its errors for other JSON.

use serde_json::{Value, json};

use crate::harness::{Answer, Node};

const KEY: &str = "a-key-of-a-backend";
const WITH_KEY: &str = "[api]\nkeys = [\"a-key-of-a-backend\"]\n";

const MESSAGES: &str = "/api/messages";
const DISCONNECT: &str = "/api/users/ann/disconnect";

/// Words that only Rust programmers would know.
const RUST: [&str; 12] = [
    "struct",
    "sequence",
    "u16",
    "u64",
    "i32",
    "f64",
    "Option",
    "unit",
    "expected a borrowed",
    "PostMessage",
    "Disconnect",
    "variant",
];

async fn post(node: &Node, path: &str, body: &str) -> Answer {
    node.post(path, KEY, &[("Content-Type", "application/json")], body)
        .await
}

fn message_of(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["error"]["message"]
        .as_str()
        .expect("a message")
        .to_owned()
}

#[tokio::test]
async fn a_body_is_an_object_and_an_array_is_not_taken_for_one() {
    let node = Node::start(WITH_KEY).await;
    for body in [
        r#"["chat_message",null,"ann"]"#,
        r#"["chat_message","hi","ann",null,false,"eve",true]"#,
        "[4000,\"bye\"]",
        "[]",
        "[[]]",
        "null",
        "5",
        "\"x\"",
        "true",
    ] {
        for (path, code) in [(MESSAGES, "invalid_frame"), (DISCONNECT, "invalid_body")] {
            let answer = post(&node, path, body).await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (400, code),
                "{path} {body}"
            );
            assert_eq!(
                message_of(&answer),
                "the body is not a JSON object",
                "{path} {body}"
            );
        }
    }
}

#[tokio::test]
async fn errors_name_fields_and_no_types_of_rust() {
    let node = Node::start(WITH_KEY).await;
    let long_name = format!(r#"{{"{}":1}}"#, "x".repeat(2000));
    for (path, body) in [
        (MESSAGES, r#"{"type":5}"#),
        (MESSAGES, r#"{"type":["a"]}"#),
        (MESSAGES, r#"{"type":"a","receiverId":5}"#),
        (MESSAGES, r#"{"type":"a","room":{"a":1}}"#),
        (MESSAGES, r#"{"type":"a","everyone":"yes"}"#),
        (MESSAGES, r#"{"type":"a","everyone":1}"#),
        (MESSAGES, r#"{"type":"a","raw":[]}"#),
        (MESSAGES, r#"{"type":"a","senderId":1.5}"#),
        (MESSAGES, r#"{"type":"a","recieverId":"u"}"#),
        (MESSAGES, r#"{"type":"a""#),
        (MESSAGES, r#"{"type":"a","type":"b","receiverId":"u"}"#),
        (MESSAGES, &long_name),
        (MESSAGES, ""),
        (DISCONNECT, r#"{"code":"4000"}"#),
        (DISCONNECT, r#"{"code":-1}"#),
        (DISCONNECT, r#"{"code":1e999}"#),
        (DISCONNECT, r#"{"code":99999999999999999999}"#),
        (DISCONNECT, r#"{"reason":5}"#),
        (DISCONNECT, r#"{"because":"x"}"#),
        (DISCONNECT, "{"),
    ] {
        let answer = post(&node, path, body).await;
        assert_eq!(answer.status, 400, "{body}");
        let message = message_of(&answer);
        let rust = RUST.iter().find(|word| message.contains(**word));
        assert_eq!(rust, None, "{body}: {message}");
        assert!(message.len() < 300, "{body}: {message}");
    }
}

#[tokio::test]
async fn null_is_as_good_as_a_field_that_is_left_out() {
    let node = Node::start(WITH_KEY).await;
    let mut ann = node.reachable("ann").await;
    let nulls = json!({
        "type": "news", "payload": null, "receiverId": "ann", "room": null, "everyone": null, "senderId": null, "raw": null
    });
    let answer = post(&node, MESSAGES, &nulls.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let message = ann.json().await;
    assert_eq!(
        (&message["payload"], &message["senderId"]),
        (&Value::Null, &json!(""))
    );
    let nobody = r#"{"type":"news","receiverId":null,"room":null,"everyone":null}"#;
    assert_eq!(
        post(&node, MESSAGES, nobody).await.error_code(),
        "no_receiver"
    );
    let answer = post(&node, DISCONNECT, r#"{"code":null,"reason":null}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(ann.closed().await, 4501);
}

#[tokio::test]
async fn a_field_stands_there_once() {
    let node = Node::start(WITH_KEY).await;
    for body in [
        r#"{"type":"a","receiverId":"u","receiverId":"eve"}"#,
        r#"{"type":"a","receiverId":"u","receiverID":"eve"}"#,
        r#"{"type":"a","receiverId":"u","receiver\u0049d":null}"#,
        r#"{"type":"a","everyone":true,"everyone":false}"#,
        r#"{"type":"a","payload":1,"payload":2,"receiverId":"u"}"#,
    ] {
        let answer = post(&node, MESSAGES, body).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "invalid_frame"),
            "{body}"
        );
        assert!(message_of(&answer).contains("twice"), "{}", answer.body);
    }
    let answer = post(&node, DISCONNECT, r#"{"code":4000,"code":4500}"#).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "invalid_body")
    );
}

#[tokio::test]
async fn a_body_that_is_declared_to_be_something_else_is_refused_and_the_default_of_curl_is_not() {
    let node = Node::start(WITH_KEY).await;
    let message = r#"{"type":"a","receiverId":"u"}"#;
    for (name, value, status) in [
        ("Content-Type", "application/json; charset=utf-8", 200),
        ("Content-Type", "application/x-www-form-urlencoded", 200),
        ("Content-Type", "text/plain", 200),
        ("Content-Type", "application/xml", 415),
        ("Content-Type", "multipart/form-data; boundary=x", 415),
        ("Content-Type", "application/json; charset=utf-16", 415),
        ("Content-Encoding", "gzip", 415),
        ("X-Other", "x", 200),
    ] {
        let answer = node.post(MESSAGES, KEY, &[(name, value)], message).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        if status == 415 {
            assert_eq!(answer.error_code(), "unsupported_media_type");
        }
    }
}
