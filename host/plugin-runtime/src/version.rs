//! One version of a plugin: a component with its configuration and limits, its instances, and the calls to them
//! ([`calls`]).

mod calls;

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use signalbox_config::{InstanceMode, PluginConfig};
use signalbox_protocol::{
    ClientInfo,
    event_type::{Closeness, Patterns},
};
use signalbox_telemetry::metrics::{Metrics, PluginMetrics};
use tokio::sync::Semaphore;
use wasmtime::component::InstancePre;

use super::{
    admission::{Admission, CompiledCandidate},
    call::ReplayCall,
    call_error::CallError,
    gate::Gate,
    host::{HostState, VersionContext},
    instance::ExportIndices,
    instances::Instances,
    log::PluginLog,
    pool::Pool,
    sha256::Sha256,
    stats::VersionStats,
    store::ReadOnlyStore,
};

/// A version of a plugin that passed its admission.
pub struct PluginVersion {
    hash: Sha256,
    sees: Patterns,
    handles: Patterns,
    /// Those of `handles` that are requests.
    responds: Patterns,
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
    /// The types that it claims, and those of them that are requests.
    pub(super) handles: Patterns,
    pub(super) responds: Patterns,
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
            responds: parts.responds,
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
    pub fn with_fresh_stats(&self) -> Self {
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
            responds: self.responds.clone(),
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

    /// How closely the types that it handles, as events or as requests, match this one; `None` if it does not handle this
    /// type, or does not see it.
    pub fn handles(&self, event_type: &str) -> Option<Closeness> {
        if !self.sees.matches(event_type) {
            return None;
        }
        self.handles.closeness(event_type)
    }

    /// Whether a type that it handles is a request, to which it responds with data.
    pub fn responds_to(&self, event_type: &str) -> bool {
        let closeness = self.responds.closeness(event_type);
        closeness.is_some() && closeness == self.handles.closeness(event_type)
    }

    /// The types that it handles, as events or as requests.
    pub fn handled(&self) -> &Patterns {
        &self.handles
    }

    /// Whether it is called when clients connect and disconnect.
    pub fn follows_connections(&self) -> bool {
        self.instances.indices.connections.is_some()
    }

    /// Whether it is called when connections join and leave rooms.
    pub fn follows_membership(&self) -> bool {
        self.instances.indices.membership.is_some()
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

    /// Starts instances ahead of need, up to the number that is kept ready.
    ///
    /// # Errors
    /// Returns the [`CallError`] of the first instance that does not start.
    pub async fn warm_up(&self) -> Result<(), CallError> {
        self.instances.warm_up().await
    }
}

impl std::fmt::Debug for PluginVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PluginVersion({} {})", self.name(), self.instances.label)
    }
}
