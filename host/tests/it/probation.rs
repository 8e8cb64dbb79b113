//! A version that fails after it went live is rolled back automatically.

use serde_json::{Value, json};

use crate::{
    admin_plugins::{config, mark, plugin, post, push, push_by_force, states, swaps},
    guests::stamped,
    harness::{Client, Endpoint},
    logged::{Logged, message},
    process::Signal,
    redis::until,
    versions::until_kept,
};

/// Only calls end a trial, not time.
const BY_CALLS: &str = "[plugin_probation]\ntime = \"1h\"\n";

async fn start(more: &str) -> Logged {
    let config = format!("{}{BY_CALLS}{more}", config("a"));
    Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await
}

/// Sends `count` messages at which the version with this mark traps.
pub(crate) async fn send_traps(client: &mut Client, mark: &str, count: usize) {
    for _ in 0..count {
        // A message with an ID is always answered, also by a version that does not trap.
        let message =
            json!({"type": "x", "id": "t", "payload": {"trap": mark}, "receiverId": "nobody"});
        client.send(&message.to_string()).await;
        client.json().await;
    }
}

/// Like [`send_traps`], from several users: `count` messages in total.
async fn all_send_traps(server: &Logged, mark: &str, count: usize) {
    const USERS: [&str; 4] = ["u1", "u2", "u3", "u4"];
    for user in USERS {
        let mut client = server.client(user).await;
        send_traps(&mut client, mark, count / USERS.len()).await;
    }
}

async fn until_rolled_back(node: &Endpoint, times: f64) {
    node.until_metric(&swaps("rolled_back"), |count| count == times)
        .await;
}

#[tokio::test]
async fn a_version_that_traps_is_rolled_back_automatically_and_reported_everywhere() {
    let server = start("").await;
    let mut ann = server.reachable("ann").await;
    let first = plugin(&server).await["live"].clone();
    let second = push(&server, &stamped("2")).await.body["version"].clone();
    assert_eq!(states(&plugin(&server).await)[0], "probation");
    all_send_traps(&server, "a:STAMP-0000000002", 20).await;
    until_rolled_back(&server, 1.0).await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    let shown = plugin(&server).await;
    assert_eq!((&shown["live"], &shown["held"]), (&first, &json!(true)));
    assert_eq!(states(&shown), ["live", "rolled_back"]);
    let (good, bad) = (&shown["versions"][0], &shown["versions"][1]);
    assert_eq!(
        (&good["trigger"], &bad["version"]),
        (&json!("probation"), &second)
    );
    let why = bad["rolled_back_because"].as_str().expect("a reason");
    assert!(why.contains("20 of 20 calls trapped"), "{why}");
    let line = server
        .until_line(|line| message(line).starts_with("plugin rolled back"))
        .await;
    assert_eq!(
        (&line["level"], &line["old"], &line["new"]),
        (&json!("ERROR"), &second, &first)
    );
    assert_eq!(server.metric(&swaps("live")).await, Some(2.0));

    // Neither a push nor a start brings it back, unless it is forced.
    let again = push(&server, &stamped("2")).await;
    assert_eq!((again.status, again.error()), (409, "rolled_back"));
    until_kept(&server).await;
    let server = server.restart().await;
    let again = push(&server, &stamped("2")).await;
    assert_eq!((again.status, again.error()), (409, "rolled_back"));
    let shown = plugin(&server).await;
    assert_eq!(states(&shown), ["live", "rolled_back"]);
    assert_eq!(shown["versions"][1]["rolled_back_because"], why);
    assert_eq!(push_by_force(&server, &stamped("2")).await.status, 200);
    let mut ann = server.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000002");
    // That ends it: the version can be rolled back to, and pushed.
    assert_eq!(push(&server, &stamped("1")).await.status, 200);
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
}

