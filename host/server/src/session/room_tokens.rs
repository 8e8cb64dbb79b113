//! Tokens for one room, and the end of the memberships that they grant.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use signalbox_config::JoinRule;
use signalbox_protocol::{CatchUp, ErrorCode, MemberInfo};
use signalbox_router::{Connection, GrantEnd, RoomGrant};

use super::{
    Services,
    membership::MemberChange,
    not_sent::NotSent,
    rooms::{self, JoinResult},
    token,
};

/// Checks the `token` of a join, if the rule of `room` wants one. Returns the membership that it grants, or `None` if the rule
/// wants none.
///
/// # Errors
/// Returns [`NotSent`] if it is missing or not accepted, or cannot be checked now. The reason contains nothing of the token.
pub(super) async fn check(
    services: &Services,
    connection: &Connection,
    room: &str,
    token: Option<&str>,
) -> Result<Option<RoomGrant>, NotSent> {
    if services.live.load().rooms.rule(room).join != JoinRule::Token {
        return Ok(None);
    }
    let Some(token) = token else {
        return Err(NotSent::refused(
            ErrorCode::InvalidToken,
            "this room needs a token; send it as `payload.token`",
        ));
    };
    let verified = services.authenticator.verify_for_room(token, room).await;
    // The rule may come from a file whose `auth.mode` waits for a restart.
    let Some(verified) = verified else {
        return Err(NotSent::refused(
            ErrorCode::InvalidToken,
            "the server uses no tokens (auth.mode = \"none\")",
        ));
    };
    let verified = verified.map_err(token::refused)?;
    let mark = token::check_owner(services, connection, &verified)?;
    Ok(Some(RoomGrant {
        expires_at: verified.expires_at,
        mark,
        info: MemberInfo::in_claims(&verified.claims_json),
    }))
}

/// Makes the connection a member of `room` as [`rooms::join`] does, until `grant` is over.
///
/// # Errors
/// As for [`rooms::join`].
pub(super) async fn join(
    services: &Services,
    connection: &Arc<Connection>,
    room: &str,
    grant: RoomGrant,
    catch_up: Option<CatchUp>,
) -> Result<JoinResult, NotSent> {
    services.router.grant_room(connection, room, grant);
    let joined = rooms::join(services, connection, room, catch_up).await;
    if joined.is_err() && !connection.is_member(room) {
        connection.drop_grant(room);
    }
    services.router.refresh_member(connection, room);
    joined
}

/// The time until the first membership may be over; `None` if no token granted one. `grace` is how long a membership outlives
/// its token.
pub(super) fn next_end(connection: &Connection, grace: Duration) -> Option<Duration> {
    let end = connection.first_grant_end(grace)?;
    Some(end.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Ends the memberships whose token is over, and returns the rooms. `was_stopped`: the process did not run until now.
pub(super) fn end_memberships(
    services: &Services,
    connection: &Arc<Connection>,
    was_stopped: bool,
) -> Vec<(Arc<str>, MemberChange)> {
    let live = services.live.load();
    let grace = live.token_times.grace;
    let over = connection.take_ended_grants(SystemTime::now(), grace, was_stopped);
    // Elsewhere tokens mean nothing any more.
    let over = over
        .into_iter()
        .filter(|(room, _)| live.rooms.rule(room).join == JoinRule::Token);
    over.filter_map(|(room, end)| {
        let change = rooms::leave_because(services, connection, &room, Some(end.as_str()))?;
        match end {
            GrantEnd::Expired => services.metrics.room_grants_expired.increment(),
            GrantEnd::Revoked => services.metrics.room_grants_revoked.increment(),
        }
        Some((room, change))
    })
    .collect()
}
