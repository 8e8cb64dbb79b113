//! Decides what to do about a plugin. Pure: everything that the decision depends on is an argument.

use std::{sync::Arc, time::Instant};

use signalbox_config::{PluginConfig, RolloutConfig};
use signalbox_plugin_runtime::Sha256;

use super::{
    ChangeError, PushOptions, Trigger, Unchanged,
    plugin_history::{Content, PersistedHistory, PluginHistory, VersionEntry, VersionId},
    trigger::Origin,
};

/// The minimum number of sha256 digits that identify a version. Logs and reports show this many.
const DIGITS_MIN: usize = 12;

/// The state of a plugin that decisions depend on.
pub(super) struct Observed<'a> {
    pub(super) config: &'a Arc<PluginConfig>,
    pub(super) live: Option<VersionId>,
    /// The version on trial alongside the live one.
    pub(super) on_trial: Option<VersionId>,
    pub(super) history: &'a PluginHistory,
    pub(super) trigger: Trigger,
}

/// The decision about a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The live version stays.
    Keep(Unchanged),
    /// The live version stays, and is the one in the file again.
    FollowFile,
    /// The live version stays, and the version on trial is withdrawn.
    Withdraw,
    /// Another version is loaded.
    Load(LoadPlan),
}

/// The versions to load until one can be loaded, and how that one goes live.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoadPlan {
    /// The most wanted version first.
    pub(super) steps: Vec<LoadStep>,
    /// Whether an operator insists on the version, so that it goes live without a rollout.
    pub(super) insisted: bool,
    /// Whether the version goes on probation once it is live.
    pub(super) watched: bool,
    /// How the file is recorded if an earlier version is loaded in its place.
    pub(super) fallback: Fallback,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoadStep {
    pub(super) source: LoadSource,
    pub(super) origin: Origin,
}

/// The place to load a version from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoadSource {
    /// The component at hand: from the file, or uploaded.
    Given,
    /// The component of this version, with the current configuration.
    Readmission(VersionId),
    /// A version that was live in this process, with the configuration that it had.
    Resting(VersionId),
    /// A component that is kept on disk, with the current configuration.
    Kept(Sha256),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// As before.
    Unchanged,
    /// As if it had not been examined since the earlier process, whose record had this hash.
    NotExamined(Option<Sha256>),
    /// As refused: it is not loaded until it changes or somebody requests it.
    Refused,
}

impl LoadPlan {
    fn new(steps: Vec<LoadStep>) -> Self {
        Self {
            steps,
            insisted: false,
            watched: true,
            fallback: Fallback::Unchanged,
        }
    }

    fn given(origin: Origin) -> Self {
        Self::new(vec![LoadStep::given(origin)])
    }

    fn insisted(self, insisted: bool) -> Self {
        Self { insisted, ..self }
    }
}

impl LoadStep {
    fn given(origin: Origin) -> Self {
        Self {
            source: LoadSource::Given,
            origin,
        }
    }

    fn earlier(entry: &VersionEntry) -> Self {
        Self {
            source: match entry.resting {
                Some(_) => LoadSource::Resting(entry.id),
                None => LoadSource::Kept(entry.id.hash),
            },
            origin: Origin::Operator,
        }
    }
}

