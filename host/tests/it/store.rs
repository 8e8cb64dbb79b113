//! The host functions for plugins: the store and its limits, the context of a call, log lines, custom metrics.

use std::sync::Arc;

use serde_json::{Value, json};
use signalbox::plugin::{MemoryStore, PluginStore, StoreEntry, Trigger};

use crate::{
    guests::{PATIENT, component, counter},
    harness::{Client, Node},
    logged::Logged,
    runtime::{FILE_BYTES_MAX, manager_with, plugin},
};

/// The `follower` guest as a plugin, with more TOML lines.
fn follower(name: &str, lines: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{name}\"\npath = \"follower.wasm\"\nevents = [\"*\"]\n{PATIENT}{lines}\n"
    )
}

async fn node(lines: &str) -> Node {
    let config = format!(
        "[limits]\nmessages_per_second = 0\n{}",
        follower("follower", lines)
    );
    Node::start_with(&[("follower.wasm", &component("follower"))], &config).await
}

/// The results of these calls to the host, all made in one call of the plugin.
async fn results(client: &mut Client, calls: Value) -> Vec<Value> {
    let message = json!({"type": "follower.call", "payload": calls});
    client.send(&message.to_string()).await;
    let message = client.json().await;
    match &message["payload"] {
        Value::Array(results) => results.clone(),
        _ => panic!("no results: {message}"),
    }
}

#[tokio::test]
async fn values_are_kept_counted_compared_and_forgotten() {
    let node = node("").await;
    let mut ann = node.client("ann").await;
    let calls = json!([
        {"get": "k"}, {"set": ["k", "1", null]}, {"get": "k"},
        {"increment": ["k", 41, null]}, {"increment": ["new", -2, null]},
        {"set": ["text", "x", null]}, {"increment": ["text", 1, null]},
        {"swap": ["k", "41", "other", null]}, {"swap": ["k", "42", "mine", null]}, {"get": "k"},
        {"swap": ["fresh", null, "1", null]}, {"swap": ["fresh", null, "2", null]},
        {"remove": "k"}, {"get": "k"}, {"remove": "k"},
    ]);
    assert_eq!(
        results(&mut ann, calls).await,
        [
            json!({"ok": null}),
            json!({"ok": null}),
            json!({"ok": "1"}),
            json!({"ok": 42}),
            json!({"ok": -2}),
            json!({"ok": null}),
            json!({"error": "not-a-number"}),
            json!({"ok": false}),
            json!({"ok": true}),
            json!({"ok": "mine"}),
            json!({"ok": true}),
            json!({"ok": false}),
            json!({"ok": null}),
            json!({"ok": null}),
            json!({"ok": null}),
        ]
    );
}

#[tokio::test]
async fn a_value_ends_with_its_time_and_an_increment_does_not_prolong_it() {
    let node = node("").await;
    let mut ann = node.client("ann").await;
    let calls = json!([
        {"set": ["set", "1", 1]}, {"increment": ["count", 1, 1]}, {"increment": ["count", 1, 1000]},
        {"swap": ["swap", null, "1", 1]}, {"set": ["stays", "1", null]},
    ]);
    results(&mut ann, calls).await;
    let reads = json!([{"get": "set"}, {"get": "count"}, {"get": "swap"}, {"get": "stays"}]);
    loop {
        let found = results(&mut ann, reads.clone()).await;
        assert_eq!(found[3], json!({"ok": "1"}));
        if found[..3].iter().all(|value| *value == json!({"ok": null})) {
            break;
        }
        // A value is either complete or absent.
        let whole = [json!({"ok": "1"}), json!({"ok": "2"}), json!({"ok": null})];
        assert!(found.iter().all(|value| whole.contains(value)), "{found:?}");
    }
}

