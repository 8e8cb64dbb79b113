//! Puts a plugin in each language into the path of every message, and replaces each again and again under load: no
//! message may be lost, duplicated or reordered, however large a component is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::journey;
use super::node::{Node, Served};
use super::signalbox::Signalbox;
use crate::bench::load::{self, LoadReport};
use crate::bench::outcome::median;
use crate::bench::watched;
use crate::builds;

/// The event type that the load generator sends.
const EVENT_TYPE: &str = "chat_message";

/// Number of connections of the load; each two form a pair.
const CONNECTIONS: u32 = 100;

/// The time after which the load ends by itself, far longer than compiling takes.
const LOAD_TIME_MAX: &str = "600s";

/// The amount of work.
pub(super) struct Effort {
    /// Total messages a second.
    pub(super) rate: u32,
    /// Minimum time for which each language is under load while its plugin is replaced.
    pub(super) time: Duration,
    /// Number of versions of each plugin that go live.
    pub(super) swaps: u32,
}

/// The results.
pub(super) struct Seen {
    /// The 99th percentile of the latency while nothing was replaced, in milliseconds.
    steady_p99_ms: f64,
    swapped: Vec<Swapped>,
}

/// The results while the plugin in one language was replaced.
struct Swapped {
    language: String,
    p99_ms: f64,
    delivered: u64,
    /// Time from the upload to live, in milliseconds, of the builds that were compiled. `cached_ms` is that of the
    /// build that was live before.
    compiled_ms: Vec<f64>,
    /// The part of `cached_ms` that loading took, in milliseconds.
    cached_load_ms: Option<f64>,
    cached_ms: Option<f64>,
}

/// Puts the templates of `languages`, which must have been built, in a row, and replaces one after another under load
/// from the generator `load`.
pub(super) fn run(
    signalbox: &Signalbox,
    load: &Path,
    languages: &[String],
    effort: &Effort,
) -> anyhow::Result<Seen> {
    let names: Vec<_> = languages.iter().map(|name| journey::name(name)).collect();
    let served = Served {
        plugins: &names,
        event_type: EVENT_TYPE,
        // A message on which a plugin fails is then missing.
        on_failure: "reject",
        single: false,
    };
    let chain = Chain {
        signalbox,
        load,
        node: Node::start(signalbox, "chain", &served)?,
        effort,
    };
    for name in &names {
        chain.push(name, &chain.component(name))?;
    }
    let ((), steady) = chain.under_load(|| Ok(()))?;
    let mut delivered = steady.delivered;
    let mut swapped = Vec::new();
    for (language, name) in languages.iter().zip(&names) {
        let seen = chain.swap(language, name)?;
        delivered += seen.delivered;
        swapped.push(seen);
    }
    chain.account(&names, delivered)?;
    Ok(Seen {
        steady_p99_ms: steady.p99_ms(),
        swapped,
    })
}

struct Chain<'a> {
    signalbox: &'a Signalbox,
    load: &'a Path,
    node: Node,
    effort: &'a Effort,
}

impl Chain<'_> {
    fn component(&self, name: &str) -> PathBuf {
        let folder = self.signalbox.folder(name);
        folder.join("dist").join(format!("{name}.wasm"))
    }

    /// Sends messages until `work` is done, and at least for the time in `effort`. No message may be missing.
    fn under_load<T>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, LoadReport)> {
        let mut command = Command::new(self.load);
        command.args(["load", "--json", "--warmup", "500ms"]);
        command.args(["--url", &format!("ws://{}/ws", self.node.address)]);
        command.args(["--connections", &CONNECTIONS.to_string()]);
        command.args(["--rate", &self.effort.rate.to_string()]);
        command.args(["--duration", LOAD_TIME_MAX, "--until-input-ends"]);
        command.stdin(Stdio::piped());
        let mut running = load::spawn(command)?;
        running.wait_for("measuring")?;
        let end = Instant::now() + self.effort.time;
        let done = work()?;
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let report = running.finish()?;
        match report.broken() {
            Some(broken) => bail!("{broken}"),
            None => Ok((done, report)),
        }
    }

    /// Replaces the plugin called `name` again and again, the last time with its original build.
    fn swap(&self, language: &str, name: &str) -> anyhow::Result<Swapped> {
        let (answers, report) = self
            .under_load(|| self.push_builds(name))
            .with_context(|| format!("while the plugin in {language} was replaced"))?;
        Ok(Swapped::new(language, &report, &answers))
    }

    fn push_builds(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let file = self.component(name);
        let component = fs::read(&file).with_context(|| file.display().to_string())?;
        let build = file.with_file_name("build.wasm");
        let mut answers = Vec::new();
        for number in 1..self.effort.swaps {
            fs::write(&build, builds::numbered(&component, number))?;
            answers.push(self.push(name, &build)?);
        }
        answers.push(self.push(name, &file)?);
        Ok(answers)
    }

    fn push(&self, name: &str, file: &Path) -> anyhow::Result<Value> {
        let answer = self.signalbox.push(name, file, &self.node.access())?;
        ensure!(
            answer["outcome"] == "live",
            "a push of {name} ended with {answer}"
        );
        Ok(answer)
    }

    /// Checks that each plugin was called for each message, and that no call failed.
    fn account(&self, names: &[String], messages: u64) -> anyhow::Result<()> {
        let counted = watched::scrape(self.node.address)?;
        for name in names {
            let calls = sum(&counted, "wss_plugin_calls_total", name);
            let failures = sum(&counted, "wss_plugin_failures_total", name);
            ensure!(failures == 0.0, "{failures} calls of {name} failed");
            ensure!(
                calls >= messages as f64,
                "{name} was called {calls} times for {messages} messages"
            );
        }
        Ok(())
    }
}

