//! Admission: turns the bytes of a component into a version that may go live, or explains why it may not.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tracing::debug;
use wasmtime::component::{Component, InstancePre, Linker};

use super::{
    cache::{ComponentHash, hash},
    compile::{CompilePriority, Compiler},
    engine::{EngineError, PluginEngine},
    host::{HostState, VersionContext, linker},
    instance::{ExportIndices, Instance, InstanceGuest, InstanceStartError, ask},
    limits::Budget,
    log::{PluginLog, clean, one_line},
    metadata::{self, Metadata},
    store::PluginStore,
    version::{Parts, PluginVersion, label},
    wit_check,
};
use crate::{
    config::PluginConfig,
    metrics::Metrics,
    protocol::event_type::{PatternError, Patterns},
};

/// The most event types and patterns that a plugin may handle: each message is compared with all of them.
const EVENT_TYPES_MAX: usize = 256;

/// The longest reason for a refusal, in bytes. Names in a component have no length limit, and they reach operators and
/// the log.
const REASON_BYTES_MAX: usize = 3 << 10;

/// Compiles components and admits them as versions.
pub struct Loader {
    engine: PluginEngine,
    linker: Linker<HostState>,
    compiler: Compiler,
    store: Arc<dyn PluginStore>,
    metrics: Arc<Metrics>,
    node: Arc<str>,
}

/// A compiled component that may become a version.
pub(super) struct CompiledCandidate {
    pub(super) hash: ComponentHash,
    /// Its size.
    pub(super) bytes: usize,
    pub(super) metadata: Metadata,
    pub(super) component: Component,
    /// How long it took to compile it, or to load the code that was compiled before.
    pub(super) compile: Duration,
    /// Whether it was compiled before.
    pub(super) cached: bool,
}

/// The results of admission for a version.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Size of the component, in bytes.
    pub bytes: usize,
    /// The component's metadata.
    pub metadata: Metadata,
    /// The interfaces that it exports.
    pub interfaces: Vec<&'static str>,
    /// Its imports, by name.
    pub imports: Vec<String>,
    /// How long it took to compile it, or to load the code that was compiled before.
    pub compile: Duration,
    /// Whether it was compiled before.
    pub cached: bool,
    /// The results of its test instance.
    pub trial: TestRun,
}

/// The results of a test instance, which serves no traffic.
#[derive(Clone, Debug)]
pub struct TestRun {
    /// How long instantiation took.
    pub instantiate: Duration,
    /// How long `init` took; `None` if the plugin has none.
    pub init: Option<Duration>,
    /// How long `self-test` took; `None` if the plugin has none.
    pub self_test: Option<Duration>,
    /// The size of its linear memories after that, in bytes.
    pub memory: usize,
    /// The event types that it handles.
    pub event_types: Vec<String>,
}

/// Why a component does not go live.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is over `limits.plugin_file_bytes_max`.
    #[error("the file has {bytes} bytes, the limit is {max} (`limits.plugin_file_bytes_max`)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: usize,
    },
    /// It is not a component.
    #[error("not a component: {0}")]
    NotAComponent(String),
    /// It takes too long to compile.
    #[error("{0}")]
    CompileTime(String),
    /// It has more parts than an instance may have here.
    #[error("the component is more than this host takes: {0}")]
    TooManyParts(String),
    /// It does not match the WIT package that this host serves.
    #[error("{0}")]
    Mismatch(String),
    /// It does not start, or refuses its configuration.
    #[error("the plugin does not start: {0}")]
    Start(String),
    /// Its self-test fails.
    #[error("self-test failed: {0}")]
    SelfTest(String),
    /// It claims event types that it cannot have.
    #[error("event-types: {0}")]
    EventTypes(#[from] PatternError),
    /// It claims more event types than the host compares each message with.
    #[error(
        "event-types: {0} of them, a plugin may have {EVENT_TYPES_MAX}; use patterns such as `chat.*`"
    )]
    TooManyEventTypes(usize),
    /// The live version's state could not be handed over to it.
    #[error("handover: {0}")]
    Handover(String),
    /// Another plugin already handles the same event types.
    #[error("`{pattern}` is handled by plugin `{other}` already")]
    Conflict {
        /// The pattern.
        pattern: String,
        /// The other plugin.
        other: String,
    },
}

