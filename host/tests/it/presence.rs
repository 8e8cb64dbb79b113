//! Who is in a room, on one node: the frames, the limits, and changes of the rules.

use serde_json::{Value, json};

use crate::{
    concierge::on_both,
    harness::{Client, Node},
    redis::until,
    tokens::{JWT, connect, replace, seconds_from_now, sign},
};

/// A room with presence in which changes are reported at once, and nobody leaves within a test.
const SEEN: &str = "[[rooms]]\nmatch = \"seen:*\"\npresence = true\n";
const AT_ONCE: &str = "[presence]\nflush = \"10ms\"\ngrace = \"0s\"\n";
const LONG_GRACE: &str = "[presence]\nflush = \"10ms\"\ngrace = \"1h\"\n";
const API: &str = "[api]\nkeys = [\"first-key-of-tests\"]\n";

const ROOM: &str = "seen:1";

async fn join(client: &mut Client, room: &str, payload: Value) -> Value {
    let frame = json!({"type": "join", "room": room, "id": "join", "payload": payload});
    client.send(&frame.to_string()).await;
    let answer = client.json().await;
    if answer["type"] == "ack" {
        assert_eq!(answer["payload"]["status"], "handled", "{answer}");
    }
    answer
}

async fn leave(client: &mut Client, room: &str) {
    let frame = json!({"type": "leave", "room": room, "id": "leave"});
    client.send(&frame.to_string()).await;
    assert_eq!(client.json().await["payload"]["id"], "leave");
}

/// Joins `room` with presence, and returns the first report.
async fn watch(client: &mut Client, room: &str) -> Value {
    join(client, room, json!({"presence": true})).await;
    report(client, room).await
}

/// The next frame, which must be a report about `room`.
async fn report(client: &mut Client, room: &str) -> Value {
    let mut frame = client.json().await;
    assert_eq!(frame["type"], "presence", "{frame}");
    assert_eq!(frame["payload"]["room"], room, "{frame}");
    frame["payload"].take()
}

fn member(user: &str, connections: usize) -> Value {
    json!({"userId": user, "connections": connections})
}

fn joined(total: usize, users: &[&str]) -> Value {
    let joined: Vec<Value> = users.iter().map(|user| member(user, 1)).collect();
    json!({"room": ROOM, "total": total, "joined": joined})
}

fn left(total: usize, users: &[&str]) -> Value {
    json!({"room": ROOM, "total": total, "left": users})
}

async fn api(node: &Node, room: &str) -> (u16, Value) {
    let path = format!("/api/rooms/{room}/members");
    let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer first-key-of-tests");
    let answer = node.http(&head).await;
    let body = serde_json::from_str(&answer.body).expect("the answer is JSON");
    (answer.status, body)
}

async fn until_status(node: &Node, room: &str, status: u16) {
    while api(node, room).await.0 != status {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_member_that_asks_gets_all_users_and_then_joins_and_leaves() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}")).await;
    let mut ann = node.client("ann").await;
    let snapshot = watch(&mut ann, ROOM).await;
    let expected = json!({"room": ROOM, "total": 1, "members": [member("ann", 1)]});
    assert_eq!(snapshot, expected);
    let mut bob = node.client("bob").await;
    let snapshot = watch(&mut bob, ROOM).await;
    let both = [member("ann", 1), member("bob", 1)];
    assert_eq!(snapshot, json!({"room": ROOM, "total": 2, "members": both}));
    assert_eq!(report(&mut ann, ROOM).await, joined(2, &["bob"]));
    leave(&mut bob, ROOM).await;
    assert_eq!(report(&mut ann, ROOM).await, left(1, &["bob"]));
    let mut eve = node.client("eve").await;
    join(&mut eve, ROOM, Value::Null).await;
    assert_eq!(report(&mut ann, ROOM).await, joined(2, &["eve"]));
    // A connection that breaks leaves too.
    drop(eve);
    assert_eq!(report(&mut ann, ROOM).await, left(1, &["eve"]));
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_user_with_several_connections_comes_with_the_first_and_leaves_with_the_last() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}")).await;
    let mut ann = node.client("ann").await;
    watch(&mut ann, ROOM).await;
    let (mut one, mut two) = (node.client("bob").await, node.client("bob").await);
    join(&mut one, ROOM, Value::Null).await;
    assert_eq!(report(&mut ann, ROOM).await, joined(2, &["bob"]));
    join(&mut two, ROOM, Value::Null).await;
    let mut eve = node.client("eve").await;
    let snapshot = watch(&mut eve, ROOM).await;
    assert_eq!(snapshot["members"][1], member("bob", 2));
    assert_eq!(report(&mut ann, ROOM).await, joined(3, &["eve"]));
    leave(&mut one, ROOM).await;
    leave(&mut eve, ROOM).await;
    assert_eq!(report(&mut ann, ROOM).await, left(2, &["eve"]));
    leave(&mut two, ROOM).await;
    assert_eq!(report(&mut ann, ROOM).await, left(1, &["bob"]));
}

