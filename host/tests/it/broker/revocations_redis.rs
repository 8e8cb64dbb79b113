//! Revocations in Redis: nodes that start later, lost and foreign data, and the limit.

use std::{sync::Arc, time::SystemTime};

use signalbox::broker::{Denial, REVOCATIONS_MAX, RevokeError};

use super::{
    nodes::redis_nodes,
    revocations::{check, lasting, token, until_enforced},
};
use crate::redis::{Server, until};

const KEY: &str = "signalbox:revoked:until";

#[tokio::test]
async fn a_node_that_starts_later_knows_all_revocations_as_soon_as_it_is_ready() {
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    for n in 0..1_200 {
        let revocation = lasting(token(&n.to_string()));
        nodes[0].broker.revoke(&revocation).await.unwrap();
    }
    drop(nodes);
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let now = SystemTime::now();
    for n in 0..1_200 {
        let checked = check(&nodes[0], "ann", &n.to_string(), now);
        assert_eq!(checked, Err(Denial::Token), "{n}");
    }
    assert_eq!(nodes[0].broker.revocations().count(now), 1_200);
    // An hour, and two days more.
    let left: i64 = server.command(&["PTTL", KEY]).await;
    assert!((1..=180_000_000).contains(&left), "{left}");
}

#[tokio::test]
async fn nodes_write_the_revocations_again_that_redis_has_lost() {
    let mut server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    for id in ["a", "b"] {
        nodes[0].broker.revoke(&lasting(token(id))).await.unwrap();
    }
    server.restart_empty().await;
    until("the revocations are there again", async || {
        let count: usize = server.command(&["ZCARD", KEY]).await;
        (count == 2).then_some(())
    })
    .await;
    drop(nodes);
    let later = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let checked = check(&later[0], "ann", "a", SystemTime::now());
    assert_eq!(checked, Err(Denial::Token));
}

#[tokio::test]
async fn foreign_texts_are_ignored_and_lost_announcements_are_tolerated() {
    let server = Server::start().await;
    let end = lasting(token("a")).until_ms.to_string();
    for text in ["", "x", "{}", r#"{"token":7}"#, r#"{"token":"a"}"#] {
        let _: () = server.command(&["ZADD", KEY, &end, text]).await;
    }
    let _: () = server
        .command(&["ZADD", KEY, "+inf", r#"{"user":"eve"}"#])
        .await;
    let nodes = redis_nodes(&server.url(), 2, &Arc::default()).await;
    for node in &nodes {
        assert_eq!(until_enforced(node, 2).await.len(), 2);
        let now = SystemTime::now();
        assert_eq!(check(node, "ann", "a", now), Err(Denial::Token));
        assert_eq!(check(node, "eve", "b", now), Err(Denial::User));
    }
    for text in ["x", r#"{"type":"signalbox.revoked"}"#] {
        let _: u64 = server
            .command(&["PUBLISH", "signalbox:revoked", text])
            .await;
    }
    // A node that subscribes again looks for itself.
    let _: () = server
        .command(&["ZADD", KEY, &end, r#"{"token":"b"}"#])
        .await;
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for node in &nodes {
        assert_eq!(until_enforced(node, 3).await[2], token("b"));
    }
}

#[tokio::test]
async fn revocations_that_ended_stay_in_redis_while_a_clock_may_be_wrong() {
    const HOUR_MS: u64 = 3_600_000;
    let server = Server::start().await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let made = lasting(token("a"));
    let now = made.until_ms - HOUR_MS;
    for (id, hours_ago) in [("day", 24), ("week", 7 * 24)] {
        let end = (now - hours_ago * HOUR_MS).to_string();
        let text = format!(r#"{{"token":"{id}"}}"#);
        let _: () = server.command(&["ZADD", KEY, &end, &text]).await;
    }
    nodes[0].broker.revoke(&made).await.unwrap();
    let left: Vec<String> = server.command(&["ZRANGE", KEY, "0", "-1"]).await;
    assert_eq!(left, [r#"{"token":"day"}"#, r#"{"token":"a"}"#]);
    let known = nodes[0].broker.revocations().list(SystemTime::now());
    assert_eq!(known, [made], "the others have ended");
}

#[tokio::test]
async fn no_more_revocations_are_made_than_nodes_may_hold() {
    let server = Server::start().await;
    let fill = "for i = 1, tonumber(ARGV[1]) do \
                redis.call('ZADD', KEYS[1], ARGV[2], '{\"token\":\"' .. i .. '\"}') end";
    let end = lasting(token("a")).until_ms.to_string();
    let most = REVOCATIONS_MAX.to_string();
    let _: () = server.command(&["EVAL", fill, "1", KEY, &most, &end]).await;
    let nodes = redis_nodes(&server.url(), 1, &Arc::default()).await;
    let known = nodes[0].broker.revocations().count(SystemTime::now());
    assert_eq!(known, REVOCATIONS_MAX);
    let refused = nodes[0].broker.revoke(&lasting(token("a"))).await;
    assert_eq!(refused, Err(RevokeError::Full));
    // One that is there already may last longer.
    nodes[0].broker.revoke(&lasting(token("7"))).await.unwrap();
    let count: usize = server.command(&["ZCARD", KEY]).await;
    assert_eq!(count, REVOCATIONS_MAX);
}
