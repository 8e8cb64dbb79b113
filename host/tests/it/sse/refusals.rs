//! Requests for a stream that are refused, and the pages that may read the answers.

use serde_json::json;

use super::{HISTORY, client::EventClient};
use crate::{
    harness::Node,
    tokens::{JWT, seconds_from_now, sign},
};

/// Checks that a stream is refused with the status and the code with which an upgrade is.
async fn assert_refused_alike(node: &Node, query: &str, headers: &[(&'static str, &str)]) -> u16 {
    let v1 = ("Sec-WebSocket-Protocol", "signalbox.v1");
    let upgrade = node
        .refused(&format!("/ws?{query}"), &[&[v1], headers].concat())
        .await;
    let mut head = format!("GET /sse?{query} HTTP/1.1");
    for (name, value) in headers {
        head += &format!("\r\n{name}: {value}");
    }
    let stream = node.http(&head).await;
    assert_eq!(stream.status, upgrade.status, "{query}");
    assert_eq!(stream.body, upgrade.body, "{query}");
    let retry = (stream.header("retry-after"), upgrade.header("retry-after"));
    assert_eq!(retry.0, retry.1, "{query}");
    stream.status
}

#[tokio::test]
async fn a_stream_is_refused_as_an_upgrade_is() {
    let node = Node::start(HISTORY).await;
    for (query, headers, status) in [
        ("", &[][..], 400),
        ("userId=%20", &[][..], 400),
        ("userId=ann&since=x", &[][..], 400),
        ("userId=ann", &[("Origin", "https://evil.example")][..], 403),
    ] {
        assert_eq!(assert_refused_alike(&node, query, headers).await, status);
    }
    for id in ["x", "a:b", "k3v9:1\r\nLast-Event-ID: k3v9:2"] {
        let head = format!("GET /sse?userId=ann HTTP/1.1\r\nLast-Event-ID: {id}");
        let answer = node.http(&head).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "invalid_since"),
            "{id}"
        );
    }
    let head = "GET /sse?userId=ann HTTP/1.1\r\nContent-Length: 1";
    let answer = node.http_with_body(head, "x").await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "unexpected_body")
    );
    let answer = node.http("HEAD /sse?userId=ann HTTP/1.1").await;
    assert_eq!(answer.status, 405);
    assert_eq!(node.metric("wss_active_connections ").await, Some(0.0));
}

#[tokio::test]
async fn a_token_comes_as_a_header_or_in_the_query_and_is_checked_as_for_an_upgrade() {
    let node = Node::start(JWT).await;
    let token = sign(&json!({"sub": "ann", "exp": seconds_from_now(600.0)}));
    let head = format!("GET /sse HTTP/1.1\r\nAuthorization: Bearer {token}");
    let mut ann = EventClient::open(&node, &head).await;
    assert!(ann.welcome["tokenExpiresInMs"].is_u64());
    let head = format!("GET /sse?token={token} HTTP/1.1");
    assert_eq!(
        EventClient::open(&node, &head).await.welcome["userId"],
        "ann"
    );
    let expired = sign(&json!({"sub": "ann", "exp": seconds_from_now(-600.0)}));
    for query in ["", "token=x", &format!("token={expired}")] {
        assert_eq!(assert_refused_alike(&node, query, &[]).await, 401);
    }
    let frame = json!({"type": "token", "id": "t", "payload": token});
    ann.send(&frame.to_string()).await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    ann.send(&json!({"type": "token", "id": "t", "payload": expired}).to_string())
        .await;
    assert_eq!(ann.json().await["payload"]["code"], "invalid_token");
}

#[tokio::test]
async fn the_limits_of_connections_count_streams_too_and_a_silent_one_keeps_its_place() {
    let node = Node::start(
        "[server]\nping_interval = \"10ms\"\n\
         [limits]\nconnections_per_user_max = 1\nconnections_max = 2",
    )
    .await;
    let mut ann = EventClient::connect(&node, "ann").await;
    // It has got comments, and can answer none of them.
    for _ in 0..5 {
        ann.part().await;
    }
    assert_eq!(assert_refused_alike(&node, "userId=ann", &[]).await, 429);
    let _bob = EventClient::connect(&node, "bob").await;
    assert_eq!(assert_refused_alike(&node, "userId=cid", &[]).await, 503);
    ann.send(r#"{"type":"heartbeat","id":"1"}"#).await;
    assert_eq!(ann.json().await["payload"]["id"], "1");
    drop(ann);
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
    EventClient::connect(&node, "ann").await;
}

#[tokio::test]
async fn pages_of_an_allowed_origin_may_read_every_answer_and_no_others() {
    const PAGE: &str = "https://app.example.com";
    let node = Node::start(&format!("[server]\nallowed_origins = [\"{PAGE}\"]")).await;
    let origin = format!("Origin: {PAGE}");
    for path in ["/sse", "/sse/0123456789ab-1"] {
        let answer = node
            .http(&format!("OPTIONS {path} HTTP/1.1\r\n{origin}"))
            .await;
        assert_eq!(answer.status, 204);
        for (header, value) in [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-methods", "GET, POST"),
            (
                "access-control-allow-headers",
                "authorization, content-type, last-event-id",
            ),
            ("access-control-expose-headers", "Retry-After"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(header), Some(value), "{path}");
        }
        assert!(answer.header("access-control-max-age").is_some());
        let head = format!("OPTIONS {path} HTTP/1.1\r\nOrigin: https://evil.example");
        let answer = node.http(&head).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (403, "origin_not_allowed")
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let allowed = |answer: &crate::harness::Answer| {
        let origin = answer.header("access-control-allow-origin");
        origin.map(str::to_owned)
    };
    let head = format!("GET /sse?userId=ann HTTP/1.1\r\n{origin}");
    let ann = EventClient::open(&node, &head).await;
    assert_eq!(allowed(&ann.head).as_deref(), Some(PAGE));
    let refused = node.http(&format!("GET /sse HTTP/1.1\r\n{origin}")).await;
    assert_eq!(
        (refused.status, allowed(&refused).as_deref()),
        (400, Some(PAGE))
    );
    for (page, key, status, may_read) in [
        (PAGE, ann.key(), 202, Some(PAGE)),
        (PAGE, "x", 401, Some(PAGE)),
        ("https://evil.example", ann.key(), 403, None),
    ] {
        let answer = node.post(&ann.path(), key, &[("Origin", page)], "{}").await;
        assert_eq!(
            (answer.status, allowed(&answer).as_deref()),
            (status, may_read)
        );
    }
}

#[tokio::test]
async fn both_requests_can_be_switched_off() {
    let node = Node::start("[server]\nsse = false").await;
    for answer in [
        node.http("GET /sse?userId=ann HTTP/1.1").await,
        node.post("/sse/0123456789ab-1", "x", &[], "{}").await,
    ] {
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "sse_disabled")
        );
    }
    node.client("ann").await.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_going_down_takes_no_streams() {
    let node = Node::start("[server]\ndrain_timeout = \"60s\"").await;
    // It does not answer the close, so that the drain lasts.
    let _raw = crate::raw::RawClient::connect(&node, "ann").await;
    node.terminate();
    node.until_metric("wss_closes_total{code=\"drain\"} ", |closes| closes == 1.0)
        .await;
    assert_eq!(assert_refused_alike(&node, "userId=bob", &[]).await, 503);
}
