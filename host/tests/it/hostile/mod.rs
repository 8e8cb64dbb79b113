//! A plugin that misbehaves causes an error for its caller, and affects nobody else.
//!
//! [`faults`] is the table of failing calls, [`inadmissible`] that of refused components, and [`growth`] makes each
//! failing call ten thousand times.

mod faults;
mod growth;
mod inadmissible;
mod malformed;

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component},
    harness::{Client, Node},
};

use faults::{Answer, FAULTS, Fault};

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

/// The number of failed calls of this kind so far.
async fn failures(node: &Node, kind: &str) -> f64 {
    let metric = format!("wss_plugin_failures_total{{plugin=\"hostile\",kind=\"{kind}\"}} ");
    node.metric(&metric).await.expect("there is such a metric")
}

/// The plugin's answer to a message of this type.
async fn answer(client: &mut Client, event_type: &str) -> Value {
    let message = json!({"type": event_type, "id": event_type, "payload": 1, "receiverId": "ann"});
    client.send(&message.to_string()).await;
    client.json().await["payload"].clone()
}

/// The error that a client gets for any failure: it names the plugin, and reveals nothing internal.
fn plugin_failed(id: &str) -> Value {
    json!({
        "id": id, "code": "plugin_failed", "message": "a plugin failed to handle the message",
        "plugin": "hostile", "retryable": true,
    })
}

/// A `[[plugins]]` entry for the plugin, with more lines.
fn entry(plugin: &str, lines: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{plugin}\"\npath = \"{plugin}.wasm\"\nevents = [\"{plugin}.*\"]\n\
         store_bytes_max = \"1MiB\"\n{lines}"
    )
}

