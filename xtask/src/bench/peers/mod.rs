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
use std::process::ExitCode;

use anyhow::ensure;
use serde_json::{Value, json};

use super::cases::Case;
use super::load::{self, LoadReport};
use super::machine::{self, Machine};
use super::outcome::{CaseResult, MEMORY, Measure, P50, P99, PER_CPU_SECOND};
use super::subject::Subject;
use super::{Bench, BenchArgs, prepare, verdict, write};
use crate::programs::{Program, missing};
use crate::workspace::Workspace;
use figures::Figure;

/// A server that is compared.
#[derive(Debug)]
struct Server {
    name: &'static str,
    /// The colour of its bars. They differ in lightness too, on a light and on a dark background.
    colour: &'static str,
    /// The programs that it needs, without which it is left out.
    programs: &'static [Program],
    version: fn(&Workspace) -> anyhow::Result<String>,
    /// Prepares its program or folder, if it is not built by cargo.
    install: fn(&Workspace) -> anyhow::Result<PathBuf>,
    start: fn(&Bench, &Path) -> anyhow::Result<Subject>,
}

/// All, in the order of columns and bars: our server with the chat plugin, the relay on axum, Socket.IO on Node, and the Go
/// library centrifuge.
static SERVERS: [Server; 4] = [
    Server {
        name: "Signalbox",
        colour: "#d9480f",
        programs: &[],
        version: |workspace| versions::cargo(workspace, "signalbox"),
        install: |_| Ok(PathBuf::new()),
        start: |bench, _| Subject::server(bench, Some(&bench.plugin)),
    },
    Server {
        name: RELAY,
        colour: "#868e96",
        programs: &[],
        version: |workspace| Ok(format!("axum {}", versions::cargo(workspace, "axum")?)),
        install: |_| Ok(PathBuf::new()),
        start: |bench, _| Subject::relay(bench),
    },
    Server {
        name: "Socket.IO",
        colour: "#1c7ed6",
        programs: programs::FOR_SOCKET_IO,
        version: versions::socket_io,
        install: programs::install_socket_io,
        start: |_, folder| {
            Subject::other(Path::new("node"), "socket-io", |node| {
                node.arg("server.js")
                    .current_dir(folder)
                    .env("NODE_ENV", "production");
            })
        },
    },
    Server {
        name: "Centrifuge",
        colour: "#37b24d",
        programs: programs::FOR_CENTRIFUGE,
        version: versions::centrifuge,
        install: programs::build_centrifuge,
        start: |_, program| Subject::other(program, "centrifuge", |_| {}),
    },
];

/// The name of the relay, which confirms no messages.
const RELAY: &str = "relay";

/// A server that can be started.
struct Entry {
    server: &'static Server,
    version: String,
    /// The folder or the program of a server that is not built by cargo.
    installed: PathBuf,
}

/// Runs the cases against all servers whose programs are there, prints the table, and writes the figures and the chart.
pub(super) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let cases = chosen(&args.cases)?;
    let mut servers = Vec::new();
    for server in &SERVERS {
        match missing(server.name, server.programs) {
            Some(line) => println!("{line}"),
            None => servers.push(server),
        }
    }
    if servers.iter().all(|server| server.programs.is_empty()) {
        return Ok(ExitCode::SUCCESS);
    }
    let mut entries = Vec::new();
    for server in servers {
        entries.push(Entry {
            server,
            installed: (server.install)(workspace)?,
            version: (server.version)(workspace)?,
        });
    }
    let bench = prepare(workspace, args)?;
    let comparison = Comparison {
        machine: machine::describe(),
        entries: &entries,
        duration_seconds: bench.duration().as_secs_f64(),
        rounds: bench.rounds(),
        acks: args.acks,
    };
    let facts = comparison.facts();
    facts.iter().for_each(|fact| println!("{fact}"));
    println!("medians (lowest–highest) of {}", comparison.settings());
    let mut result = CaseResult::default();
    let mut all = Vec::new();
    for case in cases {
        eprintln!("== {}", case.name);
        all.extend(compare(&bench, case, &entries, args.acks, &mut result));
    }
    let servers: Vec<_> = entries.iter().map(|entry| entry.server).collect();
    println!("{}", figures::table(&all, &servers).trim_end());
    if let Some(file) = &args.json {
        let json = comparison.to_json(&all, &result.broken);
        write(file, &(serde_json::to_string_pretty(&json)? + "\n"))?;
    }
    if let Some(file) = &args.chart {
        write(file, &comparison.chart(&all))?;
    }
    Ok(verdict(&result.broken))
}

