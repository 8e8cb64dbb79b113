//! From the bytes of a component to compiled code, off the threads that serve.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, oneshot};
use tracing::warn;
use wasmtime::{Engine, component::Component};

use super::{
    cache::{AotCache, ComponentHash},
    loader::LoadError,
};

/// How much less urgent compiling is than serving (a nice value).
const COMPILE_NICE: i32 = 10;

/// Compiles components, or fetches what was compiled before.
pub(super) struct Compiler {
    engine: Engine,
    cache: Option<Arc<AotCache>>,
    /// As many at a time as there are processors: compiling takes seconds and hundreds of MiB for some languages.
    room: Semaphore,
}

/// A component that can be instantiated.
pub(super) struct Compiled {
    pub(super) component: Component,
    /// Time to compile or fetch it.
    pub(super) took: Duration,
    /// Whether it was compiled before.
    pub(super) cached: bool,
}

impl Compiler {
    /// Keeps what is compiled in `cache_dir`, if that can be used.
    pub(super) fn new(engine: &Engine, cache_dir: Option<&Path>) -> Self {
        let cache = cache_dir.and_then(|dir| match AotCache::open(dir, compatibility(engine)) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                warn!(%error, "compiled plugins are not kept; every start compiles them");
                None
            }
        });
        Self {
            engine: engine.clone(),
            cache,
            room: Semaphore::new(thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// On a thread of its own with less priority.
    pub(super) async fn compile(
        &self,
        hash: ComponentHash,
        bytes: Arc<[u8]>,
    ) -> Result<Compiled, LoadError> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        let (done, result) = oneshot::channel();
        let (engine, cache) = (self.engine.clone(), self.cache.clone());
        let work = move || {
            let thread = rustix::thread::gettid();
            // Without the right to it, compiling is merely more urgent.
            let _ = rustix::process::setpriority_process(Some(thread), COMPILE_NICE);
            let began = Instant::now();
            let compiled = compile_or_fetch(&engine, cache.as_deref(), hash, &bytes);
            let _ = done.send(compiled.map(|(component, cached)| Compiled {
                component,
                took: began.elapsed(),
                cached,
            }));
        };
        thread::Builder::new()
            .name("plugin-compile".to_owned())
            .spawn(work)
            .map_err(|error| LoadError::Start(format!("no thread to compile it: {error}")))?;
        result
            .await
            .map_err(|_| LoadError::NotAComponent("compiling it panicked".to_owned()))?
    }
}

/// What compiled code must have in common with the engine that loads it.
fn compatibility(engine: &Engine) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut compatibility = DefaultHasher::new();
    engine
        .precompile_compatibility_hash()
        .hash(&mut compatibility);
    compatibility.finish()
}

fn compile_or_fetch(
    engine: &Engine,
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
fn fetch(engine: &Engine, cache: &AotCache, hash: &ComponentHash) -> Option<Component> {
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
