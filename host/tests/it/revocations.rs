//! Revoked tokens and blocked users, on one node and on several.

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Endpoint, Node},
    live_auth::{status, until_status},
    redis::{Server, until},
    redis_nodes::{self, Nodes},
    tokens::{JWT, connect, replace, seconds_from_now, sign},
};

const KEY: &str = "first-key-of-tests";
const API: &str = "[api]\nkeys = [\"first-key-of-tests\"]\n";
const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "signalbox.v1");

/// A token of `user` with this ID, which was issued so many seconds ago.
fn token(user: &str, id: &str, age: f64) -> String {
    let iat = seconds_from_now(-age).floor();
    sign(&json!({"sub": user, "jti": id, "iat": iat, "exp": seconds_from_now(3600.0)}))
}

async fn revoke(node: &Endpoint, body: Value) -> Answer {
    node.post("/api/tokens/revoke", KEY, &[], &body.to_string())
        .await
}

async fn disconnect(node: &Endpoint, user: &str, body: Value) -> Value {
    let path = format!("/api/users/{user}/disconnect");
    let answer = node.post(&path, KEY, &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

fn seconds(answer: &Answer) -> f64 {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["until"].as_f64().expect("a number of seconds")
}

/// The code of an upgrade that is refused.
async fn refused(node: &Endpoint, path: &str) -> (u16, String) {
    let answer = node.refused(path, &[]).await;
    (answer.status, answer.error_code())
}

/// The close code and reason of a refused client that asks for a close.
async fn closed(node: &Endpoint, query: &str) -> (u16, String) {
    let path = format!("/ws?{query}&refuse=close");
    let (mut client, _) = node.upgrade(&path, &[V1]).await.expect("it is accepted");
    client.closed_with_reason().await
}

fn revoked() -> (u16, String) {
    (4500, "the token was revoked".to_owned())
}

#[tokio::test]
async fn a_revoked_token_ends_its_connections_and_opens_none() {
    let node = Node::start(&format!("{JWT}{API}")).await;
    let (stolen, good) = (token("ann", "a", 10.0), token("ann", "b", 10.0));
    let mut thief = connect(&node, &stolen).await;
    let mut ann = connect(&node, &good).await;
    let answer = revoke(&node, json!({"jti": "a"})).await;
    assert!(seconds(&answer) > seconds_from_now(3600.0), "a day");
    assert_eq!(thief.closed_with_reason().await, revoked());
    ann.expect_silence().await;
    let path = format!("/ws?token={stolen}");
    assert_eq!(
        refused(&node, &path).await,
        (401, "token_revoked".to_owned())
    );
    assert_eq!(closed(&node, &format!("token={stolen}")).await.0, 4504);
    let answer = replace(&mut ann, &json!(stolen)).await;
    assert_eq!(answer["payload"]["code"], "invalid_token", "{answer}");
    ann.expect_silence().await;
    assert_eq!(status(&node, &good).await, 101);
    for (metric, count) in [
        ("wss_upgrades_refused_total{reason=\"revoked\"} ", 2.0),
        ("wss_closes_total{code=\"token_expired\"} ", 1.0),
        ("wss_revocations ", 1.0),
    ] {
        assert_eq!(node.metric(metric).await, Some(count), "{metric}");
    }
    // The token of the connection counts, not the one with which it began.
    let answer = replace(&mut ann, &json!(token("ann", "c", 10.0))).await;
    assert_eq!(answer["payload"]["status"], "handled", "{answer}");
    revoke(&node, json!({"jti": "b"})).await;
    ann.expect_silence().await;
    revoke(&node, json!({"jti": "c"})).await;
    assert_eq!(ann.closed_with_reason().await, revoked());
}

#[tokio::test]
async fn the_tokens_of_a_user_are_revoked_by_their_time_of_issue() {
    let node = Node::start(&format!("{JWT}{API}")).await;
    let (old, new) = (token("ann", "a", 1_000.0), token("ann", "b", 10.0));
    let timeless = sign(&json!({"sub": "ann", "exp": seconds_from_now(3600.0)}));
    let other = token("bob", "c", 1_000.0);
    let mut ended = [connect(&node, &old).await, connect(&node, &timeless).await];
    let mut kept = [connect(&node, &new).await, connect(&node, &other).await];
    let before = seconds_from_now(-500.0) as u64;
    let answer = revoke(&node, json!({"user": "ann", "issuedBefore": before})).await;
    seconds(&answer);
    for client in &mut ended {
        assert_eq!(client.closed_with_reason().await, revoked());
    }
    for client in &mut kept {
        client.expect_silence().await;
    }
    for (token, expected) in [(&old, 401), (&timeless, 401), (&new, 101), (&other, 101)] {
        assert_eq!(status(&node, token).await, expected);
    }
    // All tokens until now.
    let last = token("ann", "d", 0.0);
    seconds(&revoke(&node, json!({"user": "ann"})).await);
    let [mut ann, mut bob] = kept;
    assert_eq!(ann.closed_with_reason().await, revoked());
    bob.expect_silence().await;
    assert_eq!(status(&node, &last).await, 401);
    assert_eq!(status(&node, &token("ann", "e", -4.0)).await, 101);
}

#[tokio::test]
async fn a_revocation_ends_by_itself_and_lasts_no_longer_than_is_configured() {
    let node = Node::start(&format!("{JWT}revocation_time_max = \"1h\"\n{API}")).await;
    let token = token("ann", "a", 10.0);
    let until = seconds_from_now(2.0) as u64;
    let answer = revoke(&node, json!({"jti": "a", "until": until})).await;
    assert_eq!(seconds(&answer), until as f64);
    until_status(&node, &token, 101).await;
    node.until_metric("wss_revocations ", |count| count == 0.0)
        .await;
    let late = seconds_from_now(4000.0) as u64;
    for (body, code) in [
        (json!({"jti": "a", "until": late}), "invalid_until"),
        (json!({"jti": "a", "user": "ann"}), "invalid_body"),
        (json!({"jit": "a"}), "invalid_body"),
        (json!({"user": ""}), "invalid_user"),
    ] {
        let answer = revoke(&node, body).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (400, code));
    }
}

#[tokio::test]
async fn a_blocked_user_is_disconnected_and_refused_until_the_end_of_the_block() {
    let node = Node::start(API).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.reachable("bob").await);
    ann.expect_silence().await;
    let body = json!({"code": 4777, "reason": "enough", "block": "10m"});
    let answer = disconnect(&node, "ann", body).await;
    assert_eq!(answer["connections"], 1, "{answer}");
    let end = answer["blockedUntil"].as_f64().expect("seconds");
    assert!(end > seconds_from_now(60.0), "{answer}");
    assert_eq!(ann.closed_with_reason().await, (4777, "enough".to_owned()));
    assert_eq!(
        refused(&node, "/ws?userId=ann").await,
        (403, "blocked".to_owned())
    );
    let (code, reason) = closed(&node, "userId=ann").await;
    assert_eq!(code, 4505);
    assert!(reason.contains("blocked"), "{reason}");
    bob.expect_silence().await;
    let blocked = "wss_upgrades_refused_total{reason=\"blocked\"} ";
    assert_eq!(node.metric(blocked).await, Some(2.0));
    // A short block ends.
    disconnect(&node, "bob", json!({"block": "1s"})).await;
    assert_eq!(bob.closed().await, 4501);
    until("bob may connect again", async || {
        node.connect("bob", None).await.ok()
    })
    .await;
    let answer = revoke(&node, json!({"jti": "a"})).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "no_tokens")
    );
    let answer = node
        .post("/api/users/ann/disconnect", KEY, &[], r#"{"block":"25h"}"#)
        .await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "invalid_block")
    );
}

