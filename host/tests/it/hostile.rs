//! A plugin that misbehaves costs its caller an error, and nobody else anything.

use serde_json::json;

use crate::harness::{Node, guest};

const HOSTILE: &str = r#"
[limits]
messages_per_second = 0
[[plugins]]
name = "hostile"
path = "hostile.wasm"
events = ["hostile.*"]
"#;

async fn node(config: &str) -> Node {
    let node = Node::start(&format!("{HOSTILE}{config}")).await;
    node.replace(
        "hostile.wasm",
        &std::fs::read(guest("hostile")).expect("`cargo xtask plugins --guests` makes it"),
    );
    node
}

async fn live(config: &str) -> Node {
    let node = node(config).await;
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"live\"} ",
        |live| live == 1.0,
    )
    .await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misdeed_is_answered_with_plugin_failed_and_the_next_call_works() {
    let node = live("").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for deed in [
        "loop", "alloc", "panic", "recurse", "sleep", "actions", "output", "json", "reserved",
        "type", "code",
    ] {
        ann.send(&json!({"type": format!("hostile.{deed}"), "id": deed}).to_string())
            .await;
        // While the call is under way, others are served.
        bob.send(r#"{"type":"x","payload":1,"receiverId":"bob"}"#)
            .await;
        assert_eq!(bob.json().await["payload"], 1);
        let error = ann.json().await["payload"].clone();
        assert_eq!(
            (&error["code"], &error["plugin"]),
            (&json!("plugin_failed"), &json!("hostile")),
            "{deed}"
        );
        assert_eq!(
            error["message"], "a plugin failed to handle the message",
            "nothing of the inside is told"
        );
        ann.send(r#"{"type":"hostile.nothing"}"#).await;
        assert_eq!(ann.json().await["payload"], "done", "after {deed}");
    }
}

/// What a call may take where a test is not about time: a loaded machine must not fail it.
const PATIENT: &str = "call_cpu_max = \"5s\"\ncall_time_max = \"20s\"\n";

#[tokio::test]
async fn each_failure_is_counted_by_its_kind() {
    let (hasty, patient) = (live("").await, live(PATIENT).await);
    for (node, deed, kind) in [
        (&hasty, "loop", "deadline"),
        (&hasty, "sleep", "deadline"),
        (&patient, "alloc", "memory"),
        (&patient, "panic", "trap"),
        (&patient, "json", "output"),
        (&patient, "output", "output"),
    ] {
        let metric = format!("wss_plugin_failures_total{{plugin=\"hostile\",kind=\"{kind}\"}} ");
        let before = node.metric(&metric).await;
        let mut ann = node.client("ann").await;
        ann.send(&json!({"type": format!("hostile.{deed}")}).to_string())
            .await;
        assert_eq!(ann.json().await["payload"]["code"], "plugin_failed");
        assert_eq!(
            node.metric(&metric).await,
            before.map(|count| count + 1.0),
            "{deed}"
        );
    }
}

#[tokio::test]
async fn log_lines_and_store_calls_are_bounded_and_the_outside_is_not_there() {
    let node = live(PATIENT).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"hostile.logs"}"#).await;
    assert_eq!(ann.json().await["payload"], "done");
    node.until_metric(
        "wss_plugin_log_lines_dropped_total{plugin=\"hostile\"} ",
        |dropped| dropped >= 800.0,
    )
    .await;
    ann.send(r#"{"type":"hostile.store"}"#).await;
    assert_eq!(ann.json().await["payload"], 68);
    ann.send(r#"{"type":"hostile.outside"}"#).await;
    assert_eq!(ann.json().await["payload"], json!([0, 0, false, false]));
}

#[tokio::test]
async fn a_plugin_that_does_not_start_is_refused() {
    for config in [
        r#"{ init = "panic" }"#,
        r#"{ init = "refuse" }"#,
        r#"{ init = "loop" }"#,
    ] {
        let node = node(&format!("init_time_max = \"100ms\"\nconfig = {config}\n")).await;
        node.until_metric(
            "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"refused\"} ",
            |refused| refused >= 2.0,
        )
        .await;
        assert_eq!(node.get("/ready").await.0, 503, "{config}");
    }
}

#[tokio::test]
async fn a_failure_is_passed_over_where_the_operator_wants_it() {
    let node = live("on_failure = \"pass\"\n").await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"hostile.panic","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 1);
}
