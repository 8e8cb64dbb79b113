//! One version of a plugin: a component with its configuration and limits, its instances, and the calls to them.

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use signalbox_config::{InstanceMode, PluginConfig};
use signalbox_protocol::{
    ClientInfo,
    event_type::{Closeness, Patterns},
};
use signalbox_telemetry::metrics::{FailureKind, Metrics, PluginMetrics};
use tokio::sync::Semaphore;
use tracing::warn;
use wasmtime::component::InstancePre;

use super::{
    admission::{Admission, CompiledCandidate},
    bindings::imported::types as raw,
    call::ReplayCall,
    call_error::CallError,
    gate::Gate,
    host::{HostState, VersionContext},
    instance::{Answered, ExportIndices, InstanceGuest, ask},
    instances::{Instances, Lease},
    limits::Budget,
    log::PluginLog,
    message::GuestMessage,
    pool::Pool,
    response::{self, Action, IllegalAnswer, PluginVerdict, Transformed},
    sha256::Sha256,
    stats::VersionStats,
    store::ReadOnlyStore,
};

/// A version of a plugin that passed its admission.
pub struct PluginVersion {
    hash: Sha256,
    sees: Patterns,
    handles: Patterns,
    admission: Arc<Admission>,
    pub(super) instances: Arc<Instances>,
    /// The gate that messages go through, if the version has a single instance.
    gate: Option<Arc<Gate>>,
}

/// The parts of a version, put together by admission.
pub(super) struct Parts {
    pub(super) hash: Sha256,
    pub(super) config: Arc<PluginConfig>,
    pub(super) sees: Patterns,
    pub(super) handles: Patterns,
    pub(super) component: InstancePre<HostState>,
    pub(super) indices: ExportIndices,
    pub(super) shared: Arc<VersionContext>,
    pub(super) admission: Arc<Admission>,
}

impl PluginVersion {
    pub(super) fn new(parts: Parts) -> Self {
        let (max, min, gate) = match parts.config.instances {
            InstanceMode::Pool { max, min } => (max, min, None),
            InstanceMode::Single => (1, 1, Some(Arc::default())),
        };
        Self {
            sees: parts.sees,
            handles: parts.handles,
            admission: parts.admission,
            instances: Arc::new(Instances {
                label: parts.hash.label(),
                config: parts.config,
                component: parts.component,
                indices: parts.indices,
                shared: parts.shared,
                pool: Pool::new(max),
                warm: min,
                looked_after: Once::new(),
            }),
            hash: parts.hash,
            gate,
        }
    }

    /// The same version, with its own empty pool.
    pub fn with_empty_pool(&self) -> Self {
        self.sharing(self.instances.shared.clone())
    }

    /// The same version, to go live again: with its own instances, and with fresh stats.
    pub fn anew(&self) -> Self {
        self.sharing(Arc::new(VersionContext {
            stats: Arc::default(),
            ..VersionContext::clone(&self.instances.shared)
        }))
    }

    /// The same version, to run on copies: with its own instances, stats and counters, a log that carries `mark`, and
    /// a store that discards writes.
    pub(super) fn as_double(&self, mark: &str) -> Self {
        let metrics = Arc::<PluginMetrics>::default();
        let (own, lines) = (
            &self.instances.shared,
            self.instances.config.limits.log_lines_per_second,
        );
        let marked = format!("{} {mark}", self.instances.label);
        let log = PluginLog::new(self.name(), &marked, lines, metrics.clone());
        self.sharing(Arc::new(VersionContext {
            stats: Arc::default(),
            metrics,
            log: Arc::new(log),
            store: Arc::new(ReadOnlyStore(own.store.clone())),
            // It runs one call at a time.
            lane: Arc::new(Semaphore::new(1)),
            ..VersionContext::clone(own)
        }))
    }

    fn sharing(&self, shared: Arc<VersionContext>) -> Self {
        Self::new(Parts {
            hash: self.hash,
            config: self.instances.config.clone(),
            sees: self.sees.clone(),
            handles: self.handles.clone(),
            component: self.instances.component.clone(),
            indices: self.instances.indices.clone(),
            shared,
            admission: self.admission.clone(),
        })
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.instances.config.name
    }

    /// The first twelve hex digits of the component's sha256.
    pub fn label(&self) -> &str {
        &self.instances.label
    }

    /// The component's sha256.
    pub fn hash(&self) -> &Sha256 {
        &self.hash
    }

