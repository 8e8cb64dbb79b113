//! The time after a swap in which a version is on probation, and the automatic rollback to the previous version.
//!
//! Calls are counted as always, in the figures of the version. A separate task reads the figures, so that no message
//! waits for a verdict. A rollback does not wait for a reload in progress, which may compile for seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{interval, sleep};
use tracing::{Instrument, error, info, warn};

use super::{
    Registry, Trigger,
    attempt::{Newcomer, Tried},
    back::{Back, back},
    judge::{Judgement, Own, Phase, judge},
    record::{Hold, Record, config_hash},
    swap_span,
};
use crate::{
    config::ProbationConfig,
    metrics::events::{PluginRolledBack, RolledBackFrom},
    plugin::{
        PluginSet, PluginVersion, Rollout, Slot,
        evidence::Found,
        handover::HandedOver,
        recent::Lately,
        replay::Replays,
        version::label,
        versions::{Digest, RolledBack},
    },
};

/// How often the figures are checked while anything is on trial.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often the number of calls of live versions is recorded.
const MARK_INTERVAL: Duration = Duration::from_secs(30);

/// The trial of a version.
#[derive(Clone)]
pub(super) struct Trial {
    began: Instant,
    /// The number of calls that the version had answered when the trial began.
    from: u64,
    /// The recent calls of the previous version.
    before: Lately,
    /// Replays the failed calls of this version on the previous one.
    replays: Arc<Replays>,
}

impl Trial {
    /// Begins a trial now. Must be called within a Tokio runtime.
    pub(super) fn begin(version: &PluginVersion, before: &PluginVersion) -> Self {
        let replays = Replays::start(before);
        version.figures().replay_to(&replays);
        Self {
            began: Instant::now(),
            from: calls(version),
            before: before.figures().lately(),
            replays,
        }
    }

    /// The evidence against the version so far.
    pub(super) fn found(&self) -> Found {
        self.replays.evidence().found()
    }

    pub(super) fn judge(&self, rules: &ProbationConfig, version: &PluginVersion) -> Judgement {
        let own = Own {
            calls: calls(version).saturating_sub(self.from),
            found: self.found(),
        };
        judge(rules, self.before, own, phase(self.began, rules))
    }
}

/// The number of all calls of `version`.
pub(super) fn calls(version: &PluginVersion) -> u64 {
    version.figures().call_time().count()
}

/// The current phase of a trial that began at `began`.
pub(super) fn phase(began: Instant, rules: &ProbationConfig) -> Phase {
    let elapsed = began.elapsed();
    if elapsed < rules.time {
        Phase::Running
    } else if elapsed < rules.time * 2 {
        Phase::Over
    } else {
        Phase::Final
    }
}

/// The action at the end of a trial.
enum Due {
    /// The live version is bad, for this reason.
    TakeBack(Digest, String),
    /// The candidate is good.
    Promote(Arc<Rollout>),
    /// The candidate is bad, for this reason.
    Withdraw(Arc<Rollout>, String),
}

impl Registry {
    /// Puts `rules` into force, including for trials in progress.
    pub fn set_probation(&self, rules: ProbationConfig) {
        self.probation.store(Arc::new(rules));
    }

    /// Judges versions on trial, and rolls back those that fail, until the future is dropped.
    pub async fn supervise(&self) {
        let mut marks = interval(MARK_INTERVAL);
        loop {
            let is_on_trial = self.records.any(Record::is_on_trial);
            tokio::select! {
                () = self.trials.notified(), if !is_on_trial => {}
                () = sleep(LOOK_INTERVAL), if is_on_trial => {}
                _ = marks.tick() => self.records.each(|_, record| record.mark()),
            }
            for (plugin, due) in self.judge_all() {
                let swap = swap_span(&plugin, Trigger::Probation);
                self.settle(&plugin, due).instrument(swap).await;
            }
        }
    }

    async fn settle(&self, plugin: &str, due: Due) {
        match due {
            Due::TakeBack(judged, reason) => self.take_back(plugin, &judged, reason).await,
            Due::Promote(rollout) => self.promote(plugin, &rollout),
            Due::Withdraw(rollout, reason) => self.withdraw(plugin, &rollout, &reason),
        }
    }

    /// Ends the trials that are over, and returns the actions to take.
    fn judge_all(&self) -> Vec<(String, Due)> {
        let rules = self.probation.load();
        let mut due = Vec::new();
        self.records.each(|plugin, record| {
            if let Some(end) = record.judge_candidate(&rules) {
                due.push((plugin.to_owned(), end));
            }
            let Some((stint, trial)) = record.on_trial() else {
                return;
            };
            let Some(version) = stint.resting.clone() else {
                return;
            };
            match trial.judge(&rules, &version) {
                Judgement::Wait => {}
                Judgement::Passed => {
                    stint.trial = None;
                    info!(
                        plugin,
                        version = version.label(),
                        "the probation is over, the version stays"
                    );
                }
                Judgement::Failed(reason) => {
                    stint.trial = None;
                    due.push((plugin.to_owned(), Due::TakeBack(stint.hash, reason)));
                }
            }
        });
        due
    }

