//! Histories of users on one node: numbers, recovery at the upgrade, and the answers to bad input.

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Node},
};
use serde_json::{Value, json};

const KEY: &str = "0123456789abcdef0123456789abcdef";

const HISTORY: &str = "[users]\nhistory = { size = 5, time = \"5m\" }\n";

const OTHERS: &str = "[limits]\nmessages_per_second = 0\nhistory_replay_max = 300\n\
                      [api]\nkeys = [\"0123456789abcdef0123456789abcdef\"]\n";

const V1: [(&str, &str); 1] = [("Sec-WebSocket-Protocol", "signalbox.v1")];

fn config(history: &str) -> String {
    format!("{history}{OTHERS}")
}

/// A client of `signalbox.v1` that connects with `query`, and the payload of its `welcome`.
async fn connect_with(node: &Node, user: &str, query: &str) -> (Client, Value) {
    let path = format!("/ws?userId={user}{query}");
    let (mut client, _) = node.upgrade(&path, &V1).await.expect("it is let in");
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (client, welcome["payload"].clone())
}

/// The place of a new client in the history of `user`.
async fn connect(node: &Node, user: &str) -> (Client, Value) {
    let (client, welcome) = connect_with(node, user, "").await;
    (client, welcome["user"].clone())
}

/// A client that missed the messages after `place`, and its new place.
async fn recover(node: &Node, user: &str, place: &Value) -> (Client, Value) {
    let (client, welcome) = connect_with(node, user, &since(place)).await;
    (client, welcome["user"].clone())
}

fn since(place: &Value) -> String {
    let epoch = place["epoch"].as_str().expect("an epoch");
    format!("&since={epoch}:{}", place["offset"])
}

