//! Responses that are sent before the request body has arrived: the client sees them, whatever it is still sending.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::harness::{Endpoint, Node, PATIENCE, to_end};

const KEY: &str = "an-api-key-of-tests";

const CONFIG: &str = "[api]\nkeys = [\"an-api-key-of-tests\"]\n[admin]\nkey = \"an-admin-key-of-tests\"\n\
                      [limits]\nplugin_file_bytes_max = \"1MiB\"\n";

/// The response to a client that sends its whole body before it reads a byte.
async fn large(node: &Endpoint, call: &str, headers: &str, body: &[u8]) -> String {
    let mut stream = node.tcp().await;
    let head = format!(
        "{call} HTTP/1.1\r\nHost: localhost{headers}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let sent = timeout(PATIENCE, stream.write_all(body)).await;
    sent.expect("the body is taken")
        .expect("no reset while it is sent");
    to_end(&mut stream).await
}

#[tokio::test]
async fn every_refusal_of_a_large_body_is_readable_for_the_client() {
    let node = Node::start(CONFIG).await;
    let key = format!("\r\nAuthorization: Bearer {KEY}");
    let admin = "\r\nAuthorization: Bearer an-admin-key-of-tests";
    let body = vec![b'x'; 12 << 20];
    for (call, headers, status) in [
        ("POST /api/messages", "", 401),
        ("POST /api/messages", key.as_str(), 413),
        ("POST /api/batch", "", 401),
        ("POST /api/batch", key.as_str(), 413),
        ("POST /api/users/online", key.as_str(), 413),
        ("PUT /api/rooms/r/members/ann", "", 401),
        ("POST /api/rooms/r", key.as_str(), 405),
        ("POST /api/nothing", key.as_str(), 404),
        ("PUT /api/messages", key.as_str(), 405),
        ("PUT /admin/plugins/chat", "", 401),
        ("PUT /admin/plugins/other", admin, 404),
        ("POST /admin/plugins", admin, 405),
        ("POST /nothing", "", 404),
        ("POST /health", "", 405),
        ("POST /metrics", "", 405),
        ("POST /ws?userId=ann", "", 405),
    ] {
        let head = large(&node, call, headers, &body).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{call}: {head}"
        );
        assert!(
            head.to_lowercase().contains("connection: close"),
            "{call}: {head}"
        );
    }
}

#[tokio::test]
async fn a_chunked_body_is_read_too() {
    let node = Node::start(CONFIG).await;
    let mut stream = node.tcp().await;
    let head =
        "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..100 {
        let sent = timeout(PATIENCE, stream.write_all(chunk.as_bytes())).await;
        sent.expect("the body is taken").expect("no reset");
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(to_end(&mut stream).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_short_body_costs_nothing_and_the_connection_serves_on() {
    let node = Node::start(CONFIG).await;
    let mut stream = node.tcp().await;
    for _ in 0..3 {
        let head = "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The body arrives a moment after the head.
        sleep(Duration::from_millis(20)).await;
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("}}") {
            let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap();
            answer.push(char::from(byte.expect("it serves on")));
        }
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(
            !answer.to_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_the_refusal_without_sending_the_body() {
    let node = Node::start(CONFIG).await;
    let head = |key: &str| {
        format!(
            "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\nExpect: 100-continue\r\n\
             Connection: close\r\n{key}\r\n"
        )
    };
    let refused = node.raw(&head("")).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let mut stream = node.tcp().await;
    let with_key = head(&format!("Authorization: Bearer {KEY}\r\n"));
    stream.write_all(with_key.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    let read = timeout(PATIENCE, stream.read_exact(&mut first)).await;
    read.expect("an answer").expect("a whole one");
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
        .write_all(br#"{"type":"a","room":"r1"}"#)
        .await
        .unwrap();
    assert!(to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
