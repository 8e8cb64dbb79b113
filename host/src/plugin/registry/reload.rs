//! A reload: the progress of each plugin in it, until all new versions are live.

use std::{sync::Arc, time::Instant};

use super::{Trigger, attempt::Newcomer};
use crate::{
    config::PluginConfig,
    plugin::{
        LoadError, PluginSet, PluginVersion, Rollout, Slot,
        set::{Claim, Conflict, conflict},
    },
};

/// One plugin in a reload.
pub(super) struct Place {
    pub(super) config: Arc<PluginConfig>,
    pub(super) current: Option<Arc<PluginVersion>>,
    /// The rollout alongside the current version.
    pub(super) rollout: Option<Arc<Rollout>>,
    pub(super) attempt: Attempt,
}

/// How far a plugin has come in a reload.
pub(super) enum Attempt {
    /// It is being read, compiled or tried out.
    UnderWay,
    /// Admitted, but not live yet.
    Ready(Box<Newcomer>),
    /// Admitted, and to be tried alongside `current` first.
    Candidate(Box<Newcomer>),
    /// There is nothing left to do: `current` stays.
    Over,
}

impl Place {
    /// Updates the place to what is live now, which may have changed since the reload began, and decides how a new
    /// version goes live.
    pub(super) fn look_again(&mut self, live: &PluginSet, trigger: Trigger) {
        let slot = live.find(&self.config.name);
        self.current = slot.and_then(Slot::version).cloned();
        self.rollout = slot.and_then(Slot::rollout).cloned();
        match std::mem::replace(&mut self.attempt, Attempt::Over) {
            Attempt::Ready(new) => match self.wants_rollout(&new, trigger) {
                Some(config) => {
                    self.rollout = Some(Arc::new(Rollout::begin(&new.version, config)));
                    self.attempt = Attempt::Candidate(new);
                }
                None => {
                    // Any rollout was compared with a version that is being replaced now.
                    self.rollout = None;
                    self.attempt = Attempt::Ready(new);
                }
            },
            other => self.attempt = other,
        }
    }

    /// Its live version once everything that is ready has gone live.
    pub(super) fn next(&self) -> Option<&Arc<PluginVersion>> {
        match &self.attempt {
            Attempt::Ready(new) => Some(&new.version),
            _ => self.current.as_ref(),
        }
    }

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim {
            handles: self.next()?.handled(),
            new: matches!(self.attempt, Attempt::Ready(..)),
        })
    }

    /// The claim once the version on trial is live.
    fn claim_after_rollout(&self) -> Option<Claim<'_>> {
        match (&self.attempt, &self.rollout) {
            (Attempt::Over | Attempt::UnderWay, Some(rollout)) => Some(Claim {
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
    pub(super) places: Vec<Place>,
    pub(super) refusals: Vec<(String, LoadError)>,
}

impl Reload {
    /// The first conflict among the versions that would be live after the reload, either at once or after the versions
    /// on trial have gone live.
    pub(super) fn conflict(&self) -> Option<Conflict> {
        let conflict_of = |claim: fn(&Place) -> Option<Claim<'_>>| {
            let claims: Vec<_> = self.places.iter().map(claim).collect();
            conflict(&claims)
        };
        conflict_of(Place::claim).or_else(|| conflict_of(Place::claim_after_rollout))
    }
}