fn with_tokens() -> String {
    format!("{JWT}{API}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_enforce_a_revocation_and_know_it_after_a_restart() {
    let server = Server::start().await;
    let Nodes { nodes } = Nodes::start(2, &server.url(), &with_tokens()).await;
    let (by_id, by_user) = (token("ann", "a", 10.0), token("bob", "b", 10.0));
    let good = token("cid", "c", 10.0);
    let mut ann = connect(&nodes[1], &by_id).await;
    let mut bob = connect(&nodes[1], &by_user).await;
    let mut cid = connect(&nodes[1], &good).await;
    seconds(&revoke(&nodes[0], json!({"jti": "a"})).await);
    assert_eq!(ann.closed_with_reason().await, revoked());
    seconds(&revoke(&nodes[0], json!({"user": "bob"})).await);
    assert_eq!(bob.closed_with_reason().await, revoked());
    cid.expect_silence().await;
    for node in &nodes {
        for (token, expected) in [(&by_id, 401), (&by_user, 401), (&good, 101)] {
            assert_eq!(status(node, token).await, expected);
        }
        assert_eq!(node.metric("wss_revocations ").await, Some(2.0));
    }
    cid.close().await;
    for node in nodes {
        node.terminate();
        node.stopped().await;
    }
    let again = Nodes::start(1, &server.url(), &with_tokens()).await;
    for (token, expected) in [(&by_id, 401), (&by_user, 401), (&good, 101)] {
        assert_eq!(status(&again.nodes[0], token).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_holds_on_all_nodes() {
    let server = Server::start().await;
    let Nodes { nodes } = Nodes::start(2, &server.url(), API).await;
    let mut ann = nodes[1].reachable("ann").await;
    let answer = disconnect(&nodes[0], "ann", json!({"block": "10m", "code": 4600})).await;
    assert_eq!(answer["connections"], 1, "{answer}");
    assert_eq!(ann.closed().await, 4600);
    for node in &nodes {
        until("the node knows the block", async || {
            node.connect("ann", None).await.is_err().then_some(())
        })
        .await;
        let blocked = (403, "blocked".to_owned());
        assert_eq!(refused(node, "/ws?userId=ann").await, blocked);
    }
    nodes[1].client("bob").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_read_the_revocations_accepts_no_token() {
    let mut server = Server::start().await;
    server.kill9();
    let config = redis_nodes::config("early", &server.url(), &with_tokens());
    let node = Node::start(&config).await;
    let token = token("ann", "a", 10.0);
    let path = format!("/ws?token={token}");
    let answer = node.refused(&path, &[]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "revocations_unavailable")
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(closed(&node, &format!("token={token}")).await.0, 4009);
    assert_eq!(node.get("/ready").await.0, 503);
    server.restart_empty().await;
    until_status(&node, &token, 101).await;
    redis_nodes::until_ready(&node).await;
    // With what it knows, it goes on without Redis.
    seconds(&revoke(&node, json!({"jti": "a"})).await);
    server.kill9();
    assert_eq!(status(&node, &token).await, 401);
    let answer = revoke(&node, json!({"jti": "b"})).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "unavailable")
    );
}
