//! `/api/rooms/{room}/members/{user}`: makes the connections of a user join and leave a room.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::{RoomName, UserId};
use signalbox_router::UserRequest;

use super::{outcome::Confirmed, rooms::parse_room};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

type MemberPath = Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize)]
struct ChangedMembers {
    /// The connections that are members now, or that left.
    connections: usize,
    /// The connections that could not join.
    #[serde(skip_serializing_if = "is_zero")]
    failed: usize,
    /// Servers of `websocket-app` that hold connections of the user. They have no rooms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
}

/// `PUT /api/rooms/{room}/members/{user}`.
pub(super) async fn add(
    State(state): State<AppState>,
    path: MemberPath,
) -> Result<Response, ApiError> {
    let (room, user) = parse_path(path)?;
    let room = room.into_cow().into_owned();
    change(&state, &user, UserRequest::Join { room }, "joined").await
}

/// `DELETE /api/rooms/{room}/members/{user}`.
pub(super) async fn remove(
    State(state): State<AppState>,
    path: MemberPath,
) -> Result<Response, ApiError> {
    let (room, user) = parse_path(path)?;
    let room = room.into_cow().into_owned();
    change(&state, &user, UserRequest::Leave { room }, "left").await
}

async fn change(
    state: &AppState,
    user: &str,
    request: UserRequest,
    done: &str,
) -> Result<Response, ApiError> {
    let asked = state.services.router.ask_about(user, &request).await;
    let Confirmed {
        connections,
        failed,
        unanswered,
    } = Confirmed::of(asked, done)?;
    let changed = ChangedMembers {
        connections,
        failed,
        unanswered,
    };
    Ok(json(StatusCode::OK, &changed))
}

fn parse_path(path: MemberPath) -> Result<(RoomName<'static>, UserId<'static>), ApiError> {
    // Names that are not UTF-8 are refused like empty ones.
    let (room, user) = path.map_or_else(|_| Default::default(), |Path(names)| names);
    let room = parse_room(room)?;
    let user = UserId::parse(user).ok_or_else(ApiError::invalid_user)?;
    Ok((room, user))
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
