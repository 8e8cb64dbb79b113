//! The live plugin versions and how they change: all at once, or not at all.
//!
//! [`PluginManager::apply`] brings the live set in line with the plugin files and the configuration. That is a [`reload`],
//! in which each plugin goes through [`load`], and through [`resume`] if an earlier process left something. Manual
//! operations are in [`operations`] and [`rollback`], the reports for operators in [`view`], the histories behind both in
//! [`plugin_history`], and the part of those that is on disk in [`persist`]. [`probation`] watches a version that went live, by
//! the rules of [`judge`], and also a version that is tried first ([`rollout`]). Messages enter the set through a
//! [`snapshot`], and [`handover`] is the step before a `single` plugin is swapped.

mod change;
mod handover;
mod history;
mod judge;
mod load;
mod operations;
mod persist;
mod plugin_history;
mod probation;
mod reload;
mod report;
mod resume;
mod rollback;
mod rollout;
mod snapshot;
mod trial;
mod trigger;
mod view;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
pub use change::{Change, ChangeError, Unchanged};
use futures_util::stream::{FuturesUnordered, StreamExt};
pub use history::FLUSH_TIME_MAX;
pub use operations::{AdmittedComponent, PushOptions};
use signalbox_config::{PluginConfig, PluginVersionsConfig, ProbationConfig};
use signalbox_plugin_runtime::{
    LoadError, Loader, PluginSet, PluginSlot, PluginVersion, handover::HandedOver,
};
use signalbox_telemetry::metrics::Metrics;
pub use snapshot::PluginSnapshot;
use tokio::sync::Notify;
use tracing::{Instrument, Span, info, info_span};
pub use trigger::Trigger;
pub use view::{CallFailure, PluginView, VersionView};

use self::{
    load::{LoadFailure, LoadOutcome, LoadRequest, LoadedVersion},
    plugin_history::{Pin, PluginHistories},
    reload::{Reload, ReloadEntry, ReloadProgress},
    trial::Trial,
    trigger::Origin,
};
use crate::history::{HistoryStore, crash_point};

/// The tracing span for the log lines of a swap, from its start until its outcome is known.
fn swap_span(plugin: &str, trigger: Trigger) -> Span {
    info_span!("swap", plugin, trigger = trigger.as_str())
}

/// The default number of earlier versions that are kept for a rollback.
const KEEP: usize = 5;

/// Holds the live set. One reload or operation runs at a time, except that a rollback waits for neither. Within a
/// reload, plugins are read, compiled and tried out concurrently.
pub struct PluginManager {
    live: ArcSwap<PluginSet>,
    loader: Loader,
    metrics: Arc<Metrics>,
    histories: PluginHistories,
    /// `None` if nothing is kept on disk.
    versions: Option<HistoryStore>,
    /// How many earlier versions are kept for a rollback, in addition to the live one. Each keeps its compiled code,
    /// but no instances.
    keep: usize,
    /// The rules by which versions on trial are judged.
    probation: ArcSwap<ProbationConfig>,
    /// Notified when a version goes on trial.
    trials: Notify,
    /// Held while the live set is being replaced, never across an `await`.
    switch: Mutex<()>,
    turn: tokio::sync::Mutex<()>,
}

