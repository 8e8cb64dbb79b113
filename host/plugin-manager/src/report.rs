//! Records, logs and counts what went live and what did not.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{PluginSet, PluginVersion};
use signalbox_telemetry::metrics::events::{PluginRefused, PluginSwapped};
use tracing::info;

use super::{Trigger, load::LoadFailure, plugin_history::LastFailure, state::State};

impl State {
    /// Records and reports that a version of the plugin does not go live, and that `live` stays.
    pub(super) fn refuse(
        &mut self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        failure: LoadFailure,
        trigger: Trigger,
    ) {
        let LoadFailure { hash, error } = failure;
        PluginRefused {
            metrics: &self.metrics.plugins.of(&config.name),
            plugin: &config.name,
            live: live.map(PluginVersion::label),
            trigger: trigger.as_str(),
            error: &error,
        }
        .emit();
        self.history(&config.name).failure = Some(LastFailure {
            at: SystemTime::now(),
            trigger,
            hash,
            error,
        });
    }

    pub(super) fn report_swap(
        &self,
        old: Option<&PluginVersion>,
        new: &PluginVersion,
        trigger: Trigger,
        began: Instant,
    ) {
        PluginSwapped {
            metrics: new.metrics(),
            plugin: new.name(),
            old: old.map(PluginVersion::label),
            new: new.label(),
            semver: new.admission().metadata.version.as_deref(),
            trigger: trigger.as_str(),
            compile: new.admission().compile,
            cached: new.admission().cached,
            live_after: began.elapsed(),
        }
        .emit();
    }

    /// Forgets the plugins of `old` that are no longer configured.
    pub(super) fn forget_removed(
        &mut self,
        old: &PluginSet,
        configs: &[Arc<PluginConfig>],
        trigger: Trigger,
    ) {
        let configured = |name: &str| configs.iter().any(|config| config.name == name);
        self.histories.retain(|name, _| configured(name));
        for slot in old
            .slots()
            .iter()
            .filter(|slot| !configured(&slot.config().name))
        {
            info!(
                plugin = slot.config().name,
                old = slot.version().map_or("none", |version| version.label()),
                trigger = trigger.as_str(),
                "plugin removed"
            );
        }
    }
}
