//! `/api/rooms/{room}`: the members of a room, and its history.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use signalbox_protocol::{HistoryRequest, Position, RoomName};
use signalbox_router::RoomCount;

use super::unavailable;
use crate::{
    http::{
        AppState,
        error::{ApiError, json, json_text},
        query::StrictQuery,
    },
    session::backend,
};

type RoomPath = Result<Path<String>, PathRejection>;

#[derive(Debug, PartialEq, Serialize)]
struct FoundRoom {
    /// The members on the nodes that reported their number.
    connections: usize,
    /// The nodes with members.
    nodes: Vec<String>,
    /// The nodes that did not report how many members they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Position>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParameters {
    before: Option<u64>,
    limit: Option<u64>,
}

/// `GET /api/rooms/{room}`.
pub(super) async fn find(
    State(state): State<AppState>,
    path: RoomPath,
) -> Result<Response, ApiError> {
    let room = parse_path(path)?;
    let services = &state.services;
    let counted = services.room_reader.count(&room).await;
    let history = backend::history_position(services, &room).await?;
    let found = FoundRoom {
        history,
        ..found(counted, services.ids.node())?
    };
    Ok(json(StatusCode::OK, &found))
}

/// `GET /api/rooms/{room}/history`.
pub(super) async fn history(
    State(state): State<AppState>,
    path: RoomPath,
    StrictQuery(HistoryParameters { before, limit }): StrictQuery<HistoryParameters>,
) -> Result<Response, ApiError> {
    let room = parse_path(path)?;
    let request = HistoryRequest::new(before, limit)
        .map_err(|reason| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", reason))?;
    let excerpt = backend::read_history(&state.services, &room, request).await?;
    Ok(json_text(StatusCode::OK, excerpt.encode()))
}

fn parse_path(path: RoomPath) -> Result<RoomName<'static>, ApiError> {
    let room = path.ok().map(|Path(room)| room);
    parse_room(room.unwrap_or_default())
}

/// Parses the name of a room from a path.
///
/// # Errors
/// Returns 400 if it is no name of a room.
pub(super) fn parse_room(name: String) -> Result<RoomName<'static>, ApiError> {
    RoomName::parse(name).ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_room",
            "a room's name is 1 to 255 bytes of UTF-8, percent-encoded in a path",
        )
    })
}

fn found(counted: RoomCount, own_node: &str) -> Result<FoundRoom, ApiError> {
    let mut connections = counted.here;
    let mut nodes = Vec::new();
    let mut unanswered = Vec::new();
    if counted.here > 0 {
        nodes.push(own_node.to_owned());
    }
    for report in counted.elsewhere.map_err(unavailable)? {
        match report.members {
            Some(members) => connections += members,
            None => unanswered.push(report.node.clone()),
        }
        nodes.push(report.node);
    }
    Ok(FoundRoom {
        connections,
        nodes,
        unanswered,
        history: None,
    })
}

#[cfg(test)]
mod tests {
    use signalbox_router::RoomReport;

    use super::*;

    fn report(node: &str, members: Option<usize>) -> RoomReport {
        let node = node.to_owned();
        RoomReport { node, members }
    }

    #[test]
    fn the_members_of_all_nodes_are_added_up_and_silent_nodes_are_named() {
        let counted = RoomCount {
            here: 2,
            elsewhere: Ok(vec![report("n1", Some(3)), report("n2", None)]),
        };
        let expected = FoundRoom {
            connections: 5,
            nodes: ["own", "n1", "n2"].map(str::to_owned).to_vec(),
            unanswered: vec!["n2".to_owned()],
            history: None,
        };
        assert_eq!(found(counted, "own").unwrap(), expected);
        let nobody = RoomCount {
            here: 0,
            elsewhere: Ok(Vec::new()),
        };
        assert_eq!(found(nobody, "own").unwrap().nodes, Vec::<String>::new());
    }
}
