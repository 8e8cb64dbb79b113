//! Decides whether a plugin's file is loaded, skipped or refused.

use std::sync::Arc;

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{
    CompilePriority, LoadError, PluginSlot, PluginVersion, Rollout, Sha256, source,
};

use super::{
    PluginManager, Trigger, Unchanged,
    plugin_history::{PersistedHistory, Pin, RefusedFile},
    trigger::Origin,
};

/// A plugin to examine.
pub(super) struct LoadRequest<'a> {
    pub(super) config: &'a Arc<PluginConfig>,
    /// Its live version.
    pub(super) current: Option<&'a Arc<PluginVersion>>,
    /// The rollout alongside the live version.
    pub(super) rollout: Option<&'a Rollout>,
    pub(super) file_bytes_max: usize,
    pub(super) trigger: Trigger,
    /// Whether to load the file regardless of anything that speaks against it.
    pub(super) force: bool,
}

/// The content of a plugin's file.
pub(super) struct FileContent {
    pub(super) attempted: RefusedFile,
    pub(super) bytes: Result<Arc<[u8]>, LoadError>,
}

/// A version that may go live.
pub(super) struct LoadedVersion {
    pub(super) version: Arc<PluginVersion>,
    pub(super) origin: Origin,
    /// Its bytes, if they may not be on disk yet.
    pub(super) component: Option<Arc<[u8]>>,
    /// Whether an operator insists on it, so that it goes live without a rollout.
    pub(super) insisted: bool,
    /// Whether it goes on probation once it is live.
    pub(super) watched: bool,
    /// The version that was preferred to this one, but does not load.
    pub(super) instead_of: Option<LoadFailure>,
}

impl LoadedVersion {
    /// A version from the configured file.
    pub(super) fn of_file(version: Arc<PluginVersion>, bytes: Arc<[u8]>) -> Self {
        Self {
            version,
            origin: Origin::File,
            component: Some(bytes),
            insisted: false,
            watched: true,
            instead_of: None,
        }
    }

    /// A version that an operator asked for.
    pub(super) fn of_operator(version: Arc<PluginVersion>, component: Option<Arc<[u8]>>) -> Self {
        Self {
            version,
            origin: Origin::Operator,
            component,
            insisted: false,
            watched: true,
            instead_of: None,
        }
    }
}

/// The result of examining a plugin.
pub(super) enum LoadOutcome {
    New(LoadedVersion),
    Same(Unchanged),
}

impl LoadOutcome {
    /// The same result, with an operator insisting on the new version.
    pub(super) fn insisted(self) -> Self {
        match self {
            Self::New(new) => Self::New(LoadedVersion {
                insisted: true,
                ..new
            }),
            same => same,
        }
    }

    /// The same result, with the new version going live at once and without probation.
    pub(super) fn unwatched(self) -> Self {
        match self.insisted() {
            Self::New(new) => Self::New(LoadedVersion {
                watched: false,
                ..new
            }),
            same => same,
        }
    }
}

/// The component that is not admitted, and why.
pub(super) struct LoadFailure {
    /// `None` if nothing could be read.
    pub(super) hash: Option<Sha256>,
    pub(super) error: LoadError,
}

/// The parts of a plugin's record that concern its file.
struct FileHistory {
    refused: bool,
    pin: Option<Pin>,
    recalled: Option<PersistedHistory>,
}

