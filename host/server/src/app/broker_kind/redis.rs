//! `broker.kind = "redis"`: nodes meet at Redis.

use std::{sync::Arc, time::Duration};

use signalbox_broker::{Broker, RedisBroker};
use signalbox_cluster_rollout::{ClusterLink, ClusterRollout, FileBytesMax};
use signalbox_config::{BrokerConfig, Limits, RedisConfig};
use signalbox_plugin_runtime::{PluginStore, RedisStore};
use signalbox_redis_client::{Commands, Endpoints};
use signalbox_router::LocalTable;
use signalbox_telemetry::{metrics::Metrics, trace::Tracer};
use signalbox_webhooks::{EventQueue, RedisQueue};

use super::BrokerKind;
use crate::{app::StartError, session::Services};

struct RedisKind {
    config: RedisConfig,
    /// All connections share them, so that a changed password reaches all.
    endpoints: Endpoints,
}

pub(super) fn configured(config: &RedisConfig) -> Result<Arc<dyn BrokerKind>, StartError> {
    Ok(Arc::new(RedisKind {
        endpoints: Endpoints::new(config)?,
        config: config.clone(),
    }))
}

impl BrokerKind for RedisKind {
    fn broker(
        &self,
        node: &str,
        table: Arc<LocalTable>,
        metrics: &Arc<Metrics>,
        tracer: &Tracer,
    ) -> Arc<dyn Broker> {
        Arc::new(RedisBroker::join_through(
            self.endpoints.clone(),
            &self.config,
            node,
            table,
            metrics.clone(),
            tracer.clone(),
        ))
    }

    fn message_time_max(&self) -> Duration {
        self.config.command_timeout
    }

    fn store(&self, metrics: &Arc<Metrics>) -> Arc<dyn PluginStore> {
        let commands = Commands::start(self.endpoints.clone(), metrics);
        Arc::new(RedisStore::new(commands, &self.config.key_prefix))
    }

    fn event_queue(&self, metrics: &Arc<Metrics>) -> Arc<dyn EventQueue> {
        // A separate connection: events may be large, and must not delay other traffic between nodes.
        let commands = Commands::start(self.endpoints.clone(), metrics);
        Arc::new(RedisQueue::new(commands, &self.config.key_prefix))
    }

    fn cluster(&self, services: &Arc<Services>, bytes_max: FileBytesMax) -> ClusterRollout {
        let metrics = &services.metrics;
        // A separate connection: components are large, and must not delay other traffic between nodes.
        let commands = Commands::start(self.endpoints.clone(), metrics);
        let of = services.clone();
        let meeting = ClusterLink {
            broker: services.router.broker().clone(),
            commands,
            prefix: &self.config.key_prefix,
            admin_key: Arc::new(move || of.live.load().admin.key.clone()),
        };
        let (node, manager) = (services.ids.node(), services.manager.clone());
        ClusterRollout::join(node, manager, meeting, metrics, bytes_max)
    }

    fn set_logins(&self, config: &BrokerConfig) {
        if let BrokerConfig::Redis(config) = config {
            self.endpoints.set_logins(&config.urls);
        }
    }

    fn set_limits(&self, _: &Limits) {}
}
