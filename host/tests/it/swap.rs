//! Plugins are swapped while everyone stays connected.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    guests::{PATIENT, component, stamp_number, stamped, wat, without_function, wrong_type},
    harness::{Client, Endpoint, Node, WITH_CHAT, chat_plugin},
    logged::{Logged, message},
    process::Signal,
};

const PAIRS: usize = 100;
const SWAPS: u64 = 20;

/// Messages of a pair that are in flight at a time.
const WINDOW: u64 = 4;

/// The pause between two windows of a pair. It leaves CPU time for swaps.
const PAUSE: Duration = Duration::from_secs(1);

/// Two plugins; the tests swap the first one.
fn config() -> String {
    format!(
        "[limits]\nmessages_per_second = 0\n\
         [[plugins]]\nname = \"stamp\"\npath = \"stamp.wasm\"\nevents = [\"*\"]\n{PATIENT}\
         store_calls_max = 10_000\nconfig = {{ handles = [\"handled\"] }}\n"
    )
}

/// A pair of clients, and the messages from one to the other.
struct Pair {
    from: Client,
    to: Client,
    receiver: String,
    sent: u64,
    received: u64,
    version: u64,
    times: Vec<Duration>,
}

impl Pair {
    async fn connect(node: &Endpoint, number: usize) -> Self {
        let receiver = format!("b{number}");
        Self {
            from: node.client(&format!("a{number}")).await,
            to: node.reachable(&receiver).await,
            receiver,
            sent: 0,
            received: 0,
            version: 1,
            times: Vec::new(),
        }
    }

