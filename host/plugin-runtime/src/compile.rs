//! Compiles components, off the serving threads.

use std::{
    mem::take,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use futures_util::future::select_all;
use rustix::process::Pid;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout},
};
use tracing::{Span, debug, warn};
use wasmtime::{Engine, component::Component};

use super::{
    abandoned::{AbandonedCompilations, Compilation},
    cache::AotCache,
    load_error::LoadError,
    sha256::Sha256,
};

/// The nice value of a thread that compiles while the plugin serves.
///
/// It must not be much higher. The kernel may take the processor from a thread that holds the lock of the process's address
/// space (`mmap_lock`) or one of the allocator. Until that thread runs again, every other thread stops that maps memory,
/// faults on a page or allocates. Next to 12 processes that compute, on 2 processors, none stopped for half a second with
/// this value, and many stopped for 2 to 9 s with `SCHED_IDLE`.
pub(super) const LOW_NICE: i32 = 10;
/// How long a compilation with low priority has before another one starts, with normal priority.
const LOW_TIME: Duration = Duration::from_secs(10);
/// The share of a processor's time below which a compilation starves.
const STARVING_SHARE: f64 = 0.1;

/// Compiles components, or takes their code from the cache.
pub(super) struct Compiler {
    engine: Engine,
    cache: Option<Arc<AotCache>>,
    /// Permits one compilation per processor at a time: for some languages, compiling takes seconds and hundreds of
    /// MiB.
    room: Semaphore,
    /// The permits of `room`.
    compilations_max: usize,
    /// Held by each thread that compiles with low priority.
    low: Arc<()>,
    given_up: AbandonedCompilations,
}

/// A component to compile.
struct CompileInput {
    compilation: Arc<Compilation>,
    hash: Sha256,
    bytes: Arc<[u8]>,
}

/// A component that can be instantiated.
pub(super) struct Compiled {
    pub(super) component: Component,
    /// How long compiling or fetching it took.
    pub(super) took: Duration,
    /// Whether it was compiled before.
    pub(super) cached: bool,
}

impl Compiler {
    /// Caches compiled code in `cache_dir`, if it is usable.
    pub(super) fn new(engine: &Engine, cache_dir: Option<&Path>) -> Self {
        let cache = cache_dir.and_then(|dir| match AotCache::open(dir, compatibility(engine)) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                warn!(%error, "compiled plugins are not kept; every start compiles them");
                None
            }
        });
        let compilations_max = thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine: engine.clone(),
            cache,
            room: Semaphore::new(compilations_max),
            compilations_max,
            low: Arc::default(),
            given_up: AbandonedCompilations::default(),
        }
    }

    /// Compiles on a separate thread, at the priority of `pace`, for at most `time_max`.
    pub(super) async fn compile(
        &self,
        hash: Sha256,
        bytes: Arc<[u8]>,
        pace: CompilePriority,
        time_max: Duration,
    ) -> Result<Compiled, LoadError> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        let compile = |compilation| async move {
            let of = CompileInput {
                compilation,
                hash,
                bytes,
            };
            let mut is_first = true;
            let start = |priority| self.start(&of, priority, take(&mut is_first));
            escalate(self.first_priority(pace), start).await
        };
        self.given_up.bounded(hash, time_max, compile).await
    }

    /// The priority of the first attempt: that of `pace`, unless as many attempts as processors run with low priority. Those got
    /// almost no CPU time, and another one would get none either.
    fn first_priority(&self, pace: CompilePriority) -> CompilePriority {
        if Arc::strong_count(&self.low) > self.compilations_max {
            CompilePriority::Full
        } else {
            pace
        }
    }

    /// Starts a thread that compiles. If `is_first`, it looks into the cache before.
    fn start(
        &self,
        of: &CompileInput,
        pace: CompilePriority,
        is_first: bool,
    ) -> Result<CompileThread, LoadError> {
        let (done, result) = oneshot::channel();
        let thread = Arc::<OnceLock<Pid>>::default();
        let here = thread.clone();
        let (engine, cache) = (self.engine.clone(), self.cache.clone());
        let (hash, bytes, compilation) = (of.hash, of.bytes.clone(), of.compilation.clone());
        let swap = Span::current();
        let low = (pace == CompilePriority::Low).then(|| self.low.clone());
        let work = move || {
            let _low = low;
            let _swap = swap.entered();
            here.get_or_init(rustix::thread::gettid);
            compilation.join();
            let began = Instant::now();
            let compiled =
                compile_or_fetch(&engine, cache.as_deref(), hash, &bytes, pace, is_first);
            // The caller may be gone.
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
        Ok(CompileThread { result, thread })
    }
}

/// Compiles at the priority `first`. If serving leaves almost no CPU time for that, starts another attempt with normal priority:
/// plugins can also be changed on a machine that is never idle. The first result counts.
async fn escalate(
    first: CompilePriority,
    mut start: impl FnMut(CompilePriority) -> Result<CompileThread, LoadError>,
) -> Result<Compiled, LoadError> {
    let mut attempts = vec![start(first)?];
    if first == CompilePriority::Low {
        let began = Instant::now();
        loop {
            if let Ok(result) = timeout(LOW_TIME, first_result(&mut attempts)).await {
                return result;
            }
            if attempts[0].starves(began.elapsed()) {
                break;
            }
        }
        debug!("the processors are busy; a plugin is compiled with normal priority");
        attempts.push(start(CompilePriority::Full)?);
    }
    first_result(&mut attempts).await
}

