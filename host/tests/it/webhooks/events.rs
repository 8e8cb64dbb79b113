//! The events, and what they contain.

use serde_json::{Value, json};

use super::receiver::Receiver;
use crate::{harness::Node, redis_nodes::Peer};

const KEY: &str = "first-key-of-tests";

/// The parts of an event that differ neither between runs nor between nodes.
fn essence(event: &Value) -> Value {
    let mut essence = event.clone();
    for name in ["id", "timestamp", "node", "connectionId"] {
        essence.as_object_mut().expect("an object").remove(name);
    }
    essence
}

/// Waits for this event, apart from what differs between runs.
async fn until_essence(receiver: &Receiver, expected: Value) {
    receiver
        .until_event(|event| essence(event) == expected)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_reported_when_they_begin_and_when_they_end() {
    let receiver = Receiver::start().await;
    let node = Node::start(&receiver.webhook(&["connected", "disconnected"], "")).await;
    let ann = node.client("ann").await;
    let connected = receiver.until_events(1).await.remove(0);
    assert_eq!(
        essence(&connected),
        json!({"type": "connected", "userId": "ann"})
    );
    for name in ["id", "timestamp", "node", "connectionId"] {
        assert!(connected[name].is_string(), "{name}: {connected}");
    }
    ann.close().await;
    let mut events = receiver.until_events(2).await;
    let disconnected = events.remove(1);
    assert_eq!(essence(&disconnected)["type"], "disconnected");
    assert_eq!(disconnected["code"], 1000, "{disconnected}");
    assert_eq!(disconnected["connectionId"], connected["connectionId"]);
    assert_ne!(disconnected["id"], connected["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_not_admitted_never_connected() {
    let receiver = Receiver::start().await;
    let config = format!(
        "{}[limits]\nconnections_per_user_max = 1\n",
        receiver.webhook(&["connected"], "")
    );
    let node = Node::start(&config).await;
    let _ann = node.reachable("ann").await;
    node.refused("/ws?userId=ann", &[]).await;
    let _bob = node.client("bob").await;
    receiver.until_event(|event| event["userId"] == "bob").await;
    let of_ann = receiver
        .events()
        .into_iter()
        .filter(|event| event["userId"] == "ann");
    assert_eq!(of_ann.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_reported_with_its_first_member_and_its_last_one() {
    let receiver = Receiver::start().await;
    let config = format!(
        "{}[presence]\ngrace = \"10ms\"\n",
        receiver.webhook(&["room_occupied", "room_vacated"], "rooms = [\"chat:*\"]")
    );
    let node = Node::start(&config).await;
    let mut ann = Peer::connect(&node, "ann").await;
    let mut bob = Peer::connect(&node, "bob").await;
    for peer in [&mut ann, &mut bob] {
        for room in ["other", "chat:7"] {
            peer.join(room).await;
        }
    }
    ann.answer_to(json!({"type": "leave", "room": "chat:7"}))
        .await;
    until_essence(
        &receiver,
        json!({"type": "room_occupied", "room": "chat:7"}),
    )
    .await;
    bob.close().await;
    until_essence(&receiver, json!({"type": "room_vacated", "room": "chat:7"})).await;
    ann.join("chat:8").await;
    until_essence(
        &receiver,
        json!({"type": "room_occupied", "room": "chat:8"}),
    )
    .await;
    let types: Vec<_> = receiver
        .events()
        .into_iter()
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(types, ["room_occupied", "room_vacated", "room_occupied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_rooms_with_presence_are_reported_by_user() {
    let receiver = Receiver::start().await;
    let config = format!(
        "{}[presence]\ngrace = \"10ms\"\n[[rooms]]\nmatch = \"seen:*\"\npresence = true\n",
        receiver.webhook(&["member_joined", "member_left"], "")
    );
    let node = Node::start(&config).await;
    let mut ann = Peer::connect(&node, "ann").await;
    let mut ann_too = Peer::connect(&node, "ann").await;
    ann.join("unseen").await;
    ann.join("seen:1").await;
    ann_too.join("seen:1").await;
    let joined = json!({"type": "member_joined", "room": "seen:1", "userId": "ann"});
    until_essence(&receiver, joined).await;
    ann_too.close().await;
    let mut bob = Peer::connect(&node, "bob").await;
    bob.join("seen:1").await;
    until_essence(
        &receiver,
        json!({"type": "member_joined", "room": "seen:1", "userId": "bob"}),
    )
    .await;
    ann.close().await;
    until_essence(
        &receiver,
        json!({"type": "member_left", "room": "seen:1", "userId": "ann"}),
    )
    .await;
    assert_eq!(receiver.events().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_returns_within_the_grace_is_not_reported_as_left() {
    let receiver = Receiver::start().await;
    let config = format!(
        "{}[presence]\ngrace = \"1h\"\n[[rooms]]\nmatch = \"seen\"\npresence = true\n",
        receiver.webhook(
            &[
                "member_joined",
                "member_left",
                "room_occupied",
                "room_vacated"
            ],
            ""
        )
    );
    let node = Node::start(&config).await;
    for round in 0..5 {
        let mut ann = Peer::connect(&node, "ann").await;
        ann.join("seen").await;
        let mut other = Peer::connect(&node, &format!("user{round}")).await;
        other.join("seen").await;
        // Whatever was reported about ann would come first.
        receiver
            .until_event(|event| event["userId"] == other.user)
            .await;
        ann.close().await;
        other.close().await;
    }
    let of_ann = receiver
        .events()
        .into_iter()
        .filter(|event| event["userId"] == "ann");
    assert_eq!(of_ann.count(), 1);
    let left = receiver
        .events()
        .into_iter()
        .filter(|event| event["type"] == "member_left" || event["type"] == "room_vacated");
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeliverable_message_is_reported_in_the_form_of_its_delivery() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook(&["undelivered"], "rooms = [\"chat:*\"]");
    let node = Node::start(&format!("{webhook}[api]\nkeys = [\"{KEY}\"]\n")).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"x.y","receiverId":"bob","payload":{"a":1.0},"id":"m1"}"#)
        .await;
    let ack = ann.json().await;
    assert_eq!(ack["payload"]["status"], "offline");
    let event = receiver.until_events(1).await.remove(0);
    let message = &event["message"];
    assert_eq!(message["messageId"], ack["payload"]["messageId"]);
    assert!(message["timestamp"].is_string());
    let mut rest = message.clone();
    for name in ["messageId", "timestamp"] {
        rest.as_object_mut().unwrap().remove(name);
    }
    let expected =
        json!({"type": "x.y", "payload": {"a": 1.0}, "receiverID": "bob", "senderId": "ann"});
    assert_eq!(rest, expected);
    // Without an ID, to rooms, and with a payload that is too large. What is delivered, or in another room, is not reported.
    ann.send(r#"{"type":"x.y","receiverId":"ann","payload":0}"#)
        .await;
    ann.json().await;
    for room in ["other", "chat:1"] {
        let message = json!({"type": "x.y", "room": room, "payload": 1}).to_string();
        let answer = node.post("/api/messages", KEY, &[], &message).await;
        assert!(answer.body.contains("offline"), "{}", answer.body);
    }
    let large = "x".repeat(20_000);
    ann.send(&json!({"type": "x.y", "receiverId": "eve", "payload": large}).to_string())
        .await;
    let events = receiver.until_events(3).await;
    assert_eq!(events[1]["message"]["room"], "chat:1", "{events:?}");
    assert_eq!(events[1].get("payloadOmitted"), None);
    let large = &events[2];
    assert_eq!(
        (
            &large["message"]["receiverID"],
            &large["message"]["payload"],
            &large["payloadOmitted"]
        ),
        (&json!("eve"), &Value::Null, &json!(true))
    );
}
