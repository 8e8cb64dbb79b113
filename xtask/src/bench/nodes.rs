//! Two nodes connected through Redis: every message crosses from one to the other.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::Bench;
use super::load;
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

/// Runs the case.
pub(super) fn run(bench: &Bench, case: &'static str) -> anyhow::Result<CaseResult> {
    requirements::ensure(&[REDIS_SERVER])?;
    let mut result = CaseResult::default();
    let connections = (bench.connections(10_000) / 2 * 2).to_string();
    let options = ["--connections", &connections, "--rate", "4000"];
    let mut samples = Vec::new();
    for round in 1..=bench.rounds() {
        // The output of Redis is not printed.
        let (events, _) = channel();
        let redis = Redis::start(&events)?;
        let nodes = [
            Subject::node(bench, "a", &redis.url)?,
            Subject::node(bench, "b", &redis.url)?,
        ];
        for node in &nodes {
            wait_until_ready(node)?;
        }
        let [one, other] = &nodes;
        let report = load::start_on(bench, &[one, other], &options)?.finish()?;
        result.check("nodes", &report);
        eprintln!("   round {round}: p99 {:.2} ms", report.p99_ms());
        samples.push(report.p99_ms());
    }
    result.rows.push(Row {
        case,
        measure: "p99 latency between nodes",
        unit: Unit::Milliseconds,
        server: median(&samples),
        samples,
        reference: None,
        target: Target::AtMost(P99_MS_MAX),
    });
    Ok(result)
}

fn wait_until_ready(node: &Subject) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIME_MAX;
    while !is_ready(node.address()) {
        if Instant::now() > deadline {
            bail!("a node was not ready within {READY_TIME_MAX:?}");
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