/// A configuration with both misbehaving plugins, each with these lines.
fn both(lines: &str) -> String {
    let limits = "[limits]\nmessages_per_second = 0\noutbox_bytes_max = \"16MiB\"\n";
    format!(
        "{limits}{}{}",
        entry("hostile", lines),
        entry("malformed", lines)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_has_its_answer_and_its_count_and_leaves_others_and_the_next_call_alone() {
    let files: [(&str, &[u8]); 2] = [
        ("hostile.wasm", &component("hostile")),
        ("malformed.wasm", &malformed::in_calls()),
    ];
    // Faults that exceed a limit need a short one, and the next call must keep it, even on a busy machine.
    let hasty = both("call_cpu_max = \"1s\"\ncall_time_max = \"10s\"\n");
    let (hasty, patient) = (
        Node::start_with(&files, &hasty).await,
        Node::start_with(&files, &both(PATIENT)).await,
    );
    for fault in &FAULTS {
        let node = match fault.takes_all_time() {
            true => &hasty,
            false => &patient,
        };
        let before = all_failures(node, fault.plugin()).await;
        let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
        ann.send(&fault.message().to_string()).await;
        // During the call, others are served.
        for number in 0..5 {
            let message = json!({"type": "x", "payload": number, "receiverId": "bob"});
            bob.send(&message.to_string()).await;
            assert_eq!(bob.json().await["payload"], number, "{}", fault.what);
        }
        check_answer(&mut ann, fault).await;
        let mut expected = before;
        if let Answer::Fails(kind) = fault.answer {
            let count = expected.iter_mut().find(|(other, _)| *other == kind);
            count.expect("a kind of failure").1 += 1.0;
        }
        let after = all_failures(node, fault.plugin()).await;
        assert_eq!(after, expected, "{}", fault.what);
        let (next, payload) = match fault.plugin() {
            "hostile" => ("hostile.nothing", json!("done")),
            _ => ("malformed.y", json!(1)),
        };
        ann.send(&json!({ "type": next }).to_string()).await;
        let reply = ann.json().await["payload"].take();
        assert_eq!(reply, payload, "after {}", fault.what);
    }
}

async fn check_answer(client: &mut Client, fault: &Fault) {
    let (what, reply) = (fault.what, client.json().await);
    match fault.answer {
        Answer::Fails(_) => {
            let mut expected = plugin_failed("1");
            expected["plugin"] = fault.plugin().into();
            assert_eq!(reply["payload"], expected, "{what}");
        }
        Answer::Says(payload) => {
            assert_eq!(reply["payload"], payload(), "{what}");
            assert_eq!(client.json().await["type"], "ack", "{what}");
        }
    }
}

/// The failed calls of a plugin so far, by kind.
async fn all_failures(node: &Node, plugin: &str) -> Vec<(&'static str, f64)> {
    let mut failures = Vec::new();
    for kind in ["trap", "deadline", "memory", "output", "unavailable"] {
        let metric = format!("wss_plugin_failures_total{{plugin=\"{plugin}\",kind=\"{kind}\"}} ");
        let count = node.metric(&metric).await.expect("there is such a metric");
        failures.push((kind, count));
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_test_that_lies_lets_a_version_live_whose_failures_are_its_callers_alone() {
    let node = node(&format!("{PATIENT}config = {{ self_test = \"lie\" }}\n")).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for number in 0..20 {
        assert_eq!(
            answer(&mut ann, "hostile.nothing").await,
            plugin_failed("hostile.nothing")
        );
        let message = json!({"type": "x", "payload": number, "receiverId": "bob"});
        bob.send(&message.to_string()).await;
        assert_eq!(bob.json().await["payload"], number);
    }
    assert_eq!(failures(&node, "trap").await, 20.0);
    node.replace("platform.toml", format!("{HOSTILE}{PATIENT}").as_bytes());
    let live = "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"live\"} ";
    node.until_metric(live, |live| live == 2.0).await;
    assert_eq!(answer(&mut ann, "hostile.nothing").await, "done");
}

#[tokio::test]
async fn a_failure_in_any_interface_rejects_or_passes_as_configured() {
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
        let reply = answer(&mut ann, event_type).await;
        assert_eq!(reply, plugin_failed(event_type));
        if event_type.matches('.').count() == 2 {
            // As if the plugin were not there: its own handler sees the message next.
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
    for (fault, at_least) in [("logs", 800.0), ("prints", 1_600.0)] {
        assert_eq!(answer(&mut ann, &format!("hostile.{fault}")).await, "done");
        assert_eq!(ann.json().await["type"], "ack");
        let count = node.metric(dropped).await;
        assert!(count >= Some(at_least), "{fault}: {count:?}");
    }
    assert_eq!(answer(&mut ann, "hostile.store").await, 68);
    assert_eq!(ann.json().await["type"], "ack");
    assert_eq!(answer(&mut ann, "hostile.metrics").await, "done");
    let (_, metrics) = node.get("/metrics").await;
    assert_eq!(metrics.matches("name=\"flood_").count(), 100);
}

#[tokio::test]
async fn plugins_cannot_see_anything_outside_their_sandbox() {
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
    // The answer is 4 MiB, which the guest has to allocate.
    for (node, fits) in [(&small, false), (&large, true)] {
        let mut ann = node.client("ann").await;
        let reply = answer(&mut ann, "hostile.output").await;
        if fits {
            assert!(reply.as_str().is_some_and(|text| text.len() == 4 << 20));
        } else {
            assert_eq!(reply, plugin_failed("hostile.output"));
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
async fn cpu_time_of_a_call_is_counted_on_every_thread() {
    // Half a second is far more than each call uses, and close to the difference between the CPU clocks of two threads.
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
async fn a_node_whose_only_version_is_refused_is_not_ready_and_counts_it() {
    let node = node("init_time_max = \"300ms\"\nconfig = { init = \"loop\" }\n").await;
    let refused = "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"refused\"} ";
    node.until_metric(refused, |refused| refused == 1.0).await;
    assert_eq!(node.get("/ready").await.0, 503);
}
