//! The cases and their targets.

use super::load::{self, LoadReport};
use super::outcome::{CaseResult, MEMORY, P99, PER_CPU_SECOND, Row, Target, Unit};
use super::subject::Subject;
use super::{Bench, bursts, changes, nodes, swap, watched};
use Group::{Comparable, Named, Redis, Server};
use Kind::{Nodes, Recovery, Throughput};

/// A rule that gives every room a history.
const HISTORY_RULE: &str = "[[rooms]]\nmatch = \"*\"\nhistory = { size = 100, time = \"5m\" }\n";

/// The load of two cases, at which others measure a cost.
const PAIRS_500X16: &str = "--pairs 500 --in-flight 16";

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its name on the command line and in the table.
    pub(crate) name: &'static str,
    group: Group,
    /// The options of the load generator; empty for a case that is more than one load.
    load: &'static str,
    kind: Kind,
}

/// The runs that a case belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// The server and others, with `--peers`.
    Comparable,
    /// The server alone.
    Server,
    /// Nodes connected through Redis, with `--redis`.
    Redis,
    /// The server, only if the case is named: it takes long.
    Named,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Throughput, which is to be at least this share of the relay's.
    Throughput(f64),
    OpenLoop,
    History,
    Recovery {
        on_redis: bool,
    },
    Presence,
    IdleMemory,
    PluginShare,
    MetricsCost,
    Swap,
    Changes,
    /// This many nodes with these rules for rooms.
    Nodes(usize, &'static str),
}

const fn case(name: &'static str, group: Group, load: &'static str, kind: Kind) -> Case {
    Case {
        name,
        group,
        load,
        kind,
    }
}

/// All cases, in the order in which they run.
#[rustfmt::skip]
static CASES: [Case; 17] = [
    case("pairs_100x1", Comparable, "--pairs 100 --in-flight 1", Throughput(0.75)),
    case("pairs_500x16", Comparable, PAIRS_500X16, Throughput(0.30)),
    case("open_8000", Comparable, "--connections 8000 --rate 4000", Kind::OpenLoop),
    case("room_1000", Comparable, "--room-members 1000 --rate 100", Throughput(0.80)),
    case("history_1000", Server, "--room-members 1000 --rate 100", Kind::History),
    case("recovery_1000x100", Server, "", Recovery { on_redis: false }),
    case("presence_1000", Server, "", Kind::Presence),
    case("idle_memory", Comparable, "--connections 10000", Kind::IdleMemory),
    case("plugin_share", Server, PAIRS_500X16, Kind::PluginShare),
    case("metrics_cost", Server, PAIRS_500X16, Kind::MetricsCost),
    case("swap", Server, "", Kind::Swap),
    case("changes", Named, "", Kind::Changes),
    case("redis_10000", Redis, "--connections 10000 --rate 4000", Nodes(2, "")),
    case("redis_fast", Redis, "--connections 1000 --rate 20000", Nodes(2, "")),
    case("redis_room", Redis, "--room-members 800 --rate 20", Nodes(8, "")),
    case("redis_history", Redis, "--room-members 800 --rate 20", Nodes(8, HISTORY_RULE)),
    case("redis_recovery", Redis, "", Recovery { on_redis: true }),
];

/// Starts a subject.
type Start<'a> = &'a dyn Fn() -> anyhow::Result<Subject>;