/// Sends `payload` to `user` through the API, and returns the status.
async fn tell(node: &Node, user: &str, payload: u64) -> String {
    let message = json!({"type": "news", "receiverId": user, "payload": payload});
    let answer = node
        .post("/api/messages", KEY, &[], &message.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
    answer["status"].as_str().expect("a status").to_owned()
}

/// The payload and the offset of the next message.
async fn next(client: &mut Client) -> (u64, u64) {
    let message = client.json().await;
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{message}"));
    (number(&message["payload"]), number(&message["offset"]))
}

/// Waits until the node knows that nobody is connected.
async fn until_nobody(node: &Node) {
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
}

#[tokio::test]
async fn a_message_while_the_user_is_offline_is_kept_and_recovered() {
    let node = Node::start(&config(HISTORY)).await;
    let (bob, place) = connect(&node, "bob").await;
    assert_eq!(place["offset"], 0);
    assert_eq!(place.get("recovered"), None);
    bob.close().await;
    until_nobody(&node).await;
    for number in 1..=3 {
        assert_eq!(tell(&node, "bob", number).await, "kept");
    }
    let (mut bob, recovered) = recover(&node, "bob", &place).await;
    let epoch = &place["epoch"];
    assert_eq!(
        recovered,
        json!({"epoch": epoch, "offset": 3, "recovered": true, "count": 3})
    );
    assert_eq!(tell(&node, "bob", 4).await, "delivered");
    for number in 1..=4 {
        assert_eq!(next(&mut bob).await, (number, number));
    }
    bob.expect_silence().await;
    // Nothing is missing now, and without `since` nothing old comes.
    let (mut other, recovered) = recover(&node, "bob", &json!({"epoch": epoch, "offset": 4})).await;
    assert_eq!(
        (&recovered["recovered"], &recovered["count"]),
        (&json!(true), &json!(0))
    );
    other.expect_silence().await;
    let (mut other, place) = connect(&node, "bob").await;
    assert_eq!(place, json!({"epoch": epoch, "offset": 4}));
    other.expect_silence().await;
}

#[tokio::test]
async fn messages_of_clients_plugins_and_lists_of_the_api_are_in_one_history() {
    let follower = format!(
        "[[plugins]]\nname = \"follower\"\npath = \"follower.wasm\"\nevents = [\"follower.*\"]\n{PATIENT}config = {{}}\n"
    );
    let files: [(&str, &[u8]); 1] = [("follower.wasm", &component("follower"))];
    let node = Node::start_with(&files, &format!("{}{follower}", config(HISTORY))).await;
    let (mut ann, _) = connect(&node, "ann").await;
    let (mut bob, place) = connect(&node, "bob").await;
    let message = json!({"type": "x", "payload": 1, "receiverId": "bob", "id": "m"});
    ann.send(&message.to_string()).await;
    assert_eq!(ann.json().await["payload"]["status"], "delivered");
    let to_bob = json!({"type": "y", "to": {"user": "bob"}, "payload": 2});
    let steps = json!([{"send": to_bob}, {"announce": to_bob}]);
    let message = json!({"type": "follower.do", "payload": steps, "id": "do"});
    ann.send(&message.to_string()).await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    let list = json!({"type": "z", "receiverIds": ["bob", "cid"], "payload": 4});
    let answer = node
        .post("/api/messages", KEY, &[], &list.to_string())
        .await;
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let statuses = [0, 1].map(|n| answer["results"][n]["status"].clone());
    assert_eq!(statuses, ["delivered", "kept"], "{answer}");
    let expected = [(1, 1), (2, 2), (2, 3), (4, 4)];
    for message in expected {
        assert_eq!(next(&mut bob).await, message);
    }
    let (mut again, _) = recover(&node, "bob", &place).await;
    for message in expected {
        assert_eq!(next(&mut again).await, message);
    }
    // A message to everybody is in no history.
    let all = json!({"type": "all", "everyone": true, "payload": 5});
    node.post("/api/messages", KEY, &[], &all.to_string()).await;
    for client in [&mut bob, &mut again] {
        let message = client.json().await;
        assert_eq!(
            (&message["type"], message.get("offset")),
            (&json!("all"), None)
        );
    }
}

#[tokio::test]
async fn several_devices_recover_independently() {
    let node = Node::start(&config(HISTORY)).await;
    let (mut first, start) = connect(&node, "bob").await;
    for number in 1..=2 {
        tell(&node, "bob", number).await;
    }
    let later = json!({"epoch": start["epoch"], "offset": 1});
    let (mut second, place) = recover(&node, "bob", &start).await;
    assert_eq!(place["count"], 2);
    let (mut third, place) = recover(&node, "bob", &later).await;
    assert_eq!(place["count"], 1);
    tell(&node, "bob", 3).await;
    for (device, from) in [(&mut first, 1), (&mut second, 1), (&mut third, 2)] {
        for number in from..=3 {
            assert_eq!(next(device).await, (number, number));
        }
        device.expect_silence().await;
    }
}

#[tokio::test]
async fn recovery_is_never_partial() {
    let node = Node::start(&config(HISTORY)).await;
    let (bob, place) = connect(&node, "bob").await;
    bob.close().await;
    // One more than are kept.
    for number in 1..=6 {
        tell(&node, "bob", number).await;
    }
    let epoch = &place["epoch"];
    for (since, reason) in [
        (&place, "expired"),
        (&json!({"epoch": epoch, "offset": 7}), "epoch"),
        (&json!({"epoch": "other", "offset": 3}), "epoch"),
    ] {
        let (mut bob, answer) = recover(&node, "bob", since).await;
        assert_eq!(
            answer,
            json!({"epoch": epoch, "offset": 6, "recovered": false, "reason": reason})
        );
        bob.expect_silence().await;
    }
    let results = |result: &str| format!("wss_history_recoveries_total{{result=\"{result}\"}} ");
    assert_eq!(node.metric(&results("expired")).await, Some(1.0));
    assert_eq!(node.metric(&results("epoch")).await, Some(2.0));
    assert_eq!(node.metric("wss_history_appended_total ").await, Some(6.0));
}

#[tokio::test]
async fn more_missed_messages_than_the_limit_are_too_many() {
    let history = "[users]\nhistory = { size = 1000, time = \"5m\" }\n";
    let others = OTHERS.replace("300", "3");
    let node = Node::start(&format!("{history}{others}")).await;
    let (bob, place) = connect(&node, "bob").await;
    bob.close().await;
    for number in 1..=4 {
        tell(&node, "bob", number).await;
    }
    let (mut bob, answer) = recover(&node, "bob", &place).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"]),
        (&json!(false), &json!("too_many"))
    );
    bob.expect_silence().await;
    let (mut bob, answer) =
        recover(&node, "bob", &json!({"epoch": place["epoch"], "offset": 1})).await;
    assert_eq!(answer["count"], 3);
    for number in 2..=4 {
        assert_eq!(next(&mut bob).await, (number, number));
    }
}

