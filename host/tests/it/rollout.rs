//! New versions that are tried on a share of the users, or on copies of messages, before they serve everyone.

use serde_json::{Value, json};

use crate::{
    admin_plugins::{config, plugin, post, push, push_by_force, states, swaps},
    guests::stamped,
    harness::{Client, Node},
    logged::{Logged, message},
    process::Signal,
    redis::until,
    versions::until_kept,
};

/// Of these users, the first is in the 50 percent of users of the plugin `stamp`, and the second is not.
const AMONG: &str = "ann";
const NOT_AMONG: &str = "dan";

/// These are in the 50 percent too.
const ALL_AMONG: [&str; 4] = ["ann", "bob", "eve", "gus"];

const CANARY: &str = "{ mode = \"canary\", percent = 50 }";
const SHADOW: &str = "{ mode = \"shadow\" }";

/// The stamp plugin, with its new versions on trial first. Only calls end a trial, not time.
fn tried_first(rollout: &str, calls: u32) -> String {
    format!(
        "[limits]\nmessages_per_second = 0\n[plugin_probation]\ntime = \"1h\"\ncalls = {calls}\n{}rollout = {rollout}\n",
        config("a").replace("name = \"a\" }", "name = \"a\", handles = [\"handled\"] }")
    )
}

async fn start(rollout: &str, calls: u32) -> Logged {
    let config = tried_first(rollout, calls);
    Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await
}

/// The version that marked a message of `client`, who is `user`.
async fn version_of(client: &mut Client, user: &str) -> u64 {
    let message = json!({"type": "x", "payload": {}, "receiverId": user});
    client.send(&message.to_string()).await;
    stamps(&client.json().await)[0]
}

fn stamps(frame: &Value) -> Vec<u64> {
    let stamps = frame["payload"]["stamps"].as_array();
    let stamps = stamps.unwrap_or_else(|| panic!("no plugin marked {frame}"));
    let stamps = stamps.iter().map(|stamp| stamp.as_str().expect("a stamp"));
    stamps.map(crate::guests::stamp_number).collect()
}

async fn send_trap(client: &mut Client, user: &str, version: u32) -> Value {
    let mark = format!("a:STAMP-{version:010}");
    let message = json!({"type": "x", "payload": {"trap": mark}, "receiverId": user});
    client.send(&message.to_string()).await;
    client.json().await
}

fn copies(outcome: &str) -> String {
    format!("wss_plugin_shadow_copies_total{{plugin=\"stamp\",outcome=\"{outcome}\"}} ")
}