impl LoadError {
    /// The step of admission that failed. In order, the steps are `read`, `compile`, `contract`, `start`,
    /// `event-types`, `self-test`, `conflict`, `handover`.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::TooLarge { .. } => "read",
            Self::NotAComponent(_) | Self::CompileTime(_) | Self::TooManyParts(_) => "compile",
            Self::Mismatch(_) => "contract",
            Self::Start(_) => "start",
            Self::EventTypes(_) | Self::TooManyEventTypes(_) => "event-types",
            Self::SelfTest(_) => "self-test",
            Self::Conflict { .. } => "conflict",
            Self::Handover(_) => "handover",
        }
    }

    /// Shortens the reason to one line of limited length, whatever the component has put into it.
    fn bounded(mut self) -> Self {
        match &mut self {
            Self::NotAComponent(reason)
            | Self::TooManyParts(reason)
            | Self::Mismatch(reason)
            | Self::Start(reason)
            | Self::Handover(reason)
            | Self::SelfTest(reason) => *reason = one_line(reason, REASON_BYTES_MAX),
            Self::Read { .. }
            | Self::CompileTime(_)
            | Self::TooLarge { .. }
            | Self::EventTypes(_)
            | Self::TooManyEventTypes(_)
            | Self::Conflict { .. } => {}
        }
        self
    }
}

