//! A plugin that constantly misbehaves does not affect others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    guests::component,
    harness::{Client, Node},
    logged::Logged,
};

/// The plugin sees everything except messages of type `free`.
const CONFIG: &str = r#"
[limits]
messages_per_second = 0
[[plugins]]
name = "hostile"
path = "hostile.wasm"
events = ["hostile.*", "through"]
call_cpu_max = "100ms"
call_time_max = "25s"
memory_max = "8MiB"
"#;

/// Messages that a pair exchanges while others misbehave.
const MESSAGES: usize = 300;

/// Sends itself messages of a type, one after another, and returns how long each took.
async fn exchange(client: &mut Client, user: &str, event_type: &str) -> Vec<Duration> {
    let mut times = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        let message = json!({"type": event_type, "payload": number, "receiverId": user});
        let began = Instant::now();
        client.send(&message.to_string()).await;
        assert_eq!(client.json().await["payload"], number);
        times.push(began.elapsed());
    }
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Makes the plugin misbehave without a pause until `stop` is set.
async fn misbehave(mut client: Client, fault: &str, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let message = json!({"type": format!("hostile.{fault}")}).to_string();
    while !stop.load(Ordering::Relaxed) {
        client.send(&message).await;
        assert_eq!(client.json().await["payload"]["code"], "plugin_failed");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Exchanges messages through the plugin and around it, first alone and then alongside clients that trigger `faults`,
/// until this many calls have failed. Prints how long the messages took, and asserts that all arrived.
async fn exchange_alongside(faults: &[&'static str], failures: u64) {
    let server = Logged::start(&[("hostile.wasm", &component("hostile"))], CONFIG).await;
    let node = &server;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let calm = [
        exchange(&mut ann, "ann", "through").await,
        exchange(&mut bob, "bob", "free").await,
    ];
    let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut culprits = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let client = node.client(&format!("culprit{number}")).await;
        let (stop, count) = (stop.clone(), count.clone());
        culprits.push(tokio::spawn(misbehave(client, fault, stop, count)));
    }
    while count.load(Ordering::Relaxed) < failures {
        tokio::task::yield_now().await;
    }
    let (through, free) = tokio::join!(
        exchange(&mut ann, "ann", "through"),
        exchange(&mut bob, "bob", "free"),
    );
    stop.store(true, Ordering::Relaxed);
    for culprit in culprits {
        culprit.await.unwrap();
    }
    for (name, calm, loaded) in [("through", &calm[0], &through), ("free", &calm[1], &free)] {
        let (calm, loaded) = (p99(calm), p99(loaded));
        println!(
            "{name}: p99 {calm:?} alone, {loaded:?} alongside {} failures by {faults:?}, {:.1} times",
            count.load(Ordering::Relaxed),
            loaded.as_secs_f64() / calm.as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_loop_without_end_leave_the_messages_of_others_alone() {
    exchange_alongside(&["loop", "loop", "loop"], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_trap_without_a_pause_leave_the_messages_of_others_alone() {
    exchange_alongside(&["panic"], 10).await;
}

#[tokio::test]
async fn a_plugin_without_a_version_rejects_everything_until_one_loads() {
    let config = |on_failure: &str| format!("{CONFIG}on_failure = \"{on_failure}\"\n");
    let node = Node::start_with(&[], &config("pass")).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"join","room":"a","id":"1"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
    // From now on the plugin may also decide about connections and rooms.
    node.replace("platform.toml", config("reject").as_bytes());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"refused\"} ",
        |refused| refused == 2.0,
    )
    .await;
    ann.send(r#"{"type":"join","room":"b","id":"2"}"#).await;
    assert_eq!(ann.json().await["payload"]["code"], "plugin_failed");
    ann.send(r#"{"type":"through","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["plugin"], "hostile");
    ann.send(r#"{"type":"free","payload":1,"receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], 1);
    assert_eq!(node.client("bob").await.closed().await, 4003);
    assert_eq!(node.get("/ready").await.0, 503);
    node.replace("hostile.wasm", &component("hostile"));
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"hostile\",outcome=\"live\"} ",
        |live| live == 1.0,
    )
    .await;
    node.client("bob").await.close().await;
    ann.send(r#"{"type":"join","room":"b","id":"3"}"#).await;
    assert_eq!(ann.json().await["type"], "ack");
}
