//! `cargo xtask bench --peers`: the server, the relay, and other realtime servers, one after the other under the same
//! load on the same machine.
//!
//! Each run starts a fresh process. The order changes from round to round, so that no server always runs after the same
//! other one. The load generator speaks the protocol of each server, and checks loss, doubling and order alike.

mod chart;
mod figures;
mod programs;
mod versions;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::cases::Case;
use super::load::{self, LoadReport};
use super::machine::{self, Machine};
use super::outcome::CaseResult;
use super::subject::Subject;
use super::{Bench, BenchArgs, prepare};
use crate::programs::missing;
use crate::workspace::Workspace;
use figures::{Figure, Measure};

/// A server that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Our server, with the chat plugin.
    Signalbox,
    /// The relay on axum.
    Relay,
    /// Socket.IO, on Node.
    SocketIo,
    /// The Go library centrifuge.
    Centrifuge,
}

impl Server {
    /// All, in the order of columns and bars.
    const ALL: [Self; 4] = [
        Self::Signalbox,
        Self::Relay,
        Self::SocketIo,
        Self::Centrifuge,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Signalbox => "Signalbox",
            Self::Relay => "relay",
            Self::SocketIo => "Socket.IO",
            Self::Centrifuge => "Centrifuge",
        }
    }

    /// The line that says why this server is left out; `None` if everything that it needs is there.
    fn missing(self) -> Option<String> {
        match self {
            Self::Signalbox | Self::Relay => None,
            Self::SocketIo => missing(self.name(), programs::FOR_SOCKET_IO),
            Self::Centrifuge => missing(self.name(), programs::FOR_CENTRIFUGE),
        }
    }
}

/// A server that can be started.
struct Entry {
    server: Server,
    version: String,
    /// The folder or the program of a server that is not built by cargo.
    installed: PathBuf,
}

impl Entry {
    fn prepare(server: Server, workspace: &Workspace) -> anyhow::Result<Self> {
        let installed = match server {
            Server::Signalbox | Server::Relay => PathBuf::new(),
            Server::SocketIo => programs::install_socket_io(workspace)?,
            Server::Centrifuge => programs::build_centrifuge(workspace)?,
        };
        Ok(Self {
            server,
            version: versions::of(server, workspace)?,
            installed,
        })
    }

    fn start(&self, bench: &Bench) -> anyhow::Result<Subject> {
        match self.server {
            Server::Signalbox => Subject::server(bench, Some(&bench.plugin)),
            Server::Relay => Subject::relay(bench),
            Server::SocketIo => {
                Subject::other(Path::new("node"), "socket-io", |node: &mut Command| {
                    node.arg("server.js")
                        .current_dir(&self.installed)
                        .env("NODE_ENV", "production");
                })
            }
            Server::Centrifuge => Subject::other(&self.installed, "centrifuge", |_| {}),
        }
    }
}