impl PluginManager {
    /// Creates a manager without plugins, which keeps earlier versions in memory only.
    pub fn new(loader: Loader, metrics: Arc<Metrics>) -> Self {
        let live = ArcSwap::from_pointee(PluginSet::default());
        Self {
            live,
            loader,
            metrics,
            histories: PluginHistories::default(),
            versions: None,
            keep: KEEP,
            probation: ArcSwap::default(),
            trials: Notify::new(),
            switch: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns the manager, set up to keep earlier versions as `config` says.
    #[must_use]
    pub fn keeping(self, config: &PluginVersionsConfig) -> Self {
        Self {
            versions: config.dir.as_deref().map(HistoryStore::new),
            keep: config.keep,
            ..self
        }
    }

    /// The current live set, for inspection. Messages use [`PluginManager::enter`].
    pub fn live(&self) -> Arc<PluginSet> {
        self.live.load_full()
    }

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
        let mut refusals = self.round(configs, file_bytes_max, trigger).await;
        if trigger == Trigger::Start && configs.iter().any(|config| config.rollout.is_some()) {
            // Files that changed while the server was down are tried alongside the previous versions, which are live by
            // now.
            let outcome = self.round(configs, file_bytes_max, Trigger::File);
            refusals.extend(outcome.await);
        }
        // Also if nothing went live: the fact that a file was examined is worth keeping.
        for config in configs {
            self.keep(&config.name, None);
        }
        refusals
    }

    async fn round(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let old = self.live();
        let entry = |config: &PluginConfig| ReloadEntry {
            config: Arc::new(config.clone()),
            current: old
                .find(&config.name)
                .and_then(PluginSlot::version)
                .cloned(),
            rollout: old
                .find(&config.name)
                .and_then(PluginSlot::rollout)
                .cloned(),
            attempt: ReloadProgress::UnderWay,
        };
        let mut reload = Reload {
            trigger,
            began: Instant::now(),
            entries: configs.iter().map(entry).collect(),
            refusals: Vec::new(),
        };
        let attempts: FuturesUnordered<_> = reload
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                let (config, current) = (entry.config.clone(), entry.current.clone());
                let rollout = entry.rollout.clone();
                let swap = swap_span(&config.name, trigger);
                let outcome = async move {
                    let request = LoadRequest {
                        config: &config,
                        current: current.as_ref(),
                        rollout: rollout.as_deref(),
                        file_bytes_max,
                        trigger,
                        force: false,
                    };
                    (index, self.attempt(&request).await)
                };
                outcome.instrument(swap)
            })
            .collect();
        let mut attempts = attempts;
        while let Some((index, outcome)) = attempts.next().await {
            self.record_outcome(&mut reload, index, outcome);
            // On a conflict it waits for the other plugins, whose new versions may not conflict.
            if trigger == Trigger::File && reload.conflict().is_none() {
                self.go_live(&mut reload).await;
            }
        }
        self.settle_conflicts(&mut reload);
        self.go_live(&mut reload).await;
        self.report_removed(&old, configs, trigger);
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
                reload.entries[index].attempt = ReloadProgress::Ready(Box::new(new))
            }
            Ok(LoadOutcome::Same(_)) => reload.entries[index].attempt = ReloadProgress::Over,
            Err(refused) => self.drop_out(reload, index, refused),
        }
    }

    /// Drops a plugin from the reload; its live version stays.
    fn drop_out(&self, reload: &mut Reload, index: usize, refused: LoadFailure) {
        let entry = &mut reload.entries[index];
        entry.attempt = ReloadProgress::Over;
        let error = self.refuse(entry, refused, reload.trigger);
        reload.refusals.push((entry.config.name.clone(), error));
    }

    fn settle_conflicts(&self, reload: &mut Reload) {
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
    async fn go_live(&self, reload: &mut Reload) {
        for entry in &mut reload.entries {
            self.pass_over(entry, reload.began);
        }
        let handed_over = self.hand_over(reload).await;
        let switch = self.switch();
        let live = self.live();
        for entry in &mut reload.entries {
            // By now the new version has the state of a `single` plugin, and a rollback waits for that.
            if entry.next().is_none_or(|next| next.gate().is_none()) {
                self.pass_over(entry, reload.began);
            }
            entry.examine_again(&live, reload.trigger);
        }
        let slots = reload.entries.iter().map(|entry| {
            let (version, rollout) = (entry.next().cloned(), entry.rollout.clone());
            PluginSlot::new(entry.config.clone(), version, rollout)
        });
        let set = PluginSet::new(slots.collect());
        let (trigger, began) = (reload.trigger, reload.began);
        let crash_point = |step| {
            if trigger != Trigger::Start {
                crash_point(step);
            }
        };
        crash_point("admitted");
        self.store_live(set);
        // Not earlier: once released, held messages look up the live set.
        handed_over.into_iter().for_each(HandedOver::end);
        crash_point("live");
        for entry in &mut reload.entries {
            match std::mem::replace(&mut entry.attempt, ReloadProgress::Over) {
                ReloadProgress::Ready(new) => {
                    let old = entry.current.replace(new.version.clone());
                    self.remember(&entry.config, &new, old.as_deref(), trigger);
                    self.report_swap(old.as_deref(), &new.version, trigger, began);
                    if let Some(not_admitted) = new.instead_of {
                        self.refuse(entry, not_admitted, trigger);
                    }
                    self.keep(&entry.config.name, new.component);
                }
                ReloadProgress::Candidate(new) => {
                    if let Some(rollout) = &entry.rollout {
                        let plugin = &entry.config.name;
                        self.remember_candidate(plugin, rollout, *new, trigger);
                    }
                }
                other => entry.attempt = other,
            }
        }
        drop(switch);
    }

    /// Discards the version from a plugin's file if an operator rolled back while it was being loaded.
    fn pass_over(&self, entry: &mut ReloadEntry, began: Instant) {
        let name = &entry.config.name;
        let is_of_file = matches!(
            &entry.attempt,
            ReloadProgress::Ready(new) if new.origin == Origin::File && !new.insisted
        );
        let gone_back = self.histories.with(name, |history| history.gone_back);
        if is_of_file && gone_back.is_some_and(|at| at > began) {
            info!(
                plugin = name,
                "the file is passed over: an operator went back while it was being loaded"
            );
            entry.attempt = ReloadProgress::Over;
        }
    }

    /// Locks the switch. The live set does not change while the guard is held.
    fn switch(&self) -> MutexGuard<'_, ()> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only store to the live set. The caller must hold the switch.
    fn store_live(&self, set: PluginSet) {
        self.metrics.messages_by_type.know(set.named_types());
        self.live.store(Arc::new(set));
    }

    fn remember(
        &self,
        config: &Arc<PluginConfig>,
        new: &LoadedVersion,
        old: Option<&PluginVersion>,
        trigger: Trigger,
    ) {
        let watched = new.watched && !self.probation.load().time.is_zero();
        let trial = old
            .filter(|_| watched)
            .map(|old| Trial::begin(&new.version, old));
        let is_on_trial = trial.is_some();
        self.histories.with(&config.name, |history| {
            history.went_live(&new.version, trigger, self.keep);
            if let Some(live) = history.entries.front_mut() {
                live.trial = trial;
            }
            history.pin = (new.origin == Origin::Operator).then(|| Pin {
                file: history.file.clone(),
                config: config.clone(),
            });
        });
        if is_on_trial {
            self.trials.notify_one();
        }
    }
}
