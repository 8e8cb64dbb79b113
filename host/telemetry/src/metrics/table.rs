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
        "Configuration reloads that were refused because of an error");
    TASK_PANICS = metric(Counter, "task_panics", Count,
        "Panics of the server's background tasks, which are restarted; the log names the task. Any value over 0 is a bug in the server");
    PLUGIN_COMPILES_GIVEN_UP = metric(Counter, "plugin_compiles_given_up", Count,
        "Plugin compilations that were refused because they exceeded `compile_time_max`, or because earlier ones that exceeded it still run");
    AUTH_KEY_RELOADS_FAILED = metric(Counter, "auth_key_reloads_failed", Count,
        "Failed attempts to read the token keys from their file or to fetch them from `auth.jwks_url`; the last good keys stay in use");

    ACTIVE_CONNECTIONS = metric(Gauge, "active_connections", Count, "Open connections")
        .cloudwatch("ActiveConnections", SERVER_AND_FLEET);
    SSE_CONNECTIONS = metric(Gauge, "sse_connections", Count,
        "Open connections that use server-sent events instead of a WebSocket");
    CONNECTIONS = metric(Counter, "connections", Count, "Connections opened");
    UNEXPECTED_DISCONNECTS = metric(Counter, "unexpected_disconnects", Count,
        "Connections that ended unexpectedly: not by a clean close of the client (1000, 1001, no code, 3000–4999), not by a drain, and not because the server or a plugin closed them on purpose")
        .cloudwatch("UnexpectedDisconnects", SERVER_AND_FLEET);
    CLOSES = metric(Counter, "closes", Count,
        "Connections that the server closed, by the name of the close code; `plugin`: a code that a plugin chose")
        .labels(&["code"]);
    UPGRADES_REFUSED = metric(Counter, "upgrades_refused", Count,
        "Upgrades that were refused: `auth`, `revoked` (its token), `blocked` (its user), `origin`, `handshake`, `since` (a malformed position in the user's history), `user_limit`, `node_limit`, `address_limit`, `rate`, `draining`")
        .labels(&["reason"]);
    SSE_POSTS = metric(Counter, "sse_posts", Count,
        "Frames posted to `/sse/<connectionId>` on this node, by result: `taken`, the code of the error, or `lost` (the connection accepted the frame and ended before handling it)")
        .labels(&["result"]);
    HTTP_REFUSED = metric(Counter, "http_refused", Count,
        "Connections and requests refused before a request was read completely: `sockets` (over `limits.sockets_pending_max`), `descriptors`, `slow_header`, `unread` (the client does not read the answer), `malformed`, `host`, `proxy_header`")
        .labels(&["reason"]);
    ADMIN_REQUESTS = metric(Counter, "admin_requests", Count,
        "Calls of `/admin/`, by outcome: `ok`, `refused` (4xx), `failed` (5xx), `unauthorized`, `rate_limited`")
        .labels(&["outcome"]);

    MESSAGES = metric(Counter, "messages", Count,
        "Messages from clients to be delivered or handled by a plugin, regardless of the outcome. Not counted: built-in types, types that clients may not send, frames that are not messages, and messages over the rate limit")
        .cloudwatch("MessagesTotal", SERVER_AND_FLEET);
    MESSAGES_BY_TYPE = metric(Counter, "messages_by_type", Count,
        "Frames from clients, except those over the rate limit, by event type: built-in types, and types that plugins are configured for or handle by name; `other`: all other types, and frames that are not messages")
        .labels(&["type"]);
    MESSAGES_DELIVERED = metric(Counter, "messages_delivered", Count,
        "Messages queued for connections on this node, counted once for each connection")
        .cloudwatch("MessagesDelivered", SERVER_AND_FLEET);
    MESSAGES_REJECTED = metric(Counter, "messages_rejected", Count,
        "Messages that were refused, by the code of the error; `plugin`: a plugin refused the message with a code of its choice")
        .labels(&["code"])
        .cloudwatch("MessagesRejected", &[&[SERVER_ID], &[], &["Code"]]);
    MESSAGES_DROPPED = metric(Counter, "messages_dropped", Count,
        "Accepted messages that were not written to a client, by reason: `offline`, `moved`, `plugin`, `connection_gone`; or, for messages queued for a connection: its queue was full (`slow_consumer`), it was closing (`closing`), it was lost (`connection_lost`), it did not take them before it was closed (`close_timeout`), or a drain cut it off (`cut_off`)")
        .labels(&["reason"])
        .cloudwatch("MessagesDropped", &[&[SERVER_ID], &[], &["Reason"]]);
    DELIVERY_LATENCY = metric(Histogram, "delivery_latency_ms", Milliseconds,
        "Time from the arrival of a message until it is queued for its receivers on this node, including plugins and the publish to other nodes")
        .cloudwatch("DeliveryLatencyMs", SERVER_AND_FLEET);
    REPORTED_LATENCY = metric(Histogram, "reported_latency_ms", Milliseconds,
        "Round-trip times that clients reported by `latency_report`, each at most a minute")
        .cloudwatch("AverageLatencyMs", SERVER_AND_FLEET);
    AVERAGE_LATENCY = metric(Gauge, "average_latency_ms", Milliseconds,
        "Mean of the round-trip times that clients have reported since the start");

    ROOM_GRANTS_ENDED = metric(Counter, "room_grants_ended", Count,
        "Memberships of rooms with `join = \"token\"` that ended because their token `expired` or was `revoked`")
        .labels(&["reason"]);
    ONCE = metric(Counter, "once", Count,
        "Messages with `once` and calls with `Idempotency-Key`. Handled: the answer was stored (`kept`), could not be stored (`unkept`), or was a retryable error (`released`). `repeated`: a repetition got the stored answer. Refused: `in_progress`, `mismatch`, `full`, `unavailable`")
        .labels(&["outcome"]);
    HISTORY_APPENDED = metric(Counter, "history_appended", Count,
        "Messages that this node appended to the histories of rooms and users");
    HISTORY_RECOVERIES = metric(Counter, "history_recoveries", Count,
        "Joins and upgrades that asked for missed messages, by result: `recovered`, or the reason why none were sent: `epoch`, `expired`, `too_many`")
        .labels(&["result"]);
    HISTORY_REPAIRED = metric(Counter, "history_repaired", Count,
        "Messages that were lost between nodes, read from the history, and delivered");
    HISTORY_MISSED = metric(Counter, "history_missed", Count,
        "Notices to the members of a room, or the connections of a user, on this node that they missed messages");

    PRESENCE_MEMBERS = metric(Gauge, "presence_members", Count,
        "Users on this node in rooms with presence, counted once for each room");
    PRESENCE_FRAMES = metric(Counter, "presence_frames", Count,
        "`presence` frames to members on this node, by contents: `list` (all users), `changes` (users who came and left), or `total` (only the number, because there are too many users to list)")
        .labels(&["contents"]);

    BROKER_UP = metric(Gauge, "broker_up", Truth,
        "Whether messages between nodes arrive, as `/ready` reports it; always 1 with the memory broker")
        .cloudwatch("BrokerUp", SERVER_AND_FLEET);
    REVOCATIONS = metric(Gauge, "revocations", Count,
        "Revoked tokens and blocked users that this node knows, at most 100,000");
    REDIS_PUBLISHES = metric(Counter, "redis_publishes", Count,
        "Messages published to Redis, including failed ones");
    REDIS_PUBLISH_FAILURES = metric(Counter, "redis_publish_failures", Count,
        "Messages that Redis did not accept in time");
    REDIS_UNHEARD = metric(Counter, "redis_unheard", Count, "Messages for a server that is alive and does not listen");
    REDIS_FORWARDED = metric(Counter, "redis_forwarded", Count,
        "Messages forwarded to the server to which their receiver had moved");
    REDIS_ROUTE_LOOKUPS = metric(Counter, "redis_route_lookups", Count,
        "Route lookups in Redis; most messages need none");
    REDIS_ROUTES_PRUNED = metric(Counter, "redis_routes_pruned", Count,
        "Servers without a lease that were removed from a route");
    REDIS_SUBSCRIBER_REBUILDS = metric(Counter, "redis_subscriber_rebuilds", Count,
        "Subscriptions that broke and were replaced");
    REDIS_MALFORMED = metric(Counter, "redis_malformed", Count,
        "Malformed messages that were published to this node");
    REDIS_PROBE = metric(Histogram, "redis_probe_ms", Milliseconds,
        "Round-trip time of the message that the node sends to itself through Redis, once a second");

    PLUGIN = metric(Info, "plugin", Truth,
        "The live version: the version in the component's metadata, or nothing, and its sha256")
        .labels(&["plugin", "version", "sha256"]);
    PLUGIN_LIVE = metric(Gauge, "plugin_live", Truth,
        "The live version, by the first twelve digits of its sha256, as in logs")
        .labels(&["plugin", "version"]);
    PLUGIN_CALLS = metric(Counter, "plugin_calls", Count, "Calls of a plugin, including failed ones")
        .labels(&["plugin"]);
    PLUGIN_CALL_TIME = metric(Histogram, "plugin_call_ms", Milliseconds,
        "Time of a call, including the wait for an instance")
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
        "Versions of a plugin that went live (`live`), were refused (`refused`), or failed on probation and were rolled back (`rolled_back`)")
        .labels(&["plugin", "outcome"])
        .cloudwatch("PluginSwaps", &[&[SERVER_ID], &[], &["Outcome"], &["Plugin", "Outcome"]]);
    PLUGIN_HANDOVERS = metric(Counter, "plugin_handovers", Count,
        "New versions of a `single` plugin that went live with the state of the previous version (`handed_over`), went live without it (`begun_anew`), or did not go live because they did not get it (`given_up`)")
        .labels(&["plugin", "outcome"]);
    PLUGIN_HANDOVER_TIME = metric(Histogram, "plugin_handover_ms", Milliseconds,
        "Time that messages were held for a handover, for each attempt, including those that were given up")
        .labels(&["plugin"]);
    PLUGIN_NOT_KEPT = metric(Gauge, "plugin_not_kept", Truth,
        "Whether a restart would load another version, because the live one could not be written to `plugin_versions.dir`; always 0 if that is empty")
        .labels(&["plugin"]);
    PLUGIN_SHADOW_COPIES = metric(Counter, "plugin_shadow_copies", Count,
        "Calls for a shadow version, by outcome: its answer and that of the live version were the `same` or `different`, or the call was not copied because too many copies (`queue_full`) or too many bytes (`queue_bytes`) waited")
        .labels(&["plugin", "outcome"]);
    PLUGIN_INSTANCES = metric(Gauge, "plugin_instances", Count,
        "Instances of all versions, including versions that are on trial or drain")
        .labels(&["plugin"]);
    PLUGIN_MEMORY = metric(Gauge, "plugin_memory_bytes", Bytes, "Linear memory of all instances")
        .labels(&["plugin"]);
    PLUGIN_LOG_LINES_DROPPED = metric(Counter, "plugin_log_lines_dropped", Count,
        "Log lines of a plugin over its limit")
        .labels(&["plugin"]);
    PLUGIN_METRICS_REFUSED = metric(Counter, "plugin_metrics_refused", Count,
        "Values that a plugin counted or observed under an invalid name, a name of the other kind, or more than 100 names")
        .labels(&["plugin"]);
    PLUGIN_COUNT = metric(Counter, "plugin_count", Count, "A plugin's own counter, by name")
        .labels(&["plugin", "name"])
        .cloudwatch("PluginCount", &[&["Plugin", "Name"]]);
    PLUGIN_OBSERVED = metric(Histogram, "plugin_observed", PluginsOwn,
        "A plugin's own distribution, by name")
        .labels(&["plugin", "name"])
        .cloudwatch("PluginObserved", &[&["Plugin", "Name"]]);

    WEBHOOK_EVENTS_SENT = metric(Counter, "webhook_events_sent", Count,
        "Events that this node sent and the webhook accepted, by the host of the webhook")
        .labels(&["webhook"]);
    WEBHOOK_ATTEMPTS_FAILED = metric(Counter, "webhook_attempts_failed", Count,
        "Requests that the webhook did not accept in time; their events are sent again")
        .labels(&["webhook"]);
    WEBHOOK_EVENTS_DROPPED = metric(Counter, "webhook_events_dropped", Count,
        "Events that were not sent, by reason: the queue was full (`queue_full`), Redis did not accept them for too long (`queue_unavailable`), the webhook was removed (`removed`), or the process ended (`shutdown`)")
        .labels(&["webhook", "reason"]);
    WEBHOOK_QUEUED = metric(Gauge, "webhook_queued", Count,
        "Events that wait to be sent, as last seen by this node; with Redis all nodes share the queue, so use the maximum")
        .labels(&["webhook"]);
    WEBHOOK_OLDEST = metric(Gauge, "webhook_oldest_ms", Milliseconds,
        "Age of the oldest event that waits, as last seen by this node")
        .labels(&["webhook"]);

    CLOUDWATCH_PUSHES = metric(Counter, "cloudwatch_pushes", Count,
        "Requests to CloudWatch: `ok`, `failed` (will be sent again), or `refused` (invalid, discarded)")
        .labels(&["outcome"]);
    CLOUDWATCH_INTERVALS_DROPPED = metric(Counter, "cloudwatch_intervals_dropped", Count,
        "Intervals that were discarded because they could not be pushed for an hour");

    TRACE_SPANS_EXPORTED = metric(Counter, "trace_spans_exported", Count, "Spans that a collector accepted");
    TRACE_SPANS_DROPPED = metric(Counter, "trace_spans_dropped", Count,
        "Spans that no collector got, by reason: too many waited (`queue_full`), or the collector did not accept them (`export`)")
        .labels(&["reason"]);

    LOG_LINES_DROPPED = metric(Counter, "log_lines_dropped", Count,
        "Log lines that were not written, because the reader of standard error stalled or the disk is full");
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