/// Adds up a metric of a plugin over its other labels.
fn sum(counted: &str, metric: &str, plugin: &str) -> f64 {
    let labelled = format!("plugin=\"{plugin}\"");
    let of_plugin = |line: &&str| line.starts_with(metric) && line.contains(&labelled);
    counted
        .lines()
        .filter(of_plugin)
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

impl Swapped {
    fn new(language: &str, report: &LoadReport, answers: &[Value]) -> Self {
        let cached = |answer: &&Value| answer["report"]["cached"] == true;
        let took = |answer: &Value| answer["took_ms"].as_f64();
        let last = answers.iter().rfind(cached);
        let compiled = answers.iter().filter(|answer| !cached(answer));
        Self {
            language: language.to_owned(),
            p99_ms: report.p99_ms(),
            delivered: report.delivered,
            compiled_ms: compiled.filter_map(took).collect(),
            cached_load_ms: last.and_then(|answer| answer["report"]["compile_ms"].as_f64()),
            cached_ms: last.and_then(took),
        }
    }

    fn swaps(&self) -> usize {
        self.compiled_ms.len() + usize::from(self.cached_ms.is_some())
    }
}

impl Seen {
    /// A summary in one line.
    pub(super) fn summary(&self) -> String {
        let swaps: usize = self.swapped.iter().map(Swapped::swaps).sum();
        let delivered: u64 = self.swapped.iter().map(|seen| seen.delivered).sum();
        format!(
            "{} plugins in a row, {swaps} swaps under load, {delivered} messages, none lost, doubled or out of order",
            self.swapped.len()
        )
    }

    /// A table with a line for each language, and one for the messages while nothing was replaced.
    pub(super) fn table(&self) -> String {
        let mut table = String::from(
            "| replaced | swaps | messages | p99 | against steady | live, compiled | live, from the cache | loading it |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        let steady = self.steady_p99_ms;
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| none | 0 | | {steady:.2} ms | | | | |");
        for seen in &self.swapped {
            let Swapped {
                language,
                p99_ms,
                delivered,
                ..
            } = seen;
            let (swaps, times) = (seen.swaps(), p99_ms / steady);
            let compiled = milliseconds(Some(median(&seen.compiled_ms)));
            let (cached, load) = (
                milliseconds(seen.cached_ms),
                milliseconds(seen.cached_load_ms),
            );
            let _ = writeln!(
                table,
                "| {language} | {swaps} | {delivered} | {p99_ms:.2} ms | {times:.1} | {compiled} | {cached} | {load} |"
            );
        }
        table
    }
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activity_of_a_plugin_is_read_from_the_metrics() {
        let counted = "# TYPE wss_plugin_calls counter\n\
            wss_plugin_calls_total{plugin=\"a\"} 3\n\
            wss_plugin_failures_total{plugin=\"a\",kind=\"trap\"} 1\n\
            wss_plugin_failures_total{plugin=\"a\",kind=\"deadline\"} 2\n\
            wss_plugin_failures_total{plugin=\"ab\",kind=\"trap\"} 4\n";
        assert_eq!(sum(counted, "wss_plugin_calls_total", "a"), 3.0);
        assert_eq!(sum(counted, "wss_plugin_failures_total", "a"), 3.0);
        assert_eq!(sum(counted, "wss_plugin_failures_total", "c"), 0.0);
    }
}
