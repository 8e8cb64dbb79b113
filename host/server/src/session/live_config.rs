//! The part of the configuration that is applied without a restart, and how open sessions learn of a change.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use signalbox_broker::Retention;
use signalbox_config::{
    AdminConfig, ApiConfig, Config, EventsConfig, HistoryRule, Limits, PresenceConfig, RoomsConfig,
    ServerConfig, Shown, TokenTimes, live::cannot_change_live,
};
use signalbox_router::{PresenceRule, PresenceSettings, ReplayLimits};

/// The part of the configuration that may change while the server runs.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// `[server]`.
    pub server: ServerConfig,
    /// The times of tokens, from `[auth]`.
    pub token_times: TokenTimes,
    /// `[events]`.
    pub events: EventsConfig,
    /// `[[rooms]]`.
    pub rooms: RoomsConfig,
    /// `[presence]`.
    pub presence: PresenceConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// The whole current configuration, for display.
    pub shown: Shown,
    /// The changed keys that take effect at the next start.
    pub needs_restart: Vec<String>,
}

impl LiveConfig {
    /// The current configuration of a server that was `started` with one configuration and has read `new`.
    pub fn new(started: &Config, new: &Config) -> Self {
        Self {
            server: new.server.clone(),
            token_times: new.token_times,
            events: new.events.clone(),
            rooms: new.rooms.clone(),
            presence: new.presence,
            limits: new.limits.clone(),
            api: new.api.clone(),
            admin: new.admin.clone(),
            shown: Shown::in_force(&started.shown, &new.shown),
            needs_restart: cannot_change_live(started, new),
        }
    }

    /// How much of the history of `room` is kept; `None` if it has none.
    pub(super) fn retention(&self, room: &str) -> Option<Retention> {
        if !self.rooms.has_histories() {
            return None;
        }
        let HistoryRule { size, time } = self.rooms.rule(room).history?;
        Some(Retention { size, time })
    }

    /// The limits on old messages that are read at once.
    pub(super) fn replay_limits(&self) -> ReplayLimits {
        ReplayLimits {
            messages: self.limits.history_replay_max,
            bytes: self.limits.outbox_bytes_max,
        }
    }
}

/// The settings of presence in `config`.
pub(crate) fn presence_settings(config: &Config) -> PresenceSettings {
    let PresenceConfig {
        grace,
        flush,
        members_max,
    } = config.presence;
    let rooms = config.rooms.clone();
    let rule: Option<PresenceRule> = rooms.has_presence().then(|| -> PresenceRule {
        Arc::new(move |room: &str| {
            let rule = rooms.rule(room);
            rule.presence.then_some(rule.members_max)
        })
    });
    PresenceSettings {
        grace,
        flush,
        listed_max: members_max,
        rule,
    }
}

/// How much of the history of each user is kept, according to `config`.
pub(crate) fn user_retention(config: &Config) -> Option<Retention> {
    let HistoryRule { size, time } = config.users.history?;
    Some(Retention { size, time })
}

/// The current configuration, and the number of its changes.
#[derive(Debug)]
pub struct ConfigHandle {
    config: ArcSwap<LiveConfig>,
    changes: AtomicU64,
}

impl ConfigHandle {
    /// Starts with `config`.
    pub fn new(config: LiveConfig) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            changes: AtomicU64::new(0),
        }
    }

    /// The current configuration, to be held only briefly.
    pub fn load(&self) -> Guard<Arc<LiveConfig>> {
        self.config.load()
    }

    /// The current configuration, to be held for any length of time.
    pub fn load_full(&self) -> Arc<LiveConfig> {
        self.config.load_full()
    }

    /// Makes `config` the current one. A session applies it when it next has something to do. Wake the sessions that must
    /// not wait for that, such as one whose client must now be pinged earlier.
    pub fn store(&self, config: LiveConfig) {
        self.config.store(Arc::new(config));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The number of changes. Sessions check it because that is cheaper than loading the configuration.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
