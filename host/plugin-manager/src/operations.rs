//! Manual operations: swapping in a component that an operator uploads, and reading the file again. Rollbacks are in
//! [`rollback`](super::rollback), because they do not wait for other operations.
//!
//! Each takes the same path as a reload: admission alongside the live version, one atomic store, a record, a log line
//! and metrics. A version that an operator made live stays until the plugin's file or its configuration changes.

use std::{sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{CompiledCandidate, LoadError, PluginSlot, PluginVersion, Sha256};
use tracing::Instrument;

use super::{
    Change, ChangeError, PluginManager, Reload, ReloadEntry, ReloadProgress, Trigger, Unchanged,
    load::{LoadFailure, LoadOutcome, LoadRequest, LoadedVersion},
    swap_span,
};

/// A component that passed its admission alongside the live version, and may replace it.
#[derive(Debug)]
pub struct AdmittedComponent {
    version: Arc<PluginVersion>,
    /// Its bytes, to be stored on disk once it is live.
    component: Arc<[u8]>,
}

/// How much an operator insists on a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Accepts a version that was rolled back on probation, and makes it live at once even if a rollout is configured.
    pub force: bool,
    /// Makes the version live at once and without probation: it stays, however often it fails.
    pub no_probation: bool,
}

/// The requested change to a plugin.
enum RequestedChange {
    /// The version in its file; `force` loads it no matter what speaks for the live version.
    File { bytes_max: usize, force: bool },
    /// This component, and its bytes.
    Component {
        compiled: Result<(CompiledCandidate, Arc<[u8]>), LoadFailure>,
        how: PushOptions,
    },
    /// This version, which was admitted before.
    Admitted {
        admitted: AdmittedComponent,
        watched: bool,
    },
}

impl PluginManager {
    /// Swaps in the component `bytes` with the plugin's current configuration.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the operation fails; the live version then stays.
    pub async fn push(
        &self,
        plugin: &str,
        bytes: Arc<[u8]>,
        how: PushOptions,
    ) -> Result<Change, ChangeError> {
        let began = Instant::now();
        let config = self.config_of(plugin)?;
        // Before taking the turn, so that a component that compiles for seconds does not delay other plugins.
        let hash = Sha256::of(&bytes);
        let pace = self.pace(plugin);
        let compiled = self.loader.compile(&config, bytes.clone(), pace);
        let compiled = compiled.instrument(swap_span(plugin, Trigger::Push)).await;
        let compiled = compiled
            .map(|candidate| (candidate, bytes))
            .map_err(|error| LoadFailure {
                hash: Some(hash),
                error,
            });
        let wanted = RequestedChange::Component { compiled, how };
        self.change(plugin, Trigger::Push, wanted, began).await
    }

