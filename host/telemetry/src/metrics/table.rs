//! The table of all metrics: the only place that defines their names, units, labels and dimensions.
//!
//! `/metrics`, the pushes to CloudWatch, and `docs/metrics.md` are derived from it.

/// The prefix of every name in Prometheus.
pub const PREFIX: &str = "wss";

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in Prometheus, without [`PREFIX`] and without the suffix of its kind.
    pub(super) name: &'static str,
    /// Its kind, which sets its type and the suffix of its name in Prometheus.
    pub kind: MetricKind,
    /// The labels in Prometheus, without those of a histogram's buckets.
    pub labels: &'static [&'static str],
    /// Its name and dimensions in CloudWatch; `None` if it is not pushed.
    pub cloudwatch: Option<CloudWatch>,
    /// The unit of its values.
    pub unit: Unit,
    /// Its meaning, in one sentence without a period.
    pub meaning: &'static str,
}

/// Kinds of metrics in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from the start of the process; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution: `_bucket`, `_count` and `_sum`.
    Histogram,
    /// Always 1; the information is in its labels. Its name ends in `_info`.
    Info,
}

/// A metric in CloudWatch.
#[derive(Clone, Copy, Debug)]
pub struct CloudWatch {
    /// The name.
    pub name: &'static str,
    /// The sets of dimensions under which each value is pushed; an empty set means without dimensions.
    pub dimensions: &'static [&'static [&'static str]],
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Milliseconds, with fractions.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// 1 for yes, 0 for no.
    Truth,
    /// A unit that the plugin defines.
    PluginsOwn,
}

impl Metric {
    /// The name in Prometheus without prefix and suffix. It is unique.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The name in Prometheus, as in a query; that of a histogram without `_bucket`, `_count` and `_sum`.
    pub fn prometheus_name(&self) -> String {
        let suffix = match self.kind {
            MetricKind::Counter => "_total",
            MetricKind::Gauge | MetricKind::Histogram => "",
            MetricKind::Info => "_info",
        };
        format!("{PREFIX}_{}{suffix}", self.name)
    }

