//! The time after a swap in which a version is on probation, and the automatic rollback to the previous version.
//!
//! Calls are counted as always, in the stats of the version. A separate task reads the stats, so that no message
//! waits for a verdict. A rollback does not wait for a reload in progress, which may compile for seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use signalbox_config::ProbationConfig;
use signalbox_plugin_runtime::{PluginSlot, PluginVersion, Rollout, handover::HandedOver};
use signalbox_telemetry::metrics::events::{PluginRolledBack, RolledBackFrom};
use tokio::time::{interval, sleep};
use tracing::{Instrument, error, info, warn};

use super::{
    PluginManager, Trigger,
    judge::TrialVerdict,
    load::{Given, LoadedVersion},
    plugin_history::{Pin, PluginHistory, VersionEntry, VersionId},
    state::State,
    swap_span,
};
use crate::history::RolledBackVersion;

/// How often the stats are checked while anything is on trial.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often the number of calls of live versions is recorded.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// The action at the end of a trial.
enum TrialAction {
    /// The live version is bad, for this reason.
    RollBack(VersionId, String),
    /// The candidate is good.
    Promote(Arc<Rollout>),
    /// The candidate is bad, for this reason.
    Withdraw(Arc<Rollout>, String),
}

impl PluginManager {
    /// Puts `rules` into force, including for trials in progress.
    pub fn set_probation(&self, rules: ProbationConfig) {
        self.state().rules = rules;
    }

    /// Judges versions on trial, and rolls back those that fail, until the future is dropped.
    pub async fn supervise(&self) {
        let mut marks = interval(MARK_INTERVAL);
        loop {
            let is_on_trial = self.state().is_on_trial();
            tokio::select! {
                () = self.trials.notified(), if !is_on_trial => {}
                () = sleep(LOOK_INTERVAL), if is_on_trial => {}
                _ = marks.tick() => self.state().mark_calls(),
            }
            let due = self.state().judge_trials();
            for (plugin, action) in due {
                let swap = swap_span(&plugin, Trigger::Probation);
                self.end_trial(&plugin, action).instrument(swap).await;
            }
        }
    }

    async fn end_trial(&self, plugin: &str, action: TrialAction) {
        match action {
            TrialAction::RollBack(failed, reason) => {
                self.roll_back_failed(plugin, &failed, &reason).await;
            }
            TrialAction::Promote(rollout) => self.state().promote(plugin, &rollout),
            TrialAction::Withdraw(rollout, reason) => {
                self.state().withdraw(plugin, &rollout, &reason);
            }
        }
    }

    /// Rolls back from the version `failed` to the last good one, unless another version went live in the meantime.
    async fn roll_back_failed(&self, plugin: &str, failed: &VersionId, reason: &str) {
        let began = Instant::now();
        let live = self.live();
        let Some(slot) = live.find(plugin) else {
            return;
        };
        let config = slot.config();
        let Some(bad) = slot.version().filter(|live| VersionId::of(live) == *failed) else {
            return self.state().mark_failed(plugin, failed, reason);
        };
        let plan = self
            .state()
            .observe(config, Trigger::Probation)
            .plan_automatic_rollback();
        let good = match self.load(config, plan, Given::None).await {
            Ok(good) => good,
            Err(failure) => {
                error!(
                    plugin,
                    version = bad.label(),
                    "the plugin fails, and there is no earlier version to roll back to: {reason}; {}",
                    failure.error
                );
                return;
            }
        };
        let held = self.hand_back(bad, &good.version).await;
        let mut state = self.state();
        match held {
            Ok(held) if state.replace_failed(bad, &good, reason, began) => {
                held.into_iter().for_each(HandedOver::end);
            }
            _ => state.mark_failed(plugin, failed, reason),
        }
    }
}

impl State {
    fn is_on_trial(&self) -> bool {
        self.histories.values().any(PluginHistory::is_on_trial)
    }

    /// Records the number of calls of all live versions.
    fn mark_calls(&self) {
        self.histories.values().for_each(PluginHistory::mark_calls);
    }

