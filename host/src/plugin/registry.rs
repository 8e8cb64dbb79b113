//! Which versions are live, and how that changes: all at once, or not at all.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tracing::{error, info};

use super::{
    loader::{Admission, LoadError, Loader},
    version::PluginVersion,
};
use crate::{
    config::PluginConfig,
    metrics::{Metrics, SwapOutcome},
    protocol::event_type::Patterns,
};

/// The plugins of one moment, in the order of the chain. A message goes through one set from start to end.
#[derive(Debug, Default)]
pub struct PluginSet {
    slots: Vec<Slot>,
}

/// The place of one plugin in the chain.
#[derive(Clone, Debug)]
pub struct Slot {
    config: Arc<PluginConfig>,
    sees: Patterns,
    version: Option<Arc<PluginVersion>>,
}

impl Slot {
    /// The configured entry. That of the version may be older, where a newer one was refused.
    pub fn config(&self) -> &Arc<PluginConfig> {
        &self.config
    }

    /// Whether the plugin is configured for this event type.
    pub fn sees(&self, event_type: &str) -> bool {
        self.sees.matches(event_type)
    }

    /// The version that is live; none where no version was ever admitted.
    pub fn version(&self) -> Option<&Arc<PluginVersion>> {
        self.version.as_ref()
    }
}

impl PluginSet {
    /// The places, in the order of the chain.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The plugins that have no live version.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.slots
            .iter()
            .filter(|slot| slot.version.is_none())
            .map(|slot| slot.config.name.as_str())
    }

    fn find(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.config.name == name)
    }
}

/// What set a reload off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The start of the server.
    Start,
    /// A changed plugin file.
    File,
    /// A changed configuration.
    Config,
    /// SIGHUP.
    Signal,
}

impl Trigger {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Config => "config",
            Self::Signal => "signal",
        }
    }
}

/// Holds the live set. One reload runs at a time.
pub struct Registry {
    live: ArcSwap<PluginSet>,
    loader: Loader,
    metrics: Arc<Metrics>,
    /// What was refused last, by plugin: not tried again before it changes.
    refused: Mutex<Vec<Refused>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, PartialEq)]
struct Refused {
    config: Arc<PluginConfig>,
    content: Content,
}

/// The bytes of a file, or why there are none.
type Content = Result<Arc<[u8]>, String>;

impl Registry {
    /// With no plugin in it.
    pub fn new(loader: Loader, metrics: Arc<Metrics>) -> Self {
        let live = ArcSwap::from_pointee(PluginSet::default());
        Self {
            live,
            loader,
            metrics,
            refused: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// The set that is live now.
    pub fn live(&self) -> Arc<PluginSet> {
        self.live.load_full()
    }

    /// Brings the live set to `configs`, reading every file anew. A plugin whose new version is refused keeps the
    /// version that it had. Returns the refusals.
    pub async fn apply(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let _turn = self.turn.lock().await;
        let began = Instant::now();
        let old = self.live();
        let mut slots: Vec<Slot> = Vec::new();
        let mut admitted = Vec::new();
        let mut refusals = Vec::new();
        for config in configs.iter().cloned().map(Arc::new) {
            let current = old.find(&config.name).and_then(Slot::version).cloned();
            let content = read(&config.path, file_bytes_max).await;
            let known = Refused {
                config: config.clone(),
                content: content.clone().map_err(|error| error.to_string()),
            };
            let tried = match content {
                // Explicit requests try again what was refused; notifications do not.
                _ if trigger == Trigger::File && self.was_refused(&known) => Ok(None),
                Ok(bytes) => self.admit(&config, bytes, current.as_ref(), &slots).await,
                Err(error) => Err(error),
            };
            let version = match tried {
                Ok(Some((version, admission))) => {
                    admitted.push((current.clone(), version.clone(), admission));
                    Some(version)
                }
                Ok(None) => current,
                Err(error) => {
                    self.note_refused(known);
                    self.report_refusal(&config, current.as_deref(), &error, trigger);
                    refusals.push((config.name.clone(), error));
                    current
                }
            };
            // Validated with the configuration.
            let sees = Patterns::parse(&config.events).unwrap_or_default();
            slots.push(Slot {
                config,
                sees,
                version,
            });
        }
        self.live.store(Arc::new(PluginSet { slots }));
        for (old, new, admission) in admitted {
            self.report_swap(old.as_deref(), &new, &admission, trigger, began);
        }
        refusals
    }

    /// None: the live version is this one already.
    async fn admit(
        &self,
        config: &Arc<PluginConfig>,
        bytes: Arc<[u8]>,
        current: Option<&Arc<PluginVersion>>,
        before: &[Slot],
    ) -> Result<Option<(Arc<PluginVersion>, Admission)>, LoadError> {
        let same = |version: &Arc<PluginVersion>| {
            **version.config() == **config && *version.hash() == super::cache::hash(&bytes)
        };
        if current.is_some_and(same) {
            return Ok(None);
        }
        let (version, admission) = self.loader.load(config, bytes).await?;
        for other in before.iter().filter_map(Slot::version) {
            if let Some(pattern) = other.handled().shared_with(version.handled()) {
                return Err(LoadError::Conflict {
                    pattern,
                    other: other.name().to_owned(),
                });
            }
        }
        Ok(Some((version, admission)))
    }

    fn was_refused(&self, refused: &Refused) -> bool {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(refused)
    }

    fn note_refused(&self, new: Refused) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|old| old.config.name != new.config.name);
        refused.push(new);
    }

    fn report_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        error: &LoadError,
        trigger: Trigger,
    ) {
        self.metrics
            .plugins
            .of(&config.name)
            .swapped(SwapOutcome::Refused);
        let (plugin, trigger) = (&config.name, trigger.as_str());
        match live {
            Some(live) => error!(
                plugin,
                trigger,
                live = live.label(),
                "plugin refused, the live version stays: {error}"
            ),
            None => error!(
                plugin,
                trigger, "plugin refused, and no version of it is live: {error}"
            ),
        }
    }

    fn report_swap(
        &self,
        old: Option<&PluginVersion>,
        new: &PluginVersion,
        admission: &Admission,
        trigger: Trigger,
        began: Instant,
    ) {
        new.metrics().swapped(SwapOutcome::Live);
        info!(
            plugin = new.name(),
            old = old.map_or("none", PluginVersion::label),
            new = new.label(),
            trigger = trigger.as_str(),
            compile_ms = admission.compile.as_secs_f64() * 1e3,
            cached = admission.cached,
            live_ms = began.elapsed().as_secs_f64() * 1e3,
            "plugin swapped"
        );
    }
}

/// Reads a plugin's file, off the threads that serve.
async fn read(path: &Path, max: usize) -> Result<Arc<[u8]>, LoadError> {
    let path = path.to_owned();
    let failed = |path: &Path, reason: String| LoadError::Read {
        path: path.to_owned(),
        reason,
    };
    let read = {
        let path = path.clone();
        move || {
            let failed = |error: std::io::Error| failed(&path, error.to_string());
            let bytes = fs::metadata(&path).map_err(failed)?.len();
            if bytes > max as u64 {
                return Err(LoadError::TooLarge { bytes, max });
            }
            fs::read(&path).map(Arc::from).map_err(failed)
        }
    };
    let join = tokio::task::spawn_blocking(read).await;
    join.unwrap_or_else(|error| {
        Err(LoadError::Read {
            path,
            reason: error.to_string(),
        })
    })
}
