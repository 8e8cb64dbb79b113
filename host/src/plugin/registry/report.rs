//! Records, logs and counts what went live and what did not.

use std::time::{Instant, SystemTime};

use tracing::info;

use super::{Registry, Trigger, attempt::NotAdmitted, record::Failure, reload::Place};
use crate::{
    config::PluginConfig,
    metrics::events::{PluginRefused, PluginSwapped},
    plugin::{LoadError, PluginSet, PluginVersion},
};

impl Registry {
    /// Records and reports that a version does not go live.
    pub(super) fn refuse(
        &self,
        place: &Place,
        refused: NotAdmitted,
        trigger: Trigger,
    ) -> LoadError {
        let error = refused.error.clone();
        self.note_refusal(&place.config, place.current.as_deref(), refused, trigger);
        error
    }

    pub(super) fn note_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        refused: NotAdmitted,
        trigger: Trigger,
    ) {
        let NotAdmitted { hash, error } = refused;
        self.report_refusal(config, live, &error, trigger);
        self.records.with(&config.name, |record| {
            record.failure = Some(Failure {
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
        self.records.retain(configured);
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