impl Loader {
    /// Creates a loader for the node called `node`. Compiled components are kept in `cache_dir`, if it is usable.
    ///
    /// # Errors
    /// Returns [`EngineError`] if wasmtime does not start.
    pub fn new(
        node: &str,
        cache_dir: Option<&Path>,
        store: Arc<dyn PluginStore>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EngineError> {
        let engine = PluginEngine::new(&metrics)?;
        let linker =
            linker(engine.wasm()).map_err(|error| EngineError::from(format!("{error:#}")))?;
        Ok(Self {
            compiler: Compiler::new(engine.wasm(), cache_dir),
            engine,
            linker,
            store,
            metrics,
            node: node.into(),
        })
    }

    /// Admits the component `bytes` with `config`. Everything is tried in an instance that is discarded afterwards.
    ///
    /// # Errors
    /// Returns [`LoadError`] with the reason, worded for the plugin's author.
    pub async fn load(
        &self,
        config: &Arc<PluginConfig>,
        bytes: Arc<[u8]>,
        pace: CompilePriority,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        let candidate = self.compile(config, bytes, pace).await?;
        self.admit(config, candidate).await
    }

    /// Compiles `bytes`, or takes the code from the cache.
    ///
    /// # Errors
    /// Returns [`LoadError::NotAComponent`], [`LoadError::TooManyParts`] or [`LoadError::CompileTime`].
    pub(super) async fn compile(
        &self,
        config: &PluginConfig,
        bytes: Arc<[u8]>,
        pace: CompilePriority,
    ) -> Result<CompiledCandidate, LoadError> {
        let hash = hash(&bytes);
        let max = config.limits.compile_time_max;
        let compiled = self.compiler.compile(hash, bytes.clone(), pace, max);
        let compiled = compiled.await.inspect_err(|error| {
            if matches!(error, LoadError::CompileTime(_)) {
                self.metrics.plugin_compiles_given_up.increment();
            }
        });
        let compiled = compiled.map_err(LoadError::bounded)?;
        debug!(
            version = label(&hash),
            took_ms = compiled.took.as_secs_f64() * 1e3,
            cached = compiled.cached,
            "compiled"
        );
        Ok(CompiledCandidate {
            hash,
            bytes: bytes.len(),
            metadata: metadata::read(&bytes),
            component: compiled.component,
            compile: compiled.took,
            cached: compiled.cached,
        })
    }

    /// Tries `candidate` out with `config`, in an instance that is discarded afterwards.
    ///
    /// # Errors
    /// Returns [`LoadError`] with the reason, worded for the plugin's author.
    pub(super) async fn admit(
        &self,
        config: &Arc<PluginConfig>,
        candidate: CompiledCandidate,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        let admitted = self.try_candidate(config, candidate).await;
        admitted.map_err(LoadError::bounded)
    }

    async fn try_candidate(
        &self,
        config: &Arc<PluginConfig>,
        candidate: CompiledCandidate,
    ) -> Result<Arc<PluginVersion>, LoadError> {
        let engine = self.engine.wasm();
        let interfaces = wit_check::exported_interfaces(engine, &candidate.component)?;
        let imports = wit_check::imports(engine, &candidate.component);
        let component = self
            .linker
            .instantiate_pre(&candidate.component)
            .map_err(|error| wit_check::unlinked(engine, &candidate.component, &error))?;
        let indices = ExportIndices::new(&component);
        // An exported interface that the host would not call could be the one that rejects messages.
        if let Some(lost) = interfaces
            .iter()
            .find(|name| !indices.names().contains(name))
        {
            let what = format!("exports `{lost}` in a form that this host cannot call");
            return Err(LoadError::Mismatch(what));
        }
        let shared = self.shared(config, &candidate.hash, &candidate.metadata);
        let (trial, handles) = self.try_out(&component, &indices, &shared, config).await?;
        let admission = Admission {
            bytes: candidate.bytes,
            metadata: candidate.metadata,
            interfaces: indices.names(),
            imports,
            compile: candidate.compile,
            cached: candidate.cached,
            trial,
        };
        let version = Arc::new(PluginVersion::new(Parts {
            hash: candidate.hash,
            config: config.clone(),
            sees: Patterns::parse(&config.events)?,
            handles,
            component,
            indices,
            shared,
            admission: Arc::new(admission),
        }));
        version
            .warm_up()
            .await
            .map_err(|error| LoadError::Start(error.detail))?;
        Ok(version)
    }

    fn shared(
        &self,
        config: &PluginConfig,
        hash: &ComponentHash,
        metadata: &Metadata,
    ) -> Arc<VersionContext> {
        let metrics = self.metrics.plugins.of(&config.name);
        let log = PluginLog::new(
            &config.name,
            &label(hash),
            config.limits.log_lines_per_second,
            metrics.clone(),
        );
        Arc::new(VersionContext {
            engine: self.engine.clone(),
            plugin: config.name.clone(),
            declared_version: metadata.version.clone().unwrap_or_default(),
            node: self.node.clone(),
            limits: config.limits.clone(),
            log: Arc::new(log),
            metrics,
            server: self.metrics.clone(),
            stats: Arc::default(),
            store: self.store.clone(),
            lane: Arc::new(Semaphore::new(self.engine.lanes())),
        })
    }

    /// Runs `init`, `event-types` and `self-test` in an instance that serves no traffic.
    async fn try_out(
        &self,
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<VersionContext>,
        config: &PluginConfig,
    ) -> Result<(TestRun, Patterns), LoadError> {
        let start = Instance::start(component, indices, shared, &config.config_json);
        let mut instance = start.await.map_err(|error| match error {
            InstanceStartError::Call(error) => LoadError::Start(error.detail),
            InstanceStartError::WrongType { interface, error } => {
                wit_check::wrong_type(self.engine.wasm(), component.component(), interface, &error)
            }
        })?;
        let budget = Budget::init(&shared.limits);
        let mut event_types = Vec::new();
        if indices.events.is_some() {
            let ask = |mut guest: Box<InstanceGuest>| ask!(guest, events.call_event_types());
            let asked = instance.lifecycle_call(budget, ask).await;
            (instance, event_types) = asked.map_err(|error| LoadError::Start(error.detail))?;
        }
        if event_types.len() > EVENT_TYPES_MAX {
            return Err(LoadError::TooManyEventTypes(event_types.len()));
        }
        let event_types: Vec<_> = event_types.iter().map(|text| clean(text)).collect();
        let handles = Patterns::parse(&event_types)?;
        let mut self_test = None;
        if indices.lifecycle.is_some() {
            let test = |mut guest: Box<InstanceGuest>| ask!(guest, lifecycle.call_self_test());
            let began = Instant::now();
            let tested = instance.lifecycle_call(budget, test).await;
            let said;
            (instance, said) = tested.map_err(|error| LoadError::SelfTest(error.detail))?;
            said.map_err(|reason| LoadError::SelfTest(clean(&reason)))?;
            self_test = Some(began.elapsed());
        }
        let guest = instance.guest();
        let trial = TestRun {
            instantiate: guest.instantiate,
            init: guest.init,
            self_test,
            memory: guest.store.data().memory(),
            event_types,
        };
        Ok((trial, handles))
    }
}
