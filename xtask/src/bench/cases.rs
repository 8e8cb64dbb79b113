//! The cases and their targets.

use super::Bench;
use super::bursts;
use super::changes;
use super::load::{self, LoadReport};
use super::nodes;
use super::outcome::{CaseResult, Row, Target, Unit, median};
use super::subject::Subject;
use super::swap;
use super::watched;

/// Delivered messages per second of the server's CPU time: a figure for planning a machine of any size.
const PER_CPU_SECOND: &str = "delivered per CPU second";

/// A rule that gives every room a history.
const HISTORY_RULE: &str = "[[rooms]]\nmatch = \"*\"\nhistory = { size = 100, time = \"5m\" }\n";

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// 100 pairs, one message in flight from each side.
    Pairs100x1,
    /// 500 pairs, 16 messages in flight from each side.
    Pairs500x16,
    /// 8,000 connections, 4,000 messages a second in all, in an open loop.
    Open8000,
    /// One room of 1,000 members, 100 messages a second.
    Room1000,
    /// The same load in a room that keeps its last 100 messages.
    History1000,
    /// 1,000 members of a room lose their connections, and recover 100 messages each at once.
    Recovery1000x100,
    /// 1,000 connections join a room with presence at once.
    Presence1000,
    /// 10,000 connections that send nothing.
    IdleMemory,
    /// The cost of the chat plugin for a message.
    PluginShare,
    /// The cost of scraping and of pushing metrics.
    MetricsCost,
    /// A plugin that is swapped under load.
    Swap,
    /// A hundred changes of every kind under load; longer than the others.
    Changes,
    /// 10,000 connections on two nodes connected through Redis, 4,000 messages a second in all, each from one node to
    /// the other.
    Redis10000,
    /// 1,000 connections on two such nodes, 20,000 messages a second in all.
    RedisFast,
    /// A room whose 800 members are on eight such nodes, 20 messages a second.
    RedisRoom,
    /// The same load in a room that keeps its last 100 messages.
    RedisHistory,
    /// As `recovery_1000x100`, on another of two such nodes after the first one was killed.
    RedisRecovery,
}

impl Case {
    /// The cases that run if none is chosen, in this order: those that need only the server and take seconds.
    pub(crate) const DEFAULT: [Self; 11] = [
        Self::Pairs100x1,
        Self::Pairs500x16,
        Self::Open8000,
        Self::Room1000,
        Self::History1000,
        Self::Recovery1000x100,
        Self::Presence1000,
        Self::IdleMemory,
        Self::PluginShare,
        Self::MetricsCost,
        Self::Swap,
    ];

    /// The cases of several nodes connected through Redis.
    pub(crate) const REDIS: [Self; 5] = [
        Self::Redis10000,
        Self::RedisFast,
        Self::RedisRoom,
        Self::RedisHistory,
        Self::RedisRecovery,
    ];

    /// The cases that other servers can run too.
    pub(crate) const COMPARABLE: [Self; 5] = [
        Self::Pairs100x1,
        Self::Pairs500x16,
        Self::Open8000,
        Self::Room1000,
        Self::IdleMemory,
    ];

    /// All cases.
    fn all() -> impl Iterator<Item = Self> {
        Self::DEFAULT
            .into_iter()
            .chain([Self::Changes])
            .chain(Self::REDIS)
    }

