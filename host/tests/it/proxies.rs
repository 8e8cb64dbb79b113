//! Behind proxies: which client address the server uses, and which proxies it trusts.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    admin::{KEY, WITH_KEY, admin, call},
    harness::{Endpoint, Node, to_end},
    logged::Logged,
    raw::{CLOSE, FIN, RawClient, upgrade_head},
};

/// A connection that sends these bytes before its request, which has these headers.
async fn come_in(node: &Endpoint, user: &str, before: &[u8], headers: &str) -> TcpStream {
    let mut stream = node.tcp().await;
    let head = upgrade_head(&format!("/ws?userId={user}"));
    let request = format!("{head}{headers}\r\n");
    stream.write_all(before).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 101", "{headers}");
    stream
}

/// The address that the node recorded for a connection with these headers.
async fn seen(node: &Endpoint, user: &str, headers: &str) -> String {
    let _stream = come_in(node, user, b"", headers).await;
    let path = format!("/admin/connections?user={user}");
    loop {
        let found = admin(node, "GET", &path).await;
        if let Some(address) = found.body["connections"][0]["address"].as_str() {
            return address.to_owned();
        }
    }
}

fn trusting(proxies: &str, more: &str) -> String {
    format!("[server]\ntrusted_proxies = [{proxies}]\n{more}\n{WITH_KEY}")
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_connection_it_is() {
    let node = Node::start(&trusting("\"127.0.0.0/8\", \"10.0.0.0/8\"", "")).await;
    for (index, (headers, client)) in [
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7:0"),
        (
            "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.2\r\n",
            "203.0.113.7:0",
        ),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 2001:db8::7\r\n",
            "[2001:db8::7]:0",
        ),
        (
            "Forwarded: for=\"203.0.113.7:4711\";proto=https\r\n",
            "203.0.113.7:4711",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(seen(&node, &format!("u{index}"), headers).await, client);
    }
    let itself = seen(&node, "itself", "X-Forwarded-For: 6.6.6.6, unknown\r\n").await;
    assert!(itself.starts_with("127.0.0.1:"), "{itself}");
}

#[tokio::test]
async fn forwarding_headers_of_untrusted_peers_are_ignored() {
    for config in [WITH_KEY.to_owned(), trusting("\"10.0.0.0/8\"", "")] {
        let node = Node::start(&config).await;
        let headers = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n";
        let address = seen(&node, "ann", headers).await;
        assert!(address.starts_with("127.0.0.1:"), "{address}");
    }
}

#[tokio::test]
async fn the_limit_of_an_address_is_that_of_the_real_one() {
    let limits = "[limits]\nconnections_per_address_max = 1";
    let node = Node::start(&trusting("\"127.0.0.1\"", limits)).await;
    let from = |address: &'static str| [("X-Forwarded-For", address)];
    let _ann = node
        .upgrade("/ws?userId=a", &from("203.0.113.7"))
        .await
        .expect("the first");
    let _bob = node
        .upgrade("/ws?userId=b", &from("203.0.113.8"))
        .await
        .expect("another address");
    let refused = node
        .refused("/ws?userId=c", &from("6.6.6.6, 203.0.113.7"))
        .await;
    assert_eq!(refused.status, 429);
}

#[tokio::test]
async fn changes_by_operators_are_audited_with_the_real_address() {
    let server = Logged::start(&[], &trusting("\"127.0.0.1\"", "")).await;
    let request = format!(
        "DELETE /admin/connections/none HTTP/1.1\r\nContent-Length: 0\r\nAuthorization: Bearer {KEY}\r\n\
         X-Forwarded-For: 203.0.113.7"
    );
    assert_eq!(server.http(&request).await.status, 404);
    let line = server
        .until_line(|line| line["target"] == "signalbox::audit")
        .await;
    assert!(line.to_string().contains("203.0.113.7"), "{line}");
}

#[tokio::test]
async fn a_stranger_behind_the_same_proxy_keeps_no_operator_out() {
    let node = Node::start(&format!(
        "{WITH_KEY}[api]\nkeys = [\"an-api-key-of-tests\"]\n"
    ))
    .await;
    for _ in 0..30 {
        let guess = call(&node, "GET", "/admin/plugins", Some("a-guess"), b"").await;
        assert!([401, 429].contains(&guess.status));
        assert_eq!(admin(&node, "GET", "/admin/plugins").await.status, 200);
        let backend = call(
            &node,
            "GET",
            "/api/users/ann",
            Some("an-api-key-of-tests"),
            b"",
        )
        .await;
        assert_eq!(backend.status, 200);
        let guess = call(&node, "GET", "/api/users/ann", Some("a-guess"), b"").await;
        assert!([401, 429].contains(&guess.status));
    }
}

const PROXY: &str = "proxy_protocol = \"on\"";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(rest: &[u8]) -> Vec<u8> {
    [V2, rest].concat()
}

#[tokio::test]
async fn the_proxy_protocol_says_whose_connection_it_is() {
    let node = Node::start_proxied(&trusting("\"127.0.0.1\"", PROXY)).await;
    for (index, (header, client)) in [
        (
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n".to_vec(),
            "203.0.113.7:4711",
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 99 80\r\n".to_vec(),
            "[2001:db8::7]:99",
        ),
        (
            v2(&[
                0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80,
            ]),
            "203.0.113.7:4711",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("u{index}");
        let _stream = come_in(&node, &user, &header, "").await;
        assert_eq!(address_of(&node, &user).await, client);
    }
}

/// The address of a user's only connection, requested through the PROXY protocol.
async fn address_of(node: &Endpoint, user: &str) -> String {
    loop {
        let answer = proxied(
            node,
            &format!("GET /admin/connections?user={user} HTTP/1.1\r\nAuthorization: Bearer {KEY}"),
        )
        .await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let body: Value = serde_json::from_str(body).expect("JSON");
        if let Some(address) = body["connections"][0]["address"].as_str() {
            return address.to_owned();
        }
    }
}

async fn proxied(node: &Endpoint, head: &str) -> String {
    let local = "PROXY UNKNOWN\r\n";
    node.raw(&format!(
        "{local}{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ))
    .await
}

#[tokio::test]
async fn a_balancers_own_health_check_is_answered() {
    let node = Node::start_proxied(&trusting("\"127.0.0.1\"", PROXY)).await;
    let check = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut stream = node.tcp().await;
    let local = v2(&[0x20, 0, 0, 0]);
    stream
        .write_all(&[&local, check.as_slice()].concat())
        .await
        .unwrap();
    assert!(to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert!(
        proxied(&node, "GET /health HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_trusted_proxy_without_a_header_or_with_a_malformed_one_is_refused() {
    let limits = format!("{PROXY}\n[limits]\nhttp_header_time_max = \"3s\"");
    let node = Node::start_proxied(&trusting("\"127.0.0.1\"", &limits)).await;
    let check = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for bad in [
        String::new(),
        "PROXY TCP4 203.0.113.7\r\n".to_owned(),
        "PROXY TCP4 203.0.113.700 10.0.0.1 1 2\r\n".to_owned(),
        format!("PROXY TCP4 {}\r\n", "1".repeat(500)),
    ] {
        let answer = node.raw(&format!("{bad}{check}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("proxy_header"),
            "{bad}: {answer}"
        );
    }
    // The server does not wait for the rest of an incomplete header.
    let unfinished = node.raw("PROXY TCP4 203.0").await;
    assert_eq!(unfinished, "");
    let counted = async {
        loop {
            let metrics = proxied(&node, "GET /metrics HTTP/1.1").await;
            if metrics.contains("wss_http_refused_total{reason=\"proxy_header\"} 5") {
                return;
            }
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, counted)
        .await
        .expect("they are counted");
}

#[tokio::test]
async fn only_trusted_proxies_may_send_the_proxy_header() {
    let node = Node::start(&trusting("\"10.0.0.0/8\"", PROXY)).await;
    assert_eq!(node.get("/health").await.0, 200);
    let spoofed = node
        .raw("PROXY TCP4 6.6.6.6 10.0.0.1 1 2\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert!(spoofed.starts_with("HTTP/1.1 400 "), "{spoofed}");
    // Nor does the operators' listener, which has no load balancer in front of it.
    let more = format!("{PROXY}\ninternal_listen = \"127.0.0.1:1\"");
    let node = Node::start_proxied(&trusting("\"127.0.0.1\"", &more)).await;
    assert_eq!(node.internal().get("/metrics").await.0, 200);
}

#[tokio::test]
async fn bytes_before_the_first_request_are_not_read_as_a_frame() {
    let node = Node::start_proxied(&trusting("\"127.0.0.1\"", PROXY)).await;
    let head = format!("PROXY UNKNOWN\r\n{}", upgrade_head("/ws?userId=ann"));
    let (mut client, _) = RawClient::open(&node, &head).await;
    client.send(FIN | CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(client.closed().await, 1000);
}
