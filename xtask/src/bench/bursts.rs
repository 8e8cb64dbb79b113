//! The cases in which everything happens to a room at once: its members recover after their node died, or all of them join.

use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::Bench;
use super::outcome::{CaseResult, Row, Unit};
use super::subject::Subject;
use crate::cluster::Redis;
use crate::requirements::{self, REDIS_SERVER};

/// A rule that gives every room presence.
const PRESENCE_RULE: &str = "[[rooms]]\nmatch = \"*\"\npresence = true\n";

/// The figures that are read from the report.
#[derive(Debug, Deserialize)]
struct BurstReport {
    clients: u64,
    milliseconds: f64,
    server_cpu_seconds: f64,
    bytes: u64,
    frames: u64,
    redis_commands: Option<u64>,
    redis_reads: Option<u64>,
}

impl BurstReport {
    fn of_a_client(&self, figure: f64) -> f64 {
        figure / self.clients.max(1) as f64
    }

    fn cpu_us(&self) -> f64 {
        self.of_a_client(self.server_cpu_seconds * 1e6)
    }
}

/// A quantity of a burst.
type Figure = (&'static str, Unit, fn(&BurstReport) -> f64);

#[rustfmt::skip]
const RECOVERY: [Figure; 2] = [
    ("time until all members have everything", Unit::Milliseconds, |report| report.milliseconds),
    ("CPU time of a member", Unit::Microseconds, BurstReport::cpu_us),
];

#[rustfmt::skip]
const RECOVERY_FROM_REDIS: [Figure; 2] = [
    ("Redis commands for a member", Unit::Count, |report| report.of_a_client(report.redis_commands.unwrap_or(0) as f64)),
    ("reads of the history for all members", Unit::Count, |report| report.redis_reads.unwrap_or(0) as f64),
];

#[rustfmt::skip]
const PRESENCE: [Figure; 4] = [
    ("joins per CPU second", Unit::Count, |report| 1e6 / report.cpu_us()),
    ("bytes for a join", Unit::Bytes, |report| report.of_a_client(report.bytes as f64)),
    ("frames for a join", Unit::Count, |report| report.of_a_client(report.frames as f64)),
    ("time until all members know all", Unit::Milliseconds, |report| report.milliseconds),
];

/// 1,000 members recover 100 messages each: on the same server after their connections broke, or with `on_redis` on another node
/// after theirs was killed.
pub(super) fn recovery(bench: &Bench, history: &str, on_redis: bool) -> anyhow::Result<CaseResult> {
    let mut figures = RECOVERY.to_vec();
    if on_redis {
        figures.extend(RECOVERY_FROM_REDIS);
    }
    repeat(bench, &figures, "all have everything", || {
        if on_redis {
            return recovery_from_redis(bench, history);
        }
        let server = Subject::with_sections(bench, history)?;
        run(bench, recovery_command(bench, &server, &server))
    })
}

/// 1,000 connections join a room with presence at once.
pub(super) fn presence(bench: &Bench) -> anyhow::Result<CaseResult> {
    repeat(bench, &PRESENCE, "all know all", || {
        let server = Subject::with_sections(bench, PRESENCE_RULE)?;
        let mut command = tool(bench, "presence");
        command.args(["--server", &server.address.to_string()]);
        command.args(["--cpu-pid", &server.pid().to_string()]);
        run(bench, command)
    })
}

/// Makes the burst in every round.
fn repeat(
    bench: &Bench,
    figures: &[Figure],
    end: &str,
    burst: impl Fn() -> anyhow::Result<BurstReport>,
) -> anyhow::Result<CaseResult> {
    let mut reports = Vec::new();
    for round in 1..=bench.rounds() {
        let report = burst()?;
        eprintln!(
            "   round {round}: {end} after {:.0} ms",
            report.milliseconds
        );
        reports.push(report);
    }
    let row = |(measure, unit, figure): &Figure| {
        Row::new(measure, *unit, reports.iter().map(figure).collect())
    };
    Ok(CaseResult {
        rows: figures.iter().map(row).collect(),
        ..CaseResult::default()
    })
}

fn recovery_from_redis(bench: &Bench, history: &str) -> anyhow::Result<BurstReport> {
    requirements::ensure(&[REDIS_SERVER])?;
    // The output of Redis is not printed.
    let (events, _) = channel();
    let redis = Redis::start(&events)?;
    let node = |name| Subject::node(bench, name, &redis.url, history);
    let (dying, other) = (node("dying")?, node("other")?);
    let mut command = recovery_command(bench, &dying, &other);
    command.args(["--kill", &dying.pid().to_string()]);
    command.args(["--redis", redis.url.trim_start_matches("redis://")]);
    run(bench, command)
}

fn recovery_command(bench: &Bench, from: &Subject, to: &Subject) -> Command {
    let mut command = tool(bench, "recovery");
    command.args(["--from", &from.address.to_string()]);
    command.args(["--to", &to.address.to_string()]);
    command.args(["--cpu-pid", &to.pid().to_string()]);
    command.args(["--messages", if bench.quick { "10" } else { "100" }]);
    command
}

fn tool(bench: &Bench, name: &str) -> Command {
    let mut command = Command::new(&bench.relay_and_load);
    command.arg(name);
    if bench.quick {
        command.args(["--clients", "100"]);
    }
    command
}

fn run(bench: &Bench, mut command: Command) -> anyhow::Result<BurstReport> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let program = bench.relay_and_load.display();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "a member did not get what it should: see above"
    );
    serde_json::from_slice(&output.stdout).context("the report is not readable")
}