    /// Its name on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pairs100x1 => "pairs_100x1",
            Self::Pairs500x16 => "pairs_500x16",
            Self::Open8000 => "open_8000",
            Self::Room1000 => "room_1000",
            Self::History1000 => "history_1000",
            Self::Recovery1000x100 => "recovery_1000x100",
            Self::Presence1000 => "presence_1000",
            Self::IdleMemory => "idle_memory",
            Self::PluginShare => "plugin_share",
            Self::MetricsCost => "metrics_cost",
            Self::Swap => "swap",
            Self::Changes => "changes",
            Self::Redis10000 => "redis_10000",
            Self::RedisFast => "redis_fast",
            Self::RedisRoom => "redis_room",
            Self::RedisHistory => "redis_history",
            Self::RedisRecovery => "redis_recovery",
        }
    }

    /// Returns the case with this name. The error for an unknown name lists all cases.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let names = || Self::all().map(Self::name).collect::<Vec<_>>().join(", ");
        Self::all()
            .find(|case| case.name() == name)
            .ok_or_else(|| format!("no such case; there are {}", names()))
    }

    /// Runs the case.
    pub(crate) fn run(self, bench: &Bench) -> anyhow::Result<CaseResult> {
        match self {
            Self::Pairs100x1 => self.throughput(bench, 0.75),
            Self::Pairs500x16 => self.throughput(bench, 0.30),
            Self::Open8000 => self.open_loop(bench),
            Self::Room1000 => self.throughput(bench, 0.80),
            Self::History1000 => self.history(bench),
            Self::Recovery1000x100 => bursts::recovery(bench, self.name(), HISTORY_RULE, false),
            Self::Presence1000 => bursts::presence(bench, self.name()),
            Self::IdleMemory => self.idle_memory(bench),
            Self::PluginShare => self.plugin_share(bench),
            Self::MetricsCost => watched::run(bench, self.name()),
            Self::Swap => swap::run(bench, self.name()),
            Self::Changes => changes::run(bench, self.name()),
            Self::Redis10000 | Self::RedisFast => {
                nodes::run(bench, self.name(), 2, "", &self.single_load(bench))
            }
            Self::RedisRoom => nodes::run(bench, self.name(), 8, "", &self.single_load(bench)),
            Self::RedisHistory => nodes::run(
                bench,
                self.name(),
                8,
                HISTORY_RULE,
                &self.single_load(bench),
            ),
            Self::RedisRecovery => bursts::recovery(bench, self.name(), HISTORY_RULE, true),
        }
    }

    /// The load of one of the cases that are a single load without changes, as options of the load generator; empty for
    /// all others.
    pub(crate) fn single_load(self, bench: &Bench) -> Vec<String> {
        let options = match self {
            Self::Pairs100x1 => "--pairs 100 --in-flight 1".to_owned(),
            Self::Pairs500x16 => "--pairs 500 --in-flight 16".to_owned(),
            Self::Open8000 => {
                let even = bench.connections(8_000) / 2 * 2;
                format!("--connections {even} --rate 4000")
            }
            Self::Room1000 | Self::History1000 => "--room-members 1000 --rate 100".to_owned(),
            Self::Redis10000 => {
                let even = bench.connections(10_000) / 2 * 2;
                format!("--connections {even} --rate 4000")
            }
            Self::RedisFast => "--connections 1000 --rate 20000".to_owned(),
            Self::RedisRoom | Self::RedisHistory => "--room-members 800 --rate 20".to_owned(),
            Self::IdleMemory => {
                let wanted = if bench.quick { 2_000 } else { 10_000 };
                format!("--connections {}", bench.connections(wanted))
            }
            _ => String::new(),
        };
        options.split_whitespace().map(str::to_owned).collect()
    }

    fn throughput(self, bench: &Bench, share: f64) -> anyhow::Result<CaseResult> {
        let mut result = CaseResult::default();
        let rounds = Rounds::run(bench, self, &mut result)?;
        result.rows.push(rounds.throughput_row(self.name(), share)?);
        Ok(result)
    }

    fn open_loop(self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let mut result = CaseResult::default();
        let rounds = Rounds::run(bench, self, &mut result)?;
        result.rows.push(rounds.throughput_row(self.name(), 0.75)?);
        let p99 =
            |reports: &[LoadReport]| reports.iter().map(LoadReport::p99_ms).collect::<Vec<_>>();
        let (server, relay) = (p99(&rounds.server), p99(&rounds.relay));
        result.rows.push(Row {
            case: self.name(),
            measure: "p99 latency",
            unit: Unit::Milliseconds,
            server: median(&server),
            samples: server,
            reference: Some(("relay", median(&relay))),
            target: Target::AtMost(4.0),
        });
        Ok(result)
    }

    /// Compares the room with a history with the same room without one.
    fn history(self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let mut result = CaseResult::default();
        let options = self.single_load(bench);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 1..=bench.rounds() {
            for (rule, samples) in [("", &mut without), (HISTORY_RULE, &mut with)] {
                let subject = Subject::with_rooms(bench, rule)?;
                let report = load::run(bench, &subject, &options)?;
                result.check("server", &report);
                let which = if rule.is_empty() { "without" } else { "with" };
                eprintln!("   round {round}, {which} a history: {}", report.brief());
                samples.push(report.delivered_per_cpu_second()?);
            }
        }
        result.rows.push(Row {
            case: self.name(),
            measure: PER_CPU_SECOND,
            unit: Unit::Count,
            server: median(&with),
            samples: with,
            reference: Some(("without a history", median(&without))),
            target: Target::ShareAtLeast(0.70),
        });
        Ok(result)
    }

    fn idle_memory(self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let mut result = CaseResult::default();
        let rounds = Rounds::run(bench, self, &mut result)?;
        let bytes = |reports: &[LoadReport]| -> anyhow::Result<Vec<f64>> {
            reports
                .iter()
                .map(LoadReport::bytes_per_connection)
                .collect()
        };
        let (server, relay) = (bytes(&rounds.server)?, bytes(&rounds.relay)?);
        result.rows.push(Row {
            case: self.name(),
            measure: "memory of a connection",
            unit: Unit::Bytes,
            server: median(&server),
            samples: server,
            reference: Some(("relay", median(&relay))),
            target: Target::AtMost(6_000.0),
        });
        Ok(result)
    }

    fn plugin_share(self, bench: &Bench) -> anyhow::Result<CaseResult> {
        let mut result = CaseResult::default();
        let options = ["--pairs", "500", "--in-flight", "16"];
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 1..=bench.rounds() {
            for (plugin, samples) in [
                (None, &mut without),
                (Some(bench.plugin.as_path()), &mut with),
            ] {
                let subject = Subject::server(bench, plugin)?;
                let report = load::run(bench, &subject, &options)?;
                result.check("server", &report);
                let microseconds = 1e6 / report.delivered_per_cpu_second()?;
                let which = if plugin.is_some() { "with" } else { "without" };
                eprintln!(
                    "   round {round}, {which} the plugin: {microseconds:.2} µs of CPU a message"
                );
                samples.push(microseconds);
            }
        }
        let shares: Vec<f64> = with
            .iter()
            .zip(&without)
            .map(|(with, without)| with - without)
            .collect();
        result.rows.push(Row {
            case: self.name(),
            measure: "CPU time of a message for the plugin",
            unit: Unit::Microseconds,
            server: median(&shares),
            samples: shares,
            reference: Some(("all without it", median(&without))),
            target: Target::AtMost(1.5),
        });
        Ok(result)
    }
}