    /// Ends the trials that are over, and returns the actions to take.
    fn judge_trials(&mut self) -> Vec<(String, TrialAction)> {
        let mut due = Vec::new();
        for (plugin, history) in &mut self.histories {
            let candidate = history.judge_candidate(&self.rules);
            let live = history.judge_live(plugin, &self.rules);
            let actions = candidate.into_iter().chain(live);
            due.extend(actions.map(|action| (plugin.clone(), action)));
        }
        due
    }

    /// Records that the version failed, although another one replaced it before it could be rolled back, so that nobody
    /// rolls back to it by accident.
    fn mark_failed(&mut self, plugin: &str, failed: &VersionId, reason: &str) {
        let live = self.live_version(plugin);
        let history = self.history(plugin);
        if let Some(bad) = history.end_badly(failed) {
            history.bar(&bad, live.as_deref(), reason);
            let version = bad.label();
            warn!(
                plugin,
                version, "a version failed that has been replaced already: {reason}"
            );
            self.persist(plugin, None);
        }
    }

    /// Makes `good` live in place of `bad`. Returns `false`, and changes nothing, if `bad` is no longer live.
    fn replace_failed(
        &mut self,
        bad: &Arc<PluginVersion>,
        good: &LoadedVersion,
        reason: &str,
        began: Instant,
    ) -> bool {
        let plugin = bad.name();
        let live = self.live();
        let is_bad = |slot: &&PluginSlot| slot.version().is_some_and(|live| Arc::ptr_eq(live, bad));
        let Some(slot) = live.find(plugin).filter(is_bad) else {
            return false;
        };
        // A candidate alongside it was compared with a bad version, so it goes too.
        self.replace(plugin, Some(good.version.clone()), None);
        let keep = self.keep;
        let history = self.history(plugin);
        history.went_live(&good.version, Trigger::Probation, keep);
        history.pin = Some(Pin {
            file: history.file.clone(),
            config: slot.config().clone(),
        });
        history.bar(bad, Some(&good.version), reason);
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
        self.persist(plugin, None);
        true
    }
}

impl PluginHistory {
    /// Whether the live version is on probation, or a candidate is on trial alongside it.
    pub(super) fn is_on_trial(&self) -> bool {
        let live = self.entries.front();
        self.candidate.is_some() || live.is_some_and(|entry| entry.trial.is_some())
    }

    /// Records the number of calls of the live version.
    fn mark_calls(&self) {
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

    /// Ends the probation of the live version if it is over, and returns the action to take.
    fn judge_live(&mut self, plugin: &str, rules: &ProbationConfig) -> Option<TrialAction> {
        let entry = self.entries.front_mut().filter(|entry| entry.is_live())?;
        let (trial, version) = (entry.trial.clone()?, entry.resting.clone()?);
        match trial.judge(rules, &version) {
            TrialVerdict::Wait => None,
            TrialVerdict::Passed => {
                entry.trial = None;
                info!(plugin, version = version.label(), "probation passed");
                None
            }
            TrialVerdict::Failed(reason) => {
                entry.trial = None;
                Some(TrialAction::RollBack(entry.id, reason))
            }
        }
    }

    /// Records that a version that is no longer live was bad, not just outdated. `None` if it is still live, or
    /// forgotten.
    fn end_badly(&mut self, failed: &VersionId) -> Option<Arc<PluginVersion>> {
        let ended = |entry: &&mut VersionEntry| entry.id == *failed && entry.end.is_some();
        let entry = self.entries.iter_mut().find(ended)?;
        entry.end.as_mut()?.rolled_back = true;
        entry.resting.clone()
    }

    /// Records that `bad` must not go live automatically again.
    pub(super) fn bar(&mut self, bad: &PluginVersion, good: Option<&PluginVersion>, reason: &str) {
        let id = VersionId::of(bad);
        // If the rollback leads to the same component with another configuration, the configuration is to blame.
        let same = good.is_some_and(|good| bad.hash() == good.hash());
        let rolled_back = RolledBackVersion {
            sha256: id.hash,
            config: same.then_some(id.config),
            reason: reason.to_owned(),
            at: SystemTime::now(),
        };
        rolled_back.remember_in(&mut self.rolled_back);
    }
}