#[tokio::test]
async fn the_store_of_one_plugin_is_closed_to_others_and_outlives_a_swap() {
    let config = format!(
        "{}{}",
        follower("one", ""),
        follower("two", "config = { idle = true }")
    );
    let node = Node::start_with(&[("follower.wasm", &component("follower"))], &config).await;
    let mut ann = node.client("ann").await;
    results(&mut ann, json!([{"set": ["k", "of one", null]}])).await;
    // Now the other plugin is the handler.
    let config = format!(
        "{}{}",
        follower("one", "config = { idle = true }"),
        follower("two", "")
    );
    node.replace("platform.toml", config.as_bytes());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"two\",outcome=\"live\"} ",
        |live| live == 2.0,
    )
    .await;
    assert_eq!(
        results(
            &mut ann,
            json!([{"get": "k"}, {"set": ["k", "of two", null]}])
        )
        .await[0],
        json!({"ok": null})
    );
    let config = format!(
        "{}{}",
        follower("one", "log_lines_per_second = 1"),
        follower("two", "config = { idle = true }")
    );
    node.replace("platform.toml", config.as_bytes());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"one\",outcome=\"live\"} ",
        |live| live == 3.0,
    )
    .await;
    assert_eq!(
        results(&mut ann, json!([{"get": "k"}])).await,
        [json!({"ok": "of one"})]
    );
}

#[tokio::test]
async fn keys_values_calls_and_all_together_are_bounded() {
    let limits = "store_value_bytes_max = \"1KiB\"\nstore_key_bytes_max = \"16B\"\n\
                  store_calls_max = 8\nstore_bytes_max = \"4KiB\"\n";
    let node = node(limits).await;
    let mut ann = node.client("ann").await;
    let (fits, long) = ("x".repeat(1024), "x".repeat(1025));
    let too_large = json!({"error": "too-large"});
    let calls = json!([
        {"set": ["k", fits, null]}, {"set": ["k", long, null]}, {"swap": ["k", null, long, null]},
        {"get": "k".repeat(17)}, {"increment": ["k".repeat(17), 1, null]}, {"get": "k".repeat(16)},
    ]);
    let found = results(&mut ann, calls).await;
    assert_eq!(found[0], json!({"ok": null}));
    assert_eq!(
        found[1..5],
        [const { Value::Null }; 4].map(|_| too_large.clone())
    );
    assert_eq!(found[5], json!({"ok": null}));

    let fill: Vec<_> = (0..8)
        .map(|index| json!({"set": [format!("fill{index}"), fits, null]}))
        .collect();
    let found = results(&mut ann, Value::from(fill)).await;
    assert_eq!(found[7], too_large, "all together");
    assert_eq!(
        results(
            &mut ann,
            json!([{"remove": "k"}, {"set": ["fill7", "x".repeat(512), null]}])
        )
        .await[1],
        json!({"ok": null}),
        "what is removed makes room"
    );

    let many = Value::from(vec![json!({"get": "k"}); 10]);
    let found = results(&mut ann, many).await;
    assert_eq!(found[7], json!({"ok": null}));
    assert_eq!(
        found[8..],
        [(); 2].map(|()| json!({"error": "too-many-calls"}))
    );
    // The next call has a fresh budget.
    assert_eq!(
        results(&mut ann, json!([{"get": "k"}])).await,
        [json!({"ok": null})]
    );
}

