//! Records, logs and counts what went live and what did not.

use std::time::{Instant, SystemTime};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{LoadError, PluginSet, PluginVersion};
use signalbox_telemetry::metrics::events::{PluginRefused, PluginSwapped};
use tracing::info;

use super::{
    PluginManager, Trigger, load::LoadFailure, plugin_history::LastFailure, reload::ReloadEntry,
};

impl PluginManager {
    /// Records and reports that a version does not go live.
    pub(super) fn refuse(
        &self,
        entry: &ReloadEntry,
        refused: LoadFailure,
        trigger: Trigger,
    ) -> LoadError {
        let error = refused.error.clone();
        self.note_refusal(&entry.config, entry.current.as_deref(), refused, trigger);
        error
    }

    pub(super) fn note_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        refused: LoadFailure,
        trigger: Trigger,
    ) {
        let LoadFailure { hash, error } = refused;
        self.report_refusal(config, live, &error, trigger);
        self.histories.with(&config.name, |history| {
            history.failure = Some(LastFailure {
                at: SystemTime::now(),
                trigger,
                hash,
                error,
            });
        });
    }

    fn report_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        error: &LoadError,
        trigger: Trigger,
    ) {
        PluginRefused {
            metrics: &self.metrics.plugins.of(&config.name),
            plugin: &config.name,
            live: live.map(PluginVersion::label),
            trigger: trigger.as_str(),
            error,
        }
        .emit();
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

    pub(super) fn report_removed(
        &self,
        old: &PluginSet,
        configs: &[PluginConfig],
        trigger: Trigger,
    ) {
        let configured = |name: &str| configs.iter().any(|config| config.name == name);
        self.histories.retain(configured);
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