    /// The version that the component declares; empty if it declares none.
    pub fn declared_version(&self) -> &str {
        &self.instances.shared.declared_version
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<PluginConfig> {
        &self.instances.config
    }

    /// The metrics of the plugin.
    pub fn metrics(&self) -> &Arc<PluginMetrics> {
        &self.instances.shared.metrics
    }

    /// The metrics of the whole server.
    pub(super) fn server_metrics(&self) -> &Arc<Metrics> {
        &self.instances.shared.server
    }

    /// Its stats since it went live.
    pub fn stats(&self) -> &VersionStats {
        &self.instances.shared.stats
    }

    /// Records a failed call, by which the version is judged if it is on trial. For code that called it on behalf of a
    /// client or for a message. Does not wait.
    pub fn blame(
        &self,
        error: &CallError,
        client: Option<&Arc<ClientInfo>>,
        call: &ReplayCall<'_>,
    ) {
        self.instances.shared.stats.blame(error, client, call);
    }

    /// The results of its admission.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Its component, to be admitted with another configuration.
    pub fn candidate(&self) -> CompiledCandidate {
        CompiledCandidate {
            hash: self.hash,
            bytes: self.admission.bytes,
            metadata: self.admission.metadata.clone(),
            component: self.instances.component.component().clone(),
            compile: Duration::ZERO,
            cached: true,
        }
    }

    /// The interfaces that it exports.
    pub fn interfaces(&self) -> Vec<&'static str> {
        self.instances.indices.names()
    }

    /// The number of idle instances, and the number of all instances.
    pub fn pool_size(&self) -> (usize, usize) {
        self.instances.pool.size()
    }

    /// Whether it is asked about messages of this type.
    pub fn sees(&self, event_type: &str) -> bool {
        self.sees.matches(event_type)
    }

    /// Whether it validates the messages that it sees.
    pub fn validates(&self) -> bool {
        self.instances.indices.validation.is_some()
    }

    /// Whether it transforms the messages that it sees.
    pub fn transforms(&self) -> bool {
        self.instances.indices.transformation.is_some()
    }

    /// Whether it can validate and transform in one call.
    pub fn screens(&self) -> bool {
        self.instances.indices.screening.is_some()
    }

    /// How closely the types that it handles match this one; `None` if it does not handle this type, or does not see
    /// it.
    pub fn handles(&self, event_type: &str) -> Option<Closeness> {
        if !self.sees.matches(event_type) {
            return None;
        }
        self.handles.closeness(event_type)
    }

    /// The types that it handles.
    pub fn handled(&self) -> &Patterns {
        &self.handles
    }

    /// Whether it is called when clients connect and disconnect.
    pub fn follows_connections(&self) -> bool {
        self.instances.indices.connections.is_some()
    }

    /// Whether its single instance can hand over its memory, and take over that of another.
    pub(super) fn hands_over(&self) -> bool {
        self.gate.is_some() && self.instances.indices.handover.is_some()
    }

    /// The gate that messages go through, if the version has a single instance.
    pub fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// Whether it decides who may join a room.
    pub fn authorizes_rooms(&self) -> bool {
        self.instances.indices.rooms.is_some()
    }

