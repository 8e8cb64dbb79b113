//! Metrics pushed to CloudWatch, read back from moto.

mod gate;
mod moto;

use serde_json::json;

use crate::{
    harness::{Client, Endpoint, WITH_CHAT, with_plugin_cache},
    process::{Server, Signal},
};
use gate::{Gate, Way};
use moto::{Moto, REGION, owned};

/// The AWS settings of the process. Without them, the SDK would ask for the metadata service of an instance, which
/// takes long if there is none.
const AWS: [(&str, &str); 5] = [
    ("WSS_PORT", "0"),
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", REGION),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

const NODE: &str = "node-a";
const SERVER: [(&str, &str); 1] = [("ServerID", NODE)];

/// A node that pushes once a second.
fn config(endpoint: &str) -> String {
    with_plugin_cache(&format!(
        "[server]\nnode_id = \"{NODE}\"\n\
         [cloudwatch]\nenabled = true\ninterval = \"1s\"\n{endpoint}\n{WITH_CHAT}"
    ))
}

/// Sends `count` messages to `receiver`, and waits until the last one has arrived.
async fn chat(sender: &mut Client, receiver: &mut Client, to: &str, count: usize) {
    for number in 0..count {
        let message = json!({"type": "chat_message", "receiverId": to, "payload": {"text": number.to_string()}});
        sender.send(&message.to_string()).await;
    }
    for _ in 0..count {
        receiver.json().await;
    }
}

/// Reports these round-trip times, and waits until they are counted.
async fn report(client: &mut Client, latencies: &[u32]) {
    for ms in latencies {
        let report = json!({"type": "latency_report", "payload": ms});
        client.send(&report.to_string()).await;
    }
    client.expect_silence().await;
}

/// The number of pushes with this outcome.
async fn pushes(node: &Endpoint, outcome: &str) -> f64 {
    let pushes = format!("wss_cloudwatch_pushes_total{{outcome=\"{outcome}\"}} ");
    node.metric(&pushes).await.expect("a counter")
}

/// Waits for `more` further pushes with this outcome.
async fn until_pushes(node: &Endpoint, outcome: &str, more: f64) {
    let before = pushes(node, outcome).await;
    let name = format!("wss_cloudwatch_pushes_total{{outcome=\"{outcome}\"}} ");
    node.until_metric(&name, |count| count >= before + more)
        .await;
}

/// The value at or below which `percent` percent of `sorted` lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[tokio::test]
async fn cloudwatch_reports_three_intervals_as_sent() {
    let moto = Moto::start().await;
    let endpoint = format!("http://{}", moto.address);
    // The endpoint is set by the variable that every AWS program reads, the rest by the file.
    let environment = [&AWS[..], &[("AWS_ENDPOINT_URL", &endpoint)]].concat();
    let mut node = Server::start_with(&[], &config(""), &environment).await;
    let mut ann = node.reachable("ann").await;
    let mut bob = node.reachable("bob").await;

    let mut reported: Vec<f64> = Vec::new();
    for interval in 1..=3_u32 {
        chat(&mut ann, &mut bob, "bob", 10 * interval as usize).await;
        // Latencies from 1 ms to 3 s, with different frequent values in each interval.
        let latencies: Vec<u32> = (0..20).map(|n| interval * 10 * (n % 7) + 1).collect();
        report(&mut ann, &latencies).await;
        reported.extend(latencies.iter().copied().map(f64::from));
        until_pushes(&node, "ok", 1.0).await;
    }
    report(&mut ann, &[3_000]).await;
    reported.push(3_000.0);
    ann.send("no JSON").await;
    ann.error_code().await;
    ann.send(r#"{"type":"chat_message","receiverId":"nobody","payload":{"text":"x"}}"#)
        .await;
    let rejected = json!({"type": "chat_message", "receiverId": "bob", "payload": {"text": ""}});
    ann.send(&rejected.to_string()).await;
    assert_ne!(ann.error_code().await, "plugin_failed");
    let messages = node.metric("wss_messages_total ").await.expect("a counter");
    let calls = "wss_plugin_calls_total{plugin=\"chat\"} ";
    let calls = node.metric(calls).await.expect("a counter");
    // Values since the last push are pushed at shutdown.
    ann.close().await;
    bob.close().await;
    node.signal(Signal::TERM);
    assert!(node.exit().await.success());

    let sum = async |metric: &str, of: &[(&str, &str)]| {
        let whole = moto.whole(metric, of).await;
        whole.and_then(|whole| whole.sum())
    };
    assert_eq!(sum("MessagesTotal", &SERVER).await, Some(messages));
    assert_eq!(sum("MessagesDelivered", &SERVER).await, Some(60.0));
    assert_eq!(sum("MessagesRejected", &SERVER).await, Some(2.0));
    let code = [("Code", "invalid_frame")];
    assert_eq!(sum("MessagesRejected", &code).await, Some(1.0));
    assert_eq!(
        sum("MessagesRejected", &[("Code", "plugin")]).await,
        Some(1.0)
    );
    assert_eq!(sum("MessagesDropped", &SERVER).await, Some(1.0));
    let reason = [("Reason", "offline")];
    assert_eq!(sum("MessagesDropped", &reason).await, Some(1.0));
    assert_eq!(sum("UnexpectedDisconnects", &SERVER).await, Some(0.0));
    assert_eq!(sum("PluginFailures", &SERVER).await, Some(0.0));
    assert_eq!(sum("PluginSwaps", &SERVER).await, Some(1.0));

    // Each value is pushed once more without the dimension; moto adds both up if no dimension is named.
    assert_eq!(sum("MessagesTotal", &[]).await, Some(2.0 * messages));
    let all_servers = moto.recorded("MessagesTotal", &[]).await;
    assert_eq!(
        all_servers.iter().map(|datum| datum.value).sum::<f64>(),
        messages
    );

    // Each interval reports only its own values.
    let mut intervals = moto.recorded("MessagesTotal", &SERVER).await;
    intervals.retain(|interval| interval.value > 0.0);
    assert!(intervals.len() >= 4, "{intervals:?}");
    assert!(intervals.iter().all(|interval| interval.value < messages));

    let open = moto
        .whole("ActiveConnections", &SERVER)
        .await
        .expect("a gauge");
    assert_eq!((open.maximum(), open.minimum()), (Some(2.0), Some(0.0)));
    let up = moto.whole("BrokerUp", &SERVER).await.expect("a gauge");
    assert_eq!((up.maximum(), up.minimum()), (Some(1.0), Some(1.0)));

    let latency = moto
        .whole("AverageLatencyMs", &SERVER)
        .await
        .expect("a distribution");
    reported.sort_by(f64::total_cmp);
    let total: f64 = reported.iter().sum();
    assert_eq!(latency.sample_count(), Some(reported.len() as f64));
    assert_eq!(latency.sum(), Some(total));
    assert_eq!(latency.average(), Some(total / reported.len() as f64));
    assert_eq!(latency.minimum(), reported.first().copied());
    assert_eq!(latency.maximum(), reported.last().copied());
    for dimensions in [&SERVER[..], &[]] {
        let recorded = moto.recorded("AverageLatencyMs", dimensions).await;
        assert!(
            recorded
                .iter()
                .all(|datum| datum.unit.as_deref() == Some("Milliseconds"))
        );
        let recorded: Vec<f64> = recorded.iter().map(|datum| datum.value).collect();
        for percent in [50, 90, 99] {
            assert_eq!(
                percentile(&recorded, percent),
                percentile(&reported, percent)
            );
        }
    }
    let plugin = [("Plugin", "chat"), ("ServerID", NODE)];
    let called = moto
        .whole("PluginCallMs", &plugin)
        .await
        .expect("a distribution");
    assert_eq!(called.sample_count(), Some(calls));
    let delivered = moto
        .whole("DeliveryLatencyMs", &SERVER)
        .await
        .expect("a distribution");
    assert_eq!(delivered.sample_count(), Some(62.0));

    let listed = moto.metrics().await;
    for name in [
        "ActiveConnections",
        "MessagesTotal",
        "MessagesDelivered",
        "UnexpectedDisconnects",
        "AverageLatencyMs",
        "DeliveryLatencyMs",
    ] {
        for dimensions in [&SERVER[..], &[]] {
            let metric = (name.to_owned(), owned(dimensions));
            assert!(listed.contains(&metric), "{metric:?} in {listed:?}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_for_two_intervals_loses_no_count() {
    let moto = Moto::start().await;
    let gate = Gate::before(moto.address).await;
    let endpoint = format!("endpoint = \"http://{}\"", gate.address);
    let mut node = Server::start_with(&[], &config(&endpoint), &AWS).await;
    let mut ann = node.reachable("ann").await;
    let mut bob = node.reachable("bob").await;
    until_pushes(&node, "ok", 1.0).await;

    let mut reported = 0.0;
    for (way, latency) in [
        (Way::Broken, 10),
        (Way::Throttled, 20),
        (Way::Silent, 40),
        (Way::Refused, 80),
    ] {
        gate.set(way);
        for _ in 0..2 {
            chat(&mut ann, &mut bob, "bob", 5).await;
            report(&mut ann, &[latency, 3 * latency]).await;
            reported += f64::from(4 * latency);
            until_pushes(&node, "failed", 1.0).await;
        }
        gate.set(Way::Open);
        until_pushes(&node, "ok", 1.0).await;
    }
    let messages = node.metric("wss_messages_total ").await.expect("a counter");
    ann.close().await;
    bob.close().await;
    node.signal(Signal::TERM);
    assert!(node.exit().await.success());

    let total = moto.whole("MessagesTotal", &SERVER).await.expect("counts");
    assert_eq!(total.sum(), Some(messages));
    let delivered = moto.whole("MessagesDelivered", &SERVER).await;
    assert_eq!(delivered.expect("counts").sum(), Some(40.0));
    let latency = moto
        .whole("AverageLatencyMs", &SERVER)
        .await
        .expect("a distribution");
    assert_eq!(
        (latency.sample_count(), latency.sum()),
        (Some(16.0), Some(reported))
    );
    // Logged once at the start of each outage, and once at its end.
    let log = node.log();
    let count_of = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count_of("metrics reach CloudWatch again"), 4);
    assert_eq!(count_of("metrics do not reach CloudWatch"), 4);
    for reason in ["InternalServiceFault", "ThrottlingException"] {
        assert_eq!(count_of(reason), 1, "{reason}");
    }
}

#[tokio::test]
async fn without_credentials_or_a_region_the_server_serves_and_logs_advice() {
    let without = |names: &[&str]| {
        let variables = AWS.iter().filter(|(name, _)| !names.contains(name));
        variables.copied().collect::<Vec<_>>()
    };
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    for (missing, advice) in [
        (&keys[..], "AWS_ACCESS_KEY_ID"),
        (&["AWS_REGION"], "cloudwatch.region"),
    ] {
        let node = Server::start_with(&[], &config(""), &without(missing)).await;
        until_pushes(&node, "failed", 3.0).await;
        let mut ann = node.reachable("ann").await;
        let mut bob = node.reachable("bob").await;
        chat(&mut ann, &mut bob, "bob", 3).await;
        let log = node.log();
        let complaints: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
        let about = |text: &str| complaints.iter().filter(|line| line.contains(text)).count();
        assert_eq!(about("metrics do not reach CloudWatch"), 1, "{log:?}");
        assert_eq!(about(advice), 1, "{log:?}");
        assert!(about("kept for an hour") == 1, "{log:?}");
        // The SDK itself logs nothing.
        assert!(!log.iter().any(|line| line.contains("aws_")), "{log:?}");
    }
}

#[tokio::test]
async fn a_cloudwatch_that_does_not_answer_does_not_keep_a_server_from_ending() {
    let gate = Gate::before(([127, 0, 0, 1], 9).into()).await;
    gate.set(Way::Silent);
    let endpoint = format!("endpoint = \"http://{}\"", gate.address);
    let config = config(&endpoint).replace("[server]", "[server]\ndrain_timeout = \"4s\"");
    let mut node = Server::start_with(&[], &config, &AWS).await;
    until_pushes(&node, "failed", 1.0).await;
    node.signal(Signal::TERM);
    assert!(node.exit().await.success());
    node.until_log("the last metrics did not reach CloudWatch")
        .await;
}
