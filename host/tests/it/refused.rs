//! Refused upgrades: as HTTP responses with `Retry-After`, and as close codes for browsers.

use std::time::{Duration, SystemTime};

use signalbox::auth::token;

use crate::{
    harness::{Client, Node},
    raw::RawClient,
};

const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "signalbox.v1");
const HOUR: Duration = Duration::from_secs(3600);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The close code and reason of a refused client that asks for a close.
async fn closed(node: &Node, query: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    let headers = [&[V1], headers].concat();
    let path = format!("/ws?{query}&refuse=close");
    let (mut client, _) = node.upgrade(&path, &headers).await.expect("it is accepted");
    client.closed_with_reason().await
}

async fn v1(node: &Node, user: &str) -> Client {
    node.connect(user, Some("signalbox.v1"))
        .await
        .expect("it is accepted")
}

#[tokio::test]
async fn a_client_that_asks_for_it_is_closed_with_the_reason_instead_of_refused() {
    let node = Node::start("[limits]\nconnections_per_user_max = 1\nconnections_max = 2").await;
    let _ann = v1(&node, "ann").await;
    assert_eq!(closed(&node, "userId=ann", &[]).await.0, 4008);
    let _bob = v1(&node, "bob").await;
    assert_eq!(closed(&node, "userId=cid", &[]).await.0, 4009);
    assert_eq!(
        closed(&node, "nobody=1", &[]).await,
        (4504, "missing userId".to_owned())
    );
    let (code, reason) = closed(&node, "userId=ann", &[("Origin", "https://evil.example")]).await;
    assert_eq!(code, 4505);
    assert!(reason.contains("https://evil.example"), "{reason}");
    for (reason, count) in [
        ("user_limit", 1.0),
        ("node_limit", 1.0),
        ("auth", 1.0),
        ("origin", 1.0),
    ] {
        let metric = format!("wss_upgrades_refused_total{{reason=\"{reason}\"}} ");
        assert_eq!(node.metric(&metric).await, Some(count), "{reason}");
    }
    assert_eq!(node.metric("wss_active_connections ").await, Some(2.0));
    assert_eq!(node.metric("wss_connections_total ").await, Some(2.0));
}

#[tokio::test]
async fn rejected_tokens_are_distinguished_from_expired_ones() {
    let config = format!("[auth]\nmode = \"jwt\"\njwt_secret = \"{SECRET}\"");
    let node = Node::start(&config).await;
    let expired = token_of(SystemTime::now() - 2 * HOUR);
    assert_eq!(
        closed(&node, &format!("token={expired}"), &[]).await.0,
        4500
    );
    assert_eq!(closed(&node, "token=nonsense", &[]).await.0, 4504);
    assert_eq!(closed(&node, "x=1", &[]).await.0, 4504);
    let answer = node.refused(&format!("/ws?token={expired}"), &[V1]).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (401, "token_expired")
    );
}

#[tokio::test]
async fn without_the_subprotocol_a_refusal_is_an_http_status() {
    let node = Node::start("").await;
    for (path, headers) in [
        ("/ws?refuse=close", &[][..]),
        ("/ws?refuse=close", &[("Sec-WebSocket-Protocol", "other")]),
        ("/ws?refuse=no", &[V1]),
        ("/ws?x=refuse=close", &[V1]),
    ] {
        assert_eq!(node.refused(path, headers).await.status, 400, "{path}");
    }
    // A plain HTTP request cannot be answered with a close.
    let plain = "GET /ws?refuse=close HTTP/1.1\r\nSec-WebSocket-Protocol: signalbox.v1";
    assert_eq!(node.http(plain).await.status, 400);
}

#[tokio::test]
async fn clients_that_were_refused_so_do_not_pile_up() {
    let node = Node::start("[limits]\nsockets_pending_max = 4").await;
    let head =
        crate::raw::upgrade_head("/ws?refuse=close") + "Sec-WebSocket-Protocol: signalbox.v1\r\n";
    let mut deaf = Vec::new();
    for _ in 0..20 {
        // They do not answer the close, and stay connected.
        deaf.push(RawClient::open(&node, &head).await.0);
    }
    for client in &mut deaf {
        assert_eq!(client.closed().await, 4504);
    }
    node.client("ann").await.expect_silence().await;
    let metric = "wss_http_refused_total{reason=\"sockets\"} ";
    node.until_metric(metric, |count| count >= 16.0).await;
}

#[tokio::test]
async fn a_temporary_refusal_has_a_retry_after() {
    let node = Node::start("[limits]\nconnections_per_user_max = 1\nconnections_max = 2").await;
    let (_ann, _bob) = (node.client("ann").await, node.client("bob").await);
    let refused = node.refused("/ws?userId=cid", &[]).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("5"))
    );
    let node = Node::start("[limits]\nconnections_per_user_max = 1").await;
    let _ann = node.client("ann").await;
    let refused = node.refused("/ws?userId=ann", &[]).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("5"))
    );
    // A node whose plugin is missing cannot deliver anything.
    let missing = "[[plugins]]\nname = \"a\"\npath = \"missing.wasm\"\nevents = [\"*\"]\n";
    let node = Node::start(missing).await;
    let ready = node.http("GET /ready HTTP/1.1").await;
    assert_eq!(
        (ready.status, ready.header("retry-after")),
        (503, Some("1"))
    );
}

#[tokio::test]
async fn a_node_admits_a_rate_of_upgrades_and_unauthenticated_ones_do_not_use_it() {
    let config = format!(
        "[limits]\nupgrades_per_second = 2\n[auth]\nmode = \"jwt\"\njwt_secret = \"{SECRET}\""
    );
    let node = Node::start(&config).await;
    for _ in 0..20 {
        assert_eq!(node.refused("/ws?token=nonsense", &[]).await.status, 401);
    }
    let path = format!("/ws?token={}", token_of(SystemTime::now()));
    let mut clients = Vec::new();
    let refused = loop {
        match node.upgrade(&path, &[]).await {
            Ok((client, _)) => clients.push(client),
            Err(_) => break node.refused(&path, &[]).await,
        }
        assert!(clients.len() < 30, "it lets everybody in");
    };
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "too_many_upgrades")
    );
    assert!(refused.header("retry-after").is_some());
    assert!(clients.len() >= 2);
    clients[0].expect_silence().await;
}

#[tokio::test]
async fn connections_per_address_are_bounded() {
    let node = Node::start("[limits]\nconnections_per_address_max = 2").await;
    let (ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let refused = node.refused("/ws?userId=cid", &[]).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "too_many_connections")
    );
    bob.expect_silence().await;
    ann.close().await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    node.client("cid").await.expect_silence().await;
    let metric = "wss_upgrades_refused_total{reason=\"address_limit\"} ";
    assert_eq!(node.metric(metric).await, Some(1.0));
}

/// A token that expires an hour after `made`.
fn token_of(made: SystemTime) -> String {
    token::issue(SECRET, "ann", HOUR, made).expect("a token")
}
