//! Admission: from the bytes of a component to a version that may go live, or the reason why not.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::warn;
use wasmtime::component::{Component, InstancePre, Linker};

use super::{
    cache::{AotCache, ComponentHash, hash},
    engine::{EngineError, PluginEngine},
    host::{HostState, Shared, linker},
    instance::{CallError, EXPORTED_INTERFACES, ExportIndices, Instance, within},
    limits::Budget,
    log::PluginLog,
    store::PluginStore,
    version::{Parts, PluginVersion, label},
};
use crate::{
    config::PluginConfig,
    metrics::Metrics,
    protocol::event_type::{PatternError, Patterns},
};

/// The package that this host serves.
const PACKAGE: &str = "signalbox:plugin";
const PACKAGE_VERSION: &str = "1.0.0";

/// How much less urgent compiling is than serving (a nice value).
const COMPILE_NICE: i32 = 5;

/// Makes versions.
pub struct Loader {
    engine: PluginEngine,
    linker: Linker<HostState>,
    cache: Option<Arc<AotCache>>,
    store: Arc<dyn PluginStore>,
    metrics: Arc<Metrics>,
    node: Arc<str>,
}

/// What admission found out about a version.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Size of the component, in bytes.
    pub bytes: usize,
    /// The interfaces that it exports.
    pub interfaces: Vec<&'static str>,
    /// What it imports, by name.
    pub imports: Vec<String>,
    /// Time to compile it, or to load what was compiled before.
    pub compile: Duration,
    /// Whether it was compiled before.
    pub cached: bool,
    /// Time for `init`, `self-test` and `event-types`.
    pub trial: Duration,
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
        /// What it may be.
        max: usize,
    },
    /// It is no component.
    #[error("not a component: {0}")]
    NotAComponent(String),
    /// It does not fit the WIT package that this host serves.
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
    /// Another plugin handles the same event types.
    #[error("`{pattern}` is handled by plugin `{other}` already")]
    Conflict {
        /// The pattern.
        pattern: String,
        /// The other plugin.
        other: String,
    },
}

