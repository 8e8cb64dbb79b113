//! Messages of backends to many receivers, and batches of messages.

use serde_json::{Value, json};

use crate::{
    api::{Answer, ask, node, two_nodes},
    harness::{Client, Node, WITH_CHAT},
    redis::{Server, until},
};

async fn post(node: &Node, message: &Value) -> Answer {
    ask(node, "POST", "/api/messages", &message.to_string()).await
}

async fn batch(node: &Node, messages: &[Value]) -> Answer {
    let body = json!({"messages": messages}).to_string();
    ask(node, "POST", "/api/batch", &body).await
}

/// The results of a call that succeeded.
fn results(answer: &Answer) -> &[Value] {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let results = answer.body["results"].as_array();
    results.unwrap_or_else(|| panic!("{}", answer.body))
}

/// The statuses and error codes of `results`.
fn outcomes(results: &[Value]) -> Vec<&str> {
    results.iter().map(outcome).collect()
}

fn outcome(result: &Value) -> &str {
    let status = result["status"].as_str();
    let code = result["error"]["code"].as_str();
    status.or(code).unwrap_or_else(|| panic!("{result}"))
}

async fn join(client: &mut Client, room: &str) {
    let join = json!({"type": "join", "room": room, "id": "join"});
    client.send(&join.to_string()).await;
    assert_eq!(client.json().await["payload"]["status"], "handled");
}

#[tokio::test]
async fn a_message_to_several_users_reaches_each_once_with_a_separate_id() {
    let node = node("").await;
    let (mut ann, mut bob) = (node.reachable("ann").await, node.reachable("bob").await);
    let users = ["bob", "nobody", "ann", "bob"];
    let answer = post(
        &node,
        &json!({"type": "x", "payload": 1, "receiverIds": users}),
    )
    .await;
    let results = results(&answer);
    let receivers: Vec<&Value> = results.iter().map(|it| &it["receiverId"]).collect();
    assert_eq!(receivers, ["bob", "nobody", "ann"]);
    assert_eq!(outcomes(results), ["delivered", "offline", "delivered"]);
    for (client, user, result) in [(&mut ann, "ann", 2), (&mut bob, "bob", 0)] {
        let got = client.json().await;
        assert_eq!(
            (&got["payload"], &got["receiverID"], &got["messageId"]),
            (&json!(1), &json!(user), &results[result]["messageId"])
        );
        client.expect_silence().await;
    }
    assert_ne!(results[0]["messageId"], results[2]["messageId"]);
    let one = post(&node, &json!({"type": "x", "receiverIds": ["ann"]})).await;
    assert_eq!(one.body["results"][0]["status"], "delivered", "also one");
}

#[tokio::test]
async fn a_message_to_several_rooms_reaches_the_members_of_each() {
    let node = node("[[rooms]]\nmatch = \"kept\"\nhistory = { size = 5, time = \"5m\" }\n").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, "r").await;
    join(&mut ann, "ü/%").await;
    join(&mut bob, "r").await;
    let rooms = ["ü/%", "r", "empty", "kept", "r"];
    let answer = post(&node, &json!({"type": "x", "payload": 1, "rooms": rooms})).await;
    let results = results(&answer);
    let named: Vec<&Value> = results.iter().map(|it| &it["room"]).collect();
    assert_eq!(named, rooms[..4]);
    assert_eq!(
        outcomes(results),
        ["delivered", "delivered", "offline", "kept"]
    );
    let mut got = [ann.json().await, ann.json().await];
    got.sort_by_key(|message| message["room"].to_string());
    assert_eq!(
        (&got[0]["room"], &got[1]["room"]),
        (&json!("r"), &json!("ü/%"))
    );
    ann.expect_silence().await;
    assert_eq!(bob.json().await["room"], "r");
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_message_goes_through_the_plugins_for_each_receiver() {
    let node = node(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.reachable("ann").await, node.reachable("bob").await);
    let message = |payload: &str, raw: bool| json!({"type": "chat_message", "payload": payload, "receiverIds": ["ann", "bob"], "raw": raw});
    post(&node, &message("  hi  ", false)).await;
    assert_eq!(ann.json().await["payload"], "hi");
    assert_eq!(bob.json().await["payload"], "hi");
    let refused = post(&node, &message("  ", false)).await;
    let results = results(&refused);
    assert_eq!(outcomes(results), ["blank", "blank"]);
    assert_eq!(results[0]["error"]["plugin"], "chat");
    let rejected = "wss_messages_rejected_total{code=\"plugin\"} ";
    assert_eq!(node.metric(rejected).await, Some(2.0));
    post(&node, &message("  ", true)).await;
    assert_eq!(ann.json().await["payload"], "  ");
}

