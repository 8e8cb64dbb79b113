//! A node that is the whole cluster: everything is an ordinary operation on its own plugins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use signalbox_plugin_manager::{Change, PluginManager, PushOptions};
use signalbox_plugin_runtime::Sha256;
use tokio::time::Instant;

use super::{
    node_answer::NodeAnswer,
    push::{ClusterPush, ClusterPushError, DecidedSwap, Released},
    rollout::{ClusterNodes, ClusterRollout, FileBytesMax},
    sync_status::PluginSyncStatus,
};

struct LoneNode {
    node: Arc<str>,
    manager: Arc<PluginManager>,
    bytes_max: FileBytesMax,
}

impl ClusterRollout {
    /// A cluster of the node `node` alone.
    pub fn alone(node: &str, manager: Arc<PluginManager>, bytes_max: FileBytesMax) -> Self {
        let nodes = LoneNode {
            node: node.into(),
            manager: manager.clone(),
            bytes_max,
        };
        Self::new(manager, nodes)
    }
}

impl LoneNode {
    async fn push_here(
        &self,
        plugin: &str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
    ) -> Result<DecidedSwap, ClusterPushError> {
        let began = Instant::now();
        let sha256 = Sha256::of(&bytes);
        let push = PushOptions {
            force: true,
            no_probation: how.no_probation,
        };
        let took = match self.manager.push(plugin, bytes, push).await? {
            Change::Live { took, .. } => took,
            // A forced push tries nothing first.
            Change::OnTrial { .. } | Change::Unchanged(_) => Duration::ZERO,
        };
        Ok(DecidedSwap {
            sha256,
            number: 0,
            nodes: BTreeMap::from([(self.node.to_string(), NodeAnswer::live(took))]),
            took: began.elapsed(),
        })
    }

    async fn release_here(&self, plugin: &str) -> Released {
        let answer = follow_file(&self.manager, plugin, (self.bytes_max)()).await;
        Released {
            number: 0,
            nodes: BTreeMap::from([(self.node.to_string(), answer)]),
        }
    }
}

impl ClusterNodes for LoneNode {
    fn push<'a>(
        &'a self,
        plugin: &'a str,
        bytes: Arc<[u8]>,
        how: ClusterPush,
        _: &'a str,
    ) -> BoxFuture<'a, Result<DecidedSwap, ClusterPushError>> {
        self.push_here(plugin, bytes, how).boxed()
    }

    fn release<'a>(
        &'a self,
        plugin: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Released, ClusterPushError>> {
        async move { Ok(self.release_here(plugin).await) }.boxed()
    }

    fn sync_status(&self) -> BTreeMap<String, PluginSyncStatus> {
        BTreeMap::new()
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Makes the version in the plugin's file live, and returns the answer to give.
pub(super) async fn follow_file(
    manager: &PluginManager,
    plugin: &str,
    file_bytes_max: usize,
) -> NodeAnswer {
    let began = Instant::now();
    match manager.reload(plugin, file_bytes_max, true).await {
        Ok(_) => NodeAnswer::live(began.elapsed()),
        Err(error) => NodeAnswer::refused(&error),
    }
}
