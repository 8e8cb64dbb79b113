//! `/metrics` under load, parsed by Prometheus' own parser.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::json;
use tokio::time::timeout;

use crate::{
    guests::{PATIENT, stamped},
    harness::{Client, Endpoint, Node, PATIENCE},
    logged::Logged,
};

const PAIRS: usize = 8;

/// Messages of a pair that are in flight at a time.
const WINDOW: usize = 64;

const SWAPS: usize = 3;
const SCRAPES_BETWEEN_SWAPS: usize = 5;

const MESSAGES: &str = "wss_messages_total";

/// Values that must not decrease, by name with labels.
type Counters = BTreeMap<String, f64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_under_load_are_valid_and_no_counter_goes_backwards_across_a_swap() {
    let config = format!(
        "[limits]\nmessages_per_second = 0\n\
         [[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}"
    );
    let node = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let receiver = format!("b{number}");
        let from = node.client(&format!("a{number}")).await;
        let to = node.reachable(&receiver).await;
        pairs.push(tokio::spawn(exchange(from, to, receiver, stop.clone())));
    }
    let began = Instant::now();
    let mut before = Counters::new();
    for swap in 1..=SWAPS {
        for _ in 0..SCRAPES_BETWEEN_SWAPS {
            before = scrape(&node, &before).await;
        }
        node.replace("stamp.wasm", &stamped(&(swap + 1).to_string()));
        let live = "wss_plugin_swaps_total{plugin=\"stamp\",outcome=\"live\"} ";
        let expected = (swap + 1) as f64;
        node.until_metric(live, |count| count == expected).await;
        before = scrape(&node, &before).await;
    }
    let rate = before[MESSAGES] / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for pair in pairs {
        pair.await.expect("the pair has lost nothing");
    }
    println!("scraped while {rate:.0} messages came in a second");
}

/// Scrapes until messages have arrived since the previous scrape.
async fn scrape(node: &Endpoint, before: &Counters) -> Counters {
    let arriving = async {
        loop {
            let counters = scrape_once(node, before).await;
            if counters.get(MESSAGES) > before.get(MESSAGES) {
                return counters;
            }
        }
    };
    let arrived = timeout(PATIENCE, arriving).await;
    arrived.expect("messages arrive")
}

/// Scrapes once and compares with the previous scrape: every series still exists, and none has decreased.
async fn scrape_once(node: &Endpoint, before: &Counters) -> Counters {
    let (status, text) = node.get("/metrics").await;
    assert_eq!(status, 200);
    let counters = tokio::task::spawn_blocking(move || {
        check(&text);
        counters(&text)
    });
    let counters = counters.await.expect("the text is read");
    for (name, earlier) in before {
        let now = counters.get(name);
        assert!(now >= Some(earlier), "{name}: {earlier}, and then {now:?}");
    }
    counters
}

async fn exchange(mut from: Client, mut to: Client, receiver: String, stop: Arc<AtomicBool>) {
    let message = json!({"type": "chat", "payload": {"n": 1}, "receiverId": receiver}).to_string();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..WINDOW {
            from.send(&message).await;
        }
        for _ in 0..WINDOW {
            to.text().await;
        }
    }
}

/// Runs `promtool` on the text. It complains about names that abbreviate a unit, as CloudWatch's names do in this
/// style; anything else is an error.
fn check(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in PATH; `cargo xtask test` installs it");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let output = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let is_about_units = |line: &str| {
        line.strip_suffix(" metric names should not contain abbreviated units")
            .is_some_and(|name| name.ends_with("_ms"))
    };
    let faults: Vec<_> = output
        .lines()
        .filter(|line| !is_about_units(line))
        .collect();
    assert!(faults.is_empty(), "{faults:?} in\n{text}");
}

/// The samples of counters and histograms.
fn counters(text: &str) -> Counters {
    let mut kinds = BTreeMap::new();
    let mut counters = Counters::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            kinds.insert(name, kind);
        }
        let Some((sample, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let name = sample.split('{').next().unwrap_or_default();
        let histogram = ["_bucket", "_count", "_sum"]
            .into_iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .is_some_and(|name| kinds.get(name) == Some(&"histogram"));
        if histogram || kinds.get(name) == Some(&"counter") {
            counters.insert(sample.to_owned(), value.parse().expect("a number"));
        }
    }
    assert!(counters.len() > 100, "{counters:?}");
    counters
}

#[tokio::test]
async fn types_and_codes_that_others_make_up_make_no_series_without_bound() {
    let config = "[limits]\nmessages_per_second = 0\n".to_owned() + crate::harness::WITH_CHAT;
    let node = Node::start(&config).await;
    let mut ann = node.client("ann").await;
    for number in 0..300 {
        ann.send(&json!({"type": format!("made_up_{number}"), "payload": 1}).to_string())
            .await;
    }
    for _ in 0..300 {
        assert_eq!(ann.error_code().await, "no_receiver");
    }
    let series = |text: &str| text.lines().filter(|line| line.contains("{type=")).count();
    let (_, text) = node.get("/metrics").await;
    assert!(series(&text) < 20, "{text}");
    assert_eq!(
        node.metric("wss_messages_by_type_total{type=\"other\"} ")
            .await,
        Some(300.0)
    );
    assert!(!text.contains("ann"), "no user is named");
}