#[tokio::test]
async fn a_restarted_node_has_another_epoch() {
    let node = Node::start(&config(HISTORY)).await;
    let (_bob, place) = connect(&node, "bob").await;
    tell(&node, "bob", 1).await;
    let restarted = Node::start(&config(HISTORY)).await;
    let (mut bob, answer) = recover(&restarted, "bob", &place).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"], &answer["offset"]),
        (&json!(false), &json!("epoch"), &json!(0))
    );
    assert_ne!(answer["epoch"], place["epoch"]);
    tell(&restarted, "bob", 2).await;
    assert_eq!(next(&mut bob).await, (2, 1));
}

#[tokio::test]
async fn a_client_without_the_subprotocol_sees_no_number_and_its_query_may_be_anything() {
    let node = Node::start(&config(HISTORY)).await;
    let (mut old, _) = node
        .upgrade("/ws?userId=bob&since=yesterday", &[])
        .await
        .expect("it is let in");
    old.expect_silence().await;
    let (mut new, _) = connect(&node, "bob").await;
    for number in 1..=2 {
        tell(&node, "bob", number).await;
    }
    for number in 1..=2 {
        let message = old.json().await;
        assert_eq!(
            (&message["payload"], message.get("offset")),
            (&json!(number), None)
        );
        let names: Vec<&String> = message.as_object().unwrap().keys().collect();
        assert!(!names.contains(&&"offset".to_owned()), "{message}");
        assert_eq!(next(&mut new).await, (number, number));
    }
}

#[tokio::test]
async fn a_malformed_place_is_a_refused_upgrade() {
    let node = Node::start(&config(HISTORY)).await;
    let long = format!("{}:1", "x".repeat(33));
    for since in [
        "",
        ":",
        "e",
        "e:",
        ":1",
        "e:-1",
        "e:%2B1",
        "e:1.5",
        "e:0x1",
        "e:1:2",
        "e:1%20",
        "%20e:1",
        "e+f:1",
        "%C3%A9:1",
        "%FF:1",
        "e:%D9%A1",
        "e:9007199254740992",
        "e:18446744073709551616",
        "e:00000000000000001",
        "e%00:1",
        "%7B%22epoch%22%3A%22e%22%7D",
        "e:1&since=e:1",
        "e:1&since=",
        "null",
        &long,
    ] {
        let path = format!("/ws?userId=bob&since={since}");
        let refused = node.refused(&path, &V1).await;
        assert_eq!(
            (refused.status, refused.error_code()),
            (400, "invalid_since".to_owned()),
            "{since}"
        );
    }
    let name = "wss_upgrades_refused_total{reason=\"since\"} ";
    assert_eq!(node.metric(name).await, Some(25.0));
    for good in ["e:0", "e%3A7", "E9:9007199254740991"] {
        let (_, welcome) = connect_with(&node, "bob", &format!("&since={good}")).await;
        assert_eq!(welcome["user"]["reason"], "epoch", "{good}");
    }
    let path = "/ws?userId=bob&since=e&refuse=close";
    let (mut closed, _) = node
        .upgrade(path, &V1)
        .await
        .expect("it is let in and closed");
    let (code, reason) = closed.closed_with_reason().await;
    assert!(code == 4504 && reason.contains("since"), "{code} {reason}");
}

