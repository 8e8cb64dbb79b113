//! `PUT /admin/plugins/{name}`: receives a component, which goes live or is refused.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures_util::StreamExt;
use serde::Deserialize;
use signalbox_cluster_rollout::ClusterPush;
use signalbox_plugin_manager as manager;
use tokio::time::timeout;

use super::{
    Admin,
    caller::Caller,
    changes::{to_its_end, unknown},
    cluster::{self, Received},
    query::{ChangeScope, PluginName, StrictQuery},
};
use crate::http::error::ApiError;

/// The nodes that a push affects, and the safeguards that it overrides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuery {
    #[serde(default)]
    scope: ChangeScope,
    /// With `scope=cluster`: how many nodes are enough.
    quorum: Option<usize>,
    /// Accepts the version even if it was rolled back during probation. A push to all nodes implies it.
    #[serde(default)]
    force: bool,
    /// Whether the version goes through probation.
    #[serde(default = "yes")]
    probation: bool,
}

const fn yes() -> bool {
    true
}

impl PushQuery {
    fn check(&self) -> Result<(), ApiError> {
        let message = match (self.scope, self.quorum) {
            (ChangeScope::Cluster, _) if self.force => {
                "the query is wrong: with scope=cluster there is nothing to force"
            }
            (ChangeScope::Node, Some(_)) => "the query is wrong: quorum needs scope=cluster",
            (_, Some(0)) => "the query is wrong: a quorum is 1 or more",
            _ => return Ok(()),
        };
        let status = StatusCode::BAD_REQUEST;
        Err(ApiError::new(status, "invalid_query", message))
    }
}

const ACTION: &str = "push";

/// How long a client should wait while other pushes are in progress.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn push(
    Extension(admin): Extension<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    PluginName(plugin): PluginName,
    StrictQuery(push): StrictQuery<PushQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    push.check()?;
    let how = manager::PushOptions {
        force: push.force,
        no_probation: !push.probation,
    };
    let action = match how {
        manager::PushOptions {
            no_probation: true, ..
        } => "push without probation",
        manager::PushOptions { force: true, .. } => "push by force",
        manager::PushOptions { .. } => ACTION,
    };
    let received = receive(&admin, &plugin, &headers, body).await;
    let (bytes, room) = received.inspect_err(|error| caller.was_refused(action, &plugin, error))?;
    if push.scope == ChangeScope::Cluster {
        let how = ClusterPush {
            quorum: push.quorum,
            no_probation: !push.probation,
        };
        return cluster::push(&admin, caller, plugin, (bytes, room), how).await;
    }
    let manager = admin.state.services.manager.clone();
    let name = plugin.clone();
    let push = async move {
        let _room = room;
        manager.push(&name, bytes, how).await
    };
    to_its_end(caller, action, plugin, push).await
}

/// Receives the component as a whole.
async fn receive(
    admin: &Admin,
    plugin: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, ApiError> {
    let services = &admin.state.services;
    if services.manager.view_of(plugin).is_none() {
        return Err(unknown(plugin));
    }
    let (bytes_max, time) = {
        let live = services.live.load();
        (live.limits.plugin_file_bytes_max, live.admin.upload_timeout)
    };
    if announced(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let room = admin.pushes.clone().try_acquire_owned().map_err(|_| {
        let message = "other components are being pushed to this node; try again in a moment";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).retry_after(BUSY_PAUSE)
    })?;
    match timeout(time, collect(body, bytes_max)).await {
        Ok(collected) => Ok((collected?.into(), room)),
        Err(_) => {
            let message =
                format!("the component did not arrive within {time:?} (admin.upload_timeout)");
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(ApiError::new(status, "too_slow", message))
        }
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

async fn collect(body: Body, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            let message = format!("the component did not arrive completely: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, "incomplete", message)
        })?;
        if part.len() > bytes_max.saturating_sub(bytes.len()) {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn too_large(bytes_max: usize) -> ApiError {
    let message =
        format!("the component is larger than {bytes_max} bytes (limits.plugin_file_bytes_max)");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}