#[tokio::test]
async fn a_file_that_failed_is_skipped_until_its_bytes_change() {
    let server = start("").await;
    let mut ann = server.reachable("ann").await;
    server.replace("stamp.wasm", &stamped("2"));
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    all_send_traps(&server, "a:STAMP-0000000002", 20).await;
    until_rolled_back(&server, 1.0).await;
    // The file is touched, and reloaded by a signal and by hand.
    server.replace("stamp.wasm", &stamped("2"));
    assert_eq!(post(&server, "reload").await.body["reason"], "held");
    server.signal(Signal::HUP);
    server
        .until_line(|line| message(line) == "configuration applied")
        .await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    until_kept(&server).await;
    let server = server.restart().await;
    let mut ann = server.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    // Another file, and then the first one again.
    server.replace("stamp.wasm", &stamped("3"));
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    server.replace("stamp.wasm", &stamped("2"));
    until("the file was checked", async || {
        (post(&server, "reload").await.body["reason"] == "rolled_back").then_some(())
    })
    .await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000003");
    assert_eq!(
        post(&server, "reload?force=true").await.body["outcome"],
        "live"
    );
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000002");
}

#[tokio::test]
async fn a_configuration_that_fails_gives_way_with_the_component_that_stays() {
    let server = start("").await;
    let mut ann = server.reachable("ann").await;
    let renamed = crate::harness::with_plugin_cache(&format!("{}{BY_CALLS}", config("b")));
    server.replace("platform.toml", renamed.as_bytes());
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    all_send_traps(&server, "b:STAMP-0000000001", 20).await;
    until_rolled_back(&server, 1.0).await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
    assert_eq!(post(&server, "reload").await.body["reason"], "held");
    // A third version is tried.
    let third = crate::harness::with_plugin_cache(&format!("{}{BY_CALLS}", config("c")));
    server.replace("platform.toml", third.as_bytes());
    server
        .until_metric(&swaps("live"), |live| live == 3.0)
        .await;
    assert_eq!(mark(&mut ann).await, "c:STAMP-0000000001");
}

#[tokio::test]
async fn a_few_failures_are_tolerated_and_probation_ends_after_its_calls() {
    let server = start("calls = 60\n").await;
    let mut ann = server.reachable("ann").await;
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    send_traps(&mut ann, "a:STAMP-0000000002", 2).await;
    let mut calls = 2;
    while calls < 60 {
        assert_eq!(mark(&mut ann).await, "a:STAMP-0000000002");
        calls += 1;
    }
    until("the probation is over", async || {
        (states(&plugin(&server).await)[0] == "live").then_some(())
    })
    .await;
    let passed = |line: &Value| message(line) == "probation passed";
    assert_eq!(server.until_lines(1, passed).await.len(), 1);
    // Later failures are no longer attributed to the swap.
    all_send_traps(&server, "a:STAMP-0000000002", 60).await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000002");
    assert_eq!(server.metric(&swaps("rolled_back")).await, Some(0.0));
}

#[tokio::test]
async fn if_the_previous_version_does_not_start_an_earlier_one_is_restored() {
    let server = start("").await;
    for number in ["2", "3"] {
        assert_eq!(push(&server, &stamped(number)).await.status, 200);
    }
    // After a restart, all versions except the live one are only on disk.
    let second = plugin(&server).await["versions"][1]["sha256"].clone();
    let server = server.restart().await;
    let name = format!("{}.wasm", second.as_str().expect("a sha256"));
    let folder = server.dir.path().join(".signalbox/versions/stamp");
    std::fs::write(folder.join(name), b"damaged").expect("the file is written");
    // After a rollback by hand, the third version is on probation, and the next in line is the damaged second one.
    assert_eq!(push(&server, &stamped("4")).await.status, 200);
    assert_eq!(post(&server, "rollback").await.status, 200);
    all_send_traps(&server, "a:STAMP-0000000003", 20).await;
    until_rolled_back(&server, 1.0).await;
    let mut ann = server.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, "a:STAMP-0000000001");
}

#[tokio::test]
async fn with_no_time_there_is_no_probation() {
    let config = format!("{}[plugin_probation]\ntime = \"0s\"\n", config("a"));
    let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    assert_eq!(states(&plugin(&server).await)[0], "live");
}
