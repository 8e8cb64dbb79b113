//! The record of a plugin: the versions that were live before, the file that was refused, and why the file's version is
//! not the one that serves.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Instant, SystemTime},
};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{LoadError, PluginVersion, Sha256};

use super::{
    Trigger,
    trial::{Candidate, Trial},
};
use crate::history::{KeptVersion, PersistedState, RolledBackVersion};

/// The hash of a file's content, or why the file could not be read.
pub(super) type Content = Result<Sha256, String>;

/// A component with a configuration. The path of the component and its rollout are not part of it, because they do not
/// change what the component does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionId {
    /// The hash of the component.
    pub(super) hash: Sha256,
    /// The hash of the configuration's identity, because the configuration itself may hold secrets.
    pub(super) config: Sha256,
}

impl VersionId {
    pub(super) fn new(hash: Sha256, config: &PluginConfig) -> Self {
        Self {
            hash,
            config: Sha256::of(config.identity().as_bytes()),
        }
    }

    pub(super) fn of(version: &PluginVersion) -> Self {
        Self::new(*version.hash(), version.config())
    }
}

/// The record of one plugin.
#[derive(Default)]
pub(super) struct PluginHistory {
    /// The content of its file when that was last examined.
    pub(super) file: Option<Content>,
    /// The file that was refused last. It is not tried again until it changes.
    pub(super) refused: Option<RefusedFile>,
    /// The last refusal since something went live.
    pub(super) failure: Option<LastFailure>,
    /// Why the file's version is not the one that serves.
    pub(super) pin: Option<Pin>,
    /// When an operator last rolled back. A file that was being loaded at that time is skipped.
    pub(super) gone_back: Option<Instant>,
    /// The live version, if there is one, and the earlier ones, the latest first.
    pub(super) entries: VecDeque<VersionEntry>,
    /// The version on trial alongside the live one.
    pub(super) candidate: Option<Candidate>,
    /// The last candidate that was withdrawn.
    pub(super) withdrawn: Option<VersionEntry>,
    /// The versions that were rolled back automatically, and why.
    pub(super) rolled_back: Vec<RolledBackVersion>,
    /// Whether the state of an earlier process was already looked up.
    pub(super) looked_up: bool,
    /// The versions of an earlier process, until one goes live in this process.
    pub(super) recalled: Option<PersistedHistory>,
    /// The state that was last queued for writing.
    pub(super) kept: Option<PersistedState>,
}

/// The versions of a plugin in an earlier process.
#[derive(Clone)]
pub(super) struct PersistedHistory {
    pub(super) live: Sha256,
    /// The hash of the file when it was last examined; `None` if it could not be read.
    pub(super) file: Option<Sha256>,
    /// Whether a push, a rollback or the probation overrode the file.
    pub(super) held: bool,
    /// The versions that were live before and not rolled back, the latest first.
    pub(super) earlier: Vec<Sha256>,
}

impl PersistedHistory {
    /// All versions, in the order in which they are to be tried.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Sha256> {
        [&self.live].into_iter().chain(&self.earlier)
    }
}

/// A file that was refused, and the configuration that it was refused with.
#[derive(Clone)]
pub(super) struct RefusedFile {
    pub(super) config: Arc<PluginConfig>,
    pub(super) content: Content,
}

/// A failed attempt to make a version live.
#[derive(Clone)]
pub(super) struct LastFailure {
    pub(super) at: SystemTime,
    pub(super) trigger: Trigger,
    /// `None` if nothing could be read.
    pub(super) hash: Option<Sha256>,
    pub(super) error: LoadError,
}

/// A version was pushed or rolled back to, by an operator or the probation. It stays until the file or the plugin's configuration changes.
#[derive(Clone)]
pub(super) struct Pin {
    /// The content of the file when it was last examined before that.
    pub(super) file: Option<Content>,
    /// The plugin's configuration at that time.
    pub(super) config: Arc<PluginConfig>,
}

impl Pin {
    /// Whether the file still has the content that is to be skipped.
    pub(super) fn passes_over(&self, content: &Content) -> bool {
        self.file.as_ref() == Some(content)
    }
}

/// A period in which one version was live.
pub(super) struct VersionEntry {
    pub(super) id: VersionId,
    /// The version that the component declares.
    pub(super) semver: Option<String>,
    /// The version with its compiled code but without instances, so that it can go live again; `None` if it was live in
    /// an earlier process.
    pub(super) resting: Option<Arc<PluginVersion>>,
    /// The version that served messages, as long as any of them uses it.
    serving: Weak<PluginVersion>,
    pub(super) since: SystemTime,
    pub(super) trigger: Trigger,
    pub(super) end: Option<VersionEnd>,
    /// Its trial; `None` if it has passed or needs none.
    pub(super) trial: Option<Trial>,
}

