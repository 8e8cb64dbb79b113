//! Starts the trial of a version alongside the live one, and ends it by a promotion or a withdrawal.
//!
//! Nothing here waits: a candidate was fully admitted, with its instances, before it served anybody.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use signalbox_config::RolloutConfig;
use signalbox_plugin_runtime::{PluginSet, PluginSlot, RecentCalls, Rollout};
use signalbox_telemetry::metrics::events::{PluginRolledBack, RolledBackFrom};
use tracing::info;

use super::{
    PluginManager, Trigger,
    load::LoadedVersion,
    plugin_history::VersionEntry,
    reload::ReloadEntry,
    trial::{Candidate, Proof, Trial},
};

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
