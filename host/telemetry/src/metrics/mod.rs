//! Metrics, counted without locks.
//!
//! [`Metrics`] holds every metric of the host. Recording takes one or two relaxed atomic operations on the recording
//! thread's shard: no lock, no allocation. Names, units and labels are defined once, in [`table`]. [`readings`] walks
//! over all metrics: [`prometheus`] renders them for a scrape, and the pusher to CloudWatch uses them too. Anything
//! that is both logged and counted is one of the [`events`], so that neither happens without the other.
//!
//! This module is a leaf.

mod accept;
mod cells;
pub mod events;
mod histogram;
mod named;
mod plugin;
pub mod prometheus;
pub mod readings;
pub mod table;

use std::sync::{Arc, atomic::AtomicU64};

pub use cells::{Counter, Gauge};
pub use histogram::{BUCKETS, Bucket, Histogram, HistogramSnapshot, bound_us};
pub use named::{Named, OTHER};
pub use plugin::{
    ByShadowOutcome, FailureKind, GuestMetricError, GuestMetrics, HandoverOutcome, PluginMetrics,
    PluginTable, ShadowOutcome, SwapOutcome, duration_of_ms,
};
pub use readings::{LivePlugin, NodeStatus};
use signalbox_protocol::{CloseCode, ErrorCode};

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
    /// Metrics of the traffic between nodes.
    pub redis: RedisMetrics,
    /// Metrics of pushing to CloudWatch.
    pub cloudwatch: CloudWatchMetrics,
    /// The plugins' metrics.
    pub plugins: PluginTable,
    /// Trace spans that a collector accepted.
    pub trace_spans_exported: Counter,
    /// Trace spans that no collector received, by reason.
    pub trace_spans_dropped: BySpanDropReason,
    /// Log lines that were not written; the log counts them.
    pub log_lines_dropped: Arc<AtomicU64>,
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

/// Why an accepted message was not written to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver's outbox was full, so its connection is closed.
    SlowConsumer,
    /// The receiver's connection was closing.
    Closing,
    /// No node holds the receiver.
    Offline,
    /// The receiver left while the message was in transit, and did not come back on any node in time.
    Moved,
    /// A transformation dropped it.
    Plugin,
    /// An action of a plugin had no effect, because the connection was gone.
    ConnectionGone,
    /// It was queued for a connection that was lost.
    ConnectionLost,
    /// It was queued for a connection that was closed, and the client did not take it in time.
    CloseTimeout,
    /// It was still queued for a connection when the drain time was over.
    CutOff,
}

impl DropReason {
    const ALL: [Self; 9] = [
        Self::SlowConsumer,
        Self::Closing,
        Self::Offline,
        Self::Moved,
        Self::Plugin,
        Self::ConnectionGone,
        Self::ConnectionLost,
        Self::CloseTimeout,
        Self::CutOff,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow_consumer",
            Self::Closing => "closing",
            Self::Offline => "offline",
            Self::Moved => "moved",
            Self::Plugin => "plugin",
            Self::ConnectionGone => "connection_gone",
            Self::ConnectionLost => "connection_lost",
            Self::CloseTimeout => "close_timeout",
            Self::CutOff => "cut_off",
        }
    }
}

/// Why a span of a trace was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDropReason {
    /// Too many spans were queued.
    QueueFull,
    /// The collector did not accept it.
    Export,
}

impl SpanDropReason {
    const ALL: [Self; 2] = [Self::QueueFull, Self::Export];

    const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Export => "export",
        }
    }
}

/// Why an upgrade was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRefusalReason {
    /// 400, 401 or 503: the client could not be authenticated.
    Auth,
    /// 403: the page's origin may not connect.
    Origin,
    /// 400, 405 or 426: the request is not an upgrade to a WebSocket.
    Handshake,
    /// 429: the user has too many connections.
    UserLimit,
    /// 503: the node has too many connections.
    NodeLimit,
    /// 429: the address has too many connections.
    AddressLimit,
    /// 429: the node accepts no more connections this second.
    Rate,
    /// 503: the node is shutting down.
    Draining,
}

