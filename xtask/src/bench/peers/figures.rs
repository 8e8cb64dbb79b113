//! The figures of the comparison, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Server;
use crate::bench::cases::Case;
use crate::bench::load::LoadReport;
use crate::bench::outcome::{Unit, median};

/// A measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Delivered messages per second of the server's CPU time.
    PerCpuSecond,
    /// The median of the latency.
    P50,
    /// The 99th percentile of the latency.
    P99,
    /// The memory of an idle connection.
    Memory,
}

impl Measure {
    /// The quantities that are read from the runs of a case.
    pub(super) fn of(case: Case) -> &'static [Self] {
        match case {
            Case::IdleMemory => &[Self::Memory],
            Case::Open8000 => &[Self::PerCpuSecond, Self::P50, Self::P99],
            _ => &[Self::PerCpuSecond],
        }
    }

    /// The figure of one run.
    pub(super) fn read(self, report: &LoadReport) -> anyhow::Result<f64> {
        match self {
            Self::PerCpuSecond => report.delivered_per_cpu_second(),
            Self::P50 => Ok(report.p50_ms()),
            Self::P99 => Ok(report.p99_ms()),
            Self::Memory => report.bytes_per_connection(),
        }
    }

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PerCpuSecond => "delivered per CPU second",
            Self::P50 => "p50 latency",
            Self::P99 => "p99 latency",
            Self::Memory => "memory of a connection",
        }
    }

    /// Whether a larger figure is the better one.
    pub(super) fn more_is_better(self) -> bool {
        self == Self::PerCpuSecond
    }

    fn unit(self) -> Unit {
        match self {
            Self::PerCpuSecond => Unit::Count,
            Self::P50 | Self::P99 => Unit::Milliseconds,
            Self::Memory => Unit::Bytes,
        }
    }

    /// A figure with its unit.
    pub(super) fn write(self, value: f64) -> String {
        match self {
            Self::P50 | Self::P99 if value < 10.0 => format!("{value:.2} ms"),
            _ => self.unit().write(value),
        }
    }
}

/// The figures of one server in one case.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) case: Case,
    pub(super) measure: Measure,
    pub(super) server: Server,
    /// The figure of each round; at least one.
    pub(super) samples: Vec<f64>,
}

impl Figure {
    /// The figure that counts.
    pub(super) fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// The lowest and the highest figure of a round.
    pub(super) fn spread(&self) -> (f64, f64) {
        let lowest = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        (lowest, self.samples.iter().copied().fold(0.0, f64::max))
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let (min, max) = self.spread();
        json!({
            "case": self.case.name(),
            "measure": self.measure.name(),
            "unit": self.measure.unit().name(),
            "server": self.server.name(),
            "median": self.median(),
            "min": min,
            "max": max,
            "samples": self.samples,
        })
    }

    fn cell(&self) -> String {
        let (lowest, highest) = self.spread();
        let write = |value| self.measure.write(value);
        let median = write(self.median());
        format!("{median} ({}–{})", write(lowest), write(highest))
    }
}

/// The cases and measures that have figures, in their order.
pub(super) fn rows(figures: &[Figure]) -> Vec<(Case, Measure)> {
    let mut rows = Vec::new();
    for figure in figures {
        let row = (figure.case, figure.measure);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows
}

/// The figures of one case and measure.
pub(super) fn of_row(
    figures: &[Figure],
    row: (Case, Measure),
) -> impl Iterator<Item = &Figure> + Clone {
    figures
        .iter()
        .filter(move |figure| (figure.case, figure.measure) == row)
}

/// A table in Markdown: a line for each case and measure, with a column for each server.
pub(super) fn table(figures: &[Figure], servers: &[Server]) -> String {
    let names: Vec<_> = servers.iter().map(|server| server.name()).collect();
    let mut text = format!("| case | measure | {} |\n", names.join(" | "));
    text.push_str(&"| --- ".repeat(servers.len() + 2));
    text.push_str("|\n");
    for row in rows(figures) {
        let (case, measure) = row;
        let cells = servers.iter().map(|server| {
            of_row(figures, row)
                .find(|figure| figure.server == *server)
                .map_or_else(|| "–".to_owned(), Figure::cell)
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {} | {cells} |", case.name(), measure.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(server: Server, samples: &[f64]) -> Figure {
        Figure {
            case: Case::Open8000,
            measure: Measure::P99,
            server,
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn the_table_shows_medians_and_spread_and_a_dash_for_what_is_missing() {
        let figures = [
            figure(Server::Signalbox, &[0.5, 0.7, 0.6]),
            figure(Server::SocketIo, &[12.0, 14.0]),
        ];
        let servers = [Server::Signalbox, Server::SocketIo, Server::Centrifuge];
        let text = table(&figures, &servers);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "| case | measure | Signalbox | Socket.IO | Centrifuge |",
                "| --- | --- | --- | --- | --- |",
                "| `open_8000` | p99 latency | 0.60 ms (0.50 ms–0.70 ms) | 13.0 ms (12.0 ms–14.0 ms) | – |",
            ]
        );
    }

    #[test]
    fn json_has_the_median_the_spread_and_every_round() {
        let json = figure(Server::Relay, &[3.0, 1.0, 2.0]).to_json();
        assert_eq!(
            (&json["median"], &json["min"], &json["max"]),
            (&json!(2.0), &json!(1.0), &json!(3.0))
        );
        assert_eq!(json["samples"], json!([3.0, 1.0, 2.0]));
        assert_eq!(
            (&json["server"], &json["unit"]),
            (&json!("relay"), &json!("milliseconds"))
        );
    }
}
