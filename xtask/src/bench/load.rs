//! Runs the load generator.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::Bench;
use super::subject::Subject;
use crate::cluster::child::{Event, pass_on};

/// The figures that are read from the load generator's report.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct LoadReport {
    /// Messages sent in the measured time.
    pub(crate) sent: u64,
    /// Messages sent in the whole run, measured or not.
    pub(crate) sent_in_all: u64,
    pub(crate) delivered: u64,
    pub(crate) latency: Latency,
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
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    p99_us: f64,
}

impl LoadReport {
    /// Delivered messages per second of the server's CPU time.
    pub(crate) fn delivered_per_cpu_second(&self) -> anyhow::Result<f64> {
        self.delivered_per_cpu_second.with_context(|| {
            let messages = self.delivered;
            format!("the server used no measurable CPU time for {messages} messages")
        })
    }

    /// Memory of an idle connection in bytes.
    pub(crate) fn bytes_per_connection(&self) -> anyhow::Result<f64> {
        self.rss_per_connection_bytes
            .context("the load generator could not read the server's memory")
    }

    /// The 99th percentile of the latency, in milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.latency.p99_us / 1e3
    }

    /// The main figures in a few words.
    pub(crate) fn brief(&self) -> String {
        match (self.rss_per_connection_bytes, self.delivered_per_cpu_second) {
            (Some(bytes), _) => format!("{bytes:.0} bytes a connection"),
            (_, Some(figure)) => format!("{figure:.0} per CPU second, p99 {:.2} ms", self.p99_ms()),
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
        let first = self.first_errors.first().map(|text| format!(" ({text})"));
        Some(format!(
            "{lost} lost, {duplicated} duplicated, {reordered} reordered, {unacked} not acked, {errors} errors, {closed} closed{}",
            first.unwrap_or_default()
        ))
    }
}

/// A run in progress. It is given up when this value is dropped.
pub(crate) struct RunningLoad {
    child: Child,
    /// The lines that the load generator prints in addition to its report: `measuring`, `measured` and warnings.
    lines: Receiver<Event>,
}

/// Runs the load generator to its end.
pub(crate) fn run(
    bench: &Bench,
    subject: &Subject,
    options: &[String],
) -> anyhow::Result<LoadReport> {
    start(bench, &[subject], options, None)?.finish()
}

/// Starts a run whose connections are spread over `subjects`, and measures their processes together. The sides of a pair
/// are on different ones. With `longest`, the run measures until [`RunningLoad::finish`] is called, or for that time.
pub(crate) fn start(
    bench: &Bench,
    subjects: &[&Subject],
    options: &[String],
    longest: Option<Duration>,
) -> anyhow::Result<RunningLoad> {
    let mut command = Command::new(&bench.relay_and_load);
    command.args(["load", "--json"]).stdin(Stdio::null());
    for (index, subject) in subjects.iter().enumerate() {
        if index == 0 {
            command.args(["--target", subject.target]);
        }
        command.args(["--url", &format!("ws://{}", subject.address)]);
        command.args(["--cpu-pid", &subject.pid().to_string()]);
    }
    let duration = longest.unwrap_or(bench.duration());
    command.args(["--warmup", &format!("{}ms", bench.warmup().as_millis())]);
    command.args(["--duration", &format!("{}s", duration.as_secs())]);
    command.args(options);
    if longest.is_some() {
        command.arg("--until-input-ends").stdin(Stdio::piped());
    }
    spawn(command)
}

/// Starts a load generator with a complete command line, which must ask for a report in JSON.
pub(crate) fn spawn(mut command: Command) -> anyhow::Result<RunningLoad> {
    let spawned = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let program = command.get_program().display();
    let mut child = spawned.with_context(|| format!("cannot run {program}"))?;
    let (events, lines) = channel();
    let stderr = child.stderr.take();
    pass_on(
        "load",
        stderr.context("the load generator has no stderr")?,
        &events,
    );
    Ok(RunningLoad { child, lines })
}

impl RunningLoad {
    /// Waits until the load generator says `measuring` at the start of the measured time, or `measured` at its end.
    pub(crate) fn wait_for(&mut self, word: &str) -> anyhow::Result<()> {
        let mut said = Vec::new();
        for line in texts(&self.lines) {
            if line == word {
                return Ok(());
            }
            said.push(line);
        }
        let said = said.join("; ");
        bail!("the load generator ended before it said `{word}`: {said}")
    }

    /// Ends the input, and waits for the report.
    pub(crate) fn finish(mut self) -> anyhow::Result<LoadReport> {
        drop(self.child.stdin.take());
        let mut json = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            let read = stdout.read_to_string(&mut json);
            read.context("cannot read the load generator's report")?;
        }
        let status = self
            .child
            .wait()
            .context("cannot wait for the load generator")?;
        let said = texts(&self.lines).filter(|line| line != "measuring" && line != "measured");
        parse_report(&json, status, &said.collect::<Vec<_>>())
    }
}

fn texts(lines: &Receiver<Event>) -> impl Iterator<Item = String> {
    lines.iter().filter_map(|event| match event {
        Event::Line { text, .. } => Some(text),
        Event::Interrupted => None,
    })
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
    ensure!(
        !json.is_empty(),
        "the load generator ended with {status}: {}",
        said.join("; ")
    );
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
        let report = |json: &str| parse_report(json, ExitStatus::default(), &[]).expect("a report");
        let clean = report(JSON);
        assert_eq!(clean.delivered_per_cpu_second().ok(), Some(5.0));
        assert!(clean.bytes_per_connection().is_err());
        assert!((clean.p99_ms() - 1.5).abs() < 1e-9);
        assert_eq!((clean.broken(), clean.sent_in_all), (None, 11));
        let broken = report(&JSON.replace("\"lost\":0", "\"lost\":3")).broken();
        assert!(broken.is_some_and(|what| what.starts_with("3 lost")));
    }

    #[test]
    fn without_a_report_the_error_output_is_shown() {
        let said = ["cannot connect".to_owned()];
        let error = parse_report("", ExitStatus::default(), &said).expect_err("no report");
        assert!(error.to_string().contains("cannot connect"));
    }
}
