//! Follows changes of the configuration and of the plugins' files, and applies them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use signalbox_auth::{AuthSetupError, KeyChange};
use signalbox_config::{
    Config,
    live::{ConfigDifference, difference},
};
use signalbox_plugin_manager::Trigger;
use signalbox_telemetry::metrics::{
    Metrics,
    events::{ConfigurationRefused, KeysNotReloaded},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{Source, broker_kind::BrokerKind};
use crate::{
    files::FileWatcher,
    session::{LiveConfig, Services, presence_settings, user_retention},
};

/// The triggers of a reload. Changes are noticed from the creation of this value on.
pub(super) struct ReloadTriggers {
    watcher: FileWatcher,
    /// `None` if there is no configuration to read again, or the system provides no signals.
    hangups: Option<Signal>,
}

/// The components that a changed configuration is applied to.
pub(super) struct ReloadTargets {
    pub(super) services: Arc<Services>,
    pub(super) kind: Arc<dyn BrokerKind>,
}

/// Watches the configuration and the files that it names, starting from their current state.
pub(super) fn watch(config: &Config, source: Option<&Source>) -> ReloadTriggers {
    let hangups = source.and_then(|_| {
        signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP does not reload"))
            .ok()
    });
    ReloadTriggers {
        watcher: FileWatcher::new(files(config, source)),
        hangups,
    }
}

/// Applies changes until it is aborted. `started` is the configuration at the start, `config` the current one.
pub(super) async fn follow(
    targets: &ReloadTargets,
    started: &Config,
    config: &mut Config,
    source: Option<&Source>,
    ReloadTriggers { watcher, hangups }: &mut ReloadTriggers,
) {
    loop {
        let trigger = tokio::select! {
            changed = watcher.changed() => {
                if is_key_file_alone(&changed, config) {
                    targets.renew_keys(config);
                    continue;
                }
                if config.auth.key_file().is_some_and(|file| changed.contains(file)) {
                    targets.renew_keys(config);
                }
                trigger(&changed, config, source)
            }
            () = next(hangups) => Trigger::Signal,
        };
        if trigger != Trigger::File
            && let Some(source) = source
        {
            let Some(new) = targets.reread(started, config, source) else {
                continue;
            };
            *config = new;
            watcher.set_files(files(config, Some(source)));
        }
        targets
            .services
            .manager
            .apply(
                &config.plugins,
                config.limits.plugin_file_bytes_max,
                trigger,
            )
            .await;
    }
}

/// Whether only the token key file has changed.
fn is_key_file_alone(changed: &BTreeSet<PathBuf>, config: &Config) -> bool {
    let key_file = config.auth.key_file();
    changed.iter().all(|file| Some(file.as_path()) == key_file)
}

async fn next(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => {
            hangups.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn trigger(changed: &BTreeSet<PathBuf>, config: &Config, source: Option<&Source>) -> Trigger {
    let file = source.and_then(|source| source.file.as_ref());
    let is_config = changed
        .iter()
        .any(|changed| Some(changed) == file || config.secret_files.contains(changed));
    if source.is_some() && is_config {
        Trigger::Config
    } else {
        Trigger::File
    }
}

fn files(config: &Config, source: Option<&Source>) -> BTreeSet<PathBuf> {
    config
        .plugins
        .iter()
        .map(|plugin| plugin.path.clone())
        .chain(source.and_then(|source| source.file.clone()))
        .chain(config.secret_files.iter().cloned())
        .chain(config.auth.key_file().map(Path::to_owned))
        .collect()
}

impl ReloadTargets {
    /// Reads the token keys again, from the file that changed.
    fn renew_keys(&self, config: &Config) {
        let metrics = &self.services.metrics;
        match self.services.authenticator.apply(&config.auth) {
            Ok(KeyChange::All) => info!("the keys of tokens were read again"),
            Ok(KeyChange::OldKeys(reason)) | Err(reason) => keys_stay(metrics, &reason),
        }
    }

    /// Reads the new configuration and applies its live keys. Returns `None` if it is refused. `old` is the
    /// configuration that was applied last.
    fn reread(&self, started: &Config, old: &Config, source: &Source) -> Option<Config> {
        let services = &self.services;
        let metrics = &services.metrics;
        let refused = |errors| {
            ConfigurationRefused { metrics, errors }.emit();
            None
        };
        let new = match Config::load(source.file.as_deref(), &source.env) {
            Ok(new) => new,
            Err(errors) => return refused(&errors),
        };
        match services.authenticator.apply(&new.auth) {
            Ok(KeyChange::All) => {}
            Ok(KeyChange::OldKeys(reason)) => keys_stay(metrics, &reason),
            Err(error) => return refused(&error),
        }
        let live = LiveConfig::new(started, &new);
        // A login for another server does not work on this one.
        let is_elsewhere = live.needs_restart.iter().any(|key| key == "redis.url");
        if !is_elsewhere {
            self.kind.set_logins(&new.broker);
        }
        let needs_restart = live.needs_restart.clone();
        let table = services.router.table();
        table.set_outbox_bytes_max(new.limits.outbox_bytes_max);
        self.kind.set_limits(&new.limits);
        services.manager.set_probation(new.plugin_probation.clone());
        services.live.store(live);
        services.router.set_presence(presence_settings(&new));
        services.router.set_user_retention(user_retention(&new));
        services.webhooks.set(&new.webhooks, new.presence.grace);
        // A session that would have pinged in an hour may now have to do so in a second.
        for connection in table.connections() {
            connection.outbox().wake();
        }
        // Logged only once it is in force.
        tell(&needs_restart, difference(old, &new));
        for advice in &new.advice {
            if !old.advice.contains(advice) {
                warn!("{advice}");
            }
        }
        Some(new)
    }
}

fn keys_stay(metrics: &Metrics, reason: &AuthSetupError) {
    KeysNotReloaded {
        metrics,
        reason,
        is_news: true,
        has_old_keys: true,
    }
    .emit();
}

/// Logs which keys were applied since the last time, and which wait for a restart.
fn tell(needs_restart: &[String], ConfigDifference { mut live, .. }: ConfigDifference) {
    if needs_restart.iter().any(|key| key == "auth.mode") {
        live.retain(|key| !key.starts_with("auth."));
    }
    if !needs_restart.is_empty() {
        warn!(
            "needs a restart: {}; their new values take effect at the next start",
            needs_restart.join(", ")
        );
    }
    if needs_restart.is_empty() || !live.is_empty() {
        info!(keys = live.join(", "), "configuration applied");
    }
}