impl UpgradeRefusalReason {
    const ALL: [Self; 8] = [
        Self::Auth,
        Self::Origin,
        Self::Handshake,
        Self::UserLimit,
        Self::NodeLimit,
        Self::AddressLimit,
        Self::Rate,
        Self::Draining,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::UserLimit => "user_limit",
            Self::NodeLimit => "node_limit",
            Self::AddressLimit => "address_limit",
            Self::Rate => "rate",
            Self::Draining => "draining",
        }
    }
}

/// The reason why a connection or a request was refused before its request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRefusalReason {
    /// There are `limits.sockets_pending_max` sockets already: the one that was silent longest was closed, or the new
    /// one.
    Sockets,
    /// There is no file descriptor left.
    Descriptors,
    /// The headers took longer than `limits.http_header_time_max`.
    SlowHeader,
    /// The client read nothing of its response for `limits.http_write_timeout`.
    Unread,
    /// It is not HTTP/1.1, or its headers are too large.
    Malformed,
    /// It names no host, or one that this server does not serve.
    Host,
    /// A proxy sent no header of the PROXY protocol, or a malformed one.
    ProxyHeader,
}

impl HttpRefusalReason {
    const ALL: [Self; 7] = [
        Self::Sockets,
        Self::Descriptors,
        Self::SlowHeader,
        Self::Unread,
        Self::Malformed,
        Self::Host,
        Self::ProxyHeader,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Descriptors => "descriptors",
            Self::SlowHeader => "slow_header",
            Self::Unread => "unread",
            Self::Malformed => "malformed",
            Self::Host => "host",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// A counter for each [`HttpRefusalReason`].
#[derive(Debug, Default)]
pub struct ByHttpRefusal([Counter; HttpRefusalReason::ALL.len()]);

impl ByHttpRefusal {
    /// The counter of `refusal`.
    pub fn of(&self, refusal: HttpRefusalReason) -> &Counter {
        &self.0[refusal as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        HttpRefusalReason::ALL
            .into_iter()
            .map(|refusal| (refusal.as_str(), self.of(refusal)))
    }
}

/// The result of an operator's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminOutcome {
    /// It was answered.
    Ok,
    /// 4xx: the call was wrong, or was refused.
    Refused,
    /// 5xx: the node could not do it.
    Failed,
    /// 401: the key was missing or wrong.
    Unauthorized,
    /// 429: there were too many calls.
    RateLimited,
}

impl AdminOutcome {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Refused,
        Self::Failed,
        Self::Unauthorized,
        Self::RateLimited,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// A counter for each [`AdminOutcome`].
#[derive(Debug, Default)]
pub struct ByAdminOutcome([Counter; AdminOutcome::ALL.len()]);

impl ByAdminOutcome {
    /// The counter of `outcome`.
    pub fn of(&self, outcome: AdminOutcome) -> &Counter {
        &self.0[outcome as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        AdminOutcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str(), self.of(outcome)))
    }
}

/// Maximum number of event types that are counted separately, including the built-in ones.
const EVENT_TYPES_MAX: usize = 100;

/// A counter for each event type that the server knows by name, and one for all others, because clients can make up any
/// type.
#[derive(Debug)]
pub struct ByEventType {
    known: Named<Counter, EVENT_TYPES_MAX>,
    other: Counter,
}

/// A counter for each [`ErrorCode`].
#[derive(Debug, Default)]
pub struct ByErrorCode([Counter; ErrorCode::ALL.len()]);

/// A counter for each [`DropReason`].
#[derive(Debug, Default)]
pub struct ByDropReason([Counter; DropReason::ALL.len()]);

/// A counter for each [`SpanDropReason`].
#[derive(Debug, Default)]
pub struct BySpanDropReason([Counter; SpanDropReason::ALL.len()]);

/// A counter for each [`UpgradeRefusalReason`].
#[derive(Debug, Default)]
pub struct ByUpgradeRefusal([Counter; UpgradeRefusalReason::ALL.len()]);

/// A counter for each row of [`CloseCode::TABLE`], and one for all codes that plugins define.
#[derive(Debug, Default)]
pub struct ByCloseCode([Counter; CloseCode::TABLE.len() + 1]);

impl Default for ByEventType {
    /// Knows the built-in types that clients send.
    fn default() -> Self {
        let types = Self {
            known: Named::default(),
            other: Counter::default(),
        };
        types.know(["latency_report", "heartbeat", "join", "leave"]);
        types
    }
}

impl ByEventType {
    /// Counts these types separately from now on, as far as there is room. A known type stays known.
    pub fn know<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        for name in names.into_iter().filter(|name| *name != OTHER) {
            self.known.get_or_make(name, Counter::default, |_| ());
        }
    }

    /// Counts a message of this type.
    pub fn count(&self, name: &str) {
        self.known
            .get(name, Counter::increment)
            .unwrap_or_else(|| self.other.increment());
    }

    fn rows(&self) -> Vec<(String, u64)> {
        let known = self.known.all();
        let named = known
            .iter()
            .map(|(name, count)| (name.to_string(), count.get()));
        named
            .chain([(OTHER.to_owned(), self.other.get())])
            .collect()
    }
}

impl ByErrorCode {
    /// The counter of `code`.
    pub fn of(&self, code: ErrorCode) -> &Counter {
        &self.0[code as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        ErrorCode::ALL
            .into_iter()
            .map(|code| (code.as_str(), self.of(code)))
    }
}

impl ByDropReason {
    /// The counter of `reason`.
    pub fn of(&self, reason: DropReason) -> &Counter {
        &self.0[reason as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), self.of(reason)))
    }
}

