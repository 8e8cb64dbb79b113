//! The results of a case: rows of figures with their targets, and errors.

use serde_json::{Value, json};

use super::load::LoadReport;

/// The result of a case.
#[derive(Debug, Default)]
pub(crate) struct CaseResult {
    /// Figures.
    pub(crate) rows: Vec<Row>,
    /// Lost, duplicated or reordered messages, errors, closed connections: never acceptable.
    pub(crate) broken: Vec<String>,
}

impl CaseResult {
    /// Records the errors of a run.
    pub(crate) fn check(&mut self, against: &str, report: &LoadReport) {
        if let Some(what) = report.broken() {
            self.broken.push(format!("against the {against}: {what}"));
        }
    }
}

/// One figure of the server, the figure that it is compared with, and its target.
#[derive(Debug)]
pub(crate) struct Row {
    /// The case.
    pub(crate) case: &'static str,
    /// The measured quantity.
    pub(crate) measure: &'static str,
    /// Its unit, for people.
    pub(crate) unit: Unit,
    /// The server's figure: the median of `samples`.
    pub(crate) server: f64,
    /// The figure of each round.
    pub(crate) samples: Vec<f64>,
    /// The name of the reference, and its figure.
    pub(crate) reference: Option<(&'static str, f64)>,
    /// The target of the server's figure.
    pub(crate) target: Target,
}

/// How a figure is formatted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// A large count.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
}

/// The target of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The server's figure is at least this share of the reference.
    ShareAtLeast(f64),
    /// The server's figure is at most this many times the reference.
    TimesAtMost(f64),
    /// The server's figure itself is at most this.
    AtMost(f64),
    /// No target: the figure is for information.
    None,
}

impl Row {
    /// The server's figure divided by the reference.
    fn ratio(&self) -> Option<f64> {
        self.reference
            .filter(|(_, figure)| *figure > 0.0)
            .map(|(_, figure)| self.server / figure)
    }

    /// Whether the target is reached; a target that needs a missing reference is not.
    fn passes(&self) -> bool {
        match self.target {
            Target::ShareAtLeast(share) => self.ratio().is_some_and(|ratio| ratio >= share),
            Target::TimesAtMost(times) => self.ratio().is_some_and(|ratio| ratio <= times),
            Target::AtMost(bound) => self.server <= bound,
            Target::None => true,
        }
    }

    /// The whole row, for programs.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "case": self.case,
            "measure": self.measure,
            "unit": self.unit.name(),
            "server": self.server,
            "samples": self.samples,
            "reference": self.reference.map(|(name, figure)| json!({ "name": name, "value": figure })),
            "ratio": self.ratio(),
            "target": self.target.describe(self.unit),
            "pass": self.passes(),
        })
    }

    fn cells(&self) -> [String; 7] {
        [
            self.case.to_owned(),
            self.measure.to_owned(),
            self.unit.write(self.server),
            self.reference.map_or_else(String::new, |(name, figure)| {
                format!("{name} {}", self.unit.write(figure))
            }),
            self.ratio()
                .map_or_else(String::new, |ratio| format!("{:.0} %", ratio * 100.0)),
            self.target.describe(self.unit),
            match (self.target, self.passes()) {
                (Target::None, _) => "",
                (_, true) => "pass",
                (_, false) => "MISS",
            }
            .to_owned(),
        ]
    }
}

impl Unit {
    /// Its name for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    /// A figure with its unit, for people.
    pub(crate) fn write(self, value: f64) -> String {
        match self {
            Self::Count if value >= 1e6 => format!("{:.2}M", value / 1e6),
            Self::Count if value >= 1e4 => format!("{:.0}k", value / 1e3),
            Self::Count if value < 100.0 && value.fract() != 0.0 => format!("{value:.2}"),
            Self::Count => format!("{value:.0}"),
            Self::Bytes => format!("{:.1} KB", value / 1e3),
            Self::Microseconds => format!("{value:.2} µs"),
            Self::Milliseconds => format!("{value:.1} ms"),
        }
    }
}

impl Target {
    fn describe(self, unit: Unit) -> String {
        match self {
            Self::ShareAtLeast(share) => format!("≥ {:.0} %", share * 100.0),
            Self::TimesAtMost(times) => format!("≤ {:.0} %", times * 100.0),
            Self::AtMost(bound) => format!("≤ {}", unit.write(bound)),
            Self::None => String::new(),
        }
    }
}

/// The middle value; of an even number of values, the mean of the two in the middle; 0 if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Formats the rows in aligned columns.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = [
        "case",
        "measure",
        "server",
        "compared with",
        "ratio",
        "target",
        "",
    ]
    .map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|cells| cells[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |cells: &[String; 7]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: f64, reference: Option<(&'static str, f64)>, target: Target) -> Row {
        Row {
            case: "c",
            measure: "m",
            unit: Unit::Count,
            server,
            samples: vec![server],
            reference,
            target,
        }
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_target_is_reached_or_missed_at_its_bound() {
        let relay = Some(("relay", 100.0));
        assert!(row(75.0, relay, Target::ShareAtLeast(0.75)).passes());
        assert!(!row(74.0, relay, Target::ShareAtLeast(0.75)).passes());
        assert!(!row(75.0, None, Target::ShareAtLeast(0.75)).passes());
        assert!(row(120.0, relay, Target::TimesAtMost(1.2)).passes());
        assert!(!row(121.0, relay, Target::TimesAtMost(1.2)).passes());
        assert!(row(4.0, None, Target::AtMost(4.0)).passes());
        assert!(!row(4.1, None, Target::AtMost(4.0)).passes());
    }

    #[test]
    fn the_table_shows_figures_ratio_and_verdict() {
        let rows = [row(
            80_000.0,
            Some(("relay", 160_000.0)),
            Target::ShareAtLeast(0.75),
        )];
        let text = table(&rows);
        let line = text.lines().nth(1).expect("one row");
        for part in ["80k", "relay 160k", "50 %", "≥ 75 %", "MISS"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(rows[0].to_json()["ratio"], 0.5);
    }
}