#[tokio::test]
async fn the_context_of_a_call_has_the_client_the_node_and_the_time() {
    let node = node("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let context = results(&mut ann, json!(["context"])).await[0].clone();
    let other = results(&mut bob, json!(["context"])).await[0].clone();
    let client = &context["client"];
    assert_eq!(
        (&client["user"], &client["claims"]),
        (&json!("ann"), &json!("{}"))
    );
    assert_ne!(client["connection"], other["client"]["connection"]);
    let address = ann.stream().local_addr().unwrap().to_string();
    assert_eq!(client["address"], address);
    let (now, since) = (context["now"].as_u64(), client["connected_at"].as_u64());
    assert!(since > Some(1_600_000_000_000) && since <= now, "{context}");
    assert!(
        context["node"]
            .as_str()
            .is_some_and(|node| !node.is_empty())
    );
    assert_eq!(context["node"], other["node"]);
    let calls = json!(["context", "context", "context", "context"]);
    let numbers: Vec<_> = results(&mut ann, calls)
        .await
        .iter()
        .map(|c| c["random"].clone())
        .collect();
    assert!(
        numbers.iter().any(|number| *number != numbers[0]),
        "{numbers:?}"
    );
}

#[tokio::test]
async fn metrics_of_plugins_are_exported_with_those_of_the_host() {
    let node = node("").await;
    let mut ann = node.client("ann").await;
    let calls = json!([
        {"count": ["hits", 2]}, {"count": ["hits", 3]}, {"observe": ["size", 12.0]},
        {"count": ["size", 1]}, {"count": ["Not A Name", 1]},
    ]);
    results(&mut ann, calls).await;
    let figure = |kind: &str, name: &str| {
        format!("wss_plugin_{kind}{{plugin=\"follower\",name=\"{name}\"}} ")
    };
    assert_eq!(node.metric(&figure("count_total", "hits")).await, Some(5.0));
    assert_eq!(
        node.metric(&figure("observed_count", "size")).await,
        Some(1.0)
    );
    assert_eq!(
        node.metric(&figure("observed_sum", "size")).await,
        Some(12.0)
    );
}

#[tokio::test]
async fn log_lines_have_level_plugin_and_version_and_are_cut() {
    let server = Logged::start(
        &[("follower.wasm", &component("follower"))],
        &follower("follower", ""),
    )
    .await;
    let mut ann = server.client("ann").await;
    let long = "y".repeat(5_000);
    let calls = json!([
        {"log": ["debug", "quiet"]}, {"log": ["info", "one\nFORGED two"]}, {"log": ["warn", long]}, {"log": ["error", "last"]},
        {"count": ["Not A Name", 1]},
    ]);
    results(&mut ann, calls).await;
    let complaint = server
        .until_line(|line| line.to_string().contains("`Not A Name`"))
        .await;
    assert_eq!(complaint["level"], "WARN");
    let of_plugin = server.lines(|line| line["target"] == "signalbox::plugin");
    let logged: Vec<_> = of_plugin
        .iter()
        .map(|line| {
            (
                line["level"].as_str().unwrap(),
                crate::logged::message(line),
            )
        })
        .collect();
    assert_eq!(
        logged[0],
        ("INFO", "one FORGED two"),
        "debug is filtered out"
    );
    assert_eq!(
        (logged[1].0, logged[1].1.len()),
        ("WARN", 1024 + '…'.len_utf8())
    );
    assert_eq!(logged[2], ("ERROR", "last"));
    for line in &of_plugin {
        assert_eq!(line["plugin"], "follower");
        assert_eq!(line["version"].as_str().map(str::len), Some(12), "{line}");
        // The connection of the call, and the fields that all lines have.
        assert!(line["connection"].is_string(), "{line}");
        assert_eq!(line["connection"], of_plugin[0]["connection"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_may_migrate_stored_values_before_the_version_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("counter.wasm");
    std::fs::write(&file, counter("1")).unwrap();
    let store = Arc::<MemoryStore>::default();
    let manager = manager_with(&store);
    let apply = async |config: &str| {
        let configs = [plugin("counter", &file, config)];
        let refusals = manager
            .apply(&configs, FILE_BYTES_MAX, Trigger::Config)
            .await;
        assert!(refusals.is_empty(), "{refusals:?}");
    };
    apply("{}").await;
    let entry = StoreEntry {
        key: "name",
        value: b"ann",
        ttl: None,
    };
    store.set("counter", 1 << 20, entry).await.unwrap();
    // Several instances run the migration, one after another.
    apply(r#"{"migrate":true}"#).await;
    assert_eq!(store.get("counter", "name").await, Ok(None));
    assert_eq!(
        store.get("counter", "names").await,
        Ok(Some(b"[ann]".to_vec()))
    );
}
