//! The time after a swap in which a version is on probation, and the automatic rollback to the previous version.
//!
//! Calls are counted as always, in the stats of the version. A separate task reads the stats, so that no message
//! waits for a verdict. A rollback does not wait for a reload in progress, which may compile for seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use signalbox_config::ProbationConfig;
use signalbox_plugin_runtime::{
    PluginSet, PluginSlot, PluginVersion, Rollout, Sha256, handover::HandedOver,
};
use signalbox_telemetry::metrics::events::{PluginRolledBack, RolledBackFrom};
use tokio::time::{interval, sleep};
use tracing::{Instrument, error, info, warn};

use super::{
    PluginManager, Trigger,
    judge::TrialVerdict,
    load::{LoadOutcome, LoadedVersion},
    plugin_history::{Pin, PluginHistory, VersionEntry, config_hash},
    rollback::{RollbackTarget, back},
    swap_span,
    trial::Trial,
};
use crate::history::RolledBackVersion;

/// How often the stats are checked while anything is on trial.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often the number of calls of live versions is recorded.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// The action at the end of a trial.
enum TrialAction {
    /// The live version is bad, for this reason.
    TakeBack(Sha256, String),
    /// The candidate is good.
    Promote(Arc<Rollout>),
    /// The candidate is bad, for this reason.
    Withdraw(Arc<Rollout>, String),
}

impl PluginManager {
    /// Puts `rules` into force, including for trials in progress.
    pub fn set_probation(&self, rules: ProbationConfig) {
        self.probation.store(Arc::new(rules));
    }

    /// Judges versions on trial, and rolls back those that fail, until the future is dropped.
    pub async fn supervise(&self) {
        let mut marks = interval(MARK_INTERVAL);
        loop {
            let is_on_trial = self.histories.any(PluginHistory::is_on_trial);
            tokio::select! {
                () = self.trials.notified(), if !is_on_trial => {}
                () = sleep(LOOK_INTERVAL), if is_on_trial => {}
                _ = marks.tick() => self.histories.each(|_, history| history.mark()),
            }
            for (plugin, due) in self.judge_all() {
                let swap = swap_span(&plugin, Trigger::Probation);
                self.settle(&plugin, due).instrument(swap).await;
            }
        }
    }

    async fn settle(&self, plugin: &str, due: TrialAction) {
        match due {
            TrialAction::TakeBack(judged, reason) => self.take_back(plugin, &judged, reason).await,
            TrialAction::Promote(rollout) => self.promote(plugin, &rollout),
            TrialAction::Withdraw(rollout, reason) => self.withdraw(plugin, &rollout, &reason),
        }
    }

    /// Ends the trials that are over, and returns the actions to take.
    fn judge_all(&self) -> Vec<(String, TrialAction)> {
        let rules = self.probation.load();
        let mut due = Vec::new();
        self.histories.each(|plugin, history| {
            if let Some(end) = history.judge_candidate(&rules) {
                due.push((plugin.to_owned(), end));
            }
            let Some((entry, trial)) = history.on_trial() else {
                return;
            };
            let Some(version) = entry.resting.clone() else {
                return;
            };
            match trial.judge(&rules, &version) {
                TrialVerdict::Wait => {}
                TrialVerdict::Passed => {
                    entry.trial = None;
                    info!(
                        plugin,
                        version = version.label(),
                        "the probation is over, the version stays"
                    );
                }
                TrialVerdict::Failed(reason) => {
                    entry.trial = None;
                    due.push((plugin.to_owned(), TrialAction::TakeBack(entry.hash, reason)));
                }
            }
        });
        due
    }

    /// Rolls back from the version `judged` to the last good one, unless another version went live in the meantime.
    async fn take_back(&self, plugin: &str, judged: &Sha256, reason: String) {
        let began = Instant::now();
        let live = self.live();
        let Some(slot) = live.find(plugin) else {
            return;
        };
        let Some(bad) = slot.version().filter(|live| live.hash() == judged) else {
            return self.mark_failed(plugin, judged, &reason);
        };
        let earlier: Vec<RollbackTarget> = self
            .histories
            .with(plugin, |history| history.good().map(back).collect());
        for back in earlier {
            let name = back.hash().label();
            match self.go_back(slot.config(), back, KEPT_BYTES_MAX).await {
                Ok(LoadOutcome::New(good)) => {
                    let held = self.hand_back(bad, &good.version).await;
                    let Some(held) = held
                        .ok()
                        .filter(|_| self.switch_back(bad, &good, &reason, began))
                    else {
                        return self.mark_failed(plugin, judged, &reason);
                    };
                    return held.into_iter().for_each(HandedOver::end);
                }
                Ok(LoadOutcome::Same(_)) => {}
                Err(refused) => {
                    let error = refused.error;
                    warn!(
                        plugin,
                        version = name,
                        "a version to go back to does not start: {error}"
                    );
                }
            }
        }
        error!(
            plugin,
            version = bad.label(),
            "the plugin fails, and there is no earlier version to go back to: {reason}"
        );
    }