    const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    const fn cloudwatch(
        mut self,
        name: &'static str,
        dimensions: &'static [&'static [&'static str]],
    ) -> Self {
        self.cloudwatch = Some(CloudWatch { name, dimensions });
        self
    }
}

const fn metric(kind: MetricKind, name: &'static str, unit: Unit, meaning: &'static str) -> Metric {
    Metric {
        name,
        kind,
        labels: &[],
        cloudwatch: None,
        unit,
        meaning,
    }
}

/// The dimension that tells servers apart: `server.node_id`.
pub const SERVER_ID: &str = "ServerID";

/// For each server, and again without the dimension, for all servers together.
const SERVER_AND_FLEET: &[&[&str]] = &[&[SERVER_ID], &[]];

use MetricKind::{Counter, Gauge, Histogram, Info};
use Unit::{Bytes, Count, Milliseconds, PluginsOwn, Truth};

macro_rules! table {
    ($($constant:ident = $metric:expr;)*) => {
        $(
            #[doc = concat!("See [`ALL`]: `", stringify!($constant), "`.")]
            pub const $constant: Metric = $metric;
        )*

        /// Every metric, in the order of the reference.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

#[rustfmt::skip]
table! {
    BUILD = metric(Info, "build", Truth, "The version of the server")
        .labels(&["version"]);
    CONFIG_RELOADS_FAILED = metric(Counter, "config_reloads_failed", Count,
        "Reloads of the configuration that were refused");
    TASK_PANICS = metric(Counter, "task_panics", Count,
        "Panics of the server's own tasks, each of which was started again; the log names the task. Anything but 0 is a bug in the server");
    PLUGIN_COMPILES_GIVEN_UP = metric(Counter, "plugin_compiles_given_up", Count,
        "Compilations of plugins that were refused because they take too long (`compile_time_max`), or because others that do are still going on");
    AUTH_KEY_RELOADS_FAILED = metric(Counter, "auth_key_reloads_failed", Count,
        "Times that the keys of tokens could not be read from their file or fetched from `auth.jwks_url`; the last good ones stay in use");

    ACTIVE_CONNECTIONS = metric(Gauge, "active_connections", Count, "Connections that are open now")
        .cloudwatch("ActiveConnections", SERVER_AND_FLEET);
    SSE_CONNECTIONS = metric(Gauge, "sse_connections", Count,
        "Those of them that get server-sent events, and not frames of a WebSocket");
    CONNECTIONS = metric(Counter, "connections", Count, "Connections that were opened");
    UNEXPECTED_DISCONNECTS = metric(Counter, "unexpected_disconnects", Count,
        "Connections that ended other than by a clean close of the client (1000, 1001, no code, 3000–4999), a drain, or a decision about the client")
        .cloudwatch("UnexpectedDisconnects", SERVER_AND_FLEET);
    CLOSES = metric(Counter, "closes", Count,
        "Connections that the server closed, by the name of the close code; `plugin`: a code of a plugin's own")
        .labels(&["code"]);
    UPGRADES_REFUSED = metric(Counter, "upgrades_refused", Count,
        "Upgrades that were refused: `auth`, `revoked` (its token), `blocked` (its user), `origin`, `handshake`, `since` (a malformed place in the history of the user), `user_limit`, `node_limit`, `address_limit`, `rate`, `draining`")
        .labels(&["reason"]);
    SSE_POSTS = metric(Counter, "sse_posts", Count,
        "Frames that were posted to `/sse/<connectionId>` of this node, by result: `taken`, or the code of the error; `lost`: the connection had taken it, and ended before it was handled")
        .labels(&["result"]);
    HTTP_REFUSED = metric(Counter, "http_refused", Count,
        "Connections and requests refused before anybody knew what they wanted: `sockets` (over `limits.sockets_pending_max`), `descriptors`, `slow_header`, `unread` (the client takes in nothing of its answer), `malformed`, `host`, `proxy_header`")
        .labels(&["reason"]);
    ADMIN_REQUESTS = metric(Counter, "admin_requests", Count,
        "Calls of operators, by what came of them: `ok`, `refused` (4xx), `failed` (5xx), `unauthorized`, `rate_limited`")
        .labels(&["outcome"]);

    MESSAGES = metric(Counter, "messages", Count,
        "Messages that clients sent to be delivered or handled by a plugin, whatever became of them; built-in types, types that clients may not send, frames that are not messages, and what is over the rate limit are not counted")
        .cloudwatch("MessagesTotal", SERVER_AND_FLEET);
    MESSAGES_BY_TYPE = metric(Counter, "messages_by_type", Count,
        "Frames of clients that were read (not those over the rate limit), by event type: built-in types and those that plugins are configured for or handle by name; `other`: any other, and frames that are not messages")
        .labels(&["type"]);
    MESSAGES_DELIVERED = metric(Counter, "messages_delivered", Count,
        "Messages put out to connections of this node, one for each connection")
        .cloudwatch("MessagesDelivered", SERVER_AND_FLEET);
    MESSAGES_REJECTED = metric(Counter, "messages_rejected", Count,
        "Messages that were refused, by the code of the error; `plugin`: a plugin refused it, with a code of its own")
        .labels(&["code"])
        .cloudwatch("MessagesRejected", &[&[SERVER_ID], &[], &["Code"]]);
    MESSAGES_DROPPED = metric(Counter, "messages_dropped", Count,
        "Accepted messages that were not written to a client, by the reason: `offline`, `moved`, `plugin`, `connection_gone`; put out to a connection, and it was full (`slow_consumer`), closing already (`closing`), lost (`connection_lost`), closed without taking them in time (`close_timeout`), or cut off by a drain (`cut_off`)")
        .labels(&["reason"])
        .cloudwatch("MessagesDropped", &[&[SERVER_ID], &[], &["Reason"]]);
    DELIVERY_LATENCY = metric(Histogram, "delivery_latency_ms", Milliseconds,
        "From the arrival of a message to the outboxes of its receivers on this node, plugins and the publish to other nodes included")
        .cloudwatch("DeliveryLatencyMs", SERVER_AND_FLEET);
    REPORTED_LATENCY = metric(Histogram, "reported_latency_ms", Milliseconds,
        "Round-trip times that clients reported by `latency_report`, each at most a minute")
        .cloudwatch("AverageLatencyMs", SERVER_AND_FLEET);
    AVERAGE_LATENCY = metric(Gauge, "average_latency_ms", Milliseconds,
        "Mean of the round-trip times that clients reported, since the start");

    ROOM_GRANTS_ENDED = metric(Counter, "room_grants_ended", Count,
        "Memberships of rooms with `join = \"token\"` that ended with their token: it `expired`, or was `revoked`")
        .labels(&["reason"]);
    ONCE = metric(Counter, "once", Count,
        "Messages with `once` and calls with `Idempotency-Key`: handled, and the answer is `kept`, could not be kept (`unkept`), or was an error after which the sender may try again (`released`); or a repetition that got the answer that was kept (`repeated`); or refused: `in_progress`, `mismatch`, `full`, `unavailable`")
        .labels(&["outcome"]);
    HISTORY_APPENDED = metric(Counter, "history_appended", Count,
        "Messages that this node appended to the histories of rooms and users");
    HISTORY_RECOVERIES = metric(Counter, "history_recoveries", Count,
        "Joins and upgrades that asked for messages they missed, by result: `recovered`, or the reason why none were sent: `epoch`, `expired`, `too_many`")
        .labels(&["result"]);
    HISTORY_REPAIRED = metric(Counter, "history_repaired", Count,
        "Deliveries of messages that were lost between nodes and read from the history of their room or user");
    HISTORY_MISSED = metric(Counter, "history_missed", Count,
        "Times that the members of a room, or the connections of a user, on this node were told that they missed messages");

    PRESENCE_MEMBERS = metric(Gauge, "presence_members", Count,
        "Users of this node in rooms with presence, each user once for each room");
    PRESENCE_FRAMES = metric(Counter, "presence_frames", Count,
        "`presence` frames for members of this node, by their contents: `list` (all users), `changes` (who came and left), or `total` (only the number, because the users are too many to list)")
        .labels(&["contents"]);

    BROKER_UP = metric(Gauge, "broker_up", Truth,
        "Whether messages between nodes arrive, by the probe that `/ready` asks; always 1 where there are none")
        .cloudwatch("BrokerUp", SERVER_AND_FLEET);
    REVOCATIONS = metric(Gauge, "revocations", Count,
        "Revoked tokens and blocked users that this node knows; no more can be made beyond 100,000");
    REDIS_PUBLISHES = metric(Counter, "redis_publishes", Count,
        "Messages that were published to Redis, those that failed among them");
    REDIS_PUBLISH_FAILURES = metric(Counter, "redis_publish_failures", Count,
        "Messages that Redis did not take, or not in time");
    REDIS_UNHEARD = metric(Counter, "redis_unheard", Count, "Messages for a server that did not listen");
    REDIS_FORWARDED = metric(Counter, "redis_forwarded", Count,
        "Messages that were forwarded to the server to which their receiver had moved");
    REDIS_ROUTE_LOOKUPS = metric(Counter, "redis_route_lookups", Count,
        "Questions for a route that Redis was asked; most are answered from memory");
    REDIS_ROUTES_PRUNED = metric(Counter, "redis_routes_pruned", Count,
        "Servers without a lease that were taken out of a route");
    REDIS_SUBSCRIBER_REBUILDS = metric(Counter, "redis_subscriber_rebuilds", Count,
        "Subscriptions that broke and were made anew");
    REDIS_MALFORMED = metric(Counter, "redis_malformed", Count,
        "Texts published to this node that are no messages");
    REDIS_PROBE = metric(Histogram, "redis_probe_ms", Milliseconds,
        "From the publish of a probe to its return, once a second");

    PLUGIN = metric(Info, "plugin", Truth,
        "The version that is live: what the component says of itself, empty where it says nothing, and its sha256")
        .labels(&["plugin", "version", "sha256"]);
    PLUGIN_LIVE = metric(Gauge, "plugin_live", Truth,
        "The version that is live, by the first twelve digits of its sha256, as logs name it")
        .labels(&["plugin", "version"]);
    PLUGIN_CALLS = metric(Counter, "plugin_calls", Count, "Calls of a plugin, however they ended")
        .labels(&["plugin"]);
    PLUGIN_CALL_TIME = metric(Histogram, "plugin_call_ms", Milliseconds,
        "Time of a call, with the wait for an instance")
        .labels(&["plugin"])
        .cloudwatch("PluginCallMs", &[&[SERVER_ID, "Plugin"], &["Plugin"]]);
    PLUGIN_FAILURES = metric(Counter, "plugin_failures", Count,
        "Calls that failed: `trap`, `deadline`, `memory`, `output`, `unavailable`")
        .labels(&["plugin", "kind"])
        .cloudwatch("PluginFailures", &[&[SERVER_ID], &[], &["Plugin"], &["Plugin", "Kind"]]);
    PLUGIN_REJECTIONS = metric(Counter, "plugin_rejections", Count,
        "Messages, connections and joins that a plugin refused, by its code; `other`: codes beyond the first 20")
        .labels(&["plugin", "code"]);
    PLUGIN_SWAPS = metric(Counter, "plugin_swaps", Count,
        "Versions of a plugin that went live (`live`), were refused (`refused`), or failed on probation, so that the one before came back (`rolled_back`)")
        .labels(&["plugin", "outcome"])
        .cloudwatch("PluginSwaps", &[&[SERVER_ID], &[], &["Outcome"], &["Plugin", "Outcome"]]);
    PLUGIN_HANDOVERS = metric(Counter, "plugin_handovers", Count,
        "New versions of a `single` plugin that went live with the memory of the one before (`handed_over`) or without it (`begun_anew`), or did not go live because they did not get it (`given_up`)")
        .labels(&["plugin", "outcome"]);
    PLUGIN_HANDOVER_TIME = metric(Histogram, "plugin_handover_ms", Milliseconds,
        "How long messages were held for a handover, each attempt by itself, those that were given up among them")
        .labels(&["plugin"]);
    PLUGIN_NOT_KEPT = metric(Gauge, "plugin_not_kept", Truth,
        "Whether what is live would not be live after a restart, because `plugin_versions.dir` does not take it; 0 too where that is empty")
        .labels(&["plugin"]);
    PLUGIN_SHADOW_COPIES = metric(Counter, "plugin_shadow_copies", Count,
        "Calls that were copied for a version that runs beside the live one, by whether both answered the `same` or something `different`; not copied because too many waited (`queue_full`) or too much of them (`queue_bytes`)")
        .labels(&["plugin", "outcome"]);
    PLUGIN_INSTANCES = metric(Gauge, "plugin_instances", Count,
        "Instances that exist, over all versions: one that is tried out or still drains counts too")
        .labels(&["plugin"]);
    PLUGIN_MEMORY = metric(Gauge, "plugin_memory_bytes", Bytes, "Linear memory of those instances")
        .labels(&["plugin"]);
    PLUGIN_LOG_LINES_DROPPED = metric(Counter, "plugin_log_lines_dropped", Count,
        "Log lines of a plugin that were over its limit")
        .labels(&["plugin"]);
    PLUGIN_METRICS_REFUSED = metric(Counter, "plugin_metrics_refused", Count,
        "Values that a plugin counted or observed under a name that is misspelled, of the other kind, or the 101st")
        .labels(&["plugin"]);
    PLUGIN_COUNT = metric(Counter, "plugin_count", Count, "What a plugin counts, by its own name for it")
        .labels(&["plugin", "name"])
        .cloudwatch("PluginCount", &[&["Plugin", "Name"]]);
    PLUGIN_OBSERVED = metric(Histogram, "plugin_observed", PluginsOwn,
        "What a plugin observes, by its own name for it")
        .labels(&["plugin", "name"])
        .cloudwatch("PluginObserved", &[&["Plugin", "Name"]]);

    WEBHOOK_EVENTS_SENT = metric(Counter, "webhook_events_sent", Count,
        "Events that this node sent to a webhook, whose receiver accepted them; by the webhook's host")
        .labels(&["webhook"]);
    WEBHOOK_ATTEMPTS_FAILED = metric(Counter, "webhook_attempts_failed", Count,
        "Requests to a webhook that its receiver did not accept, or not in time; their events are sent again")
        .labels(&["webhook"]);
    WEBHOOK_EVENTS_DROPPED = metric(Counter, "webhook_events_dropped", Count,
        "Events that no webhook got: its queue was full (`queue_full`), Redis did not take them for too long (`queue_unavailable`), the webhook was removed (`removed`), or the process ended (`shutdown`)")
        .labels(&["webhook", "reason"]);
    WEBHOOK_QUEUED = metric(Gauge, "webhook_queued", Count,
        "Events that wait for a webhook, as this node last saw it; with Redis all nodes share the queue, so take the maximum")
        .labels(&["webhook"]);
    WEBHOOK_OLDEST = metric(Gauge, "webhook_oldest_ms", Milliseconds,
        "How long the oldest of them has waited, as this node last saw it")
        .labels(&["webhook"]);

    CLOUDWATCH_PUSHES = metric(Counter, "cloudwatch_pushes", Count,
        "Requests to CloudWatch: `ok`, `failed` and to be sent once more, or `refused` as wrong and thrown away")
        .labels(&["outcome"]);
    CLOUDWATCH_INTERVALS_DROPPED = metric(Counter, "cloudwatch_intervals_dropped", Count,
        "Intervals that were thrown away because they could not be pushed for an hour");

    TRACE_SPANS_EXPORTED = metric(Counter, "trace_spans_exported", Count, "Spans of traces that a collector took");
    TRACE_SPANS_DROPPED = metric(Counter, "trace_spans_dropped", Count,
        "Spans of traces that no collector got: too many waited (`queue_full`), or it did not take them (`export`)")
        .labels(&["reason"]);

    LOG_LINES_DROPPED = metric(Counter, "log_lines_dropped", Count,
        "Lines of the log that were not written: the reader of standard error did not read, or the disk is full");
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::Path};

    use super::*;

    impl Unit {
        fn in_words(self) -> &'static str {
            match self {
                Self::Count => "count",
                Self::Milliseconds => "milliseconds",
                Self::Bytes => "bytes",
                Self::Truth => "0 or 1",
                Self::PluginsOwn => "the plugin's own",
            }
        }
    }

    impl MetricKind {
        fn in_words(self) -> &'static str {
            match self {
                Self::Counter => "counter",
                Self::Gauge => "gauge",
                Self::Histogram => "histogram",
                Self::Info => "info",
            }
        }
    }

