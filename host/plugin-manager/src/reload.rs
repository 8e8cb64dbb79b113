//! A reload: the progress of each plugin in it, until all new versions are live.

use std::{sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{
    LoadError, PluginSet, PluginSlot, PluginVersion, Rollout,
    set::{Claim, Conflict, conflict},
};

use super::{Trigger, load::LoadedVersion};

/// One plugin in a reload.
pub(super) struct ReloadEntry {
    pub(super) config: Arc<PluginConfig>,
    pub(super) current: Option<Arc<PluginVersion>>,
    /// The rollout alongside the current version.
    pub(super) rollout: Option<Arc<Rollout>>,
    pub(super) attempt: ReloadProgress,
}

/// How far a plugin has come in a reload.
pub(super) enum ReloadProgress {
    /// It is being read, compiled or tried out.
    UnderWay,
    /// Admitted, but not live yet.
    Ready(Box<LoadedVersion>),
    /// Admitted, and to be tried alongside `current` first.
    Candidate(Box<LoadedVersion>),
    /// There is nothing left to do: `current` stays.
    Over,
}

impl ReloadEntry {
    /// Updates the place to what is live now, which may have changed since the reload began, and decides how a new
    /// version goes live.
    pub(super) fn examine_again(&mut self, live: &PluginSet, trigger: Trigger) {
        let slot = live.find(&self.config.name);
        self.current = slot.and_then(PluginSlot::version).cloned();
        self.rollout = slot.and_then(PluginSlot::rollout).cloned();
        match std::mem::replace(&mut self.attempt, ReloadProgress::Over) {
            ReloadProgress::Ready(new) => match self.wants_rollout(&new, trigger) {
                Some(config) => {
                    self.rollout = Some(Arc::new(Rollout::begin(&new.version, config)));
                    self.attempt = ReloadProgress::Candidate(new);
                }
                None => {
                    // Any rollout was compared with a version that is being replaced now.
                    self.rollout = None;
                    self.attempt = ReloadProgress::Ready(new);
                }
            },
            other => self.attempt = other,
        }
    }

    /// Its live version once everything that is ready has gone live.
    pub(super) fn next(&self) -> Option<&Arc<PluginVersion>> {
        match &self.attempt {
            ReloadProgress::Ready(new) => Some(&new.version),
            _ => self.current.as_ref(),
        }
    }

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim {
            handles: self.next()?.handled(),
            new: matches!(self.attempt, ReloadProgress::Ready(..)),
        })
    }

    /// The claim once the version on trial is live.
    fn claim_after_rollout(&self) -> Option<Claim<'_>> {
        match (&self.attempt, &self.rollout) {
            (ReloadProgress::Over | ReloadProgress::UnderWay, Some(rollout)) => Some(Claim {
                handles: rollout.candidate().handled(),
                new: false,
            }),
            _ => self.claim(),
        }
    }
}

/// A reload in progress.
pub(super) struct Reload {
    pub(super) trigger: Trigger,
    pub(super) began: Instant,
    pub(super) entries: Vec<ReloadEntry>,
    pub(super) refusals: Vec<(String, LoadError)>,
}

impl Reload {
    /// The first conflict among the versions that would be live after the reload, either at once or after the versions
    /// on trial have gone live.
    pub(super) fn conflict(&self) -> Option<Conflict> {
        let conflict_of = |claim: fn(&ReloadEntry) -> Option<Claim<'_>>| {
            let claims: Vec<_> = self.entries.iter().map(claim).collect();
            conflict(&claims)
        };
        conflict_of(ReloadEntry::claim).or_else(|| conflict_of(ReloadEntry::claim_after_rollout))
    }
}
