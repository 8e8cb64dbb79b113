//! `scope=cluster`: pushes a component to all nodes, which go live together or not at all, and makes all nodes follow
//! their files again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use signalbox_cluster_rollout::{ClusterPush, ClusterPushError, DecidedSwap, NodeAnswer, Released};
use signalbox_plugin_runtime::Sha256;

use super::{
    Admin,
    caller::Caller,
    changes::{error_code, refused},
};
use crate::http::error::{ApiError, json};

/// A component, and the permit to hold it in memory.
pub(super) type Received = (Arc<[u8]>, tokio::sync::OwnedSemaphorePermit);

const PUSH: &str = "push to all nodes";
const RELEASE: &str = "have all nodes follow their files";

/// How long a client should wait while another swap is in progress, or Redis is unavailable.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Swapped<'a> {
    plugin: &'a str,
    scope: &'static str,
    outcome: &'static str,
    /// The first twelve digits of the SHA-256.
    version: &'a str,
    sha256: Sha256,
    /// The number of versions that the cluster has decided on for this plugin; 0 for a single node.
    number: u64,
    took_ms: f64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Followed<'a> {
    plugin: &'a str,
    scope: &'static str,
    outcome: &'static str,
    number: u64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct NotSwapped<'a> {
    plugin: &'a str,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    #[serde(flatten)]
    answer: &'a NodeAnswer,
}

/// Runs to completion in a separate task, so that a client that disconnects does not cancel it, and audits the result.
pub(super) async fn push(
    admin: &Arc<Admin>,
    caller: Caller,
    plugin: String,
    (bytes, room): Received,
    how: ClusterPush,
) -> Result<Response, ApiError> {
    let cluster = admin.state.cluster.clone();
    let task = tokio::spawn(async move {
        let _room = room;
        let who = caller.in_words();
        let pushed = cluster.push(&plugin, bytes, how, &who).await;
        let (outcome, detail) = in_words(&pushed);
        caller.did(PUSH, &plugin, outcome, &detail);
        match pushed {
            Ok(pushed) => Ok(answer(&plugin, &pushed)),
            Err(error) => Err(api_error(&plugin, error)),
        }
    });
    task.await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// `POST /admin/plugins/{name}/reload?scope=cluster`: every node reloads its own file.
pub(super) async fn release(
    admin: &Arc<Admin>,
    caller: Caller,
    plugin: String,
) -> Result<Response, ApiError> {
    let cluster = admin.state.cluster.clone();
    let task = tokio::spawn(async move {
        let released = cluster.release(&plugin, &caller.in_words()).await;
        match released {
            Ok(Released { number, nodes }) => {
                let detail = format!("{} nodes", nodes.len());
                caller.did(RELEASE, &plugin, "released", &detail);
                let followed = Followed {
                    plugin: &plugin,
                    scope: "cluster",
                    outcome: "released",
                    number,
                    nodes: listed(&nodes),
                };
                Ok(json(StatusCode::OK, &followed))
            }
            Err(error) => {
                caller.did(RELEASE, &plugin, code(&error).1, &error.to_string());
                Err(api_error(&plugin, error))
            }
        }
    });
    task.await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// Outcome and detail for the audit line.
fn in_words(pushed: &Result<DecidedSwap, ClusterPushError>) -> (&'static str, String) {
    match pushed {
        Ok(pushed) => {
            let detail = format!("{} on {} nodes", pushed.sha256.label(), pushed.nodes.len());
            ("live", detail)
        }
        Err(error) => (code(error).1, error.to_string()),
    }
}

fn answer(plugin: &str, pushed: &DecidedSwap) -> Response {
    let swapped = Swapped {
        plugin,
        scope: "cluster",
        outcome: "live",
        version: &pushed.sha256.label(),
        sha256: pushed.sha256,
        number: pushed.number,
        took_ms: pushed.took.as_secs_f64() * 1e3,
        nodes: listed(&pushed.nodes),
    };
    json(StatusCode::OK, &swapped)
}

fn code(error: &ClusterPushError) -> (StatusCode, &'static str) {
    match error {
        ClusterPushError::Change(error) => error_code(error),
        ClusterPushError::Busy(_) => (StatusCode::CONFLICT, "busy"),
        ClusterPushError::NoKey => (StatusCode::CONFLICT, "no_key"),
        ClusterPushError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ClusterPushError::NotAgreed { .. } => (StatusCode::CONFLICT, "not_agreed"),
        ClusterPushError::Unknown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"),
    }
}

fn api_error(plugin: &str, error: ClusterPushError) -> ApiError {
    let (status, code) = code(&error);
    let api_error = ApiError::new(status, code, error.to_string());
    match error {
        ClusterPushError::Change(error) => refused(plugin, error),
        ClusterPushError::NoKey => api_error,
        ClusterPushError::Busy(_) | ClusterPushError::Unavailable(_) => {
            api_error.retry_after(PAUSE)
        }
        ClusterPushError::NotAgreed { nodes, .. } | ClusterPushError::Unknown { nodes, .. } => {
            let nodes = listed(&nodes);
            api_error.with_report(&NotSwapped { plugin, nodes })
        }
    }
}

fn listed(nodes: &BTreeMap<String, NodeAnswer>) -> Vec<Node<'_>> {
    nodes
        .iter()
        .map(|(node, answer)| Node { node, answer })
        .collect()
}
