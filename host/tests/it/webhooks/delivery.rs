//! How events are sent: signed, together, in order, and again if that fails.

use std::time::Duration;

use serde_json::Value;

use super::receiver::{Receiver, Reply, SECRET};
use crate::{
    harness::{Node, with_plugin_cache},
    logged::Logged,
    redis::until,
};

/// The users of the events of one kind, in their order.
fn users(events: &[Value]) -> Vec<&str> {
    let users = events.iter().filter(|event| event["type"] == "connected");
    users
        .map(|event| event["userId"].as_str().expect("a user"))
        .collect()
}

/// A metric of the first webhook.
fn of_webhook(metric: &str) -> String {
    format!("{metric}{{webhook=\"127.0.0.1\"}}")
}

/// Connects `users`, each after the one before was reported.
async fn connect(node: &Node, users: &[&str]) {
    for user in users {
        node.reachable(user).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_signed_with_the_secret_and_with_the_previous_one_and_no_other() {
    const PREVIOUS: &str = "past-past-past-past-past-past-past";
    let receiver = Receiver::start().await;
    let node = Node::start(&receiver.webhook(&["connected"], "")).await;
    connect(&node, &["ann"]).await;
    let request = receiver.until_requests(1).await.remove(0);
    assert!(request.is_signed_with(SECRET));
    assert!(!request.is_signed_with(&SECRET.replace('u', "a")));
    assert_eq!(request.header("signalbox-signature").len(), 3 + 64);
    assert_eq!(request.header("content-type"), "application/json");
    let mut changed = request.clone();
    changed.body = changed.body.replace("ann", "eve");
    assert!(!changed.is_signed_with(SECRET));
    // While secrets are rotated, the receiver may know either.
    let both = receiver.webhook(&["connected"], &format!("secret_previous = {PREVIOUS:?}"));
    node.replace("platform.toml", with_plugin_cache(&both).as_bytes());
    let mut sent = 1;
    loop {
        connect(&node, &["ann"]).await;
        sent += 1;
        let request = receiver
            .until_requests(sent)
            .await
            .pop()
            .expect("a request");
        assert!(request.is_signed_with(SECRET));
        if request.is_signed_with(PREVIOUS) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_are_sent_together_and_no_more_than_batch_max() {
    let receiver = Receiver::start().await;
    let node = Node::start(&receiver.webhook(&["connected"], "batch_max = 3")).await;
    receiver.reply_next(&[Reply::Status(503)]);
    connect(&node, &["one"]).await;
    receiver.until_requests(1).await;
    receiver.reply(Reply::Status(503));
    let more = ["two", "three", "four", "five", "six", "seven", "eight"];
    connect(&node, &more).await;
    node.until_metric(&of_webhook("wss_webhook_queued"), |queued| queued >= 8.0)
        .await;
    receiver.reply(Reply::Status(204));
    let events = receiver.until_events(8).await;
    let expected: Vec<&str> = ["one"].into_iter().chain(more).collect();
    assert_eq!(users(&events), expected);
    let sizes: Vec<usize> = receiver
        .requests()
        .iter()
        .map(|one| one.events().len())
        .collect();
    assert!(
        sizes.iter().all(|size| *size <= 3) && sizes.contains(&3),
        "{sizes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_not_accepted_is_sent_again_with_its_id_and_before_all_others() {
    let receiver = Receiver::start().await;
    // Only the silent attempt takes that long, also on a busy machine.
    let node = Node::start(&receiver.webhook(&["connected"], "").replace("60s", "10s")).await;
    let refusals = [
        Reply::Status(500),
        Reply::Silence,
        Reply::Redirect,
        Reply::Status(410),
    ];
    receiver.reply_next(&refusals);
    connect(&node, &["ann"]).await;
    receiver.until_requests(1).await;
    connect(&node, &["bob", "eve"]).await;
    let events = receiver.until_events(3).await;
    assert_eq!(users(&events), ["ann", "bob", "eve"]);
    let requests = receiver.requests();
    let first = &requests[..5];
    assert!(first.iter().all(|request| request.id() == first[0].id()));
    assert!(first.iter().all(|request| request.body == first[0].body));
    let replies: Vec<Reply> = first.iter().map(|request| request.reply).collect();
    assert_eq!(
        (&replies[..4], replies[4]),
        (&refusals[..], Reply::Status(200))
    );
    assert_ne!(requests[5].id(), first[0].id());
    node.until_metric(&of_webhook("wss_webhook_attempts_failed_total"), |failed| {
        failed == 4.0
    })
    .await;
    node.until_metric(&of_webhook("wss_webhook_events_sent_total"), |sent| {
        sent == 3.0
    })
    .await;
    node.until_metric(&of_webhook("wss_webhook_queued"), |queued| queued == 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_counts_by_its_status_even_if_its_body_never_ends() {
    let receiver = Receiver::start().await;
    let node = Node::start(&receiver.webhook(&["connected"], "")).await;
    receiver.reply_next(&[Reply::EndlessBody]);
    connect(&node, &["ann", "bob"]).await;
    assert_eq!(users(&receiver.until_events(2).await), ["ann", "bob"]);
    node.until_metric(&of_webhook("wss_webhook_events_sent_total"), |sent| {
        sent == 2.0
    })
    .await;
    assert_eq!(
        node.metric(&of_webhook("wss_webhook_attempts_failed_total"))
            .await,
        Some(0.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_beyond_queue_max_push_out_the_oldest_and_are_counted() {
    let receiver = Receiver::start().await;
    let node = Node::start(&receiver.webhook(&["connected"], "queue_max = 3\nbatch_max = 1")).await;
    receiver.reply(Reply::Status(500));
    connect(&node, &["one", "two", "three", "four", "five"]).await;
    let full = "wss_webhook_events_dropped_total{webhook=\"127.0.0.1\",reason=\"queue_full\"}";
    node.until_metric(full, |dropped| dropped == 2.0).await;
    // An event that is being sent may arrive although it was dropped.
    until("the oldest one that is left is being sent", async || {
        let request = receiver.requests().pop()?;
        (users(&request.events()) == ["three"]).then_some(())
    })
    .await;
    receiver.reply(Reply::Status(200));
    assert_eq!(
        users(&receiver.until_events(3).await),
        ["three", "four", "five"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_delays_no_other_one_and_no_client() {
    let (hanging, well) = (Receiver::start().await, Receiver::start().await);
    hanging.reply(Reply::Silence);
    let config = hanging.webhook(&["connected"], "") + &well.webhook(&["connected"], "");
    let node = Node::start(&config).await;
    connect(&node, &["ann"]).await;
    hanging.until_requests(1).await;
    connect(&node, &["bob"]).await;
    assert_eq!(users(&well.until_events(2).await), ["ann", "bob"]);
    // Both have the same host.
    let second = "wss_webhook_events_sent_total{webhook=\"127.0.0.1#2\"}";
    node.until_metric(second, |sent| sent == 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_come_change_and_go_while_the_server_runs() {
    let receiver = Receiver::start().await;
    let node = Node::start("").await;
    let change = |config: &str| node.replace("platform.toml", with_plugin_cache(config).as_bytes());
    // Connections before the change is applied are reported as before.
    let until_reported = async |user: &str, kind: &str| {
        let is_it = |event: &Value| event["userId"] == user && event["type"] == kind;
        until("the change is applied", async || {
            connect(&node, &[user]).await;
            receiver.events().iter().any(is_it).then_some(())
        })
        .await;
    };
    change(&receiver.webhook(&["connected"], ""));
    until_reported("ann", "connected").await;
    change(&receiver.webhook_at("other", &["disconnected"], ""));
    until_reported("bob", "disconnected").await;
    change("");
    until("nothing is reported any more", async || {
        let before = receiver.events().len();
        connect(&node, &["eve"]).await;
        // Much longer than an event waits for others.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (receiver.events().len() == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_sends_the_events_in_memory() {
    let receiver = Receiver::start().await;
    let events = ["connected", "disconnected", "room_occupied", "room_vacated"];
    let webhook = receiver.webhook(&events, "").replace("10ms", "60s");
    let config =
        format!("{webhook}[server]\ndrain_timeout = \"60s\"\n[presence]\ngrace = \"1h\"\n");
    let node = Node::start(&config).await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"join","room":"r","id":"j"}"#).await;
    ann.json().await;
    assert_eq!(receiver.requests().len(), 0);
    node.terminate();
    assert_eq!(ann.closed().await, 4000);
    node.stopped().await;
    let mut types: Vec<String> = receiver
        .events()
        .iter()
        .map(|event| event["type"].as_str().expect("a type").to_owned())
        .collect();
    types.sort();
    assert_eq!(types, events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_url_is_logged() {
    let receiver = Receiver::start().await;
    receiver.reply_next(&[Reply::Status(500), Reply::Redirect]);
    let webhook = receiver.webhook_at("hush?token=hush", &["connected"], "");
    let node = Logged::start(&[], &webhook).await;
    node.client("ann").await.close().await;
    node.until_line(|line| line.to_string().contains("accepts its events again"))
        .await;
    node.replace(
        "platform.toml",
        webhook.replace("hush-hush-", "hush-hush-hush-").as_bytes(),
    );
    node.until_line(|line| line.to_string().contains("configuration applied"))
        .await;
    let hush = node.lines(|line| line.to_string().contains("hush"));
    assert!(hush.is_empty(), "{hush:?}");
}
