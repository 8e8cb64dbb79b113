//! Silent clients are pinged, and disconnected if they stay silent.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    harness::Node,
    raw::{BINARY, CLOSE, FIN, PING, PONG, RawClient, TEXT},
};

#[tokio::test]
async fn a_silent_client_is_pinged_again_and_again() {
    let node = Node::start("[server]\nping_interval = \"20ms\"\nidle_timeout = \"1h\"").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    for _ in 0..3 {
        let (kind, payload) = ann.frame().await.unwrap().unwrap();
        assert_eq!((kind, payload.len()), (PING, 0));
    }
    // It is still served.
    ann.send(FIN | TEXT, br#"{"type":"heartbeat","id":"1"}"#)
        .await;
    while ann.frame().await.unwrap().unwrap().0 != TEXT {}
}

#[tokio::test]
async fn a_client_that_stays_silent_is_closed_with_4002_as_an_unexpected_disconnect() {
    let node = Node::start("[server]\nping_interval = \"50ms\"\nidle_timeout = \"300ms\"").await;
    let mut ann = RawClient::connect(&node, "ann").await;
    let mut pings = 0;
    loop {
        match ann.frame().await.unwrap().unwrap() {
            (PING, _) => pings += 1,
            (CLOSE, payload) => {
                assert_eq!(&payload[..2], 4002_u16.to_be_bytes());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pings > 0, "it was not asked whether it lives");
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 1.0)
        .await;
    node.until_metric("wss_closes_total{code=\"idle\"} ", |closes| closes == 1.0)
        .await;
    // Even without the client's answer, its slot is free again after a bounded time.
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_frame_is_a_sign_of_life() {
    let node = Node::start(
        "[server]\nping_interval = \"4s\"\nidle_timeout = \"5s\"\n[limits]\nmessages_per_second = 0",
    )
    .await;
    let signs: [(u8, &[u8]); 5] = [
        (TEXT, br#"{"type":"heartbeat"}"#),
        (BINARY, br#"{"type":"heartbeat"}"#),
        (TEXT, b"garbage"),
        (PING, b""),
        (PONG, b""),
    ];
    let mut lively = Vec::new();
    for sign in signs {
        lively.push((RawClient::connect(&node, "lively").await, sign));
    }
    // It connected after the active clients, and is disconnected before them.
    let mut silent = RawClient::connect(&node, "silent").await;
    let closed = silent.closed();
    let mut closed = std::pin::pin!(closed);
    let code = loop {
        for (client, (kind, payload)) in &mut lively {
            client.send(FIN | *kind, payload).await;
        }
        tokio::select! {
            code = &mut closed => break code,
            // Silence takes time. On a busy machine this pause may be far longer, but it is still shorter than the
            // limit.
            () = sleep(Duration::from_millis(20)) => {}
        }
    };
    assert_eq!(code, 4002);
    for (client, sign) in &mut lively {
        client
            .send(FIN | TEXT, br#"{"type":"heartbeat","id":"the end"}"#)
            .await;
        loop {
            let (kind, payload) = client.frame().await.unwrap().unwrap();
            assert_ne!(kind, CLOSE, "{sign:?}");
            if kind == TEXT && payload.windows(7).any(|part| part == b"the end") {
                break;
            }
        }
    }
}
