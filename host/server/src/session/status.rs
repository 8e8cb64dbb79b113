//! The status of a node, other than its metrics.

use std::time::SystemTime;

use signalbox_telemetry::metrics::{LivePlugin, NodeStatus};

use super::Services;

impl Services {
    /// The current status.
    pub async fn status(&self) -> NodeStatus {
        let live = self.manager.live();
        let versions = live.slots().iter().filter_map(|slot| slot.version());
        let plugins = versions.map(|version| LivePlugin {
            name: version.name().to_owned(),
            declared_version: version.declared_version().to_owned(),
            label: version.label().to_owned(),
            sha256: version.hash().to_string(),
            not_kept: self.manager.fails_to_keep(version.name()),
        });
        let plugins = plugins.collect();
        let broker = self.router.broker();
        NodeStatus {
            broker_up: broker.probe().await.is_ok(),
            revocations: broker.revocations().count(SystemTime::now()),
            event_streams: self.router.table().posts().len(),
            present_users: self.router.present_users(),
            plugins,
        }
    }
}
