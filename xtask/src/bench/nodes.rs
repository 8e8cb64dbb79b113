//! Nodes connected through Redis: every message crosses from one to others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::channel;

use anyhow::Context as _;

use super::Bench;
use super::load::{self, LoadReport};
use super::outcome::{CaseResult, Row, Target, Unit};
use super::subject::Subject;
use crate::cluster::Redis;
use crate::requirements::{self, REDIS_SERVER};

/// Target for the 99th percentile of the latency, in milliseconds.
const P99_MS_MAX: f64 = 50.0;

/// Runs a case on this many nodes, with `rules` for rooms, and `options` for the load generator.
pub(super) fn run(
    bench: &Bench,
    nodes: usize,
    rules: &str,
    options: &[String],
) -> anyhow::Result<CaseResult> {
    requirements::ensure(&[REDIS_SERVER])?;
    let mut result = CaseResult::default();
    let (mut p99_ms, mut cpu_us) = (Vec::new(), Vec::new());
    let (mut commands, mut bytes) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds() {
        let (report, traffic) = measure(bench, nodes, rules, options)?;
        result.check("nodes", &report);
        eprintln!("   round {round}: {}", report.brief());
        let sent = report.sent.max(1) as f64;
        p99_ms.push(report.p99_ms());
        cpu_us.push(1e6 / report.delivered_per_cpu_second()?);
        commands.push(traffic.commands as f64 / sent);
        bytes.push(traffic.bytes as f64 / sent);
    }
    result.rows = vec![
        Row::new("p99 latency between nodes", Unit::Milliseconds, p99_ms)
            .with_target(Target::AtMost(P99_MS_MAX)),
        Row::new(
            "CPU time of a delivery, all nodes",
            Unit::Microseconds,
            cpu_us,
        ),
        Row::new("Redis commands for a message", Unit::Count, commands),
        Row::new("bytes to and from Redis for a message", Unit::Bytes, bytes),
    ];
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
    let node = |number| Subject::node(bench, &format!("node-{number}"), &redis.url, rules);
    let nodes = (0..nodes).map(node).collect::<anyhow::Result<Vec<_>>>()?;
    let mut load = load::start(bench, &nodes.iter().collect::<Vec<_>>(), options, None)?;
    load.wait_for("measuring")?;
    let before = RedisTraffic::read(&redis.url)?;
    load.wait_for("measured")?;
    let after = RedisTraffic::read(&redis.url)?;
    let traffic = RedisTraffic {
        commands: after.commands - before.commands,
        bytes: after.bytes - before.bytes,
    };
    Ok((load.finish()?, traffic))
}

/// The commands that Redis has carried out, and the bytes that it has read and written.
struct RedisTraffic {
    commands: u64,
    bytes: u64,
}

impl RedisTraffic {
    /// Asks the server at `url`, which is `redis://ADDRESS`, for its statistics.
    fn read(url: &str) -> anyhow::Result<Self> {
        let address = url.trim_start_matches("redis://");
        let failed = || format!("Redis at {address} gives no statistics");
        let mut stream = TcpStream::connect(address).with_context(failed)?;
        stream
            .write_all(b"INFO stats\r\nQUIT\r\n")
            .with_context(failed)?;
        let mut info = String::new();
        stream.read_to_string(&mut info).with_context(failed)?;
        let value = |name: &str| -> anyhow::Result<u64> {
            let mut values = info.lines().filter_map(|line| line.split_once(':'));
            let value = values.find(|(found, _)| *found == name);
            let value = value.and_then(|(_, value)| value.parse().ok());
            value.with_context(|| format!("Redis does not say its `{name}`"))
        };
        Ok(Self {
            commands: value("total_commands_processed")?,
            bytes: value("total_net_input_bytes")? + value("total_net_output_bytes")?,
        })
    }
}
