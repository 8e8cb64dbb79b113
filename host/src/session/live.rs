//! The part of the configuration that is applied without a restart, and how open sessions learn of a change.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};

use crate::config::{
    AdminConfig, ApiConfig, Config, EventsConfig, Limits, ServerConfig, Shown,
    live::cannot_change_live,
};

/// What of the configuration may change while the server runs.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[events]`.
    pub events: EventsConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// All that holds, to be shown.
    pub shown: Shown,
    /// The keys that were changed and take effect at the next start.
    pub needs_restart: Vec<String>,
}

impl LiveConfig {
    /// What holds where a server that was `started` with one configuration has read `new`.
    pub fn new(started: &Config, new: &Config) -> Self {
        Self {
            server: new.server.clone(),
            events: new.events.clone(),
            limits: new.limits.clone(),
            api: new.api.clone(),
            admin: new.admin.clone(),
            shown: Shown::in_force(&started.shown, &new.shown),
            needs_restart: cannot_change_live(started, new),
        }
    }
}

/// The configuration that holds now, and how often it has changed.
#[derive(Debug)]
pub struct Live {
    config: ArcSwap<LiveConfig>,
    changes: AtomicU64,
}

impl Live {
    /// Holds `config`.
    pub fn new(config: LiveConfig) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            changes: AtomicU64::new(0),
        }
    }

    /// What holds now, for a moment.
    pub fn load(&self) -> Guard<Arc<LiveConfig>> {
        self.config.load()
    }

    /// What holds now, for as long as it is needed.
    pub fn load_full(&self) -> Arc<LiveConfig> {
        self.config.load_full()
    }

    /// Puts `config` into force. A session takes it over when it next has something to do: wake those that must not
    /// wait for that, such as one whose client is to be pinged earlier from now on.
    pub fn store(&self, config: LiveConfig) {
        self.config.store(Arc::new(config));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often it has changed: what a session looks at, because it costs less than the configuration itself.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
