//! Messages that are handled once although clients and backends repeat them.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    api::{self, WITH_HOSTILE, ask},
    harness::{Answer, Client, Endpoint, Node, WITH_CHAT},
    redis::until,
};

pub(crate) const KEY: &str = "first-key-of-tests";
const OTHER_KEY: &str = "second-key-of-tests";
pub(crate) const API: &str = "[api]\nkeys = [\"first-key-of-tests\", \"second-key-of-tests\"]\n";

/// A message to bob.
pub(crate) fn to_bob(id: &str, payload: Value) -> Value {
    json!({"type": "x", "payload": payload, "receiverId": "bob", "id": id, "once": true})
}

/// Sends `frame`, and returns the answer.
async fn answer(client: &mut Client, frame: &Value) -> Value {
    client.send(&frame.to_string()).await;
    let answer = client.json().await;
    assert_eq!(answer["payload"]["id"], frame["id"], "{answer}");
    answer
}

/// The same answer as a repetition.
pub(crate) fn repeated(mut answer: Value) -> Value {
    answer["payload"]["duplicate"] = json!(true);
    answer
}

async fn outcome(node: &Endpoint, outcome: &str) -> Option<f64> {
    let metric = format!("wss_once_total{{outcome=\"{outcome}\"}} ");
    node.metric(&metric).await
}