#[tokio::test]
async fn a_canary_serves_its_share_of_the_users_and_is_promoted_after_its_calls() {
    let server = start(CANARY, 40).await;
    let (mut ann, mut dan) = (
        server.reachable(AMONG).await,
        server.reachable(NOT_AMONG).await,
    );
    let pushed = push(&server, &stamped("2")).await.body;
    assert_eq!(
        (&pushed["outcome"], &pushed["percent"]),
        (&json!("canary"), &json!(50))
    );
    let shown = plugin(&server).await;
    assert_eq!(states(&shown), ["live", "canary"]);
    assert_ne!(shown["live"], pushed["version"]);
    assert_eq!(shown["versions"][1]["rollout"]["percent"], 50);
    for _ in 0..10 {
        assert_eq!(version_of(&mut ann, AMONG).await, 2);
        assert_eq!(version_of(&mut dan, NOT_AMONG).await, 1);
    }
    // One version for the whole message: the version that transforms it also handles it.
    for (client, version) in [(&mut ann, 2), (&mut dan, 1)] {
        client.send(r#"{"type":"handled","payload":{}}"#).await;
        assert_eq!(stamps(&client.json().await), [version, version]);
    }
    assert!(plugin(&server).await["versions"][1]["calls"].as_u64() >= Some(12));
    assert_eq!(
        push(&server, &stamped("2")).await.body["reason"],
        "on_trial"
    );
    assert_eq!(server.metric(&swaps("live")).await, Some(1.0));
    for _ in 0..40 {
        version_of(&mut ann, AMONG).await;
    }
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    assert_eq!(version_of(&mut dan, NOT_AMONG).await, 2);
    let shown = plugin(&server).await;
    assert_eq!(
        (&shown["live"], &shown["held"]),
        (&pushed["version"], &json!(true))
    );
    assert_eq!(shown["versions"][0]["trigger"], "push");
    // It now serves everyone, so it is on probation as after any other swap.
    assert_eq!(states(&shown)[0], "probation");
    until_kept(&server).await;
    let server = server.restart().await;
    let mut dan = server.reachable(NOT_AMONG).await;
    assert_eq!(version_of(&mut dan, NOT_AMONG).await, 2, "it is kept");
}

#[tokio::test]
async fn a_canary_that_traps_is_withdrawn_and_not_tried_again_before_it_changes() {
    let server = start(CANARY, 1_000).await;
    let (mut ann, mut dan) = (
        server.reachable(AMONG).await,
        server.reachable(NOT_AMONG).await,
    );
    server.replace("stamp.wasm", &stamped("2"));
    server
        .until_line(|line| message(line) == "plugin rollout began")
        .await;
    assert_eq!(post(&server, "reload").await.body["reason"], "on_trial");
    for user in ALL_AMONG {
        let mut client = server.reachable(user).await;
        for _ in 0..20 / ALL_AMONG.len() {
            let error = send_trap(&mut client, user, 2).await;
            assert_eq!(error["payload"]["code"], "plugin_failed");
            // The other users are unaffected.
            assert_eq!(stamps(&send_trap(&mut dan, NOT_AMONG, 2).await), [1]);
        }
    }
    server
        .until_metric(&swaps("rolled_back"), |count| count == 1.0)
        .await;
    assert_eq!(version_of(&mut ann, AMONG).await, 1);
    let shown = plugin(&server).await;
    assert_eq!(states(&shown), ["live", "rolled_back"]);
    let why = shown["versions"][1]["rolled_back_because"].to_string();
    assert!(why.contains("20 of 20 calls trapped"), "{why}");
    server.signal(Signal::HUP);
    assert_eq!(post(&server, "reload").await.body["reason"], "rolled_back");
    until_kept(&server).await;
    let server = server.restart().await;
    let mut ann = server.reachable(AMONG).await;
    assert_eq!(version_of(&mut ann, AMONG).await, 1);
    assert_eq!(push(&server, &stamped("2")).await.error(), "rolled_back");
    // With `force` it goes live, and for everyone.
    let forced = post(&server, "reload?force=true").await.body;
    assert_eq!(forced["outcome"], "live");
    let mut dan = server.reachable(NOT_AMONG).await;
    assert_eq!(version_of(&mut dan, NOT_AMONG).await, 2);
}

#[tokio::test]
async fn a_newer_version_takes_the_place_of_a_canary_and_so_does_the_live_one_in_the_file() {
    let server = start(CANARY, 1_000).await;
    let mut ann = server.reachable(AMONG).await;
    for version in [2, 3] {
        server.replace("stamp.wasm", &stamped(&version.to_string()));
        until("its users get the new version", async || {
            (version_of(&mut ann, AMONG).await == version).then_some(())
        })
        .await;
        assert_eq!(states(&plugin(&server).await), ["live", "canary"]);
    }
    // After a restart the live version is loaded first, and the file is tried again.
    until_kept(&server).await;
    let server = server.restart().await;
    let (mut ann, mut dan) = (
        server.reachable(AMONG).await,
        server.reachable(NOT_AMONG).await,
    );
    assert_eq!(version_of(&mut ann, AMONG).await, 3);
    assert_eq!(version_of(&mut dan, NOT_AMONG).await, 1);
    server.replace("stamp.wasm", &stamped("1"));
    until("nothing is tried any more", async || {
        (version_of(&mut ann, AMONG).await == 1).then_some(())
    })
    .await;
    assert_eq!(states(&plugin(&server).await), ["live"]);
    assert_eq!(server.metric(&swaps("rolled_back")).await, Some(0.0));
    // A rollback and a forced push apply to everyone at once.
    assert_eq!(
        push_by_force(&server, &stamped("4")).await.body["outcome"],
        "live"
    );
    assert_eq!(push(&server, &stamped("5")).await.body["outcome"], "canary");
    // The first rollback withdraws the canary, the next one the live version.
    for version in [4, 1] {
        assert_eq!(post(&server, "rollback").await.body["outcome"], "live");
        assert_eq!(version_of(&mut ann, AMONG).await, version);
        assert_eq!(version_of(&mut dan, NOT_AMONG).await, version);
    }
    assert_eq!(push(&server, &stamped("5")).await.error(), "rolled_back");
}

#[tokio::test]
async fn a_shadow_is_asked_the_same_and_only_its_differences_are_seen() {
    let server = start(SHADOW, 60).await;
    let mut ann = server.reachable(AMONG).await;
    assert_eq!(push(&server, &stamped("2")).await.body["outcome"], "shadow");
    assert_eq!(states(&plugin(&server).await), ["live", "shadow"]);
    for _ in 0..10 {
        assert_eq!(version_of(&mut ann, AMONG).await, 1);
    }
    // Both versions drop this message, and answer the same.
    ann.send(r#"{"type":"x","payload":{"drop":"a","text":"hush-hush"},"id":"1"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["status"], "handled");
    server
        .until_metric(&copies("different"), |count| count == 10.0)
        .await;
    server
        .until_metric(&copies("same"), |count| count == 1.0)
        .await;
    let shown = plugin(&server).await;
    let rollout = &shown["versions"][1]["rollout"];
    let counted = json!({"same": 1, "different": 10, "queue_full": 0, "queue_bytes": 0});
    assert_eq!(rollout["copies"], counted);
    let differences = rollout["differences"].as_array().expect("differences");
    assert_eq!(differences.len(), 5, "the latest alone");
    let latest = &differences[0];
    let expected = json!({"event_type": "x", "call": "screen", "live": "changed", "shadow": "changed", "fields": ["payload"]});
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&latest[field], value, "{field}");
    }
    assert!(
        !shown.to_string().contains("STAMP-"),
        "no contents: {shown}"
    );
    // Calls of the shadow are not counted as calls of the plugin.
    let calls = server
        .metric("wss_plugin_calls_total{plugin=\"stamp\"} ")
        .await;
    assert_eq!(calls, Some(11.0));
    for _ in 0..60 {
        version_of(&mut ann, AMONG).await;
    }
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    assert_eq!(version_of(&mut ann, AMONG).await, 2);
    assert_eq!(states(&plugin(&server).await)[0], "probation");
}

