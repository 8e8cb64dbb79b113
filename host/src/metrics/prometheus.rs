//! `/metrics`: the figures in Prometheus' text format, by the `prometheus-client` crate.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{BUCKET_BOUNDS_US, Counter, HistogramSnapshot, Metrics, plugin::GuestFigure};

/// The content type of a scrape's answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which version of a plugin is live: its name, and the first twelve hex digits of its sha256.
pub type LiveVersion = (String, String);

/// Renders `metrics`, and an info metric for each of `versions`.
pub fn render(metrics: &Arc<Metrics>, versions: Vec<LiveVersion>) -> String {
    let mut registry = Registry::with_prefix("wss");
    registry.register_collector(Box::new(Scrape {
        metrics: metrics.clone(),
        versions,
    }));
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    versions: Vec<LiveVersion>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let m = &self.metrics;
        gauge(
            &mut encoder,
            "active_connections",
            "Connections that are open",
            m.active_connections.get() as f64,
        )?;
        counter(
            &mut encoder,
            "connections",
            "Connections since the start",
            &m.connections,
        )?;
        counter(
            &mut encoder,
            "messages",
            "Messages that clients sent",
            &m.messages,
        )?;
        counter(
            &mut encoder,
            "messages_delivered",
            "Messages put out to connections",
            &m.messages_delivered,
        )?;
        counter(
            &mut encoder,
            "unexpected_disconnects",
            "Connections that ended uncleanly",
            &m.unexpected_disconnects,
        )?;
        counter(
            &mut encoder,
            "config_reloads_failed",
            "Refused reloads of the configuration",
            &m.config_reloads_failed,
        )?;
        for (name, help, figure) in [
            (
                "redis_publish_failures",
                "Messages that Redis did not take",
                &m.redis.publish_failures,
            ),
            (
                "redis_unheard",
                "Messages for a server that did not listen",
                &m.redis.unheard,
            ),
            (
                "redis_route_lookups",
                "Questions for a route that Redis was asked",
                &m.redis.route_lookups,
            ),
            (
                "redis_routes_pruned",
                "Servers without a lease taken out of a route",
                &m.redis.routes_pruned,
            ),
            (
                "redis_subscriber_rebuilds",
                "Subscriptions that broke and were made anew",
                &m.redis.subscriber_rebuilds,
            ),
            (
                "redis_malformed",
                "Texts published to this node that are no messages",
                &m.redis.malformed,
            ),
        ] {
            counter(&mut encoder, name, help, figure)?;
        }
        let mean = m.reported_latency.snapshot().mean_ms();
        gauge(
            &mut encoder,
            "average_latency_ms",
            "Mean of the round-trip times that clients reported",
            mean,
        )?;
        labelled(
            &mut encoder,
            "messages_rejected",
            "Refused messages",
            "code",
            m.messages_rejected.rows(),
        )?;
        labelled(
            &mut encoder,
            "messages_dropped",
            "Accepted messages that reached nobody",
            "reason",
            m.messages_dropped.rows(),
        )?;
        labelled(
            &mut encoder,
            "closes",
            "Connections that the server closed",
            "code",
            m.closes.rows(),
        )?;
        labelled(
            &mut encoder,
            "upgrades_refused",
            "Refused upgrades",
            "reason",
            m.upgrades_refused.rows(),
        )?;
        labelled(
            &mut encoder,
            "admin_requests",
            "Calls of operators",
            "outcome",
            m.admin_requests.rows(),
        )?;
        let help = "From a frame's arrival to the outbox of its receivers";
        let mut family =
            encoder.encode_descriptor("delivery_latency_ms", help, None, MetricType::Histogram)?;
        histogram(&m.delivery_latency.snapshot(), &mut family)?;
        self.plugins(&mut encoder)?;
        self.guests(&mut encoder)?;
        self.live_versions(&mut encoder)
    }
}