    /// Admits the component `bytes` with the plugin's current configuration, without changing the live version.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the plugin is not configured, or if the component is refused.
    pub async fn admit(
        &self,
        plugin: &str,
        bytes: Arc<[u8]>,
    ) -> Result<AdmittedComponent, ChangeError> {
        let live = self.live();
        let slot = live.find(plugin);
        let slot = slot.ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let (config, current) = (slot.config(), slot.version());
        let hash = Sha256::of(&bytes);
        if let Some(current) = current
            && is_version(current, &hash, config)
        {
            return Ok(AdmittedComponent {
                version: current.clone(),
                component: bytes,
            });
        }
        let admitted = async {
            let pace = self.pace(plugin);
            let compiled = self.loader.compile(config, bytes.clone(), pace).await?;
            self.loader.admit(config, compiled).await
        };
        let admitted = admitted
            .instrument(swap_span(plugin, Trigger::Cluster))
            .await;
        let ready = |version| AdmittedComponent {
            version,
            component: bytes.clone(),
        };
        admitted.map(ready).map_err(|error| {
            let refused = LoadFailure {
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

    /// Makes live the component that [`PluginManager::admit`] admitted, for the whole cluster. If the plugin's configuration
    /// has changed since, the component is admitted again. `watched`: whether it goes on probation.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the operation fails; the live version then stays.
    pub async fn put_live(
        &self,
        admitted: AdmittedComponent,
        watched: bool,
    ) -> Result<Change, ChangeError> {
        let plugin = admitted.version.name().to_owned();
        let wanted = RequestedChange::Admitted { admitted, watched };
        let began = Instant::now();
        self.change(&plugin, Trigger::Cluster, wanted, began).await
    }

    /// Reads the plugin's file again, even if it was refused before. With `force`, also if an operator overrode it with
    /// a push or a rollback, and if the same version is already live, whose instances then start again.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the operation fails; the live version then stays.
    pub async fn reload(
        &self,
        plugin: &str,
        file_bytes_max: usize,
        force: bool,
    ) -> Result<Change, ChangeError> {
        let wanted = RequestedChange::File {
            bytes_max: file_bytes_max,
            force,
        };
        let began = Instant::now();
        self.change(plugin, Trigger::Reload, wanted, began).await
    }

    fn config_of(&self, plugin: &str) -> Result<Arc<PluginConfig>, ChangeError> {
        let live = self.live();
        let slot = live.find(plugin);
        let slot = slot.ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        Ok(slot.config().clone())
    }

    /// Why the version with this sha256 was rolled back automatically with the current configuration; `None`
    /// if it was not, or if an operator has insisted on it since.
    pub fn rollback_reason(&self, plugin: &str, sha256: &Sha256) -> Option<String> {
        let live = self.live();
        let config = live.find(plugin)?.config();
        self.histories
            .with(plugin, |history| history.why_barred(sha256, config))
    }

    /// The names of all plugins, in the order of the chain.
    pub fn names(&self) -> Vec<String> {
        let live = self.live();
        let slots = live.slots().iter();
        slots.map(|slot| slot.config().name.clone()).collect()
    }

    /// Whether a plugin with this name is configured on this node.
    pub fn is_configured(&self, plugin: &str) -> bool {
        self.live().find(plugin).is_some()
    }

    /// Changes the live version, and waits, for a bounded time, until that is on disk.
    async fn change(
        &self,
        plugin: &str,
        trigger: Trigger,
        wanted: RequestedChange,
        began: Instant,
    ) -> Result<Change, ChangeError> {
        let changed = self.change_now(plugin, trigger, wanted, began).await;
        self.until_kept(plugin).await;
        changed
    }

    /// Waits, for a bounded time, until the live version is on disk.
    pub(super) async fn until_kept(&self, plugin: &str) {
        if self.is_configured(plugin) {
            self.keep(plugin, None);
            self.kept().await;
        }
    }

    /// A reload without any new version yet, and the index of `plugin` in it.
    pub(super) fn reload_of(
        &self,
        plugin: &str,
        trigger: Trigger,
        began: Instant,
    ) -> Result<(Reload, usize), ChangeError> {
        let live = self.live();
        let index = live
            .slots()
            .iter()
            .position(|slot| slot.config().name == plugin)
            .ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let entry = |slot: &PluginSlot| ReloadEntry {
            config: slot.config().clone(),
            current: slot.version().cloned(),
            rollout: slot.rollout().cloned(),
            attempt: ReloadProgress::Over,
        };
        let reload = Reload {
            trigger,
            began,
            entries: live.slots().iter().map(entry).collect(),
            refusals: Vec::new(),
        };
        Ok((reload, index))
    }

    async fn change_now(
        &self,
        plugin: &str,
        trigger: Trigger,
        wanted: RequestedChange,
        began: Instant,
    ) -> Result<Change, ChangeError> {
        let _turn = self.turn.lock().await;
        let (mut reload, index) = self.reload_of(plugin, trigger, began)?;
        let replaced = label_of(&reload.entries[index]);
        let outcome = self
            .try_wanted(&reload.entries[index], wanted, trigger)
            .instrument(swap_span(plugin, trigger));
        let refused = |hash, error, live| Err(ChangeError::Refused { hash, error, live });
        match outcome.await? {
            Ok(LoadOutcome::Same(why)) => Ok(Change::Unchanged(why)),
            Ok(LoadOutcome::New(new)) => {
                let version = new.version.clone();
                reload.entries[index].attempt = ReloadProgress::Ready(Box::new(new));
                // Only this version is new, so only it can be refused for a conflict.
                self.settle_conflicts(&mut reload);
                self.go_live(&mut reload).await;
                // Because of a conflict, or because it did not accept the state of the previous version.
                if let Some((_, error)) = reload.refusals.pop() {
                    return refused(Some(*version.hash()), error, replaced);
                }
                let took = reload.began.elapsed();
                let rollout = reload.entries[index].rollout.as_ref();
                Ok(match rollout {
                    Some(rollout) => Change::OnTrial {
                        version,
                        mode: rollout.mode(),
                        percent: rollout.percent(),
                        took,
                    },
                    None => Change::Live {
                        version,
                        replaced,
                        took,
                    },
                })
            }
            Err(not_admitted) => {
                let (hash, error) = (not_admitted.hash, not_admitted.error.clone());
                self.refuse(&reload.entries[index], not_admitted, trigger);
                refused(hash, error, replaced)
            }
        }
    }

    async fn try_wanted(
        &self,
        entry: &ReloadEntry,
        wanted: RequestedChange,
        trigger: Trigger,
    ) -> Result<Result<LoadOutcome, LoadFailure>, ChangeError> {
        let (config, current) = (&entry.config, entry.current.as_ref());
        match wanted {
            RequestedChange::File { bytes_max, force } => {
                let request = LoadRequest {
                    config,
                    current,
                    rollout: entry.rollout.as_deref(),
                    file_bytes_max: bytes_max,
                    trigger,
                    force,
                };
                Ok(self.attempt(&request).await)
            }
            RequestedChange::Component { compiled, how } => {
                let insists = how.force || how.no_probation;
                let (candidate, bytes) = match compiled {
                    Ok(compiled) => compiled,
                    Err(refused) => return Ok(Err(refused)),
                };
                let hash = candidate.hash;
                if current.is_some_and(|live| is_version(live, &hash, config)) {
                    return Ok(Ok(LoadOutcome::Same(Unchanged::Live)));
                }
                let on_trial = entry.rollout.as_ref().map(|rollout| rollout.candidate());
                if !insists
                    && on_trial.is_some_and(|candidate| is_version(candidate, &hash, config))
                {
                    return Ok(Ok(LoadOutcome::Same(Unchanged::OnTrial)));
                }
                if !how.force {
                    self.check_not_barred(config, &hash)?;
                }
                let admitted = self.loader.admit(config, candidate).await;
                let outcome = load_outcome(admitted, hash, Some(bytes));
                Ok(match how {
                    PushOptions {
                        no_probation: true, ..
                    } => outcome.map(LoadOutcome::unwatched),
                    PushOptions { force: true, .. } => outcome.map(LoadOutcome::insisted),
                    PushOptions { .. } => outcome,
                })
            }
            RequestedChange::Admitted { admitted, watched } => {
                let AdmittedComponent { version, component } = admitted;
                let hash = *version.hash();
                if current.is_some_and(|live| is_version(live, &hash, config)) {
                    return Ok(Ok(LoadOutcome::Same(Unchanged::Live)));
                }
                let admitted = if version.config().makes_same_version(config) {
                    Ok(version)
                } else {
                    self.loader.admit(config, version.candidate()).await
                };
                let outcome = load_outcome(admitted, hash, Some(component));
                Ok(if watched {
                    outcome
                } else {
                    outcome.map(LoadOutcome::unwatched)
                })
            }
        }
    }

    fn check_not_barred(&self, config: &PluginConfig, hash: &Sha256) -> Result<(), ChangeError> {
        let barred = self
            .histories
            .with(&config.name, |history| history.why_barred(hash, config));
        match barred {
            Some(reason) => Err(ChangeError::RolledBack {
                version: hash.label(),
                reason,
            }),
            None => Ok(()),
        }
    }
}

fn is_version(version: &PluginVersion, hash: &Sha256, config: &PluginConfig) -> bool {
    version.hash() == hash && version.config().makes_same_version(config)
}

/// Turns an admission that an operator asked for into a [`LoadOutcome`].
pub(super) fn load_outcome(
    admitted: Result<Arc<PluginVersion>, LoadError>,
    hash: Sha256,
    component: Option<Arc<[u8]>>,
) -> Result<LoadOutcome, LoadFailure> {
    admitted
        .map(|version| LoadOutcome::New(LoadedVersion::of_operator(version, component)))
        .map_err(|error| LoadFailure {
            hash: Some(hash),
            error,
        })
}

pub(super) fn label_of(entry: &ReloadEntry) -> Option<String> {
    let version = entry.current.as_ref()?;
    Some(version.label().to_owned())
}
