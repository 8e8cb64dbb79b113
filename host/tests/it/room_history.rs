//! Histories of rooms: numbers, recovery, late comers, reading back, and the answers to bad input.

use serde_json::{Value, json};

use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Node};

const CONFIG: &str = "[[rooms]]\nmatch = \"chat:*\"\nhistory = { size = 5, time = \"5m\" }\n\
                      [[rooms]]\nmatch = \"large:*\"\nhistory = { size = 1000, time = \"5m\" }\n\
                      [limits]\nmessages_per_second = 0\nhistory_replay_max = 300\n";

/// Joins `room` with `payload`, and returns the place in its history that the `ack` names.
async fn join(client: &mut Client, room: &str, payload: Value) -> Value {
    let frame = json!({"type": "join", "room": room, "id": "join", "payload": payload});
    client.send(&frame.to_string()).await;
    let ack = client.json().await;
    assert_eq!(ack["payload"]["status"], "handled", "{ack}");
    ack["payload"]["room"].clone()
}

async fn say(client: &mut Client, room: &str, payload: u64) -> Value {
    let frame = json!({"type": "x", "payload": payload, "room": room, "id": "say"});
    client.send(&frame.to_string()).await;
    loop {
        let answer = client.json().await;
        if answer["type"] != "x" {
            return answer["payload"].clone();
        }
    }
}

/// The payload and the offset of the next message.
async fn next(client: &mut Client) -> (u64, u64) {
    let message = client.json().await;
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{message}"));
    (number(&message["payload"]), number(&message["offset"]))
}

fn since(room: &Value) -> Value {
    json!({"since": {"epoch": room["epoch"], "offset": room["offset"]}})
}

/// A node and a member of `room` that is there all the time.
async fn node_with_speaker(room: &str) -> (Node, Client) {
    let node = Node::start(CONFIG).await;
    let mut ann = node.client("ann").await;
    join(&mut ann, room, Value::Null).await;
    (node, ann)
}

#[tokio::test]
async fn messages_of_a_room_with_a_history_are_numbered_from_one() {
    let (node, mut ann) = node_with_speaker("chat:1").await;
    let mut bob = node.client("bob").await;
    let place = join(&mut bob, "chat:1", Value::Null).await;
    assert_eq!(place["offset"], 0);
    assert_eq!(place.get("recovered"), None);
    for number in 1..=3 {
        assert_eq!(
            say(&mut ann, "chat:1", 100 + number).await["status"],
            "delivered"
        );
        assert_eq!(next(&mut bob).await, (100 + number, number));
    }
}

#[tokio::test]
async fn a_room_without_a_history_has_no_numbers_and_no_place() {
    let (node, mut ann) = node_with_speaker("other").await;
    let mut bob = node.client("bob").await;
    assert_eq!(
        join(&mut bob, "other", json!({"last": 5})).await,
        Value::Null
    );
    say(&mut ann, "other", 1).await;
    let message = bob.json().await;
    assert_eq!(
        (&message["payload"], message.get("offset")),
        (&json!(1), None)
    );
}

#[tokio::test]
async fn a_client_that_was_away_gets_exactly_the_missed_messages_and_then_live_ones() {
    let (node, mut ann) = node_with_speaker("chat:1").await;
    let mut bob = node.client("bob").await;
    let place = join(&mut bob, "chat:1", Value::Null).await;
    bob.close().await;
    for number in 1..=3 {
        say(&mut ann, "chat:1", number).await;
    }
    let mut bob = node.client("bob").await;
    let recovered = join(&mut bob, "chat:1", since(&place)).await;
    assert_eq!(
        (
            &recovered["recovered"],
            &recovered["count"],
            &recovered["offset"]
        ),
        (&json!(true), &json!(3), &json!(3))
    );
    say(&mut ann, "chat:1", 4).await;
    for number in 1..=4 {
        assert_eq!(next(&mut bob).await, (number, number));
    }
    bob.expect_silence().await;
    // Nothing is missing now.
    bob.close().await;
    let mut bob = node.client("bob").await;
    let place = json!({"epoch": recovered["epoch"], "offset": 4});
    let recovered = join(&mut bob, "chat:1", since(&place)).await;
    assert_eq!(
        (&recovered["recovered"], &recovered["count"]),
        (&json!(true), &json!(0))
    );
    bob.expect_silence().await;
}

#[tokio::test]
async fn recovery_is_never_partial() {
    let (node, mut ann) = node_with_speaker("chat:1").await;
    let mut bob = node.client("bob").await;
    let place = join(&mut bob, "chat:1", Value::Null).await;
    bob.close().await;
    // One more than are kept.
    for number in 1..=6 {
        say(&mut ann, "chat:1", number).await;
    }
    let epoch = &place["epoch"];
    let in_the_future = json!({"epoch": epoch, "offset": 7});
    let of_another_epoch = json!({"epoch": "other", "offset": 3});
    let mut eve = node.client("eve").await;
    let of_another_room = join(&mut eve, "chat:2", Value::Null).await;
    let beyond_all = json!({"epoch": epoch, "offset": 9_007_199_254_740_991_u64});
    for (place, reason) in [
        (&of_another_room, "epoch"),
        (&beyond_all, "epoch"),
        (&place, "expired"),
        (&in_the_future, "epoch"),
        (&of_another_epoch, "epoch"),
    ] {
        let mut bob = node.client("bob").await;
        let answer = join(&mut bob, "chat:1", since(place)).await;
        assert_eq!(
            answer,
            json!({"epoch": epoch, "offset": 6, "recovered": false, "reason": reason})
        );
        bob.expect_silence().await;
        bob.close().await;
    }
}

