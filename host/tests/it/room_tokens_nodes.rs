//! Rooms that a client joins with a token for the room, on several nodes.

use serde_json::{Value, json};

use crate::{
    harness::{Client, Node},
    redis::Server,
    redis_nodes::{self, Nodes},
    room_tokens::{room_token, token_of},
    tokens::{JWT, connect, connect_v1, seconds_from_now, sign},
};

const SEEN: &str = "[[rooms]]\nmatch = \"r\"\njoin = \"token\"\npresence = true\n\
                    [presence]\nflush = \"10ms\"\ngrace = \"0s\"\n";

async fn join(client: &mut Client, payload: Value) -> Value {
    let frame = json!({"type": "join", "room": "r", "id": "j", "payload": payload});
    client.send(&frame.to_string()).await;
    loop {
        let answer = client.json().await;
        if answer["payload"]["id"] == "j" {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_other_nodes_see_that_a_token_expired_or_was_renewed() {
    let server = Server::start().await;
    let config = format!("{JWT}grace = \"0s\"\n{SEEN}");
    let Nodes { nodes } = Nodes::start(2, &server.url(), &config).await;
    let mut bob = connect(&nodes[0], &token_of("bob")).await;
    let token = sign(&json!({"sub": "bob", "room": "r", "exp": seconds_from_now(3600.0)}));
    join(&mut bob, json!({"token": token, "presence": true})).await;
    assert_eq!(bob.json().await["payload"]["total"], 1);
    let (mut ann, _) = connect_v1(&nodes[1], &token_of("ann")).await;
    assert_eq!(
        join(&mut ann, json!({"token": room_token("r", 60.0)})).await["type"],
        "ack"
    );
    assert_eq!(bob.json().await["payload"]["joined"][0]["userId"], "ann");
    // A renewal is silent, and its token counts.
    join(&mut ann, json!({"token": room_token("r", 10.0)})).await;
    let frame = ann.json().await;
    assert_eq!(
        (&frame["type"], &frame["payload"]["reason"]),
        (&json!("left"), &json!("expired")),
        "{frame}"
    );
    assert_eq!(bob.json().await["payload"]["left"], json!(["ann"]));
    bob.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_on_one_node_ends_a_membership_on_another() {
    let server = Server::start().await;
    let api = "[api]\nkeys = [\"first-key-of-tests\"]\n";
    let config = format!("{JWT}{SEEN}{api}");
    let Nodes { nodes } = Nodes::start(2, &server.url(), &config).await;
    let (mut ann, _) = connect_v1(&nodes[1], &token_of("ann")).await;
    let token = sign(&json!({
        "sub": "ann", "room": "r", "jti": "a", "exp": seconds_from_now(3600.0),
    }));
    join(&mut ann, json!({"token": token})).await;
    let answer = nodes[0]
        .post(
            "/api/tokens/revoke",
            "first-key-of-tests",
            &[],
            r#"{"jti":"a"}"#,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let frame = ann.json().await;
    assert_eq!(frame["payload"]["reason"], "revoked", "{frame}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_applies_its_own_rules_to_its_own_clients() {
    let server = Server::start().await;
    let start = async |name: &str, rule: &str| {
        let lines = format!("{JWT}[[rooms]]\nmatch = \"r\"\njoin = \"{rule}\"\n");
        let node = Node::start(&redis_nodes::config(name, &server.url(), &lines)).await;
        redis_nodes::until_ready(&node).await;
        node
    };
    let (open, closed) = (start("open", "open").await, start("closed", "token").await);
    let mut ann = connect(&open, &token_of("ann")).await;
    let mut bob = connect(&closed, &token_of("ann")).await;
    assert_eq!(join(&mut ann, Value::Null).await["type"], "ack");
    let refused = join(&mut bob, Value::Null).await;
    assert_eq!(refused["payload"]["code"], "invalid_token", "{refused}");
    join(&mut bob, json!({"token": room_token("r", 60.0)})).await;
    // All of them are members of one room.
    ann.send(r#"{"type":"x","room":"r","payload":1}"#).await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.json().await["payload"], 1);
    }
}
