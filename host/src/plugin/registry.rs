//! Which versions are live, and how that changes: all at once, or not at all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tracing::info;

use super::{
    cache::{ComponentHash, hash},
    compile::Pace,
    loader::{Admission, LoadError, Loader},
    set::{Claim, PluginSet, Slot, conflict},
    source,
    version::PluginVersion,
};
use crate::{
    config::PluginConfig,
    metrics::{
        Metrics,
        events::{PluginRefused, PluginSwapped},
    },
};

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

/// Holds the live set. One reload runs at a time; within one, plugins are read, compiled and tried out beside each
/// other.
pub struct Registry {
    live: ArcSwap<PluginSet>,
    loader: Loader,
    metrics: Arc<Metrics>,
    /// What was refused last, by plugin: not tried again before it changes.
    refused: Mutex<HashMap<String, Refused>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, PartialEq)]
struct Refused {
    config: Arc<PluginConfig>,
    content: Content,
}

/// What was in a file, or why it could not be read.
type Content = Result<ComponentHash, String>;

/// One plugin of a reload.
struct Place {
    config: Arc<PluginConfig>,
    current: Option<Arc<PluginVersion>>,
    attempt: Attempt,
}

/// How far a plugin of a reload has come.
enum Attempt {
    /// It is being read, compiled or tried out.
    UnderWay,
    /// Admitted, and not live yet.
    Ready(Arc<PluginVersion>, Box<Admission>),
    /// `current` is what there is to be.
    Over,
}

impl Place {
    /// What is live of it once everything that is ready is.
    fn next(&self) -> Option<&Arc<PluginVersion>> {
        match &self.attempt {
            Attempt::Ready(version, _) => Some(version),
            _ => self.current.as_ref(),
        }
    }

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim {
            handles: self.next()?.handled(),
            new: matches!(self.attempt, Attempt::Ready(..)),
        })
    }
}

