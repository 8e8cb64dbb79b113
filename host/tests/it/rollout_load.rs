//! Swaps, canaries and rollbacks under load: nothing is lost, duplicated or reordered, nobody is disconnected, and each
//! message was seen by one version.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    admin::{WITH_KEY, call_once_allowed},
    admin_plugins::{STAMP, swaps},
    cluster_swap::version as label,
    guests::{PATIENT, stamped},
    harness::{Client, Endpoint, Node},
};

const PAIRS: usize = 50;
const ROUNDS: u64 = 2;

/// Messages of a pair that are in flight at a time.
const WINDOW: u64 = 4;

/// The pause between two windows of a pair. It leaves CPU time for compiling plugins.
const PAUSE: Duration = Duration::from_millis(500);

/// A failing plugin is skipped, so that a version that traps loses no message.
fn config() -> String {
    format!(
        "[server]\ntrace_plugins = true\n[limits]\nmessages_per_second = 0\n\
         [plugin_probation]\ntime = \"1h\"\ncalls = 200\n{WITH_KEY}\
         [[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\non_failure = \"pass\"\n{PATIENT}\
         instances_max = 64\nconfig = {{ name = \"a\" }}\nrollout = {{ mode = \"canary\", percent = 20 }}\n"
    )
}

/// A sender, a receiver, and the messages between them.
struct Pair {
    from: Client,
    to: Client,
    receiver: String,
    sent: u64,
    /// The number of messages by version, as reported to the sender.
    versions: BTreeMap<String, u64>,
    /// Messages that no version marked, because the version that saw them failed.
    unmarked: u64,
    /// The versions by the stamp that they leave.
    labels: BTreeMap<String, String>,
    times: Vec<Duration>,
}

impl Pair {
    async fn connect(node: &Endpoint, number: usize) -> Self {
        let (sender, receiver) = (format!("a{number}"), format!("b{number}"));
        let path = format!("/ws?userId={sender}&trace=plugins");
        let protocol = [("Sec-WebSocket-Protocol", "signalbox.v1")];
        let (mut from, _) = node
            .upgrade(&path, &protocol)
            .await
            .expect("it is accepted");
        assert_eq!(from.json().await["type"], "welcome");
        Self {
            from,
            to: node.reachable(&receiver).await,
            receiver,
            sent: 0,
            versions: BTreeMap::new(),
            unmarked: 0,
            labels: BTreeMap::new(),
            times: Vec::new(),
        }
    }