/// Runs the cases against all servers whose programs are there, prints the table, and writes the figures and the chart.
pub(super) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let cases = chosen(&args.cases)?;
    let mut servers = Vec::new();
    for server in Server::ALL {
        match server.missing() {
            Some(line) => println!("{line}"),
            None => servers.push(server),
        }
    }
    if servers
        .iter()
        .all(|server| matches!(server, Server::Signalbox | Server::Relay))
    {
        return Ok(ExitCode::SUCCESS);
    }
    let prepare_one = |server: &Server| Entry::prepare(*server, workspace);
    let entries: Vec<_> = servers.iter().map(prepare_one).collect::<Result<_, _>>()?;
    let bench = prepare(workspace, args)?;
    let comparison = Comparison {
        machine: machine::describe(),
        versions: entries
            .iter()
            .map(|entry| (entry.server, entry.version.clone()))
            .collect(),
        duration_seconds: bench.duration().as_secs_f64(),
        rounds: bench.rounds(),
        acks: args.acks,
    };
    comparison
        .facts()
        .iter()
        .for_each(|fact| println!("{fact}"));
    println!("medians (lowest–highest) of {}", comparison.settings());
    let mut result = CaseResult::default();
    let mut all = Vec::new();
    for case in cases {
        eprintln!("== {}", case.name());
        all.extend(compare(&bench, case, &entries, args.acks, &mut result));
    }
    println!("{}", figures::table(&all, &servers).trim_end());
    result
        .broken
        .iter()
        .for_each(|what| println!("BROKEN  {what}"));
    if let Some(file) = &args.json {
        let json = comparison.to_json(&all, &result.broken);
        write(file, &(serde_json::to_string_pretty(&json)? + "\n"))?;
    }
    if let Some(file) = &args.chart {
        write(file, &comparison.chart(&all))?;
    }
    Ok(if result.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The cases to run: those that were named, or all that every server can run.
fn chosen(named: &[Case]) -> anyhow::Result<Vec<Case>> {
    if let Some(other) = named.iter().find(|case| !Case::COMPARABLE.contains(case)) {
        let names = Case::COMPARABLE.map(Case::name).join(", ");
        bail!(
            "{} cannot be compared with other servers; --peers has {names}",
            other.name()
        );
    }
    Ok(if named.is_empty() {
        Case::COMPARABLE.to_vec()
    } else {
        named.to_vec()
    })
}

/// Runs one case against all servers, in all rounds. What fails is added to `result`, and has no figures.
fn compare(
    bench: &Bench,
    case: Case,
    entries: &[Entry],
    acks: bool,
    result: &mut CaseResult,
) -> Vec<Figure> {
    let options = case.single_load(bench);
    let mut reports: Vec<Vec<LoadReport>> = entries.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.rounds() as usize {
        for index in order(entries.len(), round) {
            let name = entries[index].server.name();
            match run_one(bench, &entries[index], &options, acks) {
                Ok(report) => {
                    result.check(&format!("{name} in {}", case.name()), &report);
                    eprintln!("   round {}, {name}: {}", round + 1, report.brief());
                    reports[index].push(report);
                }
                Err(error) => {
                    let what = format!("{}, {name}: {error:#}", case.name());
                    result.broken.push(what);
                }
            }
        }
    }
    let mut figures = Vec::new();
    for measure in Measure::of(case) {
        for (entry, reports) in entries.iter().zip(&reports) {
            let samples = reports.iter().map(|report| measure.read(report));
            match samples.collect::<Result<Vec<_>, _>>() {
                Ok(samples) if samples.is_empty() => {}
                Ok(samples) => figures.push(Figure {
                    case,
                    measure: *measure,
                    server: entry.server,
                    samples,
                }),
                Err(error) => {
                    let name = entry.server.name();
                    result
                        .broken
                        .push(format!("{}, {name}: {error:#}", case.name()));
                }
            }
        }
    }
    figures
}

/// The order of a round: each round begins with another server, and every second one runs backwards.
fn order(count: usize, round: usize) -> Vec<usize> {
    let first = round % count.max(1);
    let backwards = round % 2 == 1;
    let step = |number| if backwards { count - number } else { number };
    (0..count)
        .map(|number| (first + step(number)) % count)
        .collect()
}

fn run_one(
    bench: &Bench,
    entry: &Entry,
    options: &[String],
    acks: bool,
) -> anyhow::Result<LoadReport> {
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    if acks && entry.server != Server::Relay {
        options.push("--acks");
    }
    load::run(bench, &entry.start(bench)?, &options)
}

/// The notes for readers of the figures.
struct Comparison {
    machine: Machine,
    versions: Vec<(Server, String)>,
    duration_seconds: f64,
    rounds: u32,
    acks: bool,
}

impl Comparison {
    fn title(&self) -> String {
        let names: Vec<_> = self
            .versions
            .iter()
            .map(|(server, _)| server.name())
            .collect();
        format!("{} under the same load", names.join(", "))
    }

    /// The versions, and the machine.
    fn facts(&self) -> [String; 2] {
        let version = |(server, version): &(Server, String)| format!("{} {version}", server.name());
        let versions: Vec<_> = self.versions.iter().map(version).collect();
        [versions.join("; "), self.machine.to_string()]
    }

    fn settings(&self) -> String {
        let acks = if self.acks {
            "with an ack for each message, except from the relay"
        } else {
            "without acks, except from Centrifuge, which always replies"
        };
        let (rounds, seconds) = (self.rounds, self.duration_seconds);
        format!("{rounds} rounds of {seconds} s, messages of 128 bytes, {acks}")
    }

    fn chart(&self, figures: &[Figure]) -> String {
        let mut notes = self.facts().to_vec();
        notes.push(format!(
            "Bars: medians of {}. Lines: from the lowest to the highest round.",
            self.settings()
        ));
        chart::svg(&self.title(), &notes, figures)
    }

    fn to_json(&self, figures: &[Figure], broken: &[String]) -> Value {
        let version = |(server, version): &(Server, String)| json!({ "server": server.name(), "version": version });
        json!({
            "machine": self.machine,
            "duration_seconds": self.duration_seconds,
            "rounds": self.rounds,
            "acks": self.acks,
            "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            "peers": figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
            "broken": broken,
        })
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_servers_and_begins_with_another_one() {
        let orders: Vec<_> = (0..4).map(|round| order(4, round)).collect();
        assert_eq!(
            orders,
            [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
        );
    }

    #[test]
    fn cases_that_other_servers_do_not_have_are_refused() {
        assert_eq!(chosen(&[]).ok().map(|cases| cases.len()), Some(5));
        assert_eq!(chosen(&[Case::Room1000]).ok(), Some(vec![Case::Room1000]));
        let error = chosen(&[Case::Swap]).expect_err("it needs plugins");
        assert!(
            error.to_string().contains("pairs_100x1, pairs_500x16"),
            "{error}"
        );
    }
}
