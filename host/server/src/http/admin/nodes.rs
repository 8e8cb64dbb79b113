//! `GET /admin/nodes`: the nodes of the cluster, and the state of this node.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{Extension, http::StatusCode, response::Response};
use serde::Serialize;
use signalbox_cluster_rollout::PluginSyncStatus;

use super::{
    Admin,
    query::{NoQuery, StrictQuery},
};
use crate::http::error::json;

#[derive(Serialize)]
struct Nodes<'a> {
    /// The server IDs of all nodes that are alive.
    nodes: Vec<String>,
    /// Why only this node is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
    /// The node that answers.
    this: This<'a>,
}

#[derive(Serialize)]
struct This<'a> {
    id: &'a str,
    /// The version of the server.
    version: &'static str,
    started_at: String,
    connections: usize,
    /// Whether it is shutting down.
    draining: bool,
    /// The cluster's decisions that it follows, by plugin.
    decisions: BTreeMap<String, PluginSyncStatus>,
}

pub(super) async fn list(
    Extension(admin): Extension<Arc<Admin>>,
    _: StrictQuery<NoQuery>,
) -> Response {
    let services = &admin.state.services;
    // An operator who looks here because Redis is unavailable needs to see at least this node.
    let (nodes, unavailable) = match services.router.broker().nodes().await {
        Ok(nodes) => (nodes, None),
        Err(error) => {
            let own = vec![services.ids.node().to_owned()];
            (own, Some(error.to_string()))
        }
    };
    let this = This {
        id: services.ids.node(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: humantime::format_rfc3339_millis(admin.started).to_string(),
        connections: services.router.table().len(),
        draining: services.draining.load(Ordering::Acquire),
        decisions: admin.state.cluster.sync_status(),
    };
    let answer = Nodes {
        nodes,
        unavailable,
        this,
    };
    json(StatusCode::OK, &answer)
}
