//! HTTP as the RFCs require (9110, 9112, 6455), and host names that an attacker could use against a browser.

use crate::{
    harness::Node,
    logged::{Logged, message},
    raw::upgrade_head,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// The status of an upgrade with these lines instead of `Host`; the connection is closed at once.
async fn upgrade_with(node: &Node, target: &str, lines: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = node.tcp().await;
    let request = format!("GET {target} HTTP/1.1\r\n{lines}{UPGRADE}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    status(std::str::from_utf8(&start).unwrap())
}

#[tokio::test]
async fn a_request_names_exactly_one_valid_host() {
    let node = Node::start("").await;
    for (lines, expected) in [
        ("Host: localhost\r\n", 101),
        ("host:localhost:8080\r\n", 101),
        ("Host: 127.0.0.1\r\n", 101),
        ("Host: [::1]:80\r\n", 101),
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        ("Host: localhost\r\nHOST: other\r\n", 400),
        ("Host:\r\n", 400),
        ("Host: local host\r\n", 400),
        ("Host: localhost:port\r\n", 400),
        ("Host: localhost:99999\r\n", 400),
        ("Host: user@localhost\r\n", 400),
        ("Host: http://localhost\r\n", 400),
        ("Host: localhost/\r\n", 400),
        ("Host: [::1\r\n", 400),
    ] {
        assert_eq!(
            upgrade_with(&node, "/ws?userId=ann", lines).await,
            expected,
            "{lines:?}"
        );
        let rest = "Connection: close\r\n\r\n";
        let plain = node
            .raw(&format!("GET /health HTTP/1.1\r\n{lines}{rest}"))
            .await;
        let plain_expected = if expected == 101 { 200 } else { 400 };
        assert_eq!(status(&plain), plain_expected, "{lines:?}");
    }
    let old = node.raw("GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(status(&old), 200, "HTTP/1.0 need not name a host");
}

#[tokio::test]
async fn the_host_of_a_whole_uri_wins_over_the_header() {
    let node = Node::start("").await;
    let origin = |origin: &str, host: &str| format!("Host: {host}\r\nOrigin: {origin}\r\n");
    for (uri, lines, expected) in [
        (
            "http://localhost/ws?userId=a",
            origin("http://localhost", "127.0.0.1"),
            101,
        ),
        (
            "http://127.0.0.1/ws?userId=a",
            origin("http://localhost", "localhost"),
            403,
        ),
        (
            "http://localhost:80/ws?userId=a",
            origin("http://localhost", "x"),
            101,
        ),
        (
            "https://localhost/ws?userId=a",
            origin("https://localhost:443", "x"),
            101,
        ),
        (
            "ws://localhost/ws?userId=a",
            "Host: localhost\r\n".to_owned(),
            101,
        ),
        (
            "http://evil.example/ws?userId=a",
            "Host: localhost\r\n".to_owned(),
            403,
        ),
        (
            "ftp://localhost/ws?userId=a",
            "Host: localhost\r\n".to_owned(),
            400,
        ),
        (
            "http://a@localhost/ws?userId=a",
            "Host: localhost\r\n".to_owned(),
            400,
        ),
        ("http://localhost/ws?userId=a", String::new(), 400),
    ] {
        assert_eq!(
            upgrade_with(&node, uri, &lines).await,
            expected,
            "{uri} {lines:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_gets_426_with_upgrade_headers() {
    let node = Node::start("").await;
    let good = upgrade_head("/ws?userId=ann") + "\r\n";
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Version: 13", "Version: 8"),
        ("Version: 13", "Version: 13, 8"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
    ] {
        let request = good.replacen(from, to, 1);
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = node.raw(&request).await.to_lowercase();
        assert_eq!(status(&answer), 426, "{to}");
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
        ] {
            assert!(answer.contains(&format!("\r\n{line}")), "{to}: {answer}");
        }
    }
    let with_body = good.replacen("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc", 1);
    assert_eq!(
        status(
            &node
                .raw(&with_body.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
                .await
        ),
        400
    );
}

#[tokio::test]
async fn an_http_2_preface_is_answered_with_505_in_http_1() {
    let node = Node::start("").await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // The settings of HTTP/2 follow the preface.
    let answer = node.raw(&format!("{preface}\0\0\0\u{4}\0\0\0\0\0")).await;
    assert_eq!(status(&answer), 505, "{answer}");
    assert!(
        answer.contains("HTTP/1.1") && answer.contains("http_version"),
        "{answer}"
    );
}

#[tokio::test]
async fn in_mode_none_on_loopback_only_local_hosts_are_served() {
    let node = Node::start("[server]\nallowed_hosts = [\"chat.local\", \"*.example.test\"]").await;
    for path in ["/ws?userId=ann", "/health", "/metrics", "/api/", "/nothing"] {
        let evil =
            format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n");
        let answer = node
            .raw(&format!("{evil}{UPGRADE}Connection: close\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), 403, "{path}: {answer}");
        assert!(
            answer.contains("evil.example") && answer.contains("server.allowed_hosts"),
            "{answer}"
        );
    }
    for host in [
        "localhost",
        "app.localhost:8080",
        "127.0.0.1",
        "[::1]",
        "chat.local",
        "a.example.test:1",
    ] {
        let lines = format!("Host: {host}\r\nOrigin: http://{host}\r\n");
        assert_eq!(
            upgrade_with(&node, "/ws?userId=ann", &lines).await,
            101,
            "{host}"
        );
    }
    for host in [
        "example.test",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ] {
        let lines = format!("Host: {host}\r\n");
        assert_eq!(
            upgrade_with(&node, "/ws?userId=ann", &lines).await,
            403,
            "{host}"
        );
    }
    let metric = "wss_http_refused_total{reason=\"host\"} ";
    node.until_metric(metric, |count| count == 8.0).await;
}

#[tokio::test]
async fn with_tokens_any_host_is_served() {
    let secret = "[auth]\nmode = \"jwt\"\njwt_secret = \"0123456789abcdef0123456789abcdef\"";
    let node = Node::start(secret).await;
    let answer = node
        .raw("GET /health HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 200);
}

#[tokio::test]
async fn listed_origins_come_in_and_a_refusal_names_origin_and_host() {
    let config = "[server]\nallowed_origins = [\"null\", \"file://\", \"https://*.example.com\"]";
    let server = Logged::start(&[], config).await;
    let origin = |origin: &'static str| [("Origin", origin)];
    for listed in [
        "null",
        "file://",
        "https://app.example.com",
        "https://a.b.example.com:443",
    ] {
        let upgraded = server.upgrade("/ws?userId=ann", &origin(listed)).await;
        assert!(upgraded.is_ok(), "{listed}");
    }
    for other in [
        "https://example.com",
        "http://app.example.com",
        "https://evil.com",
        "file:///x",
    ] {
        let answer = server.refused("/ws?userId=ann", &origin(other)).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (403, "origin_not_allowed")
        );
        let host = server.address.to_string();
        assert!(
            answer.body.contains(other) && answer.body.contains(&host),
            "{}",
            answer.body
        );
    }
    let line = server
        .until_line(|line| message(line).contains("another origin is refused"))
        .await;
    assert!(line.to_string().contains("https://example.com"), "{line}");
    let refused = "wss_upgrades_refused_total{reason=\"origin\"} ";
    assert_eq!(server.metric(refused).await, Some(4.0));
}
