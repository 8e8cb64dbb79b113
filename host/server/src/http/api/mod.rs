//! The API for backends: sends messages, looks up and disconnects users, reads and changes rooms, and revokes tokens.
//!
//! Every call needs one of the keys that are currently in `api.keys`. Responses and errors are JSON; [`openapi`] describes all
//! of them.

mod batch;
mod members;
mod message;
mod messages;
mod object;
mod once;
mod online;
mod openapi;
mod outcome;
mod presence;
mod rooms;
mod tokens;
mod users;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, delete, get, post, put},
};
use signalbox_broker::BrokerError;
use signalbox_protocol::ErrorCode;
use tokio::time::timeout;

use self::{
    object::BodyError,
    once::{IDEMPOTENCY_KEY, OnceCaller},
};
use super::{AppState, bearer, error::ApiError, throttle::Throttle};

/// Bytes that a body may have in addition to a payload as large as a frame: field names and punctuation.
const ENVELOPE_BYTES_MAX: usize = 4 << 10;

/// Bytes that a list of names may have.
const LIST_BYTES_MAX: usize = 512 << 10;

/// A batch may be so many times as large as a message, and at most so many bytes if those suffice for a message.
const BATCH_FACTOR: usize = 16;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// The content of a body, which determines its limit.
#[derive(Clone, Copy, Debug)]
enum BodyLimit {
    /// A message with one receiver, or a few fields.
    Plain,
    /// A message with a list of receivers.
    WithList,
    /// Messages.
    Batch,
    /// A list of names.
    Names,
}

impl BodyLimit {
    /// The most bytes.
    fn bytes(self, frame_bytes_max: usize) -> usize {
        let message = frame_bytes_max + ENVELOPE_BYTES_MAX;
        match self {
            Self::Plain => message,
            Self::WithList => message + LIST_BYTES_MAX,
            Self::Batch => {
                let batch = (message * BATCH_FACTOR).min(BATCH_BYTES_MAX);
                batch.max(message) + LIST_BYTES_MAX
            }
            Self::Names => LIST_BYTES_MAX,
        }
    }
}

/// A call: its method, its path, and its handler.
type Call = (Method, &'static str, MethodRouter<AppState>);

/// The index of the caller's key in the configuration. The key itself is never shown.
#[derive(Clone, Copy, Debug)]
struct KeyNumber(usize);

/// All calls. The router is built from this list, and a test compares the OpenAPI description with it.
fn calls() -> Vec<Call> {
    vec![
        (Method::POST, "/api/messages", post(messages::post)),
        (Method::POST, "/api/batch", post(batch::post)),
        (Method::GET, "/api/users/{user}", get(users::find)),
        (
            Method::POST,
            "/api/users/{user}/disconnect",
            post(users::disconnect),
        ),
        (Method::POST, "/api/users/online", post(online::find)),
        (Method::GET, "/api/rooms/{room}", get(rooms::find)),
        (
            Method::GET,
            "/api/rooms/{room}/history",
            get(rooms::history),
        ),
        (
            Method::GET,
            "/api/rooms/{room}/members",
            get(presence::list),
        ),
        (
            Method::PUT,
            "/api/rooms/{room}/members/{user}",
            put(members::add),
        ),
        (
            Method::DELETE,
            "/api/rooms/{room}/members/{user}",
            delete(members::remove),
        ),
        (Method::POST, "/api/tokens/revoke", post(tokens::revoke)),
        (Method::GET, "/api/openapi.json", get(openapi::describe)),
    ]
}

/// All routes at and below `/api`, so that nothing there answers without a key.
pub(super) fn routes(state: AppState, throttle: Arc<Throttle>) -> Router<AppState> {
    let router = calls()
        .into_iter()
        .fold(Router::new(), |router, (_, path, call)| {
            router.route(path, call)
        });
    router
        .route("/api/users/online", get(users::find_one_called_online))
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
        let keys = &live.api.keys;
        let has_name = request.headers().contains_key(IDEMPOTENCY_KEY);
        bearer::admit(request.headers(), keys, address.ip(), &throttle)
            .map(|index| (index, has_name.then(|| OnceCaller::new(&keys[index]))))
    };
    match authorized {
        Ok((index, caller)) => {
            request.extensions_mut().insert(KeyNumber(index + 1));
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn unknown() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "this API has no such call; /api/openapi.json lists all calls",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this call uses another method",
    )
}

/// Reads the body, within its limit and the time that an upgrade may take.
async fn read(state: &AppState, body: Body, limit: BodyLimit) -> Result<Bytes, ApiError> {
    let (bytes_max, time) = {
        let live = state.services.live.load();
        let limits = &live.limits;
        (limit.bytes(limits.frame_bytes_max), limits.upgrade_timeout)
    };
    match timeout(time, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // If the connection broke instead, nobody reads this.
        Ok(Err(_)) => Err(too_large(limit, bytes_max)),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not arrive in time",
        )),
    }
}

fn too_large(limit: BodyLimit, bytes_max: usize) -> ApiError {
    let what = match limit {
        BodyLimit::Names => format!("the body is larger than {bytes_max} bytes; name fewer users"),
        BodyLimit::Batch => format!(
            "the body is larger than {bytes_max} bytes (limits.frame_bytes_max); send fewer messages"
        ),
        BodyLimit::WithList | BodyLimit::Plain => {
            format!("the body is larger than {bytes_max} bytes (limits.frame_bytes_max)")
        }
    };
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", what)
}

/// The error for a body that is no message, and malformed.
fn invalid_body((_, message): BodyError) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", message)
}

fn unavailable(error: BrokerError) -> ApiError {
    ApiError::of(ErrorCode::Unavailable, error.to_string())
}
