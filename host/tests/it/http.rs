//! The endpoints for probes and scrapers on the same listener.

use crate::harness::{Node, WITH_CHAT};

#[tokio::test]
async fn probes_of_a_healthy_node_answer_200() {
    let node = Node::start(WITH_CHAT).await;
    assert_eq!(node.get("/health").await.0, 200);
    assert_eq!(node.get("/ready").await.0, 200);
    assert_eq!(node.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_text() {
    let node = Node::start(WITH_CHAT).await;
    let _ann = node.client("ann").await;
    let of_prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    for (accept, kind, has_end) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", false),
        (
            of_prometheus,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\nAccept: {accept}");
        let answer = node.http(&request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(kind));
        for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("wss_"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(answer.body.contains("\nwss_active_connections 1"));
        assert_eq!(answer.body.ends_with("# EOF\n"), has_end);
    }
}

#[tokio::test]
async fn a_scraper_gets_no_format_that_it_refuses_or_does_not_know() {
    let node = Node::start("").await;
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (accept, kind) in [
        ("application/openmetrics-text;q=0", text),
        ("application/openmetrics-text;q=0,*/*", text),
        ("application/openmetrics-text;version=2.0.0", text),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.2", text),
        ("text/plain;q=0,*/*", open_metrics),
        (
            "text/plain;q=0.1,application/openmetrics-text;q=0.2",
            open_metrics,
        ),
        (
            "application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0;q=0.1",
            open_metrics,
        ),
    ] {
        let answer = node
            .http(&format!("GET /metrics HTTP/1.1\r\nAccept: {accept}"))
            .await;
        assert_eq!(answer.header("content-type"), Some(kind), "{accept}");
    }
}

#[tokio::test]
async fn metrics_can_be_switched_off() {
    let node = Node::start("[metrics]\nprometheus = false").await;
    assert_eq!(node.get("/metrics").await.0, 404);
}

#[tokio::test]
async fn without_a_key_every_call_of_both_apis_answers_401_in_json() {
    let node = Node::start(WITH_CHAT).await;
    for call in [
        "POST /api/messages",
        "GET /api/users/ann",
        "GET /api/",
        "GET /admin/",
        "GET /admin/plugins",
        "PUT /admin/plugins/chat",
        "DELETE /admin/connections/1",
        "GET /admin/openapi.json",
    ] {
        let head = format!("{call} HTTP/1.1\r\nContent-Length: 0\r\nAuthorization: Bearer x");
        let answer = node.http(&head).await;
        assert_eq!(answer.status, 401, "{call}");
        assert_eq!(answer.error_code(), "unauthorized", "{call}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{call}");
    }
}
