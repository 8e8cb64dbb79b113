//! A plugin that misbehaves costs its caller an error, and nobody else anything.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Node},
};

const HOSTILE: &str = r#"
[limits]
messages_per_second = 0
outbox_bytes_max = "16MiB"
[[plugins]]
name = "hostile"
path = "hostile.wasm"
events = ["hostile.*"]
"#;

/// A node with the plugin, and more lines of its configuration.
async fn node(config: &str) -> Node {
    let config = format!("{HOSTILE}{config}");
    Node::start_with(&[("hostile.wasm", &component("hostile"))], &config).await
}

/// Calls of each kind of failure so far.
async fn failures(node: &Node, kind: &str) -> f64 {
    let metric = format!("wss_plugin_failures_total{{plugin=\"hostile\",kind=\"{kind}\"}} ");
    node.metric(&metric).await.expect("there is such a metric")
}

/// What the plugin does about a message of this type.
async fn answer(client: &mut Client, event_type: &str) -> Value {
    let message = json!({"type": event_type, "id": event_type, "payload": 1, "receiverId": "ann"});
    client.send(&message.to_string()).await;
    client.json().await["payload"].clone()
}

/// What a client is told of any failure: whose it is, and nothing of its inside.
fn plugin_failed(id: &str) -> Value {
    json!({
        "id": id, "code": "plugin_failed", "message": "a plugin failed to handle the message",
        "plugin": "hostile", "retryable": true,
    })
}

