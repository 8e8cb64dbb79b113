//! Rooms: the rules for joining, and the messages that a new member missed.

use std::sync::Arc;

use serde::Deserialize;
use signalbox_broker::{HistoryName, Retention};
use signalbox_config::JoinRule;
use signalbox_pipeline as pipeline;
use signalbox_protocol::{
    CatchUp, ClientInfo, ErrorCode, HistoryExcerpt, HistoryRequest, Position, RoomName,
    RoomPosition, outbound,
};
use signalbox_router::{
    Connection, HistoryJoin, JoinedHistory, PlaceRefused, RoomAction, RoomChangeResult,
};
use tracing::debug;

use super::{
    Services,
    actions::Actor,
    membership::{self, MemberChange},
    not_sent::NotSent,
};

/// A room that a connection has joined.
pub(super) struct JoinResult {
    /// `None` if it was a member before.
    pub(super) change: Option<MemberChange>,
    /// `Some` if the room has a history: the caller must then call [`JoinedRoom::go_live`].
    pub(super) history: Option<JoinedRoom>,
}

/// A room with a history that a connection has joined. Its messages wait until [`JoinedRoom::go_live`].
pub(super) struct JoinedRoom {
    room: Arc<str>,
    pub(super) history: JoinedHistory,
}

impl JoinedRoom {
    /// Sends the member the messages that it missed, and then live ones.
    pub(super) async fn go_live(self, services: &Services, connection: &Arc<Connection>) {
        let Self { room, history } = self;
        let name = HistoryName::Room(&room);
        services.router.go_live(connection, name, history).await;
    }
}

/// The claims of a token about rooms.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RoomClaims {
    /// Rooms that the client may join: names, or prefixes that end in `*`.
    rooms: Vec<String>,
    /// Rooms that it joins when it connects.
    join: Vec<String>,
}

impl RoomClaims {
    /// Claims of another form grant nothing.
    fn of(client: &ClientInfo) -> Self {
        serde_json::from_str(&client.claims).unwrap_or_else(|error| {
            debug!(%error, "the claims `rooms` and `join` are not lists of strings");
            Self::default()
        })
    }

    fn allow(&self, room: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => pattern == room,
        };
        self.rooms.iter().any(matches) || self.join.iter().any(|name| name == room)
    }
}

/// Whether the rules let the client join `room`. Plugins decide afterwards.
pub(super) fn may_join(services: &Services, client: &ClientInfo, room: &str) -> bool {
    let rule = services.live.load().rooms.rule(room).join;
    match rule {
        JoinRule::Open => true,
        JoinRule::Claim => RoomClaims::of(client).allow(room),
        // `room_tokens` has verified the token.
        JoinRule::Token => true,
        JoinRule::Backend => false,
    }
}

/// How much of the history of `room` is kept; `None` if it has none.
pub(super) fn retention(services: &Services, room: &str) -> Option<Retention> {
    services.live.load().retention(room)
}

/// Makes the connection a member of `room`.
///
/// # Errors
/// Returns [`NotSent`] if a limit on its rooms or on the users of the room is reached, or if the history cannot be read.
pub(super) async fn join(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    catch_up: Option<CatchUp>,
) -> Result<JoinResult, NotSent> {
    if !connection.is_member(room) && !may_join_another(services, connection, room) {
        return Err(NotSent::refused(
            ErrorCode::TooManyRooms,
            "leave a room before you join another",
        ));
    }
    let place = services.router.reserve_place(connection, room).await;
    place.map_err(no_place)?;
    let counted = membership::is_followed(services);
    let Some(retention) = retention(services, room) else {
        let change = join_without_history(services, connection, room, counted).await;
        if change.is_some() {
            tell_joined(services, connection, room, None);
        }
        let history = None;
        return Ok(JoinResult { change, history });
    };
    let join = HistoryJoin {
        retention,
        catch_up,
        limits: services.live.load().replay_limits(),
        counted,
    };
    let joined = services.router.join_with_history(connection, room, join);
    let Some(history) = joined.await.map_err(|error| unreadable(&error))? else {
        let (change, history) = (None, None);
        return Ok(JoinResult { change, history });
    };
    if history.is_new {
        tell_joined(services, connection, room, Some(&history.at));
    }
    let joined = || MemberChange::joined(counted.then_some(history.connections));
    let change = history.is_new.then(joined);
    let room = room.into();
    Ok(JoinResult {
        change,
        history: Some(JoinedRoom { room, history }),
    })
}

