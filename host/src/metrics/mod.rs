//! Figures: what is counted, and how it is counted without holding anything up.
//!
//! [`Metrics`] names every figure of the host once. Recording is one or two relaxed atomic operations on a shard of
//! the recording thread's own: no lock, no allocation. [`prometheus`] renders them for a scrape.
//!
//! This module is a leaf.

mod cells;
mod plugin;
pub mod prometheus;

use crate::protocol::{CloseCode, ErrorCode};

pub use cells::{BUCKET_BOUNDS_US, Counter, Gauge, Histogram, HistogramSnapshot};
pub(crate) use plugin::duration_of_ms;
pub use plugin::{
    FailureKind, GuestFigures, GuestMetricError, PluginMetrics, PluginTable, SwapOutcome,
};

/// Everything that the host counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are open now.
    pub active_connections: Gauge,
    /// Connections since the start.
    pub connections: Counter,
    /// Messages that clients sent, whatever became of them.
    pub messages: Counter,
    /// Messages put into the outbox of a connection, one for each connection.
    pub messages_delivered: Counter,
    /// Messages that were refused, by error code; a plugin's own codes count under the plugin.
    pub messages_rejected: ByErrorCode,
    /// Messages that were accepted and reached nobody, by reason.
    pub messages_dropped: ByDropReason,
    /// Connections that ended other than by a clean close or a decision of the server.
    pub unexpected_disconnects: Counter,
    /// Connections that the server closed, by the name of the close code.
    pub closes: ByCloseCode,
    /// Upgrades that were refused, by reason.
    pub upgrades_refused: ByRefusal,
    /// From a frame's arrival to the outbox of its receivers on this node.
    pub delivery_latency: Histogram,
    /// Round-trip times that clients report.
    pub reported_latency: Histogram,
    /// Reloads of the configuration that were refused.
    pub config_reloads_failed: Counter,
    /// Calls of operators, by what came of them.
    pub admin_requests: ByAdminOutcome,
    /// What happens between nodes.
    pub redis: RedisMetrics,
    /// The plugins' figures.
    pub plugins: PluginTable,
}

/// What happens between this node and the others through Redis.
#[derive(Debug, Default)]
pub struct RedisMetrics {
    /// Messages that Redis did not take, or not in time.
    pub publish_failures: Counter,
    /// Messages for a server that did not listen.
    pub unheard: Counter,
    /// Questions for a route that Redis was asked; most are answered from memory.
    pub route_lookups: Counter,
    /// Servers without a lease that were taken out of a route.
    pub routes_pruned: Counter,
    /// Subscriptions that broke and were made anew.
    pub subscriber_rebuilds: Counter,
    /// Texts published to this node that are no messages.
    pub malformed: Counter,
}

/// Why an accepted message reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver's outbox was full; its connection is closed for it.
    SlowConsumer,
    /// The receiver's connection was closing.
    Closing,
    /// No node holds the receiver.
    Offline,
    /// A transformation dropped it.
    Plugin,
    /// What a plugin asked for had no effect, because the connection was gone.
    ConnectionGone,
}

impl DropReason {
    const ALL: [Self; 5] = [
        Self::SlowConsumer,
        Self::Closing,
        Self::Offline,
        Self::Plugin,
        Self::ConnectionGone,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow_consumer",
            Self::Closing => "closing",
            Self::Offline => "offline",
            Self::Plugin => "plugin",
            Self::ConnectionGone => "connection_gone",
        }
    }
}

/// Why an upgrade was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400, 401 or 403: the client did not say who it is, or not convincingly.
    Auth,
    /// 403: the page may not connect.
    Origin,
    /// 400, 405 or 426: the request is no upgrade to a WebSocket.
    Handshake,
    /// 429: the user has too many connections.
    UserLimit,
    /// 503: the node has too many connections.
    NodeLimit,
    /// 503: the node is going down.
    Draining,
}

impl Refusal {
    const ALL: [Self; 6] = [
        Self::Auth,
        Self::Origin,
        Self::Handshake,
        Self::UserLimit,
        Self::NodeLimit,
        Self::Draining,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::UserLimit => "user_limit",
            Self::NodeLimit => "node_limit",
            Self::Draining => "draining",
        }
    }
}

/// What came of a call of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminOutcome {
    /// It was answered.
    Ok,
    /// 4xx: it was wrong, or what it wanted was refused.
    Refused,
    /// 5xx: the node could not do it.
    Failed,
    /// 401: it brought no key, or a wrong one.
    Unauthorized,
    /// 429: there were too many.
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

/// A counter for each [`ErrorCode`].
#[derive(Debug, Default)]
pub struct ByErrorCode([Counter; ErrorCode::ALL.len()]);

/// A counter for each [`DropReason`].
#[derive(Debug, Default)]
pub struct ByDropReason([Counter; DropReason::ALL.len()]);

/// A counter for each [`Refusal`].
#[derive(Debug, Default)]
pub struct ByRefusal([Counter; Refusal::ALL.len()]);

/// A counter for each row of [`CloseCode::TABLE`], and one for all codes of plugins' own.
#[derive(Debug, Default)]
pub struct ByCloseCode([Counter; CloseCode::TABLE.len() + 1]);

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

impl ByRefusal {
    /// The counter of `refusal`.
    pub fn of(&self, refusal: Refusal) -> &Counter {
        &self.0[refusal as usize]
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &Counter)> {
        Refusal::ALL
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
