//! A plugin that validates and transforms does both in one call; only the number of calls reveals that.

use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, accepting, component, stamped},
    harness::{Client, Node},
};

/// A plugin with the name of its file.
fn plugin(file: &str, more: &str) -> String {
    format!(
        "[[plugins]]\nname = \"{file}\"\npath = \"{file}.wasm\"\nevents = [\"seen\", \"hostile.*\"]\n{PATIENT}{more}\n"
    )
}

fn stamp(name: &str) -> String {
    plugin(name, &format!("config = {{ name = \"{name}\" }}"))
}

/// A node with these plugins: `a` and `b` mark the messages they see, `accepting` only validates, `hostile` does as
/// told.
async fn node(plugins: &[String]) -> Node {
    let (stamp, accepting, hostile) = (stamped("1"), accepting(), component("hostile"));
    let files = [
        ("a.wasm", stamp.as_slice()),
        ("b.wasm", &stamp),
        ("accepting.wasm", &accepting),
        ("hostile.wasm", &hostile),
    ];
    Node::start_with(
        &files,
        &format!("[limits]\nmessages_per_second = 0\n{}", plugins.concat()),
    )
    .await
}

async fn answer(client: &mut Client, event_type: &str, payload: &Value) -> Value {
    let message = json!({"type": event_type, "payload": payload, "receiverId": "ann"});
    client.send(&message.to_string()).await;
    client.json().await
}

/// The number of calls of each of these plugins; 0 if it is not configured.
async fn calls<const N: usize>(node: &Node, plugins: [&str; N]) -> [f64; N] {
    let mut counts = [0.0; N];
    for (count, plugin) in counts.iter_mut().zip(plugins) {
        let name = format!("wss_plugin_calls_total{{plugin=\"{plugin}\"}} ");
        *count = node.metric(&name).await.unwrap_or(0.0);
    }
    counts
}

#[tokio::test]
async fn validation_and_transformation_share_a_call_if_nothing_comes_between() {
    let accepting = || plugin("accepting", "");
    let blind = |plugin: String| plugin.replace("seen", "unseen");
    for (chain, expected) in [
        (vec![stamp("a")], [1.0, 0.0, 0.0]),
        // A validator before it does not prevent the combined call, one after it does.
        (vec![accepting(), stamp("a")], [1.0, 0.0, 1.0]),
        (vec![stamp("a"), accepting()], [2.0, 0.0, 1.0]),
        (vec![stamp("a"), stamp("b")], [2.0, 2.0, 0.0]),
        (vec![accepting(), stamp("a"), stamp("b")], [2.0, 2.0, 1.0]),
        // Plugins that do not see the message do not count.
        (
            vec![blind(stamp("b")), stamp("a"), blind(accepting())],
            [1.0, 0.0, 0.0],
        ),
    ] {
        let node = node(&chain).await;
        let mut ann = node.client("ann").await;
        let message = answer(&mut ann, "seen", &json!({})).await;
        assert!(
            message["payload"]["stamps"][0]
                .as_str()
                .is_some_and(|stamp| stamp.starts_with("a:"))
        );
        assert_eq!(
            calls(&node, ["a", "b", "accepting"]).await,
            expected,
            "{chain:?}"
        );
    }
}

#[tokio::test]
async fn in_a_chain_of_two_that_could_all_validators_still_come_before_all_transformers() {
    let node = node(&[stamp("a"), stamp("b")]).await;
    let mut ann = node.client("ann").await;
    // The second validator refuses the message before the first transformer could drop it.
    let refused = answer(&mut ann, "seen", &json!({"refuse": ["b"], "drop": "a"})).await;
    assert_eq!(refused["payload"]["plugin"], "b");
    assert_eq!(calls(&node, ["a", "b"]).await, [1.0, 1.0]);
    // The first one refuses before the second is called.
    let refused = answer(&mut ann, "seen", &json!({"refuse": ["a", "b"]})).await;
    assert_eq!(refused["payload"]["plugin"], "a");
    assert_eq!(calls(&node, ["a", "b"]).await, [2.0, 1.0]);
    let marked = answer(&mut ann, "seen", &json!({})).await;
    let stamps = marked["payload"]["stamps"].as_array().expect("stamps");
    let names: Vec<_> = stamps
        .iter()
        .filter_map(|stamp| stamp.as_str()?.get(..2))
        .collect();
    assert_eq!(names, ["a:", "b:"]);
}

#[tokio::test]
async fn one_call_and_two_calls_report_the_same_outcomes() {
    // Too little time for an endless loop; enough for the rest, even on a loaded machine.
    let hostile = |on_failure: &str| {
        plugin("hostile", &format!("on_failure = \"{on_failure}\"")).replace(
            PATIENT,
            "call_cpu_max = \"200ms\"\ncall_time_max = \"25s\"\n",
        )
    };
    for on_failure in ["reject", "pass"] {
        let (once, twice) = tokio::join!(async { outcomes(&[hostile(on_failure)]).await }, async {
            outcomes(&[hostile(on_failure), plugin("accepting", "")]).await
        },);
        assert_eq!(once, twice, "{on_failure}");
    }
    for payload in [
        json!({"refuse": ["a"]}),
        json!({"drop": "a"}),
        json!({}),
        json!(7),
    ] {
        let mut answers = Vec::new();
        for chain in [vec![stamp("a")], vec![stamp("a"), plugin("accepting", "")]] {
            let node = node(&chain).await;
            let mut ann = node.client("ann").await;
            let message =
                json!({"type": "seen", "payload": payload, "receiverId": "ann", "id": "1"});
            ann.send(&message.to_string()).await;
            answers.push(without_names(ann.json().await));
        }
        assert_eq!(answers[0], answers[1]);
    }
}

/// The answer to each fault of the hostile guest, and the counters at the end.
async fn outcomes(plugins: &[String]) -> (Vec<Value>, String) {
    let node = node(plugins).await;
    let mut ann = node.client("ann").await;
    let mut answers = Vec::new();
    for fault in [
        "validate.panic",
        "validate.loop",
        "validate.code",
        "transform.panic",
        "transform.json",
        "transform.reserved",
        "validate.fine",
    ] {
        answers.push(without_names(
            answer(&mut ann, &format!("hostile.{fault}"), &json!({"n": 1})).await,
        ));
    }
    let counted = node.get("/metrics").await.1;
    let counted: Vec<_> = counted
        .lines()
        .filter(|line| {
            line.contains("plugin=\"hostile\"")
                && (line.contains("_failures_") || line.contains("_rejections_"))
        })
        .collect();
    (answers, counted.join("\n"))
}

/// Removes the fields that differ between any two messages.
fn without_names(mut message: Value) -> Value {
    for field in ["timestamp", "messageId"] {
        message.as_object_mut().expect("an object").remove(field);
    }
    if let Some(payload) = message["payload"].as_object_mut() {
        payload.remove("messageId");
    }
    message
}
