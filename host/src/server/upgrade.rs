//! From an HTTP request to a session.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::{Instrument, debug, debug_span};

use super::{AppState, handshake, json_error};
use crate::{
    auth::{Identity, origin},
    metrics::{Refusal, events::UpgradeRefused},
    protocol::ClientInfo,
    router::{Connection, Slot, SlotLimits, SlotRefused, corked},
    session::{Services, Session, TcpSocket},
};

/// How long a client may take to answer a ping before another connection of its user may take its place.
const PING_PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn upgrade(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let services = &state.services;
    let admitted = match admit(&state, &mut request).await {
        Ok(admitted) => admitted,
        Err((refusal, response)) => {
            let metrics = &services.metrics;
            UpgradeRefused { metrics, refusal }.emit();
            return *response;
        }
    };
    let Admitted {
        identity,
        accept_key,
        slot,
    } = admitted;
    let client = client(services.ids.next(), &identity, address);
    let traces_plugins = identity.v1 && may_trace_plugins(services, request.uri().query());
    let connection = Connection::new(client, identity.v1).tracing_plugins(traces_plugins);
    let connection = Arc::new(connection);
    // Its place is given back in any case, also where the client does not wait for the answer.
    tokio::spawn(begin(
        hyper::upgrade::on(&mut request),
        services.clone(),
        connection,
        identity.expires_at,
        slot,
    ));
    switching(accept_key, identity.subprotocol)
}

/// What an upgrade needs that may go on.
struct Admitted {
    identity: Identity,
    accept_key: HeaderValue,
    slot: Slot,
}

type Refused = (Refusal, Box<Response>);

/// Whether the request may become a connection: the cheap questions first, and the place last.
async fn admit(state: &AppState, request: &mut Request) -> Result<Admitted, Refused> {
    let services = &state.services;
    if services.draining.load(Ordering::Acquire) {
        let response = json_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "this node is going down; connect to another",
        );
        return Err((Refusal::Draining, Box::new(response)));
    }
    origin::check(
        request.headers(),
        &services.live.load().server.allowed_origins,
    )
    .map_err(|error| (Refusal::Origin, Box::new(error.into_response())))?;
    let identity = state
        .authenticator
        .authenticate(request.headers(), request.uri().query())
        .await
        .map_err(|error| (Refusal::Auth, Box::new(error.into_response())))?;
    let accept_key =
        handshake::accept_key(request).map_err(|response| (Refusal::Handshake, response))?;
    let slot = reserve(services, &identity.user)?;
    Ok(Admitted {
        identity,
        accept_key,
        slot,
    })
}

/// Whether the client asks which versions of plugins see its messages, and is to be told.
fn may_trace_plugins(services: &Services, query: Option<&str>) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    parameters.any(|parameter| parameter == "trace=plugins")
        && services.live.load().server.trace_plugins
}

fn reserve(services: &Services, user: &str) -> Result<Slot, Refused> {
    let live = services.live.load();
    let limits = &live.limits;
    let limits = SlotLimits {
        per_user: limits.connections_per_user_max,
        in_all: limits.connections_max,
        ping_patience: PING_PATIENCE.min(live.server.ping_interval),
    };
    let reserved = services.router.table().reserve(user, limits);
    reserved.map_err(|error| {
        let (refusal, status, code) = match error {
            SlotRefused::User => (
                Refusal::UserLimit,
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
            ),
            SlotRefused::Node => (
                Refusal::NodeLimit,
                StatusCode::SERVICE_UNAVAILABLE,
                "node_full",
            ),
        };
        let response = json_error(status, code, &error.to_string());
        (refusal, Box::new(response))
    })
}

/// Waits until the answer is sent and the stream is ours, and serves the connection.
async fn begin(
    upgraded: OnUpgrade,
    services: Arc<Services>,
    connection: Arc<Connection>,
    expires_at: Option<SystemTime>,
    slot: Slot,
) {
    let socket = match upgraded.await.map(Upgraded::downcast::<TokioIo<TcpStream>>) {
        Ok(Ok(parts)) => {
            // What HTTP read too much is copied and its buffer given back: it is larger than all else that a connection
            // at rest has.
            let frame_bytes_max = services.live.load().limits.frame_bytes_max;
            TcpSocket::new(parts.io.into_inner(), &parts.read_buf, frame_bytes_max)
        }
        Ok(Err(_)) => return debug!("an upgraded connection is no TCP stream"),
        Err(error) => return debug!(%error, "upgrade failed"),
    };
    let client = connection.client();
    // At `debug`: where nobody listens it costs half a nanosecond with each turn of the session, where somebody does 70.
    let span = debug_span!(
        target: "signalbox::session",
        "connection",
        id = client.connection,
        user = client.user,
        address = client.address
    );
    let session = Session::new(socket, services, connection, expires_at, slot);
    corked(session.run()).instrument(span).await;
}

fn switching(accept_key: HeaderValue, subprotocol: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    if let Some(protocol) = subprotocol {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(protocol),
        );
    }
    response
}

fn client(connection: String, identity: &Identity, address: SocketAddr) -> ClientInfo {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ClientInfo {
        connection,
        user: identity.user.clone(),
        claims: identity.claims_json.clone(),
        address: address.to_string(),
        connected_at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }
}