#[tokio::test]
async fn a_reconnect_within_the_grace_is_silent() {
    let node = Node::start(&format!("{SEEN}{LONG_GRACE}")).await;
    let mut ann = node.client("ann").await;
    watch(&mut ann, ROOM).await;
    let mut bob = node.client("bob").await;
    join(&mut bob, ROOM, Value::Null).await;
    assert_eq!(report(&mut ann, ROOM).await, joined(2, &["bob"]));
    for round in 0..3 {
        bob.close().await;
        // A member that comes meanwhile still sees bob.
        let user = format!("user{round}");
        let mut late = node.client(&user).await;
        let snapshot = watch(&mut late, ROOM).await;
        assert_eq!(snapshot["total"], 3 + round);
        assert_eq!(snapshot["members"][1]["userId"], "bob");
        assert_eq!(report(&mut ann, ROOM).await, joined(3 + round, &[&user]));
        bob = node.client("bob").await;
        join(&mut bob, ROOM, Value::Null).await;
        late.expect_silence().await;
    }
    ann.expect_silence().await;
}

#[tokio::test]
async fn changes_are_batched() {
    let config = "[presence]\nflush = \"60s\"\ngrace = \"0s\"\n";
    let node = Node::start(&format!("{SEEN}{config}")).await;
    let mut ann = node.client("ann").await;
    watch(&mut ann, ROOM).await;
    for user in ["bob", "eve"] {
        let mut client = node.client(user).await;
        join(&mut client, ROOM, Value::Null).await;
    }
    ann.expect_silence().await;
    // Each room has a pause of its own.
    watch(&mut ann, "seen:2").await;
}

#[tokio::test]
async fn a_client_that_did_not_ask_gets_nothing() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}")).await;
    let mut old = node.client("old").await;
    let mut v1 = node.connect("v1", Some("signalbox.v1")).await.unwrap();
    assert_eq!(v1.json().await["type"], "welcome");
    join(&mut old, ROOM, Value::Null).await;
    join(&mut old, ROOM, json!({"presence": 1, "since": "x"})).await;
    v1.send(&json!({"type": "join", "room": ROOM, "payload": {"presence": false}}).to_string())
        .await;
    assert_eq!(v1.json().await["type"], "joined");
    let mut ann = node.client("ann").await;
    watch(&mut ann, ROOM).await;
    let mut bob = node.client("bob").await;
    join(&mut bob, ROOM, Value::Null).await;
    assert_eq!(report(&mut ann, ROOM).await["total"], 4);
    for client in [&mut old, &mut v1, &mut bob] {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_room_without_presence_has_no_members_to_see() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}{API}")).await;
    let mut ann = node.client("ann").await;
    join(&mut ann, "other", json!({"presence": true})).await;
    let mut bob = node.client("bob").await;
    join(&mut bob, "other", Value::Null).await;
    ann.expect_silence().await;
    let (status, answer) = api(&node, &"x".repeat(256)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("invalid_room"))
    );
    let (status, answer) = api(&node, "other").await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (404, &json!("no_presence"))
    );
}

#[tokio::test]
async fn a_member_that_left_gets_no_more_reports() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}")).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    watch(&mut ann, ROOM).await;
    watch(&mut bob, ROOM).await;
    report(&mut ann, ROOM).await;
    leave(&mut ann, ROOM).await;
    assert_eq!(report(&mut bob, ROOM).await, left(1, &["ann"]));
    let mut eve = node.client("eve").await;
    join(&mut eve, ROOM, Value::Null).await;
    assert_eq!(report(&mut bob, ROOM).await, joined(2, &["eve"]));
    ann.expect_silence().await;
}

