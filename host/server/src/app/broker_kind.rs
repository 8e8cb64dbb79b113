//! The parts that `broker.kind` decides: how nodes exchange messages, where plugins store values, and who decides which
//! plugin versions are live.

mod memory;
#[cfg(any(test, not(feature = "redis")))]
mod no_redis;
#[cfg(feature = "redis")]
mod redis;

use std::{sync::Arc, time::Duration};

use signalbox_broker::Broker;
use signalbox_cluster_rollout::{ClusterRollout, FileBytesMax};
use signalbox_config::{BrokerConfig, Limits};
use signalbox_plugin_runtime::PluginStore;
use signalbox_router::LocalTable;
use signalbox_telemetry::{metrics::Metrics, trace::Tracer};
use signalbox_webhooks::EventQueue;

use self::memory::MemoryKind;
#[cfg(not(feature = "redis"))]
use self::no_redis as redis;
use super::StartError;
use crate::session::Services;

/// Makes the parts of a node. Each method but the setters is called once.
pub(super) trait BrokerKind: Send + Sync {
    /// Joins the other nodes as `node`, an ID that no other boot of any node has, with the connections in `table`.
    fn broker(
        &self,
        node: &str,
        table: Arc<LocalTable>,
        metrics: &Arc<Metrics>,
        tracer: &Tracer,
    ) -> Arc<dyn Broker>;

    /// The time that a message may take from one node to another.
    fn message_time_max(&self) -> Duration;

    /// The store for values of plugins.
    fn store(&self, metrics: &Arc<Metrics>) -> Arc<dyn PluginStore>;

    /// The queues of webhooks.
    fn event_queue(&self, metrics: &Arc<Metrics>) -> Arc<dyn EventQueue>;

    /// Starts to follow the cluster's decisions about plugins, whose files have been loaded.
    fn cluster(&self, services: &Arc<Services>, bytes_max: FileBytesMax) -> ClusterRollout;

    /// Takes the logins from `config`, which is otherwise that of the start.
    fn set_logins(&self, config: &BrokerConfig);

    /// Takes the limits, at the start and when they change.
    fn set_limits(&self, limits: &Limits);
}

/// The kind that is configured.
///
/// # Errors
/// Returns [`StartError::Redis`] if its configuration cannot work, and [`StartError::NotBuiltIn`] if this build does not
/// have it.
pub(super) fn configured(config: &BrokerConfig) -> Result<Arc<dyn BrokerKind>, StartError> {
    match config {
        BrokerConfig::Memory => Ok(Arc::<MemoryKind>::default()),
        BrokerConfig::Redis(config) => redis::configured(config),
    }
}
