//! The plugin chain: the order of plugins, the types that each one sees, and which plugin handles a message.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, stamped},
    harness::{Client, Node},
};

/// The `stamp` guest as a plugin.
fn plugin(name: &str, events: &[&str], handles: &[&str]) -> String {
    format!(
        "[[plugins]]\nname = \"{name}\"\npath = \"{name}.wasm\"\nevents = {events:?}\n\
         config = {{ name = \"{name}\", handles = {handles:?} }}\n{PATIENT}store_calls_max = 10_000\n"
    )
}

/// A node whose chain is these plugins.
async fn node(plugins: &[String]) -> Node {
    let stamp = stamped("1");
    let files = ["a", "b", "c"].map(|name| format!("{name}.wasm"));
    let files: Vec<_> = files
        .iter()
        .map(|file| (file.as_str(), stamp.as_slice()))
        .collect();
    let config = format!("[limits]\nmessages_per_second = 0\n{}", plugins.concat());
    Node::start_with(&files, &config).await
}

async fn send(client: &mut Client, event_type: &str, payload: Value) {
    let message = json!({"type": event_type, "payload": payload, "receiverId": "ann"});
    client.send(&message.to_string()).await;
}

/// The names in the stamps of a message.
fn stamps(message: &Value) -> Vec<&str> {
    let stamps = message["payload"]["stamps"].as_array();
    stamps
        .unwrap_or_else(|| panic!("{message} has no stamps"))
        .iter()
        .filter_map(|stamp| stamp.as_str()?.split(':').next())
        .collect()
}

#[tokio::test]
async fn validators_run_in_configured_order_and_before_every_transformer() {
    let node = node(&[
        plugin("b", &["*"], &[]),
        plugin("a", &["*"], &[]),
        plugin("c", &["*"], &[]),
    ])
    .await;
    let mut ann = node.client("ann").await;
    for (refuse, refused_by) in [
        (&["a", "b", "c"][..], "b"),
        (&["c", "a"], "a"),
        (&["c"], "c"),
    ] {
        // If a transformer had run before, it would have refused the message.
        let payload = json!({"refuse": refuse, "drop": "b"});
        send(&mut ann, "x", payload).await;
        let error = ann.json().await["payload"].clone();
        assert_eq!(
            (&error["code"], &error["plugin"], &error["message"]),
            (
                &json!("refused"),
                &json!(refused_by),
                &json!(format!("{refused_by} refuses it"))
            )
        );
        assert_eq!(error["retryable"], false);
    }
}

#[tokio::test]
async fn transformers_run_in_configured_order_and_then_one_handler() {
    let node = node(&[
        plugin("b", &["*"], &[]),
        plugin("a", &["*"], &["x.*"]),
        plugin("c", &["*"], &["y.*"]),
    ])
    .await;
    let mut ann = node.client("ann").await;
    send(&mut ann, "z", json!({})).await;
    assert_eq!(stamps(&ann.json().await), ["b", "a", "c"]);
    send(&mut ann, "x.1", json!({})).await;
    let handled = ann.json().await;
    assert_eq!(stamps(&handled), ["b", "a", "c", "a"]);
    assert_eq!(handled["payload"]["handler"], "a");
}

#[tokio::test]
async fn a_plugin_sees_the_types_that_it_is_configured_for_and_no_other() {
    let node = node(&[
        plugin("a", &["chat"], &[]),
        plugin("b", &["game.*"], &["chat", "game.*"]),
        plugin("c", &["*"], &[]),
    ])
    .await;
    let mut ann = node.client("ann").await;
    for (event_type, seen_by) in [
        ("chat", &["a", "c"][..]),
        ("chats", &["c"]),
        ("game", &["c"]),
        ("game.move", &["b", "c", "b"]),
    ] {
        send(&mut ann, event_type, json!({})).await;
        let message = ann.json().await;
        assert_eq!(
            (stamps(&message), &message["type"]),
            (seen_by.to_vec(), &json!(event_type))
        );
    }
}

#[tokio::test]
async fn the_handler_whose_pattern_is_closest_wins() {
    let node = node(&[
        plugin("a", &["*"], &["x.*"]),
        plugin("b", &["*"], &["x.y.*"]),
        plugin("c", &["*"], &["x.y.z"]),
    ])
    .await;
    let mut ann = node.client("ann").await;
    for (event_type, handler) in [
        ("x.1", "a"),
        ("x.y.1", "b"),
        ("x.y.z", "c"),
        ("x.y.zz", "b"),
    ] {
        send(&mut ann, event_type, json!({})).await;
        assert_eq!(
            ann.json().await["payload"]["handler"],
            handler,
            "{event_type}"
        );
    }
}