impl Case {
    /// The cases that run if none is chosen: those that need only the server and take seconds.
    pub(crate) fn default() -> impl Iterator<Item = &'static Self> {
        let groups = [Group::Comparable, Group::Server];
        CASES
            .iter()
            .filter(move |case| groups.contains(&case.group))
    }

    /// The cases of several nodes connected through Redis.
    pub(crate) fn redis() -> impl Iterator<Item = &'static Self> {
        CASES.iter().filter(|case| case.group == Group::Redis)
    }

    /// The cases that other servers can run too.
    pub(crate) fn comparable() -> impl Iterator<Item = &'static Self> {
        CASES.iter().filter(|case| case.group == Group::Comparable)
    }

    /// Returns the case with this name. The error for an unknown name lists all cases.
    pub(crate) fn parse(name: &str) -> Result<&'static Self, String> {
        CASES.iter().find(|case| case.name == name).ok_or_else(|| {
            let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
            format!("no such case; there are {}", names.join(", "))
        })
    }

    /// Runs the case.
    pub(crate) fn run(&self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let load = || self.single_load(bench);
        let mut result = match self.kind {
            Throughput(share) => self.throughput(bench, share),
            Kind::OpenLoop => self.open_loop(bench),
            Kind::History => self.history(bench),
            Recovery { on_redis } => bursts::recovery(bench, HISTORY_RULE, on_redis),
            Kind::Presence => bursts::presence(bench),
            Kind::IdleMemory => self.idle_memory(bench),
            Kind::PluginShare => self.plugin_share(bench),
            Kind::MetricsCost => watched::run(bench, &load()),
            Kind::Swap => swap::run(bench),
            Kind::Changes => changes::run(bench),
            Nodes(count, rules) => nodes::run(bench, count, rules, &load()),
        }?;
        result.rows.iter_mut().for_each(|row| row.case = self.name);
        Ok(result)
    }

    /// The options of the load generator, with as many connections as possible.
    pub(crate) fn single_load(&self, bench: &Bench) -> Vec<String> {
        match self.name {
            "idle_memory" if bench.quick => bench.options("--connections 2000"),
            _ => bench.options(self.load),
        }
    }

    fn throughput(&self, bench: &Bench, share: f64) -> anyhow::Result<CaseResult> {
        let (mut result, [relay, server]) = self.with_relay(bench)?;
        let target = Target::ShareAtLeast(share);
        result
            .rows
            .push(PER_CPU_SECOND.row(&server, ("relay", &relay), target)?);
        Ok(result)
    }

    fn open_loop(&self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let (mut result, [relay, server]) = self.with_relay(bench)?;
        let relay = ("relay", relay.as_slice());
        result.rows = vec![
            PER_CPU_SECOND.row(&server, relay, Target::ShareAtLeast(0.75))?,
            P99.row(&server, relay, Target::AtMost(4.0))?,
        ];
        Ok(result)
    }

    fn idle_memory(&self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let (mut result, [relay, server]) = self.with_relay(bench)?;
        let target = Target::AtMost(6_000.0);
        result
            .rows
            .push(MEMORY.row(&server, ("relay", &relay), target)?);
        Ok(result)
    }

    /// Compares the room with a history with the same room without one.
    fn history(&self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let (mut result, [without, with]) = self.take_turns(
            bench,
            [
                ("room without a history", &|| {
                    Subject::with_sections(bench, "")
                }),
                ("room with a history", &|| {
                    Subject::with_sections(bench, HISTORY_RULE)
                }),
            ],
        )?;
        let reference = ("without a history", without.as_slice());
        result
            .rows
            .push(PER_CPU_SECOND.row(&with, reference, Target::ShareAtLeast(0.70))?);
        Ok(result)
    }

    fn plugin_share(&self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let (mut result, [without, with]) = self.take_turns(
            bench,
            [
                ("server without the plugin", &|| {
                    Subject::server(bench, None)
                }),
                ("server with the plugin", &|| {
                    Subject::server(bench, Some(&bench.plugin))
                }),
            ],
        )?;
        let cost_us = |reports: &[LoadReport]| -> anyhow::Result<Vec<f64>> {
            let figures = PER_CPU_SECOND.read_all(reports)?;
            Ok(figures.iter().map(|figure| 1e6 / figure).collect())
        };
        let (with, without) = (cost_us(&with)?, cost_us(&without)?);
        let shares = with
            .iter()
            .zip(&without)
            .map(|(with, without)| with - without);
        let measure = "CPU time of a message for the plugin";
        let row = Row::new(measure, Unit::Microseconds, shares.collect());
        result.rows.push(
            row.compared_with("all without it", &without)
                .with_target(Target::AtMost(1.5)),
        );
        Ok(result)
    }

    /// Runs the load against the relay and the server with the plugin.
    fn with_relay(&self, bench: &Bench) -> anyhow::Result<(CaseResult, [Vec<LoadReport>; 2])> {
        self.take_turns(
            bench,
            [
                ("relay", &|| Subject::relay(bench)),
                ("server", &|| Subject::server(bench, Some(&bench.plugin))),
            ],
        )
    }

    /// Runs the load against two subjects, which take turns in all rounds. Starts a fresh process for each run, so that
    /// memory and caches of one run do not affect the next.
    fn take_turns(
        &self,
        bench: &Bench,
        subjects: [(&str, Start<'_>); 2],
    ) -> anyhow::Result<(CaseResult, [Vec<LoadReport>; 2])> {
        let mut result = CaseResult::default();
        let options = self.single_load(bench);
        let mut reports = [const { Vec::new() }; 2];
        for round in 1..=bench.rounds() {
            let mut briefs = Vec::new();
            for ((name, start), reports) in subjects.iter().zip(&mut reports) {
                let report = load::run(bench, &start()?, &options)?;
                result.check(name, &report);
                briefs.push(format!("{name} {}", report.brief()));
                reports.push(report);
            }
            eprintln!("   round {round}: {}", briefs.join(", "));
        }
        Ok((result, reports))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name_and_an_unknown_one_lists_them() {
        for case in &CASES {
            assert!(Case::parse(case.name).is_ok_and(|found| std::ptr::eq(found, case)));
        }
        let error = Case::parse("nothing").expect_err("there is no such case");
        assert!(error.contains("pairs_500x16") && error.contains("redis_10000"));
    }
}
