//! Rooms: who is a member, and who receives messages to the room.

use serde_json::{Value, json};

use crate::harness::{Client, Node};

async fn join(client: &mut Client, room: &str) {
    client
        .send(&json!({"type": "join", "room": room, "id": "join"}).to_string())
        .await;
    assert_eq!(client.json().await["payload"]["status"], "handled");
}

async fn say(client: &mut Client, room: &str, payload: u64) {
    client
        .send(&json!({"type": "x", "payload": payload, "room": room}).to_string())
        .await;
}

fn parts(message: &Value) -> (&Value, &Value, &Value) {
    (&message["room"], &message["senderId"], &message["payload"])
}

#[tokio::test]
async fn a_message_to_a_room_reaches_each_member_once_and_no_other_user() {
    let node = Node::start("").await;
    let (mut ann, mut bob, mut eve) = (
        node.client("ann").await,
        node.client("bob").await,
        node.client("eve").await,
    );
    join(&mut ann, "r").await;
    // Joining twice makes one member.
    join(&mut bob, "r").await;
    join(&mut bob, "r").await;
    join(&mut eve, "r2").await;
    say(&mut ann, "r", 1).await;
    for client in [&mut ann, &mut bob] {
        let message = client.json().await;
        assert_eq!(
            parts(&message),
            (&json!("r"), &json!("ann"), &json!(1)),
            "{message}"
        );
        client.expect_silence().await;
    }
    eve.expect_silence().await;
}

#[tokio::test]
async fn a_user_who_left_a_room_gets_no_messages_and_cannot_send_to_it() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, "r").await;
    join(&mut bob, "r").await;
    bob.send(r#"{"type":"leave","room":"r","id":"l"}"#).await;
    assert_eq!(bob.json().await["payload"]["status"], "handled");
    say(&mut ann, "r", 1).await;
    assert_eq!(ann.json().await["payload"], 1);
    bob.expect_silence().await;
    say(&mut bob, "r", 2).await;
    assert_eq!(bob.error_code().await, "not_in_room");
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_disconnect_leaves_all_rooms() {
    let node = Node::start("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, "r").await;
    join(&mut bob, "r").await;
    ann.close().await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    bob.send(r#"{"type":"leave","room":"r"}"#).await;
    let mut ann = node.client("ann").await;
    say(&mut ann, "r", 1).await;
    assert_eq!(
        ann.error_code().await,
        "not_in_room",
        "rooms are a connection's"
    );
}

#[tokio::test]
async fn a_user_with_two_connections_gets_a_message_on_both() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    let (mut one, mut two) = (node.client("bob").await, node.client("bob").await);
    ann.send(r#"{"type":"x","payload":1,"receiverId":"bob","id":"i"}"#)
        .await;
    let id = ann.json().await["payload"]["messageId"].clone();
    for client in [&mut one, &mut two] {
        let message = client.json().await;
        assert_eq!(message["messageId"], id);
        client.expect_silence().await;
    }
    join(&mut ann, "r").await;
    join(&mut one, "r").await;
    join(&mut two, "r").await;
    say(&mut ann, "r", 2).await;
    for client in [&mut ann, &mut one, &mut two] {
        assert_eq!(client.json().await["payload"], 2);
        client.expect_silence().await;
    }
    one.close().await;
    node.until_metric("wss_active_connections ", |open| open == 2.0)
        .await;
    ann.send(r#"{"type":"x","payload":3,"receiverId":"bob","id":"i"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["status"], "delivered");
    assert_eq!(two.json().await["payload"], 3);
}

#[tokio::test]
async fn a_message_names_a_receiver_or_a_room_and_not_both() {
    let node = Node::start("").await;
    let mut ann = node.connect("ann", Some("signalbox.v1")).await.unwrap();
    assert_eq!(ann.json().await["type"], "welcome");
    ann.send(r#"{"type":"x","receiverId":"ann","room":"r"}"#)
        .await;
    assert_eq!(ann.error_code().await, "invalid_receiver");
    for built_in in ["join", "leave"] {
        ann.send(&json!({"type": built_in}).to_string()).await;
        assert_eq!(ann.error_code().await, "invalid_room");
    }
}

#[tokio::test]
async fn a_room_send_right_behind_the_join_is_in_order() {
    let node = Node::start("").await;
    let mut ann = node.client("ann").await;
    for room in 0..50 {
        let room = format!("r{room}");
        let frames = [
            json!({"type": "x", "payload": 1, "room": room}),
            json!({"type": "join", "room": room}),
            json!({"type": "x", "payload": 2, "room": room}),
            json!({"type": "leave", "room": room}),
            json!({"type": "x", "payload": 3, "room": room}),
        ];
        for frame in frames {
            ann.send(&frame.to_string()).await;
        }
        assert_eq!(ann.error_code().await, "not_in_room");
        assert_eq!(ann.json().await["payload"], 2);
        assert_eq!(ann.error_code().await, "not_in_room");
    }
}
