//! Starts the trial of a version alongside the live one, and ends it by a promotion or a withdrawal.
//!
//! Nothing here waits: a candidate was fully admitted, with its instances, before it served anybody.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use tracing::info;

use super::{
    PluginManager, Trigger,
    judge::{TrialCalls, TrialVerdict, judge},
    load::{LoadedVersion, Origin},
    plugin_history::VersionEntry,
    probation::{Trial, calls, phase},
    reload::ReloadEntry,
};
use crate::{
    config::{ProbationConfig, RolloutConfig},
    metrics::events::{PluginRolledBack, RolledBackFrom},
    plugin::{
        PluginSet, PluginSlot, Shadow, call_window::RecentCalls, evidence::EvidenceSummary,
        rollout::Rollout,
    },
};

/// A version on trial alongside the live one.
pub(super) struct Candidate {
    pub(super) rollout: Arc<Rollout>,
    origin: Origin,
    /// Its bytes, to be stored on disk once it is live.
    component: Option<Arc<[u8]>>,
    pub(super) since: SystemTime,
    began: Instant,
    pub(super) trigger: Trigger,
    trial: Proof,
}

/// The basis on which it is judged.
enum Proof {
    /// Calls of its own users.
    Canary(Trial),
    /// Copied calls, compared with the recent calls of the live version at the start of the trial.
    Copies(RecentCalls),
}

impl Trigger {
    /// Whether a version with this trigger is tried alongside the live one first, if a rollout is configured.
    fn tries_first(self) -> bool {
        // A rollback must not wait, the nodes of a cluster go live together, and at startup there is nothing to compare
        // with.
        !matches!(
            self,
            Self::Start | Self::Rollback | Self::Probation | Self::Cluster
        )
    }
}

impl Candidate {
    pub(super) fn judge(&self, rules: &ProbationConfig) -> TrialVerdict {
        match &self.trial {
            Proof::Canary(trial) => trial.judge(rules, self.rollout.candidate()),
            Proof::Copies(before) => {
                let own = TrialCalls {
                    calls: calls(self.rollout.judged()),
                    found: self.found(),
                };
                judge(rules, *before, own, phase(self.began, rules))
            }
        }
    }

    /// The evidence against it so far.
    pub(super) fn found(&self) -> EvidenceSummary {
        match &self.trial {
            Proof::Canary(trial) => trial.found(),
            Proof::Copies(_) => self.rollout.shadow().map(Shadow::found).unwrap_or_default(),
        }
    }

    /// Whether it came from the file. If so, the file is not settled until the candidate is promoted or withdrawn.
    pub(super) fn is_of_file(&self) -> bool {
        self.origin == Origin::File
    }
}

impl ReloadEntry {
    /// How its new version is to be tried; `None` if it goes live at once.
    pub(super) fn wants_rollout(
        &self,
        new: &LoadedVersion,
        trigger: Trigger,
    ) -> Option<RolloutConfig> {
        let tried = trigger.tries_first() && !new.insisted && self.current.is_some();
        self.config.rollout.filter(|_| tried)
    }
}

impl PluginManager {
    /// Records that `rollout` has begun.
    pub(super) fn remember_candidate(
        &self,
        plugin: &str,
        rollout: &Arc<Rollout>,
        new: LoadedVersion,
        trigger: Trigger,
    ) {
        let live = self
            .live()
            .find(plugin)
            .and_then(PluginSlot::version)
            .cloned();
        let trial = match (rollout.shadow(), live) {
            (None, Some(live)) => Proof::Canary(Trial::begin(rollout.candidate(), &live)),
            (_, live) => {
                Proof::Copies(live.map_or_else(RecentCalls::default, |live| live.stats().lately()))
            }
        };
        let candidate = Candidate {
            trial,
            rollout: rollout.clone(),
            origin: new.origin,
            component: new.component,
            since: SystemTime::now(),
            began: Instant::now(),
            trigger,
        };
        self.histories.with(plugin, |history| {
            history.failure = None;
            history.candidate = Some(candidate);
        });
        self.trials.notify_one();
        info!(
            plugin,
            version = rollout.candidate().label(),
            mode = rollout.mode(),
            percent = rollout.percent(),
            trigger = trigger.as_str(),
            "plugin rollout began"
        );
    }

