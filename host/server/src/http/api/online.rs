//! `POST /api/users/online`: which of many users are connected.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use signalbox_protocol::UserId;

use super::{
    BodyLimit, invalid_body,
    object::{self, BodyError, Object},
    read, unavailable,
};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

/// The most users of one call.
const USERS_MAX: usize = 1_000;

#[derive(Serialize)]
struct OnlineUsers<'a> {
    /// In the order of the request, each once.
    online: Vec<&'a str>,
}

pub(super) async fn find(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read(&state, body, BodyLimit::Names).await?;
    object::check_content(&headers)?;
    let users = users(&body).map_err(invalid_body)?;
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    if users.iter().any(|user| UserId::parse(*user).is_none()) {
        return Err(ApiError::invalid_user());
    }
    let online = state.services.router.are_online(&users).await;
    let online = users
        .into_iter()
        .zip(online.map_err(unavailable)?)
        .filter(|(_, online)| *online);
    let online = online.map(|(user, _)| user).collect();
    Ok(json(StatusCode::OK, &OnlineUsers { online }))
}

fn users(body: &[u8]) -> Result<Vec<String>, BodyError> {
    let mut object = Object::parse(body)?;
    let users = object.names("users", USERS_MAX)?;
    object.finish("`users`")?;
    users
        .map(|users| users.names)
        .ok_or_else(|| object::missing("users"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_are_a_list_and_each_is_asked_about_once() {
        let body = br#"{"users":["b","a","b"]}"#;
        assert_eq!(users(body).unwrap(), ["b", "a"]);
        for body in [
            "",
            "[]",
            "{}",
            r#"{"users":null}"#,
            r#"{"users":[]}"#,
            r#"{"users":"a"}"#,
            r#"{"users":[1]}"#,
            r#"{"users":["a"],"more":1}"#,
        ] {
            assert!(users(body.as_bytes()).is_err(), "{body}");
        }
    }
}
