//! Server-sent events: the stream of a connection, and the frames that its client posts.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use signalbox_router::{PostOutcome, PostReceiver, PostedFrame, SendKey};
use signalbox_telemetry::metrics::{PostResult, events::UpgradeRefused};
use tokio::{sync::oneshot, time::timeout};

use super::{
    AppState,
    admission::{self, NewConnection, RequestedTransport},
    bearer,
    front::{FrontStream, StreamClaim},
    json_error,
};
use crate::session::{EventStreamSocket, Services, UnfinishedShare};

/// The path of the stream.
pub(super) const PATH: &str = "/sse";

/// The path for frames.
pub(super) const POST_PATH: &str = "/sse/{connection}";

/// The headers of a stream. The last two keep proxies from collecting it.
const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// The answer to a browser that asks which requests pages of another origin may send; valid for two hours.
const PREFLIGHT_HEADERS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, last-event-id",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
];

/// `GET /sse`.
pub(super) async fn stream(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let origin = readable_by(&state.services, &request);
    let response = if !state.services.live.load().server.sse {
        disabled()
    } else {
        match *request.method() {
            Method::GET => open(&state, address, request).await,
            Method::OPTIONS => preflight(&state.services, address, &request),
            _ => wrong_method("GET, OPTIONS", "a stream of events is opened with GET"),
        }
    };
    with_origin(response, origin)
}

/// `POST /sse/<connectionId>`.
pub(super) async fn post(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(connection): Path<String>,
    request: Request,
) -> Response {
    let origin = readable_by(&state.services, &request);
    let response = if !state.services.live.load().server.sse {
        disabled()
    } else {
        match *request.method() {
            Method::POST => {
                let result = receive(&state, address, &connection, request).await;
                state.services.metrics.posts.of(result).increment();
                answer(result)
            }
            Method::OPTIONS => preflight(&state.services, address, &request),
            _ => wrong_method("POST, OPTIONS", "a frame is sent with POST"),
        }
    };
    with_origin(response, origin)
}

async fn open(state: &AppState, address: SocketAddr, mut request: Request) -> Response {
    let (services, transport) = (&state.services, RequestedTransport::EventStream);
    let admitted = match admission::admit(state, &mut request, address, transport).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            let (metrics, refusal) = (&services.metrics, refused.refusal);
            UpgradeRefused { metrics, refusal }.emit();
            return *refused.response;
        }
    };
    let (Some(claim), Some(key)) = (request.extensions().get::<StreamClaim>(), random_key()) else {
        let message = "the server failed; connect again";
        return json_error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message);
    };
    let query = request.uri().query();
    let connection = NewConnection::new(services, admitted, address, query, transport);
    let posts = services.router.table().posts().open(
        &connection.connection.client().connection,
        key,
        services.live.load().limits.frame_bytes_max,
    );
    // A separate task, so that the connection's permits are freed even if the client does not wait for the response.
    tokio::spawn(begin(claim.claim(), services.clone(), connection, posts));
    let headers = STREAM_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (HeaderMap::from_iter(headers), Body::empty()).into_response()
}

/// Waits until the head of the response is sent and the stream is ours, then serves the connection.
async fn begin(
    stream: oneshot::Receiver<FrontStream>,
    services: Arc<Services>,
    connection: NewConnection,
    posts: PostReceiver,
) {
    let Ok(stream) = stream.await else {
        return;
    };
    let silence_max = services.live.load().server.idle_timeout;
    let metrics = services.metrics.clone();
    let socket = EventStreamSocket::new(stream.into_tcp(), posts, silence_max, metrics);
    connection.serve(socket, services).await;
}

fn random_key() -> Option<SendKey> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(SendKey::new(bytes))
}

