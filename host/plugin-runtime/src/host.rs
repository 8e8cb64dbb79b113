//! The functions that the host offers to a guest: the imports of the WIT package, and WASI with everything denied.

mod rooms;

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use signalbox_config::PluginLimits;
use signalbox_protocol::{ClientInfo, timestamp::unix_millis};
use signalbox_telemetry::metrics::{Metrics, PluginMetrics};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use wasmtime::{Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::{
    bindings::imported::{context, log, metrics, store, types},
    cpu::{CpuMeter, InterruptAction},
    engine::PluginEngine,
    limits::{Budget, Limiter},
    log::{Level, PluginLog},
    output::{OutputLines, StderrTail},
    room_state::RoomState,
    stats::{InstanceGauge, VersionStats},
    store::{PluginStore, StoreEntry, StoreError},
};

/// The most host resources that a guest may hold at a time.
const RESOURCES_MAX: usize = 1_000;

/// The most random bytes that one call returns: few, because no tick interrupts the host while it generates them.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// State that all instances of one version share.
#[derive(Clone)]
pub(super) struct VersionContext {
    pub(super) engine: PluginEngine,
    pub(super) plugin: String,
    /// The version in the component's metadata; empty if there is none.
    pub(super) declared_version: String,
    pub(super) node: Arc<str>,
    pub(super) limits: PluginLimits,
    pub(super) log: Arc<PluginLog>,
    pub(super) metrics: Arc<PluginMetrics>,
    /// The metrics of the whole server.
    pub(super) server: Arc<Metrics>,
    pub(super) stats: Arc<VersionStats>,
    pub(super) store: Arc<dyn PluginStore>,
    pub(super) rooms: Arc<dyn RoomState>,
    /// Limits how many calls of this version may be in the slow lane or queued for it.
    pub(super) lane: Arc<Semaphore>,
}

/// The data of one wasmtime store. A guest's calls to the host work on it.
pub(super) struct HostState {
    shared: Arc<VersionContext>,
    client: Option<Arc<ClientInfo>>,
    store_calls_left: u32,
    /// The time limit for store calls within the current call, and their deadline, which is set at the first of them.
    store_time: Duration,
    store_deadline: Option<Instant>,
    cpu_max: Duration,
    cpu: Arc<CpuMeter>,
    limiter: Limiter,
    wasi: WasiCtx,
    resources: ResourceTable,
    stderr_tail: Arc<StderrTail>,
}

impl HostState {
    /// A store for one instance.
    pub(super) fn store(shared: &Arc<VersionContext>) -> Store<Self> {
        let stderr_tail = Arc::default();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let state = Self {
            shared: shared.clone(),
            client: None,
            store_calls_left: 0,
            store_time: Duration::ZERO,
            store_deadline: None,
            cpu_max: Duration::ZERO,
            cpu: Arc::default(),
            limiter: Limiter::new(
                shared.limits.memory_max,
                InstanceGauge::of(&shared.metrics, &shared.stats),
            ),
            wasi: denied_wasi(&shared.log, &stderr_tail),
            resources,
            stderr_tail,
        };
        let mut store = Store::new(shared.engine.wasm(), state);
        store.limiter(|state| &mut state.limiter);
        // Limits each value that crosses the boundary: the result of a call, or the arguments of a host call.
        store.set_hostcall_fuel(shared.limits.output_bytes_max);
        store.epoch_deadline_callback(|mut store| store.data_mut().interrupted());
        store
    }

    /// Prepares for a call on behalf of `client`.
    pub(super) fn begin(store: &mut Store<Self>, client: Option<Arc<ClientInfo>>, budget: Budget) {
        // Without a deadline the first call would trap.
        store.set_epoch_deadline(1);
        let state = store.data_mut();
        state.client = client;
        state.store_calls_left = state.shared.limits.store_calls_max;
        // The remaining fifth is for the guest to answer in.
        state.store_time = budget.wall * 4 / 5;
        state.store_deadline = None;
        state.stderr_tail.clear();
        state.cpu.clear();
        state.cpu_max = budget.cpu;
    }

    /// Releases the resources of a call.
    pub(super) fn end(store: &mut Store<Self>) {
        let state = store.data_mut();
        state.client = None;
        state.cpu.clear();
    }

    /// State that all instances of the version share.
    pub(super) fn shared(&self) -> &Arc<VersionContext> {
        &self.shared
    }

    /// Measures the CPU time of calls.
    pub(super) fn meter(&self) -> &Arc<CpuMeter> {
        &self.cpu
    }

    /// Bytes of all linear memories of the instance.
    pub(super) fn memory(&self) -> usize {
        self.limiter.memory()
    }

    /// The connection that the current call is for, if any.
    fn connection(&self) -> Option<&str> {
        let client = self.client.as_ref()?;
        Some(&client.connection)
    }

    /// The guest's last lines on standard error.
    pub(super) fn stderr_tail(&self) -> &Arc<StderrTail> {
        &self.stderr_tail
    }

    /// Handles a tick that came while the guest ran: charges the guest's CPU time. If the guest has had its turn, it is
    /// suspended until the call is polled in the slow lane.
    fn interrupted(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.cpu.interrupted(self.cpu_max)? == InterruptAction::Continue {
            return Ok(UpdateDeadline::Continue(1));
        }
        let mut moved = false;
        let leave = poll_fn(move |_| match std::mem::replace(&mut moved, true) {
            false => Poll::Pending,
            true => Poll::Ready(()),
        });
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(leave)))
    }
}

