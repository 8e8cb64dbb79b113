//! Slow clients count as alive, silent ones lose their slots, and messages must be completed in time.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    harness::Node,
    process::{Server, Signal},
    raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawClient, TEXT},
};

/// The interval between two signs of life.
const PAUSE: Duration = Duration::from_millis(20);

/// A client has four seconds to answer a ping, so that a busy machine closes no client that answers.
const IMPATIENT: &str = "[server]\nping_interval = \"1s\"\nidle_timeout = \"5s\"\n";

/// Calls `sign` repeatedly until a client that connected later was closed for its silence.
async fn longer_than_silence(node: &Node, mut sign: impl AsyncFnMut()) {
    let mut silent = RawClient::connect(node, "silent").await;
    let mut closed = std::pin::pin!(silent.closed());
    let code = loop {
        sign().await;
        tokio::select! {
            code = &mut closed => break code,
            // This test measures silence, so time has to pass.
            () = sleep(PAUSE) => {}
        }
    };
    assert_eq!(code, 4002);
}

/// Checks that the next frame is the ack of `id`, ignoring pings.
async fn expect_ack(client: &mut RawClient, id: &str) {
    loop {
        let (kind, payload) = client.frame().await.unwrap().unwrap();
        assert_ne!(kind, CLOSE, "{payload:?}");
        if kind == TEXT {
            let text = String::from_utf8(payload).unwrap();
            assert!(text.contains(&format!(r#""id":"{id}""#)), "{text}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_byte_of_a_frame_that_comes_slowly_is_a_sign_of_life() {
    let node = Node::start(IMPATIENT).await;
    let mut ann = RawClient::connect(&node, "ann").await;
    let message = json!({"type": "heartbeat", "id": "slow", "payload": "x".repeat(60_000)});
    let message = message.to_string();
    let mut header = vec![FIN | TEXT, 0x80 | 126];
    header.extend((message.len() as u16).to_be_bytes());
    header.extend([0; 4]);
    ann.send_bytes(&header).await;
    let mut bytes = message.as_bytes();
    longer_than_silence(&node, async || {
        let (piece, rest) = bytes.split_at(10.min(bytes.len() - 1));
        ann.send_bytes(piece).await;
        bytes = rest;
    })
    .await;
    ann.send_bytes(bytes).await;
    expect_ack(&mut ann, "slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fragment_is_a_sign_of_life() {
    let node = Node::start(IMPATIENT).await;
    let mut ann = RawClient::connect(&node, "ann").await;
    ann.send(TEXT, br#"{"type":"heartbeat","id":"slow","payload":""#)
        .await;
    longer_than_silence(&node, async || ann.send(CONTINUATION, b"x").await).await;
    ann.send(FIN | CONTINUATION, br#""}"#).await;
    expect_ack(&mut ann, "slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_and_steadily_is_not_idle() {
    const MESSAGES: usize = 100;
    let config =
        format!("{IMPATIENT}[limits]\noutbox_bytes_max = \"16MiB\"\nmessages_per_second = 0");
    let node = Node::start(&config).await;
    let (mut slow, mut ann) = (
        RawClient::connect(&node, "slow").await,
        node.client("ann").await,
    );
    let text = "x".repeat(60_000);
    for id in 0..MESSAGES {
        let message =
            json!({"type": "x", "receiverId": "slow", "id": id.to_string(), "payload": text});
        ann.send(&message.to_string()).await;
        assert_eq!(ann.json().await["payload"]["status"], "delivered");
    }
    let mut messages = 0;
    longer_than_silence(&node, async || {
        if messages < MESSAGES {
            // It answers no ping.
            match slow.frame().await.unwrap().unwrap() {
                (TEXT, _) => messages += 1,
                (kind, payload) => assert_ne!(kind, CLOSE, "{payload:?}"),
            }
        }
    })
    .await;
    while messages < MESSAGES {
        match slow.frame().await.unwrap().unwrap() {
            (TEXT, _) => messages += 1,
            (kind, payload) => assert_ne!(kind, CLOSE, "{payload:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_in_time_is_closed_with_4005() {
    let node = Node::start("[limits]\nmessage_time_max = \"300ms\"").await;
    let mut bob = node.client("bob").await;
    // A partial header, a partial frame, and a partial message; the last one never ends.
    for begun in [&[FIN | TEXT][..], &[FIN | TEXT, 0x85, 0, 0, 0, 0, b'x']] {
        let mut ann = RawClient::connect(&node, "ann").await;
        ann.send_bytes(begun).await;
        assert_eq!(ann.closed().await, 4005);
    }
    let mut ann = RawClient::connect(&node, "ann").await;
    ann.send(BINARY, b"x").await;
    let code = loop {
        ann.send(CONTINUATION, b"x").await;
        tokio::select! {
            code = ann.closed() => break code,
            () = sleep(PAUSE) => {}
        }
    };
    assert_eq!(code, 4005);
    bob.expect_silence().await;
    node.until_metric("wss_closes_total{code=\"slow_message\"} ", |closes| {
        closes == 3.0
    })
    .await;
}

#[tokio::test]
async fn unfinished_messages_of_all_clients_are_bounded_and_others_are_served() {
    let node = Node::start("[limits]\nunfinished_bytes_max = \"40KiB\"").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    ann.send(TEXT, br#"{"type":"heartbeat","id":"whole","payload":""#)
        .await;
    ann.send(CONTINUATION, &[b'x'; 30_000]).await;
    // Once the server answers, it has read everything before.
    ann.send(FIN | PING, b"").await;
    ann.frame().await.unwrap().unwrap();
    let mut bob = RawClient::connect(&node, "bob").await;
    bob.send(BINARY, &[b'x'; 30_000]).await;
    assert_eq!(bob.closed().await, 4006);
    let mut cid = node.client("cid").await;
    cid.expect_silence().await;
    ann.send(FIN | CONTINUATION, br#""}"#).await;
    expect_ack(&mut ann, "whole").await;
    // The memory is free again.
    let mut bob = RawClient::connect(&node, "bob").await;
    bob.send(BINARY, &[b'x'; 30_000]).await;
    bob.send(FIN | CONTINUATION, b"").await;
    assert_eq!(bob.frame().await.unwrap().unwrap().0, TEXT);
}

#[tokio::test]
async fn sockets_that_never_answer_give_their_places_to_a_client_that_returns() {
    let node = Node::start(
        "[server]\nping_interval = \"1h\"\nidle_timeout = \"2h\"\n[limits]\nconnections_per_user_max = 3",
    )
    .await;
    let mut dead = RawClient::connect(&node, "ann").await;
    let (mut one, mut two) = (node.client("ann").await, node.client("ann").await);
    let answer = node.refused("/ws?userId=ann", &[]).await;
    assert_eq!(answer.status, 429);
    // The live ones answer the ping, and the slot of the dead one is reused after a bounded time.
    let mut three = loop {
        one.expect_silence().await;
        two.expect_silence().await;
        match node.connect("ann", None).await {
            Ok(three) => break three,
            Err(_) => sleep(PAUSE).await,
        }
    };
    assert_eq!(dead.closed().await, 4004);
    for client in [&mut one, &mut two, &mut three] {
        client.expect_silence().await;
    }
    node.until_metric("wss_closes_total{code=\"replaced\"} ", |closes| {
        closes == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_stopped_process_reads_waiting_frames_before_it_closes_clients() {
    let server = Server::start(IMPATIENT).await;
    let mut talks = RawClient::connect(&server, "talks").await;
    let mut answers = RawClient::connect(&server, "answers").await;
    server.signal(Signal::STOP);
    talks
        .send(FIN | TEXT, br#"{"type":"heartbeat","id":"meanwhile"}"#)
        .await;
    // Longer than the limit on silence.
    sleep(Duration::from_secs(6)).await;
    server.signal(Signal::CONT);
    expect_ack(&mut talks, "meanwhile").await;
    // It was silent, and gets another chance.
    assert_eq!(answers.frame().await.unwrap().unwrap().0, PING);
    answers.send(FIN | PONG, b"").await;
    answers
        .send(FIN | TEXT, br#"{"type":"heartbeat","id":"alive"}"#)
        .await;
    expect_ack(&mut answers, "alive").await;
}
