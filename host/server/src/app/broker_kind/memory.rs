//! `broker.kind = "memory"`: this node is alone.

use std::{sync::Arc, time::Duration};

use signalbox_broker::{Broker, MemoryBroker, MemoryHub};
use signalbox_cluster_rollout::{ClusterRollout, FileBytesMax};
use signalbox_config::{BrokerConfig, Limits};
use signalbox_plugin_runtime::{MemoryStore, PluginStore};
use signalbox_router::LocalTable;
use signalbox_telemetry::{metrics::Metrics, trace::Tracer};
use signalbox_webhooks::{EventQueue, MemoryQueue};

use super::BrokerKind;
use crate::session::Services;

/// The time that a message within one process may wait for another one.
const MESSAGE_TIME_MAX: Duration = Duration::from_millis(500);

/// Keeps everything in this process.
#[derive(Default)]
pub(super) struct MemoryKind {
    hub: Arc<MemoryHub>,
}

impl BrokerKind for MemoryKind {
    fn broker(
        &self,
        node: &str,
        table: Arc<LocalTable>,
        _: &Arc<Metrics>,
        _: &Tracer,
    ) -> Arc<dyn Broker> {
        Arc::new(MemoryBroker::join(self.hub.clone(), node, table))
    }

    fn message_time_max(&self) -> Duration {
        MESSAGE_TIME_MAX
    }

    fn store(&self, _: &Arc<Metrics>) -> Arc<dyn PluginStore> {
        Arc::<MemoryStore>::default()
    }

    fn event_queue(&self, _: &Arc<Metrics>) -> Arc<dyn EventQueue> {
        Arc::<MemoryQueue>::default()
    }

    fn cluster(&self, services: &Arc<Services>, bytes_max: FileBytesMax) -> ClusterRollout {
        ClusterRollout::alone(services.ids.node(), services.manager.clone(), bytes_max)
    }

    fn set_logins(&self, _: &BrokerConfig) {}

    fn set_limits(&self, limits: &Limits) {
        self.hub.set_history_bytes_max(limits.history_bytes_max);
    }
}
