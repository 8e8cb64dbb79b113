//! The figures of the comparison, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Server;
use crate::bench::outcome::{Measure, Unit, median};

/// The figures of one server in one case.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) case: &'static str,
    pub(super) measure: &'static Measure,
    pub(super) server: &'static Server,
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
        let samples = || self.samples.iter().copied();
        (
            samples().fold(f64::INFINITY, f64::min),
            samples().fold(0.0, f64::max),
        )
    }

    /// A figure with its unit.
    pub(super) fn write(&self, value: f64) -> String {
        match self.measure.unit {
            Unit::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            unit => unit.write(value),
        }
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let (min, max) = self.spread();
        json!({
            "case": self.case,
            "measure": self.measure.name,
            "unit": self.measure.unit.name(),
            "server": self.server.name,
            "median": self.median(),
            "min": min,
            "max": max,
            "samples": self.samples,
        })
    }

    fn cell(&self) -> String {
        let (lowest, highest) = self.spread();
        let [median, lowest, highest] =
            [self.median(), lowest, highest].map(|value| self.write(value));
        format!("{median} ({lowest}–{highest})")
    }

    fn is_in_row(&self, other: &Self) -> bool {
        (self.case, self.measure.name) == (other.case, other.measure.name)
    }
}

/// The figures of each case and measure, in their order.
pub(super) fn rows(figures: &[Figure]) -> impl Iterator<Item = &[Figure]> {
    figures.chunk_by(Figure::is_in_row)
}

/// A table in Markdown: a line for each case and measure, with a column for each server.
pub(super) fn table(figures: &[Figure], servers: &[&Server]) -> String {
    let names: Vec<_> = servers.iter().map(|server| server.name).collect();
    let mut text = format!("| case | measure | {} |\n", names.join(" | "));
    text.push_str(&"| --- ".repeat(servers.len() + 2));
    text.push_str("|\n");
    for row in rows(figures) {
        let cells = names.iter().map(|name| {
            let figure = row.iter().find(|figure| figure.server.name == *name);
            figure.map_or_else(|| "–".to_owned(), Figure::cell)
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let (case, measure) = (row[0].case, row[0].measure.name);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{case}` | {measure} | {cells} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::P99;
    use crate::bench::peers::SERVERS;

    fn figure(server: usize, samples: &[f64]) -> Figure {
        Figure {
            case: "open_8000",
            measure: &P99,
            server: &SERVERS[server],
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn the_table_shows_medians_and_spread_and_a_dash_for_missing_values() {
        let figures = [figure(0, &[0.5, 0.7, 0.6]), figure(2, &[12.0, 14.0])];
        let text = table(&figures, &[&SERVERS[0], &SERVERS[2], &SERVERS[3]]);
        let expected = "| case | measure | Signalbox | Socket.IO | Centrifuge |\n\
            | --- | --- | --- | --- | --- |\n\
            | `open_8000` | p99 latency | 0.60 ms (0.50 ms–0.70 ms) | 13.0 ms (12.0 ms–14.0 ms) | – |\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_the_median_the_spread_and_every_round() {
        let expected = json!({
            "case": "open_8000", "measure": "p99 latency", "unit": "milliseconds", "server": "relay",
            "median": 2.0, "min": 1.0, "max": 3.0, "samples": [3.0, 1.0, 2.0],
        });
        assert_eq!(figure(1, &[3.0, 1.0, 2.0]).to_json(), expected);
    }
}
