//! What the registry remembers of each plugin beside what is live: what was refused, what was live before, and why its
//! file is not what serves.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Instant, SystemTime},
};

use super::{Trigger, probation::Trial, rollout::Candidate};
use crate::{
    config::PluginConfig,
    plugin::{
        ComponentHash, LoadError, PluginVersion, component_hash, hex,
        versions::{Digest, Kept, RolledBack, State},
    },
};

/// What was in a file, or why it could not be read.
pub(super) type Content = Result<ComponentHash, String>;

/// The records of all plugins, by name.
#[derive(Default)]
pub(super) struct Records(Mutex<BTreeMap<String, Record>>);

impl Records {
    /// Lets `look` read or change the record of `plugin`, which begins empty. Must not wait.
    pub(super) fn with<R>(&self, plugin: &str, look: impl FnOnce(&mut Record) -> R) -> R {
        look(self.all().entry(plugin.to_owned()).or_default())
    }

    /// Lets `look` read or change every record. Must not wait.
    pub(super) fn each(&self, mut look: impl FnMut(&str, &mut Record)) {
        for (name, record) in self.all().iter_mut() {
            look(name, record);
        }
    }

    /// Whether `holds` of any record.
    pub(super) fn any(&self, holds: impl Fn(&Record) -> bool) -> bool {
        self.all().values().any(holds)
    }

    /// Forgets every plugin that is not `configured`.
    pub(super) fn retain(&self, configured: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| configured(name));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered of one plugin.
#[derive(Default)]
pub(super) struct Record {
    /// What was in its file when that was last looked at.
    pub(super) file: Option<Content>,
    /// What of the file was refused last: not tried again before it changes.
    pub(super) refused: Option<Refused>,
    /// The last refusal since something went live.
    pub(super) failure: Option<Failure>,
    /// Why the file is not what serves.
    pub(super) hold: Option<Hold>,
    /// When an operator last went back: a file that was being loaded then is passed over.
    pub(super) gone_back: Option<Instant>,
    /// The version that is live, where there is one, and those before it, the latest first.
    pub(super) stints: VecDeque<Stint>,
    /// The version that is tried beside the live one.
    pub(super) candidate: Option<Candidate>,
    /// The last one that was tried and taken back.
    pub(super) withdrawn: Option<Stint>,
    /// What was taken back by itself, and why.
    pub(super) rolled_back: Vec<RolledBack>,
    /// Whether it was looked up what an earlier process knew.
    pub(super) looked_up: bool,
    /// What was live in an earlier process, until something is in this one.
    pub(super) recalled: Option<Recalled>,
    /// What was last handed on to be kept.
    pub(super) kept: Option<State>,
}

/// What was live in an earlier process.
#[derive(Clone)]
pub(super) struct Recalled {
    pub(super) live: ComponentHash,
    /// What the file held when it was last looked at; none: it could not be read.
    pub(super) file: Option<ComponentHash>,
    /// Whether the file was passed over.
    pub(super) held: bool,
    /// Those that were live before and not taken back, the latest first.
    pub(super) earlier: Vec<ComponentHash>,
}

impl Recalled {
    /// All of them, in the order in which they are to be tried.
    pub(super) fn versions(&self) -> impl Iterator<Item = &ComponentHash> {
        [&self.live].into_iter().chain(&self.earlier)
    }
}

/// A file that was refused with a configuration.
#[derive(Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) config: Arc<PluginConfig>,
    pub(super) content: Content,
}

/// Something that did not go live.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) at: SystemTime,
    pub(super) trigger: Trigger,
    /// None where nothing could be read.
    pub(super) hash: Option<ComponentHash>,
    pub(super) error: LoadError,
}

/// An operator pushed a version, or went back to one. It stays until the file or the plugin's configuration changes.
#[derive(Clone)]
pub(super) struct Hold {
    /// What the file held when that was last looked at before.
    pub(super) file: Option<Content>,
    /// What was configured then.
    pub(super) config: Arc<PluginConfig>,
}

impl Hold {
    /// Whether the file is still what was passed over.
    pub(super) fn passes_over(&self, content: &Content) -> bool {
        self.file.as_ref() == Some(content)
    }
}

/// The time in which one version was live.
pub(super) struct Stint {
    /// The component.
    pub(super) hash: Digest,
    /// What it was configured with.
    pub(super) config: Digest,
    /// The version that the component says it is.
    pub(super) semver: Option<String>,
    /// The version without instances, to go live once more, with its compiled code; none where that was in an earlier
    /// process.
    pub(super) resting: Option<Arc<PluginVersion>>,
    /// The version as messages saw it, as long as any does.
    serving: Weak<PluginVersion>,
    pub(super) since: SystemTime,
    pub(super) trigger: Trigger,
    pub(super) end: Option<End>,
    /// How it has to prove itself; none: it has, or need not.
    pub(super) trial: Option<Trial>,
}

/// How a stint ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) at: SystemTime,
    /// Whether the version was taken back, rather than replaced by a newer one.
    pub(super) rolled_back: bool,
}

