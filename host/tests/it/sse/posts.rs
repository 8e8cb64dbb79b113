//! Frames that are posted to a connection of the same node.

use futures_util::future::join_all;
use serde_json::json;

use super::client::EventClient;
use crate::{
    guests::{PATIENT, component},
    harness::Node,
};

const KEY: &str = "00000000000000000000000000000000";

fn posts(result: &str) -> String {
    format!("wss_sse_posts_total{{result=\"{result}\"}} ")
}

#[tokio::test]
async fn a_frame_needs_the_key_of_its_connection() {
    let node = Node::start("").await;
    let (mut ann, bob) = (
        EventClient::connect(&node, "ann").await,
        EventClient::connect(&node, "bob").await,
    );
    let frame = r#"{"type":"heartbeat","id":"1"}"#;
    for key in [KEY, bob.key(), "", "x", &ann.key()[1..]] {
        let answer = node.post(&ann.path(), key, &[], frame).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (401, "unauthorized"),
            "{key:?}"
        );
        assert!(!answer.body.contains(ann.key()));
    }
    let head = format!("POST {} HTTP/1.1\r\nContent-Length: 2", ann.path());
    assert_eq!(node.http_with_body(&head, "{}").await.status, 401);
    ann.send(frame).await;
    assert_eq!(ann.json().await["payload"]["id"], "1");
    assert_eq!(node.metric(&posts("unauthorized")).await, Some(6.0));
    assert_eq!(node.metric(&posts("taken")).await, Some(1.0));
}

#[tokio::test]
async fn an_address_that_guesses_keys_is_slowed_down_and_the_right_key_always_works() {
    let node = Node::start("").await;
    let ann = EventClient::connect(&node, "ann").await;
    let path = ann.path();
    loop {
        let guesses = (0..20).map(|_| node.post(&path, KEY, &[], "{}"));
        let answers = join_all(guesses).await;
        if let Some(slowed) = answers.iter().find(|answer| answer.status == 429) {
            assert_eq!(slowed.error_code(), "rate_limited");
            assert!(slowed.header("retry-after").is_some());
            break;
        }
    }
    ann.send("{}").await;
}

#[tokio::test]
async fn a_frame_for_an_unknown_connection_or_with_invalid_content_gets_a_clear_error() {
    let node = Node::start("[limits]\nframe_bytes_max = \"1KiB\"").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    let own = ann.id().split_once('-').expect("a nonce").0.to_owned();
    for nobody in [&*format!("{own}-ffff"), "0123456789ab-1", "x", "..", "%00"] {
        let answer = node
            .post(&format!("/sse/{nobody}"), ann.key(), &[], "{}")
            .await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "unknown_connection"),
            "{nobody}"
        );
    }
    let big = "x".repeat(1025);
    let answer = ann.post_to(&node, &big).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (413, "too_big")
    );
    // Without a length that would announce it.
    let chunked = format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    let head = format!(
        "POST {} HTTP/1.1\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked",
        ann.path(),
        ann.key()
    );
    let answer = node.http_with_body(&head, &chunked).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (413, "too_big")
    );
    let head = format!("GET {} HTTP/1.1", ann.path());
    let answer = node.http(&head).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    // An error of the protocol comes through the stream, as over a WebSocket.
    ann.send("no JSON").await;
    assert_eq!(ann.json().await["payload"]["code"], "invalid_frame");
    ann.send("").await;
    assert_eq!(ann.json().await["payload"]["code"], "invalid_frame");
    assert_eq!(node.metric(&posts("too_big")).await, Some(2.0));
    assert_eq!(node.metric(&posts("unknown_connection")).await, Some(5.0));
}

#[tokio::test]
async fn a_frame_that_is_not_utf8_is_refused() {
    use tokio::io::AsyncWriteExt;
    let node = Node::start("").await;
    let ann = EventClient::connect(&node, "ann").await;
    let mut stream = node.tcp().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\
         Connection: close\r\n\r\n",
        ann.path(),
        ann.key()
    );
    let request = [head.as_bytes(), &[0xff, 0xfe]].concat();
    stream.write_all(&request).await.unwrap();
    let answer = crate::harness::to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("not_utf8"), "{answer}");
}

#[tokio::test]
async fn a_frame_that_never_comes_to_an_end_is_given_up() {
    let node = Node::start("[limits]\nmessage_time_max = \"100ms\"").await;
    let ann = EventClient::connect(&node, "ann").await;
    let head = format!(
        "POST {} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: 10",
        ann.path(),
        ann.key()
    );
    let answer = node.http_with_body(&head, "half").await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (408, "slow_message")
    );
}

#[tokio::test]
async fn a_client_over_its_rate_learns_it_from_the_stream_and_a_flood_closes_it() {
    let node = Node::start("[limits]\nmessages_per_second = 1\nmessages_burst = 1").await;
    let mut ann = EventClient::connect(&node, "ann").await;
    let mut codes = Vec::new();
    while codes.len() < 3 {
        ann.send(r#"{"type":"heartbeat","id":"1"}"#).await;
        let answer = ann.json().await;
        assert_eq!(answer["payload"]["id"], "1", "{answer}");
        if answer["type"] == "error" {
            codes.push(answer["payload"]["code"].clone());
        }
    }
    assert_eq!(codes, vec![json!("rate_limited"); 3]);
    while ann.post_to(&node, "{}").await.status == 202 {}
    assert_eq!(ann.closed().await, 4503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_wait_for_a_busy_connection_are_bounded() {
    let files: [(&str, &[u8]); 1] = [("hostile.wasm", &component("hostile"))];
    let config = format!(
        "[[plugins]]\nname = \"hostile\"\npath = \"hostile.wasm\"\nevents = [\"hostile.*\"]\n{PATIENT}"
    );
    let node = Node::start_with(&files, &config).await;
    let ann = EventClient::connect(&node, "ann").await;
    // Each of them takes all its time; they are handled one after another.
    let mut frames =
        std::iter::repeat_n(r#"{"type":"hostile.sleep"}"#, 6).chain(std::iter::repeat("{}"));
    let mut taken = 0;
    let full = loop {
        let frame = frames.next().expect("it has no end");
        let answer = ann.post_to(&node, frame).await;
        if answer.status != 202 {
            break answer;
        }
        taken += 1;
        assert!(taken < 40, "no end");
    };
    assert_eq!(
        (full.status, full.error_code().as_str()),
        (429, "inbox_full")
    );
    assert!(full.header("retry-after").is_some());
    assert!(taken >= 32, "{taken}");
    assert_eq!(node.metric(&posts("inbox_full")).await, Some(1.0));
}
