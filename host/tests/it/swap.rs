//! Plugins change while everybody stays connected.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Node, WITH_CHAT, chat_plugin, marked};

const SWAPS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_twenty_swaps_lose_double_and_reorder_nothing() {
    // A loaded machine must not fail a call by its deadline here: this is about swaps.
    let patient = "call_cpu_max = \"5s\"\ncall_time_max = \"20s\"\n";
    let node = Node::start(&format!(
        "[limits]\nmessages_per_second = 0\n{WITH_CHAT}{patient}"
    ))
    .await;
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut pairs = Vec::new();
    for pair in 0..20 {
        let (mut from, mut to) = (
            node.client(&format!("a{pair}")).await,
            node.client(&format!("b{pair}")).await,
        );
        let stop = stop.subscribe();
        pairs.push(tokio::spawn(async move {
            let mut sent = 0_u64;
            while !*stop.borrow() {
                let message = json!({"n": sent, "text": "x"});
                let message = json!({"type": "chat_message", "payload": message, "receiverId": format!("b{pair}"), "id": "i"});
                from.send(&message.to_string()).await;
                let ack = from.json().await;
                assert_eq!(ack["payload"]["status"], "delivered", "{ack}");
                assert_eq!(to.json().await["payload"]["n"], sent, "lost, doubled or out of order");
                sent += 1;
            }
            assert!(sent > 0);
            (from, to)
        }));
    }
    for swap in 1..=SWAPS {
        node.replace("chat.wasm", &marked(&chat_plugin(), &swap.to_string()));
        // The first version counts as one.
        node.until_metric(
            "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"live\"} ",
            |live| live == 1.0 + swap as f64,
        )
        .await;
    }
    stop.send_replace(true);
    let mut clients = Vec::new();
    for pair in pairs {
        clients.push(pair.await.unwrap());
    }
    node.until_metric("wss_active_connections ", |open| {
        open == 2.0 * clients.len() as f64
    })
    .await;
    node.until_metric("wss_unexpected_disconnects_total ", |lost| lost == 0.0)
        .await;
}

#[tokio::test]
async fn a_changed_configuration_acts_on_the_next_message() {
    let node = Node::start(WITH_CHAT).await;
    let mut ann = node.client("ann").await;
    let config = format!("{WITH_CHAT}config = {{ max_text_chars = 3 }}\n");
    node.replace("platform.toml", config.as_bytes());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"live\"} ",
        |live| live == 2.0,
    )
    .await;
    ann.send(r#"{"type":"chat_message","payload":"four","receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["code"], "too_long");
}

#[tokio::test]
async fn broken_files_change_nothing_for_clients() {
    let node = Node::start(WITH_CHAT).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let good = std::fs::read(chat_plugin()).unwrap();
    let broken: [&[u8]; 4] = [
        &good[..good.len() / 2],
        b"",
        b"not wasm",
        b"\0asm\x01\0\0\0",
    ];
    for (index, bytes) in broken.into_iter().enumerate() {
        node.replace("chat.wasm", bytes);
        let expected = index as f64 + 1.0;
        node.until_metric(
            "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"refused\"} ",
            |refused| refused == expected,
        )
        .await;
        let message =
            json!({"type": "chat_message", "payload": index, "receiverId": "bob", "id": "i"});
        ann.send(&message.to_string()).await;
        let ack = ann.json().await;
        assert_eq!(ack["payload"]["status"], "delivered", "{ack}");
        assert_eq!(bob.json().await["payload"], index);
    }
    assert_eq!(node.get("/ready").await.0, 200);
}

#[tokio::test]
async fn a_plugin_that_is_not_there_yet_holds_its_messages_back_and_heals() {
    let node = Node::start(&WITH_CHAT.replace("chat.wasm", "later/chat.wasm")).await;
    let mut ann = node.client("ann").await;
    let message = r#"{"type":"chat_message","payload":"hi","receiverId":"ann"}"#;
    ann.send(message).await;
    let error = ann.json().await;
    assert_eq!(
        (&error["payload"]["code"], &error["payload"]["plugin"]),
        (&json!("plugin_failed"), &json!("chat"))
    );
    assert_eq!(node.get("/ready").await.0, 503);
    std::fs::create_dir(node.path("later")).unwrap();
    node.replace("later/chat.wasm", &std::fs::read(chat_plugin()).unwrap());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"live\"} ",
        |live| live == 1.0,
    )
    .await;
    ann.send(message).await;
    assert_eq!(ann.json().await["payload"], "hi");
    assert_eq!(node.get("/ready").await.0, 200);
}

#[tokio::test]
async fn ids_of_messages_are_unique() {
    let node = Node::start(&format!("[limits]\nmessages_per_second = 0\n{WITH_CHAT}")).await;
    let mut ann = node.client("ann").await;
    let mut seen = BTreeSet::new();
    for id in 0..100 {
        ann.send(&json!({"type": "chat_message", "payload": 1, "receiverId": "nobody", "id": id.to_string()}).to_string()).await;
        assert!(seen.insert(ann.json().await["payload"]["messageId"].to_string()));
    }
}