impl BySpanDropReason {
    /// The counter of `reason`.
    pub fn of(&self, reason: SpanDropReason) -> &Counter {
        &self.0[reason as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        SpanDropReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), self.of(reason)))
    }
}

impl ByUpgradeRefusal {
    /// The counter of `refusal`.
    pub fn of(&self, refusal: UpgradeRefusalReason) -> &Counter {
        &self.0[refusal as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        UpgradeRefusalReason::ALL
            .into_iter()
            .map(|refusal| (refusal.as_str(), self.of(refusal)))
    }
}

impl ByCloseCode {
    /// The counter of `code`.
    pub fn of(&self, code: CloseCode) -> &Counter {
        let row = CloseCode::TABLE.iter().position(|row| row.code == code);
        &self.0[row.unwrap_or(CloseCode::TABLE.len())]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        CloseCode::TABLE
            .iter()
            .map(|row| row.name)
            .chain(["plugin"])
            .zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_a_counter_of_its_own() {
        let rejected = ByErrorCode::default();
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            rejected.of(code).add(index as u64);
        }
        assert!(
            rejected
                .rows()
                .enumerate()
                .all(|(index, (_, counter))| counter.get() == index as u64)
        );
    }

    #[test]
    fn types_that_a_client_makes_up_count_as_other() {
        let types = ByEventType::default();
        types.know(["chat_message"]);
        for name in ["chat_message", "heartbeat", "x", "y", "chat_message"] {
            types.count(name);
        }
        types.know([OTHER, "again", "again"]);
        let rows = types.rows();
        let counted: Vec<_> = rows.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(rows.len(), 7);
        assert_eq!(
            counted,
            [
                &("chat_message".to_owned(), 2),
                &("heartbeat".to_owned(), 1),
                &(OTHER.to_owned(), 2)
            ]
        );
    }

    #[test]
    fn a_plugins_own_close_code_counts_as_plugin() {
        let closes = ByCloseCode::default();
        closes.of(CloseCode::from_plugin(4777).unwrap()).add(1);
        closes.of(CloseCode::DRAIN).add(2);
        let rows: Vec<_> = closes
            .rows()
            .filter(|(_, counter)| counter.get() > 0)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(rows, ["drain", "plugin"]);
    }
}