    /// `validation.validate`.
    ///
    /// # Errors
    /// Returns [`CallError`] if the plugin gave no legal answer. This applies to all calls below.
    pub fn validate(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<()>> {
        let ask = |mut guest: Box<InstanceGuest>| {
            ask!(guest, validation.call_validate(guest.message.get()))
        };
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, Ok))
    }

    /// `transformation.transform`.
    pub fn transform(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Transformed>> {
        let ask = |mut guest: Box<InstanceGuest>| {
            ask!(guest, transformation.call_transform(guest.message.get()))
        };
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, response::transformed))
    }

    /// `screening.screen`: validates and transforms in one call.
    pub fn screen(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Transformed>> {
        let ask =
            |mut guest: Box<InstanceGuest>| ask!(guest, screening.call_screen(guest.message.get()));
        self.call_about(client, message, ask)
            .map(|answer| self.verdict(answer?, response::transformed))
    }

    /// `events.handle`.
    pub fn handle(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
    ) -> impl Future<Output = PluginVerdict<Vec<Action>>> {
        let ask =
            |mut guest: Box<InstanceGuest>| ask!(guest, events.call_handle(guest.message.get()));
        self.call_about(client, message, ask).map(|answer| {
            self.verdict(answer?, |actions| {
                response::actions(actions, &self.instances.config.limits)
            })
        })
    }

    /// `connections.connected`.
    pub async fn connected(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
    ) -> PluginVerdict<Vec<Action>> {
        let owned = client.clone();
        let answer = self
            .call(Some(client), |mut guest| {
                ask!(guest, connections.call_connected(guest_client(&owned)))
            })
            .await?;
        self.verdict(answer, |actions| {
            response::actions(actions, &self.instances.config.limits)
        })
    }

    /// `connections.disconnected`.
    pub async fn disconnected(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
        code: u16,
        reason: &str,
    ) -> Result<Vec<Action>, CallError> {
        let (owned, reason) = (client.clone(), reason.to_owned());
        let raw = self
            .call(Some(client), |mut guest| {
                ask!(
                    guest,
                    connections
                        .call_disconnected(guest_client(&owned), disconnection(code, &reason))
                )
            })
            .await?;
        response::actions(raw, &self.instances.config.limits)
            .map_err(|illegal| self.illegal(&illegal))
    }

    /// `rooms.authorize-join`.
    pub async fn authorize_join(
        self: &Arc<Self>,
        client: &Arc<ClientInfo>,
        room: &str,
    ) -> PluginVerdict<()> {
        let (owned, room) = (client.clone(), room.to_owned());
        let answer = self
            .call(Some(client), |mut guest| {
                ask!(
                    guest,
                    rooms.call_authorize_join(guest_client(&owned), &room)
                )
            })
            .await?;
        self.verdict(answer, Ok)
    }

    /// Starts instances ahead of need, up to the number that is kept ready.
    ///
    /// # Errors
    /// Returns the [`CallError`] of the first instance that does not start.
    pub async fn warm_up(&self) -> Result<(), CallError> {
        self.instances.warm_up().await
    }

    /// Like [`Self::call`], but sets the guest's message first.
    fn call_about<R, F>(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        message: GuestMessage<'_>,
        ask: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> impl Future<Output = Result<R, CallError>>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        self.call(client, move |mut guest| {
            guest.message.set(&message);
            ask(guest)
        })
    }

    /// Lends an instance to `call`. An instance that failed is thrown away, and a new one is started off the message
    /// path.
    ///
    /// This function and the message calls above are not async functions: an async function stores its arguments twice,
    /// and every idle connection would reserve the space for that. For the same reason, futures that are rarely awaited
    /// are on the heap.
    fn call<R, F>(
        self: &Arc<Self>,
        client: Option<&Arc<ClientInfo>>,
        call: impl FnOnce(Box<InstanceGuest>) -> F,
    ) -> impl Future<Output = Result<R, CallError>>
    where
        R: Send + 'static,
        F: Future<Output = Answered<R>> + Send + 'static,
    {
        let started = Instant::now();
        async move {
            let budget = Budget::call(&self.instances.config.limits);
            let taken = match Lease::take(&self.instances) {
                Some(taken) => Ok(taken),
                None => Box::pin(Lease::wait(&self.instances, started + budget.wall)).await,
            };
            let answer = match taken {
                Ok((lease, mut instance)) => {
                    // The call's own time begins here: waiting for an instance, or starting one, is not the guest's
                    // fault.
                    let deadline = lease.ready_since().unwrap_or(started) + budget.wall;
                    HostState::begin(&mut instance.guest().store, client.cloned(), budget);
                    let ended = instance
                        .run(&self.instances.shared, deadline.into(), call)
                        .await;
                    ended.map(|(instance, answer)| {
                        lease.give_back(instance);
                        answer
                    })
                }
                Err(error) => Err(error),
            };
            self.count(started.elapsed(), answer.as_ref().err(), client);
            answer
        }
    }

    fn count(
        &self,
        elapsed: Duration,
        error: Option<&CallError>,
        client: Option<&Arc<ClientInfo>>,
    ) {
        let metrics = &self.instances.shared.metrics;
        metrics.calls.increment();
        metrics.call_time.record(elapsed);
        self.instances.shared.stats.called(elapsed, error);
        if let Some(error) = error {
            metrics.failures(error.kind).increment();
            let (plugin, version, kind) = (self.name(), self.label(), error.kind.as_str());
            let connection = client.map(|client| client.connection.as_str());
            self.instances.shared.log.write_host(|| {
                warn!(
                    plugin,
                    version, kind, connection, "a call of the plugin failed: {error}"
                )
            });
        }
    }

    fn verdict<T, U>(
        &self,
        answer: Result<T, raw::Rejection>,
        check: impl FnOnce(T) -> Result<U, IllegalAnswer>,
    ) -> PluginVerdict<U> {
        match answer {
            Ok(answer) => check(answer).map(Ok),
            Err(raw) => response::rejection(raw).map(|rejection| {
                self.instances.shared.metrics.rejected(&rejection.code);
                Err(rejection)
            }),
        }
        .map_err(|illegal| self.illegal(&illegal))
    }

    /// Counts an illegal answer, which is found after the call was counted.
    fn illegal(&self, illegal: &IllegalAnswer) -> CallError {
        let error = CallError::new(FailureKind::Output, illegal.to_string());
        self.instances
            .shared
            .metrics
            .failures(error.kind)
            .increment();
        self.instances.shared.stats.failed(&error);
        let (plugin, version) = (self.name(), self.label());
        self.instances.shared.log.write_host(|| {
            warn!(
                plugin,
                version,
                kind = "output",
                "the plugin gave an illegal answer: {error}"
            )
        });
        error
    }
}

impl std::fmt::Debug for PluginVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PluginVersion({} {})", self.name(), self.instances.label)
    }
}

fn disconnection(code: u16, reason: &str) -> raw::DisconnectionParam<'_> {
    raw::DisconnectionParam { code, reason }
}

fn guest_client(client: &ClientInfo) -> raw::ClientParam<'_> {
    raw::ClientParam {
        connection: &client.connection,
        user: &client.user,
        claims: &client.claims,
        address: &client.address,
        connected_at: client.connected_at_ms,
    }
}
