//! Runs the load generator.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::Bench;
use super::subject::Subject;

/// The figures that are read from the load generator's report.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LoadReport {
    sent: u64,
    sent_in_all: u64,
    pub(crate) delivered: u64,
    latency: Latency,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    unacked: u64,
    errors: u64,
    closed: u64,
    first_errors: Vec<String>,
    delivered_per_cpu_second: Option<f64>,
    rss_per_connection_bytes: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
}

impl LoadReport {
    /// Delivered messages per second of the server's CPU time.
    pub(crate) fn delivered_per_cpu_second(&self) -> anyhow::Result<f64> {
        self.delivered_per_cpu_second.with_context(|| {
            format!(
                "the server used no measurable CPU time for {} messages",
                self.delivered
            )
        })
    }

    /// Messages sent in the measured time.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages sent in the whole run, measured or not.
    pub(crate) fn sent_in_all(&self) -> u64 {
        self.sent_in_all
    }

    /// Memory of an idle connection in bytes.
    pub(crate) fn bytes_per_connection(&self) -> anyhow::Result<f64> {
        self.rss_per_connection_bytes
            .context("the load generator could not read the server's memory")
    }

    /// The median of the latency, in milliseconds.
    pub(crate) fn p50_ms(&self) -> f64 {
        self.latency.p50_us / 1e3
    }

    /// The 99th percentile of the latency, in milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.latency.p99_us / 1e3
    }

    /// The main figures in a few words.
    pub(crate) fn brief(&self) -> String {
        match (self.bytes_per_connection(), self.delivered_per_cpu_second()) {
            (Ok(bytes), _) => format!("{bytes:.0} bytes a connection"),
            (_, Ok(figure)) => format!("{figure:.0} per CPU second, p99 {:.2} ms", self.p99_ms()),
            _ => "nothing measurable".to_owned(),
        }
    }

    /// Describes what must not happen at any load; `None` if nothing of that happened.
    pub(crate) fn broken(&self) -> Option<String> {
        let Self {
            lost,
            duplicated,
            reordered,
            unacked,
            errors,
            closed,
            ..
        } = self;
        if [*lost, *duplicated, *reordered, *unacked, *errors, *closed] == [0; 6] {
            return None;
        }
        let first = self
            .first_errors
            .first()
            .map_or_else(String::new, |text| format!(" ({text})"));
        Some(format!(
            "{lost} lost, {duplicated} duplicated, {reordered} reordered, {unacked} not acked, {errors} errors, {closed} closed{first}"
        ))
    }
}

/// A run in progress.
pub(crate) struct RunningLoad {
    child: Child,
    /// The lines that the load generator prints in addition to its report: `measuring`, `measured` and warnings.
    lines: Receiver<String>,
}

/// Runs the load generator to its end.
pub(crate) fn run(
    bench: &Bench,
    subject: &Subject,
    options: &[&str],
) -> anyhow::Result<LoadReport> {
    start(bench, subject, options)?.finish()
}

/// Starts a run against a subject, and measures the subject's process.
pub(crate) fn start(
    bench: &Bench,
    subject: &Subject,
    options: &[&str],
) -> anyhow::Result<RunningLoad> {
    start_on(bench, &[subject], options)
}

/// Starts a run that measures until [`RunningLoad::stop`] is called, or for `longest`.
pub(crate) fn start_until_told(
    bench: &Bench,
    subject: &Subject,
    options: &[&str],
    longest: Duration,
) -> anyhow::Result<RunningLoad> {
    let mut command = command(bench, &[subject], longest, options);
    command.arg("--until-input-ends").stdin(Stdio::piped());
    spawn(command)
}

/// Starts a run whose connections are spread over `subjects`, and measures their processes together. The sides of a pair
/// are on different ones.
pub(crate) fn start_on(
    bench: &Bench,
    subjects: &[&Subject],
    options: &[&str],
) -> anyhow::Result<RunningLoad> {
    let mut command = command(bench, subjects, bench.duration(), options);
    command.stdin(Stdio::null());
    spawn(command)
}

