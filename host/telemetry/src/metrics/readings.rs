//! All values at one moment, in the order of the table.
//!
//! The only place that maps a row of the [`table`] to the cell behind it: all code that shows or pushes metrics takes
//! them from here.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Counter, FailureKind, Gauge, Histogram, HistogramSnapshot, Metrics, PluginMetrics,
    ShadowOutcome, WebhookMetrics,
    plugin::GuestMetric,
    table::{self, Metric},
};

/// Current values that are not counted anywhere: they are read on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Whether messages between nodes arrive.
    pub broker_up: bool,
    /// The number of revoked tokens and blocked users.
    pub revocations: usize,
    /// The users of this node in rooms with presence, once for each room.
    pub present_users: usize,
    /// The connections that get server-sent events.
    pub event_streams: usize,
    /// The versions that are live, in the order of the chain.
    pub plugins: Vec<LivePlugin>,
}

/// A version of a plugin that is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePlugin {
    /// The plugin's name.
    pub name: String,
    /// The version in the component's metadata; empty if there is none.
    pub declared_version: String,
    /// The first twelve hex digits of the component's sha256, as in logs.
    pub label: String,
    /// The component's sha256 in hex.
    pub sha256: String,
    /// Whether it would not be live after a restart, because it is not on disk.
    pub not_kept: bool,
}

/// One metric with all its values.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its row in the table.
    pub metric: &'static Metric,
    /// Its values: several if it has labels, or none if nothing has those labels yet.
    pub rows: Vec<MetricRow>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// The values of the metric's labels, in the order of the table.
    pub labels: Vec<String>,
    /// The value.
    pub reading: Reading,
}

/// The value of one cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The value of a counter, since the start.
    Count(u64),
    /// The value of a gauge.
    Gauge(f64),
    /// The value of a histogram, since the start.
    Distribution(Box<HistogramSnapshot>),
    /// No value: the labels carry the information.
    Info,
}

impl From<&Counter> for Reading {
    fn from(counter: &Counter) -> Self {
        Self::Count(counter.get())
    }
}

impl From<&Gauge> for Reading {
    fn from(gauge: &Gauge) -> Self {
        Self::Gauge(gauge.get() as f64)
    }
}

impl From<&Histogram> for Reading {
    fn from(histogram: &Histogram) -> Self {
        Self::Distribution(Box::new(histogram.snapshot()))
    }
}

/// Reads all metrics.
pub fn read(metrics: &Metrics, status: &NodeStatus) -> Vec<Family> {
    let mut readings = Readings::default();
    readings.server(metrics, status);
    readings.messages(metrics);
    readings.histories(metrics);
    readings.presence(metrics, status);
    readings.between_nodes(metrics, status);
    readings.live_plugins(status);
    let plugins = metrics.plugins.all();
    readings.plugins(&plugins, status);
    readings.guests(&plugins);
    readings.webhooks(metrics);
    let pushes = &metrics.cloudwatch;
    readings.labelled(
        &table::CLOUDWATCH_PUSHES,
        [
            ("ok", &pushes.pushes_ok),
            ("failed", &pushes.pushes_failed),
            ("refused", &pushes.pushes_refused),
        ],
    );
    readings.one(
        &table::CLOUDWATCH_INTERVALS_DROPPED,
        &pushes.intervals_dropped,
    );
    readings.one(&table::TRACE_SPANS_EXPORTED, &metrics.trace_spans_exported);
    readings.labelled(
        &table::TRACE_SPANS_DROPPED,
        metrics.trace_spans_dropped.rows(),
    );
    let lines_dropped = metrics.log_lines_dropped.load(Ordering::Relaxed);
    readings.one(&table::LOG_LINES_DROPPED, Reading::Count(lines_dropped));
    readings.families
}

type Plugins = [(String, Arc<PluginMetrics>)];

#[derive(Default)]
struct Readings {
    families: Vec<Family>,
}