    /// Makes the candidate live.
    pub(super) fn promote(&self, plugin: &str, rollout: &Arc<Rollout>) {
        let switch = self.switch();
        let Some((slot, candidate)) = self.end_rollout(plugin, rollout, true) else {
            return;
        };
        let new = LoadedVersion {
            version: rollout.candidate().clone(),
            origin: candidate.origin,
            component: candidate.component,
            insisted: false,
            watched: true,
            instead_of: None,
        };
        let old = slot.version().map(Arc::as_ref);
        self.remember(slot.config(), &new, old, candidate.trigger);
        self.report_swap(old, &new.version, candidate.trigger, candidate.began);
        self.keep(plugin, new.component);
        drop(switch);
    }

    /// Withdraws the candidate for `reason`; the live version stays.
    pub(super) fn withdraw(&self, plugin: &str, rollout: &Arc<Rollout>, reason: &str) {
        let began = Instant::now();
        let switch = self.switch();
        let Some((slot, candidate)) = self.end_rollout(plugin, rollout, false) else {
            return;
        };
        let bad = rollout.candidate();
        let live = slot.version();
        self.histories.with(plugin, |history| {
            history.withdrawn = Some(VersionEntry::withdrawn(
                rollout.judged(),
                candidate.since,
                candidate.trigger,
            ));
            history.take_back(bad, live.map(Arc::as_ref), reason);
        });
        PluginRolledBack {
            metrics: bad.metrics(),
            plugin,
            from: match rollout.shadow() {
                Some(_) => RolledBackFrom::Shadow,
                None => RolledBackFrom::Canary,
            },
            bad: bad.label(),
            good: live.map_or("none", |live| live.label()),
            reason,
            live_after: began.elapsed(),
        }
        .emit();
        self.keep(plugin, None);
        drop(switch);
    }

    /// Drops a candidate that came from the file, because the file has the live version again.
    pub(super) fn forget_candidate_of_file(&self, plugin: &str) {
        let _switch = self.switch();
        let of_file = self.histories.with(plugin, |history| {
            let candidate = history.candidate.as_ref();
            let candidate = candidate.filter(|candidate| candidate.is_of_file());
            candidate.map(|candidate| candidate.rollout.clone())
        });
        if let Some(rollout) = of_file
            && self.end_rollout(plugin, &rollout, false).is_some()
        {
            let version = rollout.candidate().label();
            info!(
                plugin,
                version, "plugin rollout ended, the file has the live version again"
            );
        }
    }

    /// Removes `rollout` from the live set, if it is there, and makes its candidate live if `promoted`. Returns the
    /// slot as it was, and the candidate. The caller must hold the switch.
    fn end_rollout(
        &self,
        plugin: &str,
        rollout: &Arc<Rollout>,
        promoted: bool,
    ) -> Option<(PluginSlot, Candidate)> {
        let live = self.live();
        let is_it = |slot: &&PluginSlot| {
            let other = slot.rollout();
            other.is_some_and(|other| Arc::ptr_eq(other, rollout))
        };
        let ended = live.find(plugin).filter(is_it)?.clone();
        let slots = live.slots().iter().map(|slot| match is_it(&slot) {
            true if promoted => {
                let version = rollout.candidate().clone();
                PluginSlot::new(slot.config().clone(), Some(version), None)
            }
            true => PluginSlot::new(slot.config().clone(), slot.version().cloned(), None),
            false => slot.clone(),
        });
        self.store_live(PluginSet::new(slots.collect()));
        let candidate = self
            .histories
            .with(plugin, |history| history.candidate.take())?;
        Some((ended, candidate))
    }
}