    /// Exchanges messages until one carries the stamp of version `last`. Records in `seen` which
    /// version each pair has seen.
    async fn run(mut self, last: u64, seen: Arc<Vec<AtomicU64>>, number: usize) -> Self {
        while self.version < last {
            let began = Instant::now();
            for _ in 0..WINDOW {
                let payload = json!({"n": self.sent});
                let message =
                    json!({"type": "chat", "payload": payload, "receiverId": self.receiver});
                self.from.send(&message.to_string()).await;
                self.sent += 1;
            }
            for _ in 0..WINDOW {
                let payload = self.to.json().await["payload"].take();
                self.take(&payload);
            }
            self.times.push(began.elapsed());
            seen[number].store(self.version, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    fn take(&mut self, payload: &Value) {
        assert_eq!(payload["n"], self.received, "lost, doubled or out of order");
        self.received += 1;
        let stamps = payload["stamps"]
            .as_array()
            .expect("it went through the plugin");
        assert_eq!(stamps.len(), 1, "one version, once: {payload}");
        let version = stamp_number(stamps[0].as_str().expect("a stamp"));
        assert!(
            version >= self.version,
            "{} came after {}",
            version,
            self.version
        );
        self.version = version;
    }
}

/// Components that cannot be admitted, with the log text of each refusal.
fn broken() -> [(Vec<u8>, &'static str); 10] {
    let good = stamped("1");
    [
        (good[..good.len() / 2].to_vec(), "damaged or half written"),
        (Vec::new(), "the file is empty"),
        (b"no wasm at all".to_vec(), "the file is not WebAssembly"),
        (wat("(module)"), "the file is a core module"),
        (stamped("init-panic"), "the plugin does not start"),
        (
            stamped("init-refus"),
            "init refused its configuration: this version refuses every",
        ),
        (stamped("test-panic"), "self-test failed"),
        (
            stamped("test-fails"),
            "self-test failed: this version does not pass",
        ),
        (wrong_type(), "expected `validate: func(message: message)"),
        (
            without_function("signalbox:plugin/validation@2.0.0"),
            "this host serves signalbox:plugin@1.0.0",
        ),
    ]
}

fn swaps(outcome: &str) -> String {
    format!("wss_plugin_swaps_total{{plugin=\"stamp\",outcome=\"{outcome}\"}} ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_swaps_lose_double_and_reorder_nothing_and_broken_files_change_nothing() {
    compile_ahead().await;
    let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config()).await;
    let node = &server;
    let seen: Arc<Vec<_>> = Arc::new((0..PAIRS).map(|_| AtomicU64::new(1)).collect());
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let pair = Pair::connect(node, number).await;
        pairs.push(tokio::spawn(pair.run(SWAPS + 1, seen.clone(), number)));
    }
    let mut broken = broken().into_iter();
    let mut refused = 0.0;
    for version in 2..=SWAPS + 1 {
        if version % 2 == 0 {
            let (bytes, expected) = broken.next().expect("as many as every second swap");
            node.replace("stamp.wasm", &bytes);
            refused += 1.0;
            node.until_metric(&swaps("refused"), |count| count == refused)
                .await;
            let error = |line: &Value| line["level"] == "ERROR";
            let lines = server.until_lines(refused as usize, error).await;
            assert_eq!(lines.len() as f64, refused, "one line for each");
            let line = lines.last().expect("a line");
            assert!(message(line).contains(expected), "{expected} in {line}");
            assert!(
                message(line).starts_with("plugin refused, the live version stays"),
                "{line}"
            );
            assert_eq!(
                (&line["plugin"], &line["trigger"]),
                (&json!("stamp"), &json!("file"))
            );
        }
        node.replace("stamp.wasm", &version_of(version));
        node.until_metric(&swaps("live"), |live| live == version as f64)
            .await;
        // Wait until every pair has seen the version.
        while seen
            .iter()
            .any(|seen| seen.load(Ordering::Relaxed) < version)
        {
            assert!(
                pairs
                    .iter()
                    .all(|pair| version > SWAPS || !pair.is_finished())
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut times = Vec::new();
    let mut messages = 0;
    let mut clients = Vec::new();
    for pair in pairs {
        let pair = pair.await.unwrap();
        assert_eq!(pair.sent, pair.received);
        messages += pair.received;
        times.extend(pair.times);
        clients.push((pair.from, pair.to));
    }
    times.sort();
    println!(
        "{messages} messages by {PAIRS} pairs while {SWAPS} versions and 10 broken files came: \
         {WINDOW} in a row took {:?} (p50), {:?} (p99)",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    let open = node.metric("wss_active_connections ").await;
    assert_eq!(open, Some(2.0 * PAIRS as f64), "nobody was disconnected");
    assert_eq!(
        node.metric("wss_unexpected_disconnects_total ").await,
        Some(0.0)
    );
    for kind in ["trap", "deadline", "memory", "output", "unavailable"] {
        let failures = format!("wss_plugin_failures_total{{plugin=\"stamp\",kind=\"{kind}\"}} ");
        assert_eq!(node.metric(&failures).await, Some(0.0), "{kind}");
    }
    let swapped = |line: &Value| message(line) == "plugin swapped";
    check_swap_lines(&server.until_lines(SWAPS as usize + 1, swapped).await);
}

/// Every fifth version is compiled under load; the others are compiled beforehand, because that takes most of the time.
fn is_compiled_ahead(version: u64) -> bool {
    !version.is_multiple_of(5)
}

fn version_of(version: u64) -> Vec<u8> {
    let bytes = stamped(&version.to_string());
    if is_compiled_ahead(version) {
        return bytes;
    }
    // A custom section that is different in every run.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let nonce = since_1970.unwrap_or_default().as_nanos().to_le_bytes();
    [&bytes, &[0, 18, 1, b'n'][..], &nonce].concat()
}

async fn compile_ahead() {
    let loader = crate::runtime::loader(&Arc::default());
    let config = Arc::new(crate::runtime::plugin(
        "stamp",
        Path::new("stamp.wasm"),
        "{}",
    ));
    let faults = ["init-panic", "init-refus", "test-panic", "test-fails"].map(str::to_owned);
    let versions = (1..=SWAPS + 1)
        .filter(|version| is_compiled_ahead(*version))
        .map(|version| version.to_string());
    let loads = versions.chain(faults).map(async |stamp| {
        // A faulty version is compiled like any other.
        let _ = loader
            .load(
                &config,
                stamped(&stamp).into(),
                signalbox::plugin::CompilePriority::Full,
            )
            .await;
    });
    join_all(loads).await;
}

/// Checks that each swap has a line with the old and the new version, the trigger, and the duration.
fn check_swap_lines(lines: &[Value]) {
    assert_eq!(lines.len() as u64, SWAPS + 1);
    assert_eq!(
        (&lines[0]["old"], &lines[0]["trigger"]),
        (&json!("none"), &json!("start"))
    );
    for (line, before) in lines[1..].iter().zip(lines) {
        assert_eq!(
            (&line["plugin"], &line["trigger"]),
            (&json!("stamp"), &json!("file"))
        );
        assert_eq!(line["old"], before["new"]);
        let new = line["new"].as_str().expect("a version");
        assert!(
            new.len() == 12 && new.bytes().all(|b| b.is_ascii_hexdigit()),
            "{line}"
        );
        let (compile, live) = (line["compile_ms"].as_f64(), line["live_ms"].as_f64());
        assert!(compile > Some(0.0) && live >= compile, "{line}");
    }
}

#[tokio::test]
async fn a_changed_configuration_acts_on_the_next_message() {
    let node = Node::start(WITH_CHAT).await;
    let mut ann = node.client("ann").await;
    let config = format!("{WITH_CHAT}config = {{ max_text_chars = 3 }}\n");
    node.replace("platform.toml", config.as_bytes());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"live\"} ",
        |live| live == 2.0,
    )
    .await;
    ann.send(r#"{"type":"chat_message","payload":"four","receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"]["code"], "too_long");
}

/// Makes the handler of the live version answer, and returns its version.
async fn handled(client: &mut Client, payload: Value) -> u64 {
    let message = json!({"type": "handled", "payload": payload});
    client.send(&message.to_string()).await;
    answered(client).await
}

/// The version that handled the message, which must be the one that transformed it.
async fn answered(client: &mut Client) -> u64 {
    let payload = client.json().await["payload"].take();
    let stamps = payload["stamps"].as_array().expect("stamps");
    assert_eq!(stamps.len(), 2, "{payload}");
    assert_eq!(stamps[0], stamps[1], "one version for the whole message");
    stamp_number(stamps[0].as_str().expect("a stamp"))
}

#[tokio::test]
async fn a_call_that_began_before_a_swap_ends_on_the_version_that_it_began_on() {
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config()).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    let waiting = json!({"type": "handled", "payload": {"wait": "gate"}});
    ann.send(&waiting.to_string()).await;
    // Validation and transformation, which are one call, are over; the second call is the handler.
    node.until_metric("wss_plugin_calls_total{plugin=\"stamp\"} ", |calls| {
        calls >= 1.0
    })
    .await;
    node.replace("stamp.wasm", &stamped("2"));
    node.until_metric(&swaps("live"), |live| live == 2.0).await;
    assert_eq!(handled(&mut bob, json!({"open": "gate"})).await, 2);
    assert_eq!(answered(&mut ann).await, 1);
    assert_eq!(handled(&mut ann, json!({})).await, 2);
}

#[tokio::test]
async fn a_file_may_be_moved_into_place_or_written_there_and_a_burst_is_one_reload() {
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config()).await;
    let mut ann = node.client("ann").await;
    node.replace("stamp.wasm", &stamped("2"));
    node.until_metric(&swaps("live"), |live| live == 2.0).await;
    assert_eq!(handled(&mut ann, json!({})).await, 2);
    std::fs::write(node.path("stamp.wasm"), stamped("3")).unwrap();
    node.until_metric(&swaps("live"), |live| live == 3.0).await;
    assert_eq!(handled(&mut ann, json!({})).await, 3);
    let mut file = std::fs::File::create(node.path("stamp.wasm")).unwrap();
    for piece in stamped("4").chunks(16 << 10) {
        file.write_all(piece).unwrap();
    }
    drop(file);
    node.until_metric(&swaps("live"), |live| live == 4.0).await;
    assert_eq!(handled(&mut ann, json!({})).await, 4);
    assert_eq!(node.metric(&swaps("refused")).await, Some(0.0));
}

#[tokio::test]
async fn sighup_retries_refused_versions() {
    let server = Logged::start(&[("stamp.wasm", b"broken")], &config()).await;
    assert_eq!(server.metric(&swaps("refused")).await, Some(1.0));
    server.signal(Signal::HUP);
    let line = server
        .until_line(|line| line["level"] == "ERROR" && line["trigger"] == "signal")
        .await;
    assert!(
        message(&line).starts_with("plugin refused, and no version of it is live"),
        "{line}"
    );
    assert_eq!(server.metric(&swaps("refused")).await, Some(2.0));
}

#[tokio::test]
async fn a_second_start_loads_cached_code_unless_the_cache_was_changed() {
    let swapped = |line: &Value| message(line) == "plugin swapped";
    let config = format!("{}[plugin_cache]\ndir = \".signalbox/cache\"\n", config());
    let server = Logged::start(&[("stamp.wasm", &stamped("1"))], &config).await;
    assert_eq!(server.until_line(swapped).await["cached"], false);
    let server = server.restart().await;
    assert_eq!(server.until_line(swapped).await["cached"], true);
    let mut ann = server.client("ann").await;
    assert_eq!(handled(&mut ann, json!({})).await, 1);

    // A cache file of another component, and one with a changed byte.
    let compiled = || {
        let dir = std::fs::read_dir(server.dir.path().join(".signalbox/cache")).unwrap();
        let mut files: Vec<_> = dir
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "cwasm")
            })
            .collect();
        files.sort();
        files
    };
    let first = compiled();
    server.replace("stamp.wasm", &stamped("2"));
    server
        .until_metric(&swaps("live"), |live| live == 2.0)
        .await;
    let both = compiled();
    assert_eq!((first.len(), both.len()), (1, 2));
    let second = both.iter().find(|file| **file != first[0]).unwrap();
    std::fs::copy(&first[0], second).unwrap();
    let foreign_then_changed = async |server: Logged| {
        let server = server.restart().await;
        let line = server.until_line(swapped).await;
        assert_eq!(line["cached"], false);
        let warnings = server.lines(|line| message(line).contains("damaged or foreign"));
        assert_eq!(warnings.len(), 1);
        let swap = json!({"name": "swap", "plugin": "stamp", "trigger": "start"});
        assert_eq!(warnings[0]["spans"], json!([swap]));
        let mut ann = server.client("ann").await;
        assert_eq!(handled(&mut ann, json!({})).await, 2);
        server
    };
    let server = foreign_then_changed(server).await;
    let mut bytes = std::fs::read(second).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(second, bytes).unwrap();
    foreign_then_changed(server).await;
}

#[tokio::test]
async fn a_missing_plugin_rejects_everything_until_it_loads() {
    let node = Node::start(&WITH_CHAT.replace("chat.wasm", "later/chat.wasm")).await;
    assert_eq!(node.get("/ready").await.0, 503);
    assert_eq!(node.client("ann").await.closed().await, 4003);
    std::fs::create_dir(node.path("later")).unwrap();
    node.replace("later/chat.wasm", &std::fs::read(chat_plugin()).unwrap());
    node.until_metric(
        "wss_plugin_swaps_total{plugin=\"chat\",outcome=\"live\"} ",
        |live| live == 1.0,
    )
    .await;
    let mut ann = node.client("ann").await;
    ann.send(r#"{"type":"chat_message","payload":"hi","receiverId":"ann"}"#)
        .await;
    assert_eq!(ann.json().await["payload"], "hi");
    assert_eq!(node.get("/ready").await.0, 200);
}

#[tokio::test]
async fn a_plugin_file_over_the_limit_is_refused_and_the_live_version_stays() {
    let limit = component("stamp").len();
    let config = config().replace(
        "[limits]",
        &format!("[limits]\nplugin_file_bytes_max = {limit}"),
    );
    let node = Node::start_with(&[("stamp.wasm", &stamped("1"))], &config).await;
    let mut ann = node.client("ann").await;
    let longer = [stamped("2"), vec![0]].concat();
    node.replace("stamp.wasm", &longer);
    node.until_metric(&swaps("refused"), |refused| refused == 1.0)
        .await;
    assert_eq!(handled(&mut ann, json!({})).await, 1);
}

#[tokio::test]
async fn ids_of_messages_are_unique() {
    let node = Node::start(&format!("[limits]\nmessages_per_second = 0\n{WITH_CHAT}")).await;
    let mut ann = node.client("ann").await;
    let mut seen = BTreeSet::new();
    for id in 0..100 {
        ann.send(&json!({"type": "chat_message", "payload": 1, "receiverId": "nobody", "id": id.to_string()}).to_string()).await;
        assert!(seen.insert(ann.json().await["payload"]["messageId"].to_string()));
    }
}
