//! Versions on trial: live ones on probation, and candidates of a rollout.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use signalbox_config::ProbationConfig;
use signalbox_plugin_runtime::{
    EvidenceSummary, PluginVersion, RecentCalls, Replays, Rollout, Shadow, start_replays,
};

use super::{
    Trigger,
    judge::{TrialCalls, TrialPhase, TrialVerdict, judge},
    trigger::Origin,
};

/// The trial of a version.
#[derive(Clone)]
pub(super) struct Trial {
    began: Instant,
    /// The number of calls that the version had answered when the trial began.
    from: u64,
    /// The recent calls of the previous version.
    before: RecentCalls,
    /// Replays the failed calls of this version on the previous one.
    replays: Arc<Replays>,
}

impl Trial {
    /// Begins a trial now. Must be called within a Tokio runtime.
    pub(super) fn begin(version: &PluginVersion, before: &PluginVersion) -> Self {
        let replays = start_replays(before);
        version.stats().replay_to(&replays);
        Self {
            began: Instant::now(),
            from: calls(version),
            before: before.stats().lately(),
            replays,
        }
    }

    /// The evidence against the version so far.
    pub(super) fn found(&self) -> EvidenceSummary {
        self.replays.found()
    }

    pub(super) fn judge(&self, rules: &ProbationConfig, version: &PluginVersion) -> TrialVerdict {
        let own = TrialCalls {
            calls: calls(version).saturating_sub(self.from),
            found: self.found(),
        };
        judge(rules, self.before, own, phase(self.began, rules))
    }
}

/// The number of all calls of `version`.
pub(super) fn calls(version: &PluginVersion) -> u64 {
    version.stats().call_time().count()
}

/// The current phase of a trial that began at `began`.
pub(super) fn phase(began: Instant, rules: &ProbationConfig) -> TrialPhase {
    let elapsed = began.elapsed();
    if elapsed < rules.time {
        TrialPhase::Running
    } else if elapsed < rules.time * 2 {
        TrialPhase::Over
    } else {
        TrialPhase::Final
    }
}

/// A version on trial alongside the live one.
pub(super) struct Candidate {
    pub(super) rollout: Arc<Rollout>,
    pub(super) origin: Origin,
    /// Its bytes, to be stored on disk once it is live.
    pub(super) component: Option<Arc<[u8]>>,
    pub(super) since: SystemTime,
    pub(super) began: Instant,
    pub(super) trigger: Trigger,
    pub(super) trial: Proof,
}

/// The basis on which it is judged.
pub(super) enum Proof {
    /// The calls of the users that it serves.
    Canary(Trial),
    /// Copied calls, compared with the recent calls of the live version at the start of the trial.
    Copies(RecentCalls),
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