    /// Rolls back from the version `judged` to the last good one, unless another version went live in the meantime.
    async fn take_back(&self, plugin: &str, judged: &Digest, reason: String) {
        let began = Instant::now();
        let live = self.live();
        let Some(slot) = live.find(plugin) else {
            return;
        };
        let Some(bad) = slot.version().filter(|live| *live.hash() == judged.0) else {
            return self.condemn(plugin, judged, &reason);
        };
        let earlier: Vec<Back> = self
            .records
            .with(plugin, |record| record.good().map(back).collect());
        for back in earlier {
            let name = label(back.hash());
            match self.go_back(slot.config(), back, KEPT_BYTES_MAX).await {
                Ok(Tried::New(good)) => {
                    let held = self.hand_back(bad, &good.version).await;
                    let Some(held) = held
                        .ok()
                        .filter(|_| self.switch_back(bad, &good, &reason, began))
                    else {
                        return self.condemn(plugin, judged, &reason);
                    };
                    return held.into_iter().for_each(HandedOver::end);
                }
                Ok(Tried::Same(_)) => {}
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
    fn condemn(&self, plugin: &str, judged: &Digest, reason: &str) {
        let _switch = self.switch();
        let live = self.live();
        let live = live.find(plugin).and_then(Slot::version);
        let condemned = self.records.with(plugin, |record| {
            let bad = record.end_badly(judged)?;
            record.take_back(&bad, live.map(Arc::as_ref), reason);
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
        good: &Newcomer,
        reason: &str,
        began: Instant,
    ) -> bool {
        let plugin = bad.name();
        let _switch = self.switch();
        let live = self.live();
        let is_bad = |slot: &Slot| slot.version().is_some_and(|live| Arc::ptr_eq(live, bad));
        let Some(slot) = live.find(plugin).filter(|slot| is_bad(slot)) else {
            return false;
        };
        let config = slot.config().clone();
        let slots = live.slots().iter().map(|slot| match is_bad(slot) {
            // A candidate alongside it was compared with a bad version, so it goes too.
            true => Slot::new(config.clone(), Some(good.version.clone()), None),
            false => slot.clone(),
        });
        self.store_live(PluginSet::new(slots.collect()));
        self.records.with(plugin, |record| {
            record.went_live(&good.version, Trigger::Probation, self.keep);
            record.hold = Some(Hold {
                file: record.file.clone(),
                config,
            });
            record.take_back(bad, Some(&good.version), reason);
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

impl Record {
    /// Whether the live version is on probation, or a candidate is on trial alongside it.
    pub(super) fn is_on_trial(&self) -> bool {
        let live = self.stints.front();
        self.candidate.is_some() || live.is_some_and(|stint| stint.trial.is_some())
    }

    /// Records the number of calls of the live version.
    fn mark(&self) {
        if let Some(live) = self.stints.front().and_then(|live| live.resting.as_ref()) {
            live.figures().mark();
        }
    }

    /// The action to take on the candidate; `None` if it is too early.
    fn judge_candidate(&self, rules: &ProbationConfig) -> Option<Due> {
        let candidate = self.candidate.as_ref()?;
        let rollout = &candidate.rollout;
        match candidate.judge(rules) {
            Judgement::Wait => None,
            Judgement::Passed => Some(Due::Promote(rollout.clone())),
            Judgement::Failed(reason) => Some(Due::Withdraw(rollout.clone(), reason)),
        }
    }

    /// The live version with its trial, if it is on probation.
    fn on_trial(&mut self) -> Option<(&mut super::record::Stint, Trial)> {
        let stint = self.stints.front_mut().filter(|stint| stint.is_live())?;
        let trial = stint.trial.clone()?;
        Some((stint, trial))
    }

    /// Records that a version that is no longer live was bad, not just outdated. `None` if it is still live, or
    /// forgotten.
    fn end_badly(&mut self, judged: &Digest) -> Option<Arc<PluginVersion>> {
        let ended =
            |stint: &&mut super::record::Stint| stint.hash == *judged && stint.end.is_some();
        let stint = self.stints.iter_mut().find(ended)?;
        stint.end.as_mut()?.rolled_back = true;
        stint.resting.clone()
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
        let taken_back = RolledBack {
            sha256: Digest(*bad.hash()),
            config,
            reason: reason.to_owned(),
            at: SystemTime::now(),
        };
        taken_back.remember_in(&mut self.rolled_back);
    }
}
