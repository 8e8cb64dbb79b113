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

/// A quantity that is read from the reports of the load generator.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// Whether a larger figure is the better one.
    pub(crate) more_is_better: bool,
    /// The figure of one run.
    pub(crate) read: fn(&LoadReport) -> anyhow::Result<f64>,
}

/// Delivered messages per second of the server's CPU time: a figure for planning a machine of any size.
pub(crate) const PER_CPU_SECOND: Measure = Measure {
    name: "delivered per CPU second",
    unit: Unit::Count,
    more_is_better: true,
    read: LoadReport::delivered_per_cpu_second,
};

pub(crate) const P50: Measure = Measure {
    name: "p50 latency",
    unit: Unit::Milliseconds,
    more_is_better: false,
    read: |report| Ok(report.latency.p50_us / 1e3),
};

pub(crate) const P99: Measure = Measure {
    name: "p99 latency",
    read: |report| Ok(report.p99_ms()),
    ..P50
};

pub(crate) const MEMORY: Measure = Measure {
    name: "memory of a connection",
    unit: Unit::Bytes,
    more_is_better: false,
    read: LoadReport::bytes_per_connection,
};

impl Measure {
    /// The figure of each run.
    pub(crate) fn read_all(&self, reports: &[LoadReport]) -> anyhow::Result<Vec<f64>> {
        reports.iter().map(self.read).collect()
    }

    /// The row of a server's reports, compared with those of a reference.
    pub(crate) fn row(
        &self,
        server: &[LoadReport],
        (name, reference): (&'static str, &[LoadReport]),
        target: Target,
    ) -> anyhow::Result<Row> {
        let row = Row::new(self.name, self.unit, self.read_all(server)?);
        Ok(row
            .compared_with(name, &self.read_all(reference)?)
            .with_target(target))
    }
}

/// One figure of the server, the figure that it is compared with, and its target.
#[derive(Debug)]
pub(crate) struct Row {
    /// The case.
    pub(crate) case: &'static str,
    /// The measured quantity.
    measure: &'static str,
    unit: Unit,
    /// The figure of each round; the median counts.
    samples: Vec<f64>,
    /// The name of the reference, and its figure.
    reference: Option<(&'static str, f64)>,
    target: Target,
}

/// How a figure is formatted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// A large count.
    Count,
    Bytes,
    Microseconds,
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
    /// A figure without a reference and a target.
    pub(crate) fn new(measure: &'static str, unit: Unit, samples: Vec<f64>) -> Self {
        Self {
            case: "",
            measure,
            unit,
            samples,
            reference: None,
            target: Target::None,
        }
    }

    /// Compares it with the median of these samples.
    pub(crate) fn compared_with(mut self, name: &'static str, samples: &[f64]) -> Self {
        self.reference = Some((name, median(samples)));
        self
    }

    /// Sets the target.
    pub(crate) fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// The server's figure.
    pub(crate) fn server(&self) -> f64 {
        median(&self.samples)
    }

    /// Whether there is a figure at all.
    pub(crate) fn has_samples(&self) -> bool {
        !self.samples.is_empty()
    }

    /// The server's figure divided by the reference.
    fn ratio(&self) -> Option<f64> {
        let reference = self.reference.filter(|(_, figure)| *figure > 0.0);
        reference.map(|(_, figure)| self.server() / figure)
    }

    /// Whether the target is reached; a target that needs a missing reference is not.
    fn passes(&self) -> bool {
        match self.target {
            Target::ShareAtLeast(share) => self.ratio().is_some_and(|ratio| ratio >= share),
            Target::TimesAtMost(times) => self.ratio().is_some_and(|ratio| ratio <= times),
            Target::AtMost(bound) => self.server() <= bound,
            Target::None => true,
        }
    }

    /// The whole row, for programs.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "case": self.case,
            "measure": self.measure,
            "unit": self.unit.name(),
            "server": self.server(),
            "samples": self.samples,
            "reference": self.reference.map(|(name, figure)| json!({ "name": name, "value": figure })),
            "ratio": self.ratio(),
            "target": self.target.describe(self.unit),
            "pass": self.passes(),
        })
    }

    fn cells(&self) -> [String; 7] {
        let write = |figure| self.unit.write(figure);
        let reference = self
            .reference
            .map(|(name, figure)| format!("{name} {}", write(figure)));
        let ratio = self.ratio().map(|ratio| format!("{:.0} %", ratio * 100.0));
        let verdict = match (self.target, self.passes()) {
            (Target::None, _) => "",
            (_, true) => "pass",
            (_, false) => "MISS",
        };
        [
            self.case.to_owned(),
            self.measure.to_owned(),
            write(self.server()),
            reference.unwrap_or_default(),
            ratio.unwrap_or_default(),
            self.target.describe(self.unit),
            verdict.to_owned(),
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
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| {
        lines
            .iter()
            .map(|cells| cells[column].chars().count())
            .max()
    };
    let widths: Vec<_> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: &[String; 7]| {
        let cells = cells.iter().zip(&widths);
        let padded: Vec<_> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: f64, reference: Option<f64>, target: Target) -> Row {
        let mut row = Row::new("m", Unit::Count, vec![server]).with_target(target);
        row.reference = reference.map(|figure| ("relay", figure));
        row
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_target_is_reached_or_missed_at_its_bound() {
        for (server, reference, target, passes) in [
            (75.0, Some(100.0), Target::ShareAtLeast(0.75), true),
            (74.0, Some(100.0), Target::ShareAtLeast(0.75), false),
            (75.0, None, Target::ShareAtLeast(0.75), false),
            (120.0, Some(100.0), Target::TimesAtMost(1.2), true),
            (121.0, Some(100.0), Target::TimesAtMost(1.2), false),
            (4.0, None, Target::AtMost(4.0), true),
            (4.1, None, Target::AtMost(4.0), false),
        ] {
            assert_eq!(
                row(server, reference, target).passes(),
                passes,
                "{server} {target:?}"
            );
        }
    }

    #[test]
    fn the_table_shows_figures_ratio_and_verdict() {
        let rows = [row(80e3, Some(160e3), Target::ShareAtLeast(0.75))];
        let text = table(&rows);
        let line = text.lines().nth(1).expect("one row");
        for part in ["80k", "relay 160k", "50 %", "≥ 75 %", "MISS"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(rows[0].to_json()["ratio"], 0.5);
    }
}