/// Gives the frame in the body of `request` to `connection`. What can be checked without the body is checked first.
async fn receive(
    state: &AppState,
    address: SocketAddr,
    connection: &str,
    request: Request,
) -> PostResult {
    let services = &state.services;
    if admission::check_origin(services, &request, address).is_err() {
        return PostResult::Origin;
    }
    let wrong_key = || {
        let counted = state.post_throttle.wrong_key(address.ip(), Instant::now());
        counted.map_or(PostResult::RateLimited, |()| PostResult::Unauthorized)
    };
    let key = bearer::bearer(request.headers()).and_then(|key| std::str::from_utf8(key).ok());
    let Some(key) = key.and_then(SendKey::parse) else {
        return wrong_key();
    };
    match services.router.table().posts().check(connection, key) {
        Some(true) => {}
        Some(false) => return wrong_key(),
        None if services.ids.made(connection) => return PostResult::UnknownConnection,
        // It may be a connection of another node.
        None => {}
    }
    let time_max = services.live.load().limits.message_time_max;
    let text = match timeout(time_max, read(services, request.into_body())).await {
        Ok(Ok(text)) => text,
        Ok(Err(result)) => return result,
        Err(_) => return PostResult::SlowMessage,
    };
    let Ok(text) = std::str::from_utf8(&text) else {
        return PostResult::NotUtf8;
    };
    let post = PostedFrame {
        connection,
        key,
        text,
    };
    match services.router.post(post).await {
        PostOutcome::Taken => PostResult::Taken,
        PostOutcome::WrongKey => wrong_key(),
        PostOutcome::Unknown => PostResult::UnknownConnection,
        PostOutcome::Full => PostResult::InboxFull,
        PostOutcome::TooBig => PostResult::TooBig,
        PostOutcome::NoAnswer => PostResult::NoAnswer,
    }
}

/// Reads a body of one frame. Its memory counts as that of an unfinished message.
async fn read(services: &Services, body: Body) -> Result<Vec<u8>, PostResult> {
    let live = services.live.load();
    let limits = &live.limits;
    let announced = body.size_hint().lower();
    if announced > limits.frame_bytes_max as u64 {
        return Err(PostResult::TooBig);
    }
    let mut share = UnfinishedShare::new(services.unfinished.clone());
    let mut text = Vec::new();
    let mut data = body.into_data_stream();
    while let Some(data) = data.next().await {
        let data = data.map_err(|_| PostResult::Incomplete)?;
        if text.len() + data.len() > limits.frame_bytes_max {
            return Err(PostResult::TooBig);
        }
        if !share.set(text.len() + data.len(), limits.unfinished_bytes_max) {
            return Err(PostResult::NoMemory);
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}

fn answer(result: PostResult) -> Response {
    let (status, message) = match result {
        PostResult::Taken => return StatusCode::ACCEPTED.into_response(),
        PostResult::Incomplete => (StatusCode::BAD_REQUEST, "the frame broke off"),
        PostResult::NotUtf8 => (StatusCode::BAD_REQUEST, "the frame is not UTF-8"),
        PostResult::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "a frame needs the `sendKey` of the connection's `welcome`: `Authorization: Bearer <sendKey>`",
        ),
        PostResult::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many frames without the right key; wait a moment",
        ),
        PostResult::Origin => (
            StatusCode::FORBIDDEN,
            "pages of this origin may not connect (server.allowed_origins)",
        ),
        PostResult::UnknownConnection | PostResult::Lost => (
            StatusCode::NOT_FOUND,
            "there is no such connection; connect again with GET /sse",
        ),
        PostResult::SlowMessage => (
            StatusCode::REQUEST_TIMEOUT,
            "the frame took longer than limits.message_time_max to arrive",
        ),
        PostResult::TooBig => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the frame is larger than limits.frame_bytes_max",
        ),
        PostResult::InboxFull => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many frames wait for the connection; send this one again in a moment",
        ),
        PostResult::NoMemory => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server has no memory for another unfinished message; try again",
        ),
        PostResult::NoAnswer => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the node of the connection did not answer, and may have the frame; send it again if it has `once`",
        ),
    };
    json_error(status, result.as_str(), message)
}

fn disabled() -> Response {
    let message = "server-sent events are switched off (server.sse)";
    json_error(StatusCode::NOT_FOUND, "sse_disabled", message)
}

fn wrong_method(allowed: &'static str, message: &str) -> Response {
    let mut response = json_error(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn preflight(services: &Services, address: SocketAddr, request: &Request) -> Response {
    if let Err(refused) = admission::check_origin(services, request, address) {
        let message = refused.to_string();
        return json_error(StatusCode::FORBIDDEN, "origin_not_allowed", &message);
    }
    let headers = PREFLIGHT_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (StatusCode::NO_CONTENT, HeaderMap::from_iter(headers)).into_response()
}

/// The origin of the page that sent `request` and may read the response; `None` if there is none.
fn readable_by(services: &Services, request: &Request) -> Option<HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    let is_allowed = admission::is_origin_allowed(services, request).is_ok();
    is_allowed.then(|| origin.clone())
}

/// Lets pages of `origin` read the response.
fn with_origin(mut response: Response, origin: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Retry-After"),
        );
    }
    response
}
