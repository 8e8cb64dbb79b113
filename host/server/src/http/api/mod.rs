//! The API for backends: sends messages, looks up and disconnects users, and lists the users in rooms.
//!
//! Every call needs one of the keys that are currently in `api.keys`. Responses and errors are JSON.

mod members;
mod messages;
mod object;
mod users;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use tokio::time::timeout;

use super::{AppState, bearer, error::ApiError, throttle::Throttle};

/// Bytes that a body may have in addition to a payload as large as a frame: field names and punctuation.
const ENVELOPE_BYTES_MAX: usize = 4 << 10;

/// The index of the caller's key in the configuration. The key itself is never shown.
#[derive(Clone, Copy, Debug)]
struct KeyNumber(usize);

/// All routes at and below `/api`, so that nothing there answers without a key.
pub(super) fn routes(state: AppState, throttle: Arc<Throttle>) -> Router<AppState> {
    Router::new()
        .route("/api/messages", post(messages::post))
        .route("/api/rooms/{room}/members", get(members::list))
        .route("/api/users/{user}", get(users::find))
        .route("/api/users/{user}/disconnect", post(users::disconnect))
        .route("/api", any(unknown))
        .route("/api/", any(unknown))
        .route("/api/{*rest}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .route_layer(middleware::from_fn_with_state(
            (state, throttle),
            only_with_a_key,
        ))
}

async fn only_with_a_key(
    State((state, throttle)): State<(AppState, Arc<Throttle>)>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let authorized = {
        let live = state.services.live.load();
        bearer::admit(request.headers(), &live.api.keys, address.ip(), &throttle)
    };
    match authorized {
        Ok(index) => {
            request.extensions_mut().insert(KeyNumber(index + 1));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn unknown() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such call in this API",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this call takes another method",
    )
}

/// Reads the body, within its size limit and the time that an upgrade may take.
async fn read(state: &AppState, body: Body) -> Result<Bytes, ApiError> {
    let (bytes_max, time) = {
        let live = state.services.live.load();
        let limits = &live.limits;
        (
            limits.frame_bytes_max + ENVELOPE_BYTES_MAX,
            limits.upgrade_timeout,
        )
    };
    match timeout(time, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // If the connection broke instead, nobody reads this.
        Ok(Err(_)) => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {bytes_max} bytes (limits.frame_bytes_max)"),
        )),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not come in time",
        )),
    }
}
