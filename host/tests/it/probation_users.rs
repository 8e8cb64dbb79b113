//! A version is rolled back for several users whose calls succeed on the version before it, and never for one client
//! alone.

use serde_json::{Value, json};

use crate::{
    admin::{KEY, call},
    admin_plugins::{STAMP, config, mark, plugin, post, push, states, swaps},
    guests::{stamp_of, stamped},
    harness::{Client, Node},
    logged::Logged,
    probation::send_traps,
    redis::until,
};

const USERS: [&str; 4] = ["u1", "u2", "u3", "u4"];

/// Only calls end a trial, not time.
async fn start(more: &str) -> Node {
    let config = format!(
        "[limits]\nmessages_per_second = 0\n[plugin_probation]\ntime = \"1h\"\n{more}{}",
        config("a")
    );
    Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await
}

fn mark_of(version: &str) -> String {
    format!("a:{}", stamp_of(version))
}

/// The evidence against the live version, once all failed calls were replayed.
async fn evidence(node: &Node) -> Value {
    until("all failed calls were replayed", async || {
        let shown = plugin(node).await;
        let evidence = shown["versions"][0]["evidence"].clone();
        (evidence["open"] == false).then_some(evidence)
    })
    .await
}

async fn assert_stays(node: &Node, client: &mut Client, version: &str) {
    assert_eq!(mark(client).await, mark_of(version));
    assert_eq!(node.metric(&swaps("rolled_back")).await, Some(0.0));
}

#[tokio::test]
async fn one_client_cannot_veto_a_version_however_often_its_calls_fail() {
    let node = start("").await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    send_traps(&mut ann, &mark_of("2"), 200).await;
    // The same user on many connections is one user.
    for _ in 0..4 {
        let mut other = node.client("ann").await;
        send_traps(&mut other, &mark_of("2"), 20).await;
    }
    let evidence = evidence(&node).await;
    assert_eq!(evidence, json!({"failures": 0, "users": 1, "open": false}));
    assert_stays(&node, &mut ann, "2").await;
}

#[tokio::test]
async fn one_client_among_few_others_counts_for_no_more_than_they_do() {
    let node = start("").await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    // Enough successful calls to tolerate two accidental failures.
    for _ in 0..100 {
        assert_eq!(mark(&mut ann).await, mark_of("2"));
    }
    for user in ["u1", "u2"] {
        send_traps(&mut node.client(user).await, &mark_of("2"), 1).await;
    }
    send_traps(&mut ann, &mark_of("2"), 300).await;
    let evidence = evidence(&node).await;
    assert_eq!(
        (&evidence["failures"], &evidence["users"]),
        (&json!(4), &json!(3))
    );
    assert_stays(&node, &mut ann, "2").await;
}

#[tokio::test]
async fn failures_of_both_versions_count_against_neither() {
    let node = start("").await;
    let mut ann = node.reachable("ann").await;
    // Both versions carry the mark at which they trap.
    assert_eq!(push(&node, &stamped("1")).await.body["reason"], "live");
    let again = post(&node, "reload?force=true").await;
    assert_eq!(again.body["outcome"], "live");
    assert_eq!(states(&plugin(&node).await)[0], "probation");
    for user in USERS {
        send_traps(&mut node.client(user).await, &mark_of("1"), 25).await;
    }
    assert_eq!(evidence(&node).await["failures"], 0);
    assert_stays(&node, &mut ann, "1").await;
}

#[tokio::test]
async fn the_configured_number_of_users_rolls_a_version_back() {
    let node = start("users_min = 5\n").await;
    let mut ann = node.reachable("ann").await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    for user in USERS {
        send_traps(&mut node.client(user).await, &mark_of("2"), 10).await;
    }
    assert_eq!(evidence(&node).await["failures"], 40);
    assert_stays(&node, &mut ann, "2").await;
    send_traps(&mut ann, &mark_of("2"), 10).await;
    node.until_metric(&swaps("rolled_back"), |count| count == 1.0)
        .await;
    assert_eq!(mark(&mut ann).await, mark_of("1"));
}

#[tokio::test]
async fn a_client_that_made_the_version_before_fail_sets_no_lower_standard() {
    let node = start("").await;
    let mut eve = node.client("eve").await;
    send_traps(&mut eve, &mark_of("1"), 200).await;
    assert_eq!(push(&node, &stamped("2")).await.status, 200);
    for user in USERS {
        send_traps(&mut node.client(user).await, &mark_of("2"), 5).await;
    }
    node.until_metric(&swaps("rolled_back"), |count| count == 1.0)
        .await;
}

#[tokio::test]
async fn a_push_without_probation_is_never_rolled_back() {
    let node = start("").await;
    let mut ann = node.reachable("ann").await;
    let path = format!("{STAMP}?probation=false");
    let pushed = call(&node, "PUT", &path, Some(KEY), &stamped("2")).await;
    assert_eq!(
        (pushed.status, &pushed.body["outcome"]),
        (200, &json!("live"))
    );
    assert_eq!(states(&plugin(&node).await)[0], "live");
    for user in USERS {
        send_traps(&mut node.client(user).await, &mark_of("2"), 25).await;
    }
    assert_stays(&node, &mut ann, "2").await;
}

#[tokio::test]
async fn under_a_limit_of_the_address_space_the_server_starts_and_plugins_run() {
    let limited = ["sh", "-c", "ulimit -v 4000000; exec \"$0\" \"$@\""].map(str::to_owned);
    let files = crate::harness::folder(&[("stamp.wasm", &stamped("1"))]);
    let server = Logged::start_through(limited.to_vec(), files, &config("a")).await;
    let warned = |line: &Value| {
        crate::logged::message(line).starts_with("the address space for the memory of all plugins")
    };
    assert_eq!(server.until_lines(1, warned).await.len(), 1);
    let mut ann = server.reachable("ann").await;
    assert_eq!(mark(&mut ann).await, mark_of("1"));
    assert_eq!(push(&server, &stamped("2")).await.status, 200);
    assert_eq!(mark(&mut ann).await, mark_of("2"));
}
