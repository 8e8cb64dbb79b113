//! What operators do by hand: swap a component in that they upload, have the file read again, go back.
//!
//! Each goes the way of a reload: admitted beside what is live, one atomic store, written down, told in log and metrics.
//! What an operator put live stays until the plugin's file or its configuration changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument;

use super::{
    Attempt, NotAdmitted, Origin, Place, Registry, Reload, Tried, Trigger, record::Stint, swap_span,
};
use crate::{
    config::PluginConfig,
    plugin::{
        ComponentHash, LoadError, PluginVersion, Slot,
        cache::{hash, hex},
        loader::Candidate,
    },
};

/// What came of an operation that nothing spoke against.
#[derive(Debug)]
pub enum Change {
    /// Another version is live.
    Live {
        /// That version.
        version: Arc<PluginVersion>,
        /// The first twelve digits of the sha256 of the version that was live before.
        replaced: Option<String>,
        /// Time from the request to the swap.
        took: Duration,
    },
    /// What is live stays, because there was nothing to do.
    Unchanged(Unchanged),
}

/// Why there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// This version is live already.
    Live,
    /// The file is the one that an operator passed over, by a push or a rollback.
    Held,
    /// The file was refused, and has not changed since.
    Refused,
}

/// Why an operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such plugin is configured.
    #[error("no plugin is called {0:?} in the configuration of this node")]
    UnknownPlugin(String),
    /// There is nothing to go back to.
    #[error("there is no earlier version to go back to since this server was started")]
    NoEarlierVersion,
    /// The version to go back to is none that was live.
    #[error(
        "{0:?} is none of the versions that were live before; it takes at least 12 digits of the sha256"
    )]
    NoSuchVersion(String),
    /// The component was refused.
    #[error("{error}")]
    Refused {
        /// Which one; none where nothing could be read.
        hash: Option<ComponentHash>,
        /// Why.
        error: LoadError,
        /// The first twelve digits of the sha256 of the version that stays live.
        live: Option<String>,
    },
}

/// A component that was tried beside what is live, and may take its place.
#[derive(Debug)]
pub struct Admitted(Arc<PluginVersion>);

/// What is to become of a plugin.
enum Wanted {
    /// What its file says; with `force` whatever speaks for what is live.
    File { bytes_max: usize, force: bool },
    /// This component.
    Component(Result<Candidate, NotAdmitted>),
    /// This version, which was admitted before.
    Admitted(Arc<PluginVersion>),
    /// A version that was live before: the latest good one, or the one with this sha256.
    Earlier(Option<String>),
}

/// Fewest digits of a sha256 that name a version, as logs and reports do.
const DIGITS_MIN: usize = 12;

impl Registry {
    /// Swaps in the component `bytes`, with the configuration of the plugin that is in force.
    ///
    /// # Errors
    /// [`ChangeError`]; what was live stays then.
    pub async fn push(&self, plugin: &str, bytes: Arc<[u8]>) -> Result<Change, ChangeError> {
        let began = Instant::now();
        self.check_known(plugin)?;
        // Before its turn: a component that compiles for seconds holds up no other plugin.
        let hash = hash(&bytes);
        let compiled = self.loader.compile(bytes, self.pace(plugin));
        let compiled = compiled.instrument(swap_span(plugin, Trigger::Push)).await;
        let component = compiled.map_err(|error| NotAdmitted {
            hash: Some(hash),
            error,
        });
        let wanted = Wanted::Component(component);
        self.change(plugin, Trigger::Push, wanted, began).await
    }

