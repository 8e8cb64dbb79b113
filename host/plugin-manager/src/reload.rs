//! Brings the live set in line with the plugin files and the configuration.

use std::{mem, sync::Arc, time::Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use signalbox_config::{PluginConfig, RolloutConfig};
use signalbox_plugin_runtime::{
    LoadError, PluginSet, PluginSlot, PluginVersion, Rollout,
    set::{Claim, Conflict, conflict},
};
use tracing::{Instrument, info};

use super::{
    PluginManager, Trigger,
    load::{LoadFailure, LoadOutcome, LoadedVersion},
    swap_span,
};

/// One plugin in a reload.
pub(super) struct ReloadEntry {
    pub(super) config: Arc<PluginConfig>,
    pub(super) current: Option<Arc<PluginVersion>>,
    /// The rollout alongside the current version.
    pub(super) rollout: Option<Arc<Rollout>>,
    pub(super) progress: Progress,
}

/// How far a plugin has come in a reload.
pub(super) enum Progress {
    /// It is being read, compiled or tried out.
    UnderWay,
    /// A new version is loaded.
    Ready(Box<LoadedVersion>),
    /// A new version is loaded, and is to be tried alongside the current one first.
    Candidate(Box<LoadedVersion>, Arc<Rollout>),
    /// The new version is live.
    Live,
    /// The new version is on trial.
    OnTrial,
    /// The current version stays.
    Unchanged,
    /// The plugin is no longer configured.
    Removed,
}

/// The plugins of the set after a reload, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Those of the reload.
    OfReload,
    /// Those of the live set.
    OfLiveSet,
}

impl ReloadEntry {
    pub(super) fn new(
        config: Arc<PluginConfig>,
        slot: Option<&PluginSlot>,
        progress: Progress,
    ) -> Self {
        Self {
            config,
            current: slot.and_then(PluginSlot::version).cloned(),
            rollout: slot.and_then(PluginSlot::rollout).cloned(),
            progress,
        }
    }

    /// Updates the entry to the versions in `live`, which may have changed since the reload began.
    pub(super) fn observe(&mut self, live: &PluginSet, layout: Layout) {
        let slot = live.find(&self.config.name);
        self.current = slot.and_then(PluginSlot::version).cloned();
        self.rollout = slot.and_then(PluginSlot::rollout).cloned();
        if layout == Layout::OfLiveSet {
            match slot {
                Some(slot) => self.config = slot.config().clone(),
                None => self.progress = Progress::Removed,
            }
        }
    }

    /// Gives the new version the place of the current one. A rollout ends, because its candidate was compared with a
    /// version that is being replaced.
    pub(super) fn go_live(&mut self) {
        self.rollout = None;
    }

    /// Tries the new version alongside the current one.
    pub(super) fn begin_trial(&mut self, config: RolloutConfig) {
        self.progress = match mem::replace(&mut self.progress, Progress::Unchanged) {
            Progress::Ready(new) => {
                let rollout = Arc::new(Rollout::begin(&new.version, config));
                self.rollout = Some(rollout.clone());
                Progress::Candidate(new, rollout)
            }
            other => other,
        };
    }

    /// Discards the version from the plugin's file, because an operator rolled back while it was being loaded.
    pub(super) fn discard(&mut self) {
        self.progress = Progress::Unchanged;
        info!(
            plugin = self.config.name,
            "the file is skipped: an operator rolled back while it was being loaded"
        );
    }

    /// The version that is live once everything that is ready has gone live.
    pub(super) fn next(&self) -> Option<&Arc<PluginVersion>> {
        match &self.progress {
            Progress::Ready(new) => Some(&new.version),
            _ => self.current.as_ref(),
        }
    }

    /// The slot of the plugin once everything that is ready is in service.
    fn slot(&self) -> PluginSlot {
        PluginSlot::new(
            self.config.clone(),
            self.next().cloned(),
            self.rollout.clone(),
        )
    }

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim {
            handles: self.next()?.handled(),
            new: matches!(self.progress, Progress::Ready(..)),
        })
    }

    /// The claim once the version on trial is live.
    fn claim_after_rollout(&self) -> Option<Claim<'_>> {
        match (&self.progress, &self.rollout) {
            (Progress::Ready(_) | Progress::Candidate(..), _) | (_, None) => self.claim(),
            (_, Some(rollout)) => Some(Claim {
                handles: rollout.candidate().handled(),
                new: false,
            }),
        }
    }
}

/// A reload in progress.
pub(super) struct Reload {
    pub(super) trigger: Trigger,
    pub(super) began: Instant,
    pub(super) layout: Layout,
    pub(super) entries: Vec<ReloadEntry>,
    pub(super) refusals: Vec<(String, LoadError)>,
}

