//! `/metrics`: the metrics in Prometheus' text formats, written with the `prometheus-client` crate.
//!
//! The crate writes OpenMetrics, which Prometheus asks for. Older readers and `promtool` only know the text format
//! 0.0.4, which names counter families differently and has no end marker.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    HistogramSnapshot, bound_us,
    readings::{Family, MetricRow, Reading},
    table::{self, MetricKind},
};

/// The format of a scrape's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

impl Format {
    /// The content type of the response.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Renders readings in `format`.
pub fn render(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::with_prefix(table::PREFIX);
    registry.register_collector(Box::new(Scrape(families)));
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = text::encode(&mut out, &registry);
    match format {
        Format::OpenMetrics => out,
        Format::Text => as_text(&out),
    }
}

#[derive(Debug)]
struct Scrape(Vec<Family>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { metric, rows } in &self.0 {
            let kind = match metric.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
                MetricKind::Info => MetricType::Info,
            };
            let mut family =
                encoder.encode_descriptor(metric.name, metric.meaning, None::<&Unit>, kind)?;
            for MetricRow { labels, reading } in rows {
                let labels: Labels = metric
                    .labels
                    .iter()
                    .copied()
                    .zip(labels.iter().map(String::as_str))
                    .collect();
                encode(reading, &labels, &mut family)?;
            }
        }
        Ok(())
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

fn encode(
    reading: &Reading,
    labels: &Labels<'_>,
    family: &mut MetricEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    match reading {
        Reading::Info => family.encode_info(labels),
        Reading::Count(count) => with_labels(labels, family, |sample| {
            sample.encode_counter::<NoLabelSet, _, u64>(count, None)
        }),
        Reading::Gauge(value) => with_labels(labels, family, |sample| sample.encode_gauge(value)),
        Reading::Distribution(snapshot) => {
            with_labels(labels, family, |sample| encode_histogram(snapshot, sample))
        }
    }
}

fn with_labels(
    labels: &Labels<'_>,
    family: &mut MetricEncoder<'_>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), std::fmt::Error>,
) -> Result<(), std::fmt::Error> {
    if labels.is_empty() {
        // An empty set would be written as empty braces.
        return encode(family);
    }
    encode(&mut family.encode_family(labels)?)
}

/// Encodes milliseconds, in buckets whose bounds double: finer ones would make a scrape larger and say little more.
fn encode_histogram(
    snapshot: &HistogramSnapshot,
    encoder: &mut MetricEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let mut buckets = Vec::new();
    let mut count = 0;
    for (index, bucket) in snapshot.buckets.iter().enumerate() {
        count += bucket.count;
        let bound = match bound_us(index) {
            Some(us) if !us.is_power_of_two() => continue,
            Some(us) => us as f64 / 1e3,
            None => f64::INFINITY,
        };
        buckets.push((bound, std::mem::take(&mut count)));
    }
    encoder.encode_histogram::<NoLabelSet>(snapshot.sum_ms(), snapshot.count(), &buckets, None)
}

/// Converts OpenMetrics to the text format 0.0.4: there, a family has the name of its samples, an info metric is a
/// gauge, and nothing marks the end.
fn as_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        match described(line) {
            Some((what, metric, text)) => {
                let text = if what == "TYPE" && metric.kind == MetricKind::Info {
                    "gauge"
                } else {
                    text
                };
                let name = metric.prometheus_name();
                out.extend(["# ", what, " ", &name, " ", text]);
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Parses a line about a family: `HELP` or `TYPE`, the metric, and the rest.
fn described(line: &str) -> Option<(&str, &'static table::Metric, &str)> {
    let (what, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (family, text) = rest.split_once(' ')?;
    let name = family.strip_prefix(table::PREFIX)?.strip_prefix('_')?;
    let metric = table::ALL.iter().find(|metric| metric.name == name)?;
    Some((what, metric, text))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use signalbox_protocol::ErrorCode;

    use super::*;
    use crate::metrics::{LivePlugin, Metrics, NodeStatus, readings::read};

    fn some_families() -> Vec<Family> {
        let metrics = Metrics::default();
        metrics.active_connections.add(2);
        metrics.messages.add(3);
        metrics.messages_rejected.of(ErrorCode::TooDeep).increment();
        metrics.delivery_latency.record(Duration::from_micros(3));
        metrics.delivery_latency.record(Duration::from_micros(6));
        metrics.plugins.of("chat").guest.count("hits", 5).unwrap();
        let status = NodeStatus {
            broker_up: true,
            revocations: 0,
            event_streams: 0,
            present_users: 0,
            plugins: vec![LivePlugin {
                name: "chat".to_owned(),
                declared_version: "1.2 \"x\"".to_owned(),
                label: "0123456789ab".to_owned(),
                sha256: "0123456789abcdef".to_owned(),
                not_kept: false,
            }],
        };
        read(&metrics, &status)
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(
                text.lines().any(|found| found == *line),
                "no line `{line}` in\n{text}"
            );
        }
    }

    const SAMPLES: [&str; 11] = [
        "wss_active_connections 2.0",
        "wss_messages_total 3",
        r#"wss_messages_rejected_total{code="too_deep"} 1"#,
        r#"wss_delivery_latency_ms_bucket{le="0.002"} 0"#,
        r#"wss_delivery_latency_ms_bucket{le="0.004"} 1"#,
        r#"wss_delivery_latency_ms_bucket{le="0.008"} 2"#,
        r#"wss_delivery_latency_ms_bucket{le="+Inf"} 2"#,
        r#"wss_plugin_count_total{plugin="chat",name="hits"} 5"#,
        r#"wss_plugin_failures_total{plugin="chat",kind="trap"} 0"#,
        r#"wss_plugin_live{plugin="chat",version="0123456789ab"} 1.0"#,
        r#"wss_plugin_info{plugin="chat",version="1.2 \"x\"",sha256="0123456789abcdef"} 1"#,
    ];

    #[test]
    fn open_metrics_names_families_without_the_suffix_and_ends() {
        let text = render(some_families(), Format::OpenMetrics);
        assert_lines(&text, &SAMPLES);
        assert_lines(
            &text,
            &["# TYPE wss_messages counter", "# TYPE wss_plugin info"],
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_text_format_names_families_as_their_samples() {
        let text = render(some_families(), Format::Text);
        assert_lines(&text, &SAMPLES);
        assert_lines(
            &text,
            &[
                "# TYPE wss_messages_total counter",
                "# TYPE wss_plugin_info gauge",
                "# TYPE wss_delivery_latency_ms histogram",
                "# HELP wss_connections_total Connections opened",
            ],
        );
        assert!(!text.contains("# EOF"));
    }
}
