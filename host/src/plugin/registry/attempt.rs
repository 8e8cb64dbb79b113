//! Decides whether a plugin's file is loaded, skipped or refused.

use std::sync::Arc;

use super::{
    Registry, Trigger, Unchanged,
    record::{Hold, Recalled, Refused},
};
use crate::{
    config::PluginConfig,
    plugin::{
        ComponentHash, LoadError, PluginVersion, Rollout, Slot, compile::Pace, component_hash,
        source,
    },
};

/// A plugin to examine.
pub(super) struct Look<'a> {
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
pub(super) struct Found {
    pub(super) attempted: Refused,
    pub(super) bytes: Result<Arc<[u8]>, LoadError>,
}

/// The origin of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configured file.
    File,
    /// An operator. The file is skipped until it changes.
    Operator,
}

/// A version that may go live.
pub(super) struct Newcomer {
    pub(super) version: Arc<PluginVersion>,
    pub(super) origin: Origin,
    /// Its bytes, if they may not be on disk yet.
    pub(super) component: Option<Arc<[u8]>>,
    /// Whether an operator insists on it, so that it goes live without a rollout.
    pub(super) insisted: bool,
    /// Whether it goes on probation once it is live.
    pub(super) watched: bool,
    /// The version that was preferred to this one, but does not load.
    pub(super) instead_of: Option<NotAdmitted>,
}

impl Newcomer {
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
pub(super) enum Tried {
    New(Newcomer),
    Same(Unchanged),
}

impl Tried {
    /// The same result, with an operator insisting on the new version.
    pub(super) fn insisted(self) -> Self {
        match self {
            Self::New(new) => Self::New(Newcomer {
                insisted: true,
                ..new
            }),
            same => same,
        }
    }

    /// The same result, with the new version going live at once and without probation.
    pub(super) fn unwatched(self) -> Self {
        match self.insisted() {
            Self::New(new) => Self::New(Newcomer {
                watched: false,
                ..new
            }),
            same => same,
        }
    }
}

/// The component that is not admitted, and why.
pub(super) struct NotAdmitted {
    /// `None` if nothing could be read.
    pub(super) hash: Option<ComponentHash>,
    pub(super) error: LoadError,
}

/// The parts of a plugin's record that concern its file.
struct Said {
    refused: bool,
    hold: Option<Hold>,
    recalled: Option<Recalled>,
}

impl Registry {
    /// Decides whether a plugin's file should be loaded, skipped or refused, and does so.
    pub(super) async fn attempt(&self, look: &Look<'_>) -> Result<Tried, NotAdmitted> {
        let config = look.config;
        let found = self.find(look).await;
        let said = self.said_about(look, &found.attempted);
        if look.force {
            let tried = self.load_file(config, found).await?;
            return Ok(tried.insisted());
        }
        if said.refused {
            return Ok(Tried::Same(Unchanged::Refused));
        }
        let Some(current) = look.current else {
            return match said.recalled {
                Some(recalled) => {
                    let bytes_max = look.file_bytes_max;
                    self.resume(config, found, &recalled, bytes_max).await
                }
                None => self.load_file(config, found).await,
            };
        };
        let content = &found.attempted.content;
        if let Some(hold) = said.hold.filter(|hold| hold.passes_over(content)) {
            if hold.config.makes_same_version(config) {
                return Ok(Tried::Same(Unchanged::Held));
            }
            let admitted = self.loader.admit(config, current.candidate()).await;
            let hash = Some(*current.hash());
            return admitted
                .map(|version| Tried::New(Newcomer::of_operator(version, None)))
                .map_err(|error| self.refused(config, found.attempted, hash, error));
        }
        let holds = |version: &PluginVersion| {
            version.config().makes_same_version(config) && content.as_ref() == Ok(version.hash())
        };
        if holds(current) {
            // The file has caught up with the pushed version, so it is followed again from now on.
            self.records.with(&config.name, |record| record.hold = None);
            self.forget_candidate_of_file(&config.name);
            return Ok(Tried::Same(Unchanged::Live));
        }
        if look
            .rollout
            .is_some_and(|rollout| holds(rollout.candidate()))
        {
            return Ok(Tried::Same(Unchanged::OnTrial));
        }
        if let Ok(hash) = content
            && self.is_barred(config, hash)
        {
            return Ok(Tried::Same(Unchanged::RolledBack));
        }
        self.load_file(config, found).await
    }

    async fn find(&self, look: &Look<'_>) -> Found {
        let bytes = source::read(&look.config.path, look.file_bytes_max).await;
        let attempted = Refused {
            config: look.config.clone(),
            content: match &bytes {
                Ok(bytes) => Ok(component_hash(bytes)),
                Err(error) => Err(error.to_string()),
            },
        };
        Found { attempted, bytes }
    }

    /// Records the content of the file, and returns what the record says about it.
    fn said_about(&self, look: &Look<'_>, attempted: &Refused) -> Said {
        self.records.with(&look.config.name, |record| {
            record.file = Some(attempted.content.clone());
            // Explicit requests retry a file that was refused; file notifications do not.
            let refused =
                look.trigger == Trigger::File && record.refused.as_ref() == Some(attempted);
            if !refused {
                record.refused = None;
            }
            Said {
                refused,
                hold: record.hold.clone(),
                recalled: record.recalled.clone(),
            }
        })
    }

    async fn load_file(
        &self,
        config: &Arc<PluginConfig>,
        found: Found,
    ) -> Result<Tried, NotAdmitted> {
        let Found { attempted, bytes } = found;
        let hash = attempted.content.as_ref().ok().copied();
        let loaded = match bytes {
            Ok(bytes) => {
                let pace = self.pace(&config.name);
                let loaded = self.loader.load(config, bytes.clone(), pace).await;
                loaded.map(|version| Newcomer::of_file(version, bytes))
            }
            Err(error) => Err(error),
        };
        loaded
            .map(Tried::New)
            .map_err(|error| self.refused(config, attempted, hash, error))
    }

    /// Records that a file is not to be tried again until it changes.
    pub(super) fn refused(
        &self,
        config: &PluginConfig,
        attempted: Refused,
        hash: Option<ComponentHash>,
        error: LoadError,
    ) -> NotAdmitted {
        self.records
            .with(&config.name, |record| record.refused = Some(attempted));
        NotAdmitted { hash, error }
    }

    /// Whether the component was rolled back automatically and no operator has insisted on it since.
    pub(super) fn is_barred(&self, config: &PluginConfig, hash: &ComponentHash) -> bool {
        self.records.with(&config.name, |record| {
            record.why_barred(hash, config).is_some()
        })
    }

    /// How much CPU time compiling this plugin may take.
    pub(super) fn pace(&self, plugin: &str) -> Pace {
        match self.live().find(plugin).and_then(Slot::version) {
            Some(_) => Pace::Beside,
            None => Pace::Full,
        }
    }
}