#[tokio::test]
async fn a_shadow_that_traps_is_withdrawn_without_effect_on_clients() {
    let server = start(SHADOW, 1_000).await;
    assert_eq!(push(&server, &stamped("2")).await.body["outcome"], "shadow");
    for user in ALL_AMONG {
        let mut client = server.reachable(user).await;
        for _ in 0..20 / ALL_AMONG.len() {
            assert_eq!(stamps(&send_trap(&mut client, user, 2).await), [1]);
        }
    }
    server
        .until_metric(&swaps("rolled_back"), |count| count == 1.0)
        .await;
    let shown = plugin(&server).await;
    assert_eq!(states(&shown), ["live", "rolled_back"]);
    assert_eq!(shown["versions"][1]["traps"], 20);
    let failures = "wss_plugin_failures_total{plugin=\"stamp\",kind=\"trap\"} ";
    assert_eq!(server.metric(failures).await, Some(0.0));
    assert_eq!(push(&server, &stamped("2")).await.error(), "rolled_back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_shadow_delays_no_message_and_skipped_calls_are_counted() {
    const MESSAGES: u64 = 2_000;
    let node = Node::start_with(
        &[("stamp.wasm", &stamped("1"))],
        &tried_first(SHADOW, 1_000_000),
    )
    .await;
    let mut ann = node.reachable(AMONG).await;
    assert_eq!(push(&node, &stamped("2")).await.body["outcome"], "shadow");
    for number in 0..MESSAGES {
        let payload = json!({"n": number, "slow": "a:STAMP-0000000002"});
        let message = json!({"type": "x", "payload": payload, "receiverId": AMONG});
        ann.send(&message.to_string()).await;
    }
    for number in 0..MESSAGES {
        let frame = ann.json().await;
        assert_eq!(frame["payload"]["n"], number);
        assert_eq!(stamps(&frame), [1]);
    }
    // With 50 ms for each copy, it has barely begun: half of them would take 50 s.
    let shown = plugin(&node).await;
    let copies = &shown["versions"][1]["rollout"]["copies"];
    let count = |outcome: &str| copies[outcome].as_u64().expect("a count");
    assert!(count("queue_full") > 0, "{copies}");
    assert!(
        count("same") + count("different") < MESSAGES / 2,
        "{copies}"
    );
}
