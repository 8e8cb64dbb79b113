//! Carries out a [`Plan`]: loads the first of the planned versions that can be loaded.

use std::{sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_plugin_runtime::{
    CompilePriority, CompiledCandidate, LoadError, PluginVersion, Sha256, source,
};
use tracing::warn;

use super::{
    PluginManager, Trigger, Unchanged,
    plan::{Fallback, LoadPlan, LoadSource, LoadStep, Loaded, Plan},
    plugin_history::{Content, RefusedFile, VersionId},
    trigger::Origin,
};

/// The maximum size, in bytes, of a component that is read from the versions on disk. Each was within the limit when it
/// went live.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// The content of a plugin's file.
pub(super) struct FileContent {
    pub(super) content: Content,
    bytes: Result<Arc<[u8]>, LoadError>,
}

impl FileContent {
    pub(super) async fn read(config: &PluginConfig, bytes_max: usize) -> Self {
        let bytes = source::read(&config.path, bytes_max).await;
        let content = match &bytes {
            Ok(bytes) => Ok(Sha256::of(bytes)),
            Err(error) => Err(error.to_string()),
        };
        Self { content, bytes }
    }
}

/// The component at hand, for [`LoadSource::Given`].
pub(super) enum Given {
    None,
    File(FileContent),
    /// An uploaded component, and its bytes.
    Compiled(CompiledCandidate, Arc<[u8]>),
    /// A version that was admitted before, and its bytes.
    Admitted(Arc<PluginVersion>, Arc<[u8]>),
}

impl Given {
    fn hash(&self) -> Option<Sha256> {
        match self {
            Self::None => None,
            Self::File(file) => file.content.as_ref().ok().copied(),
            Self::Compiled(candidate, _) => Some(candidate.hash),
            Self::Admitted(version, _) => Some(*version.hash()),
        }
    }

    /// The bytes, to be stored on disk once the version is live.
    fn component(&self) -> Option<Arc<[u8]>> {
        match self {
            Self::None => None,
            Self::File(file) => file.bytes.as_ref().ok().cloned(),
            Self::Compiled(_, bytes) | Self::Admitted(_, bytes) => Some(bytes.clone()),
        }
    }
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
    pub(super) fn activated_by(&self, requested: Instant, has_state: bool) -> Loaded {
        Loaded {
            origin: self.origin,
            insisted: self.insisted,
            requested,
            has_state,
        }
    }
}

/// The result of carrying out a plan.
pub(super) enum LoadOutcome {
    New(LoadedVersion),
    Same(Unchanged),
    /// The live version stays, and the candidate is no longer on trial.
    Withdrawn {
        candidate: Arc<PluginVersion>,
        live: Arc<PluginVersion>,
    },
}

/// The component that is not admitted, and why.
pub(super) struct LoadFailure {
    /// `None` if nothing could be read.
    pub(super) hash: Option<Sha256>,
    pub(super) error: LoadError,
}

impl PluginManager {
    /// Reads the plugin's file, and loads the version that should be live. With `force`, that is the version in the
    /// file, regardless of anything that speaks against it.
    pub(super) async fn load_file(
        &self,
        config: &Arc<PluginConfig>,
        bytes_max: usize,
        force: bool,
        trigger: Trigger,
    ) -> Result<LoadOutcome, LoadFailure> {
        let file = FileContent::read(config, bytes_max).await;
        let plan = self
            .state()
            .plan_file(config, &file.content, force, trigger);
        self.carry_out(config, plan, Given::File(file)).await
    }

    /// Carries out `plan` for the plugin of `config`.
    pub(super) async fn carry_out(
        &self,
        config: &Arc<PluginConfig>,
        plan: Plan,
        given: Given,
    ) -> Result<LoadOutcome, LoadFailure> {
        match plan {
            Plan::Keep(why) => Ok(LoadOutcome::Same(why)),
            Plan::FollowFile => {
                self.state().follow_file(&config.name);
                Ok(LoadOutcome::Same(Unchanged::Live))
            }
            Plan::Withdraw => {
                let mut state = self.state();
                let withdrawn = state.withdraw_any(&config.name, "an operator rolled it back");
                Ok(match (withdrawn, state.live_version(&config.name)) {
                    (Some(candidate), Some(live)) => LoadOutcome::Withdrawn { candidate, live },
                    _ => LoadOutcome::Same(Unchanged::Live),
                })
            }
            Plan::Load(plan) => self.load(config, plan, given).await.map(LoadOutcome::New),
        }
    }

    /// Loads the first of the planned versions that can be loaded.
    pub(super) async fn load(
        &self,
        config: &Arc<PluginConfig>,
        plan: LoadPlan,
        given: Given,
    ) -> Result<LoadedVersion, LoadFailure> {
        let mut failure = None;
        let is_only_one = plan.steps.len() == 1;
        for LoadStep { source, origin } in &plan.steps {
            let is_given = *source == LoadSource::Given;
            match self.load_from(config, source, &given).await {
                Ok(version) => {
                    if !is_given {
                        self.fell_back(config, plan.fallback, &given);
                    }
                    return Ok(LoadedVersion {
                        version,
                        origin: *origin,
                        component: given.component().filter(|_| is_given),
                        insisted: plan.insisted,
                        watched: plan.watched,
                        instead_of: failure.filter(|_| !is_given),
                    });
                }
                Err(failed) if is_given => failure = Some(failed),
                Err(failed) => {
                    if !is_only_one {
                        warn!(
                            plugin = config.name,
                            version = failed.hash.as_ref().map(Sha256::label),
                            "a version that was live before does not start again: {}",
                            failed.error
                        );
                    }
                    failure.get_or_insert(failed);
                }
            }
        }
        if let Given::File(file) = given {
            self.refuse_file(config, file.content);
        }
        Err(failure.unwrap_or_else(|| LoadFailure {
            hash: None,
            error: LoadError::Start("there is no version to start".to_owned()),
        }))
    }

    /// Records that an earlier version was loaded in place of the file at hand.
    fn fell_back(&self, config: &Arc<PluginConfig>, fallback: Fallback, given: &Given) {
        match (fallback, given) {
            (Fallback::NotExamined(hash), _) => {
                self.state().history(&config.name).file = hash.map(Ok);
            }
            (Fallback::Refused, Given::File(file)) => {
                self.refuse_file(config, file.content.clone());
            }
            (Fallback::Refused | Fallback::Unchanged, _) => {}
        }
    }

    /// Records that the file is not to be tried again until it changes or somebody requests it.
    fn refuse_file(&self, config: &Arc<PluginConfig>, content: Content) {
        self.state().history(&config.name).refused = Some(RefusedFile {
            config: config.clone(),
            content,
        });
    }

    async fn load_from(
        &self,
        config: &Arc<PluginConfig>,
        source: &LoadSource,
        given: &Given,
    ) -> Result<Arc<PluginVersion>, LoadFailure> {
        let (hash, loaded) = match source {
            LoadSource::Given => (given.hash(), self.load_given(config, given).await),
            LoadSource::Kept(hash) => (Some(*hash), self.load_kept(config, hash).await),
            LoadSource::Resting(id) => {
                let loaded = match self.resting(&config.name, id) {
                    Some(resting) => start_again(&resting).await,
                    None => self.load_kept(config, &id.hash).await,
                };
                (Some(id.hash), loaded)
            }
            LoadSource::Readmission(id) => {
                let loaded = match self.resting(&config.name, id) {
                    Some(resting) => self.loader.admit(config, resting.candidate()).await,
                    None => self.load_kept(config, &id.hash).await,
                };
                (Some(id.hash), loaded)
            }
        };
        loaded.map_err(|error| LoadFailure { hash, error })
    }

    async fn load_given(
        &self,
        config: &Arc<PluginConfig>,
        given: &Given,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        match given {
            Given::None => Err(LoadError::Start("there is no component".to_owned())),
            Given::File(file) => {
                let bytes = file.bytes.clone()?;
                let priority = self.compile_priority(&config.name);
                self.loader.load(config, bytes, priority).await
            }
            Given::Compiled(candidate, _) => self.loader.admit(config, candidate.clone()).await,
            Given::Admitted(version, _) if version.config().makes_same_version(config) => {
                Ok(version.clone())
            }
            Given::Admitted(version, _) => self.loader.admit(config, version.candidate()).await,
        }
    }

    /// Admits a version that is kept on disk, with the current configuration.
    async fn load_kept(
        &self,
        config: &Arc<PluginConfig>,
        hash: &Sha256,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        let Some(store) = &self.store else {
            let reason = "no versions are kept on disk".to_owned();
            let path = config.path.clone();
            return Err(LoadError::Read { path, reason });
        };
        let bytes = store.component(&config.name, hash, KEPT_BYTES_MAX).await?;
        let priority = self.compile_priority(&config.name);
        self.loader.load(config, bytes, priority).await
    }

    fn resting(&self, plugin: &str, id: &VersionId) -> Option<Arc<PluginVersion>> {
        let mut state = self.state();
        let mut entries = state.history(plugin).entries.iter();
        entries.find(|entry| entry.id == *id)?.resting.clone()
    }

    /// How much CPU time compiling this plugin may take.
    pub(super) fn compile_priority(&self, plugin: &str) -> CompilePriority {
        match self.live().live_version(plugin) {
            Some(_) => CompilePriority::Low,
            None => CompilePriority::Full,
        }
    }
}

/// Starts a version that was admitted before, as it started then.
async fn start_again(resting: &PluginVersion) -> Result<Arc<PluginVersion>, LoadError> {
    let version = Arc::new(resting.with_fresh_stats());
    match version.warm_up().await {
        Ok(()) => Ok(version),
        Err(error) => Err(LoadError::Start(error.detail)),
    }
}
