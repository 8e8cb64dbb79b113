//! `broker.kind = "memory"`: this node is alone.

use std::sync::Arc;

use signalbox_broker::{Broker, MemoryBroker, MemoryHub};
use signalbox_cluster_rollout::{ClusterRollout, FileBytesMax};
use signalbox_config::BrokerConfig;
use signalbox_plugin_runtime::{MemoryStore, PluginStore};
use signalbox_router::LocalTable;
use signalbox_telemetry::{metrics::Metrics, trace::Tracer};

use super::BrokerKind;
use crate::session::Services;

/// Keeps everything in this process.
pub(super) struct MemoryKind;

impl BrokerKind for MemoryKind {
    fn broker(
        &self,
        node: &str,
        table: Arc<LocalTable>,
        _: &Arc<Metrics>,
        _: &Tracer,
    ) -> Arc<dyn Broker> {
        let hub = Arc::<MemoryHub>::default();
        Arc::new(MemoryBroker::join(hub, node, table))
    }

    fn store(&self, _: &Arc<Metrics>) -> Arc<dyn PluginStore> {
        Arc::<MemoryStore>::default()
    }

    fn cluster(&self, services: &Arc<Services>, bytes_max: FileBytesMax) -> ClusterRollout {
        ClusterRollout::alone(services.ids.node(), services.manager.clone(), bytes_max)
    }

    fn set_logins(&self, _: &BrokerConfig) {}
}
