//! Admission: turns the bytes of a component into a version that may go live, or explains why it may not.

use std::{path::Path, sync::Arc, time::Instant};

use signalbox_config::PluginConfig;
use signalbox_protocol::event_type::Patterns;
use signalbox_telemetry::metrics::Metrics;
use tokio::sync::Semaphore;
use tracing::debug;
use wasmtime::component::{InstancePre, Linker};

use super::{
    admission::{Admission, CompiledCandidate, TestRun},
    compile::{CompilePriority, Compiler},
    engine::{EngineError, PluginEngine},
    host::{HostState, VersionContext},
    instance::{ExportIndices, Instance, InstanceGuest, InstanceStartError, ask},
    limits::Budget,
    load_error::{EVENT_TYPES_MAX, LoadError},
    log::{PluginLog, clean},
    metadata,
    metadata::Metadata,
    room_state::{NoRooms, RoomState},
    sha256::Sha256,
    store::PluginStore,
    version::{Parts, PluginVersion},
    wit_check,
    wit_versions::linker,
};

/// Compiles components and admits them as versions.
pub struct Loader {
    engine: PluginEngine,
    linker: Linker<HostState>,
    compiler: Compiler,
    store: Arc<dyn PluginStore>,
    rooms: Arc<dyn RoomState>,
    metrics: Arc<Metrics>,
    node: Arc<str>,
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
            rooms: Arc::new(NoRooms),
            metrics,
            node: node.into(),
        })
    }

    /// Lets plugins read the state of `rooms`. Without this, there are no rooms.
    #[must_use]
    pub fn with_rooms(self, rooms: Arc<dyn RoomState>) -> Self {
        Self { rooms, ..self }
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
    pub async fn compile(
        &self,
        config: &PluginConfig,
        bytes: Arc<[u8]>,
        pace: CompilePriority,
    ) -> Result<CompiledCandidate, LoadError> {
        let hash = Sha256::of(&bytes);
        let max = config.limits.compile_time_max;
        let compiled = self.compiler.compile(hash, bytes.clone(), pace, max);
        let compiled = compiled.await.inspect_err(|error| {
            if matches!(error, LoadError::CompileTime(_)) {
                self.metrics.plugin_compiles_given_up.increment();
            }
        });
        let compiled = compiled.map_err(LoadError::bounded)?;
        debug!(
            version = hash.label(),
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
    pub async fn admit(
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
        let (trial, claims) = self.try_out(&component, &indices, &shared, config).await?;
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
            handles: claims.all,
            responds: claims.requests,
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
        hash: &Sha256,
        metadata: &Metadata,
    ) -> Arc<VersionContext> {
        let metrics = self.metrics.plugins.of(&config.name);
        let log = PluginLog::new(
            &config.name,
            &hash.label(),
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
            rooms: self.rooms.clone(),
            lane: Arc::new(Semaphore::new(self.engine.lanes())),
        })
    }

    /// Runs `init`, `event-types`, `request-types` and `self-test` in an instance that serves no traffic.
    async fn try_out(
        &self,
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<VersionContext>,
        config: &PluginConfig,
    ) -> Result<(TestRun, TypeClaims), LoadError> {
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
        let mut request_types = Vec::new();
        if indices.requests.is_some() {
            let ask = |mut guest: Box<InstanceGuest>| ask!(guest, requests.call_request_types());
            let asked = instance.lifecycle_call(budget, ask).await;
            (instance, request_types) = asked.map_err(|error| LoadError::Start(error.detail))?;
        }
        let claims = TypeClaims::parse(&mut event_types, &mut request_types)?;
        let mut self_test = None;
        if indices.lifecycle.is_some() {
            let test = |mut guest: Box<InstanceGuest>| ask!(guest, lifecycle.call_self_test());
            let began = Instant::now();
            let tested = instance.lifecycle_call(budget, test).await;
            let answer;
            (instance, answer) = tested.map_err(|error| LoadError::SelfTest(error.detail))?;
            answer.map_err(|reason| LoadError::SelfTest(clean(&reason)))?;
            self_test = Some(began.elapsed());
        }
        let guest = instance.guest();
        let trial = TestRun {
            instantiate: guest.instantiate,
            init: guest.init,
            self_test,
            memory: guest.store.data().memory(),
            event_types,
            request_types,
        };
        Ok((trial, claims))
    }
}

/// The types that a plugin claims.
struct TypeClaims {
    /// Those of events and of requests.
    all: Patterns,
    requests: Patterns,
}

impl TypeClaims {
    /// Cleans and parses the two lists.
    fn parse(events: &mut [String], requests: &mut [String]) -> Result<Self, LoadError> {
        let count = events.len() + requests.len();
        if count > EVENT_TYPES_MAX {
            return Err(LoadError::TooManyEventTypes(count));
        }
        for text in events.iter_mut().chain(requests.iter_mut()) {
            *text = clean(text);
        }
        let of_events = Patterns::parse(events)?;
        let of_requests = Patterns::parse(requests).map_err(LoadError::RequestTypes)?;
        if let Some(pattern) = of_events.shared_with(&of_requests) {
            return Err(LoadError::TypeOfBoth(pattern));
        }
        Ok(Self {
            all: of_events.with(&of_requests),
            requests: of_requests,
        })
    }
}
