//! Keeps the nodes of a cluster on the same plugin versions.
//!
//! The versions that the cluster runs are in Redis, on a [`board`] that every node reads once a second: for each plugin
//! one decision, with a number that only grows. A node that finds a decision it has not followed yet fetches the
//! component ([`components`]), admits it like any other and goes live with it, so nodes that were away, or join later,
//! catch up by themselves. Until then the node is not ready. A decision counts only if a holder of `admin.key` wrote it
//! ([`seal`]): write access to Redis is not enough.
//!
//! A swap on all nodes ([`Fleet::push`]) is a proposal on the same board: every node tries the component alongside the
//! live version and answers ([`follower`], [`means`]); the proposing node waits for the answers and decides, by one
//! script ([`coordinator`]). From then on the decision stands, whatever happens to the proposing node. Before that,
//! nothing has happened: a proposal that nobody renews expires after [`coordinator::LEASE`]. If Redis loses its data,
//! the nodes that followed the highest decision write it again.

mod answer;
mod board;
mod components;
mod coordinator;
mod follower;
mod means;
mod seal;
mod standing;
mod texts;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::AbortHandle;

use self::{
    board::Board, components::Components, follower::Follower, means::Means, seal::Seals,
    standing::Standing,
};
use crate::{
    broker::Broker, metrics::Metrics, plugin::Registry, redis_client::Commands, supervise,
};

pub use answer::{NodeAnswer, NodeOutcome};
pub use coordinator::{ClusterPush, PushError, Pushed, Released};
pub use seal::AdminKey;
pub use standing::PluginStanding;

/// Returns the current `limits.plugin_file_bytes_max`.
pub type FileBytesMax = Arc<dyn Fn() -> usize + Send + Sync>;

/// The means by which the nodes of a cluster communicate.
pub struct Meeting<'a> {
    /// Knows which nodes are alive.
    pub broker: Arc<dyn Broker>,
    /// The link to Redis.
    pub commands: Commands,
    /// The prefix of all keys in Redis.
    pub prefix: &'a str,
    /// The key that decisions are signed with.
    pub admin_key: AdminKey,
}

/// The cluster, as one node sees it.
pub struct Fleet {
    node: Arc<str>,
    registry: Arc<Registry>,
    bytes_max: FileBytesMax,
    /// `None` if this node is the whole cluster.
    shared: Option<Shared>,
}

/// The state of a node that may not be alone.
struct Shared {
    board: Arc<Board>,
    components: Arc<Components>,
    broker: Arc<dyn Broker>,
    standing: Arc<Standing>,
    seals: Arc<Seals>,
    proposals: AtomicU64,
    follower: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Fleet {
    /// A cluster of the node `node` alone.
    pub fn alone(node: &str, registry: Arc<Registry>, bytes_max: FileBytesMax) -> Self {
        Self {
            node: node.into(),
            registry,
            bytes_max,
            shared: None,
        }
    }

    /// Joins the nodes that share the Redis in `meet`, as `node`: an ID that no other boot of any node has. The
    /// plugins' files should have been loaded before: the cluster's decisions replace their versions. `bytes_max`
    /// limits the size of components that are fetched.
    pub fn join(
        node: &str,
        registry: Arc<Registry>,
        meet: Meeting<'_>,
        metrics: &Arc<Metrics>,
        bytes_max: FileBytesMax,
    ) -> Self {
        let node = Arc::<str>::from(node);
        let Meeting {
            broker,
            commands,
            prefix,
            admin_key,
        } = meet;
        let seals = Arc::new(Seals::new(admin_key, prefix));
        let board = Arc::new(Board::new(commands.clone(), prefix, seals.clone()));
        let components = Arc::new(Components::new(commands, prefix));
        let standing = Arc::<Standing>::default();
        let means = Means {
            node: node.clone(),
            registry: registry.clone(),
            board: board.clone(),
            components: components.clone(),
            bytes_max: bytes_max.clone(),
        };
        let follower = Follower::new(means, standing.clone());
        let follower = supervise::spawn("follower of the cluster", metrics, follower, |follower| {
            follower.run().boxed()
        });
        Self {
            node,
            registry,
            bytes_max,
            shared: Some(Shared {
                board,
                components,
                broker,
                standing,
                seals,
                proposals: AtomicU64::new(0),
                follower: follower.abort_handle(),
            }),
        }
    }

    /// This node's state with regard to the cluster's decision about each plugin.
    pub fn standing(&self) -> BTreeMap<String, PluginStanding> {
        let shared = self.shared.as_ref();
        shared.map_or_else(BTreeMap::new, |shared| shared.standing.plugins())
    }

    /// Checks whether this node runs what the cluster decided, as of the last read.
    ///
    /// # Errors
    /// Returns, in words, why it does not, or why that is unknown.
    pub fn check(&self) -> Result<(), String> {
        self.shared
            .as_ref()
            .map_or(Ok(()), |shared| shared.standing.check())
    }
}

impl Shared {
    fn next_id(&self, node: &str) -> String {
        let number = self.proposals.fetch_add(1, Ordering::Relaxed);
        format!("{node}-{number}")
    }
}

/// A duration in milliseconds, as Redis takes it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
