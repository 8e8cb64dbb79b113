//! Which versions are live, and how that changes: all at once, or not at all.
//!
//! [`Registry::apply`] brings what is live to what the files and the configuration say. What operators do by hand is in
//! [`operations`], what they are shown in [`view`], and what is remembered for both in [`record`].

mod operations;
mod record;
mod view;

use std::{sync::Arc, time::Instant};

use arc_swap::{ArcSwap, Guard};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tracing::{Instrument, Span, info, info_span};

use self::record::{Failure, Hold, Records, Refused};
use super::{
    ComponentHash,
    cache::hash,
    compile::Pace,
    loader::{LoadError, Loader},
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

pub use operations::{Admitted, Change, ChangeError, Unchanged};
pub use view::{CallFailure, PluginView, VersionView};

/// What set a swap off.
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
    /// An operator had the file read again.
    Reload,
    /// An operator uploaded a component.
    Push,
    /// An operator went back to an earlier version.
    Rollback,
    /// The cluster decided for a version.
    Cluster,
}

impl Trigger {
    /// As it stands in logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Config => "config",
            Self::Signal => "signal",
            Self::Reload => "reload",
            Self::Push => "push",
            Self::Rollback => "rollback",
            Self::Cluster => "cluster",
        }
    }
}

/// What lines of the log about a swap stand in, from its beginning until it is known how it ends.
fn swap_span(plugin: &str, trigger: Trigger) -> Span {
    info_span!("swap", plugin, trigger = trigger.as_str())
}

/// Holds the live set. One reload or operation runs at a time; within a reload, plugins are read, compiled and tried out
/// beside each other.
pub struct Registry {
    live: ArcSwap<PluginSet>,
    loader: Loader,
    metrics: Arc<Metrics>,
    records: Records,
    turn: tokio::sync::Mutex<()>,
}

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
    Ready(Arc<PluginVersion>, Origin),
    /// `current` is what there is to be.
    Over,
}

/// Where a new version comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The configured file.
    File,
    /// An operator: the file is passed over until it changes.
    Operator,
}

/// What came of looking at a plugin.
enum Tried {
    New(Arc<PluginVersion>, Origin),
    Same(Unchanged),
}

