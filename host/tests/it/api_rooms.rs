//! The calls about rooms on one node: members, history, and their changes.

use serde_json::{Value, json};

use crate::{
    api::{Answer, ask, node},
    harness::{Client, Node},
};

/// A room that clients cannot join by themselves, and one with a history.
pub(crate) const RULES: &str = "[[rooms]]\nmatch = \"closed:*\"\njoin = \"backend\"\n\
                                [[rooms]]\nmatch = \"chat:*\"\njoin = \"backend\"\nhistory = { size = 5, time = \"5m\" }\n";

/// A client of `signalbox.v1` that others can reach.
pub(crate) async fn v1(node: &Node, user: &str) -> Client {
    let mut client = node.connect(user, Some("signalbox.v1")).await.unwrap();
    assert_eq!(client.json().await["type"], "welcome");
    client
}

/// `PUT` makes `user` a member of `room`, `DELETE` ends that; both are percent-encoded.
pub(crate) async fn change(node: &Node, method: &str, room: &str, user: &str) -> Answer {
    let path = format!("/api/rooms/{room}/members/{user}");
    ask(node, method, &path, "").await
}

/// The answer to a change that succeeds.
pub(crate) async fn changed(node: &Node, method: &str, room: &str, user: &str) -> Value {
    let answer = change(node, method, room, user).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

pub(crate) async fn find(node: &Node, room: &str) -> Value {
    let answer = ask(node, "GET", &format!("/api/rooms/{room}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

pub(crate) async fn say(node: &Node, room: &str, payload: u64) -> Value {
    let message = json!({"type": "x", "payload": payload, "room": room});
    let answer = ask(node, "POST", "/api/messages", &message.to_string()).await;
    answer.body["status"].clone()
}

/// Checks that the next frame is `joined` or `left` for `room`.
pub(crate) async fn expect(client: &mut Client, kind: &str, room: &str) -> Value {
    let frame = client.json().await;
    assert_eq!(
        (&frame["type"], &frame["payload"]["room"]),
        (&json!(kind), &json!(room)),
        "{frame}"
    );
    frame
}

#[tokio::test]
async fn all_connections_of_a_user_join_a_room_and_leave_it() {
    let node = node(RULES).await;
    let (mut phone, mut laptop) = (v1(&node, "ann").await, v1(&node, "ann").await);
    let mut bob = v1(&node, "bob").await;
    let nobody = json!({"connections": 0, "nodes": []});
    assert_eq!(find(&node, "closed:1").await, nobody);
    let done = changed(&node, "PUT", "closed:1", "ann").await;
    assert_eq!(done, json!({"connections": 2}));
    // At once: no message is missed that is sent after the answer.
    assert_eq!(say(&node, "closed:1", 1).await, "delivered");
    for client in [&mut phone, &mut laptop] {
        expect(client, "joined", "closed:1").await;
        assert_eq!(client.json().await["payload"], 1);
    }
    let found = find(&node, "closed:1").await;
    assert_eq!(found["connections"], 2);
    assert_eq!(found["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&found["history"], &found["unanswered"]),
        (&Value::Null, &Value::Null)
    );
    let again = changed(&node, "PUT", "closed:1", "ann").await;
    assert_eq!(again, json!({"connections": 2}), "they are members already");
    for (method, user) in [("PUT", "nobody"), ("DELETE", "nobody"), ("DELETE", "bob")] {
        let done = changed(&node, method, "closed:1", user).await;
        assert_eq!(done, json!({"connections": 0}), "{method} {user}");
    }
    let done = changed(&node, "DELETE", "closed:1", "ann").await;
    assert_eq!(done, json!({"connections": 2}));
    assert_eq!(say(&node, "closed:1", 2).await, "offline");
    for client in [&mut phone, &mut laptop] {
        expect(client, "left", "closed:1").await;
        client.expect_silence().await;
    }
    assert_eq!(find(&node, "closed:1").await, nobody);
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_client_of_websocket_app_joins_and_gets_no_frame_that_it_does_not_know() {
    let node = node(RULES).await;
    let mut ann = node.reachable("ann").await;
    ann.send(r#"{"type":"join","room":"closed:1","id":"j"}"#)
        .await;
    assert_eq!(ann.error_code().await, "forbidden_room");
    changed(&node, "PUT", "closed:1", "ann").await;
    ann.expect_silence().await;
    assert_eq!(say(&node, "closed:1", 1).await, "delivered");
    assert_eq!(ann.json().await["payload"], 1);
    changed(&node, "DELETE", "closed:1", "ann").await;
    ann.expect_silence().await;
}

#[tokio::test]
async fn a_member_of_a_room_with_a_history_gets_its_position_and_later_messages() {
    let node = node(RULES).await;
    let mut ann = v1(&node, "ann").await;
    assert_eq!(say(&node, "chat:1", 1).await, "kept");
    changed(&node, "PUT", "chat:1", "ann").await;
    assert_eq!(say(&node, "chat:1", 2).await, "delivered");
    let joined = expect(&mut ann, "joined", "chat:1").await;
    assert_eq!(joined["payload"]["offset"], 1);
    let got = ann.json().await;
    assert_eq!((&got["payload"], &got["offset"]), (&json!(2), &json!(2)));
    let found = find(&node, "chat:1").await;
    assert_eq!(found["connections"], 1);
    let place = json!({"epoch": joined["payload"]["epoch"], "offset": 2});
    assert_eq!(found["history"], place);
}

#[tokio::test]
async fn a_join_over_the_room_limit_is_refused_with_an_error() {
    let node = node(&format!("{RULES}[limits]\nrooms_per_connection_max = 1\n")).await;
    let _clients = (v1(&node, "ann").await, v1(&node, "ann").await);
    let done = changed(&node, "PUT", "closed:1", "ann").await;
    assert_eq!(done, json!({"connections": 2}));
    let done = changed(&node, "PUT", "closed:2", "ann").await;
    assert_eq!(done, json!({"connections": 0, "failed": 2}));
    let done = changed(&node, "PUT", "closed:1", "ann").await;
    assert_eq!(done, json!({"connections": 2}), "they are members already");
}

#[tokio::test]
async fn changes_by_several_callers_are_in_order_with_those_of_the_client() {
    let node = node(RULES).await;
    let mut ann = v1(&node, "ann").await;
    for round in 0..50 {
        let join = json!({"type": "join", "room": format!("open:{round}"), "id": "j"});
        ann.send(&join.to_string()).await;
        let room = format!("closed:{round}");
        let (one, other) = tokio::join!(
            changed(&node, "PUT", &room, "ann"),
            changed(&node, "PUT", &room, "ann")
        );
        assert_eq!(
            (&one["connections"], &other["connections"]),
            (&json!(1), &json!(1))
        );
        changed(&node, "DELETE", &room, "ann").await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let frame = ann.json().await;
            kinds.push(frame["type"].as_str().expect("a type").to_owned());
        }
        kinds.sort();
        assert_eq!(kinds, ["ack", "joined", "joined", "left"]);
    }
}

#[tokio::test]
async fn a_history_is_read_page_by_page_also_if_the_room_has_no_members() {
    let node = node(RULES).await;
    for n in 1..=7 {
        assert_eq!(say(&node, "chat:1", n).await, "kept");
    }
    for (query, offsets, has_older) in [
        ("?limit=2", vec![6, 7], true),
        ("?before=6&limit=2", vec![4, 5], true),
        ("?before=4&limit=2", vec![3], false),
        ("", vec![3, 4, 5, 6, 7], false),
        ("?limit=1000000", vec![3, 4, 5, 6, 7], false),
        ("?before=1", vec![], false),
    ] {
        let answer = ask(
            &node,
            "GET",
            &format!("/api/rooms/chat:1/history{query}"),
            "",
        )
        .await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let history = answer.body;
        let messages = history["messages"].as_array().expect("messages");
        let got: Vec<u64> = messages
            .iter()
            .map(|message| message["offset"].as_u64().expect("an offset"))
            .collect();
        assert_eq!(got, offsets, "{query}");
        assert_eq!(
            (&history["hasOlder"], &history["offset"]),
            (&json!(has_older), &json!(7)),
            "{query}"
        );
        let payloads = messages.iter().map(|message| &message["payload"]);
        assert!(payloads.eq(&offsets), "{history}");
    }
    let empty = ask(&node, "GET", "/api/rooms/chat:empty/history", "").await;
    assert_eq!(
        (&empty.body["offset"], &empty.body["messages"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(empty.body.get("epoch"), None, "there is no history");
    // One that a client may follow has a place.
    let place = find(&node, "chat:empty").await["history"].take();
    let empty = ask(&node, "GET", "/api/rooms/chat:empty/history", "").await;
    assert_eq!(
        (&empty.body["epoch"], &empty.body["offset"]),
        (&place["epoch"], &json!(0))
    );
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused() {
    let node = node(RULES).await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=",
        "before=9007199254740992",
        "before=1.5",
        "after=1",
        "limit=1&limit=2",
    ] {
        let answer = ask(
            &node,
            "GET",
            &format!("/api/rooms/chat:1/history?{query}"),
            "",
        )
        .await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, "invalid_query"),
            "{query}"
        );
        let said = answer.body.to_string();
        assert!(
            !said.contains("u64") && !said.contains("serialize"),
            "{said}"
        );
    }
    let none = ask(&node, "GET", "/api/rooms/closed:1/history", "").await;
    assert_eq!((none.status, none.error()), (400, "invalid_room"));
}

#[tokio::test]
async fn a_name_in_a_path_is_percent_encoded_and_has_at_most_255_bytes() {
    let node = node(RULES).await;
    let mut ann = node.reachable("a%2Fn%C3%BC").await;
    let longest = format!("chat:{}", "ü".repeat(125));
    assert_eq!(longest.len(), 255);
    for room in [
        longest.as_str(),
        "chat:a/b?c#d%25",
        "chat: ",
        "chat:..",
        "chat:\u{1F600}{}",
    ] {
        let encoded = encode(room);
        let done = changed(&node, "PUT", &encoded, "a%2Fn%C3%BC").await;
        assert_eq!(done, json!({"connections": 1}), "{room}");
        assert_eq!(say(&node, room, 1).await, "delivered", "{room}");
        assert_eq!(ann.json().await["room"], *room);
        assert_eq!(find(&node, &encoded).await["connections"], 1, "{room}");
        let path = format!("/api/rooms/{encoded}/history");
        let history = ask(&node, "GET", &path, "").await.body;
        assert_eq!(history["messages"][0]["room"], *room);
    }
    let too_long = encode(&format!("{longest}x"));
    for (method, path, code) in [
        ("GET", format!("/api/rooms/{too_long}"), "invalid_room"),
        (
            "GET",
            format!("/api/rooms/{too_long}/history"),
            "invalid_room",
        ),
        (
            "PUT",
            format!("/api/rooms/{too_long}/members/ann"),
            "invalid_room",
        ),
        (
            "DELETE",
            format!("/api/rooms/r/members/{too_long}"),
            "invalid_user",
        ),
        ("GET", "/api/rooms/%FF".to_owned(), "invalid_room"),
        ("GET", "/api/rooms/%FF/history".to_owned(), "invalid_room"),
        ("PUT", "/api/rooms/r/members/%FF".to_owned(), "invalid_room"),
    ] {
        let answer = ask(&node, method, &path, "").await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, code),
            "{method} {path}"
        );
    }
    for (method, path, status) in [
        ("GET", "/api/rooms", 404),
        ("GET", "/api/rooms/", 404),
        ("GET", "/api/rooms/a/b", 404),
        ("POST", "/api/rooms/a", 405),
        ("GET", "/api/rooms/a/members/ann", 405),
        ("POST", "/api/rooms/a/members/ann", 405),
    ] {
        let answer = ask(&node, method, path, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// Percent-encodes every byte.
fn encode(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
