//! Tries a new version on some users, or on copies, before it serves everybody.
//!
//! The version that serves a message depends on the set and the user alone ([`share`]), so a message sees one version
//! of each plugin from start to end, and the messages of one user stay in order. [`shadow`] runs a version on copies.

mod compare;
mod copy;
mod shadow;
mod share;

use std::sync::Arc;

use signalbox_config::RolloutConfig;

pub(super) use self::{compare::VersionAnswer, copy::ask};
pub use self::{
    compare::{AnswerDifference, ToVersionAnswer},
    shadow::{Shadow, ShadowFindings},
};
use super::version::PluginVersion;

/// A version that is being rolled out.
#[derive(Debug)]
pub struct Rollout {
    /// The version as it will go live.
    candidate: Arc<PluginVersion>,
    way: RolloutKind,
}

#[derive(Debug)]
enum RolloutKind {
    Canary { percent: u32 },
    Shadow(Shadow),
}

impl Rollout {
    /// Begins a rollout as `config` says. Must be called within a Tokio runtime, in which a shadow runs in its own task
    /// until the last set that holds it is gone.
    pub fn begin(candidate: &Arc<PluginVersion>, config: RolloutConfig) -> Self {
        Self {
            candidate: candidate.clone(),
            way: match config {
                RolloutConfig::Canary { percent } => RolloutKind::Canary { percent },
                RolloutConfig::Shadow => RolloutKind::Shadow(Shadow::start(candidate)),
            },
        }
    }

    /// The version on trial.
    pub fn candidate(&self) -> &Arc<PluginVersion> {
        &self.candidate
    }

    /// The version that serves `user`, if that is not the live one.
    pub fn serves(&self, user: &str) -> Option<&Arc<PluginVersion>> {
        match self.way {
            RolloutKind::Canary { percent } => {
                share::is_among(percent, self.candidate.name(), user).then_some(&self.candidate)
            }
            RolloutKind::Shadow(_) => None,
        }
    }

    /// The version that runs on copies, if there is one.
    pub fn shadow(&self) -> Option<&Shadow> {
        match &self.way {
            RolloutKind::Canary { .. } => None,
            RolloutKind::Shadow(shadow) => Some(shadow),
        }
    }

    /// The version whose stats show how the candidate behaves: the candidate itself, or the version that runs on
    /// copies in its place.
    pub fn judged(&self) -> &Arc<PluginVersion> {
        match &self.way {
            RolloutKind::Canary { .. } => &self.candidate,
            RolloutKind::Shadow(shadow) => shadow.version(),
        }
    }

    /// The mode, as named in logs and reports.
    pub fn mode(&self) -> &'static str {
        match self.way {
            RolloutKind::Canary { .. } => "canary",
            RolloutKind::Shadow(_) => "shadow",
        }
    }

    /// The share of users that it serves, in percent; `None` for a shadow.
    pub fn percent(&self) -> Option<u32> {
        match self.way {
            RolloutKind::Canary { percent } => Some(percent),
            RolloutKind::Shadow(_) => None,
        }
    }
}