impl Scrape {
    fn plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let plugins = self.metrics.plugins.all();
        let each = |get: fn(&super::PluginMetrics) -> &Counter| {
            plugins.iter().map(move |(name, m)| (name.as_str(), get(m)))
        };
        labelled(
            encoder,
            "plugin_calls",
            "Calls of a plugin",
            "plugin",
            each(|m| &m.calls),
        )?;
        labelled(
            encoder,
            "plugin_rejections",
            "Messages that a plugin refused",
            "plugin",
            each(|m| &m.rejections),
        )?;
        let help = "Log lines of a plugin that were over its limit";
        labelled(
            encoder,
            "plugin_log_lines_dropped",
            help,
            "plugin",
            each(|m| &m.log_lines_dropped),
        )?;
        let mut family = encoder.encode_descriptor(
            "plugin_failures",
            "Calls that failed",
            None,
            MetricType::Counter,
        )?;
        for (name, metrics) in &plugins {
            for kind in super::FailureKind::ALL {
                let labels = [("plugin", name.as_str()), ("kind", kind.as_str())];
                constant(metrics.failures(kind).get(), family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "plugin_swaps",
            "Swaps of a plugin's version",
            None,
            MetricType::Counter,
        )?;
        for (name, metrics) in &plugins {
            for (outcome, counter) in [
                ("live", &metrics.swaps_live),
                ("refused", &metrics.swaps_refused),
            ] {
                constant(
                    counter.get(),
                    family.encode_family(&[("plugin", name.as_str()), ("outcome", outcome)])?,
                )?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "plugin_call_ms",
            "Time of a call",
            None,
            MetricType::Histogram,
        )?;
        for (name, metrics) in &plugins {
            histogram(
                &metrics.call_time.snapshot(),
                &mut family.encode_family(&[("plugin", name.as_str())])?,
            )?;
        }
        Ok(())
    }

    /// The plugins' own figures, under one name each kind, so that a plugin cannot collide with the host.
    fn guests(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures: Vec<_> = self
            .metrics
            .plugins
            .all()
            .into_iter()
            .map(|(name, m)| (name, m.guest.all()))
            .collect();
        let mut family = encoder.encode_descriptor(
            "plugin_count",
            "What plugins count",
            None,
            MetricType::Counter,
        )?;
        for (plugin, figures) in &figures {
            for (name, figure) in figures {
                if let GuestFigure::Count(counter) = &**figure {
                    constant(
                        counter.get(),
                        family.encode_family(&[
                            ("plugin", plugin.as_str()),
                            ("name", name.as_str()),
                        ])?,
                    )?;
                }
            }
        }
        let mut family = encoder.encode_descriptor(
            "plugin_observed",
            "What plugins observe",
            None,
            MetricType::Histogram,
        )?;
        for (plugin, figures) in &figures {
            for (name, figure) in figures {
                if let GuestFigure::Observed(observed) = &**figure {
                    let labels = [("plugin", plugin.as_str()), ("name", name.as_str())];
                    histogram(&observed.snapshot(), &mut family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn live_versions(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "plugin_live",
            "The version that is live",
            None,
            MetricType::Gauge,
        )?;
        for (plugin, version) in &self.versions {
            let labels = [("plugin", plugin.as_str()), ("version", version.as_str())];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(family)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counter: &Counter,
) -> Result<(), std::fmt::Error> {
    let family = encoder.encode_descriptor(name, help, None::<&Unit>, MetricType::Counter)?;
    constant(counter.get(), family)
}

fn constant(value: u64, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    ConstCounter::new(value).encode(encoder)
}

/// A counter for each value of one label.
fn labelled<'n, 'c>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    rows: impl Iterator<Item = (&'n str, &'c Counter)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, counter) in rows {
        constant(counter.get(), family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn histogram(
    snapshot: &HistogramSnapshot,
    encoder: &mut MetricEncoder<'_>,
) -> Result<(), std::fmt::Error> {
    let bounds = BUCKET_BOUNDS_US
        .iter()
        .map(|us| *us as f64 / 1e3)
        .chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(snapshot.buckets).collect();
    encoder.encode_histogram::<NoLabelSet>(
        snapshot.sum_ns as f64 / 1e6,
        snapshot.count(),
        &buckets,
        None,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::ErrorCode;

    #[test]
    fn figures_have_the_documented_names() {
        let metrics = Arc::new(Metrics::default());
        metrics.active_connections.add(2);
        metrics.messages.add(3);
        metrics.messages_rejected.of(ErrorCode::TooDeep).increment();
        metrics.delivery_latency.record(Duration::from_micros(3));
        metrics.plugins.of("chat").guest.count("hits", 5).unwrap();
        let text = render(&metrics, vec![("chat".into(), "0123456789ab".into())]);
        for line in [
            "wss_active_connections 2.0",
            "wss_messages_total 3",
            r#"wss_messages_rejected_total{code="too_deep"} 1"#,
            r#"wss_delivery_latency_ms_bucket{le="0.004"} 1"#,
            r#"wss_delivery_latency_ms_bucket{le="+Inf"} 1"#,
            r#"wss_plugin_count_total{plugin="chat",name="hits"} 5"#,
            r#"wss_plugin_failures_total{plugin="chat",kind="trap"} 0"#,
            r#"wss_plugin_live{plugin="chat",version="0123456789ab"} 1"#,
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no line `{line}` in\n{text}"
            );
        }
    }
}