/// The reports of all rounds, in each of which the two subjects take turns.
struct Rounds {
    relay: Vec<LoadReport>,
    server: Vec<LoadReport>,
}

impl Rounds {
    /// Starts a fresh process for each run, so that memory and caches of one run do not affect the next.
    fn run(bench: &Bench, case: Case, result: &mut CaseResult) -> anyhow::Result<Self> {
        let options = case.single_load(bench);
        let options: &Vec<&str> = &options.iter().map(String::as_str).collect();
        let mut rounds = Self {
            relay: Vec::new(),
            server: Vec::new(),
        };
        for round in 1..=bench.rounds() {
            let relay = load::run(bench, &Subject::relay(bench)?, options)?;
            result.check("relay", &relay);
            let server = load::run(
                bench,
                &Subject::server(bench, Some(&bench.plugin))?,
                options,
            )?;
            result.check("server", &server);
            eprintln!(
                "   round {round}: relay {}, server {}",
                relay.brief(),
                server.brief()
            );
            rounds.relay.push(relay);
            rounds.server.push(server);
        }
        Ok(rounds)
    }

    /// The server's share of the relay, with its target.
    fn throughput_row(&self, case: &'static str, share: f64) -> anyhow::Result<Row> {
        let figures = |reports: &[LoadReport]| -> anyhow::Result<Vec<f64>> {
            reports
                .iter()
                .map(LoadReport::delivered_per_cpu_second)
                .collect()
        };
        let server = figures(&self.server)?;
        Ok(Row {
            case,
            measure: PER_CPU_SECOND,
            unit: Unit::Count,
            server: median(&server),
            samples: server,
            reference: Some(("relay", median(&figures(&self.relay)?))),
            target: Target::ShareAtLeast(share),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name_and_an_unknown_one_lists_them() {
        for case in Case::all() {
            assert_eq!(Case::parse(case.name()), Ok(case));
        }
        assert!(Case::parse("nothing").is_err_and(|error| error.contains("pairs_500x16") && error.contains("redis_10000")));
    }
}
