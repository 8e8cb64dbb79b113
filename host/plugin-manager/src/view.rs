//! Reports on this node's plugins, for operators.

use std::time::SystemTime;

use serde::Serialize;
use signalbox_config::{InstanceMode, OnFailure};
use signalbox_plugin_runtime::{
    AnswerDifference, EvidenceSummary, PluginSlot, Sha256, Shadow, VersionStats, quantile_ms,
    rfc3339,
};
use signalbox_telemetry::metrics::{FailureKind, ShadowOutcome};

use super::{
    PluginManager,
    plugin_history::{LastFailure, PluginHistory, VersionEntry},
    trial::Candidate,
};

/// One configured plugin, as shown in reports.
#[derive(Clone, Debug, Serialize)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// The configured file.
    pub path: String,
    /// The event types that it sees.
    pub events: Vec<String>,
    /// `reject` or `pass`.
    pub on_failure: &'static str,
    /// `pool` or `single`.
    pub instances: &'static str,
    /// The first twelve digits of the live version's sha256.
    pub live: Option<String>,
    /// Whether a push, a rollback or the probation made that version live, so that the file is skipped until it
    /// changes.
    pub held: bool,
    /// Why the live version would not be live after a restart; `None` if it would.
    pub not_kept: Option<String>,
    /// The live version, then the candidate on trial, the last refusal since it went live, and the last withdrawn
    /// candidate, then the earlier versions, the latest first.
    pub versions: Vec<VersionView>,
}

/// One version of a plugin, as shown in reports.
#[derive(Clone, Debug, Serialize)]
pub struct VersionView {
    /// The first twelve digits of its sha256; `None` if nothing could be read.
    pub version: Option<String>,
    /// All digits of its sha256.
    pub sha256: Option<String>,
    /// The version that the component declares.
    pub semver: Option<String>,
    /// `live`, `probation` (live, and watched), `canary` or `shadow` (on trial alongside the live version), `draining`
    /// (calls are in progress), `retired`, `rolled_back` or `failed` (refused).
    pub state: &'static str,
    /// How it is tried alongside the live version.
    pub rollout: Option<RolloutView>,
    /// The evidence against it while it is on trial.
    pub evidence: Option<EvidenceView>,
    /// Why it was rolled back automatically.
    pub rolled_back_because: Option<String>,
    /// When it went live, began its trial, or was refused.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub since: SystemTime,
    /// When it stopped being live.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub until: Option<SystemTime>,
    /// The trigger of that swap.
    pub trigger: &'static str,
    /// Calls, however they ended.
    pub calls: u64,
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that ran out of time.
    pub deadline_misses: u64,
    /// All calls that failed, including those two kinds.
    pub failures: u64,
    /// Half of the calls took at most this long, in milliseconds; `None` if there were no calls, or if the time is
    /// above the largest bucket of the histogram.
    pub p50_ms: Option<f64>,
    /// Of a hundred calls, 99 took at most this long, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Instances that exist.
    pub instances: i64,
    /// Bytes of their linear memories.
    pub memory_bytes: i64,
    /// The latest call that failed, or why the version was refused.
    pub last_error: Option<CallFailure>,
}

/// How a version is tried alongside the live one, as shown in reports.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutView {
    /// The share of users that it serves, in percent; `None` for a shadow.
    pub percent: Option<u32>,
    /// The outcomes of the live version's calls, if it runs on copies.
    pub copies: Option<CopiesView>,
    /// The latest copies that it answered differently from the live version, the latest first.
    pub differences: Vec<AnswerDifference>,
}

/// The evidence against a version on trial, as shown in reports.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceView {
    /// Failures that count: those that the previous version survives. Those of one user count for at most as many as
    /// those of all others together.
    pub failures: u64,
    /// Users with such failures.
    pub users: usize,
    /// Whether failed calls are still to be replayed on the previous version.
    pub open: bool,
}

impl From<EvidenceSummary> for EvidenceView {
    fn from(found: EvidenceSummary) -> Self {
        Self {
            failures: found.all.failures,
            users: found.all.users,
            open: found.is_open,
        }
    }
}

/// The outcomes of copies.
#[derive(Clone, Debug, Serialize)]
pub struct CopiesView {
    /// Both versions gave the same answer.
    pub same: u64,
    /// The versions gave different answers.
    pub different: u64,
    /// Not copied, because too many copies were waiting.
    pub queue_full: u64,
    /// Not copied, because the waiting copies had too many bytes.
    pub queue_bytes: u64,
}

/// A failure, as shown in reports.
#[derive(Clone, Debug, Serialize)]
pub struct CallFailure {
    /// When it happened.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub at: SystemTime,
    /// `trap`, `deadline`, `memory`, `output` or `unavailable`; for a refused version the step of the admission.
    pub kind: &'static str,
    /// The message for the plugin's author.
    pub message: String,
}

impl PluginManager {
    /// Every configured plugin, in the order of the chain.
    pub fn view(&self) -> Vec<PluginView> {
        let live = self.live();
        live.slots()
            .iter()
            .map(|slot| self.view_slot(slot))
            .collect()
    }

