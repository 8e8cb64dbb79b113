//! Starts the trial of a version alongside the live one, and ends it by a promotion or a withdrawal.
//!
//! Nothing here waits: a candidate was fully admitted, with its instances, before it served anybody.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use signalbox_plugin_runtime::{PluginSlot, PluginVersion, RecentCalls, Rollout};
use signalbox_telemetry::metrics::events::{PluginRolledBack, RolledBackFrom};
use tracing::info;

use super::{
    Trigger,
    load::LoadedVersion,
    plugin_history::VersionEntry,
    state::State,
    trial::{Candidate, Proof, Trial},
};

impl State {
    /// Records that `rollout` has begun.
    pub(super) fn trial_began(
        &mut self,
        plugin: &str,
        rollout: &Arc<Rollout>,
        new: LoadedVersion,
        trigger: Trigger,
    ) {
        let live = self.live_version(plugin);
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
        let history = self.history(plugin);
        history.failure = None;
        history.candidate = Some(candidate);
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
    pub(super) fn promote(&mut self, plugin: &str, rollout: &Arc<Rollout>) {
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
        self.went_live(slot.config(), new, old, candidate.trigger, candidate.began);
    }

    /// Withdraws the candidate on trial, if there is one, for `reason`. Returns its version.
    pub(super) fn withdraw_any(
        &mut self,
        plugin: &str,
        reason: &str,
    ) -> Option<Arc<PluginVersion>> {
        let live = self.live();
        let rollout = live.find(plugin).and_then(PluginSlot::rollout)?;
        self.withdraw(plugin, rollout, reason);
        Some(rollout.candidate().clone())
    }

    /// Withdraws the candidate for `reason`; the live version stays.
    pub(super) fn withdraw(&mut self, plugin: &str, rollout: &Arc<Rollout>, reason: &str) {
        let began = Instant::now();
        let Some((slot, candidate)) = self.end_rollout(plugin, rollout, false) else {
            return;
        };
        let bad = rollout.candidate();
        let live = slot.version();
        let history = self.history(plugin);
        history.withdrawn = Some(VersionEntry::withdrawn(
            rollout.judged(),
            candidate.since,
            candidate.trigger,
        ));
        history.bar(bad, live.map(Arc::as_ref), reason);
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
        self.persist(plugin, None);
    }

    /// Follows the plugin's file again, because it has the live version. A candidate that came from the file is
    /// dropped.
    pub(super) fn follow_file(&mut self, plugin: &str) {
        let history = self.history(plugin);
        history.pin = None;
        let candidate = history.candidate.as_ref();
        let of_file = candidate.filter(|candidate| candidate.is_of_file());
        let of_file = of_file.map(|candidate| candidate.rollout.clone());
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
    /// slot as it was, and the candidate.
    fn end_rollout(
        &mut self,
        plugin: &str,
        rollout: &Arc<Rollout>,
        promoted: bool,
    ) -> Option<(PluginSlot, Candidate)> {
        let live = self.live();
        let slot = live.find(plugin)?;
        slot.rollout()
            .filter(|current| Arc::ptr_eq(current, rollout))?;
        let version = if promoted {
            Some(rollout.candidate().clone())
        } else {
            slot.version().cloned()
        };
        self.replace(plugin, version, None);
        let candidate = self.history(plugin).candidate.take()?;
        Some((slot.clone(), candidate))
    }
}