/// How an entry ended.
#[derive(Clone, Copy)]
pub(super) struct VersionEnd {
    pub(super) at: SystemTime,
    /// Whether the version was rolled back, rather than replaced by a newer one.
    pub(super) rolled_back: bool,
}

impl VersionEntry {
    /// The entry of a version in an earlier process.
    pub(super) fn recalled(kept: &KeptVersion, end: Option<VersionEnd>) -> Self {
        Self {
            id: VersionId {
                hash: kept.sha256,
                config: kept.config,
            },
            semver: kept.semver.clone(),
            resting: None,
            serving: Weak::new(),
            since: kept.since,
            trigger: kept.trigger,
            end,
            trial: None,
        }
    }

    /// The entry of a candidate that never went live. `judged` has its stats.
    pub(super) fn withdrawn(
        judged: &Arc<PluginVersion>,
        since: SystemTime,
        trigger: Trigger,
    ) -> Self {
        Self {
            since,
            end: Some(VersionEnd {
                at: SystemTime::now(),
                rolled_back: true,
            }),
            ..Self::begin(judged, trigger)
        }
    }

    /// The entry of a version that goes live now.
    fn begin(version: &Arc<PluginVersion>, trigger: Trigger) -> Self {
        Self {
            id: VersionId::of(version),
            semver: version.admission().metadata.version.clone(),
            resting: Some(Arc::new(version.with_empty_pool())),
            serving: Arc::downgrade(version),
            since: SystemTime::now(),
            trigger,
            end: None,
            trial: None,
        }
    }

    /// Whether messages go through the version.
    pub(super) fn is_live(&self) -> bool {
        self.end.is_none() && self.resting.is_some()
    }

    /// Whether the version was replaced and still has calls in progress.
    pub(super) fn is_draining(&self) -> bool {
        self.end.is_some() && self.serving.strong_count() > 0
    }

    /// The component's sha256 in hex.
    pub(super) fn sha256(&self) -> String {
        self.id.hash.to_string()
    }
}

impl PluginHistory {
    /// Records that `version` goes live in place of the current one, and remembers `keep` earlier versions.
    pub(super) fn went_live(
        &mut self,
        version: &Arc<PluginVersion>,
        trigger: Trigger,
        keep: usize,
    ) {
        let mut entry = VersionEntry::begin(version, trigger);
        let (now, id) = (entry.since, entry.id);
        if let Some(live) = self.entries.front_mut().filter(|entry| entry.end.is_none()) {
            if live.resting.is_none() && live.id == id {
                // It continues the entry of an earlier process.
                (entry.since, entry.trigger) = (live.since, live.trigger);
            }
            live.end = Some(VersionEnd {
                at: now,
                rolled_back: matches!(trigger, Trigger::Rollback | Trigger::Probation),
            });
            live.trial = None;
        }
        // A version that comes back gets a new entry, because its previous entry would only confuse. The configuration
        // of an earlier process is not known, so there the component alone decides.
        self.entries.retain(|entry| {
            entry.id.hash != id.hash || entry.id.config != id.config && entry.resting.is_some()
        });
        self.entries.push_front(entry);
        self.entries.truncate(1 + keep);
        // If it was barred and goes live anyway, somebody insisted on it.
        self.rolled_back
            .retain(|rolled_back| !rolled_back.is_about(&id));
        self.failure = None;
        self.recalled = None;
        self.candidate = None;
        self.withdrawn = None;
    }

    /// Why the version must not go live automatically: the reason for which it was rolled back. `None` if it may go
    /// live.
    pub(super) fn why_barred(&self, id: &VersionId) -> Option<String> {
        let found = self.rolled_back_version(id);
        found.map(|rolled_back| rolled_back.reason.clone())
    }

    /// The record of the version's automatic rollback, if it was rolled back and no operator insisted on it since.
    pub(super) fn rolled_back_version(&self, id: &VersionId) -> Option<&RolledBackVersion> {
        let mut list = self.rolled_back.iter();
        list.find(|rolled_back| rolled_back.is_about(id))
    }

    /// Whether the file was refused with this configuration and content.
    pub(super) fn has_refused(&self, config: &PluginConfig, content: &Content) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(|refused| *refused.config == *config && refused.content == *content)
    }

    /// The versions to roll back to if none is named, the latest first: those that were not themselves rolled back.
    pub(super) fn good(&self) -> impl Iterator<Item = &VersionEntry> {
        let ended = |entry: &&VersionEntry| entry.end.is_some_and(|end| !end.rolled_back);
        self.entries.iter().filter(ended)
    }

    /// The latest version before the live one whose sha256 starts with `sha256`, in hex.
    pub(super) fn earlier(&self, sha256: &str) -> Option<&VersionEntry> {
        let named =
            |entry: &&VersionEntry| entry.end.is_some() && entry.sha256().starts_with(sha256);
        self.entries.iter().find(named)
    }
}