    /// Tries the component `bytes` with the configuration of the plugin that is in force, and leaves live what is.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn admit(&self, plugin: &str, bytes: Arc<[u8]>) -> Result<Admitted, ChangeError> {
        let live = self.live();
        let slot = live.find(plugin);
        let slot = slot.ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let (config, current) = (slot.config(), slot.version());
        let hash = hash(&bytes);
        if let Some(current) = current
            && is_version(current, &hash, config)
        {
            return Ok(Admitted(current.clone()));
        }
        let admitted = async {
            let compiled = self.loader.compile(bytes, self.pace(plugin)).await?;
            self.loader.admit(config, compiled).await
        };
        let admitted = admitted
            .instrument(swap_span(plugin, Trigger::Cluster))
            .await;
        admitted.map(Admitted).map_err(|error| {
            let refused = NotAdmitted {
                hash: Some(hash),
                error: error.clone(),
            };
            self.note_refusal(config, current.map(Arc::as_ref), refused, Trigger::Cluster);
            ChangeError::Refused {
                hash: Some(hash),
                error,
                live: current.map(|live| live.label().to_owned()),
            }
        })
    }

    /// Makes live what [`Registry::admit`] admitted, for the whole cluster. Where the plugin's configuration has changed
    /// since, it is tried once more.
    ///
    /// # Errors
    /// [`ChangeError`]; what was live stays then.
    pub async fn put_live(&self, admitted: Admitted) -> Result<Change, ChangeError> {
        let Admitted(version) = admitted;
        let plugin = version.name().to_owned();
        let wanted = Wanted::Admitted(version);
        let began = Instant::now();
        self.change(&plugin, Trigger::Cluster, wanted, began).await
    }

    /// Reads the plugin's file again, also where it was refused before. With `force`, also where an operator passed it
    /// over, and where the same version is live: its instances begin anew then.
    ///
    /// # Errors
    /// [`ChangeError`]; what was live stays then.
    pub async fn reload(
        &self,
        plugin: &str,
        file_bytes_max: usize,
        force: bool,
    ) -> Result<Change, ChangeError> {
        let wanted = Wanted::File {
            bytes_max: file_bytes_max,
            force,
        };
        let began = Instant::now();
        self.change(plugin, Trigger::Reload, wanted, began).await
    }

    /// Goes back to the version whose sha256 starts with `to`, or to the latest that was not taken back itself: the
    /// component with the configuration that it had.
    ///
    /// # Errors
    /// [`ChangeError`]; what was live stays then.
    pub async fn roll_back(&self, plugin: &str, to: Option<&str>) -> Result<Change, ChangeError> {
        let wanted = Wanted::Earlier(to.map(str::to_owned));
        let began = Instant::now();
        self.change(plugin, Trigger::Rollback, wanted, began).await
    }

    fn check_known(&self, plugin: &str) -> Result<(), ChangeError> {
        let known = self.is_configured(plugin).then_some(());
        known.ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))
    }

    /// Whether there is a plugin of this name here.
    pub fn is_configured(&self, plugin: &str) -> bool {
        self.live().find(plugin).is_some()
    }

    async fn change(
        &self,
        plugin: &str,
        trigger: Trigger,
        wanted: Wanted,
        began: Instant,
    ) -> Result<Change, ChangeError> {
        let _turn = self.turn.lock().await;
        let live = self.live();
        let index = live
            .slots()
            .iter()
            .position(|slot| slot.config().name == plugin)
            .ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let place = |slot: &Slot| Place {
            config: slot.config().clone(),
            current: slot.version().cloned(),
            attempt: Attempt::Over,
        };
        let mut reload = Reload {
            trigger,
            began,
            places: live.slots().iter().map(place).collect(),
            refusals: Vec::new(),
        };
        let replaced = label_of(&reload.places[index]);
        let tried = self
            .try_wanted(&reload.places[index], wanted, trigger)
            .instrument(swap_span(plugin, trigger));
        let refused = |hash, error, live| Err(ChangeError::Refused { hash, error, live });
        match tried.await? {
            Ok(Tried::Same(why)) => Ok(Change::Unchanged(why)),
            Ok(Tried::New(version, origin)) => {
                reload.places[index].attempt = Attempt::Ready(version.clone(), origin);
                // Only this version is new, so only it can be refused for a conflict.
                self.settle_conflicts(&mut reload);
                if let Some((_, error)) = reload.refusals.pop() {
                    return refused(Some(*version.hash()), error, replaced);
                }
                self.go_live(&mut reload);
                Ok(Change::Live {
                    version,
                    replaced,
                    took: reload.began.elapsed(),
                })
            }
            Err(not_admitted) => {
                let (hash, error) = (not_admitted.hash, not_admitted.error.clone());
                self.refuse(&mut reload, index, not_admitted);
                refused(hash, error, replaced)
            }
        }
    }

    async fn try_wanted(
        &self,
        place: &Place,
        wanted: Wanted,
        trigger: Trigger,
    ) -> Result<Result<Tried, NotAdmitted>, ChangeError> {
        let (config, current) = (&place.config, place.current.as_ref());
        match wanted {
            Wanted::File { bytes_max, force } => {
                // As if nothing were live, nothing speaks against the file.
                let current = current.filter(|_| !force);
                Ok(self.attempt(config, current, bytes_max, trigger).await)
            }
            Wanted::Component(Err(refused)) => Ok(Err(refused)),
            Wanted::Component(Ok(candidate)) => {
                let hash = candidate.hash;
                if current.is_some_and(|live| is_version(live, &hash, config)) {
                    return Ok(Ok(Tried::Same(Unchanged::Live)));
                }
                let admitted = self.loader.admit(config, candidate).await;
                Ok(tried(admitted, hash))
            }
            Wanted::Admitted(version) => {
                let hash = *version.hash();
                if current.is_some_and(|live| is_version(live, &hash, config)) {
                    return Ok(Ok(Tried::Same(Unchanged::Live)));
                }
                if **version.config() == **config {
                    return Ok(tried(Ok(version), hash));
                }
                Ok(tried(
                    self.loader.admit(config, version.candidate()).await,
                    hash,
                ))
            }
            Wanted::Earlier(to) => {
                let Some(earlier) = self.earlier(&config.name, to, current)? else {
                    return Ok(Ok(Tried::Same(Unchanged::Live)));
                };
                let hash = *earlier.hash();
                // It was admitted before, and starts here as then.
                let version = Arc::new(earlier.anew());
                let warmed = version.warm_up().await;
                let warmed = warmed.map_err(|error| LoadError::Start(error.detail));
                Ok(tried(warmed.map(|()| version), hash))
            }
        }
    }

    /// The version to go back to; none where that is the one that is live.
    fn earlier(
        &self,
        plugin: &str,
        to: Option<String>,
        current: Option<&Arc<PluginVersion>>,
    ) -> Result<Option<Arc<PluginVersion>>, ChangeError> {
        let resting = |stint: &Stint| stint.resting.clone();
        let Some(to) = to else {
            let earlier = self
                .records
                .with(plugin, |record| record.latest_good().map(resting));
            return earlier.map(Some).ok_or(ChangeError::NoEarlierVersion);
        };
        let sha256 = to.to_ascii_lowercase();
        if sha256.len() < DIGITS_MIN {
            return Err(ChangeError::NoSuchVersion(to));
        }
        if current.is_some_and(|live| hex(live.hash()).starts_with(&sha256)) {
            return Ok(None);
        }
        let earlier = self
            .records
            .with(plugin, |record| record.earlier(&sha256).map(resting));
        earlier.map(Some).ok_or(ChangeError::NoSuchVersion(to))
    }
}

fn is_version(version: &PluginVersion, hash: &ComponentHash, config: &PluginConfig) -> bool {
    version.hash() == hash && **version.config() == *config
}

fn tried(
    admitted: Result<Arc<PluginVersion>, LoadError>,
    hash: ComponentHash,
) -> Result<Tried, NotAdmitted> {
    admitted
        .map(|version| Tried::New(version, Origin::Operator))
        .map_err(|error| NotAdmitted {
            hash: Some(hash),
            error,
        })
}

fn label_of(place: &Place) -> Option<String> {
    let version = place.current.as_ref()?;
    Some(version.label().to_owned())
}
