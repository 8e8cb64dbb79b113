//! A real Prometheus with the configuration from `deploy/`: it scrapes nodes, answers every query of the dashboard, and
//! raises the alarms.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    dashboards::{annotation_queries, deploy, panel_queries, rules},
    guests::{PATIENT, component, stamped},
    harness::{Endpoint, Node, get},
    redis::{Server as Redis, free_port, until},
    redis_nodes::{Peer, config, until_ready},
    webhooks::receiver::Receiver,
};

/// A running Prometheus, which ends when this value is dropped.
struct Prometheus {
    endpoint: Endpoint,
    _dir: tempfile::TempDir,
    _child: Child,
}

impl Prometheus {
    /// A Prometheus that scrapes `targets` and evaluates its rules five times a second.
    async fn start(targets: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, scraping(targets)).expect("a file");
        fs::copy(deploy("prometheus/rules.yml"), dir.path().join("rules.yml")).expect("the rules");
        loop {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let mut child = Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=warn")
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("prometheus is in PATH; `cargo xtask test` installs it");
            let is_up = until("prometheus is ready, or ended", async || {
                if child.try_wait().expect("it can be asked").is_some() {
                    return Some(false);
                }
                let (status, _) = get(address, "/-/ready").await?;
                (status == 200).then_some(true)
            })
            .await;
            // If it exited, another process took the port first.
            if is_up {
                return Self {
                    endpoint: Endpoint { address },
                    _dir: dir,
                    _child: child,
                };
            }
        }
    }

    /// The response of its API at this path.
    async fn api(&self, path: &str) -> Value {
        // With HTTP/1.0 the response is not chunked.
        let answer = self
            .endpoint
            .http(&format!("GET /api/v1/{path} HTTP/1.0"))
            .await;
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// The resulting series of `query`.
    async fn query(&self, query: &str) -> Vec<Value> {
        let data = self.api(&format!("query?query={}", encoded(query))).await;
        data["result"].as_array().expect("a list").clone()
    }

    /// The names of the firing alarms.
    async fn alarms(&self) -> Vec<String> {
        let data = self.api("alerts").await;
        let alerts = data["alerts"].as_array().expect("a list").iter();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| {
                alert["labels"]["alertname"]
                    .as_str()
                    .expect("a name")
                    .to_owned()
            })
            .collect()
    }
}

/// The deployed configuration, with other targets and shorter times.
fn scraping(targets: &[SocketAddr]) -> String {
    let text = fs::read_to_string(deploy("prometheus/prometheus.yml")).expect("the file");
    let deployed = r#"["node-a:8080", "node-b:8080"]"#;
    assert!(text.contains(deployed) && text.contains("interval: 15s"));
    let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
    text.replace(deployed, &format!("{targets:?}"))
        .replace("interval: 15s", "interval: 200ms")
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A query of the dashboard with Grafana's variables filled in, for ranges as short as those of this test.
fn chosen(query: &str) -> String {
    query
        .replace("$__rate_interval", "3s")
        .replace("$job", "signalbox")
        .replace("$instance", ".*")
        .replace("$plugin", ".*")
        .replace("[1m]", "[3s]")
        .replace("offset 1m", "offset 3s")
}

/// Plugins that count, and that can be swapped.
fn plugins() -> String {
    let plugin = |name: &str, lines: &str| {
        format!(
            "[[plugins]]\nname = \"{name}\"\npath = \"{name}.wasm\"\nevents = [\"{name}.*\"]\n{PATIENT}{lines}\n"
        )
    };
    plugin("follower", "") + &plugin("stamp", "store_calls_max = 10_000")
}

/// Exchanges messages over both nodes until it is dropped.
async fn talk(mut ann: Peer, mut bob: Peer) {
    let figures = json!([{"count": ["talks", 1]}, {"observe": ["size", 7.5]}]);
    for n in 0.. {
        ann.ask("bob", n).await;
        bob.ask("ann", n).await;
        ann.ask("nobody", n).await;
        for message in [
            json!({"type": "latency_report", "payload": 12.5}),
            json!({"type": "stamp.any", "payload": {}, "receiverId": "bob"}),
            json!({"type": "follower.call", "payload": figures}),
        ] {
            ann.ask_json(message).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_answers_every_query_and_raises_an_alarm() {
    let redis = Redis::start().await;
    let receiver = Receiver::start().await;
    let files = [
        ("follower.wasm", component("follower")),
        ("stamp.wasm", stamped("1")),
    ];
    let files = files
        .each_ref()
        .map(|(name, bytes)| (*name, bytes.as_slice()));
    let start = async |name: &str| {
        let more = plugins() + &receiver.webhook(&["connected"], "");
        let config = config(name, &redis.url(), &more);
        let node = Node::start_with(&files, &config).await;
        until_ready(&node).await;
        node
    };
    let nodes = [start("a").await, start("b").await];
    let ann = Peer::connect(&nodes[0], "ann").await;
    let bob = Peer::connect(&nodes[1], "bob").await;
    let mut talking = tokio::task::JoinSet::new();
    talking.spawn(talk(ann, bob));
    let prometheus = Prometheus::start(&nodes.each_ref().map(|node| node.address)).await;

    let mut open: Vec<String> = panel_queries().iter().map(|query| chosen(query)).collect();
    assert!(open.len() > 50);
    // Queries that show only values other than 0 may be empty; all others must have a result.
    let may_be_empty = |query: &str| query.ends_with(" > 0");
    until("every panel shows something", async || {
        let mut empty = Vec::new();
        for query in std::mem::take(&mut open) {
            if prometheus.query(&query).await.is_empty() && !may_be_empty(&query) {
                empty.push(query);
            }
        }
        open = empty;
        println!("nothing yet: {open:#?}");
        open.is_empty().then_some(())
    })
    .await;
    assert_eq!(prometheus.alarms().await, [""; 0]);

    // A swap, and a refused one.
    let annotation = |name: &str| {
        let found = annotation_queries()
            .into_iter()
            .find(|(found, _)| found == name);
        chosen(&found.expect("an annotation").1)
    };
    let is_shown = async |name: &str| {
        let query = annotation(name);
        until(name, async || {
            let shown = prometheus.query(&query).await;
            let plugins: Vec<&Value> = shown
                .iter()
                .map(|series| &series["metric"]["plugin"])
                .collect();
            (plugins == ["stamp"]).then_some(())
        })
        .await;
    };
    nodes[0].replace("stamp.wasm", &stamped("2"));
    is_shown("Swapped").await;
    nodes[0].replace("stamp.wasm", b"broken");
    is_shown("Not swapped").await;
    until("the alarm", async || {
        (prometheus.alarms().await == ["SignalboxPluginNotSwapped"]).then_some(())
    })
    .await;

    let groups = prometheus.api("rules").await["groups"].clone();
    let evaluated = groups[0]["rules"].as_array().expect("rules");
    assert_eq!(evaluated.len(), rules().len());
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

#[tokio::test]
async fn promtool_accepts_the_deployed_rules() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ] {
        let checked = Command::new("promtool")
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output()
            .await
            .expect("promtool is in PATH; `cargo xtask test` installs it");
        let output = [checked.stdout, checked.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(checked.status.success(), "{arguments:?}: {output:?}");
    }
}