impl Observed<'_> {
    /// Decides what to do about the plugin's file, which has this content. With `force`, it is loaded regardless of
    /// anything that speaks against it.
    pub(super) fn plan_file(&self, content: &Content, force: bool) -> Plan {
        if force {
            return Plan::Load(LoadPlan::given(Origin::File).insisted(true));
        }
        // Explicit requests retry a file that was refused; file notifications do not.
        if self.trigger == Trigger::File && self.history.has_refused(self.config, content) {
            return Plan::Keep(Unchanged::Refused);
        }
        let Some(live) = self.live else {
            return Plan::Load(match &self.history.recalled {
                Some(recalled) => self.plan_resume(content, recalled),
                None => LoadPlan::given(Origin::File),
            });
        };
        let pin = self.history.pin.as_ref();
        if let Some(pin) = pin.filter(|pin| pin.passes_over(content)) {
            return if pin.config.makes_same_version(self.config) {
                Plan::Keep(Unchanged::Held)
            } else {
                Plan::Load(LoadPlan::new(vec![LoadStep {
                    source: LoadSource::Readmission(live),
                    origin: Origin::Operator,
                }]))
            };
        }
        match content.as_ref().ok().map(|hash| self.with_config(*hash)) {
            Some(found) if live == found => Plan::FollowFile,
            Some(found) if self.on_trial == Some(found) => Plan::Keep(Unchanged::OnTrial),
            Some(found) if self.history.why_barred(&found).is_some() => {
                Plan::Keep(Unchanged::RolledBack)
            }
            _ => Plan::Load(LoadPlan::given(Origin::File)),
        }
    }

    /// Plans the first version of a plugin that had versions in an earlier process.
    ///
    /// If the file has not changed since it was last examined, the version that was live goes live again. A changed
    /// file is tried as always. If it cannot be loaded, the version that was live takes its place; if that fails too,
    /// the versions before it do.
    fn plan_resume(&self, content: &Content, recalled: &PersistedHistory) -> LoadPlan {
        let hash = content.as_ref().ok().copied();
        let unchanged = recalled.file == hash;
        let found = hash.map(|hash| self.with_config(hash));
        let barred = found.is_some_and(|found| self.history.why_barred(&found).is_some());
        // If a rollout is configured, a changed file is tried alongside the version that was live, once that is live
        // again.
        let tried_later = self.config.rollout.is_some() && !unchanged;
        let wanted = hash == Some(recalled.live) || !(unchanged || barred || tried_later);
        let origin = if unchanged && recalled.held || barred {
            Origin::Operator
        } else {
            Origin::File
        };
        let mut steps = Vec::new();
        // A file that cannot be read has an error to report.
        if wanted || hash.is_none() {
            steps.push(LoadStep::given(Origin::File));
        }
        let kept = recalled.versions();
        let kept = kept.filter(|kept| !(wanted && hash == Some(**kept)));
        steps.extend(kept.map(|kept| LoadStep {
            source: LoadSource::Kept(*kept),
            origin,
        }));
        if hash.is_some() && !wanted && !barred {
            steps.push(LoadStep::given(Origin::File));
        }
        LoadPlan {
            fallback: match origin {
                _ if tried_later => Fallback::NotExamined(recalled.file),
                Origin::File => Fallback::Refused,
                Origin::Operator => Fallback::Unchanged,
            },
            ..LoadPlan::new(steps)
        }
    }

    /// Decides what to do about an uploaded component with this hash.
    ///
    /// # Errors
    /// Returns [`ChangeError::RolledBack`] if it was rolled back automatically and `options` do not insist on it.
    pub(super) fn plan_component(
        &self,
        hash: Sha256,
        options: PushOptions,
    ) -> Result<Plan, ChangeError> {
        let pushed = self.with_config(hash);
        let insisted = options.force || options.no_probation;
        if self.live == Some(pushed) {
            return Ok(Plan::Keep(Unchanged::Live));
        }
        if !insisted && self.on_trial == Some(pushed) {
            return Ok(Plan::Keep(Unchanged::OnTrial));
        }
        if !options.force
            && let Some(reason) = self.history.why_barred(&pushed)
        {
            return Err(ChangeError::RolledBack {
                version: hash.label(),
                reason,
            });
        }
        Ok(Plan::Load(LoadPlan {
            watched: !options.no_probation,
            ..LoadPlan::given(Origin::Operator).insisted(insisted)
        }))
    }

    /// Decides how to roll back to the version whose sha256 starts with `to`, or without `to` to the latest good one.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if there is no such version.
    pub(super) fn plan_rollback(&self, to: Option<&str>) -> Result<Plan, ChangeError> {
        let entry = match to {
            None if self.live.is_some() && self.on_trial.is_some() => return Ok(Plan::Withdraw),
            None => self
                .history
                .good()
                .next()
                .ok_or(ChangeError::NoEarlierVersion)?,
            Some(to) => {
                let no_such_version = || ChangeError::NoSuchVersion(to.to_owned());
                let sha256 = to.to_ascii_lowercase();
                if sha256.len() < DIGITS_MIN {
                    return Err(no_such_version());
                }
                let live = self.live.map(|live| live.hash.to_string());
                if live.is_some_and(|live| live.starts_with(&sha256)) {
                    return Ok(Plan::Keep(Unchanged::Live));
                }
                self.history.earlier(&sha256).ok_or_else(no_such_version)?
            }
        };
        Ok(Plan::Load(LoadPlan::new(vec![LoadStep::earlier(entry)])))
    }

    /// Plans the replacement of a live version that failed: by the latest good version that starts.
    pub(super) fn plan_automatic_rollback(&self) -> LoadPlan {
        LoadPlan::new(self.history.good().map(LoadStep::earlier).collect())
    }

    /// Decides how a loaded version is put into service, given what is live by now.
    pub(super) fn plan_activation(&self, loaded: Loaded) -> Activation {
        let rolled_back_since = self
            .history
            .gone_back
            .is_some_and(|at| at > loaded.requested);
        // A rollback waits until the state is handed over, and comes after.
        let is_overtaken = rolled_back_since && !loaded.has_state;
        if is_overtaken && loaded.origin == Origin::File && !loaded.insisted {
            return Activation::Discard;
        }
        match self.config.rollout {
            Some(rollout)
                if self.trigger.tries_first() && !loaded.insisted && self.live.is_some() =>
            {
                Activation::Trial(rollout)
            }
            _ => Activation::Live,
        }
    }

    /// The component with the current configuration.
    fn with_config(&self, hash: Sha256) -> VersionId {
        VersionId::new(hash, self.config)
    }
}

/// A version that was loaded, as far as its activation depends on it.
#[derive(Clone, Copy)]
pub(super) struct Loaded {
    pub(super) origin: Origin,
    pub(super) insisted: bool,
    /// When it was requested.
    pub(super) requested: Instant,
    /// Whether it has taken over the state of the live version.
    pub(super) has_state: bool,
}

/// How a loaded version is put into service.
#[derive(Debug, PartialEq)]
pub(super) enum Activation {
    /// It goes live.
    Live,
    /// It is tried alongside the live version first.
    Trial(RolloutConfig),
    /// It is discarded: an operator rolled back while the file was being loaded.
    Discard,
}

#[cfg(test)]
mod tests;