#[tokio::test]
async fn more_missed_messages_than_the_limit_are_too_many() {
    let (node, mut ann) = node_with_speaker("large:1").await;
    let mut bob = node.client("bob").await;
    let place = join(&mut bob, "large:1", Value::Null).await;
    bob.close().await;
    for number in 1..=301 {
        say(&mut ann, "large:1", number).await;
    }
    let mut bob = node.client("bob").await;
    let answer = join(&mut bob, "large:1", since(&place)).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"]),
        (&json!(false), &json!("too_many"))
    );
    let next_to_it = json!({"epoch": place["epoch"], "offset": 1});
    let answer = join(&mut bob, "large:1", since(&next_to_it)).await;
    assert_eq!(
        (&answer["recovered"], &answer["count"]),
        (&json!(true), &json!(300))
    );
    for number in 2..=301 {
        assert_eq!(next(&mut bob).await, (number, number));
    }
}

#[tokio::test]
async fn a_late_comer_gets_the_last_messages() {
    let (node, mut ann) = node_with_speaker("chat:1").await;
    for number in 1..=7 {
        say(&mut ann, "chat:1", number).await;
    }
    for (last, first) in [(2, 6), (5, 3), (1_000_000_000, 3)] {
        let mut bob = node.client("bob").await;
        let answer = join(&mut bob, "chat:1", json!({"last": last})).await;
        assert_eq!(
            (&answer["recovered"], &answer["count"]),
            (&json!(true), &json!(8 - first))
        );
        for number in first..=7 {
            assert_eq!(next(&mut bob).await, (number, number));
        }
        bob.expect_silence().await;
        bob.close().await;
    }
}

#[tokio::test]
async fn a_member_reads_back_page_by_page() {
    let (node, mut ann) = node_with_speaker("chat:1").await;
    for number in 1..=7 {
        say(&mut ann, "chat:1", number).await;
    }
    let mut bob = node.client("bob").await;
    let read = |payload: Value| {
        json!({"type": "history", "room": "chat:1", "id": "h", "payload": payload}).to_string()
    };
    bob.send(&read(Value::Null)).await;
    assert_eq!(bob.error_code().await, "not_in_room");
    join(&mut bob, "chat:1", Value::Null).await;
    for (payload, offsets, has_older) in [
        (json!({"limit": 2}), vec![6, 7], true),
        (json!({"limit": 2, "before": 6}), vec![4, 5], true),
        (json!({"limit": 2, "before": 4}), vec![3], false),
        (Value::Null, vec![3, 4, 5, 6, 7], false),
    ] {
        bob.send(&read(payload)).await;
        let ack = bob.json().await;
        let history = &ack["payload"]["history"];
        let got: Vec<u64> = history["messages"]
            .as_array()
            .unwrap_or_else(|| panic!("{ack}"))
            .iter()
            .map(|message| message["offset"].as_u64().unwrap())
            .collect();
        assert_eq!(got, offsets);
        assert_eq!(
            (&history["hasOlder"], &history["offset"]),
            (&json!(has_older), &json!(7))
        );
    }
    bob.send(r#"{"type":"history","room":"chat:1"}"#).await;
    assert_eq!(bob.error_code().await, "invalid_id");
}

#[tokio::test]
async fn a_message_to_an_empty_room_with_a_history_is_kept() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let node = Node::start(&format!("{CONFIG}[api]\nkeys = [\"{KEY}\"]\n")).await;
    let message = json!({"type": "news", "room": "chat:1", "payload": 7});
    let answer = node
        .post("/api/messages", KEY, &[], &message.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["status"], "kept", "{answer}");
    let mut bob = node.client("bob").await;
    join(&mut bob, "chat:1", json!({"last": 1})).await;
    assert_eq!(next(&mut bob).await, (7, 1));
}

