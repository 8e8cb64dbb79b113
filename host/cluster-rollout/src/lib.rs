//! Keeps the nodes of a cluster on the same plugin versions.
//!
//! [`ClusterRollout`] is the cluster, as one node sees it. A node that is alone carries out everything by itself. Nodes that
//! meet at Redis decide together, which is the module `shared`; a build without the cargo feature `redis` leaves that out.

mod alone;
mod node_answer;
mod push;
mod rollout;
#[cfg(feature = "redis")]
mod shared;
mod sync_status;

pub use node_answer::{NodeAnswer, NodeOutcome};
pub use push::{ClusterPush, ClusterPushError, DecidedSwap, Released};
pub use rollout::{ClusterRollout, FileBytesMax};
#[cfg(feature = "redis")]
pub use shared::{AdminKey, ClusterLink};
pub use sync_status::PluginSyncStatus;