/// WASI 0.2 that links, so that components of any toolchain load, but grants nothing: no files, no network, no
/// environment, no arguments. Clocks and random numbers work, and output goes to the log.
fn denied_wasi(log: &Arc<PluginLog>, stderr_tail: &Arc<StderrTail>) -> WasiCtx {
    let (out, err) = (
        OutputLines::new(log.clone(), Level::Info),
        OutputLines::new(log.clone(), Level::Warn),
    );
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(out)
        .stderr(err.remembered(stderr_tail.clone()))
        .max_random_size(RANDOM_BYTES_MAX);
    wasi.allow_blocking_current_thread(false)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    wasi.build()
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.resources,
        }
    }
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, line: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        if level == Level::Error {
            self.stderr_tail.hear(&line);
        }
        self.shared.log.write(level, self.connection(), &line);
        Ok(())
    }
}

impl context::Host for HostState {
    fn current_client(&mut self) -> wasmtime::Result<Option<context::Client>> {
        Ok(self.client.as_deref().map(|client| context::Client {
            connection: client.connection.clone(),
            user: client.user.clone(),
            claims: client.claims.clone(),
            address: client.address.clone(),
            connected_at: client.connected_at_ms,
        }))
    }

    fn node(&mut self) -> wasmtime::Result<String> {
        Ok(self.shared.node.to_string())
    }

    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(unix_millis(SystemTime::now()))
    }

    fn random(&mut self) -> wasmtime::Result<u32> {
        let mut bytes = [0; 4];
        rand::fill(&mut bytes)
            .map_err(|_| wasmtime::format_err!("the system gives no random numbers"))?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl metrics::Host for HostState {
    fn count(&mut self, name: String, by: u32) -> wasmtime::Result<()> {
        let recorded = self.shared.metrics.guest.count(&name, u64::from(by));
        self.log_refused_metric(&name, recorded);
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        let recorded = self.shared.metrics.guest.observe(&name, value);
        self.log_refused_metric(&name, recorded);
        Ok(())
    }
}

impl HostState {
    /// Counts and logs a value that was not recorded: the WIT returns no error for metrics, so the plugin's author
    /// finds it in the log.
    fn log_refused_metric(
        &self,
        name: &str,
        recorded: Result<(), signalbox_telemetry::metrics::GuestMetricError>,
    ) {
        if let Err(error) = recorded {
            self.shared.metrics.guest_values_refused.increment();
            let line = format!("metric `{name}` not recorded: {error}");
            let log = &self.shared.log;
            log.write(Level::Warn, self.connection(), &line);
        }
    }

    /// Charges one call of the store, or of the state of rooms, against the limit. Returns `None` if it is reached.
    fn charge(&mut self) -> Option<()> {
        self.store_calls_left = self.store_calls_left.checked_sub(1)?;
        Some(())
    }

    /// Charges one store call, and checks its arguments.
    fn admit(&mut self, key: &str, value_bytes: usize) -> Result<(), store::StoreError> {
        self.charge().ok_or(store::StoreError::TooManyCalls)?;
        let limits = &self.shared.limits;
        if key.len() > limits.store_key_bytes_max || value_bytes > limits.store_value_bytes_max {
            return Err(store::StoreError::TooLarge);
        }
        Ok(())
    }

    /// The deadline for store calls, which is earlier than that of the call: a guest that gets `unavailable` can react,
    /// a guest that is stopped cannot.
    fn store_deadline(&mut self) -> Instant {
        let time = self.store_time;
        *self
            .store_deadline
            .get_or_insert_with(|| Instant::now() + time)
    }
}

/// The store's answer, or [`StoreError::Unavailable`] if it is late.
async fn in_time<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, store::StoreError> {
    let answer = timeout_at(deadline, answer).await;
    Ok(answer.unwrap_or(Err(StoreError::Unavailable))?)
}

impl store::Host for HostState {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, store::StoreError> {
        self.admit(&key, 0)?;
        let (deadline, shared) = (self.store_deadline(), &self.shared);
        in_time(deadline, shared.store.get(&shared.plugin, &key)).await
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_seconds: Option<u32>,
    ) -> Result<(), store::StoreError> {
        self.admit(&key, value.len())?;
        let (deadline, shared) = (self.store_deadline(), &self.shared);
        let (entry, bytes_max) = (
            entry(&key, &value, ttl_seconds),
            shared.limits.store_bytes_max,
        );
        in_time(deadline, shared.store.set(&shared.plugin, bytes_max, entry)).await
    }

    async fn remove(&mut self, key: String) -> Result<(), store::StoreError> {
        self.admit(&key, 0)?;
        let (deadline, shared) = (self.store_deadline(), &self.shared);
        in_time(deadline, shared.store.remove(&shared.plugin, &key)).await
    }

    async fn increment(
        &mut self,
        key: String,
        by: i32,
        ttl_seconds: Option<u32>,
    ) -> Result<i64, store::StoreError> {
        self.admit(&key, 0)?;
        let (deadline, shared) = (self.store_deadline(), &self.shared);
        let (by, ttl, bytes_max) = (
            i64::from(by),
            ttl(ttl_seconds),
            shared.limits.store_bytes_max,
        );
        let sum = shared
            .store
            .increment(&shared.plugin, bytes_max, &key, by, ttl);
        in_time(deadline, sum).await
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_seconds: Option<u32>,
    ) -> Result<bool, store::StoreError> {
        self.admit(&key, value.len())?;
        let (deadline, shared) = (self.store_deadline(), &self.shared);
        let (entry, bytes_max) = (
            entry(&key, &value, ttl_seconds),
            shared.limits.store_bytes_max,
        );
        let swapped =
            shared
                .store
                .compare_and_swap(&shared.plugin, bytes_max, expected.as_deref(), entry);
        in_time(deadline, swapped).await
    }
}

fn entry<'a>(key: &'a str, value: &'a [u8], ttl_seconds: Option<u32>) -> StoreEntry<'a> {
    StoreEntry {
        key,
        value,
        ttl: ttl(ttl_seconds),
    }
}

fn ttl(seconds: Option<u32>) -> Option<Duration> {
    seconds.map(|seconds| Duration::from_secs(u64::from(seconds)))
}

impl From<StoreError> for store::StoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge => Self::TooLarge,
            StoreError::NotANumber => Self::NotANumber,
            StoreError::Unavailable => Self::Unavailable,
        }
    }
}