impl Readings {
    fn server(&mut self, m: &Metrics, status: &NodeStatus) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.family(&table::BUILD, [(vec![version], Reading::Info)]);
        self.one(&table::CONFIG_RELOADS_FAILED, &m.config_reloads_failed);
        self.one(&table::TASK_PANICS, &m.task_panics);
        self.one(
            &table::PLUGIN_COMPILES_GIVEN_UP,
            &m.plugin_compiles_given_up,
        );
        let failed = &m.auth_key_reloads_failed;
        self.one(&table::AUTH_KEY_RELOADS_FAILED, failed);
        self.one(&table::ACTIVE_CONNECTIONS, &m.active_connections);
        let streams = Reading::Gauge(status.event_streams as f64);
        self.one(&table::SSE_CONNECTIONS, streams);
        self.one(&table::CONNECTIONS, &m.connections);
        self.one(&table::UNEXPECTED_DISCONNECTS, &m.unexpected_disconnects);
        self.labelled(&table::CLOSES, m.closes.rows());
        self.labelled(&table::UPGRADES_REFUSED, m.upgrades_refused.rows());
        self.labelled(&table::SSE_POSTS, m.posts.rows());
        self.labelled(&table::HTTP_REFUSED, m.http_refused.rows());
        self.labelled(&table::ADMIN_REQUESTS, m.admin_requests.rows());
    }

    fn messages(&mut self, m: &Metrics) {
        self.one(&table::MESSAGES, &m.messages);
        let by_type = m.messages_by_type.rows().into_iter();
        self.family(
            &table::MESSAGES_BY_TYPE,
            by_type.map(|(name, count)| (vec![name], Reading::Count(count))),
        );
        self.one(&table::MESSAGES_DELIVERED, &m.messages_delivered);
        let by_plugins = [("plugin", &m.messages_rejected_by_plugins)];
        self.labelled(
            &table::MESSAGES_REJECTED,
            m.messages_rejected.rows().chain(by_plugins),
        );
        self.labelled(&table::MESSAGES_DROPPED, m.messages_dropped.rows());
        self.one(&table::DELIVERY_LATENCY, &m.delivery_latency);
        let reported = m.reported_latency.snapshot();
        let mean = Reading::Gauge(reported.mean_ms());
        self.one(
            &table::REPORTED_LATENCY,
            Reading::Distribution(Box::new(reported)),
        );
        self.one(&table::AVERAGE_LATENCY, mean);
    }

    fn histories(&mut self, m: &Metrics) {
        let granted = [
            ("expired", &m.room_grants_expired),
            ("revoked", &m.room_grants_revoked),
        ];
        self.labelled(&table::ROOM_GRANTS_ENDED, granted);
        self.labelled(&table::ONCE, m.once.rows());
        self.one(&table::HISTORY_APPENDED, &m.history.appended);
        self.labelled(&table::HISTORY_RECOVERIES, m.history.recoveries.rows());
        self.one(&table::HISTORY_REPAIRED, &m.history.repaired);
        self.one(&table::HISTORY_MISSED, &m.history.missed);
    }

    fn presence(&mut self, m: &Metrics, status: &NodeStatus) {
        let users = Reading::Gauge(status.present_users as f64);
        self.one(&table::PRESENCE_MEMBERS, users);
        let frames = [
            ("list", &m.presence.lists),
            ("changes", &m.presence.changes),
            ("total", &m.presence.totals),
        ];
        self.labelled(&table::PRESENCE_FRAMES, frames);
    }

    fn between_nodes(&mut self, m: &Metrics, status: &NodeStatus) {
        let up = Reading::Gauge(f64::from(u8::from(status.broker_up)));
        self.one(&table::BROKER_UP, up);
        let revocations = Reading::Gauge(status.revocations as f64);
        self.one(&table::REVOCATIONS, revocations);
        self.one(&table::REDIS_PUBLISHES, &m.redis.publishes);
        self.one(&table::REDIS_PUBLISH_FAILURES, &m.redis.publish_failures);
        self.one(&table::REDIS_UNHEARD, &m.redis.unheard);
        self.one(&table::REDIS_FORWARDED, &m.redis.forwarded);
        self.one(&table::REDIS_ROUTE_LOOKUPS, &m.redis.route_lookups);
        self.one(&table::REDIS_ROUTES_PRUNED, &m.redis.routes_pruned);
        self.one(
            &table::REDIS_SUBSCRIBER_REBUILDS,
            &m.redis.subscriber_rebuilds,
        );
        self.one(&table::REDIS_MALFORMED, &m.redis.malformed);
        self.one(&table::REDIS_PROBE, &m.redis.probe);
    }

    fn live_plugins(&mut self, status: &NodeStatus) {
        let info = status.plugins.iter().map(|plugin| {
            let labels = [&plugin.name, &plugin.declared_version, &plugin.sha256];
            (labels.map(String::clone).to_vec(), Reading::Info)
        });
        self.family(&table::PLUGIN, info);
        let live = status.plugins.iter().map(|plugin| {
            let labels = [&plugin.name, &plugin.label];
            (labels.map(String::clone).to_vec(), Reading::Gauge(1.0))
        });
        self.family(&table::PLUGIN_LIVE, live);
    }

    fn plugins(&mut self, plugins: &Plugins, status: &NodeStatus) {
        self.each(plugins, &table::PLUGIN_CALLS, |m| (&m.calls).into());
        self.each(plugins, &table::PLUGIN_CALL_TIME, |m| (&m.call_time).into());
        self.each_by(plugins, &table::PLUGIN_FAILURES, |m| {
            FailureKind::ALL
                .into_iter()
                .map(|kind| (kind.as_str().to_owned(), m.failures(kind).get()))
                .collect()
        });
        self.each_by(
            plugins,
            &table::PLUGIN_REJECTIONS,
            PluginMetrics::rejections,
        );
        self.each_by(plugins, &table::PLUGIN_SWAPS, |m| {
            m.swaps()
                .map(|(outcome, count)| (outcome.to_owned(), count))
                .collect()
        });
        self.each_by(plugins, &table::PLUGIN_HANDOVERS, |m| {
            m.handovers()
                .map(|(outcome, count)| (outcome.to_owned(), count))
                .collect()
        });
        self.each(plugins, &table::PLUGIN_HANDOVER_TIME, |m| {
            (&m.handover_time).into()
        });
        let not_kept = status.plugins.iter().map(|plugin| {
            let reading = Reading::Gauge(f64::from(u8::from(plugin.not_kept)));
            (vec![plugin.name.clone()], reading)
        });
        self.family(&table::PLUGIN_NOT_KEPT, not_kept);
        self.each_by(plugins, &table::PLUGIN_SHADOW_COPIES, |m| {
            ShadowOutcome::ALL
                .into_iter()
                .map(|outcome| (outcome.as_str().to_owned(), m.shadow.of(outcome).get()))
                .collect()
        });
        self.each(plugins, &table::PLUGIN_INSTANCES, |m| (&m.instances).into());
        self.each(plugins, &table::PLUGIN_MEMORY, |m| (&m.memory_bytes).into());
        self.each(plugins, &table::PLUGIN_LOG_LINES_DROPPED, |m| {
            (&m.log_lines_dropped).into()
        });
        self.each(plugins, &table::PLUGIN_METRICS_REFUSED, |m| {
            (&m.guest_values_refused).into()
        });
    }

    /// Adds the plugins' own metrics, under one name for each kind, so that a plugin cannot collide with the host.
    fn guests(&mut self, plugins: &Plugins) {
        let (mut counts, mut observed) = (Vec::new(), Vec::new());
        for (plugin, metrics) in plugins {
            for (name, figure) in metrics.guest.all().iter() {
                let labels = vec![plugin.clone(), name.to_string()];
                match &**figure {
                    GuestMetric::Count(counter) => counts.push((labels, (&**counter).into())),
                    GuestMetric::Observed(values) => observed.push((labels, (&**values).into())),
                }
            }
        }
        self.family(&table::PLUGIN_COUNT, counts);
        self.family(&table::PLUGIN_OBSERVED, observed);
    }

    fn webhooks(&mut self, m: &Metrics) {
        let all = m.webhooks.all();
        self.each_webhook(&all, &table::WEBHOOK_EVENTS_SENT, |m| (&m.sent).into());
        self.each_webhook(&all, &table::WEBHOOK_ATTEMPTS_FAILED, |m| {
            (&m.attempts_failed).into()
        });
        let dropped = all.iter().flat_map(|(label, m)| {
            let reasons = m.dropped_by_reason().into_iter();
            reasons.map(|(reason, count)| (vec![label.clone(), reason], Reading::Count(count)))
        });
        self.family(&table::WEBHOOK_EVENTS_DROPPED, dropped);
        self.each_webhook(&all, &table::WEBHOOK_QUEUED, |m| (&m.queued).into());
        self.each_webhook(&all, &table::WEBHOOK_OLDEST, |m| (&m.oldest_ms).into());
    }

    /// Adds a value for each webhook.
    fn each_webhook(
        &mut self,
        webhooks: &[(String, Arc<WebhookMetrics>)],
        metric: &'static Metric,
        get: fn(&WebhookMetrics) -> Reading,
    ) {
        let rows = webhooks.iter();
        self.family(metric, rows.map(|(label, m)| (vec![label.clone()], get(m))));
    }

    /// Adds a metric without labels.
    fn one(&mut self, metric: &'static Metric, reading: impl Into<Reading>) {
        self.family(metric, [(Vec::new(), reading.into())]);
    }

    /// Adds a counter for each value of one label.
    fn labelled<'r>(
        &mut self,
        metric: &'static Metric,
        rows: impl IntoIterator<Item = (&'static str, &'r Counter)>,
    ) {
        let rows = rows.into_iter();
        self.family(
            metric,
            rows.map(|(value, counter)| (vec![value.to_owned()], counter.into())),
        );
    }

    /// Adds a value for each plugin.
    fn each(
        &mut self,
        plugins: &Plugins,
        metric: &'static Metric,
        get: fn(&PluginMetrics) -> Reading,
    ) {
        let rows = plugins.iter();
        self.family(metric, rows.map(|(name, m)| (vec![name.clone()], get(m))));
    }

    /// Adds counts for each plugin, by the values of a second label.
    fn each_by(
        &mut self,
        plugins: &Plugins,
        metric: &'static Metric,
        get: fn(&PluginMetrics) -> Vec<(String, u64)>,
    ) {
        let rows = plugins.iter().flat_map(|(name, m)| {
            get(m)
                .into_iter()
                .map(move |(value, count)| (vec![name.clone(), value], Reading::Count(count)))
        });
        self.family(metric, rows);
    }

    fn family(
        &mut self,
        metric: &'static Metric,
        rows: impl IntoIterator<Item = (Vec<String>, Reading)>,
    ) {
        let rows = rows.into_iter();
        self.families.push(Family {
            metric,
            rows: rows
                .map(|(labels, reading)| MetricRow { labels, reading })
                .collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::table::{ALL, MetricKind};

    #[test]
    fn every_metric_of_the_table_is_read_once_with_its_labels_and_in_its_order() {
        let metrics = Metrics::default();
        let plugin = metrics.plugins.of("chat");
        plugin.guest.count("hits", 1).unwrap();
        plugin.guest.observe("size", 1.0).unwrap();
        metrics.delivery_latency.record(Duration::from_millis(1));
        metrics.webhooks.of("hooks.example.com").sent.increment();
        let status = NodeStatus {
            broker_up: true,
            revocations: 3,
            event_streams: 1,
            present_users: 2,
            plugins: vec![LivePlugin {
                name: "chat".to_owned(),
                declared_version: String::new(),
                label: "0123456789ab".to_owned(),
                sha256: "0123456789abcdef".to_owned(),
                not_kept: true,
            }],
        };
        let read = read(&metrics, &status);
        let names = |metrics: &mut dyn Iterator<Item = &Metric>| {
            metrics.map(Metric::prometheus_name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&mut read.iter().map(|family| family.metric)),
            names(&mut ALL.iter())
        );
        for Family { metric, rows } in &read {
            let name = metric.prometheus_name();
            assert!(!rows.is_empty(), "{name}");
            for MetricRow { labels, reading } in rows {
                assert_eq!(labels.len(), metric.labels.len(), "{name}");
                let kind = match reading {
                    Reading::Count(_) => MetricKind::Counter,
                    Reading::Gauge(_) => MetricKind::Gauge,
                    Reading::Distribution(_) => MetricKind::Histogram,
                    Reading::Info => MetricKind::Info,
                };
                assert_eq!(kind, metric.kind, "{name}");
            }
        }
    }
}
