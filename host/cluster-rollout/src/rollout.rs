//! The cluster, as one node sees it, whether or not there are other nodes.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use signalbox_plugin_manager::{ChangeError, PluginManager};

use super::{
    push::{ClusterPush, ClusterPushError, DecidedSwap, Released},
    sync_status::PluginSyncStatus,
};

/// Returns the current `limits.plugin_file_bytes_max`.
pub type FileBytesMax = Arc<dyn Fn() -> usize + Send + Sync>;

/// The cluster, as one node sees it.
pub struct ClusterRollout {
    manager: Arc<PluginManager>,
    nodes: Box<dyn ClusterNodes>,
}

/// The nodes of a cluster. The methods are those of [`ClusterRollout`] with the same names.
pub(super) trait ClusterNodes: Send + Sync {
    fn push<'a>(
        &'a self,
        plugin: &'a str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
        who: &'a str,
    ) -> BoxFuture<'a, Result<DecidedSwap, ClusterPushError>>;

    /// Called only for plugins that are configured here.
    fn release<'a>(
        &'a self,
        plugin: &'a str,
        who: &'a str,
    ) -> BoxFuture<'a, Result<Released, ClusterPushError>>;

    fn sync_status(&self) -> BTreeMap<String, PluginSyncStatus>;

    fn check(&self) -> Result<(), String>;
}

impl ClusterRollout {
    /// The cluster `nodes`, to which the node with `manager` belongs.
    pub(super) fn new(manager: Arc<PluginManager>, nodes: impl ClusterNodes + 'static) -> Self {
        Self {
            manager,
            nodes: Box::new(nodes),
        }
    }

    /// Makes all nodes go live with the component `bytes`, or none of them, on behalf of `who`. If this node is alone,
    /// this is an ordinary push.
    ///
    /// # Errors
    /// Returns [`ClusterPushError`] if nothing has changed, or if the outcome is unknown.
    pub async fn push(
        &self,
        plugin: &str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
        who: &str,
    ) -> Result<DecidedSwap, ClusterPushError> {
        self.nodes.push(plugin, bytes, how, who).await
    }

    /// Makes all nodes follow their own files of `plugin` again, whatever was decided before, on behalf of `who`.
    ///
    /// # Errors
    /// Returns [`ClusterPushError::Change`] if there is no such plugin here, [`ClusterPushError::NoKey`],
    /// [`ClusterPushError::Busy`] or [`ClusterPushError::Unavailable`]. If a node's file is refused, that node's answer
    /// contains the reason.
    pub async fn release(&self, plugin: &str, who: &str) -> Result<Released, ClusterPushError> {
        if !self.manager.is_configured(plugin) {
            return Err(ChangeError::UnknownPlugin(plugin.to_owned()).into());
        }
        self.nodes.release(plugin, who).await
    }

    /// This node's state with regard to the cluster's decision about each plugin.
    pub fn sync_status(&self) -> BTreeMap<String, PluginSyncStatus> {
        self.nodes.sync_status()
    }

    /// Checks whether this node runs what the cluster decided, as of the last read.
    ///
    /// # Errors
    /// Returns, in words, why it does not, or why that is unknown.
    pub fn check(&self) -> Result<(), String> {
        self.nodes.check()
    }
}