impl Reload {
    /// The first conflict among the versions that would be live after the reload, either at once or after the versions
    /// on trial have gone live.
    fn conflict(&self) -> Option<Conflict> {
        let conflict_of = |claim: fn(&ReloadEntry) -> Option<Claim<'_>>| {
            let claims: Vec<_> = self.entries.iter().map(claim).collect();
            conflict(&claims)
        };
        conflict_of(ReloadEntry::claim).or_else(|| conflict_of(ReloadEntry::claim_after_rollout))
    }

    /// The slots of the set that replaces `live`.
    pub(super) fn slots(&self, live: &PluginSet) -> Vec<PluginSlot> {
        match self.layout {
            Layout::OfReload => self.entries.iter().map(ReloadEntry::slot).collect(),
            Layout::OfLiveSet => {
                let slots = live.slots().iter().map(|slot| {
                    let plugin = &slot.config().name;
                    let mut entries = self.entries.iter();
                    let entry = entries.find(|entry| entry.config.name == *plugin);
                    entry.map_or_else(|| slot.clone(), ReloadEntry::slot)
                });
                slots.collect()
            }
        }
    }
}

impl PluginManager {
    /// Brings the live set in line with `configs` and reads every file again. A plugin keeps its current version if its
    /// new version is refused, or if a push or a rollback overrides its file. Returns the refusals.
    ///
    /// A changed configuration goes live as a whole. If only files changed, each plugin goes live as soon as it is
    /// ready, so a plugin that compiles for seconds does not delay the others.
    pub async fn apply(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let _turn = self.turn.lock().await;
        for config in configs {
            self.recall(&config.name).await;
        }
        let configs: Vec<_> = configs.iter().cloned().map(Arc::new).collect();
        let mut refusals = self.round(&configs, file_bytes_max, trigger).await;
        if trigger == Trigger::Start && configs.iter().any(|config| config.rollout.is_some()) {
            // Files that changed while the server was down are tried alongside the previous versions, which are live by
            // now.
            let outcome = self.round(&configs, file_bytes_max, Trigger::File);
            refusals.extend(outcome.await);
        }
        // Also if nothing went live: the fact that a file was examined is worth keeping.
        let mut state = self.state();
        for config in &configs {
            state.persist(&config.name, None);
        }
        refusals
    }

    async fn round(
        &self,
        configs: &[Arc<PluginConfig>],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let old = self.live();
        let entries = configs.iter().map(|config| {
            ReloadEntry::new(config.clone(), old.find(&config.name), Progress::UnderWay)
        });
        let mut reload = Reload {
            trigger,
            began: Instant::now(),
            layout: Layout::OfReload,
            entries: entries.collect(),
            refusals: Vec::new(),
        };
        let loads = configs.iter().enumerate().map(|(index, config)| {
            let load = async move {
                let outcome = self.load_file(config, file_bytes_max, false, trigger).await;
                (index, outcome)
            };
            load.instrument(swap_span(&config.name, trigger))
        });
        let mut loads: FuturesUnordered<_> = loads.collect();
        while let Some((index, outcome)) = loads.next().await {
            self.record_outcome(&mut reload, index, outcome);
            // On a conflict it waits for the other plugins, whose new versions may not conflict.
            if trigger == Trigger::File && reload.conflict().is_none() {
                self.go_live(&mut reload).await;
            }
        }
        self.settle_conflicts(&mut reload);
        self.go_live(&mut reload).await;
        self.state().forget_removed(&old, configs, trigger);
        reload.refusals
    }

    fn record_outcome(
        &self,
        reload: &mut Reload,
        index: usize,
        outcome: Result<LoadOutcome, LoadFailure>,
    ) {
        match outcome {
            Ok(LoadOutcome::New(new)) => {
                reload.entries[index].progress = Progress::Ready(Box::new(new));
            }
            Ok(LoadOutcome::Same(_) | LoadOutcome::Withdrawn { .. }) => {
                reload.entries[index].progress = Progress::Unchanged;
            }
            Err(failure) => self.drop_out(reload, index, failure),
        }
    }

    /// Drops a plugin from the reload; its live version stays.
    pub(super) fn drop_out(&self, reload: &mut Reload, index: usize, failure: LoadFailure) {
        let entry = &mut reload.entries[index];
        entry.progress = Progress::Unchanged;
        let error = failure.error.clone();
        self.refuse(entry, failure, reload.trigger);
        reload.refusals.push((entry.config.name.clone(), error));
    }

    pub(super) fn settle_conflicts(&self, reload: &mut Reload) {
        while let Some(conflict) = reload.conflict() {
            let error = LoadError::Conflict {
                pattern: conflict.pattern,
                other: reload.entries[conflict.other].config.name.clone(),
            };
            let hash = reload.entries[conflict.refused]
                .next()
                .map(|new| *new.hash());
            self.drop_out(reload, conflict.refused, LoadFailure { hash, error });
        }
    }

    /// Makes all versions that are ready live with one store, with the state of `single` plugins handed over first.
    pub(super) async fn go_live(&self, reload: &mut Reload) {
        self.state().discard_overtaken(reload);
        let handed_over = self.hand_over(reload).await;
        self.state().commit(reload, handed_over);
    }

    /// Records and reports that a version does not go live.
    pub(super) fn refuse(&self, entry: &ReloadEntry, failure: LoadFailure, trigger: Trigger) {
        let live = entry.current.as_deref();
        self.state().refuse(&entry.config, live, failure, trigger);
    }
}