#[tokio::test]
async fn above_the_limit_only_the_number_is_reported() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}members_max = 2\n{API}")).await;
    let mut ann = node.client("ann").await;
    watch(&mut ann, ROOM).await;
    let mut bob = node.client("bob").await;
    join(&mut bob, ROOM, Value::Null).await;
    report(&mut ann, ROOM).await;
    let mut eve = node.client("eve").await;
    let only = |total: usize| json!({"room": ROOM, "total": total});
    assert_eq!(watch(&mut eve, ROOM).await, only(3));
    assert_eq!(report(&mut ann, ROOM).await, only(3));
    let (status, answer) = api(&node, ROOM).await;
    assert_eq!((status, &answer["total"]), (200, &json!(3)));
    assert_eq!(answer["members"].as_array().unwrap().len(), 2);
    leave(&mut eve, ROOM).await;
    let both = [member("ann", 1), member("bob", 1)];
    let all = json!({"room": ROOM, "total": 2, "members": both});
    assert_eq!(report(&mut ann, ROOM).await, all);
    for (contents, frames) in [("list", 2.0), ("changes", 1.0), ("total", 2.0)] {
        let metric = format!("wss_presence_frames_total{{contents=\"{contents}\"}} ");
        assert_eq!(node.metric(&metric).await, Some(frames), "{contents}");
    }
    assert_eq!(node.metric("wss_presence_members ").await, Some(2.0));
}

