//! Events that are both logged and counted: one struct each, whose `emit` does both.
//!
//! Events of every message are logged at `debug`, which costs one check of a flag while that level is disabled. Events
//! of every plugin call have their own line limit, in the plugin's log.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use signalbox_protocol::ErrorCode;
use tracing::{debug, error, info, warn};

use super::{
    DropReason, HandoverOutcome, HttpRefusalReason, Metrics, PluginMetrics, SwapOutcome,
    UpgradeRefusalReason, WebhookMetrics,
};

/// An upgrade was refused.
#[derive(Debug)]
pub struct UpgradeRefused<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The reason.
    pub refusal: UpgradeRefusalReason,
}

impl UpgradeRefused<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.upgrades_refused.of(self.refusal).increment();
        debug!(reason = self.refusal.as_str(), "upgrade refused");
    }
}

/// A connection or a request was refused before its request was read.
#[derive(Debug)]
pub struct HttpRefused<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The reason.
    pub refusal: HttpRefusalReason,
    /// The peer that sent it.
    pub peer: SocketAddr,
}

impl HttpRefused<'_> {
    /// Counts and logs it. A refusal that operators can change through the configuration is logged as a warning, so
    /// that they see it.
    pub fn emit(self) {
        let Self {
            metrics,
            refusal,
            peer,
        } = self;
        metrics.http_refused.of(refusal).increment();
        match refusal {
            HttpRefusalReason::Sockets => warn!(
                %peer,
                "too many sockets without a WebSocket (limits.sockets_pending_max): the one that has been \
                 silent longest is closed, or the new one"
            ),
            HttpRefusalReason::ProxyHeader => warn!(
                %peer,
                "a connection of a trusted proxy does not begin with a header of the PROXY protocol \
                 (server.proxy_protocol)"
            ),
            _ => debug!(%peer, reason = refusal.as_str(), "HTTP refused"),
        }
    }
}

/// A session panicked.
#[derive(Debug)]
pub struct SessionFailed<'a> {
    /// The connection.
    pub connection: &'a str,
    /// The connection's user.
    pub user: &'a str,
    /// The message of the panic.
    pub fault: &'a str,
}

impl SessionFailed<'_> {
    /// Logs it. It counts as a close with 4007.
    pub fn emit(self) {
        error!(
            connection = self.connection,
            user = self.user,
            "the session of a connection failed because of a bug in the server and is closed; please report it: {}",
            self.fault
        );
    }
}

/// A request to a webhook failed, and is repeated.
#[derive(Debug)]
pub struct WebhookAttemptFailed<'a> {
    /// The webhook's metrics, which count it.
    pub metrics: &'a WebhookMetrics,
    /// The webhook's label.
    pub webhook: &'a str,
    /// The reason, without anything of the answer's body.
    pub reason: &'a str,
    /// Whether the attempt before it did not fail for the same reason.
    pub is_news: bool,
    /// Time to the next attempt.
    pub pause: Duration,
}

impl WebhookAttemptFailed<'_> {
    /// Counts and logs it, as a warning only if it is news.
    pub fn emit(self) {
        let Self {
            metrics,
            webhook,
            reason,
            is_news,
            pause,
        } = self;
        metrics.attempts_failed.increment();
        if is_news {
            warn!(
                webhook,
                reason, "a webhook does not accept its events; they wait, and are sent again"
            );
        } else {
            debug!(
                webhook,
                reason,
                ?pause,
                "a webhook still does not accept its events"
            );
        }
    }
}

/// The server refused a message.
#[derive(Debug)]
pub struct MessageRejected<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The code of the error that the sender gets.
    pub code: ErrorCode,
}

impl MessageRejected<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.messages_rejected.of(self.code).increment();
        debug!(code = self.code.as_str(), "message rejected");
    }
}

/// A plugin refused a message.
#[derive(Debug)]
pub struct MessageRejectedByPlugin<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The plugin.
    pub plugin: &'a str,
    /// The plugin's own code.
    pub code: &'a str,
}

impl MessageRejectedByPlugin<'_> {
    /// Counts and logs it. The plugin's metrics count it as well, together with refused connections and joins.
    pub fn emit(self) {
        self.metrics.messages_rejected_by_plugins.increment();
        debug!(
            plugin = self.plugin,
            code = self.code,
            "message rejected by a plugin"
        );
    }
}

/// An accepted message reached nobody.
#[derive(Debug)]
pub struct MessageDropped<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The reason.
    pub reason: DropReason,
}

impl MessageDropped<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.messages_dropped.of(self.reason).increment();
        debug!(reason = self.reason.as_str(), "message dropped");
    }
}

/// A changed configuration was refused.
pub struct ConfigurationRefused<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// All errors in it.
    pub errors: &'a dyn Display,
}

impl ConfigurationRefused<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.config_reloads_failed.increment();
        let errors = self.errors;
        error!("configuration refused, the old one stays in force:\n{errors}");
    }
}

/// The token keys could not be read or fetched again.
pub struct KeysNotReloaded<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The reason, with the key of the configuration.
    pub reason: &'a dyn Display,
    /// Whether the reason differs from the last time.
    pub is_news: bool,
    /// Whether there are keys from an earlier load.
    pub has_old_keys: bool,
}