/// What goes wrong in `handle`, and how it counts.
const DEEDS: [(&str, &str); 20] = [
    ("loop", "deadline"),
    ("sleep", "deadline"),
    ("alloc", "memory"),
    ("alloc-at-once", "memory"),
    ("panic", "trap"),
    ("recurse", "trap"),
    ("exit", "trap"),
    ("random", "trap"),
    ("actions", "output"),
    ("many", "output"),
    ("output", "output"),
    ("json", "output"),
    ("deep", "output"),
    ("reserved", "output"),
    ("type", "output"),
    ("room", "output"),
    ("close", "output"),
    ("code", "output"),
    ("validate.panic", "trap"),
    ("transform.json", "output"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misdeed_is_answered_with_plugin_failed_and_the_next_call_works() {
    let node = node("call_cpu_max = \"200ms\"\ncall_time_max = \"1s\"\n").await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for (deed, _) in DEEDS {
        let event_type = format!("hostile.{deed}");
        let message = json!({"type": event_type, "id": event_type, "receiverId": "ann"});
        ann.send(&message.to_string()).await;
        // While the call is under way, others are served.
        bob.send(r#"{"type":"x","payload":1,"receiverId":"bob"}"#)
            .await;
        assert_eq!(bob.json().await["payload"], 1);
        assert_eq!(ann.json().await["payload"], plugin_failed(&event_type));
        ann.send(r#"{"type":"hostile.nothing"}"#).await;
        assert_eq!(ann.json().await["payload"], "done", "after {deed}");
    }
}

#[tokio::test]
async fn each_failure_is_counted_by_its_kind() {
    // The stack is the same in both; time is short only where the test is about it.
    let hasty = "call_cpu_max = \"100ms\"\ncall_time_max = \"500ms\"\n";
    let (hasty, patient) = (node(hasty).await, node(PATIENT).await);
    for (deed, kind) in DEEDS {
        let node = if kind == "deadline" { &hasty } else { &patient };
        let mut ann = node.client("ann").await;
        let before = failures(node, kind).await;
        let event_type = format!("hostile.{deed}");
        let said = answer(&mut ann, &event_type).await;
        assert_eq!(said, plugin_failed(&event_type));
        assert_eq!(failures(node, kind).await, before + 1.0, "{deed}");
    }
    assert_eq!(
        patient
            .metric("wss_messages_rejected_total{code=\"plugin_failed\"} ")
            .await,
        Some(18.0)
    );
}

#[tokio::test]
async fn a_failure_in_any_interface_rejects_or_is_passed_over_as_the_operator_wants() {
    let (rejecting, passing) = (
        node(PATIENT).await,
        node(&format!("{PATIENT}on_failure = \"pass\"\n")).await,
    );
    let (mut ann, mut free_ann) = (rejecting.client("ann").await, passing.client("ann").await);
    for event_type in [
        "hostile.validate.panic",
        "hostile.validate.code",
        "hostile.transform.panic",
        "hostile.transform.json",
        "hostile.transform.reserved",
        "hostile.transform.user",
        "hostile.panic",
        "hostile.json",
    ] {
        let said = answer(&mut ann, event_type).await;
        assert_eq!(said, plugin_failed(event_type));
        if event_type.matches('.').count() == 2 {
            // As if it were not there: its own handler is the next to see the message.
            assert_eq!(
                answer(&mut free_ann, event_type).await,
                "done",
                "{event_type}"
            );
        } else {
            assert_eq!(answer(&mut free_ann, event_type).await, 1, "{event_type}");
        }
        assert_eq!(free_ann.json().await["type"], "ack");
    }
    for room in ["panic", "code"] {
        let join = json!({"type": "join", "room": room, "id": room}).to_string();
        ann.send(&join).await;
        assert_eq!(ann.json().await["payload"], plugin_failed(room));
        free_ann.send(&join).await;
        assert_eq!(free_ann.json().await["type"], "ack", "{room}");
    }
    for user in ["bad-panic", "bad-code"] {
        let mut refused = rejecting.client(user).await;
        assert_eq!(
            refused.closed_with_reason().await,
            (4003, "a plugin failed; try again".to_owned())
        );
        let mut admitted = passing.client(user).await;
        admitted.send(r#"{"type":"heartbeat","id":"1"}"#).await;
        assert_eq!(admitted.json().await["type"], "ack", "{user}");
    }
}

#[tokio::test]
async fn a_failure_when_a_connection_goes_is_counted_and_holds_nothing_up() {
    let node = node(PATIENT).await;
    for (user, kind) in [("leaves-panic", "trap"), ("leaves-actions", "output")] {
        node.client(user).await.close().await;
        let metric = format!("wss_plugin_failures_total{{plugin=\"hostile\",kind=\"{kind}\"}} ");
        node.until_metric(&metric, |count| count == 1.0).await;
    }
    node.until_metric("wss_active_connections ", |open| open == 0.0)
        .await;
}

#[tokio::test]
async fn log_lines_store_calls_and_metrics_are_bounded() {
    let node = node(&format!("{PATIENT}log_lines_per_second = 5\n")).await;
    let mut ann = node.client("ann").await;
    let dropped = "wss_plugin_log_lines_dropped_total{plugin=\"hostile\"} ";
    for (deed, at_least) in [("logs", 800.0), ("prints", 1_600.0)] {
        assert_eq!(answer(&mut ann, &format!("hostile.{deed}")).await, "done");
        assert_eq!(ann.json().await["type"], "ack");
        let count = node.metric(dropped).await;
        assert!(count >= Some(at_least), "{deed}: {count:?}");
    }
    assert_eq!(answer(&mut ann, "hostile.store").await, 68);
    assert_eq!(ann.json().await["type"], "ack");
    assert_eq!(answer(&mut ann, "hostile.metrics").await, "done");
    let (_, metrics) = node.get("/metrics").await;
    assert_eq!(metrics.matches("name=\"flood_").count(), 100);
}

#[tokio::test]
async fn nothing_of_the_outside_can_be_seen() {
    let node = node(PATIENT).await;
    let mut ann = node.client("ann").await;
    assert_eq!(
        answer(&mut ann, "hostile.outside").await,
        json!([0, 0, false, false, false, false, false, false, false])
    );
}

#[tokio::test]
async fn the_memory_that_a_plugin_may_have_is_the_operators_choice() {
    let small = node(&format!(
        "{PATIENT}memory_max = \"2MiB\"\noutput_bytes_max = \"64MiB\"\n"
    ))
    .await;
    let large = node(&format!(
        "{PATIENT}memory_max = \"64MiB\"\noutput_bytes_max = \"64MiB\"\n"
    ))
    .await;
    // The answer is 4 MiB, which the guest has to have somewhere.
    for (node, fits) in [(&small, false), (&large, true)] {
        let mut ann = node.client("ann").await;
        let said = answer(&mut ann, "hostile.output").await;
        if fits {
            assert!(said.as_str().is_some_and(|text| text.len() == 4 << 20));
        } else {
            assert_eq!(said, plugin_failed("hostile.output"));
            assert_eq!(failures(node, "memory").await, 1.0);
        }
    }
}

#[tokio::test]
async fn the_number_of_actions_is_the_operators_choice() {
    let node = node(&format!("{PATIENT}actions_max = 257\n")).await;
    let mut ann = node.client("ann").await;
    let message = json!({"type": "hostile.many", "payload": 1, "receiverId": "ann"});
    ann.send(&message.to_string()).await;
    for _ in 0..257 {
        assert_eq!(ann.json().await["type"], "hostile.many");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_on_a_cpu_is_counted_wherever_a_call_goes_on() {
    // Half a second is far from what each call uses, and near to what the clocks of two threads differ.
    let limits = "call_cpu_max = \"500ms\"\ncall_time_max = \"25s\"\n";
    let node = node(limits).await;
    let calls = (0..4).map(async |number| {
        let mut client = node.client(&format!("u{number}")).await;
        for _ in 0..3 {
            client.send(r#"{"type":"hostile.spin-and-sleep"}"#).await;
            assert_eq!(client.json().await["payload"], "done");
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn a_plugin_that_does_not_start_is_refused() {
    for config in [
        r#"{ init = "panic" }"#,
        r#"{ init = "refuse" }"#,
        r#"{ init = "loop" }"#,
        r#"{ init = "alloc" }"#,
        r#"{ self_test = "fail" }"#,
        r#"{ self_test = "panic" }"#,
        r#"{ self_test = "loop" }"#,
        r#"{ event_types = "join" }"#,
        r#"{ event_types = "a*b" }"#,
    ] {
        let node = node(&format!("init_time_max = \"300ms\"\nconfig = {config}\n")).await;
        node.until_metric(
            "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"refused\"} ",
            |refused| refused == 1.0,
        )
        .await;
        assert_eq!(node.get("/ready").await.0, 503, "{config}");
    }
}
