//! How a connection ends: by the client, by an invalid frame, by the server.

use crate::{
    harness::Node,
    raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, RawClient, TEXT},
};

#[tokio::test]
async fn a_close_of_the_client_is_answered_in_kind_and_the_connection_ends() {
    let node = Node::start("").await;
    for (code, unexpected) in [
        (1000_u16, 0.0),
        (1008, 1.0),
        (1001, 1.0),
        (3000, 1.0),
        (1011, 2.0),
        (4321, 2.0),
        (4999, 2.0),
    ] {
        let mut ann = RawClient::connect(&node, "ann").await;
        ann.send(FIN | CLOSE, &code.to_be_bytes()).await;
        assert_eq!(ann.closed().await, code);
        // The server ends the TCP connection without a reset.
        ann.ended().await.expect("the connection is not reset");
        node.until_metric("wss_active_connections ", |open| open == 0.0)
            .await;
        node.until_metric("wss_unexpected_disconnects_total ", |lost| {
            lost == unexpected
        })
        .await;
    }
}

#[tokio::test]
async fn a_close_without_a_code_is_answered_without_one_and_is_clean() {
    let node = Node::start("").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    ann.send(FIN | CLOSE, b"").await;
    assert_eq!(ann.frame().await.unwrap(), Some((CLOSE, Vec::new())));
    ann.ended().await.expect("the connection is not reset");
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 0.0)
        .await;
}

#[tokio::test]
async fn protocol_violations_are_closed_with_1002_or_1007() {
    let node = Node::start("").await;
    let mut bob = node.client("bob").await;
    let masked = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    };
    for (bytes, code) in [
        // Not masked.
        (vec![FIN | TEXT, 1, b'x'], 1002),
        // A reserved bit, and reserved opcodes.
        (masked(FIN | 0x40 | TEXT, b"x"), 1002),
        (masked(FIN | 3, b"x"), 1002),
        (masked(FIN | 11, b"x"), 1002),
        // A continuation without a first fragment, and a fragmented ping.
        (masked(FIN | CONTINUATION, b"x"), 1002),
        (masked(PING, b"x"), 1002),
        // A new message within another one.
        (
            [masked(TEXT, b"x"), masked(FIN | BINARY, b"x")].concat(),
            1002,
        ),
        // Invalid UTF-8, also if only the second fragment reveals it.
        (masked(FIN | TEXT, b"\xff"), 1007),
        (
            [masked(TEXT, b"\xc3"), masked(FIN | CONTINUATION, b"x")].concat(),
            1007,
        ),
    ] {
        let mut ann = RawClient::connect(&node, "ann").await;
        ann.send_bytes(&bytes).await;
        assert_eq!(ann.closed().await, code, "{bytes:?}");
        ann.ended().await.expect("the connection is not reset");
        bob.expect_silence().await;
    }
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 9.0)
        .await;
    node.until_metric("wss_active_connections ", |open| open == 1.0)
        .await;
}

#[tokio::test]
async fn clean_closes_are_no_unexpected_disconnects_and_lost_connections_are() {
    let node = Node::start("").await;
    node.client("ann").await.close().await;
    node.until_metric("wss_active_connections ", |value| value == 0.0)
        .await;
    node.until_metric("wss_unexpected_disconnects_total ", |value| value == 0.0)
        .await;
    drop(node.client("bob").await);
    node.until_metric("wss_unexpected_disconnects_total ", |value| value == 1.0)
        .await;
    let cid = node.client("cid").await;
    // With linger zero, dropping the socket resets the connection.
    cid.stream().set_zero_linger().unwrap();
    drop(cid);
    node.until_metric("wss_unexpected_disconnects_total ", |value| value == 2.0)
        .await;
    node.until_metric("wss_active_connections ", |value| value == 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_put_off_its_disconnection() {
    let node = Node::start(
        "[api]\nkeys = [\"a-key-of-a-backend\"]\n[limits]\noutbox_bytes_max = \"64MiB\"\nmessages_per_second = 0",
    )
    .await;
    let mut slow = RawClient::connect(&node, "slow").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let text = "y".repeat(60_000);
    // More than the system's socket buffers hold.
    for _ in 0..300 {
        let message =
            serde_json::json!({"type": "x", "payload": text, "receiverId": "slow", "id": "f"});
        ann.send(&message.to_string()).await;
        assert_eq!(ann.json().await["payload"]["status"], "delivered");
    }
    let path = "/api/users/slow/disconnect";
    let answer = node.post(path, "a-key-of-a-backend", &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    slow.send(FIN | TEXT, br#"{"type":"x","receiverId":"bob"}"#)
        .await;
    node.until_metric("wss_active_connections ", |open| open == 2.0)
        .await;
    bob.expect_silence().await;
}
