//! Metrics, counted without locks.
//!
//! [`Metrics`] holds every metric of the host. Recording takes one or two relaxed atomic operations on the recording
//! thread's shard: no lock, no allocation. Names, units and labels are defined once, in [`table`]. [`readings`] walks
//! over all metrics: [`prometheus`] renders them for a scrape, and the pusher to CloudWatch uses them too. Anything
//! that is both logged and counted is one of the [`events`], so that neither happens without the other.
//!
//! This module is a leaf.

mod accept;
mod by_label;
mod cells;
pub mod events;
mod histogram;
mod labels;
mod named;
mod plugin;
pub mod prometheus;
pub mod readings;
pub mod table;
mod webhooks;

use std::sync::{Arc, atomic::AtomicU64};

pub use by_label::{
    ByAdminOutcome, ByCloseCode, ByDropReason, ByErrorCode, ByEventType, ByHttpRefusal,
    ByOnceOutcome, ByPostResult, ByRecovery, BySpanDropReason, ByUpgradeRefusal,
};
pub use cells::{Counter, Gauge};
pub use histogram::{BUCKETS, Bucket, Histogram, HistogramSnapshot, bound_us};
pub use labels::{
    AdminOutcome, DropReason, HttpRefusalReason, OnceOutcome, PostResult, SpanDropReason,
    UpgradeRefusalReason,
};
pub use named::{Named, OTHER};
pub use plugin::{
    ByShadowOutcome, FailureKind, GuestMetricError, GuestMetrics, HandoverOutcome, PluginMetrics,
    PluginTable, ShadowOutcome, SwapOutcome, duration_of_ms,
};
pub use readings::{LivePlugin, NodeStatus};
pub use webhooks::{EventDropReason, WebhookMetrics, WebhookTable};

/// Everything that the host counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are open now.
    pub active_connections: Gauge,
    /// Connections since the start.
    pub connections: Counter,
    /// Messages that clients sent, whatever their outcome.
    pub messages: Counter,
    /// The messages that were read, by event type.
    pub messages_by_type: ByEventType,
    /// Messages put into the outbox of a connection, counted once for each connection.
    pub messages_delivered: Counter,
    /// Messages that were refused, by error code.
    pub messages_rejected: ByErrorCode,
    /// Messages that a plugin refused. The plugin's metrics have its codes.
    pub messages_rejected_by_plugins: Counter,
    /// Messages that were accepted but not written to a client, by reason.
    pub messages_dropped: ByDropReason,
    /// Connections that ended other than by a clean close or a decision of the server.
    pub unexpected_disconnects: Counter,
    /// Connections that the server closed, by the name of the close code.
    pub closes: ByCloseCode,
    /// Upgrades that were refused, by reason.
    pub upgrades_refused: ByUpgradeRefusal,
    /// Connections and requests that were refused before their request was read, by reason.
    pub http_refused: ByHttpRefusal,
    /// Frames that were posted to streams of server-sent events, by result.
    pub posts: ByPostResult,
    /// Time from a frame's arrival to the outbox of its receivers on this node.
    pub delivery_latency: Histogram,
    /// Round-trip times that clients report.
    pub reported_latency: Histogram,
    /// Reloads of the configuration that were refused.
    pub config_reloads_failed: Counter,
    /// Compilations of plugins that took too long.
    pub plugin_compiles_given_up: Counter,
    /// Panics of tasks and threads that run as long as the server.
    pub task_panics: Counter,
    /// Failed attempts to read or fetch the token keys again.
    pub auth_key_reloads_failed: Counter,
    /// Calls by operators, by result.
    pub admin_requests: ByAdminOutcome,
    /// Memberships of rooms that ended with the token that granted them, because it expired.
    pub room_grants_expired: Counter,
    /// The same, because the token was revoked.
    pub room_grants_revoked: Counter,
    /// Messages with `once` and calls with `Idempotency-Key`, by outcome.
    pub once: ByOnceOutcome,
    /// Metrics of histories.
    pub history: HistoryMetrics,
    /// Metrics of rooms with presence.
    pub presence: PresenceMetrics,
    /// Metrics of the traffic between nodes.
    pub redis: RedisMetrics,
    /// Metrics of pushing to CloudWatch.
    pub cloudwatch: CloudWatchMetrics,
    /// The plugins' metrics.
    pub plugins: PluginTable,
    /// The metrics of webhooks.
    pub webhooks: WebhookTable,
    /// Trace spans that a collector accepted.
    pub trace_spans_exported: Counter,
    /// Trace spans that no collector received, by reason.
    pub trace_spans_dropped: BySpanDropReason,
    /// Log lines that were not written; the log counts them.
    pub log_lines_dropped: Arc<AtomicU64>,
}

/// Metrics of the histories of rooms and users.
#[derive(Debug, Default)]
pub struct HistoryMetrics {
    /// Messages that this node appended.
    pub appended: Counter,
    /// Joins and upgrades that asked for old messages, by result.
    pub recoveries: ByRecovery,
    /// Deliveries of messages that were lost between nodes and read from the history.
    pub repaired: Counter,
    /// Times that the members of a room, or the connections of a user, on this node were told that they missed messages.
    pub missed: Counter,
}

/// Frames about who is in a room, one for each connection that gets it.
#[derive(Debug, Default)]
pub struct PresenceMetrics {
    /// Frames with all users.
    pub lists: Counter,
    /// Frames with the users who came and left.
    pub changes: Counter,
    /// Frames with only the number of users.
    pub totals: Counter,
}

/// Metrics of the traffic between this node and others through Redis.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    /// Messages that were published, whether or not that succeeded.
    pub publishes: Counter,
    /// Messages that Redis did not accept, or not in time.
    pub publish_failures: Counter,
    /// Messages for a server that was not listening.
    pub unheard: Counter,
    /// Messages that were forwarded to the server that their receiver moved to.
    pub forwarded: Counter,
    /// Route lookups that Redis was asked for; most are answered from memory.
    pub route_lookups: Counter,
    /// Servers without a lease that were removed from a route.
    pub routes_pruned: Counter,
    /// Subscriptions that broke and were replaced.
    pub subscriber_rebuilds: Counter,
    /// Texts published to this node that are not messages.
    pub malformed: Counter,
    /// Time from the publish of a probe to its return.
    pub probe: Histogram,
}

/// Metrics of pushing to CloudWatch.
#[derive(Debug, Default)]
pub struct CloudWatchMetrics {
    /// Requests that CloudWatch accepted.
    pub pushes_ok: Counter,
    /// Requests that it did not accept, or not in time.
    pub pushes_failed: Counter,
    /// Requests that it rejected as invalid, and that were discarded.
    pub pushes_refused: Counter,
    /// Intervals that were discarded without being pushed.
    pub intervals_dropped: Counter,
}