impl PluginManager {
    /// Decides whether a plugin's file should be loaded, skipped or refused, and does so.
    pub(super) async fn attempt(
        &self,
        request: &LoadRequest<'_>,
    ) -> Result<LoadOutcome, LoadFailure> {
        let config = request.config;
        let found = self.find(request).await;
        let known = self.known_about(request, &found.attempted);
        if request.force {
            let outcome = self.load_file(config, found).await?;
            return Ok(outcome.insisted());
        }
        if known.refused {
            return Ok(LoadOutcome::Same(Unchanged::Refused));
        }
        let Some(current) = request.current else {
            return match known.recalled {
                Some(recalled) => {
                    let bytes_max = request.file_bytes_max;
                    self.resume(config, found, &recalled, bytes_max).await
                }
                None => self.load_file(config, found).await,
            };
        };
        let content = &found.attempted.content;
        if let Some(pin) = known.pin.filter(|pin| pin.passes_over(content)) {
            if pin.config.makes_same_version(config) {
                return Ok(LoadOutcome::Same(Unchanged::Held));
            }
            let admitted = self.loader.admit(config, current.candidate()).await;
            let hash = Some(*current.hash());
            return admitted
                .map(|version| LoadOutcome::New(LoadedVersion::of_operator(version, None)))
                .map_err(|error| self.refused(config, found.attempted, hash, error));
        }
        let holds = |version: &PluginVersion| {
            version.config().makes_same_version(config) && content.as_ref() == Ok(version.hash())
        };
        if holds(current) {
            // The file has caught up with the pushed version, so it is followed again from now on.
            self.histories
                .with(&config.name, |history| history.pin = None);
            self.forget_candidate_of_file(&config.name);
            return Ok(LoadOutcome::Same(Unchanged::Live));
        }
        if request
            .rollout
            .is_some_and(|rollout| holds(rollout.candidate()))
        {
            return Ok(LoadOutcome::Same(Unchanged::OnTrial));
        }
        if let Ok(hash) = content
            && self.is_barred(config, hash)
        {
            return Ok(LoadOutcome::Same(Unchanged::RolledBack));
        }
        self.load_file(config, found).await
    }

    async fn find(&self, request: &LoadRequest<'_>) -> FileContent {
        let bytes = source::read(&request.config.path, request.file_bytes_max).await;
        let attempted = RefusedFile {
            config: request.config.clone(),
            content: match &bytes {
                Ok(bytes) => Ok(Sha256::of(bytes)),
                Err(error) => Err(error.to_string()),
            },
        };
        FileContent { attempted, bytes }
    }

    /// Records the content of the file, and returns what the record says about it.
    fn known_about(&self, request: &LoadRequest<'_>, attempted: &RefusedFile) -> FileHistory {
        self.histories.with(&request.config.name, |history| {
            history.file = Some(attempted.content.clone());
            // Explicit requests retry a file that was refused; file notifications do not.
            let refused =
                request.trigger == Trigger::File && history.refused.as_ref() == Some(attempted);
            if !refused {
                history.refused = None;
            }
            FileHistory {
                refused,
                pin: history.pin.clone(),
                recalled: history.recalled.clone(),
            }
        })
    }

    async fn load_file(
        &self,
        config: &Arc<PluginConfig>,
        found: FileContent,
    ) -> Result<LoadOutcome, LoadFailure> {
        let FileContent { attempted, bytes } = found;
        let hash = attempted.content.as_ref().ok().copied();
        let loaded = match bytes {
            Ok(bytes) => {
                let pace = self.pace(&config.name);
                let loaded = self.loader.load(config, bytes.clone(), pace).await;
                loaded.map(|version| LoadedVersion::of_file(version, bytes))
            }
            Err(error) => Err(error),
        };
        loaded
            .map(LoadOutcome::New)
            .map_err(|error| self.refused(config, attempted, hash, error))
    }

    /// Records that a file is not to be tried again until it changes.
    pub(super) fn refused(
        &self,
        config: &PluginConfig,
        attempted: RefusedFile,
        hash: Option<Sha256>,
        error: LoadError,
    ) -> LoadFailure {
        self.histories
            .with(&config.name, |history| history.refused = Some(attempted));
        LoadFailure { hash, error }
    }

    /// Whether the component was rolled back automatically and no operator has insisted on it since.
    pub(super) fn is_barred(&self, config: &PluginConfig, hash: &Sha256) -> bool {
        self.histories.with(&config.name, |history| {
            history.why_barred(hash, config).is_some()
        })
    }

    /// How much CPU time compiling this plugin may take.
    pub(super) fn pace(&self, plugin: &str) -> CompilePriority {
        match self.live().find(plugin).and_then(PluginSlot::version) {
            Some(_) => CompilePriority::Beside,
            None => CompilePriority::Full,
        }
    }
}
