//! `/api/rooms/{room}/members`: the users in a room with presence.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::{ErrorCode, MemberInfo};
use signalbox_router::MemberReport;

use super::rooms::parse_room;
use crate::http::{
    AppState,
    error::{ApiError, json},
};

#[derive(Debug, Serialize)]
struct RoomMembers<'m> {
    room: &'m str,
    /// All users, also those that are not listed.
    total: usize,
    members: Vec<ListedMember<'m>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedMember<'m> {
    user_id: &'m str,
    connections: usize,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'m MemberInfo>,
}

impl<'m> From<&'m MemberReport> for ListedMember<'m> {
    fn from(member: &'m MemberReport) -> Self {
        // Other nodes write the time: it may be any number.
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(member.since_ms));
        let since = since.filter(|since| *since < UNIX_EPOCH + TIME_MAX);
        let since = humantime::format_rfc3339_millis(since.unwrap_or(UNIX_EPOCH));
        Self {
            user_id: &member.user,
            connections: member.connections,
            since: since.to_string(),
            info: member.info.as_ref(),
        }
    }
}

/// The time from 1970 to the year 9999, which is the last one that can be written.
const TIME_MAX: Duration = Duration::from_secs(253_370_764_800);

/// `GET /api/rooms/{room}/members`.
pub(super) async fn list(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A name that is not UTF-8 is refused like an empty one.
    let room = path.map_or_else(|_| String::new(), |Path(room)| room);
    let room = parse_room(room)?;
    let services = &state.services;
    let members = services.room_reader.members(&room).await;
    let members = members
        .map_err(|error| ApiError::of(ErrorCode::Unavailable, error.to_string()))?
        .ok_or_else(|| {
            let message = "no rule gives this room presence; set `presence = true` in [[rooms]]";
            ApiError::new(StatusCode::NOT_FOUND, "no_presence", message)
        })?;
    let listed = RoomMembers {
        room: &room,
        total: members.total(),
        members: members.listed().map(ListedMember::from).collect(),
    };
    Ok(json(StatusCode::OK, &listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_listed_with_the_time_of_its_first_join() {
        let mut member = MemberReport {
            user: "ann".into(),
            connections: 2,
            since_ms: 1_700_000_000_123,
            info: None,
        };
        let text = |member: &MemberReport| {
            let listed = ListedMember::from(member);
            serde_json::to_string(&listed).expect("it serializes")
        };
        assert_eq!(
            text(&member),
            r#"{"userId":"ann","connections":2,"since":"2023-11-14T22:13:20.123Z"}"#
        );
        member.info = MemberInfo::parse(r#"{"name":"Ann"}"#);
        for impossible in [u64::MAX, 253_370_764_800_000] {
            member.since_ms = impossible;
            assert!(text(&member).contains(r#""since":"1970-01-01T00:00:00.000Z","info":{"name"#));
        }
    }
}