async fn join_without_history(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    counted: bool,
) -> Option<MemberChange> {
    let router = &services.router;
    if counted {
        let connections = router.join_counted(connection, room).await?;
        return Some(MemberChange::joined(Some(connections)));
    }
    let joined = router.join(connection, room).await;
    joined.then(|| MemberChange::joined(None))
}

/// Makes the connection a member of `room` because a plugin or a backend says so. The membership then ends with no token.
/// Returns `None` if it was a member before, or is none now.
pub(super) async fn add(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
) -> Option<MemberChange> {
    connection.drop_grant(room);
    let joined = join_live(services, connection, room).await;
    joined.unwrap_or_else(|error| {
        debug!(?error, room, "a connection did not join a room");
        None
    })
}

/// Makes the connection a member of `room` that gets live messages only. Returns `None` if it was a member before.
///
/// # Errors
/// As for [`join`].
async fn join_live(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
) -> Result<Option<MemberChange>, NotSent> {
    let joined = join(services, connection, room, None).await?;
    if let Some(history) = joined.history {
        history.go_live(services, connection).await;
    }
    Ok(joined.change)
}

/// Joins the rooms that the token names, unless a plugin refuses.
pub(super) async fn join_claimed(
    actor: &Actor<'_>,
    connection: &Arc<Connection>,
    client: &Arc<ClientInfo>,
) {
    let services = actor.services;
    if client.claims == "{}" {
        return;
    }
    for room in RoomClaims::of(client).join {
        if RoomName::parse(room.as_str()).is_none() {
            debug!(room, "the claim `join` names a room that cannot exist");
            continue;
        }
        let plugins = services.manager.enter().await;
        let verdict = pipeline::authorize_join(&plugins, client, &room).await;
        drop(plugins);
        let joined = match verdict {
            Ok(()) => join_live(services, connection, &room).await,
            Err(denied) => Err(denied.into()),
        };
        match joined {
            Ok(Some(joined)) => actor.report(joined, &room).await,
            Ok(None) => {}
            Err(error) => tell_refused(services, connection, &error),
        }
    }
}

/// Ends the membership of the connection in `room`. Returns `None` if it was not a member.
pub(super) fn leave(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
) -> Option<MemberChange> {
    leave_because(services, connection, room, None)
}

/// Ends the membership of the connection in `room`, for a reason that the client learns. Returns `None` if it was not a
/// member.
pub(super) fn leave_because(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    reason: Option<&str>,
) -> Option<MemberChange> {
    let router = &services.router;
    let left = if membership::is_followed(services) {
        MemberChange::left(Some(router.leave_counted(connection, room)?))
    } else {
        let left = router.leave(connection, room);
        left.then(|| MemberChange::left(None))?
    };
    if connection.v1() {
        let frame = outbound::left(room, reason);
        router.table().push(connection, frame);
    }
    Some(left)
}

/// Carries out the changes of the connection's rooms that backends want. Neither rules nor plugins decide about them.
pub(super) async fn carry_out_changes(actor: &Actor<'_>, connection: &Arc<Connection>) {
    let services = actor.services;
    for change in connection.take_room_changes() {
        let room: Arc<str> = change.room().into();
        let (changed, result) = match change.action() {
            RoomAction::Join => {
                let joined = add(services, connection, &room).await;
                let result = if connection.is_member(&room) {
                    RoomChangeResult::Done
                } else {
                    RoomChangeResult::Failed
                };
                (joined, result)
            }
            RoomAction::Leave => {
                let left = leave(services, connection, &room);
                let result = if left.is_some() {
                    RoomChangeResult::Done
                } else {
                    RoomChangeResult::Unneeded
                };
                (left, result)
            }
        };
        change.finish(result);
        if let Some(changed) = changed {
            actor.report(changed, &room).await;
        }
    }
}