#[tokio::test]
async fn lists_of_receivers_have_bounds_and_one_target_is_named() {
    let node = node("").await;
    let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let long = "ü".repeat(128);
    for (fields, code) in [
        (json!({"receiverIds": []}), "invalid_frame"),
        (json!({"receiverIds": names(1_001)}), "invalid_frame"),
        (json!({"receiverIds": "ann"}), "invalid_frame"),
        (json!({"receiverIds": [1]}), "invalid_frame"),
        (json!({"receiverIds": ["ann", null]}), "invalid_frame"),
        (json!({"receiverIds": ["ann", ""]}), "invalid_receiver"),
        (json!({"receiverIds": [&long]}), "invalid_receiver"),
        (json!({"rooms": []}), "invalid_frame"),
        (json!({"rooms": names(101)}), "invalid_frame"),
        (json!({"rooms": [&long]}), "invalid_room"),
        (
            json!({"rooms": ["r"], "receiverIds": ["ann"]}),
            "invalid_receiver",
        ),
        (json!({"rooms": ["r"], "room": "r"}), "invalid_receiver"),
        (
            json!({"receiverIds": ["a"], "everyone": true}),
            "invalid_receiver",
        ),
        (json!({"receivers": ["ann"]}), "invalid_frame"),
        (json!({"receiverIds": null}), "no_receiver"),
    ] {
        let mut message = json!({"type": "x"});
        let fields = fields.as_object().expect("fields").clone();
        message.as_object_mut().expect("a message").extend(fields);
        let answer = post(&node, &message).await;
        assert_eq!((answer.status, answer.error()), (400, code), "{message}");
    }
    let answer = post(&node, &json!({"type": "x", "receiverIds": names(1_000)})).await;
    assert_eq!(results(&answer).len(), 1_000);
}

#[tokio::test]
async fn a_list_of_receivers_does_not_count_against_the_size_of_the_message() {
    let node = node("[limits]\nframe_bytes_max = \"1KiB\"\n").await;
    let users: Vec<String> = (0..1_000).map(|n| format!("{n:0>255}")).collect();
    let message =
        |bytes: usize| json!({"type": "x", "payload": "x".repeat(bytes), "receiverIds": users});
    assert_eq!(post(&node, &message(1024)).await.status, 200);
    let large = post(&node, &message(1024 + 4096)).await;
    assert_eq!((large.status, large.error()), (413, "too_large"));
}