async fn first_result(attempts: &mut [CompileThread]) -> Result<Compiled, LoadError> {
    let results = attempts.iter_mut().map(|attempt| &mut attempt.result);
    let (result, ..) = select_all(results).await;
    result.map_err(|_| LoadError::NotAComponent("compiling it panicked".to_owned()))?
}

/// The priority of compiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompilePriority {
    /// Normal priority: the plugin serves nothing yet.
    Full,
    /// Little CPU time if the processors are busy: the plugin serves messages meanwhile.
    Low,
}

impl CompilePriority {
    /// Applies the priority to this thread. Without the permission to do so, compiling has normal priority.
    fn set(self) {
        if self == Self::Low {
            let thread = Some(rustix::thread::gettid());
            let _ = rustix::process::setpriority_process(thread, LOW_NICE);
        }
    }
}

/// A thread that compiles.
struct CompileThread {
    result: oneshot::Receiver<Result<Compiled, LoadError>>,
    /// Set once the thread runs.
    thread: Arc<OnceLock<Pid>>,
}

impl CompileThread {
    /// Whether it got almost no CPU time in the `elapsed` time since its start.
    fn starves(&self, elapsed: Duration) -> bool {
        let ran = self.thread.get().copied().and_then(cpu_time);
        ran.unwrap_or_default() < elapsed.mul_f64(STARVING_SHARE)
    }
}

/// The CPU time of a thread of this process (the first number in `/proc/PID/schedstat`).
fn cpu_time(thread: Pid) -> Option<Duration> {
    let thread = thread.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let nanoseconds = stat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// A hash that compiled code must share with the engine that loads it.
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
    hash: Sha256,
    bytes: &[u8],
    pace: CompilePriority,
    is_first: bool,
) -> Result<(Component, bool), LoadError> {
    // A fetch takes milliseconds, and later attempts need not try it again.
    if is_first && let Some(component) = cache.and_then(|cache| fetch(engine, cache, &hash)) {
        return Ok((component, true));
    }
    pace.set();
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
fn fetch(engine: &Engine, cache: &AotCache, hash: &Sha256) -> Option<Component> {
    let code = cache.get(hash)?;
    // SAFETY: `deserialize` requires bytes that `Component::serialize` made for a compatible engine and that nobody has
    // changed since. The cache returns only bytes that carry this server's own HMAC over them, the component's sha256
    // and the engine's compatibility hash.
    let component = unsafe { Component::deserialize(engine, &code) };
    component
        .inspect_err(|error| warn!(%error, "a compiled plugin does not load; compiling again"))
        .ok()
}

fn not_a_component(bytes: &[u8], error: &wasmtime::Error) -> LoadError {
    let reason = format!("{error:#}");
    // Errors in the bytes name an offset; exceeded limits of the allocator do not.
    if bytes.starts_with(b"\0asm") && reason.contains("exceeds") && !reason.contains("at offset 0x")
    {
        return LoadError::TooManyParts(reason);
    }
    LoadError::NotAComponent(match bytes {
        [] => "the file is empty".to_owned(),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "the file is a core module; build for wasm32-wasip2, or wrap it with `wasm-tools component new`".to_owned()
        }
        [0, b'a', b's', b'm', ..] => format!("the file is damaged or half written ({reason})"),
        _ => "the file is not WebAssembly".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The senders of the results of attempts.
    type Attempts = Vec<oneshot::Sender<Result<Compiled, LoadError>>>;

    /// Begins an attempt that gets no CPU time.
    fn begin(attempts: &mut Attempts) -> CompileThread {
        let (done, result) = oneshot::channel();
        attempts.push(done);
        let thread = Arc::default();
        CompileThread { result, thread }
    }

    #[tokio::test(start_paused = true)]
    async fn a_compilation_that_starves_is_started_again_with_normal_priority() {
        use CompilePriority::{Full, Low};
        for expected in [&[Low, Full][..], &[Full]] {
            let mut attempts = Attempts::new();
            let mut begun = Vec::new();
            let result = escalate(expected[0], |priority| {
                begun.push(priority);
                let attempt = begin(&mut attempts);
                if priority == Full {
                    let done = attempts.pop().expect("the attempt");
                    let _ = done.send(Err(LoadError::Start("from the last".to_owned())));
                }
                Ok(attempt)
            });
            let error = result.await.err().expect("the error of the last attempt");
            assert!(error.to_string().contains("from the last"), "{error}");
            assert_eq!(begun, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_result_of_a_compilation_counts_whichever_attempt_it_is_from() {
        for finished in [0, 1] {
            let mut attempts = Attempts::new();
            let result = escalate(CompilePriority::Low, |_| {
                let attempt = begin(&mut attempts);
                if attempts.len() == 2 {
                    let done = attempts.remove(finished);
                    let _ = done.send(Err(LoadError::Start(format!("from {finished}"))));
                }
                Ok(attempt)
            });
            let error = result.await.err().expect("the error of the attempt");
            let expected = format!("from {finished}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn a_thread_with_low_priority_still_gets_enough_time_to_release_its_locks() {
        let stat = thread::spawn(|| {
            CompilePriority::Low.set();
            std::fs::read_to_string("/proc/thread-self/stat")
        });
        let stat = stat.join().expect("it does not panic").expect("the file");
        let (_, fields) = stat.rsplit_once(") ").expect("the name in brackets");
        let fields: Vec<&str> = fields.split(' ').collect();
        // Fields 19 and 41 (`man 5 proc_pid_stat`); the first one here is the third.
        let (nice, policy) = (fields[16], fields[38]);
        assert_eq!((nice, policy), ("10", "0"));
    }
}