/// The position of the history of `room`; `None` if the room has none.
///
/// # Errors
/// Returns [`NotSent`] if it cannot be read.
pub(super) async fn position(services: &Services, room: &str) -> Result<Option<Position>, NotSent> {
    let Some(retention) = retention(services, room) else {
        return Ok(None);
    };
    let position = services.router.history_position(room, retention).await;
    position.map(Some).map_err(|error| unreadable(&error))
}

/// Reads messages of the history of `room` for a member.
///
/// # Errors
/// Returns [`NotSent`] if the room has no history, or if it cannot be read.
pub(super) async fn read_back(
    services: &Services,
    room: &str,
    request: HistoryRequest,
) -> Result<HistoryExcerpt, NotSent> {
    let retention = retention(services, room).ok_or_else(no_history)?;
    let limits = services.live.load().replay_limits();
    let read = services
        .router
        .read_history(room, request, retention, limits);
    read.await.map_err(|error| unreadable(&error))
}

/// Reads messages of the history of `room` for a reader that is no member. No history is created.
///
/// # Errors
/// As for [`read_back`].
pub(super) async fn find_history(
    services: &Services,
    room: &str,
    request: HistoryRequest,
) -> Result<HistoryExcerpt, NotSent> {
    let excerpt = services.room_reader.history(room, request).await;
    let excerpt = excerpt.map_err(|error| unreadable(&error))?;
    excerpt.ok_or_else(no_history)
}

fn no_history() -> NotSent {
    NotSent::refused(ErrorCode::InvalidRoom, "this room has no history")
}

fn no_place(refused: PlaceRefused) -> NotSent {
    match refused {
        PlaceRefused::Full(_) => NotSent::refused(
            ErrorCode::RoomFull,
            "the room has as many users as its rules allow; try again later",
        ),
        PlaceRefused::Unknown(error) => {
            debug!(%error, "the users of a room were not counted");
            NotSent::refused(
                ErrorCode::Unavailable,
                "the users of the room cannot be counted now; try again",
            )
        }
    }
}

fn unreadable(error: &dyn std::error::Error) -> NotSent {
    debug!(%error, "a history was not read");
    NotSent::refused(
        ErrorCode::Unavailable,
        "the history of the room cannot be read now; try again",
    )
}

/// Whether the limits allow the connection to join another room with this name.
fn may_join_another(services: &Services, connection: &Connection, room: &str) -> bool {
    let live = services.live.load();
    connection.room_count() < live.limits.rooms_per_connection_max
        && connection.room_name_bytes() + room.len() <= live.limits.room_name_bytes_max
}

fn tell_joined(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    at: Option<&RoomPosition>,
) {
    if connection.v1() {
        let table = services.router.table();
        table.push(connection, outbound::joined(room, at));
    }
}

/// Tells a client that it did not join a room that its token names.
fn tell_refused(services: &Services, connection: &Arc<Connection>, error: &NotSent) {
    debug!(?error, "a client did not join a room that its token names");
    if !connection.v1() {
        return;
    }
    let table = services.router.table();
    table.push(connection, error.encode(None));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> RoomClaims {
        RoomClaims::of(&ClientInfo {
            connection: "c".to_owned(),
            user: "ann".to_owned(),
            claims: text.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            connected_at_ms: 0,
        })
    }

    #[test]
    fn a_token_allows_names_and_prefixes() {
        let claims = claims(r#"{"sub":"ann","rooms":["lobby","chat:*"],"join":["news"]}"#);
        for allowed in ["lobby", "chat:", "chat:7", "news"] {
            assert!(claims.allow(allowed), "{allowed}");
        }
        for other in ["lobby2", "chat", "new", "", "*"] {
            assert!(!claims.allow(other), "{other}");
        }
    }

    #[test]
    fn claims_of_another_form_allow_nothing() {
        for text in [
            "{}",
            r#"{"rooms":"*"}"#,
            r#"{"rooms":[1,"*"]}"#,
            r#"{"rooms":["*"],"join":"lobby"}"#,
        ] {
            assert!(!claims(text).allow("lobby"), "{text}");
        }
    }
}