#[tokio::test]
async fn malformed_positions_are_refused_and_names_may_be_long() {
    let room = format!("chat:{}", "ü".repeat(125));
    assert_eq!(room.len(), 255);
    let (node, mut ann) = node_with_speaker(&room).await;
    let mut bob = node.connect("bob", Some("signalbox.v1")).await.unwrap();
    assert_eq!(bob.json().await["type"], "welcome");
    for payload in [
        json!({"since": 7}),
        json!({"since": {"epoch": "e", "offset": 9_007_199_254_740_992_u64}}),
        json!({"since": {"epoch": "e", "offset": -1}}),
        json!({"since": {"epoch": "e", "offset": 1.5}}),
        json!({"since": {"epoch": "e", "offset": 1e300}}),
        json!({"since": {"epoch": "e", "offset": "1"}}),
        json!({"since": {"epoch": "e"}}),
        json!({"since": {"offset": 1}}),
        json!({"since": {"epoch": "", "offset": 1}}),
        json!({"since": {"epoch": "e".repeat(33), "offset": 1}}),
        json!({"since": {"epoch": "e}:log", "offset": 1}}),
        json!({"since": {"epoch": "e", "offset": 1}, "last": 1}),
        json!({"last": -1}),
        json!({"last": 0.5}),
        json!({"last": "20"}),
        json!({"presence": 1}),
        json!([{"epoch": "e", "offset": 1}]),
        json!("20"),
    ] {
        let frame = json!({"type": "join", "room": room, "id": "j", "payload": payload});
        bob.send(&frame.to_string()).await;
        assert_eq!(bob.error_code().await, "invalid_payload", "{frame}");
    }
    let frame = json!({"type": "join", "room": room});
    bob.send(&frame.to_string()).await;
    let joined = bob.json().await;
    assert_eq!(
        (&joined["type"], &joined["payload"]["offset"]),
        (&json!("joined"), &json!(0))
    );
    say(&mut ann, &room, 1).await;
    assert_eq!(next(&mut bob).await, (1, 1));
    for payload in [
        json!({"limit": 0}),
        json!({"limit": -1}),
        json!({"limit": 2.5}),
        json!({"before": -1}),
        json!({"before": 9_007_199_254_740_992_u64}),
        json!({"before": "1"}),
        json!([1, 2]),
    ] {
        let frame = json!({"type": "history", "room": room, "id": "h", "payload": payload});
        bob.send(&frame.to_string()).await;
        assert_eq!(bob.error_code().await, "invalid_payload", "{frame}");
    }
    // The smallest page of all, and a limit that no history reaches.
    let frame = json!({"type": "history", "room": room, "id": "h", "payload": {"before": 0, "limit": 1_000_000_000}});
    bob.send(&frame.to_string()).await;
    let history = bob.json().await["payload"]["history"].clone();
    assert_eq!(history["messages"], json!([]), "{history}");
}

#[tokio::test]
async fn a_history_over_its_bytes_forgets_old_messages_and_says_so() {
    let config = CONFIG.to_owned() + "history_bytes_max = \"1MiB\"\n";
    let node = Node::start(&config).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, "large:1", Value::Null).await;
    let place = join(&mut bob, "large:1", Value::Null).await;
    let text = "y".repeat(30_000);
    for number in 1..=100_u64 {
        let frame = json!({"type": "x", "payload": text, "room": "large:1"});
        ann.send(&frame.to_string()).await;
        // Live messages come all the same.
        assert_eq!(bob.json().await["offset"], number);
        ann.json().await;
    }
    let mut eve = node.client("eve").await;
    let answer = join(&mut eve, "large:1", since(&place)).await;
    assert_eq!(
        (&answer["recovered"], &answer["reason"]),
        (&json!(false), &json!("expired"))
    );
    let answer = join(&mut eve, "large:1", json!({"last": 100})).await;
    let count = answer["count"].as_u64().expect("a number");
    assert!((1..=34).contains(&count), "{answer}");
    for number in 101 - count..=100 {
        assert_eq!(eve.json().await["offset"], number);
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_in_a_replay_misses_nothing_before_it_is_closed() {
    let node = Node::start(CONFIG).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, "large:1", Value::Null).await;
    join(&mut bob, "large:1", Value::Null).await;
    let text = "y".repeat(30_000);
    let large = json!({"type": "x", "payload": text, "room": "large:1"}).to_string();
    let mut sent = 0;
    let mut speak = async || {
        ann.send(&large).await;
        sent += 1;
        assert_eq!(ann.json().await["offset"], sent);
        // Others do not wait for the slow one.
        assert_eq!(bob.json().await["offset"], sent);
        sent
    };
    for _ in 0..30 {
        speak().await;
    }
    let mut slow = node.client("slow").await;
    let frame = json!({"type": "join", "room": "large:1", "id": "join", "payload": {"last": 30}});
    slow.send(&frame.to_string()).await;
    let closes = "wss_closes_total{code=\"slow_consumer\"} ";
    let mut last = 30;
    while node.metric(closes).await.unwrap_or_default() == 0.0 {
        last = speak().await;
    }
    let room = slow.json().await["payload"]["room"].clone();
    assert_eq!(room["recovered"], true, "{room}");
    let first = room["offset"].as_u64().unwrap() - room["count"].as_u64().unwrap();
    let mut got = first;
    while let Some(Ok(message)) = slow.frame().await {
        if let Message::Text(text) = message {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            got += 1;
            assert_eq!(message["offset"], got);
        }
    }
    // It comes back with the place of the last message that it read.
    let mut slow = node.client("slow").await;
    let place = json!({"epoch": room["epoch"], "offset": got});
    let answer = join(&mut slow, "large:1", since(&place)).await;
    if answer["recovered"] == true {
        for number in got + 1..=last {
            assert_eq!(slow.json().await["offset"], number);
        }
    } else {
        assert_eq!(answer["reason"], "too_many", "{answer}");
    }
}
