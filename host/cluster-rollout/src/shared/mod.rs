//! Nodes that meet at Redis: they decide together which plugin versions they run.
//!
//! The versions that the cluster runs are in Redis, in the [`decision_log`] that every node reads once a second: for each plugin
//! one decision, with a number that only grows. A node that finds a decision it has not followed yet fetches the
//! component ([`components`]), admits it like any other and goes live with it, so nodes that were away, or join later,
//! catch up by themselves. Until then the node is not ready. A decision counts only if a holder of `admin.key` wrote it
//! ([`seal`]): write access to Redis is not enough.
//!
//! A swap on all nodes ([`ClusterRollout::push`]) is a proposal in the same log: every node tries the component alongside the
//! live version and answers ([`reconciler`], [`applier`]); the proposing node waits for the answers and decides, by one
//! script ([`coordinator`]). From then on the decision stands, whatever happens to the proposing node. Before that,
//! nothing has happened: a proposal that nobody renews expires after [`decision_log::LEASE`]. If Redis loses its data,
//! the nodes that followed the highest decision write it again.

mod applier;
mod components;
mod coordinator;
mod decision_log;
mod log_text;
mod reconciler;
mod seal;
mod sync_status;
mod texts;
mod trust;
mod votes;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
pub use seal::AdminKey;
use signalbox_broker::Broker;
use signalbox_plugin_manager::PluginManager;
use signalbox_redis_client::Commands;
use signalbox_telemetry::{
    metrics::Metrics,
    supervise::{self, OwnedTask},
};

use self::{
    applier::Applier, components::ComponentStore, decision_log::DecisionLog,
    reconciler::Reconciler, seal::Seals, sync_status::SyncStatus,
};
use crate::{
    ClusterPush, ClusterPushError, ClusterRollout, DecidedSwap, FileBytesMax, PluginSyncStatus,
    Released, rollout::ClusterNodes,
};

/// The parts that the nodes of a cluster share.
pub struct ClusterLink<'a> {
    /// Knows which nodes are alive.
    pub broker: Arc<dyn Broker>,
    /// The link to Redis.
    pub commands: Commands,
    /// The prefix of all keys in Redis.
    pub prefix: &'a str,
    /// The key that decisions are signed with.
    pub admin_key: AdminKey,
}

/// The state of a node that may not be alone.
struct ClusterState {
    node: Arc<str>,
    manager: Arc<PluginManager>,
    decision_log: Arc<DecisionLog>,
    components: Arc<ComponentStore>,
    broker: Arc<dyn Broker>,
    sync_status: Arc<SyncStatus>,
    seals: Arc<Seals>,
    proposals: AtomicU64,
    _reconciler: OwnedTask,
}

impl ClusterRollout {
    /// Joins the nodes that share the Redis in `meet`, as `node`: an ID that no other boot of any node has. The
    /// plugins' files should have been loaded before: the cluster's decisions replace their versions. `bytes_max`
    /// limits the size of components that are fetched.
    pub fn join(
        node: &str,
        manager: Arc<PluginManager>,
        meet: ClusterLink<'_>,
        metrics: &Arc<Metrics>,
        bytes_max: FileBytesMax,
    ) -> Self {
        let node = Arc::<str>::from(node);
        let ClusterLink {
            broker,
            commands,
            prefix,
            admin_key,
        } = meet;
        let seals = Arc::new(Seals::new(admin_key, prefix));
        let decision_log = Arc::new(DecisionLog::new(commands.clone(), prefix, seals.clone()));
        let components = Arc::new(ComponentStore::new(commands, prefix));
        let sync_status = Arc::<SyncStatus>::default();
        let applier = Applier {
            node: node.clone(),
            manager: manager.clone(),
            decision_log: decision_log.clone(),
            components: components.clone(),
            bytes_max,
        };
        let reconciler = Reconciler::new(applier, sync_status.clone());
        let reconciler =
            supervise::spawn("cluster reconciler", metrics, reconciler, |reconciler| {
                reconciler.run().boxed()
            });
        let state = ClusterState {
            node,
            manager: manager.clone(),
            decision_log,
            components,
            broker,
            sync_status,
            seals,
            proposals: AtomicU64::new(0),
            _reconciler: reconciler.into(),
        };
        Self::new(manager, state)
    }
}

impl ClusterNodes for ClusterState {
    fn push<'a>(
        &'a self,
        plugin: &'a str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
        who: &'a str,
    ) -> BoxFuture<'a, Result<DecidedSwap, ClusterPushError>> {
        self.push_to_all(plugin, bytes, how, who).boxed()
    }

    fn release<'a>(
        &'a self,
        plugin: &'a str,
        who: &'a str,
    ) -> BoxFuture<'a, Result<Released, ClusterPushError>> {
        self.release_all(plugin, who).boxed()
    }

    fn sync_status(&self) -> BTreeMap<String, PluginSyncStatus> {
        self.sync_status.plugins()
    }

    fn check(&self) -> Result<(), String> {
        self.sync_status.check()
    }
}

/// A duration in milliseconds, as Redis takes it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