impl Stint {
    /// That of an earlier process.
    pub(super) fn recalled(kept: &Kept, end: Option<End>) -> Self {
        Self {
            hash: kept.sha256,
            config: kept.config,
            semver: kept.semver.clone(),
            resting: None,
            serving: Weak::new(),
            since: kept.since,
            trigger: kept.trigger,
            end,
            trial: None,
        }
    }

    /// That of a version that was tried, and never live. `judged` has its figures.
    pub(super) fn withdrawn(
        judged: &Arc<PluginVersion>,
        since: SystemTime,
        trigger: Trigger,
    ) -> Self {
        Self {
            since,
            end: Some(End {
                at: SystemTime::now(),
                rolled_back: true,
            }),
            ..Self::begin(judged, trigger)
        }
    }

    /// That of a version that begins now.
    fn begin(version: &Arc<PluginVersion>, trigger: Trigger) -> Self {
        Self {
            hash: Digest(*version.hash()),
            config: config_hash(version.config()),
            semver: version.admission().metadata.version.clone(),
            resting: Some(Arc::new(version.with_empty_pool())),
            serving: Arc::downgrade(version),
            since: SystemTime::now(),
            trigger,
            end: None,
            trial: None,
        }
    }

    /// Whether messages go through it.
    pub(super) fn is_live(&self) -> bool {
        self.end.is_none() && self.resting.is_some()
    }

    /// Whether calls of it are still under way, after it was replaced.
    pub(super) fn is_draining(&self) -> bool {
        self.end.is_some() && self.serving.strong_count() > 0
    }

    /// The component's sha256 in hex.
    pub(super) fn sha256(&self) -> String {
        hex(&self.hash.0)
    }
}

/// What tells one configuration of a plugin from another, across processes. Where a component comes from, and how it is
/// rolled out, is no part of what it does.
pub(super) fn config_hash(config: &PluginConfig) -> Digest {
    let bare = PluginConfig {
        path: Default::default(),
        rollout: None,
        ..config.clone()
    };
    Digest(component_hash(format!("{bare:?}").as_bytes()))
}

impl Record {
    /// Writes down that `version` goes live in the place of what was, of which `keep` are remembered.
    pub(super) fn went_live(
        &mut self,
        version: &Arc<PluginVersion>,
        trigger: Trigger,
        keep: usize,
    ) {
        let mut stint = Stint::begin(version, trigger);
        let (now, hash, config) = (stint.since, stint.hash, stint.config);
        if let Some(live) = self.stints.front_mut().filter(|stint| stint.end.is_none()) {
            if live.resting.is_none() && (live.hash, live.config) == (hash, config) {
                // It goes on where an earlier process ended.
                (stint.since, stint.trigger) = (live.since, live.trigger);
            }
            live.end = Some(End {
                at: now,
                rolled_back: matches!(trigger, Trigger::Rollback | Trigger::Probation),
            });
            live.trial = None;
        }
        // One that comes back is the same version: what was said about its last time would only confuse. Of an earlier
        // process the configuration is not known, so that the component alone tells.
        self.stints.retain(|stint| {
            stint.hash != hash || stint.config != config && stint.resting.is_some()
        });
        self.stints.push_front(stint);
        self.stints.truncate(1 + keep);
        // Whoever made it live all the same insisted.
        self.rolled_back
            .retain(|rolled_back| !rolled_back.is_about(&hash.0, &config));
        self.failure = None;
        self.recalled = None;
        self.candidate = None;
        self.withdrawn = None;
    }

    /// Why the component must not go live by itself with this configuration: it was taken back, for this reason.
    pub(super) fn why_barred(&self, hash: &ComponentHash, config: &PluginConfig) -> Option<String> {
        let config = config_hash(config);
        let mut list = self.rolled_back.iter();
        let found = list.find(|rolled_back| rolled_back.is_about(hash, &config));
        found.map(|rolled_back| rolled_back.reason.clone())
    }

    /// The same for the component with this sha256 in hex.
    pub(super) fn why_barred_by_name(&self, sha256: &str, config: &PluginConfig) -> Option<String> {
        let mut list = self.rolled_back.iter();
        let found = list.find(|rolled_back| hex(&rolled_back.sha256.0) == sha256)?;
        self.why_barred(&found.sha256.0, config)
    }

    /// The versions to go back to where none is named, the latest first: those that were not taken back themselves.
    pub(super) fn good(&self) -> impl Iterator<Item = &Stint> {
        let ended = |stint: &&Stint| stint.end.is_some_and(|end| !end.rolled_back);
        self.stints.iter().filter(ended)
    }

    /// Why the version was taken back by itself, if it was.
    pub(super) fn why_taken_back(&self, stint: &Stint) -> Option<&RolledBack> {
        let mut list = self.rolled_back.iter();
        list.find(|rolled_back| rolled_back.is_about(&stint.hash.0, &stint.config))
    }

    /// The latest version before the live one whose sha256 starts with `sha256`, in hex.
    pub(super) fn earlier(&self, sha256: &str) -> Option<&Stint> {
        let named = |stint: &&Stint| stint.end.is_some() && stint.sha256().starts_with(sha256);
        self.stints.iter().find(named)
    }
}