    /// The plugin with this name.
    pub fn view_of(&self, plugin: &str) -> Option<PluginView> {
        let live = self.live();
        live.find(plugin).map(|slot| self.view_slot(slot))
    }

    fn view_slot(&self, slot: &PluginSlot) -> PluginView {
        let config = slot.config();
        let (held, versions) = {
            let mut state = self.state();
            let history = state.history(&config.name);
            (history.pin.is_some(), versions(history))
        };
        PluginView {
            name: config.name.clone(),
            path: config.path.display().to_string(),
            events: config.events.clone(),
            on_failure: match config.on_failure {
                OnFailure::Reject => "reject",
                OnFailure::Pass => "pass",
            },
            instances: match config.instances {
                InstanceMode::Pool { .. } => "pool",
                InstanceMode::Single => "single",
            },
            live: slot.version().map(|version| version.label().to_owned()),
            held,
            not_kept: self.not_kept(&config.name),
            versions,
        }
    }
}

fn versions(history: &PluginHistory) -> Vec<VersionView> {
    let entries = history
        .entries
        .iter()
        .map(|entry| view_of_entry(history, entry));
    let mut versions: Vec<VersionView> = entries.collect();
    let is_live = |view: &VersionView| view.until.is_none();
    let after_live = usize::from(versions.first().is_some_and(is_live));
    let candidate = history.candidate.as_ref().map(view_of_candidate);
    let failure = history.failure.as_ref().map(view_of_failure);
    let withdrawn = history.withdrawn.as_ref();
    let withdrawn = withdrawn.map(|entry| view_of_entry(history, entry));
    let alongside = candidate.into_iter().chain(failure).chain(withdrawn);
    versions.splice(after_live..after_live, alongside);
    versions
}

fn view_of_entry(history: &PluginHistory, entry: &VersionEntry) -> VersionView {
    let of_earlier_process = VersionStats::default();
    let stats = match &entry.resting {
        Some(version) => version.stats(),
        None => &of_earlier_process,
    };
    let times = stats.call_time();
    let failures = FailureKind::ALL.map(|kind| stats.failures(kind));
    VersionView {
        version: Some(entry.id.hash.label()),
        sha256: Some(entry.sha256()),
        semver: entry.semver.clone(),
        state: match entry.end {
            None if entry.trial.is_some() => "probation",
            None if entry.is_live() => "live",
            Some(end) if end.rolled_back => "rolled_back",
            Some(_) if entry.is_draining() => "draining",
            _ => "retired",
        },
        rollout: None,
        evidence: entry.trial.as_ref().map(|trial| trial.found().into()),
        rolled_back_because: history.why_barred(&entry.id),
        since: entry.since,
        until: entry.end.map(|end| end.at),
        trigger: entry.trigger.as_str(),
        calls: times.count(),
        traps: stats.failures(FailureKind::Trap),
        deadline_misses: stats.failures(FailureKind::Deadline),
        failures: failures.iter().sum(),
        p50_ms: quantile_ms(&times, 0.5),
        p99_ms: quantile_ms(&times, 0.99),
        instances: stats.instances(),
        memory_bytes: stats.memory_bytes(),
        last_error: stats.last_error().map(|error| CallFailure {
            at: error.at,
            kind: error.kind.as_str(),
            message: error.message,
        }),
    }
}

fn view_of_candidate(candidate: &Candidate) -> VersionView {
    let rollout = &candidate.rollout;
    // Its stats are those of a version that has just begun.
    let entry = VersionEntry::withdrawn(rollout.judged(), candidate.since, candidate.trigger);
    let seen = rollout.shadow().map(Shadow::seen);
    VersionView {
        state: rollout.mode(),
        until: None,
        evidence: Some(candidate.found().into()),
        rollout: Some(RolloutView {
            percent: rollout.percent(),
            copies: seen.as_ref().map(|seen| {
                let count = |outcome: ShadowOutcome| seen.outcomes[outcome as usize];
                CopiesView {
                    same: count(ShadowOutcome::Same),
                    different: count(ShadowOutcome::Different),
                    queue_full: count(ShadowOutcome::QueueFull),
                    queue_bytes: count(ShadowOutcome::QueueBytes),
                }
            }),
            differences: seen.map_or_else(Vec::new, |seen| seen.samples.into()),
        }),
        ..view_of_entry(&PluginHistory::default(), &entry)
    }
}

fn view_of_failure(failure: &LastFailure) -> VersionView {
    VersionView {
        version: failure.hash.as_ref().map(Sha256::label),
        sha256: failure.hash.as_ref().map(Sha256::to_string),
        semver: None,
        state: "failed",
        rollout: None,
        evidence: None,
        rolled_back_because: None,
        since: failure.at,
        until: None,
        trigger: failure.trigger.as_str(),
        calls: 0,
        traps: 0,
        deadline_misses: 0,
        failures: 0,
        p50_ms: None,
        p99_ms: None,
        instances: 0,
        memory_bytes: 0,
        last_error: Some(CallFailure {
            at: failure.at,
            kind: failure.error.step(),
            message: failure.error.to_string(),
        }),
    }
}