impl Loader {
    /// For the node called `node`; compiled components are kept in `cache_dir`, if that can be used.
    ///
    /// # Errors
    /// [`EngineError`] where wasmtime does not start.
    pub fn new(
        node: &str,
        cache_dir: Option<&Path>,
        store: Arc<dyn PluginStore>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, EngineError> {
        let engine = PluginEngine::new()?;
        let linker =
            linker(engine.wasm()).map_err(|error| EngineError::from(format!("{error:#}")))?;
        let mut compatibility = DefaultHasher::new();
        engine
            .wasm()
            .precompile_compatibility_hash()
            .hash(&mut compatibility);
        let cache = cache_dir.and_then(|dir| match AotCache::open(dir, compatibility.finish()) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                warn!(%error, "compiled plugins are not kept; every start compiles them");
                None
            }
        });
        Ok(Self {
            engine,
            linker,
            cache,
            store,
            metrics,
            node: node.into(),
        })
    }

    /// Admits the component `bytes` with `config`. Everything is tried in an instance that is thrown away.
    ///
    /// # Errors
    /// [`LoadError`] with the reason, in words for the plugin's author.
    pub async fn load(
        &self,
        config: &Arc<PluginConfig>,
        bytes: Arc<[u8]>,
    ) -> Result<(Arc<PluginVersion>, Admission), LoadError> {
        let hash = hash(&bytes);
        let size = bytes.len();
        let began = Instant::now();
        let (component, cached) = self.compile(hash, bytes).await?;
        let compile = began.elapsed();
        let interfaces = self.check_exports(&component)?;
        let imports = self.import_names(&component);
        let component = self
            .linker
            .instantiate_pre(&component)
            .map_err(|error| mismatch(&error))?;
        let indices = ExportIndices::new(&component);
        if let Some(lacking) = interfaces
            .iter()
            .find(|name| !indices.names().contains(name))
        {
            return Err(LoadError::Mismatch(format!(
                "`{PACKAGE}/{lacking}` lacks a function; build against the WIT package {PACKAGE}@{PACKAGE_VERSION}"
            )));
        }
        let metrics = self.metrics.plugins.of(&config.name);
        let log = PluginLog::new(
            &config.name,
            &label(&hash),
            config.limits.log_lines_per_second,
            metrics.clone(),
        );
        let shared = Arc::new(Shared {
            plugin: config.name.clone(),
            node: self.node.clone(),
            limits: config.limits.clone(),
            log: Arc::new(log),
            metrics,
            store: self.store.clone(),
        });
        let began = Instant::now();
        let handles = self.try_out(&component, &indices, &shared, config).await?;
        let trial = began.elapsed();
        let admission = Admission {
            bytes: size,
            interfaces: indices.names(),
            imports,
            compile,
            cached,
            trial,
        };
        let sees = Patterns::parse(&config.events)?;
        let (config, engine) = (config.clone(), self.engine.clone());
        let version = Arc::new(PluginVersion::new(Parts {
            hash,
            config,
            sees,
            handles,
            engine,
            component,
            indices,
            shared,
        }));
        version
            .warm_up()
            .await
            .map_err(|error| LoadError::Start(error.detail))?;
        Ok((version, admission))
    }

    /// On a thread of its own with less priority: compiling takes from milliseconds to seconds.
    async fn compile(
        &self,
        hash: ComponentHash,
        bytes: Arc<[u8]>,
    ) -> Result<(Component, bool), LoadError> {
        let (done, result) = oneshot::channel();
        let (engine, cache) = (self.engine.wasm().clone(), self.cache.clone());
        let work = move || {
            let thread = rustix::thread::gettid();
            // Without the right to it, compiling is merely more urgent.
            let _ = rustix::process::setpriority_process(Some(thread), COMPILE_NICE);
            let _ = done.send(compile_or_fetch(&engine, cache.as_deref(), hash, &bytes));
        };
        std::thread::Builder::new()
            .name("plugin-compile".to_owned())
            .spawn(work)
            .map_err(|error| LoadError::Start(format!("no thread to compile it: {error}")))?;
        result
            .await
            .map_err(|_| LoadError::NotAComponent("compiling it panicked".to_owned()))?
    }

    /// The interfaces of the package that it exports. Exports of anything else are tolerated: toolchains add some.
    fn check_exports(&self, component: &Component) -> Result<Vec<&'static str>, LoadError> {
        let component_type = component.component_type();
        let mut interfaces = Vec::new();
        for (name, _) in component_type.exports(self.engine.wasm()) {
            let Some(interface) = name
                .strip_prefix(PACKAGE)
                .and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
            if version.split('.').next() != PACKAGE_VERSION.split('.').next() {
                return Err(LoadError::Mismatch(format!(
                    "exports `{name}`, this host serves {PACKAGE}@{PACKAGE_VERSION}: \
                     build the plugin against that, or upgrade the host"
                )));
            }
            interfaces.extend(
                EXPORTED_INTERFACES
                    .iter()
                    .find(|known| **known == interface),
            );
        }
        if interfaces.is_empty() {
            return Err(LoadError::Mismatch(format!(
                "exports no interface of {PACKAGE}@{PACKAGE_VERSION}; export at least one of {}",
                EXPORTED_INTERFACES.join(", ")
            )));
        }
        Ok(interfaces)
    }

    fn import_names(&self, component: &Component) -> Vec<String> {
        component
            .component_type()
            .imports(self.engine.wasm())
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Runs `init`, `event-types` and `self-test` in an instance that serves nobody.
    async fn try_out(
        &self,
        component: &InstancePre<HostState>,
        indices: &ExportIndices,
        shared: &Arc<Shared>,
        config: &PluginConfig,
    ) -> Result<Patterns, LoadError> {
        let start = Instance::start(
            &self.engine,
            component,
            indices,
            shared,
            &config.config_json,
        );
        let mut instance = start
            .await
            .map_err(|error| LoadError::Start(error.detail))?;
        let budget = Budget::init(&shared.limits);
        let deadline = || tokio::time::Instant::now() + budget.wall;
        let mut handles = Patterns::default();
        if let Some(events) = instance.exports.events.clone() {
            HostState::begin(&mut instance.store, None, budget);
            let types = within(deadline(), events.call_event_types(&mut instance.store)).await;
            let types = types.and_then(|types| types.map_err(CallError::from));
            handles = Patterns::parse(&types.map_err(|error| LoadError::Start(error.detail))?)?;
        }
        if let Some(lifecycle) = instance.exports.lifecycle.clone() {
            HostState::begin(&mut instance.store, None, budget);
            let test = within(deadline(), lifecycle.call_self_test(&mut instance.store)).await;
            let said = test.and_then(|said| said.map_err(CallError::from));
            said.map_err(|error| LoadError::SelfTest(error.detail))?
                .map_err(LoadError::SelfTest)?;
        }
        Ok(handles)
    }
}

fn compile_or_fetch(
    engine: &wasmtime::Engine,
    cache: Option<&AotCache>,
    hash: ComponentHash,
    bytes: &[u8],
) -> Result<(Component, bool), LoadError> {
    if let Some(component) = cache.and_then(|cache| fetch(engine, cache, &hash)) {
        return Ok((component, true));
    }
    let component =
        Component::new(engine, bytes).map_err(|error| not_a_component(bytes, &error))?;
    if let Some(cache) = cache {
        match component.serialize() {
            Ok(code) => cache.put(&hash, &code),
            Err(error) => warn!(%error, "a compiled plugin cannot be kept"),
        }
    }
    Ok((component, false))
}

#[allow(unsafe_code)]
fn fetch(engine: &wasmtime::Engine, cache: &AotCache, hash: &ComponentHash) -> Option<Component> {
    let code = cache.get(hash)?;
    // SAFETY: `deserialize` wants bytes that `Component::serialize` made for a compatible engine and that nobody
    // changed since. The cache gives out only what carries this server's own HMAC over the bytes, the component's
    // sha256 and the engine's compatibility hash.
    let component = unsafe { Component::deserialize(engine, &code) };
    component
        .inspect_err(|error| warn!(%error, "a compiled plugin does not load; compiling anew"))
        .ok()
}

fn not_a_component(bytes: &[u8], error: &wasmtime::Error) -> LoadError {
    LoadError::NotAComponent(match bytes {
        [] => "the file is empty".to_owned(),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "the file is a core module; build for wasm32-wasip2, or wrap it with `wasm-tools component new`".to_owned()
        }
        [0, b'a', b's', b'm', ..] => format!("the file is damaged or half written ({error:#})"),
        _ => "the file is no WebAssembly".to_owned(),
    })
}

fn mismatch(error: &wasmtime::Error) -> LoadError {
    LoadError::Mismatch(format!(
        "an import is not offered by this host, or has another type: {error:#}"
    ))
}
