//! The nodes of a cluster, as far as they run the same plugin versions.
//!
//! What the cluster runs stands in Redis, on a [`board`] that every node reads once a second: for each plugin one
//! decision, with a number that only grows. A node that finds a decision it has not followed yet fetches the component
//! ([`components`]), admits it as any other and goes live with it, so nodes that were away, or join later, need nobody to
//! tell them. It is not ready before that. What nobody with `admin.key` wrote is no decision ([`seal`]): being able to write to
//! Redis is not enough.
//!
//! A swap on all nodes ([`Fleet::push`]) is a proposal on the same board: every node tries the component beside what is
//! live and answers ([`follower`], [`means`]), whoever proposed waits for the answers and decides, by one script ([`coordinator`]).
//! From that moment on the decision stands, whatever becomes of the one who made it; before it, nothing has happened: a
//! proposal that nobody renews is over after [`coordinator::LEASE`]. Where Redis loses what it knew, the nodes that
//! followed the highest decision write it down anew.

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

/// `limits.plugin_file_bytes_max`, as it is now.
pub type FileBytesMax = Arc<dyn Fn() -> usize + Send + Sync>;

/// Where nodes meet.
pub struct Meeting<'a> {
    /// Says who is alive.
    pub broker: Arc<dyn Broker>,
    /// A Redis.
    pub commands: Commands,
    /// How its keys begin.
    pub prefix: &'a str,
    /// The key that decisions are signed with.
    pub admin_key: AdminKey,
}

/// What one node has of the cluster.
pub struct Fleet {
    node: Arc<str>,
    registry: Arc<Registry>,
    bytes_max: FileBytesMax,
    /// None where this node is the whole cluster.
    shared: Option<Shared>,
}

/// What it has where there may be others.
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
    /// The node `node` alone.
    pub fn alone(node: &str, registry: Arc<Registry>, bytes_max: FileBytesMax) -> Self {
        Self {
            node: node.into(),
            registry,
            bytes_max,
            shared: None,
        }
    }

    /// The node `node`, whose ID no other boot of any node has, among those that `meet` at a Redis. The plugins' files should
    /// have been looked at before: what the cluster decided takes the place of what they say. `bytes_max` bounds what is
    /// fetched.
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

    /// How this node stands to what the cluster decided about each plugin.
    pub fn standing(&self) -> BTreeMap<String, PluginStanding> {
        let shared = self.shared.as_ref();
        shared.map_or_else(BTreeMap::new, |shared| shared.standing.plugins())
    }

    /// Whether this node runs what the cluster decided, as of the last look.
    ///
    /// # Errors
    /// Why it does not, or why nobody can tell, in words.
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

/// A time as Redis takes it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
