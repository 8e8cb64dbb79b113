//! Nodes connected through Redis: every message crosses from one to others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::Bench;
use super::load::{self, LoadReport};
use super::outcome::{CaseResult, Row, Target, Unit, median};
use super::subject::Subject;
use crate::cluster::{Redis, is_ready};
use crate::requirements::{self, REDIS_SERVER};

/// Time limit for the nodes to become ready: their first start compiles the plugin.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// Interval for checking whether they are ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Target for the 99th percentile of the latency, in milliseconds.
const P99_MS_MAX: f64 = 50.0;

/// Runs a case on this many nodes, with `rules` for rooms, and `options` for the load generator.
pub(super) fn run(
    bench: &Bench,
    case: &'static str,
    nodes: usize,
    rules: &str,
    options: &[String],
) -> anyhow::Result<CaseResult> {
    requirements::ensure(&[REDIS_SERVER])?;
    let mut result = CaseResult::default();
    let mut figures = Figures::default();
    for round in 1..=bench.rounds() {
        let (report, traffic) = measure(bench, nodes, rules, options)?;
        result.check("nodes", &report);
        eprintln!("   round {round}: {}", report.brief());
        figures.add(&report, &traffic)?;
    }
    result.rows.extend(figures.rows(case));
    Ok(result)
}

/// One round: the load generator's report, and the traffic of Redis in the measured time.
fn measure(
    bench: &Bench,
    nodes: usize,
    rules: &str,
    options: &[String],
) -> anyhow::Result<(LoadReport, RedisTraffic)> {
    // The output of Redis is not printed.
    let (events, _) = channel();
    let redis = Redis::start(&events)?;
    let nodes = (0..nodes)
        .map(|number| Subject::node(bench, &format!("node-{number}"), &redis.url, rules))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for node in &nodes {
        wait_until_ready(node)?;
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut load = load::start_on(bench, &nodes.iter().collect::<Vec<_>>(), &options)?;
    load.wait_until_measuring()?;
    let before = redis_traffic(&redis.url)?;
    load.wait_until_measured()?;
    let traffic = redis_traffic(&redis.url)?.since(&before);
    Ok((load.finish()?, traffic))
}

/// The figures of all rounds.
#[derive(Default)]
struct Figures {
    p99_ms: Vec<f64>,
    cpu_us: Vec<f64>,
    commands: Vec<f64>,
    bytes: Vec<f64>,
}

impl Figures {
    fn add(&mut self, report: &LoadReport, traffic: &RedisTraffic) -> anyhow::Result<()> {
        let sent = report.sent().max(1) as f64;
        self.p99_ms.push(report.p99_ms());
        self.cpu_us.push(1e6 / report.delivered_per_cpu_second()?);
        self.commands.push(traffic.commands as f64 / sent);
        self.bytes.push(traffic.bytes as f64 / sent);
        Ok(())
    }

    fn rows(self, case: &'static str) -> [Row; 4] {
        let row = |measure, unit, samples: Vec<f64>, target| Row {
            case,
            measure,
            unit,
            server: median(&samples),
            samples,
            reference: None,
            target,
        };
        let (p99, none) = (Target::AtMost(P99_MS_MAX), Target::None);
        [
            row(
                "p99 latency between nodes",
                Unit::Milliseconds,
                self.p99_ms,
                p99,
            ),
            row(
                "CPU time of a delivery, all nodes",
                Unit::Microseconds,
                self.cpu_us,
                none,
            ),
            row(
                "Redis commands for a message",
                Unit::Count,
                self.commands,
                none,
            ),
            row(
                "bytes to and from Redis for a message",
                Unit::Bytes,
                self.bytes,
                none,
            ),
        ]
    }
}

/// The commands that Redis has carried out, and the bytes that it has read and written.
struct RedisTraffic {
    commands: u64,
    bytes: u64,
}

impl RedisTraffic {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            commands: self.commands - earlier.commands,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// Asks the server at `url`, which is `redis://ADDRESS`, for its statistics.
fn redis_traffic(url: &str) -> anyhow::Result<RedisTraffic> {
    let address = url.trim_start_matches("redis://");
    let info =
        redis_info(address).with_context(|| format!("Redis at {address} gives no statistics"))?;
    let value = |name: &str| {
        let mut values = info.lines().filter_map(|line| line.split_once(':'));
        let value = values
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.parse());
        match value {
            Some(Ok(value)) => Ok(value),
            _ => Err(anyhow!("Redis does not say its `{name}`")),
        }
    };
    let (read, written): (u64, u64) = (
        value("total_net_input_bytes")?,
        value("total_net_output_bytes")?,
    );
    Ok(RedisTraffic {
        commands: value("total_commands_processed")?,
        bytes: read + written,
    })
}

fn redis_info(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"INFO stats\r\nQUIT\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Returns when the node is ready.
pub(super) fn wait_until_ready(node: &Subject) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIME_MAX;
    while !is_ready(node.address()) {
        if Instant::now() > deadline {
            bail!("a node was not ready within {READY_TIME_MAX:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
