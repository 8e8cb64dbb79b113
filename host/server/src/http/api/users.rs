//! `/api/users/{user}`: looks up the connections of a user, and closes them.

use std::time::Duration;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::{CloseCode, UserId};
use signalbox_router::{UserOutcome, UserRequest};
use tracing::info;

use super::{
    BodyLimit, KeyNumber,
    object::{self, BodyError, Object},
    outcome::{AnswerSum, Confirmed},
    read, tokens, unavailable,
};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

/// The longest reason in bytes: the space in a close frame next to its code (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;

type UserPath = Result<Path<String>, PathRejection>;

#[derive(Debug, PartialEq, Serialize)]
struct Found {
    online: bool,
    /// The nodes that hold connections of the user.
    nodes: Vec<String>,
    /// Connections on the nodes that reported their number.
    connections: usize,
    /// The nodes that did not report how many connections they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
}

#[derive(Serialize)]
struct Disconnected {
    connections: usize,
    /// The end of the block, in seconds since 1970.
    #[serde(rename = "blockedUntil", skip_serializing_if = "Option::is_none")]
    blocked_until: Option<u64>,
    /// Servers of `websocket-app` that hold connections of the user and cannot be asked to close them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
}

#[derive(Debug, Default)]
struct Disconnect {
    code: Option<u64>,
    reason: Option<String>,
    block: Option<String>,
}

impl Disconnect {
    fn read(body: &[u8]) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let mut object = Object::parse(body)?;
        let wanted = Self {
            code: object.number("code")?,
            reason: object.text(&["reason"])?,
            block: object.text(&["block"])?,
        };
        object.finish("`code`, `reason` and `block`")?;
        Ok(wanted)
    }
}

/// `GET /api/users/{user}`.
pub(super) async fn find(
    State(state): State<AppState>,
    path: UserPath,
) -> Result<Response, ApiError> {
    find_user(&state, &parse_user(path)?).await
}

/// `GET /api/users/online`: the user with this ID, because `POST` of the same path is another call.
pub(super) async fn find_one_called_online(
    State(state): State<AppState>,
) -> Result<Response, ApiError> {
    find_user(&state, "online").await
}

async fn find_user(state: &AppState, user: &str) -> Result<Response, ApiError> {
    let services = &state.services;
    let asked = services.router.ask_about(user, &UserRequest::Count).await;
    let found = found(asked, services.ids.node())?;
    Ok(json(StatusCode::OK, &found))
}

/// `POST /api/users/{user}/disconnect`.
pub(super) async fn disconnect(
    State(state): State<AppState>,
    Extension(KeyNumber(key)): Extension<KeyNumber>,
    path: UserPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let user = parse_user(path)?;
    let body = read(&state, body, BodyLimit::Plain).await?;
    object::check_content(&headers)?;
    let (request, block) = request(&body)?;
    let asked = state.services.router.ask_about(&user, &request).await;
    // After the request, which has the code and the reason for the connections that are open. The block closes those that
    // are opened meanwhile.
    let blocked = match block {
        Some(time) => tokens::block(&state, &user, time).await.map(Some),
        None => Ok(None),
    };
    let disconnected = Confirmed::of(asked, "were closed").and_then(|done| {
        Ok(Disconnected {
            connections: done.connections,
            blocked_until: blocked?,
            unanswered: done.unanswered,
        })
    });
    if let UserRequest::Disconnect { code, .. } = &request {
        let code = code.number();
        match &disconnected {
            Ok(done) => info!(
                user = &*user,
                code,
                key,
                connections = done.connections,
                blocked_until = done.blocked_until,
                "a user is disconnected by the API"
            ),
            Err(_) => info!(
                user = &*user,
                code, key, "a user is disconnected by the API, and not all nodes say so"
            ),
        }
    }
    Ok(json(StatusCode::OK, &disconnected?))
}

fn parse_user(path: UserPath) -> Result<UserId<'static>, ApiError> {
    let user = path.ok().and_then(|Path(user)| UserId::parse(user));
    user.ok_or_else(ApiError::invalid_user)
}

/// Reads the body: the request to each node, and the time of the block.
fn request(body: &[u8]) -> Result<(UserRequest, Option<Duration>), ApiError> {
    let wrong =
        |code: &str, message: String| Err(ApiError::new(StatusCode::BAD_REQUEST, code, message));
    let wanted = match Disconnect::read(body) {
        Ok(wanted) => wanted,
        Err((_, message)) => return wrong("invalid_body", message),
    };
    let code = match wanted.code {
        None => Some(CloseCode::KICKED),
        Some(code) => u16::try_from(code).ok().and_then(CloseCode::from_plugin),
    };
    let Some(code) = code else {
        return wrong(
            "invalid_code",
            "`code` must be from 4000 to 4999".to_owned(),
        );
    };
    let reason = wanted.reason.unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        return wrong(
            "invalid_reason",
            format!("`reason` is longer than {REASON_BYTES_MAX} bytes"),
        );
    }
    let block = wanted
        .block
        .as_deref()
        .map(tokens::block_time)
        .transpose()?;
    Ok((UserRequest::Disconnect { code, reason }, block))
}

fn found(asked: UserOutcome, own_node: &str) -> Result<Found, ApiError> {
    let reports = asked.elsewhere.map_err(unavailable)?;
    let AnswerSum {
        connections,
        unanswered,
        ..
    } = AnswerSum::of(&asked.here, &reports);
    let own = (!asked.here.is_nobody()).then(|| own_node.to_owned());
    let nodes: Vec<String> = own
        .into_iter()
        .chain(reports.into_iter().map(|report| report.node))
        .collect();
    Ok(Found {
        online: !nodes.is_empty(),
        nodes,
        connections,
        unanswered,
    })
}

#[cfg(test)]
mod tests {
    use signalbox_router::UserAnswer;

    use super::*;
    use crate::http::api::outcome::user_outcome;

    #[test]
    fn a_disconnection_has_a_code_from_4000_to_4999_and_4501_by_default() {
        let code = |body: &str| match request(body.as_bytes()) {
            Ok((UserRequest::Disconnect { code, .. }, None)) => Some(code.number()),
            _ => None,
        };
        assert_eq!(code(""), Some(4501));
        assert_eq!(code("{}"), Some(4501));
        assert_eq!(code(r#"{"code":4000,"reason":"x"}"#), Some(4000));
        let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(124));
        for wrong in [
            r#"{"code":1000}"#,
            r#"{"code":3999}"#,
            r#"{"code":5000}"#,
            r#"{"code":-1}"#,
            r#"{"kode":4000}"#,
            r#"{"block":"2days"}"#,
            r#"{"block":600}"#,
            "[",
            &long,
        ] {
            assert_eq!(code(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_user_is_online_on_the_nodes_that_report_it() {
        let all = found(user_outcome(1, &[UserAnswer::Connections(2)]), "own").unwrap();
        assert_eq!((all.online, all.connections), (true, 3));
        assert_eq!(all.nodes, ["own", "n0"]);
        let none = found(user_outcome(0, &[]), "own").unwrap();
        assert_eq!(
            (none.online, none.connections, none.nodes),
            (false, 0, vec![])
        );
        let silent = found(user_outcome(0, &[UserAnswer::Nothing]), "own").unwrap();
        assert_eq!(
            (silent.online, silent.unanswered),
            (true, vec!["n0".to_owned()])
        );
    }
}