/// The cases to run: those that were named, or all that every server can run.
fn chosen(named: &[&'static Case]) -> anyhow::Result<Vec<&'static Case>> {
    let all: Vec<_> = Case::comparable().collect();
    let names: Vec<_> = all.iter().map(|case| case.name).collect();
    for Case { name, .. } in named {
        ensure!(
            names.contains(name),
            "{name} cannot be compared with other servers; --peers has {}",
            names.join(", ")
        );
    }
    Ok(if named.is_empty() {
        all
    } else {
        named.to_vec()
    })
}

/// The quantities that are read from the runs of a case.
fn measures(case: &Case) -> &'static [Measure] {
    match case.name {
        "idle_memory" => &[MEMORY],
        "open_8000" => &[PER_CPU_SECOND, P50, P99],
        _ => &[PER_CPU_SECOND],
    }
}

/// Runs one case against all servers, in all rounds. What fails is added to `result`, and has no figures.
fn compare(
    bench: &Bench,
    case: &'static Case,
    entries: &[Entry],
    acks: bool,
    result: &mut CaseResult,
) -> Vec<Figure> {
    let mut reports: Vec<Vec<LoadReport>> = entries.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.rounds() as usize {
        for index in order(entries.len(), round) {
            let name = entries[index].server.name;
            match run_one(bench, case, &entries[index], acks) {
                Ok(report) => {
                    result.check(&format!("{name} in {}", case.name), &report);
                    eprintln!("   round {}, {name}: {}", round + 1, report.brief());
                    reports[index].push(report);
                }
                Err(error) => result
                    .broken
                    .push(format!("{}, {name}: {error:#}", case.name)),
            }
        }
    }
    let mut figures = Vec::new();
    for measure in measures(case) {
        for (Entry { server, .. }, reports) in entries.iter().zip(&reports) {
            match measure.read_all(reports) {
                Ok(samples) if samples.is_empty() => {}
                Ok(samples) => figures.push(Figure {
                    case: case.name,
                    measure,
                    server,
                    samples,
                }),
                Err(error) => {
                    let what = format!("{}, {}: {error:#}", case.name, server.name);
                    result.broken.push(what);
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

fn run_one(bench: &Bench, case: &Case, entry: &Entry, acks: bool) -> anyhow::Result<LoadReport> {
    let mut options = case.single_load(bench);
    if acks && entry.server.name != RELAY {
        options.push("--acks".to_owned());
    }
    let subject = (entry.server.start)(bench, &entry.installed)?;
    load::run(bench, &subject, &options)
}

/// The notes for readers of the figures.
struct Comparison<'a> {
    machine: Machine,
    entries: &'a [Entry],
    duration_seconds: f64,
    rounds: u32,
    acks: bool,
}

impl Comparison<'_> {
    /// The versions, and the machine.
    fn facts(&self) -> [String; 2] {
        let version = |entry: &Entry| format!("{} {}", entry.server.name, entry.version);
        let versions: Vec<_> = self.entries.iter().map(version).collect();
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
        let names: Vec<_> = self.entries.iter().map(|entry| entry.server.name).collect();
        let title = format!("{} under the same load", names.join(", "));
        let mut notes = self.facts().to_vec();
        notes.push(format!(
            "Bars: medians of {}. Lines: from the lowest to the highest round.",
            self.settings()
        ));
        chart::svg(&title, &notes, figures)
    }

    fn to_json(&self, figures: &[Figure], broken: &[String]) -> Value {
        let version =
            |entry: &Entry| json!({ "server": entry.server.name, "version": entry.version });
        json!({
            "machine": self.machine,
            "duration_seconds": self.duration_seconds,
            "rounds": self.rounds,
            "acks": self.acks,
            "versions": self.entries.iter().map(version).collect::<Vec<_>>(),
            "peers": figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
            "broken": broken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_all_servers_and_begins_with_another_one() {
        let orders: Vec<_> = (0..4).map(|round| order(4, round)).collect();
        let expected = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]];
        assert_eq!(orders, expected);
    }

    #[test]
    fn cases_that_other_servers_do_not_have_are_refused() {
        let names = |named: &[&'static Case]| -> anyhow::Result<Vec<_>> {
            Ok(chosen(named)?.iter().map(|case| case.name).collect())
        };
        assert_eq!(names(&[]).ok().map(|names| names.len()), Some(5));
        let room = Case::parse("room_1000").expect("a case");
        assert_eq!(names(&[room]).ok(), Some(vec!["room_1000"]));
        let swap = Case::parse("swap").expect("a case");
        let error = names(&[swap]).expect_err("it needs plugins").to_string();
        assert!(error.contains("pairs_100x1, pairs_500x16"), "{error}");
    }
}
