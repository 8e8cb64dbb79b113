//! How far a node has followed the cluster, for people.

use serde::Serialize;

/// This node's state with regard to the cluster's decision about one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PluginSyncStatus {
    /// The number of the last decision that this node is done with; 0 for none.
    pub number: u64,
    /// Why the entry in Redis is not trusted, and therefore not followed, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<&'static str>,
    /// Why the last decision is not live here, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}