fn command(bench: &Bench, subjects: &[&Subject], duration: Duration, options: &[&str]) -> Command {
    let mut command = Command::new(&bench.relay_and_load);
    command.args(["load", "--json"]);
    if let Some(subject) = subjects.first() {
        command.args(["--target", subject.target()]);
    }
    for subject in subjects {
        command.args(["--url", &format!("ws://{}", subject.address())]);
        command.args(["--cpu-pid", &subject.pid().to_string()]);
    }
    command.args(["--warmup", &format!("{}ms", bench.warmup().as_millis())]);
    command
        .args(["--duration", &format!("{}s", duration.as_secs())])
        .args(options);
    command
}

/// Starts a load generator with a complete command line, which must ask for a report in JSON.
pub(crate) fn spawn(mut command: Command) -> anyhow::Result<RunningLoad> {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child =
        spawned.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let stderr = child
        .stderr
        .take()
        .context("the load generator has no stderr")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Fails once the run is given up; reading on keeps the child from blocking.
            let _ = sender.send(line);
        }
    });
    Ok(RunningLoad { child, lines })
}

impl RunningLoad {
    /// Waits for the start of the measured time.
    pub(crate) fn wait_until_measuring(&mut self) -> anyhow::Result<()> {
        self.wait_for("measuring")
    }

    /// Waits for the end of the measured time.
    pub(crate) fn wait_until_measured(&mut self) -> anyhow::Result<()> {
        self.wait_for("measured")
    }

    fn wait_for(&mut self, word: &str) -> anyhow::Result<()> {
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv() {
            if line == word {
                return Ok(());
            }
            said.push(line);
        }
        bail!(
            "the load generator ended before it said `{word}`: {}",
            said.join("; ")
        )
    }

    /// Ends the measured time of a run from [`start_until_told`], and waits for the report.
    pub(crate) fn stop(mut self) -> anyhow::Result<LoadReport> {
        drop(self.child.stdin.take());
        self.finish()
    }

    /// Waits for the report.
    pub(crate) fn finish(mut self) -> anyhow::Result<LoadReport> {
        let mut json = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout
                .read_to_string(&mut json)
                .context("cannot read the load generator's report")?;
        }
        let status = self
            .child
            .wait()
            .context("cannot wait for the load generator")?;
        let said: Vec<String> = self
            .lines
            .iter()
            .filter(|line| line != "measuring" && line != "measured")
            .collect();
        parse_report(&json, status, &said)
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        // If the run ended by itself, both do nothing; if it was given up, they end it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run with lost messages also exits with an error, but has a report.
fn parse_report(json: &str, status: ExitStatus, said: &[String]) -> anyhow::Result<LoadReport> {
    if json.is_empty() {
        bail!(
            "the load generator ended with {status}: {}",
            said.join("; ")
        );
    }
    said.iter().for_each(|line| eprintln!("   {line}"));
    serde_json::from_str(json).context("the load generator's report is not understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"mode":"pairs","sent":10,"sent_in_all":11,"delivered":10,"latency":{"p50_us":1.0,"p99_us":1500.0},"lost":0,"duplicated":0,
        "reordered":0,"unacked":0,"errors":0,"closed":0,"first_errors":[],"delivered_per_cpu_second":5.0,"rss_per_connection_bytes":null}"#;

    #[test]
    fn the_figures_are_read_from_the_report() {
        let report = parse_report(JSON, ExitStatus::default(), &[]).expect("a report");
        assert_eq!(report.delivered_per_cpu_second().ok(), Some(5.0));
        assert!(report.bytes_per_connection().is_err());
        assert!((report.p99_ms() - 1.5).abs() < 1e-9);
        assert_eq!((report.broken(), report.sent_in_all()), (None, 11));
        let lossy = parse_report(
            &JSON.replace("\"lost\":0", "\"lost\":3"),
            ExitStatus::default(),
            &[],
        );
        assert!(
            lossy
                .expect("a report")
                .broken()
                .is_some_and(|what| what.starts_with("3 lost"))
        );
    }

    #[test]
    fn without_a_report_the_error_output_is_told() {
        let error = parse_report("", ExitStatus::default(), &["cannot connect".to_owned()])
            .expect_err("no report");
        assert!(error.to_string().contains("cannot connect"));
    }
}
