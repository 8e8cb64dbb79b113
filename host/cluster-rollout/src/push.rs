//! The options and the results of a push to all nodes, and of a release.

use std::{collections::BTreeMap, time::Duration};

use signalbox_plugin_manager::ChangeError;
use signalbox_plugin_runtime::Sha256;

use super::node_answer::NodeAnswer;

/// The options of a push to all nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterPush {
    /// The number of nodes that are enough; nodes that refuse keep their version. `None`: all nodes must admit it.
    pub quorum: Option<usize>,
    /// Whether to skip the probation on all nodes.
    pub no_probation: bool,
}

/// A swap that was decided.
#[derive(Debug)]
pub struct DecidedSwap {
    /// The digest of the component.
    pub sha256: Sha256,
    /// How many decisions there have been about this plugin; 0 if this node is alone.
    pub number: u64,
    /// The last answer of every node. A node that is only [`Admitted`](crate::NodeOutcome::Admitted) had not answered yet
    /// that it is live.
    pub nodes: BTreeMap<String, NodeAnswer>,
    /// From the request to the last answer.
    pub took: Duration,
}

/// The result of a release: the nodes follow the plugin's files again.
#[derive(Debug)]
pub struct Released {
    /// How many decisions there have been about this plugin; 0 if this node is alone.
    pub number: u64,
    /// The answer of every node: that the version in its file is live, or why not.
    pub nodes: BTreeMap<String, NodeAnswer>,
}

/// Why a swap on all nodes failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterPushError {
    /// This node refuses it; the others were not asked.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Another swap is under way.
    #[error("node {0} is swapping this plugin on all nodes right now; try again in a moment")]
    Busy(String),
    /// There is no `admin.key`, so no node would trust a decision.
    #[error(
        "nothing has changed: nodes follow decisions that are signed with admin.key, and none is configured here"
    )]
    NoKey,
    /// Redis or the list of nodes cannot be reached. Nothing has changed.
    #[error("nothing has changed: {0}")]
    Unavailable(String),
    /// Not all nodes, or too few for the quorum, would go live. Nothing has changed.
    #[error("nothing has changed on any node: {reason}")]
    NotAgreed {
        /// Why not.
        reason: String,
        /// The answer of every node.
        nodes: BTreeMap<String, NodeAnswer>,
    },
    /// Redis was lost during the decision, so its outcome is unknown. All nodes follow whatever holds once Redis is
    /// back.
    #[error(
        "Redis became unavailable during the decision ({reason}): once it is back, all nodes follow the decision in \
         Redis; check the plugin's version then"
    )]
    Unknown {
        /// What went wrong.
        reason: String,
        /// The answer of every node before that.
        nodes: BTreeMap<String, NodeAnswer>,
    },
}
