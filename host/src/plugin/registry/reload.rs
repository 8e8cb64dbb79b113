//! A reload: what becomes of each plugin in it, until all that is new is live.

use std::{sync::Arc, time::Instant};

use super::{Trigger, attempt::Newcomer};
use crate::{
    config::PluginConfig,
    plugin::{
        LoadError, PluginSet, PluginVersion, Rollout, Slot,
        set::{Claim, Conflict, conflict},
    },
};

/// One plugin of a reload.
pub(super) struct Place {
    pub(super) config: Arc<PluginConfig>,
    pub(super) current: Option<Arc<PluginVersion>>,
    /// A version that is tried beside it.
    pub(super) rollout: Option<Arc<Rollout>>,
    pub(super) attempt: Attempt,
}

/// How far a plugin of a reload has come.
pub(super) enum Attempt {
    /// It is being read, compiled or tried out.
    UnderWay,
    /// Admitted, and not live yet.
    Ready(Box<Newcomer>),
    /// Admitted, and to be tried beside `current` first.
    Candidate(Box<Newcomer>),
    /// `current` is what there is to be.
    Over,
}

impl Place {
    /// Takes over what is live now, which may be another version than when the reload began, and decides how what is new
    /// gets there.
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
                    // Whatever was tried was tried against another version than is live now.
                    self.rollout = None;
                    self.attempt = Attempt::Ready(new);
                }
            },
            other => self.attempt = other,
        }
    }

    /// What is live of it once everything that is ready is.
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

    /// The same, once the version that is tried is live.
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

/// A reload under way.
pub(super) struct Reload {
    pub(super) trigger: Trigger,
    pub(super) began: Instant,
    pub(super) places: Vec<Place>,
    pub(super) refusals: Vec<(String, LoadError)>,
}

impl Reload {
    /// The first conflict among what would be live then, now or once what is tried is live.
    pub(super) fn conflict(&self) -> Option<Conflict> {
        let conflict_of = |claim: fn(&Place) -> Option<Claim<'_>>| {
            let claims: Vec<_> = self.places.iter().map(claim).collect();
            conflict(&claims)
        };
        conflict_of(Place::claim).or_else(|| conflict_of(Place::claim_after_rollout))
    }
}
