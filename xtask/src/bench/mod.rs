//! `cargo xtask bench`: measures the server and the relay, one after the other under the same load on the same machine.
//!
//! Absolute figures depend on the machine and its current condition, so what counts is the server's share of the
//! relay's figure in the same run: in every case the subjects take turns, and medians are compared. The relay copies
//! frames between sockets and gives each receiver a queue, as a server must. A missed target is reported but is not a
//! failure, because a machine under other load misses them all; a lost, duplicated or reordered message is a failure
//! anywhere.

mod bursts;
mod cases;
mod changes;
pub(crate) mod load;
mod machine;
mod neighbour;
mod nodes;
pub(crate) mod outcome;
mod peers;
mod subject;
mod swap;
pub(crate) mod watched;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::languages;
use crate::plugins;
use crate::requirements::{self, WASM_TARGET};
use crate::steps::run_program;
use crate::temp::TempDir;
use crate::workspace::Workspace;
use cases::Case;
use outcome::{Row, table};
pub(crate) use subject::server_config;

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Run only this case; may be given several times
    #[arg(long = "case", value_name = "NAME", value_parser = Case::parse)]
    cases: Vec<&'static Case>,
    /// Run the cases of nodes connected through Redis, alone or in addition to those that are named; needs redis-server
    #[arg(long)]
    redis: bool,
    /// Measure only the cost of a plugin in each language, with the templates of `signalbox plugin new`
    #[arg(long, conflicts_with_all = ["cases", "redis"])]
    languages: bool,
    /// Compare with other realtime servers, Socket.IO and Centrifuge; needs Node and Go
    #[arg(long, conflicts_with_all = ["redis", "languages"])]
    peers: bool,
    /// With --peers: let the servers confirm each message to its sender
    #[arg(long, requires = "peers")]
    acks: bool,
    /// With --peers: draw the figures into this SVG file
    #[arg(long, requires = "peers", value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Measured time of one run, in whole seconds, e.g. 5s
    #[arg(long, default_value = "5s", value_parser = parse_seconds)]
    duration: Duration,
    /// Runs of each case against each server; the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=50))]
    rounds: u32,
    /// One second a run, two rounds, fewer idle connections: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The settings that all cases share.
#[derive(Debug)]
pub(crate) struct Bench {
    relay_and_load: PathBuf,
    server: PathBuf,
    plugin: PathBuf,
    /// The folder of the plugins that tests load.
    guests: PathBuf,
    /// Configuration, plugin copies and the cache of compiled plugins; deleted afterwards.
    folder: TempDir,
    duration: Duration,
    rounds: u32,
    quick: bool,
    connections_max: usize,
}

impl Bench {
    /// The measured time of one run.
    fn duration(&self) -> Duration {
        if self.quick {
            Duration::from_secs(1)
        } else {
            self.duration
        }
    }

    fn warmup(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 2000 })
    }

    fn rounds(&self) -> u32 {
        if self.quick { 2 } else { self.rounds }
    }

    /// Splits options of the load generator. `--connections` becomes an even number that the limit of open files allows.
    fn options(&self, options: &str) -> Vec<String> {
        let mut words: Vec<_> = options.split_whitespace().map(str::to_owned).collect();
        let place = words.iter().position(|word| word == "--connections");
        if let Some(connections) = place.and_then(|place| words.get_mut(place + 1)) {
            let wanted = connections.parse().unwrap_or(usize::MAX);
            let max = self.connections_max;
            if wanted > max {
                eprintln!(
                    "   only {max} of {wanted} connections: the hard limit of open files (`ulimit -Hn`) leaves no more"
                );
            }
            *connections = (wanted.min(max) / 2 * 2).to_string();
        }
        words
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Builds the programs, runs the chosen cases, prints the table and writes the figures.
pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if args.languages {
        build_programs(workspace)?;
        println!("{}", machine::describe());
        let program = |name| workspace.program("release", name);
        languages::measure(&program("signalbox"), &program("signalbox-bench"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.peers {
        return peers::run(workspace, args);
    }
    let bench = prepare(workspace, args)?;
    let mut chosen = args.cases.clone();
    if args.redis {
        chosen.extend(Case::redis());
    } else if chosen.is_empty() {
        chosen.extend(Case::default());
    }
    let machine = machine::describe();
    println!("{machine}");
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for case in chosen {
        let name = case.name;
        eprintln!("== {name}");
        match case.run(&bench) {
            Ok(result) => {
                rows.extend(result.rows);
                let what = result.broken.iter().map(|what| format!("{name}: {what}"));
                broken.extend(what);
            }
            Err(error) => broken.push(format!("{name}: {error:#}")),
        }
    }
    println!("{}", table(&rows));
    if let Some(file) = &args.json {
        let figures = json!({
            "machine": machine,
            "duration_seconds": bench.duration().as_secs_f64(),
            "rounds": bench.rounds(),
            "results": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "broken": broken,
        });
        write(file, &(serde_json::to_string_pretty(&figures)? + "\n"))?;
    }
    Ok(verdict(&broken))
}

/// Prints what must not happen, and returns the exit code.
fn verdict(broken: &[String]) -> ExitCode {
    broken.iter().for_each(|what| println!("BROKEN  {what}"));
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Builds what all cases need.
fn prepare(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<Bench> {
    requirements::ensure(&[WASM_TARGET])?;
    plugins::build_shipped(workspace)?;
    if args.cases.iter().any(|case| case.name == "changes") {
        plugins::build_guests(workspace)?;
    }
    build_programs(workspace)?;
    Ok(Bench {
        relay_and_load: workspace.program("release", "signalbox-bench"),
        server: workspace.program("release", "signalbox"),
        plugin: workspace.plugins_dir().join("chat.wasm"),
        guests: workspace.plugins_dir().join("guests"),
        folder: TempDir::new("bench").context("cannot create a temporary folder")?,
        duration: args.duration,
        rounds: args.rounds,
        quick: args.quick,
        connections_max: machine::connections_max(),
    })
}

/// Builds the server and the load generator, optimised.
fn build_programs(workspace: &Workspace) -> anyhow::Result<()> {
    let words = [
        "build",
        "--release",
        "-p",
        "signalbox",
        "-p",
        "signalbox-bench",
    ];
    run_program(workspace.cargo().args(words))
}

/// Writes a file for the user, and the folder that it is in.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    fs::write(file, text).with_context(cannot)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .strip_suffix('s')
        .and_then(|number| number.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0);
    let wrong = || format!("`{text}` is no time in whole seconds; write e.g. 5s");
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_time_is_a_positive_number_of_seconds() {
        assert_eq!(parse_seconds("5s"), Ok(Duration::from_secs(5)));
        let wrong = ["5", "0s", "s", "1.5s", "-1s", "5m"];
        assert!(wrong.iter().all(|text| parse_seconds(text).is_err()));
    }
}