#[tokio::test]
async fn the_messages_of_a_batch_arrive_in_order_and_a_malformed_one_stops_no_other() {
    let node = node("").await;
    let mut ann = node.reachable("ann").await;
    let to_ann = |n: usize| json!({"type": "x", "payload": n, "receiverId": "ann"});
    let mut messages: Vec<Value> = (0..1_000).map(to_ann).collect();
    messages[10] = json!(5);
    messages[20] = json!({"type": "x", "reciever": "ann"});
    messages[30] = json!({"type": "welcome", "receiverId": "ann"});
    messages[40] = json!({"type": "x", "receiverId": "nobody"});
    messages[50] = json!({"type": "x", "payload": 50, "receiverIds": ["ann", "nobody"]});
    messages[60] = json!({"type": "x"});
    let answer = batch(&node, &messages).await;
    let results = results(&answer);
    assert_eq!(results.len(), 1_000);
    let expected = [
        (10, "invalid_frame"),
        (20, "invalid_frame"),
        (30, "reserved_type"),
        (40, "offline"),
        (60, "no_receiver"),
    ];
    for (place, outcome) in expected {
        assert_eq!(outcomes(&results[place..=place]), [outcome]);
    }
    let list = results[50]["results"].as_array().expect("a list");
    assert_eq!(outcomes(list), ["delivered", "offline"]);
    for (n, result) in results.iter().enumerate() {
        if expected.iter().any(|(place, _)| *place == n) {
            continue;
        }
        let got = ann.json().await;
        let id = result.get("messageId").unwrap_or(&list[0]["messageId"]);
        assert_eq!((&got["payload"], &got["messageId"]), (&json!(n), id));
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_message_that_breaks_the_rules_for_json_fails_alone() {
    let node = node("").await;
    let mut ann = node.reachable("ann").await;
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let body = format!(
        r#"{{"messages":[{{"type":"x","payload":"\ud83d","receiverId":"ann"}},{{"type":"x","payload":{deep},"receiverId":"ann"}},{deep},{{"type":"x","payload":1,"receiverId":"ann"}}]}}"#
    );
    let answer = ask(&node, "POST", "/api/batch", &body).await;
    let expected = ["invalid_payload", "too_deep", "too_deep", "delivered"];
    assert_eq!(outcomes(results(&answer)), expected);
    assert_eq!(ann.json().await["payload"], 1);
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_batch_that_is_no_batch_sends_nothing() {
    let node = node("").await;
    let mut ann = node.reachable("ann").await;
    let to_ann = json!({"type": "x", "receiverId": "ann"});
    let everywhere: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let to_many = json!({"type": "x", "receiverIds": everywhere});
    let mut too_many_receivers = vec![to_ann.clone()];
    too_many_receivers.extend(vec![to_many; 10]);
    for body in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        json!({"messages": []}).to_string(),
        json!({"messages": vec![&to_ann; 1_001]}).to_string(),
        json!({"messages": to_ann}).to_string(),
        json!({"messages": [to_ann], "more": 1}).to_string(),
        format!(r#"{{"messages":[{to_ann},]}}"#),
        format!(r#"{{"messages":[{to_ann}]"#),
        json!({"messages": too_many_receivers}).to_string(),
    ] {
        let answer = ask(&node, "POST", "/api/batch", &body).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_body"));
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_batch_may_be_larger_than_a_message_and_its_limit_is_live() {
    let limit = |kib: usize| format!("[limits]\nframe_bytes_max = \"{kib}KiB\"\n");
    let node = node(&limit(1)).await;
    let message =
        |bytes: usize| json!({"type": "x", "receiverId": "u", "payload": "x".repeat(bytes)});
    let answer = batch(&node, &[message(1024), message(1024 + 4096), message(1)]).await;
    let expected = ["offline", "too_large", "offline"];
    assert_eq!(outcomes(results(&answer)), expected);
    let large = vec![message(4096); 200];
    let answer = batch(&node, &large).await;
    assert_eq!((answer.status, answer.error()), (413, "too_large"));
    let keys = "[api]\nkeys = [\"first-key-of-tests\"]\n";
    node.replace("platform.toml", format!("{keys}{}", limit(64)).as_bytes());
    until("the batch is small enough", async || {
        (batch(&node, &large).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_batches_reach_receivers_on_all_nodes() {
    let mut server = Server::start().await;
    let (one, other) = two_nodes(&server, "").await;
    let (mut ann, mut bob) = (one.reachable("ann").await, other.reachable("bob").await);
    join(&mut bob, "r").await;
    let to_both = json!({"type": "x", "payload": 1, "receiverIds": ["ann", "bob", "eve"]});
    let answer = post(&one, &to_both).await;
    let expected = ["delivered", "delivered", "offline"];
    assert_eq!(outcomes(results(&answer)), expected);
    let to_rooms = json!({"type": "x", "payload": 2, "rooms": ["r", "other"]});
    let answer = batch(
        &one,
        &[
            to_rooms,
            json!({"type": "x", "payload": 3, "receiverId": "bob"}),
        ],
    )
    .await;
    assert_eq!(results(&answer)[1]["status"], "delivered");
    assert_eq!(ann.json().await["payload"], 1);
    for n in 1..=3 {
        assert_eq!(bob.json().await["payload"], n);
    }
    // A receiver that cannot be reached now fails alone.
    server.stop();
    let answer = post(&one, &json!({"type": "x", "receiverIds": ["eve", "ann"]})).await;
    let results = results(&answer);
    assert_eq!(outcomes(results), ["unavailable", "delivered"]);
    assert_eq!(results[0]["error"]["retryable"], true);
    server.cont();
}
