//! `/admin/connections`: lists and closes connections.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use signalbox_protocol::{CloseCode, ErrorCode, UserId};
use signalbox_router::{
    Connection, ConnectionReport, LISTED_MAX, NodeReport, UserAnswer, UserRequest,
};

use super::{
    caller::Caller,
    query::{PluginName, StrictQuery},
};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

const ACTION: &str = "disconnect";

/// The default number of listed connections.
const LIMIT: usize = 100;

/// The close reason sent to the client.
const REASON: &str = "disconnected by an operator";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Lists all connections of this user on every node; if absent, the connections on this node.
    user: Option<String>,
    /// The maximum number of connections to list.
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    /// The user of the connection, needed to find it on another node.
    user: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    connections: Vec<Entry>,
    /// The total number, including those beyond the limit.
    total: usize,
    /// Nodes that hold connections of the user but did not list them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    user: String,
    node: String,
    address: String,
    connected_at: String,
    /// `signalbox.v1`, or `None`.
    protocol: Option<&'static str>,
    /// `websocket` or `sse`.
    transport: &'static str,
    rooms: usize,
}

#[derive(Serialize)]
struct Disconnected<'a> {
    connection: &'a str,
    node: String,
}

impl Entry {
    fn new(user: &str, node: &str, report: ConnectionReport) -> Self {
        let connected_at = UNIX_EPOCH + Duration::from_millis(report.connected_at_ms);
        Self {
            id: report.id,
            user: user.to_owned(),
            node: node.to_owned(),
            address: report.address,
            connected_at: humantime::format_rfc3339_millis(connected_at).to_string(),
            protocol: report.v1.then_some("signalbox.v1"),
            transport: if report.event_stream {
                "sse"
            } else {
                "websocket"
            },
            rooms: report.rooms,
        }
    }
}

/// `GET /admin/connections`.
pub(super) async fn list(
    State(state): State<AppState>,
    StrictQuery(Which { user, limit }): StrictQuery<Which>,
) -> Result<Response, ApiError> {
    let limit = limit.unwrap_or(LIMIT);
    if limit > LISTED_MAX {
        let message = format!("`limit` is {limit}, it may be {LISTED_MAX}");
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_query",
            message,
        ));
    }
    let (total, mut connections, unanswered) = match user {
        Some(user) => {
            let (connections, unanswered) = of_user(&state, &parse_user(user)?).await?;
            (connections.len(), connections, unanswered)
        }
        None => {
            let (total, connections) = on_this_node(&state, limit);
            (total, connections, Vec::new())
        }
    };
    connections
        .sort_by(|one, other| (&one.connected_at, &one.id).cmp(&(&other.connected_at, &other.id)));
    connections.truncate(limit);
    let listed = Listed {
        connections,
        total,
        unanswered,
    };
    Ok(json(StatusCode::OK, &listed))
}

/// `DELETE /admin/connections/{id}`.
pub(super) async fn disconnect(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    PluginName(id): PluginName,
    StrictQuery(Whose { user }): StrictQuery<Whose>,
) -> Result<Response, ApiError> {
    // A separate task, so that the change is audited even if the client does not wait for the response.
    let task = tokio::spawn(async move {
        let done = disconnect_one(&state, &id, user).await;
        match &done {
            Ok(node) => caller.did(ACTION, &id, "disconnected", &format!("on node {node}")),
            Err(error) => caller.was_refused(ACTION, &id, error),
        }
        let answer = Disconnected {
            connection: &id,
            node: done?,
        };
        Ok(json(StatusCode::OK, &answer))
    });
    task.await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

fn parse_user(user: String) -> Result<UserId<'static>, ApiError> {
    UserId::parse(user).ok_or_else(ApiError::invalid_user)
}

/// The total number, and the oldest connections: a node may have very many, of which only a few are requested.
fn on_this_node(state: &AppState, limit: usize) -> (usize, Vec<Entry>) {
    let node = state.services.ids.node();
    let mut open = state.services.router.table().connections();
    open.retain(|connection| !connection.outbox().is_closing());
    let total = open.len();
    open.sort_by_key(|connection| connection.client().connected_at_ms);
    let entry =
        |connection: &Arc<Connection>| Entry::new(connection.user(), node, connection.report());
    (total, open.iter().take(limit).map(entry).collect())
}

async fn of_user(state: &AppState, user: &str) -> Result<(Vec<Entry>, Vec<String>), ApiError> {
    let services = &state.services;
    let asked = services.router.ask_about(user, &UserRequest::List).await;
    let elsewhere = asked
        .elsewhere
        .map_err(|error| ApiError::of(ErrorCode::Unavailable, error.to_string()))?;
    let own = NodeReport {
        node: services.ids.node().to_owned(),
        answer: asked.here,
    };
    let (mut connections, mut unanswered) = (Vec::new(), Vec::new());
    for NodeReport { node, answer } in std::iter::once(own).chain(elsewhere) {
        match answer {
            UserAnswer::Listed(list) => {
                let entries = list
                    .into_iter()
                    .map(|report| Entry::new(user, &node, report));
                connections.extend(entries);
            }
            // A node that reports a number instead of a list does not know this request.
            UserAnswer::Connections(_)
            | UserAnswer::RoomChanged { .. }
            | UserAnswer::Nothing
            | UserAnswer::CannotBeAsked => unanswered.push(node),
        }
    }
    Ok((connections, unanswered))
}

/// Returns the node that held the connection.
async fn disconnect_one(
    state: &AppState,
    id: &str,
    user: Option<String>,
) -> Result<String, ApiError> {
    let services = &state.services;
    let is_it = |connection: &&Arc<Connection>| connection.client().connection == id;
    let all = services.router.table().connections();
    let open = |connection: &&Arc<Connection>| !connection.outbox().is_closing();
    if let Some(connection) = all.iter().filter(is_it).find(open) {
        connection.outbox().close(CloseCode::KICKED, REASON);
        return Ok(services.ids.node().to_owned());
    }
    let unknown = |message: &str| {
        let status = StatusCode::NOT_FOUND;
        Err(ApiError::new(status, "unknown_connection", message))
    };
    let Some(user) = user else {
        return unknown(
            "no such connection on this node; name its user (?user=) to look on the others",
        );
    };
    let user = parse_user(user)?;
    let request = UserRequest::DisconnectOne {
        connection: id.to_owned(),
        code: CloseCode::KICKED,
        reason: REASON.to_owned(),
    };
    let asked = services.router.broker().ask_about(&user, &request).await;
    let reports = asked.map_err(|error| ApiError::of(ErrorCode::Unavailable, error.to_string()))?;
    let did = |report: &&NodeReport| matches!(report.answer, UserAnswer::Connections(1..));
    if let Some(report) = reports.iter().find(did) {
        return Ok(report.node.clone());
    }
    let silent = |report: &&NodeReport| report.answer == UserAnswer::Nothing;
    if let Some(report) = reports.iter().find(silent) {
        let message = format!("node {} did not answer in time; try again", report.node);
        return Err(ApiError::of(ErrorCode::Unavailable, message));
    }
    unknown("this user has no such connection on any node")
}