#[tokio::test]
async fn without_a_history_there_is_no_position_and_no_number() {
    let node = Node::start(&config("")).await;
    let (mut bob, welcome) = connect_with(&node, "bob", "&since=e:1").await;
    assert_eq!(welcome.get("user"), None);
    assert_eq!(tell(&node, "nobody", 1).await, "offline");
    assert_eq!(tell(&node, "bob", 1).await, "delivered");
    assert_eq!(bob.json().await.get("offset"), None);
    assert_eq!(node.metric("wss_history_appended_total ").await, Some(0.0));
}

#[tokio::test]
async fn the_history_is_switched_on_and_off_while_clients_stay_connected() {
    let node = Node::start(&config("")).await;
    let (mut bob, _) = connect(&node, "bob").await;
    tell(&node, "bob", 1).await;
    assert_eq!(bob.json().await.get("offset"), None);
    let switch = async |text: &str| {
        node.replace("platform.toml", config(text).as_bytes());
        loop {
            let (probe, place) = connect(&node, "probe").await;
            probe.close().await;
            if place.is_null() == text.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    switch(HISTORY).await;
    tell(&node, "bob", 2).await;
    assert_eq!(next(&mut bob).await, (2, 1));
    let (mut other, place) = connect(&node, "bob").await;
    switch("").await;
    tell(&node, "bob", 3).await;
    for client in [&mut bob, &mut other] {
        assert_eq!(client.json().await.get("offset"), None);
    }
    let (mut late, _) = connect(&node, "bob").await;
    switch(HISTORY).await;
    tell(&node, "bob", 4).await;
    for client in [&mut bob, &mut other, &mut late] {
        assert_eq!(next(client).await, (4, 2));
    }
    let (mut back, place) = recover(&node, "bob", &place).await;
    assert_eq!(place["count"], 1);
    assert_eq!(next(&mut back).await, (4, 2));
}

#[tokio::test]
async fn a_slow_reader_gets_missed_messages_and_then_live_ones() {
    let others = "[limits]\nmessages_per_second = 0\noutbox_bytes_max = \"8MiB\"\nframe_bytes_max = \"1MiB\"\n";
    let node = Node::start(&format!("{HISTORY}{others}")).await;
    let (mut ann, _) = connect(&node, "ann").await;
    let (bob, place) = connect(&node, "bob").await;
    bob.close().await;
    let filler = "x".repeat(900_000);
    let mut say = async |number: u64| {
        let message =
            json!({"type": "x", "payload": [number, filler], "receiverId": "bob", "id": "m"});
        ann.send(&message.to_string()).await;
        assert_eq!(ann.json().await["type"], "ack");
    };
    for number in 1..=5 {
        say(number).await;
    }
    let path = format!("/ws?userId=bob{}", since(&place));
    let (mut bob, _) = node.upgrade(&path, &V1).await.expect("it is let in");
    // It reads nothing while these come.
    for number in 6..=8 {
        say(number).await;
    }
    let welcome = bob.json().await;
    let count = welcome["payload"]["user"]["count"]
        .as_u64()
        .unwrap_or_else(|| panic!("{welcome}"));
    let recovered = welcome["payload"]["user"]["offset"].as_u64().unwrap();
    // Those that came before its history was read were missed too.
    assert_eq!(count, recovered);
    for number in 1..=8 {
        let message = bob.json().await;
        assert_eq!(
            (&message["payload"][0], &message["offset"]),
            (&json!(number), &json!(number))
        );
    }
    bob.expect_silence().await;
}
