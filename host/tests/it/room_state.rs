//! The members and the history of rooms, as plugins read them.

use serde_json::{Value, json};

use crate::{
    api,
    concierge::{ask, concierge, expect, node, nodes, on_both},
    harness::{Client, Node},
    redis::{Server, until},
};

const RULES: &str = "[[rooms]]\nmatch = \"seen:*\"\npresence = true\n\
                     history = { size = 5, time = \"5m\" }\n[presence]\nmembers_max = 2\n";

/// The result of the plugin's `calls`.
async fn read(client: &mut Client, calls: Value) -> Value {
    ask(client, json!({"calls": calls})).await["data"].take()
}

async fn join(client: &mut Client, room: &str) {
    let frame = json!({"type": "join", "room": room, "id": "r"});
    client.send(&frame.to_string()).await;
    assert_eq!(expect(client, "ack").await["status"], "handled");
}

async fn say(node: &Node, room: &str, payload: u64) {
    let message = json!({"type": "news", "payload": payload, "room": room, "senderId": "zoë"});
    let answer = api::ask(node, "POST", "/api/messages", &message.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn offsets(history: &Value) -> Vec<u64> {
    let history = history["ok"]
        .as_array()
        .unwrap_or_else(|| panic!("{history}"));
    let offsets = history.iter().map(|kept| kept["offset"].as_u64());
    offsets.map(|offset| offset.expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_reads_the_rooms_of_all_nodes_as_a_backend_does() {
    let server = Server::start().await;
    let config = format!("{RULES}{}", concierge("concierge", "{}"));
    let nodes: [Node; 2] = nodes(&server, &config).await;
    for n in 1..=7 {
        say(&nodes[0], "seen:1", n).await;
    }
    let (mut ann, mut bob) = (
        nodes[0].reachable("ann").await,
        nodes[1].reachable("bob").await,
    );
    let (mut ann_too, mut cid) = (
        nodes[1].reachable("ann").await,
        nodes[1].reachable("cid").await,
    );
    for client in [&mut ann, &mut bob, &mut ann_too, &mut cid] {
        join(client, "seen:1").await;
    }
    let calls = json!([
        {"room_count": "seen:1"}, {"room_members": "seen:1"}, {"room_history": ["seen:1", null, 2]},
        {"room_history": ["seen:1", 6, 9]}, {"room_history": ["seen:1", u64::MAX, 1]},
    ]);
    for (client, node) in [(&mut ann, &nodes[0]), (&mut bob, &nodes[1])] {
        let found = read(client, calls.clone()).await;
        let get = async |path: &str| api::ask(node, "GET", path, "").await.body;
        let room = get("/api/rooms/seen:1").await;
        assert_eq!(
            (&found[0]["ok"], &room["connections"]),
            (&json!(4), &json!(4))
        );
        let members = json!([
            {"user": "ann", "connections": 2, "info": null},
            {"user": "bob", "connections": 1, "info": null},
        ]);
        assert_eq!(found[1]["ok"], members, "the first two of three");
        assert_eq!(get("/api/rooms/seen:1/members").await["total"], 3);
        assert_eq!(offsets(&found[2]), [6, 7]);
        assert_eq!(offsets(&found[3]), [3, 4, 5]);
        assert_eq!(offsets(&found[4]), [7]);
        let last = &found[2]["ok"][1];
        let expected = json!({
            "offset": 7, "type": "news", "sender": "zoë", "payload": "7", "timestamp": last["timestamp"],
        });
        assert_eq!(*last, expected);
        let history = get("/api/rooms/seen:1/history?limit=1").await;
        let sent = history["messages"][0]["timestamp"]
            .as_str()
            .expect("a time");
        let sent = humantime::parse_rfc3339(sent).expect("a time");
        let since = sent
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        assert_eq!(last["timestamp"], u64::try_from(since.as_millis()).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_history_of_rooms_that_have_none_creates_none() {
    let server = Server::start().await;
    let config = format!("{RULES}{}", concierge("concierge", "{}"));
    let [node] = nodes(&server, &config).await;
    let mut ann = node.reachable("ann").await;
    for n in 0..5 {
        let room = format!("seen:{n}");
        let found = read(&mut ann, json!([{"room_history": [room, null, 9]}])).await;
        assert_eq!(found, json!([{"ok": []}]));
        let path = format!("/api/rooms/{room}/history");
        let history = api::ask(&node, "GET", &path, "").await;
        let none = json!({"offset": 0, "hasOlder": false, "messages": []});
        assert_eq!((history.status, history.body), (200, none));
    }
    let keys: Vec<String> = server.command(&["KEYS", "room_history:*"]).await;
    assert_eq!(keys, [""; 0]);
    join(&mut ann, "seen:1").await;
    let keys: Vec<String> = server.command(&["KEYS", "room_history:*"]).await;
    assert_eq!(keys, ["room_history:{seen:1}:head"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_and_impossible_options_of_a_rule_are_distinguished() {
    on_both(&concierge("concierge", "{}"), async |node| {
        let mut ann = node.reachable("ann").await;
        join(&mut ann, "plain").await;
        let long = "x".repeat(256);
        for (call, expected) in [
            (json!({"room_count": "plain"}), json!({"ok": 1})),
            (json!({"room_count": "nobody"}), json!({"ok": 0})),
            (
                json!({"room_members": "plain"}),
                json!({"error": "switched-off"}),
            ),
            (
                json!({"room_history": ["plain", null, 1]}),
                json!({"error": "switched-off"}),
            ),
            (json!({"room_count": ""}), json!({"error": "invalid"})),
            (json!({"room_members": long}), json!({"error": "invalid"})),
            (
                json!({"room_history": ["plain", null, 0]}),
                json!({"error": "invalid"}),
            ),
        ] {
            let found = read(&mut ann, json!([call])).await;
            assert_eq!(found[0], expected, "{call}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_member_that_a_token_describes_has_its_info() {
    use crate::tokens::{JWT, connect, seconds_from_now, sign};
    let config = format!("{JWT}{RULES}{}", concierge("concierge", "{}"));
    let node = node(&config).await;
    let exp = seconds_from_now(3600.0);
    let token = sign(&json!({"sub": "ann", "exp": exp, "info": {"name": "Ann"}}));
    let mut ann = connect(&node, &token).await;
    join(&mut ann, "seen:1").await;
    let found = read(&mut ann, json!([{"room_members": "seen:1"}])).await;
    let info = found[0]["ok"][0]["info"].as_str().expect("a text");
    assert_eq!(info, r#"{"name":"Ann"}"#);
}

#[tokio::test]
async fn calls_count_together_with_those_of_the_store() {
    let limited = concierge("concierge", "{}").replace("config =", "store_calls_max = 3\nconfig =");
    let node = node(&format!("{RULES}{limited}")).await;
    let mut ann = node.reachable("ann").await;
    let calls = json!([
        {"get": "k"}, {"room_count": "r"}, {"room_members": "seen:1"}, {"room_count": "r"},
        {"room_history": ["seen:1", null, 1]}, {"get": "k"},
    ]);
    for _ in 0..2 {
        let found = read(&mut ann, calls.clone()).await;
        assert_eq!(
            (&found[0]["ok"], &found[1]["ok"]),
            (&json!(null), &json!(0))
        );
        assert_eq!(found[2]["ok"], json!([]));
        for index in 3..6 {
            assert_eq!(found[index]["error"], "too-many-calls", "{found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_answer_is_an_error_and_the_plugin_continues() {
    let mut server = Server::start().await;
    let config = format!("{RULES}{}", concierge("concierge", "{}"));
    let [node] = nodes(&server, &config).await;
    let mut ann = node.reachable("ann").await;
    let calls = json!([{"room_count": "seen:1"}, {"room_history": ["seen:1", null, 1]}]);
    let found = read(&mut ann, calls.clone()).await;
    assert_eq!(found, json!([{"ok": 0}, {"ok": []}]));
    server.kill9();
    let unavailable = json!([{"error": "unavailable"}, {"error": "unavailable"}]);
    let mut reads = ann;
    until("the broker is known not to answer", async || {
        (read(&mut reads, calls.clone()).await == unavailable).then_some(())
    })
    .await;
}
