//! Cluster-wide swaps: all nodes swap together or none does, whatever fails in between.

use futures_util::future::join_all;
use serde_json::{Value, json};
use signalbox::plugin::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    admin::{Answer, KEY, WITH_KEY, admin, call, call_once_allowed},
    guests::{agreeable, stamped},
    harness::{Endpoint, Node, WITH_CHAT},
    logged::Logged,
    probation::send_traps,
    process::{self, Signal},
    redis::{Server as Redis, until},
    redis_nodes::{Nodes, Outcome, Peer, config, until_ready},
};

const STAMP: &str = "/admin/plugins/stamp";

/// The configuration of a node `name` at `redis` with a plugin called `stamp`, and the lines in `more`.
pub(crate) fn with_stamp(name: &str, redis: &Redis, more: &str) -> String {
    format!(
        "{}{WITH_KEY}[[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n\
         call_cpu_max = \"1s\"\ncall_time_max = \"5s\"\n{more}\n",
        config(name, &redis.url(), "")
    )
}

pub(crate) async fn node_with(name: &str, redis: &Redis, bytes: &[u8], more: &str) -> Node {
    let config = with_stamp(name, redis, more);
    let node = Node::start_with(&[("stamp.wasm", bytes)], &config).await;
    until_ready(&node).await;
    node
}

async fn cluster(redis: &Redis, bytes: &[u8]) -> Nodes {
    let names = ["a", "b", "c"];
    let nodes = names.map(|name| node_with(name, redis, bytes, ""));
    Nodes {
        nodes: join_all(nodes).await,
    }
}

pub(crate) async fn push(node: &Endpoint, bytes: &[u8], query: &str) -> Answer {
    call(node, "PUT", &format!("{STAMP}?{query}"), Some(KEY), bytes).await
}

/// The first digits of the SHA-256 of the version that is live on the node.
pub(crate) async fn live(node: &Endpoint) -> String {
    let answer = call_once_allowed(node, "GET", STAMP, b"").await;
    let live = &answer.body["live"];
    live.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn version(bytes: &[u8]) -> String {
    Sha256::of(bytes).label()
}

async fn until_live(node: &Endpoint, bytes: &[u8]) {
    let version = version(bytes);
    until("the version is live", async || {
        (live(node).await == version).then_some(())
    })
    .await;
}

/// The reported outcome of each node, by its name without the boot ID, sorted.
fn outcomes(nodes: &Value) -> Vec<(String, String)> {
    let nodes = nodes.as_array().expect("a list of nodes").iter();
    nodes
        .map(|node| {
            let name = node["node"].as_str().expect("a name");
            let name = name.split('-').next().expect("a name");
            let outcome = node["outcome"].as_str().expect("an outcome");
            (name.to_owned(), outcome.to_owned())
        })
        .collect()
}

fn expected(outcomes: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, outcome): &(&str, &str)| ((*name).to_owned(), (*outcome).to_owned());
    outcomes.iter().map(owned).collect()
}