#[tokio::test]
async fn a_full_room_refuses_joins_until_a_user_leaves() {
    let rule = "[[rooms]]\nmatch = \"*\"\npresence = true\nmembers_max = 2\n";
    let node = Node::start(rule).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let mut eve = node.client("eve").await;
    join(&mut ann, "r", Value::Null).await;
    join(&mut bob, "r", Value::Null).await;
    let refused = join(&mut eve, "r", Value::Null).await;
    assert_eq!(refused["payload"]["code"], "room_full", "{refused}");
    assert_eq!(refused["payload"]["retryable"], true);
    // Not a member: it gets nothing and may not send.
    ann.send(r#"{"type":"x","room":"r","id":"x"}"#).await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.json().await["type"], "x");
    }
    eve.expect_silence().await;
    eve.send(r#"{"type":"x","room":"r","id":"x"}"#).await;
    assert_eq!(eve.error_code().await, "not_in_room");
    // Another connection of a member takes no place.
    let mut again = node.client("ann").await;
    assert_eq!(join(&mut again, "r", Value::Null).await["type"], "ack");
    leave(&mut again, "r").await;
    // Nor does a refused one in another room.
    assert_eq!(join(&mut eve, "r2", Value::Null).await["type"], "ack");
    leave(&mut bob, "r").await;
    assert_eq!(join(&mut eve, "r", Value::Null).await["type"], "ack");
    let refused = join(&mut bob, "r", Value::Null).await;
    assert_eq!(refused["payload"]["code"], "room_full");
}

#[tokio::test]
async fn many_joins_at_once_do_not_overfill_a_room() {
    let rule = "[[rooms]]\nmatch = \"*\"\npresence = true\nmembers_max = 5\n";
    let node = Node::start(rule).await;
    let clients = (0..20).map(async |number| {
        let mut client = node.client(&format!("user{number}")).await;
        let answer = join(&mut client, "r", Value::Null).await;
        (client, answer["type"] == "ack")
    });
    let joined = futures_util::future::join_all(clients).await;
    let inside = joined.iter().filter(|(_, is_inside)| *is_inside);
    assert_eq!(inside.count(), 5);
}

#[tokio::test]
async fn the_claim_info_is_shown_to_the_others() {
    let node = Node::start(&format!("{SEEN}{AT_ONCE}{API}{JWT}")).await;
    let connect = async |user: &str, info: Value| {
        let claims = json!({"sub": user, "exp": seconds_from_now(3600.0), "info": info});
        connect(&node, &sign(&claims)).await
    };
    let mut ann = connect("ann", json!({"name": "Ann", "age": 30})).await;
    let snapshot = watch(&mut ann, ROOM).await;
    assert_eq!(
        snapshot["members"][0]["info"],
        json!({"name": "Ann", "age": 30})
    );
    let mut bob = connect("bob", json!({"name": "x".repeat(1024)})).await;
    join(&mut bob, ROOM, Value::Null).await;
    assert_eq!(
        report(&mut ann, ROOM).await,
        joined(2, &["bob"]),
        "too long"
    );
    let mut eve = connect("eve", json!("Eve")).await;
    join(&mut eve, ROOM, Value::Null).await;
    assert_eq!(
        report(&mut ann, ROOM).await,
        joined(3, &["eve"]),
        "no object"
    );
    let (_, answer) = api(&node, ROOM).await;
    let first = &answer["members"][0];
    assert_eq!(
        (
            &first["userId"],
            &first["info"]["name"],
            &first["connections"]
        ),
        (&json!("ann"), &json!("Ann"), &json!(1))
    );
    assert!(first["since"].as_str().unwrap().ends_with('Z'), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_info_of_a_new_token_is_shown_to_later_members_and_backends() {
    on_both(&format!("{JWT}{SEEN}{AT_ONCE}"), async |node| {
        let token = |user: &str, info: Value| {
            let claims = json!({"sub": user, "exp": seconds_from_now(3600.0), "info": info});
            sign(&claims)
        };
        let shown = async |room: &str, info: Value| {
            until("the new info is shown", async || {
                let (_, answer) = api(node, room).await;
                let members = answer["members"].as_array().expect("a list");
                let bob = members.iter().find(|member| member["userId"] == "bob");
                (bob.expect("bob")["info"] == info).then_some(())
            })
            .await;
        };
        let (old, new) = (json!({"name": "Bob"}), json!({"name": "Robert"}));
        let mut ann = connect(node, &token("ann", Value::Null)).await;
        watch(&mut ann, ROOM).await;
        let mut bob = connect(node, &token("bob", old.clone())).await;
        join(&mut bob, ROOM, Value::Null).await;
        assert_eq!(report(&mut ann, ROOM).await["joined"][0]["info"], old);
        for info in [new.clone(), Value::Null, new.clone(), new.clone()] {
            let answer = replace(&mut bob, &json!(token("bob", info.clone()))).await;
            assert_eq!(answer["payload"]["status"], "handled", "{answer}");
            shown(ROOM, info).await;
        }
        ann.expect_silence().await;
        let mut eve = connect(node, &token("eve", Value::Null)).await;
        let snapshot = watch(&mut eve, ROOM).await;
        assert_eq!(snapshot["members"][1]["info"], new);
        join(&mut bob, "seen:2", Value::Null).await;
        shown("seen:2", new).await;
    })
    .await;
}

#[tokio::test]
async fn presence_is_switched_on_and_off_while_members_are_there() {
    let node = Node::start(&format!("{AT_ONCE}{API}")).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    join(&mut ann, ROOM, json!({"presence": true})).await;
    join(&mut bob, ROOM, Value::Null).await;
    ann.expect_silence().await;
    let (on, off) = (format!("{SEEN}{AT_ONCE}{API}"), format!("{AT_ONCE}{API}"));
    for _ in 0..2 {
        node.replace("platform.toml", on.as_bytes());
        let snapshot = report(&mut ann, ROOM).await;
        let both = [member("ann", 1), member("bob", 1)];
        assert_eq!(snapshot, json!({"room": ROOM, "total": 2, "members": both}));
        until_status(&node, ROOM, 200).await;
        node.replace("platform.toml", off.as_bytes());
        until_status(&node, ROOM, 404).await;
        let mut eve = node.client("eve").await;
        join(&mut eve, ROOM, Value::Null).await;
        leave(&mut eve, ROOM).await;
        ann.expect_silence().await;
    }
    bob.expect_silence().await;
}

#[tokio::test]
async fn old_messages_come_before_the_users() {
    let rule = "[[rooms]]\nmatch = \"*\"\npresence = true\nhistory = { size = 5, time = \"5m\" }\n";
    let node = Node::start(rule).await;
    let mut ann = node.client("ann").await;
    join(&mut ann, "r", Value::Null).await;
    for number in 0..3 {
        let frame = json!({"type": "x", "payload": number, "room": "r"});
        ann.send(&frame.to_string()).await;
        assert_eq!(ann.json().await["payload"], number);
    }
    let mut bob = node.client("bob").await;
    let ack = join(&mut bob, "r", json!({"last": 3, "presence": true})).await;
    assert_eq!(ack["payload"]["room"]["count"], 3);
    for number in 0..3 {
        assert_eq!(bob.json().await["payload"], number);
    }
    assert_eq!(report(&mut bob, "r").await["total"], 2);
}