impl KeysNotReloaded<'_> {
    /// Counts it. Logs it as an error if it is news, otherwise at `debug`.
    pub fn emit(self) {
        self.metrics.auth_key_reloads_failed.increment();
        let reason = self.reason;
        let consequence = if self.has_old_keys {
            "the last good ones stay in use"
        } else {
            "there are none yet, and upgrades get 503 until they are there"
        };
        if self.is_news {
            error!("the keys of tokens cannot be renewed; {consequence}: {reason}");
        } else {
            debug!("the keys of tokens cannot be renewed; {consequence}: {reason}");
        }
    }
}

/// The subscription to this server's channel broke.
#[derive(Debug)]
pub struct SubscriptionLost<'a> {
    /// The metrics that count it.
    pub metrics: &'a Metrics,
    /// The reason.
    pub reason: &'a str,
}

impl SubscriptionLost<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.redis.subscriber_rebuilds.increment();
        warn!(
            reason = self.reason,
            "the subscription to this server's channel is lost; subscribing again"
        );
    }
}

/// A version of a plugin went live.
#[derive(Debug)]
pub struct PluginSwapped<'a> {
    /// The metrics that count it.
    pub metrics: &'a PluginMetrics,
    /// The plugin.
    pub plugin: &'a str,
    /// The previous version; `None` if there was none.
    pub old: Option<&'a str>,
    /// The new version.
    pub new: &'a str,
    /// The version that its component declares.
    pub semver: Option<&'a str>,
    /// The trigger.
    pub trigger: &'static str,
    /// Time to compile it, or to read it from the cache.
    pub compile: Duration,
    /// Whether it came from the cache.
    pub cached: bool,
    /// Time from the trigger to now.
    pub live_after: Duration,
}

impl PluginSwapped<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.swapped(SwapOutcome::Live);
        info!(
            plugin = self.plugin,
            old = self.old.unwrap_or("none"),
            new = self.new,
            semver = self.semver,
            trigger = self.trigger,
            compile_ms = self.compile.as_secs_f64() * 1e3,
            cached = self.cached,
            live_ms = self.live_after.as_secs_f64() * 1e3,
            "plugin swapped"
        );
    }
}

/// The kind of a version that was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolledBackFrom {
    /// Live.
    Live,
    /// Tried on a share of the users.
    Canary,
    /// Tried on copies.
    Shadow,
}

/// A version of a plugin failed on probation or as a candidate, and the previous version is live again, or still live.
#[derive(Debug)]
pub struct PluginRolledBack<'a> {
    /// The metrics that count it.
    pub metrics: &'a PluginMetrics,
    /// The plugin.
    pub plugin: &'a str,
    /// The role that the version had before it failed.
    pub from: RolledBackFrom,
    /// The version that failed.
    pub bad: &'a str,
    /// The version that is live again, or still live.
    pub good: &'a str,
    /// The reason for the rollback.
    pub reason: &'a str,
    /// Time from the verdict to now.
    pub live_after: Duration,
}

impl PluginRolledBack<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.swapped(SwapOutcome::RolledBack);
        let (reason, result) = (
            self.reason,
            match self.from {
                RolledBackFrom::Live => "the previous version is live again",
                RolledBackFrom::Canary => "its canary is over and the live version stays",
                RolledBackFrom::Shadow => "its shadow is over and the live version stays",
            },
        );
        error!(
            plugin = self.plugin,
            old = self.bad,
            new = self.good,
            trigger = "probation",
            live_ms = self.live_after.as_secs_f64() * 1e3,
            "plugin rolled back, {result}: {reason}"
        );
    }
}

/// A version of a `single` plugin went live in place of another one, with or without its state.
#[derive(Debug)]
pub struct PluginHandedOver<'a> {
    /// The metrics that count it.
    pub metrics: &'a PluginMetrics,
    /// The plugin.
    pub plugin: &'a str,
    /// The previous version.
    pub old: &'a str,
    /// The new version.
    pub new: &'a str,
    /// Size of the state in bytes; `None` if the new version starts without it.
    pub bytes: Option<usize>,
    /// How long messages waited.
    pub held: Duration,
}

impl PluginHandedOver<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        let (plugin, old, new) = (self.plugin, self.old, self.new);
        let held_ms = self.held.as_secs_f64() * 1e3;
        match self.bytes {
            Some(bytes) => {
                self.metrics.handed_over(HandoverOutcome::HandedOver);
                info!(plugin, old, new, bytes, held_ms, "state handed over");
            }
            None => {
                self.metrics.handed_over(HandoverOutcome::BegunAnew);
                info!(
                    plugin,
                    old, new, held_ms, "no state handed over, the version starts without it"
                );
            }
        }
    }
}

/// A version of a plugin was refused.
pub struct PluginRefused<'a> {
    /// The metrics that count it.
    pub metrics: &'a PluginMetrics,
    /// The plugin.
    pub plugin: &'a str,
    /// The version that stays live; `None` if there is none.
    pub live: Option<&'a str>,
    /// The trigger.
    pub trigger: &'static str,
    /// The reason.
    pub error: &'a dyn Display,
}

impl PluginRefused<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        self.metrics.swapped(SwapOutcome::Refused);
        let (plugin, trigger, error) = (self.plugin, self.trigger, self.error);
        match self.live {
            Some(live) => error!(
                plugin,
                trigger, live, "plugin refused, the live version stays: {error}"
            ),
            None => error!(
                plugin,
                trigger, "plugin refused, and no version of it is live: {error}"
            ),
        }
    }
}