    async fn run(mut self, over: Arc<AtomicBool>, windows: Arc<AtomicU64>) -> Self {
        while !over.load(Relaxed) {
            let began = Instant::now();
            let first = self.sent;
            for _ in 0..WINDOW {
                let message = json!({
                    "type": "chat", "payload": {"n": self.sent}, "receiverId": self.receiver,
                    "id": self.sent.to_string(),
                });
                self.from.send(&message.to_string()).await;
                self.sent += 1;
            }
            for number in first..self.sent {
                let ack = self.from.json().await;
                let payload = self.to.json().await["payload"].take();
                self.take(number, &ack, &payload);
            }
            self.times.push(began.elapsed());
            windows.fetch_add(1, Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    fn take(&mut self, number: u64, ack: &Value, payload: &Value) {
        assert_eq!(ack["type"], "ack", "{ack}");
        assert_eq!(
            ack["payload"]["id"],
            number.to_string(),
            "answered in order"
        );
        assert_eq!(payload["n"], number, "lost, doubled or out of order");
        let seen = ack["payload"]["plugins"].as_array().expect("versions");
        assert_eq!(seen.len(), 1, "one version saw it: {ack}");
        let version = seen[0]["sha256"].as_str().expect("a version");
        *self.versions.entry(version.to_owned()).or_default() += 1;
        match payload["stamps"].as_array() {
            Some(stamps) => {
                assert_eq!(stamps.len(), 1, "marked once: {payload}");
                let stamp = stamps[0].as_str().expect("a stamp");
                let marked_by = stamp.trim_start_matches("a:STAMP-").to_owned();
                let labels = &mut self.labels;
                let by = labels
                    .entry(marked_by)
                    .or_insert_with_key(|stamp| label(&stamped(stamp)));
                assert_eq!(version, by, "{ack} {payload}");
            }
            None => self.unmarked += 1,
        }
    }
}

/// The stamp of a version that panics at every message. It fills all ten bytes.
fn bad(round: u64, number: u64) -> String {
    format!("bad{round:06}{number}")
}

async fn push(node: &Endpoint, stamp: &str, force: bool) -> Value {
    let path = format!("{STAMP}{}", if force { "?force=true" } else { "" });
    let answer = call_once_allowed(node, "PUT", &path, &stamped(stamp)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Waits until every pair has exchanged messages for a while.
async fn let_them_talk(windows: &AtomicU64) {
    let enough = windows.load(Relaxed) + 2 * PAIRS as u64;
    while windows.load(Relaxed) < enough {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_canaries_and_rollbacks_under_load_lose_double_and_reorder_nothing() {
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config()).await;
    let (over, windows) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let pair = Pair::connect(&node, number).await;
        pairs.push(tokio::spawn(pair.run(over.clone(), windows.clone())));
    }
    let (mut live, mut rolled_back) = (1.0, 0.0);
    let settled = async |live: f64, rolled_back: f64| {
        node.until_metric(&swaps("live"), |count| count == live)
            .await;
        node.until_metric(&swaps("rolled_back"), |count| count == rolled_back)
            .await;
        let_them_talk(&windows).await;
        assert!(pairs.iter().all(|pair| !pair.is_finished()));
    };
    for round in 1..=ROUNDS {
        // For everyone at once.
        assert_eq!(
            push(&node, &format!("{round}1"), true).await["outcome"],
            "live"
        );
        live += 1.0;
        settled(live, rolled_back).await;
        // A good canary, which goes live.
        assert_eq!(
            push(&node, &format!("{round}2"), false).await["outcome"],
            "canary"
        );
        live += 1.0;
        settled(live, rolled_back).await;
        // A bad canary, which is withdrawn.
        assert_eq!(
            push(&node, &bad(round, 3), false).await["outcome"],
            "canary"
        );
        rolled_back += 1.0;
        settled(live, rolled_back).await;
        // A bad version for everyone, which is rolled back automatically.
        assert_eq!(push(&node, &bad(round, 4), true).await["outcome"], "live");
        live += 1.0;
        rolled_back += 1.0;
        settled(live, rolled_back).await;
    }
    over.store(true, Relaxed);
    let (mut messages, mut unmarked) = (0, 0);
    let (mut versions, mut times, mut clients) = (BTreeMap::new(), Vec::new(), Vec::new());
    for pair in pairs {
        let pair = pair.await.expect("the pair holds");
        messages += pair.sent;
        unmarked += pair.unmarked;
        times.extend(pair.times);
        for (version, count) in pair.versions {
            *versions.entry(version).or_insert(0) += count;
        }
        clients.push((pair.from, pair.to));
    }
    let named: u64 = versions.values().sum();
    assert_eq!(named, messages, "each message names its version");
    let of_bad: u64 = (1..=ROUNDS)
        .flat_map(|round| [bad(round, 3), bad(round, 4)])
        .map(|stamp| versions.get(&label(&stamped(&stamp))).copied().unwrap_or(0))
        .sum();
    assert_eq!(of_bad, unmarked, "only versions that trap left no mark");
    assert!(unmarked > 0);
    assert_eq!(
        versions.len() as u64,
        1 + 4 * ROUNDS,
        "everybody was seen: {versions:?}"
    );
    let open = node.metric("wss_active_connections ").await;
    assert_eq!(open, Some(2.0 * PAIRS as f64), "nobody was disconnected");
    let unexpected = node.metric("wss_unexpected_disconnects_total ").await;
    assert_eq!(unexpected, Some(0.0));
    times.sort();
    println!(
        "{messages} messages by {PAIRS} pairs, {unmarked} of them through versions that trapped, during {} swaps: \
         {WINDOW} in a row took {:?} (p50), {:?} (p99)",
        4 * ROUNDS,
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}
