//! Manual operations: swapping in a component that an operator uploads, reading the file again, and rolling back.
//!
//! Each takes the same path as a reload: admission alongside the live version, one atomic store, a record, a log line
//! and metrics. A version that an operator made live stays until the plugin's file or its configuration changes.

use std::{sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{PluginSlot, PluginVersion, Sha256};
use tracing::Instrument;

use super::{
    Change, ChangeError, PluginManager, Trigger, Unchanged,
    load::{Given, LoadFailure, LoadOutcome},
    plugin_history::VersionId,
    reload::{Layout, Progress, Reload, ReloadEntry},
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
enum RequestedChange<'a> {
    /// The version in its file; `force` loads it no matter what speaks for the live version.
    File { bytes_max: usize, force: bool },
    /// This component, which has this hash.
    Component {
        given: Given,
        hash: Sha256,
        options: PushOptions,
    },
    /// The earlier version whose sha256 starts with `to`, or the latest good one.
    Earlier { to: Option<&'a str> },
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
        options: PushOptions,
    ) -> Result<Change, ChangeError> {
        let began = Instant::now();
        let entry = self.entry_of(plugin)?;
        // Before taking the turn, so that a component that compiles for seconds does not delay other plugins.
        let hash = Sha256::of(&bytes);
        let priority = self.compile_priority(plugin);
        let compiled = self.loader.compile(&entry.config, bytes.clone(), priority);
        let compiled = compiled.instrument(swap_span(plugin, Trigger::Push)).await;
        let candidate = compiled.map_err(|error| {
            let hash = Some(hash);
            self.refused(&entry, LoadFailure { hash, error }, Trigger::Push)
        })?;
        let request = RequestedChange::Component {
            given: Given::Compiled(candidate, bytes),
            hash,
            options,
        };
        self.change(plugin, Trigger::Push, request, began).await
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
        let entry = self.entry_of(plugin)?;
        let config = &entry.config;
        let hash = Sha256::of(&bytes);
        let wanted = VersionId::new(hash, config);
        let current = entry.current.as_ref();
        if let Some(live) = current.filter(|live| VersionId::of(live) == wanted) {
            return Ok(AdmittedComponent {
                version: live.clone(),
                component: bytes,
            });
        }
        let admitted = async {
            let priority = self.compile_priority(plugin);
            let compiled = self.loader.compile(config, bytes.clone(), priority).await?;
            self.loader.admit(config, compiled).await
        };
        let admitted = admitted
            .instrument(swap_span(plugin, Trigger::Cluster))
            .await;
        match admitted {
            Ok(version) => Ok(AdmittedComponent {
                version,
                component: bytes,
            }),
            Err(error) => {
                let hash = Some(hash);
                Err(self.refused(&entry, LoadFailure { hash, error }, Trigger::Cluster))
            }
        }
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
        let began = Instant::now();
        let AdmittedComponent { version, component } = admitted;
        let plugin = version.name().to_owned();
        let request = RequestedChange::Component {
            hash: *version.hash(),
            given: Given::Admitted(version, component),
            options: PushOptions {
                // The cluster has decided.
                force: true,
                no_probation: !watched,
            },
        };
        self.change(&plugin, Trigger::Cluster, request, began).await
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
        let request = RequestedChange::File {
            bytes_max: file_bytes_max,
            force,
        };
        let began = Instant::now();
        self.change(plugin, Trigger::Reload, request, began).await
    }

    /// Rolls back to the version whose sha256 starts with `to`, or without `to` to the latest version that was not
    /// itself rolled back. The component runs with the configuration that it had, or with the current one if it was
    /// live in an earlier process. A file that is being loaded in the meantime is skipped.
    ///
    /// A rollback does not wait for a reload or an operation in progress, which may compile for minutes.
    ///
    /// # Errors
    /// Returns [`ChangeError`] if the operation fails; the live version then stays.
    pub async fn roll_back(&self, plugin: &str, to: Option<&str>) -> Result<Change, ChangeError> {
        let request = RequestedChange::Earlier { to };
        let began = Instant::now();
        self.change(plugin, Trigger::Rollback, request, began).await
    }

    /// Changes the live version, and waits, for a bounded time, until that is on disk.
    async fn change(
        &self,
        plugin: &str,
        trigger: Trigger,
        request: RequestedChange<'_>,
        began: Instant,
    ) -> Result<Change, ChangeError> {
        let changed = match request {
            RequestedChange::Earlier { .. } => {
                self.change_now(plugin, trigger, request, began).await
            }
            _ => {
                let _turn = self.turn.lock().await;
                self.change_now(plugin, trigger, request, began).await
            }
        };
        if self.is_configured(plugin) {
            self.state().persist(plugin, None);
            self.kept().await;
        }
        changed
    }

    async fn change_now(
        &self,
        plugin: &str,
        trigger: Trigger,
        request: RequestedChange<'_>,
        began: Instant,
    ) -> Result<Change, ChangeError> {
        let (mut reload, index) = self.reload_of_live_set(plugin, trigger, began)?;
        let replaced = label_of(&reload.entries[index]);
        let outcome = self
            .load_requested(&reload.entries[index], request, trigger)
            .instrument(swap_span(plugin, trigger))
            .await?;
        let new = match outcome {
            LoadOutcome::New(new) => new,
            LoadOutcome::Same(why) => return Ok(Change::Unchanged(why)),
            LoadOutcome::Withdrawn { candidate, live } => {
                return Ok(Change::Live {
                    version: live,
                    replaced: Some(candidate.label().to_owned()),
                    took: began.elapsed(),
                });
            }
        };
        let version = new.version.clone();
        reload.entries[index].progress = Progress::Ready(Box::new(new));
        // Only this version is new, so only it can be refused for a conflict.
        self.settle_conflicts(&mut reload);
        self.go_live(&mut reload).await;
        // Because of a conflict, or because it did not accept the state of the previous version.
        if let Some((_, error)) = reload.refusals.pop() {
            return Err(ChangeError::Refused {
                hash: Some(*version.hash()),
                error,
                live: replaced,
            });
        }
        let entry = &reload.entries[index];
        let took = began.elapsed();
        match (&entry.progress, &entry.rollout) {
            (Progress::OnTrial, Some(rollout)) => Ok(Change::OnTrial {
                version,
                mode: rollout.mode(),
                percent: rollout.percent(),
                took,
            }),
            (Progress::Live, _) => Ok(Change::Live {
                version,
                replaced,
                took,
            }),
            // An operator's rollback has overtaken it.
            (Progress::Unchanged, _) => Ok(Change::Unchanged(Unchanged::Held)),
            _ => Err(ChangeError::UnknownPlugin(plugin.to_owned())),
        }
    }

    /// A reload of the live set without any new version yet, and the index of `plugin` in it.
    fn reload_of_live_set(
        &self,
        plugin: &str,
        trigger: Trigger,
        began: Instant,
    ) -> Result<(Reload, usize), ChangeError> {
        let live = self.live();
        let mut slots = live.slots().iter();
        let index = slots
            .position(|slot| slot.config().name == plugin)
            .ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))?;
        let entries = live.slots().iter().map(entry);
        let reload = Reload {
            trigger,
            began,
            layout: Layout::OfLiveSet,
            entries: entries.collect(),
            refusals: Vec::new(),
        };
        Ok((reload, index))
    }

    async fn load_requested(
        &self,
        entry: &ReloadEntry,
        request: RequestedChange<'_>,
        trigger: Trigger,
    ) -> Result<LoadOutcome, ChangeError> {
        let config = &entry.config;
        let outcome = match request {
            RequestedChange::File { bytes_max, force } => {
                self.load_file(config, bytes_max, force, trigger).await
            }
            RequestedChange::Component {
                given,
                hash,
                options,
            } => {
                let plan = self
                    .state()
                    .observe(config, trigger)
                    .plan_component(hash, options)?;
                self.carry_out(config, plan, given).await
            }
            RequestedChange::Earlier { to } => {
                let plan = self.state().observe(config, trigger).plan_rollback(to)?;
                self.carry_out(config, plan, Given::None).await
            }
        };
        outcome.map_err(|failure| self.refused(entry, failure, trigger))
    }

    /// Records and reports that a version does not go live, and returns the error for the operator.
    fn refused(&self, entry: &ReloadEntry, failure: LoadFailure, trigger: Trigger) -> ChangeError {
        let error = ChangeError::Refused {
            hash: failure.hash,
            error: failure.error.clone(),
            live: label_of(entry),
        };
        self.refuse(entry, failure, trigger);
        error
    }

    fn entry_of(&self, plugin: &str) -> Result<ReloadEntry, ChangeError> {
        let live = self.live();
        let slot = live.find(plugin);
        slot.map(entry)
            .ok_or_else(|| ChangeError::UnknownPlugin(plugin.to_owned()))
    }

    /// Why the version with this sha256 was rolled back automatically with the current configuration; `None`
    /// if it was not, or if an operator has insisted on it since.
    pub fn rollback_reason(&self, plugin: &str, sha256: &Sha256) -> Option<String> {
        let live = self.live();
        let config: &PluginConfig = live.find(plugin)?.config();
        let id = VersionId::new(*sha256, config);
        self.state().history(plugin).why_barred(&id)
    }
}

/// The slot in a reload that has no new version for it yet.
fn entry(slot: &PluginSlot) -> ReloadEntry {
    ReloadEntry::new(slot.config().clone(), Some(slot), Progress::Unchanged)
}

fn label_of(entry: &ReloadEntry) -> Option<String> {
    let version = entry.current.as_ref()?;
    Some(version.label().to_owned())
}
