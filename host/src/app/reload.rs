//! Follows the configuration and the plugins' files, and applies what changes.

use std::{collections::BTreeSet, path::PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::Source;
use crate::{
    config::Config,
    files::FileWatcher,
    metrics::events::ConfigurationRefused,
    plugin::Trigger,
    session::{LiveConfig, Services},
};

/// What sets a reload off. It is noticed from when this is made.
pub(super) struct Watch {
    watcher: FileWatcher,
    /// None: the system gives no signals.
    hangups: Option<Signal>,
}

/// Watches the configuration and the files that it names, as they are now.
pub(super) fn watch(config: &Config, source: &Source) -> Watch {
    let hangups = signal(SignalKind::hangup())
        .inspect_err(|error| warn!(%error, "SIGHUP does not reload"))
        .ok();
    Watch {
        watcher: FileWatcher::new(files(config, source)),
        hangups,
    }
}

/// Applies changes until it is aborted. `started` is what the server was started with, `config` what is in force.
pub(super) async fn follow(
    services: &Services,
    started: &Config,
    config: &mut Config,
    source: &Source,
    Watch { watcher, hangups }: &mut Watch,
) {
    loop {
        let trigger = tokio::select! {
            changed = watcher.changed() => trigger(&changed, source),
            () = next(hangups) => Trigger::Signal,
        };
        if trigger != Trigger::File {
            let Some(new) = reread(services, started, source) else {
                continue;
            };
            *config = new;
            watcher.set_files(files(config, source));
        }
        services
            .registry
            .apply(
                &config.plugins,
                config.limits.plugin_file_bytes_max,
                trigger,
            )
            .await;
    }
}

async fn next(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => {
            hangups.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn trigger(changed: &BTreeSet<PathBuf>, source: &Source) -> Trigger {
    let config = source
        .file
        .as_ref()
        .is_some_and(|file| changed.contains(file));
    if config {
        Trigger::Config
    } else {
        Trigger::File
    }
}

fn files(config: &Config, source: &Source) -> BTreeSet<PathBuf> {
    config
        .plugins
        .iter()
        .map(|plugin| plugin.path.clone())
        .chain(source.file.clone())
        .collect()
}

/// The new configuration, applied as far as it can be while the server runs; none where it is refused.
fn reread(services: &Services, started: &Config, source: &Source) -> Option<Config> {
    let new = match Config::load(source.file.as_deref(), &source.env) {
        Ok(new) => new,
        Err(errors) => {
            ConfigurationRefused {
                metrics: &services.metrics,
                errors: &errors,
            }
            .emit();
            return None;
        }
    };
    let live = LiveConfig::new(started, &new);
    if !live.needs_restart.is_empty() {
        warn!(
            keys = live.needs_restart.join(", "),
            "these keys differ from what the server was started with, and take effect at the next start"
        );
    }
    let table = services.router.table();
    table.set_outbox_bytes_max(new.limits.outbox_bytes_max);
    services
        .registry
        .set_probation(new.plugin_probation.clone());
    services.live.store(live);
    // Who waits for an hour to ping may have to do it in a second now.
    for connection in table.connections() {
        connection.outbox().wake();
    }
    info!("configuration applied");
    Some(new)
}