/// A reload under way.
struct Reload {
    trigger: Trigger,
    began: Instant,
    places: Vec<Place>,
    refusals: Vec<(String, LoadError)>,
}

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

    /// The set that is live now, for one message: unlike [`Registry::live`] it makes no thread wait for another.
    pub fn live_now(&self) -> Guard<Arc<PluginSet>> {
        self.live.load()
    }

    /// The set that is live now.
    pub fn live(&self) -> Arc<PluginSet> {
        self.live.load_full()
    }

    /// Brings the live set to `configs`, reading every file anew. A plugin whose new version is refused keeps the
    /// version that it had. Returns the refusals.
    ///
    /// A changed configuration becomes live as a whole. Where only files changed, each plugin becomes live as soon as
    /// it can, so that one that compiles for seconds holds up no other.
    pub async fn apply(
        &self,
        configs: &[PluginConfig],
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Vec<(String, LoadError)> {
        let _turn = self.turn.lock().await;
        let old = self.live();
        let place = |config: &PluginConfig| Place {
            config: Arc::new(config.clone()),
            current: old.find(&config.name).and_then(Slot::version).cloned(),
            attempt: Attempt::UnderWay,
        };
        let mut reload = Reload {
            trigger,
            began: Instant::now(),
            places: configs.iter().map(place).collect(),
            refusals: Vec::new(),
        };
        let attempts: FuturesUnordered<_> = reload
            .places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let (config, current) = (place.config.clone(), place.current.clone());
                async move {
                    let tried = self.attempt(&config, current, file_bytes_max, trigger);
                    (index, tried.await)
                }
            })
            .collect();
        let mut attempts = attempts;
        while let Some((index, tried)) = attempts.next().await {
            match tried {
                Ok(Some((version, admission))) => {
                    reload.places[index].attempt = Attempt::Ready(version, Box::new(admission));
                }
                Ok(None) => reload.places[index].attempt = Attempt::Over,
                Err(error) => self.refuse(&mut reload, index, error),
            }
            // With a conflict it waits for the others, whose new versions may have none.
            if trigger == Trigger::File && reload.conflict().is_none() {
                self.go_live(&mut reload);
            }
        }
        while let Some(conflict) = reload.conflict() {
            let error = LoadError::Conflict {
                pattern: conflict.pattern,
                other: reload.places[conflict.other].config.name.clone(),
            };
            self.refuse(&mut reload, conflict.refused, error);
        }
        self.go_live(&mut reload);
        self.report_removed(&old, configs, trigger);
        reload.refusals
    }

    /// None: the live version is this one already, or it was refused before.
    async fn attempt(
        &self,
        config: &Arc<PluginConfig>,
        current: Option<Arc<PluginVersion>>,
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Result<Option<(Arc<PluginVersion>, Admission)>, LoadError> {
        let content = source::read(&config.path, file_bytes_max).await;
        let attempted = Refused {
            config: config.clone(),
            content: match &content {
                Ok(bytes) => Ok(hash(bytes)),
                Err(error) => Err(error.to_string()),
            },
        };
        // Explicit requests try again what was refused; notifications do not.
        if trigger == Trigger::File && self.refused().get(&config.name) == Some(&attempted) {
            return Ok(None);
        }
        self.refused().remove(&config.name);
        let same = |version: &Arc<PluginVersion>| {
            **version.config() == **config && attempted.content.as_ref() == Ok(version.hash())
        };
        if current.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let pace = match &current {
            Some(_) => Pace::Beside,
            None => Pace::Full,
        };
        let loaded = match content {
            Ok(bytes) => self.loader.load(config, bytes, pace).await,
            Err(error) => Err(error),
        };
        loaded.map(Some).inspect_err(|_| {
            self.refused().insert(config.name.clone(), attempted);
        })
    }

    /// Makes everything live that is ready, by one store.
    fn go_live(&self, reload: &mut Reload) {
        let slots = reload
            .places
            .iter()
            .map(|place| Slot::new(place.config.clone(), place.next().cloned()));
        let set = PluginSet::new(slots.collect());
        self.metrics.messages_by_type.know(set.named_types());
        self.live.store(Arc::new(set));
        let (trigger, began) = (reload.trigger, reload.began);
        for place in &mut reload.places {
            match std::mem::replace(&mut place.attempt, Attempt::Over) {
                Attempt::Ready(new, admission) => {
                    let old = place.current.replace(new.clone());
                    self.report_swap(old.as_deref(), &new, &admission, trigger, began);
                }
                other => place.attempt = other,
            }
        }
    }

    fn refuse(&self, reload: &mut Reload, index: usize, error: LoadError) {
        let place = &mut reload.places[index];
        place.attempt = Attempt::Over;
        self.report_refusal(
            &place.config,
            place.current.as_deref(),
            &error,
            reload.trigger,
        );
        reload.refusals.push((place.config.name.clone(), error));
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<String, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        error: &LoadError,
        trigger: Trigger,
    ) {
        PluginRefused {
            metrics: &self.metrics.plugins.of(&config.name),
            plugin: &config.name,
            live: live.map(PluginVersion::label),
            trigger: trigger.as_str(),
            error,
        }
        .emit();
    }

    fn report_swap(
        &self,
        old: Option<&PluginVersion>,
        new: &PluginVersion,
        admission: &Admission,
        trigger: Trigger,
        began: Instant,
    ) {
        PluginSwapped {
            metrics: new.metrics(),
            plugin: new.name(),
            old: old.map(PluginVersion::label),
            new: new.label(),
            trigger: trigger.as_str(),
            compile: admission.compile,
            cached: admission.cached,
            live_after: began.elapsed(),
        }
        .emit();
    }

    fn report_removed(&self, old: &PluginSet, configs: &[PluginConfig], trigger: Trigger) {
        let configured = |name: &str| configs.iter().any(|config| config.name == name);
        self.refused().retain(|name, _| configured(name));
        for slot in old
            .slots()
            .iter()
            .filter(|slot| !configured(&slot.config().name))
        {
            info!(
                plugin = slot.config().name,
                old = slot.version().map_or("none", |version| version.label()),
                trigger = trigger.as_str(),
                "plugin removed"
            );
        }
    }
}

impl Reload {
    fn conflict(&self) -> Option<super::set::Conflict> {
        let claims: Vec<_> = self.places.iter().map(Place::claim).collect();
        conflict(&claims)
    }
}
