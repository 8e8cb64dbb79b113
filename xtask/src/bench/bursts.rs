//! The cases in which everything happens to a room at once: its members recover after their node died, or all of them join.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::Bench;
use super::nodes::wait_until_ready;
use super::outcome::{CaseResult, Row, Target, Unit, median};
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

/// 1,000 members recover 100 messages each: on the same server after their connections broke, or with `on_redis` on another node
/// after theirs was killed.
pub(super) fn recovery(
    bench: &Bench,
    case: &'static str,
    history: &str,
    on_redis: bool,
) -> anyhow::Result<CaseResult> {
    let mut reports = Vec::new();
    for round in 1..=bench.rounds() {
        let report = if on_redis {
            recovery_from_redis(bench, history)?
        } else {
            let server = Subject::with_rooms(bench, history)?;
            run(bench, recovery_command(bench, &server, &server))?
        };
        eprintln!(
            "   round {round}: all have everything after {:.0} ms",
            report.milliseconds
        );
        reports.push(report);
    }
    let row = |measure, unit, figure: &dyn Fn(&BurstReport) -> f64| {
        row(case, measure, unit, &reports, figure)
    };
    let mut rows = vec![
        row(
            "time until all members have everything",
            Unit::Milliseconds,
            &|report| report.milliseconds,
        ),
        row(
            "CPU time of a member",
            Unit::Microseconds,
            &BurstReport::cpu_us,
        ),
    ];
    if on_redis {
        let count = |count: Option<u64>| count.unwrap_or_default() as f64;
        rows.push(row("Redis commands for a member", Unit::Count, &|report| {
            report.of_a_client(count(report.redis_commands))
        }));
        rows.push(row(
            "reads of the history for all members",
            Unit::Count,
            &|report| count(report.redis_reads),
        ));
    }
    Ok(CaseResult {
        rows,
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
    wait_until_ready(&dying)?;
    wait_until_ready(&other)?;
    let mut command = recovery_command(bench, &dying, &other);
    command
        .args(["--kill", &dying.pid().to_string()])
        .args(["--redis", redis.url.trim_start_matches("redis://")]);
    run(bench, command)
}

fn recovery_command(bench: &Bench, from: &Subject, to: &Subject) -> Command {
    let mut command = tool(bench, "recovery");
    command
        .args(["--from", &reachable(from)])
        .args(["--to", &reachable(to)])
        .args(["--cpu-pid", &to.pid().to_string()])
        .args(["--messages", if bench.quick { "10" } else { "100" }]);
    command
}

/// 1,000 connections join a room with presence at once.
pub(super) fn presence(bench: &Bench, case: &'static str) -> anyhow::Result<CaseResult> {
    let mut reports = Vec::new();
    for round in 1..=bench.rounds() {
        let server = Subject::with_rooms(bench, PRESENCE_RULE)?;
        let mut command = tool(bench, "presence");
        command
            .args(["--server", &reachable(&server)])
            .args(["--cpu-pid", &server.pid().to_string()]);
        let report = run(bench, command)?;
        eprintln!(
            "   round {round}: all know all after {:.0} ms",
            report.milliseconds
        );
        reports.push(report);
    }
    let row = |measure, unit, figure: &dyn Fn(&BurstReport) -> f64| {
        row(case, measure, unit, &reports, figure)
    };
    let rows = vec![
        row("joins per CPU second", Unit::Count, &|report| {
            1e6 / report.cpu_us()
        }),
        row("bytes for a join", Unit::Bytes, &|report| {
            report.of_a_client(report.bytes as f64)
        }),
        row("frames for a join", Unit::Count, &|report| {
            report.of_a_client(report.frames as f64)
        }),
        row(
            "time until all members know all",
            Unit::Milliseconds,
            &|report| report.milliseconds,
        ),
    ];
    Ok(CaseResult {
        rows,
        ..CaseResult::default()
    })
}

fn row(
    case: &'static str,
    measure: &'static str,
    unit: Unit,
    reports: &[BurstReport],
    figure: &dyn Fn(&BurstReport) -> f64,
) -> Row {
    let samples: Vec<f64> = reports.iter().map(figure).collect();
    Row {
        case,
        measure,
        unit,
        server: median(&samples),
        samples,
        reference: None,
        target: Target::None,
    }
}

fn tool(bench: &Bench, name: &str) -> Command {
    let mut command = Command::new(&bench.relay_and_load);
    command.arg(name);
    if bench.quick {
        command.args(["--clients", "100"]);
    }
    command
}

fn reachable(subject: &Subject) -> String {
    SocketAddr::to_string(&subject.address())
}

fn run(bench: &Bench, mut command: Command) -> anyhow::Result<BurstReport> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", bench.relay_and_load.display()))?;
    if !output.status.success() {
        bail!("a member did not get what it should: see above");
    }
    serde_json::from_slice(&output.stdout).context("the report is not readable")
}