#[tokio::test]
async fn a_rewritten_message_continues_with_its_new_content() {
    let node = node(&[
        plugin("a", &["old"], &[]),
        plugin("b", &["new"], &["new"]),
        plugin("c", &["old"], &["old"]),
    ])
    .await;
    let mut ann = node.client("ann").await;
    send(&mut ann, "old", json!({"retype": {"a": "new"}})).await;
    let message = ann.json().await;
    assert_eq!(stamps(&message), ["a", "b", "b"]);
    assert_eq!(message["type"], "new");
}

#[tokio::test]
async fn a_message_that_a_transformer_drops_is_silently_not_delivered() {
    let node = node(&[plugin("a", &["*"], &[]), plugin("b", &["*"], &["x"])]).await;
    let mut ann = node.client("ann").await;
    let message = json!({"type": "x", "payload": {"drop": "a"}, "receiverId": "ann", "id": "1"});
    ann.send(&message.to_string()).await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    send(&mut ann, "x", json!({"n": 2})).await;
    assert_eq!(ann.json().await["payload"]["n"], 2);
    assert_eq!(
        node.metric("wss_messages_dropped_total{reason=\"plugin\"} ")
            .await,
        Some(1.0)
    );
}

#[tokio::test]
async fn without_plugins_messages_go_to_their_destinations() {
    let node = Node::start_with(&[], "").await;
    let (mut ann, mut bob) = (node.reachable("ann").await, node.client("bob").await);
    bob.send(r#"{"type":"anything","payload":[1],"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], json!([1]));
    assert_eq!(node.get("/ready").await.0, 200);
}

#[tokio::test]
async fn messages_of_one_connection_wait_for_each_other_and_those_of_others_do_not() {
    let node = node(&[plugin("a", &["*"], &["x"])]).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    // The first message waits until the gate opens; the second could be handled at once.
    send(&mut ann, "x", json!({"wait": "gate", "n": 1})).await;
    send(&mut ann, "x", json!({"n": 2})).await;
    send(&mut bob, "x", json!({"n": 3})).await;
    assert_eq!(bob.json().await["payload"]["n"], 3);
    send(&mut bob, "x", json!({"open": "gate"})).await;
    bob.json().await;
    for expected in [1, 2] {
        assert_eq!(ann.json().await["payload"]["n"], expected);
    }
}

#[tokio::test]
async fn of_two_plugins_with_the_same_pattern_the_new_one_is_refused_wherever_it_stands() {
    let alone = |config: &str| format!("[limits]\nmessages_per_second = 0\n{config}");
    let (a, b) = (plugin("a", &["*"], &["y"]), plugin("b", &["*"], &["x.*"]));
    let node = node(&[a.clone(), b.clone()]).await;
    let mut ann = node.client("ann").await;
    let refused =
        |name| format!("wss_plugin_swaps_total{{plugin=\"{name}\",outcome=\"refused\"}} ");
    // The earlier plugin in the chain claims a type that the later one handles.
    let greedy = plugin("a", &["*"], &["x.*"]);
    node.replace("platform.toml", alone(&format!("{greedy}{b}")).as_bytes());
    node.until_metric(&refused("a"), |count| count == 1.0).await;
    for (event_type, handler) in [("y", "a"), ("x.1", "b")] {
        send(&mut ann, event_type, json!({})).await;
        assert_eq!(ann.json().await["payload"]["handler"], handler);
    }
    // Once the other gives it up, both changes are made at the same time.
    let modest = plugin("b", &["*"], &["z"]);
    node.replace(
        "platform.toml",
        alone(&format!("{greedy}{modest}")).as_bytes(),
    );
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"b\",outcome=\"live\"} ",
        |live| live == 2.0,
    )
    .await;
    for (event_type, handler) in [("x.1", "a"), ("z", "b")] {
        send(&mut ann, event_type, json!({})).await;
        assert_eq!(ann.json().await["payload"]["handler"], handler);
    }
    // The later plugin in the chain claims a type that the earlier one handles.
    node.replace("platform.toml", alone(&format!("{greedy}{b}")).as_bytes());
    node.until_metric(&refused("b"), |count| count == 1.0).await;
    send(&mut ann, "x.1", json!({})).await;
    assert_eq!(ann.json().await["payload"]["handler"], "a");
}

#[tokio::test]
async fn a_plugin_that_is_taken_out_of_the_configuration_is_gone_with_the_next_message() {
    let (a, b) = (plugin("a", &["*"], &[]), plugin("b", &["*"], &["x"]));
    let node = node(&[a.clone(), b]).await;
    let mut ann = node.client("ann").await;
    send(&mut ann, "x", json!({})).await;
    assert_eq!(stamps(&ann.json().await), ["a", "b", "b"]);
    node.replace("platform.toml", a.as_bytes());
    while node
        .get("/metrics")
        .await
        .1
        .contains("wss_plugin_live{plugin=\"b\"")
    {
        tokio::task::yield_now().await;
    }
    send(&mut ann, "x", json!({})).await;
    assert_eq!(stamps(&ann.json().await), ["a"]);
    assert_eq!(node.get("/ready").await.0, 200);
}