async fn v1(node: &Node, user: &str) -> Client {
    let mut client = node.connect(user, Some("signalbox.v1")).await.unwrap();
    assert_eq!(client.json().await["type"], "welcome");
    client
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_acts_no_more() {
    let node = Node::start("").await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    for mut ann in [v1(&node, "ann").await, node.client("eve").await] {
        let message = to_bob("1", json!({"n": 1}));
        let first = answer(&mut ann, &message).await;
        assert_eq!(first["payload"]["status"], "delivered", "{first}");
        assert_eq!(first["payload"].get("duplicate"), None);
        for _ in 0..2 {
            assert_eq!(answer(&mut ann, &message).await, repeated(first.clone()));
        }
        let delivered = bob.json().await;
        assert_eq!(delivered["messageId"], first["payload"]["messageId"]);
        bob.expect_silence().await;
        // Without `once`, the same `id` means nothing.
        let mut plain = message.clone();
        plain["once"] = json!(false);
        answer(&mut ann, &plain).await;
        assert_eq!(bob.json().await["payload"]["n"], 1);
    }
    assert_eq!(outcome(&node, "kept").await, Some(2.0));
    assert_eq!(outcome(&node, "repeated").await, Some(4.0));
}

#[tokio::test]
async fn a_repetition_after_a_reconnect_acts_no_more_and_other_users_have_their_own_ids() {
    let node = Node::start("").await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    let message = to_bob("1", json!(1));
    let mut ann = v1(&node, "ann").await;
    let first = answer(&mut ann, &message).await;
    ann.close().await;
    let mut ann = v1(&node, "ann").await;
    assert_eq!(answer(&mut ann, &message).await, repeated(first));
    let mut eve = v1(&node, "eve").await;
    let other = answer(&mut eve, &message).await;
    assert_eq!(other["payload"].get("duplicate"), None, "{other}");
    assert_eq!(bob.json().await["senderId"], "ann");
    assert_eq!(bob.json().await["senderId"], "eve");
    bob.expect_silence().await;
}

#[tokio::test]
async fn another_message_with_the_same_id_is_refused() {
    let node = Node::start("").await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    let mut ann = v1(&node, "ann").await;
    answer(&mut ann, &to_bob("1", json!(1))).await;
    let mut others = vec![to_bob("1", json!(2)); 3];
    others[1]["type"] = json!("y");
    others[2]["receiverId"] = json!("eve");
    for other in others {
        let refused = answer(&mut ann, &other).await;
        assert_eq!(refused["payload"]["code"], "once_mismatch", "{refused}");
        assert_eq!(refused["payload"]["retryable"], false);
    }
    assert_eq!(bob.json().await["payload"], 1);
    bob.expect_silence().await;
    assert_eq!(outcome(&node, "mismatch").await, Some(3.0));
}

#[tokio::test]
async fn an_error_that_cannot_be_helped_is_repeated_and_one_that_can_is_not() {
    let node = api::node(WITH_HOSTILE).await;
    let mut ann = v1(&node, "ann").await;
    let outside = json!({"type": "x", "room": "r", "id": "r", "once": true});
    let refused = answer(&mut ann, &outside).await;
    assert_eq!(refused["payload"]["code"], "not_in_room", "{refused}");
    assert_eq!(answer(&mut ann, &outside).await, repeated(refused));
    let fails = json!({"type": "hostile.panic", "id": "f", "once": true});
    for _ in 0..2 {
        let failed = answer(&mut ann, &fails).await;
        assert_eq!(failed["payload"]["code"], "plugin_failed", "{failed}");
        assert_eq!(failed["payload"].get("duplicate"), None);
    }
    assert_eq!(outcome(&node, "released").await, Some(2.0));
    // The same for backends.
    let fails = json!({"type": "hostile.panic"});
    for _ in 0..2 {
        let failed = post(&node, "/api/messages", KEY, "f", &fails).await;
        assert_eq!((failed.status, is_replayed(&failed)), (502, false));
    }
    assert_eq!(outcome(&node, "released").await, Some(4.0));
}

#[tokio::test]
async fn an_answer_is_forgotten_after_once_time() {
    let node = Node::start("[limits]\nonce_time = \"1s\"\n").await;
    let mut ann = v1(&node, "ann").await;
    let message = to_bob("1", json!(1));
    let first = answer(&mut ann, &message).await;
    assert_eq!(first["payload"]["status"], "offline");
    let later = until("the answer is forgotten", async || {
        let answer = answer(&mut ann, &message).await;
        (answer["payload"].get("duplicate").is_none()).then_some(answer)
    })
    .await;
    assert_ne!(later["payload"]["messageId"], first["payload"]["messageId"]);
}

#[tokio::test]
async fn a_wrong_once_is_an_error_for_v1_and_nothing_for_websocket_app() {
    let node = Node::start("").await;
    let (mut v1, mut old) = (v1(&node, "ann").await, node.client("ann").await);
    let without_id = json!({"type": "x", "receiverId": "ann", "payload": 1, "once": true});
    for once in [json!(1), json!("true"), json!([true]), json!({})] {
        let mut wrong = without_id.clone();
        wrong["once"] = once;
        for frame in [&wrong, &without_id] {
            v1.send(&frame.to_string()).await;
            assert_eq!(v1.error_code().await, "invalid_frame");
            old.send(&frame.to_string()).await;
            for client in [&mut v1, &mut old] {
                assert_eq!(client.json().await["payload"], 1);
            }
        }
    }
    for once in [json!(null), json!(false)] {
        let mut frame = without_id.clone();
        frame["once"] = once;
        v1.send(&frame.to_string()).await;
        assert_eq!(v1.json().await["payload"], 1);
    }
}

#[tokio::test]
async fn built_in_types_are_carried_out_each_time() {
    let node = Node::start("").await;
    let join = json!({"type": "join", "room": "r", "id": "1", "once": true});
    for _ in 0..2 {
        let mut ann = node.client("ann").await;
        let joined = answer(&mut ann, &join).await;
        assert_eq!(joined["payload"].get("duplicate"), None, "{joined}");
        ann.send(r#"{"type":"x","room":"r","payload":1}"#).await;
        assert_eq!(ann.json().await["payload"], 1);
        ann.close().await;
    }
    assert_eq!(outcome(&node, "kept").await, Some(0.0));
}

/// The answer to a call with this API key and this `Idempotency-Key`.
pub(crate) async fn post(
    node: &Endpoint,
    path: &str,
    key: &str,
    name: &str,
    body: &Value,
) -> Answer {
    let headers = [("Idempotency-Key", name)];
    node.post(path, key, &headers, &body.to_string()).await
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).expect("JSON")
}

fn is_replayed(answer: &Answer) -> bool {
    let replayed = answer.header("idempotent-replayed") == Some("true");
    assert_eq!(body(answer)["duplicate"] == json!(true), replayed);
    replayed
}

/// Checks that `again` is `first`, as a repetition.
fn assert_replayed(first: &Answer, again: &Answer) {
    assert!(!is_replayed(first) && is_replayed(again), "{again:?}");
    let mut expected = body(first);
    expected["duplicate"] = json!(true);
    assert_eq!((again.status, body(again)), (first.status, expected));
}

#[tokio::test]
async fn a_call_of_a_backend_with_the_same_idempotency_key_acts_once() {
    let node = Node::start(&format!("{API}{WITH_CHAT}")).await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    let path = "/api/messages";
    let message = json!({"type": "x", "payload": 1, "receiverId": "bob"});
    let first = post(&node, path, KEY, "k1", &message).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_replayed(&first, &post(&node, path, KEY, "k1", &message).await);
    assert_eq!(bob.json().await["payload"], 1);
    bob.expect_silence().await;
    // Another API key and another name are other calls.
    for (key, name) in [(OTHER_KEY, "k1"), (KEY, "k2")] {
        let other = post(&node, path, key, name, &message).await;
        assert!(!is_replayed(&other));
        assert_eq!(bob.json().await["payload"], 1);
    }
    let list = json!({"type": "x", "payload": 2, "receiverIds": ["bob", "eve"]});
    let first = post(&node, path, KEY, "k3", &list).await;
    assert_replayed(&first, &post(&node, path, KEY, "k3", &list).await);
    assert_eq!(bob.json().await["payload"], 2);
    // A refusal by a plugin is an answer, too.
    let blank = json!({"type": "chat_message", "payload": " ", "receiverId": "bob"});
    let first = post(&node, path, KEY, "k4", &blank).await;
    assert_eq!(first.status, 422);
    assert_replayed(&first, &post(&node, path, KEY, "k4", &blank).await);
    let other = post(&node, path, KEY, "k1", &blank).await;
    assert_eq!(
        (other.status, other.error_code().as_str()),
        (422, "once_mismatch")
    );
    // A malformed call has not acted, and gives its name free.
    let malformed = post(&node, path, KEY, "k5", &json!({"type": "a b"})).await;
    assert_eq!(malformed.status, 400);
    assert_eq!(post(&node, path, KEY, "k5", &message).await.status, 200);
    assert_eq!(bob.json().await["payload"], 1);
    for wrong in ["", &"x".repeat(256)] {
        let refused = post(&node, path, KEY, wrong, &message).await;
        assert_eq!(
            (refused.status, refused.error_code().as_str()),
            (400, "invalid_idempotency_key")
        );
    }
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_batch_with_the_same_idempotency_key_acts_once_as_a_whole() {
    let node = Node::start(API).await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    let message = |n: u64| json!({"type": "x", "payload": n, "receiverId": "bob"});
    let batch = json!({"messages": [message(1), {"type": "a b"}, message(2)]});
    let first = post(&node, "/api/batch", KEY, "k", &batch).await;
    let results = body(&first)["results"].as_array().map(Vec::len);
    assert_eq!((first.status, results), (200, Some(3)));
    assert_replayed(&first, &post(&node, "/api/batch", KEY, "k", &batch).await);
    for n in 1..=2 {
        assert_eq!(bob.json().await["payload"], n);
    }
    // A key belongs to one path.
    let other = post(&node, "/api/messages", KEY, "k", &message(3)).await;
    assert_eq!(other.error_code(), "once_mismatch");
    bob.expect_silence().await;
    // Without a key, everything acts.
    let plain = ask(&node, "POST", "/api/batch", &batch.to_string()).await;
    assert_eq!(plain.status, 200);
    assert_eq!(bob.json().await["payload"], 1);
}

#[tokio::test]
async fn a_backend_that_leaves_before_the_answer_can_repeat_its_call() {
    let node = Node::start(API).await;
    let mut bob = node.client("bob").await;
    bob.expect_silence().await;
    for round in 0..20 {
        let message = json!({"type": "x", "payload": round, "receiverId": "bob"});
        let (text, name) = (message.to_string(), round.to_string());
        let request = format!(
            "POST /api/messages HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: {name}\r\nContent-Length: {}\r\n\r\n{text}",
            node.address,
            text.len()
        );
        let mut stream = node.tcp().await;
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is sent");
        drop(stream);
        until("the call is answered", async || {
            let answer = post(&node, "/api/messages", KEY, &name, &message).await;
            (answer.status == 200).then_some(())
        })
        .await;
        assert_eq!(bob.json().await["payload"], round);
        bob.expect_silence().await;
    }
}