    /// Records that the version `judged` failed, although another one replaced it before it could be rolled back, so
    /// that nobody rolls back to it by accident.
    fn mark_failed(&self, plugin: &str, judged: &Sha256, reason: &str) {
        let _switch = self.switch();
        let live = self.live();
        let live = live.find(plugin).and_then(PluginSlot::version);
        let condemned = self.histories.with(plugin, |history| {
            let bad = history.end_badly(judged)?;
            history.take_back(&bad, live.map(Arc::as_ref), reason);
            Some(bad)
        });
        if let Some(bad) = condemned {
            let version = bad.label();
            warn!(
                plugin,
                version, "a version failed that another one has replaced already: {reason}"
            );
            self.keep(plugin, None);
        }
    }

    /// Makes `good` live in place of `bad`. Returns `false`, and changes nothing, if `bad` is no longer live.
    fn switch_back(
        &self,
        bad: &Arc<PluginVersion>,
        good: &LoadedVersion,
        reason: &str,
        began: Instant,
    ) -> bool {
        let plugin = bad.name();
        let _switch = self.switch();
        let live = self.live();
        let is_bad = |slot: &PluginSlot| slot.version().is_some_and(|live| Arc::ptr_eq(live, bad));
        let Some(slot) = live.find(plugin).filter(|slot| is_bad(slot)) else {
            return false;
        };
        let config = slot.config().clone();
        let slots = live.slots().iter().map(|slot| match is_bad(slot) {
            // A candidate alongside it was compared with a bad version, so it goes too.
            true => PluginSlot::new(config.clone(), Some(good.version.clone()), None),
            false => slot.clone(),
        });
        self.store_live(PluginSet::new(slots.collect()));
        self.histories.with(plugin, |history| {
            history.went_live(&good.version, Trigger::Probation, self.keep);
            history.pin = Some(Pin {
                file: history.file.clone(),
                config,
            });
            history.take_back(bad, Some(&good.version), reason);
        });
        PluginRolledBack {
            metrics: bad.metrics(),
            plugin,
            from: RolledBackFrom::Live,
            bad: bad.label(),
            good: good.version.label(),
            reason,
            live_after: began.elapsed(),
        }
        .emit();
        self.keep(plugin, None);
        true
    }
}

/// The maximum size, in bytes, of a component that is read from the versions on disk. Each was within the limit when it
/// went live.
const KEPT_BYTES_MAX: usize = 1 << 30;

impl PluginHistory {
    /// Whether the live version is on probation, or a candidate is on trial alongside it.
    pub(super) fn is_on_trial(&self) -> bool {
        let live = self.entries.front();
        self.candidate.is_some() || live.is_some_and(|entry| entry.trial.is_some())
    }

    /// Records the number of calls of the live version.
    fn mark(&self) {
        if let Some(live) = self.entries.front().and_then(|live| live.resting.as_ref()) {
            live.stats().mark();
        }
    }

    /// The action to take on the candidate; `None` if it is too early.
    fn judge_candidate(&self, rules: &ProbationConfig) -> Option<TrialAction> {
        let candidate = self.candidate.as_ref()?;
        let rollout = &candidate.rollout;
        match candidate.judge(rules) {
            TrialVerdict::Wait => None,
            TrialVerdict::Passed => Some(TrialAction::Promote(rollout.clone())),
            TrialVerdict::Failed(reason) => Some(TrialAction::Withdraw(rollout.clone(), reason)),
        }
    }

    /// The live version with its trial, if it is on probation.
    fn on_trial(&mut self) -> Option<(&mut VersionEntry, Trial)> {
        let entry = self.entries.front_mut().filter(|entry| entry.is_live())?;
        let trial = entry.trial.clone()?;
        Some((entry, trial))
    }

    /// Records that a version that is no longer live was bad, not just outdated. `None` if it is still live, or
    /// forgotten.
    fn end_badly(&mut self, judged: &Sha256) -> Option<Arc<PluginVersion>> {
        let ended = |entry: &&mut VersionEntry| entry.hash == *judged && entry.end.is_some();
        let entry = self.entries.iter_mut().find(ended)?;
        entry.end.as_mut()?.rolled_back = true;
        entry.resting.clone()
    }

    /// Records that `bad` must not go live automatically again.
    pub(super) fn take_back(
        &mut self,
        bad: &PluginVersion,
        good: Option<&PluginVersion>,
        reason: &str,
    ) {
        // If the rollback leads to the same component with another configuration, the configuration is to blame.
        let same = good.is_some_and(|good| bad.hash() == good.hash());
        let config = same.then(|| config_hash(bad.config()));
        let taken_back = RolledBackVersion {
            sha256: *bad.hash(),
            config,
            reason: reason.to_owned(),
            at: SystemTime::now(),
        };
        taken_back.remember_in(&mut self.rolled_back);
    }
}