/// Why a component is not admitted, and which one.
struct NotAdmitted {
    /// None where nothing could be read.
    hash: Option<ComponentHash>,
    error: LoadError,
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
            records: Records::default(),
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
    /// version that it had, and so does one whose file an operator passed over. Returns the refusals.
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
                let swap = swap_span(&config.name, trigger);
                let tried = async move {
                    let tried = self.attempt(&config, current.as_ref(), file_bytes_max, trigger);
                    (index, tried.await)
                };
                tried.instrument(swap)
            })
            .collect();
        let mut attempts = attempts;
        while let Some((index, tried)) = attempts.next().await {
            self.take(&mut reload, index, tried);
            // With a conflict it waits for the others, whose new versions may have none.
            if trigger == Trigger::File && reload.conflict().is_none() {
                self.go_live(&mut reload);
            }
        }
        self.settle_conflicts(&mut reload);
        self.go_live(&mut reload);
        self.report_removed(&old, configs, trigger);
        reload.refusals
    }

    /// What the file of a plugin is worth now.
    async fn attempt(
        &self,
        config: &Arc<PluginConfig>,
        current: Option<&Arc<PluginVersion>>,
        file_bytes_max: usize,
        trigger: Trigger,
    ) -> Result<Tried, NotAdmitted> {
        let content = source::read(&config.path, file_bytes_max).await;
        let attempted = Refused {
            config: config.clone(),
            content: match &content {
                Ok(bytes) => Ok(hash(bytes)),
                Err(error) => Err(error.to_string()),
            },
        };
        let (refused, hold) = self.records.with(&config.name, |record| {
            record.file = Some(attempted.content.clone());
            // Explicit requests try again what was refused; notifications do not.
            let refused = trigger == Trigger::File && record.refused.as_ref() == Some(&attempted);
            if !refused {
                record.refused = None;
            }
            (refused, record.hold.clone())
        });
        if refused {
            return Ok(Tried::Same(Unchanged::Refused));
        }
        let hold = hold.filter(|hold| hold.passes_over(&attempted.content));
        let (hash, tried) = match (hold, current) {
            (Some(hold), Some(_)) if hold.config == *config => {
                return Ok(Tried::Same(Unchanged::Held));
            }
            (Some(_), Some(current)) => {
                let admitted = self.loader.admit(config, current.candidate()).await;
                let admitted = admitted.map(|version| Tried::New(version, Origin::Operator));
                (Some(*current.hash()), admitted)
            }
            (_, Some(current))
                if **current.config() == **config
                    && attempted.content.as_ref() == Ok(current.hash()) =>
            {
                // The file has caught up with what was pushed: from now on it is followed again.
                self.records.with(&config.name, |record| record.hold = None);
                return Ok(Tried::Same(Unchanged::Live));
            }
            _ => {
                let hash = attempted.content.as_ref().ok().copied();
                let loaded = match content {
                    Ok(bytes) => {
                        let pace = self.pace(&config.name);
                        self.loader.load(config, bytes, pace).await
                    }
                    Err(error) => Err(error),
                };
                (
                    hash,
                    loaded.map(|version| Tried::New(version, Origin::File)),
                )
            }
        };
        tried.map_err(|error| {
            self.records
                .with(&config.name, |record| record.refused = Some(attempted));
            NotAdmitted { hash, error }
        })
    }

    /// How much of the processors compiling this plugin may take.
    fn pace(&self, plugin: &str) -> Pace {
        match self.live().find(plugin).and_then(Slot::version) {
            Some(_) => Pace::Beside,
            None => Pace::Full,
        }
    }

    fn take(&self, reload: &mut Reload, index: usize, tried: Result<Tried, NotAdmitted>) {
        match tried {
            Ok(Tried::New(version, origin)) => {
                reload.places[index].attempt = Attempt::Ready(version, origin);
            }
            Ok(Tried::Same(_)) => reload.places[index].attempt = Attempt::Over,
            Err(refused) => self.refuse(reload, index, refused),
        }
    }

    fn settle_conflicts(&self, reload: &mut Reload) {
        while let Some(conflict) = reload.conflict() {
            let error = LoadError::Conflict {
                pattern: conflict.pattern,
                other: reload.places[conflict.other].config.name.clone(),
            };
            let hash = reload.places[conflict.refused]
                .next()
                .map(|new| *new.hash());
            self.refuse(reload, conflict.refused, NotAdmitted { hash, error });
        }
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
                Attempt::Ready(new, origin) => {
                    let old = place.current.replace(new.clone());
                    self.remember(&place.config, &new, origin, trigger);
                    self.report_swap(old.as_deref(), &new, trigger, began);
                }
                other => place.attempt = other,
            }
        }
    }

    fn remember(
        &self,
        config: &Arc<PluginConfig>,
        new: &Arc<PluginVersion>,
        origin: Origin,
        trigger: Trigger,
    ) {
        self.records.with(&config.name, |record| {
            record.went_live(new, trigger);
            record.hold = (origin == Origin::Operator).then(|| Hold {
                file: record.file.clone(),
                config: config.clone(),
            });
        });
    }

    fn refuse(&self, reload: &mut Reload, index: usize, refused: NotAdmitted) {
        let place = &mut reload.places[index];
        place.attempt = Attempt::Over;
        let error = refused.error.clone();
        self.note_refusal(
            &place.config,
            place.current.as_deref(),
            refused,
            reload.trigger,
        );
        reload.refusals.push((place.config.name.clone(), error));
    }

    fn note_refusal(
        &self,
        config: &PluginConfig,
        live: Option<&PluginVersion>,
        refused: NotAdmitted,
        trigger: Trigger,
    ) {
        let NotAdmitted { hash, error } = refused;
        self.report_refusal(config, live, &error, trigger);
        self.records.with(&config.name, |record| {
            record.failure = Some(Failure {
                at: std::time::SystemTime::now(),
                trigger,
                hash,
                error,
            });
        });
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
        trigger: Trigger,
        began: Instant,
    ) {
        PluginSwapped {
            metrics: new.metrics(),
            plugin: new.name(),
            old: old.map(PluginVersion::label),
            new: new.label(),
            trigger: trigger.as_str(),
            compile: new.admission().compile,
            cached: new.admission().cached,
            live_after: began.elapsed(),
        }
        .emit();
    }

    fn report_removed(&self, old: &PluginSet, configs: &[PluginConfig], trigger: Trigger) {
        let configured = |name: &str| configs.iter().any(|config| config.name == name);
        self.records.retain(configured);
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