    fn dimensions(cloudwatch: CloudWatch) -> String {
        let sets = cloudwatch.dimensions.iter().map(|set| match set {
            [] => "none".to_owned(),
            names => names
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(" and "),
        });
        sets.collect::<Vec<_>>().join("; ")
    }

    fn reference_table() -> String {
        let mut table = String::from(
            "| Prometheus | kind | CloudWatch | dimensions | unit | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for metric in ALL {
            let labels = match metric.labels {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            let (name, sets) = metric.cloudwatch.map_or_else(
                || ("–".to_owned(), "–".to_owned()),
                |pushed| (format!("`{}`", pushed.name), dimensions(pushed)),
            );
            table += &format!(
                "| `{}{labels}` | {} | {name} | {sets} | {} | {} |\n",
                metric.prometheus_name(),
                metric.kind.in_words(),
                metric.unit.in_words(),
                metric.meaning
            );
        }
        table
    }

    #[test]
    fn the_reference_holds_the_table_of_metrics() {
        const BEGIN: &str =
            "<!-- metrics: written by the tests of the metrics with UPDATE_SNAPSHOTS=1 -->\n";
        const END: &str = "<!-- end of metrics -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let text = fs::read_to_string(&path).expect("the reference of the metrics");
        let (before, rest) = text
            .split_once(BEGIN)
            .expect("the mark where the table begins");
        let (_, after) = rest.split_once(END).expect("the mark where the table ends");
        let expected = format!("{before}{BEGIN}{}{END}{after}", reference_table());
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&path, &expected).expect("the reference is written");
            return;
        }
        assert_eq!(
            text, expected,
            "docs/metrics.md: run again with UPDATE_SNAPSHOTS=1 if this is right"
        );
    }

    #[test]
    fn every_metric_is_named_once_and_as_the_systems_want_it() {
        let mut names = HashSet::new();
        let mut pushed = HashSet::new();
        for metric in ALL {
            let name = metric.prometheus_name();
            let spelled_well = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(spelled_well), "{name}");
            assert!(names.insert(name), "{} is named twice", metric.name);
            if let Some(CloudWatch { name, dimensions }) = metric.cloudwatch {
                assert!(pushed.insert(name), "{name} is named twice");
                let sets: HashSet<_> = dimensions.iter().collect();
                assert_eq!(sets.len(), dimensions.len(), "{name}");
                // CloudWatch itself allows 30.
                assert!(dimensions.iter().all(|set| set.len() <= 3), "{name}");
            }
        }
    }
}