/// Sends messages from `sender` to `receiver` through the plugin while `go_on` is true, and returns their stamps in
/// order.
async fn stamps_of(
    sender: &mut Peer,
    receiver: &mut Peer,
    mut go_on: impl FnMut() -> bool,
) -> Vec<String> {
    let mut sent = 0_u64;
    while go_on() {
        let message = json!({"type": "x", "payload": {"n": sent}, "receiverId": receiver.user});
        assert_eq!(sender.ask_json(message).await, Outcome::Delivered);
        sent += 1;
    }
    let taken = receiver.take(usize::try_from(sent).expect("a count")).await;
    let numbers: Vec<_> = taken
        .iter()
        .map(|one| one["payload"]["n"].as_u64())
        .collect();
    let all: Vec<_> = (0..sent).map(Some).collect();
    assert_eq!(numbers, all, "nothing lost, doubled or out of order");
    let stamp = |one: &Value| {
        let stamps = one["payload"]["stamps"].as_array().expect("stamps");
        assert_eq!(stamps.len(), 1, "one version saw it: {one}");
        stamps[0].as_str().expect("a stamp").to_owned()
    };
    taken.iter().map(stamp).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_go_live_together_under_load_and_nothing_is_lost() {
    let redis = Redis::start().await;
    let cluster = cluster(&redis, &stamped("1")).await;
    let users = ["u0", "u1", "u2", "v0", "v1", "v2"].map(str::to_owned);
    let mut peers = cluster.peers(&users).await;
    // Each `v` is connected to the node after that of its `u`.
    peers[3..].rotate_left(1);
    let receivers = peers.split_off(3);
    let (done, is_done) = tokio::sync::watch::channel(false);
    let talks = peers.into_iter().zip(receivers).map(|(mut from, mut to)| {
        let is_done = is_done.clone();
        tokio::spawn(async move {
            let go_on = || !*is_done.borrow();
            stamps_of(&mut from, &mut to, go_on).await
        })
    });
    let talks: Vec<_> = talks.collect();
    let answer = push(&cluster.nodes[1], &stamped("2"), "scope=cluster").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let all_live = expected(&[("a", "live"), ("b", "live"), ("c", "live")]);
    assert_eq!(outcomes(&answer.body["nodes"]), all_live);
    assert_eq!(
        (&answer.body["scope"], &answer.body["number"]),
        (&json!("cluster"), &json!(1))
    );
    assert_eq!(answer.body["version"], version(&stamped("2")));
    for node in &cluster.nodes {
        assert_eq!(live(node).await, version(&stamped("2")));
    }
    let again = push(&cluster.nodes[2], &stamped("3"), "scope=cluster").await;
    assert_eq!((again.status, &again.body["number"]), (200, &json!(2)));
    done.send_replace(true);
    for talk in talks {
        let stamps = talk.await.expect("the talk goes on");
        let first = stamps.first().expect("something was sent");
        assert_eq!(first, "stamp:STAMP-0000000001");
        assert!(
            stamps.is_sorted(),
            "a pair never sees an older version after a newer one"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refusal_leaves_all_nodes_as_they_are_and_a_quorum_goes_ahead_without_it() {
    let redis = Redis::start().await;
    let (small, large) = (agreeable("", 1), agreeable("", 4));
    let a = node_with("a", &redis, &small, "").await;
    let b = node_with("b", &redis, &small, "").await;
    let c = node_with("c", &redis, &small, "memory_max = \"128KiB\"").await;
    let answer = push(&a, &large, "scope=cluster").await;
    assert_eq!(
        (answer.status, answer.error()),
        (409, "not_agreed"),
        "{}",
        answer.body
    );
    let nodes = &answer.body["report"]["nodes"];
    let reported = outcomes(nodes);
    assert!(
        reported.contains(&("c".to_owned(), "refused".to_owned())),
        "{nodes}"
    );
    let refused = nodes
        .as_array()
        .expect("nodes")
        .iter()
        .find(|node| node["outcome"] == "refused");
    assert!(refused.expect("c")["message"].is_string(), "{nodes}");
    for node in [&a, &b, &c] {
        assert_eq!(live(node).await, version(&small));
    }
    // A node that refuses also says so when it coordinates the push.
    let answer = push(&c, &large, "scope=cluster").await;
    assert_eq!((answer.status, answer.error()), (422, "refused"));

    let answer = push(&a, &large, "scope=cluster&quorum=2").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let two_live = expected(&[("a", "live"), ("b", "live"), ("c", "refused")]);
    assert_eq!(outcomes(&answer.body["nodes"]), two_live);
    assert_eq!(live(&c).await, version(&small));
    // The quorum allowed this refusal, so the node keeps serving. Only a node that starts now has to follow first.
    until_ready(&c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_later_has_the_version_of_the_cluster_before_it_is_ready() {
    let mut redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    // The file of this node has another version.
    let b = node_with("b", &redis, &stamped("1"), "").await;
    assert_eq!(live(&b).await, version(&stamped("2")));
    // The nodes restore the decision that Redis lost.
    redis.restart_empty().await;
    until("the decision is restored", async || {
        let fields: Vec<String> = redis.command(&["HKEYS", "signalbox:plugins"]).await;
        fields.contains(&"decided:stamp".to_owned()).then_some(())
    })
    .await;
    let c = node_with("c", &redis, &stamped("1"), "").await;
    assert_eq!(live(&c).await, version(&stamped("2")));
    for node in [&a, &b] {
        assert_eq!(live(node).await, version(&stamped("2")));
    }
    let answer = push(&c, &stamped("3"), "scope=cluster").await;
    assert_eq!(
        (answer.status, &answer.body["number"]),
        (200, &json!(2)),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_follow_their_files_again_on_command() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let b = node_with("b", &redis, &stamped("2"), "").await;
    assert_eq!(push(&a, &stamped("3"), "scope=cluster").await.status, 200);
    let path = format!("{STAMP}/reload?scope=cluster");
    let answer = admin(&b, "POST", &path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        (&answer.body["outcome"], &answer.body["number"]),
        (&json!("released"), &json!(2))
    );
    let both = expected(&[("a", "live"), ("b", "live")]);
    assert_eq!(outcomes(&answer.body["nodes"]), both);
    assert_eq!(live(&a).await, version(&stamped("1")));
    assert_eq!(live(&b).await, version(&stamped("2")));
    // A node that joins now follows its file too.
    let c = node_with("c", &redis, &stamped("4"), "").await;
    assert_eq!(live(&c).await, version(&stamped("4")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_on_one_node_is_rolled_back_on_all() {
    let redis = Redis::start().await;
    let by_calls = "[plugin_probation]\ntime = \"1h\"";
    let a = node_with("a", &redis, &stamped("1"), by_calls).await;
    let b = node_with("b", &redis, &stamped("1"), by_calls).await;
    assert_eq!(push(&a, &stamped("2"), "scope=cluster").await.status, 200);
    assert_eq!(push(&a, &stamped("3"), "scope=cluster").await.status, 200);
    for user in ["u1", "u2", "u3", "u4"] {
        let mut client = a.client(user).await;
        send_traps(&mut client, "stamp:STAMP-0000000003", 5).await;
    }
    until_live(&a, &stamped("2")).await;
    until_live(&b, &stamped("2")).await;
    // The rollback is final; the next decision gets the next number.
    let answer = until("another call is allowed", async || {
        let answer = push(&b, &stamped("4"), "scope=cluster").await;
        (answer.status != 429).then_some(answer)
    })
    .await;
    assert_eq!(
        (answer.status, &answer.body["number"]),
        (200, &json!(4)),
        "{}",
        answer.body
    );
}

/// A node in a separate process, which can be stopped and killed.
async fn process_with(name: &str, redis: &Redis, bytes: &[u8]) -> Logged {
    let server = Logged::start(&[("stamp.wasm", bytes)], &with_stamp(name, redis, "")).await;
    until_ready(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_in_the_middle_is_not_waited_for() {
    let redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    let c = process_with("c", &redis, &stamped("1")).await;
    // It holds a lease, but does not answer.
    c.signal(Signal::STOP);
    let pushed = async { push(&a, &stamped("2"), "scope=cluster").await };
    let killed = async {
        until_proposed(&redis).await;
        // While the state of one node is unknown, no node goes live.
        assert_eq!(live(&b).await, version(&stamped("1")));
        c.signal(Signal::KILL);
    };
    let (answer, ()) = tokio::join!(pushed, killed);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let gone = expected(&[("a", "live"), ("b", "live"), ("c", "gone")]);
    assert_eq!(outcomes(&answer.body["nodes"]), gone);
    for node in [&a, &b] {
        assert_eq!(live(node).await, version(&stamped("2")));
    }
}

async fn until_proposed(redis: &Redis) {
    until("a version is proposed", async || {
        let fields: Vec<String> = redis.command(&["HKEYS", "signalbox:plugins"]).await;
        fields.contains(&"proposed:stamp".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_whose_coordinator_is_killed_never_happened_and_the_next_one_does() {
    let redis = Redis::start().await;
    let a = process_with("a", &redis, &stamped("1")).await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    let c = process_with("c", &redis, &stamped("1")).await;
    c.signal(Signal::STOP);
    let endpoint = Endpoint { address: a.address };
    let lost = tokio::spawn(async move {
        // The response never comes; the end of the connection is enough.
        let request = format!(
            "PUT {STAMP}?scope=cluster HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        );
        let bytes = stamped("2");
        let head = format!(
            "{request}Content-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        let mut stream = endpoint.tcp().await;
        stream
            .write_all(head.as_bytes())
            .await
            .expect("it takes the head");
        stream
            .write_all(&bytes)
            .await
            .expect("it takes the component");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    until_proposed(&redis).await;
    a.signal(Signal::KILL);
    lost.await.expect("the connection ends");
    c.signal(Signal::CONT);
    let answer = until("the proposal is over", async || {
        let answer = push(&b, &stamped("3"), "scope=cluster").await;
        (answer.status != 409 && answer.status != 429).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    until_live(&b, &stamped("3")).await;
    until_live(&c, &stamped("3")).await;
    assert!(is_swapped(&c, &stamped("3")));
    assert!(!is_swapped(&c, &stamped("2")));
}

/// Whether this version was ever live on the server.
fn is_swapped(server: &Logged, bytes: &[u8]) -> bool {
    let new = format!("\"new\":\"{}\"", version(bytes));
    server.log().iter().any(|line| line.contains(&new))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_redis_is_lost_during_a_change_nothing_changes_and_the_answer_reports_it() {
    let mut redis = Redis::start().await;
    let a = node_with("a", &redis, &stamped("1"), "").await;
    let b = node_with("b", &redis, &stamped("1"), "").await;
    let c = process_with("c", &redis, &stamped("1")).await;
    c.signal(Signal::STOP);
    let pushing = Endpoint { address: a.address };
    let pushed = tokio::spawn(async move { push(&pushing, &stamped("2"), "scope=cluster").await });
    until_proposed(&redis).await;
    redis.kill9();
    let answer = pushed.await.expect("an answer arrives");
    assert_eq!(
        (answer.status, answer.error()),
        (503, "unavailable"),
        "{}",
        answer.body
    );
    redis.restart_empty().await;
    c.signal(Signal::CONT);
    for node in [&a, &b] {
        until_ready(node).await;
        assert_eq!(live(node).await, version(&stamped("1")));
    }
    until_ready(&c).await;
    // All nodes are healthy again, and agree on the next decision.
    let answer = until("all nodes are back", async || {
        let answer = push(&b, &stamped("3"), "scope=cluster").await;
        let nodes = answer.body["nodes"].as_array().map_or(0, Vec::len);
        (answer.status == 200 && nodes == 3).then_some(answer)
    })
    .await;
    let all_live = expected(&[("a", "live"), ("b", "live"), ("c", "live")]);
    assert_eq!(outcomes(&answer.body["nodes"]), all_live);
}

#[tokio::test]
async fn a_node_alone_is_its_whole_cluster_and_the_query_is_checked() {
    let node = Node::start(&format!("{WITH_KEY}{WITH_CHAT}")).await;
    let chat = std::fs::read(node.path("chat.wasm")).expect("the plugin");
    let path = |query: &str| format!("/admin/plugins/chat?{query}");
    let answer = call(&node, "PUT", &path("scope=cluster"), Some(KEY), &chat).await;
    assert_eq!(
        (answer.status, &answer.body["number"]),
        (200, &json!(0)),
        "{}",
        answer.body
    );
    assert_eq!(answer.body["nodes"].as_array().map(Vec::len), Some(1));
    for query in ["quorum=1", "scope=cluster&quorum=0", "scope=all"] {
        let answer = call(&node, "PUT", &path(query), Some(KEY), &chat).await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, "invalid_query"),
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_from_a_shell_shows_the_result_of_each_node() {
    let redis = Redis::start().await;
    let (small, large) = (agreeable("", 1), agreeable("", 4));
    let a = node_with("a", &redis, &small, "").await;
    let _b = node_with("b", &redis, &small, "memory_max = \"128KiB\"").await;
    std::fs::write(a.path("new.wasm"), &large).expect("the component is written");
    let url = format!("http://{}", a.address);
    let environment = [("SIGNALBOX_ADMIN_KEY", KEY)];
    let push = async |more: &[&str]| {
        let mut words = vec![
            "plugin", "push", "new.wasm", "--name", "stamp", "--url", &url,
        ];
        words.extend(more);
        process::run(a.dir.path(), &words, &environment).await
    };
    let refused = push(&["--cluster"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("nothing has changed on any node"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("refused: "), "{}", refused.stderr);
    let done = push(&["--cluster", "--quorum", "1"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stdout.contains("is live on 1 of 2 nodes"),
        "{}",
        done.stdout
    );
    let usage = push(&["--quorum", "1"]).await;
    assert!(usage.stderr.contains("--cluster"), "{}", usage.stderr);
}
