//! Turns an HTTP request into a session.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use signalbox_auth::{
    AuthError, Identity,
    origin::{self, OriginRefused},
    subprotocol,
};
use signalbox_broker::{Denial, TokenMark};
use signalbox_protocol::{ClientInfo, Position, timestamp::unix_millis};
use signalbox_router::{Connection, ConnectionSlot, SlotLimits, write_batch};
use signalbox_telemetry::metrics::events::UpgradeRefused;
use tracing::{Instrument, debug, debug_span, info};

use super::{
    AppState,
    address_limiter::AddressPermit,
    front::{FrontStream, RequestTarget, close_with},
    handshake,
    upgrade_refusal::{self, UpgradeRefusal},
};
use crate::session::{Services, Session, TcpSocket, token_mark};

/// How long a client may take to answer a ping before another connection of its user may take its place.
const PING_PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn upgrade(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let services = &state.services;
    let admitted = match admit(&state, &mut request, address).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            let (metrics, refusal) = (&services.metrics, refused.refusal);
            UpgradeRefused { metrics, refusal }.emit();
            return refuse(services, request, refused);
        }
    };
    let AdmittedUpgrade {
        identity,
        accept_key,
        since,
        permits,
    } = admitted;
    let client = client(services.ids.next().to_string(), &identity, address);
    let traces_plugins = identity.v1 && may_trace_plugins(services, request.uri().query());
    let connection = Connection::new(client, identity.v1)
        .tracing_plugins(traces_plugins)
        .with_token(mark(&identity));
    let connection = Arc::new(connection);
    // A separate task, so that the connection's permits are freed even if the client does not wait for the response.
    tokio::spawn(begin(
        hyper::upgrade::on(&mut request),
        services.clone(),
        connection,
        identity.expires_at(),
        since,
        permits,
    ));
    switching(accept_key, identity.subprotocol)
}

/// The parts of an admitted upgrade.
struct AdmittedUpgrade {
    identity: Identity,
    accept_key: HeaderValue,
    /// The place after which the client missed messages to its user.
    since: Option<Box<Position>>,
    permits: ConnectionPermits,
}

/// The permits that a connection holds for as long as it is open.
struct ConnectionPermits {
    slot: ConnectionSlot,
    of_address: AddressPermit,
}

/// Decides whether the request may become a connection: cheap checks first, permits last. Only clients with a valid
/// token count towards the node's rate limit.
async fn admit(
    state: &AppState,
    request: &mut Request,
    address: SocketAddr,
) -> Result<AdmittedUpgrade, UpgradeRefusal> {
    let services = &state.services;
    if services.draining.load(Ordering::Acquire) {
        return Err(UpgradeRefusal::draining());
    }
    check_origin(services, request, address)?;
    let identity = services
        .authenticator
        .authenticate(request.headers(), request.uri().query())
        .await?;
    check_revoked(services, &identity)?;
    let since = since(&identity, request)?;
    let live = services.live.load();
    let accept_key =
        handshake::accept_key(request).map_err(|response| UpgradeRefusal::handshake(*response))?;
    let (limiter, limits) = (&state.address_limiter, &live.limits);
    if !limiter.lets_in(limits.upgrades_per_second, Instant::now()) {
        return Err(UpgradeRefusal::rate());
    }
    let of_address = limiter
        .permit(address.ip(), limits.connections_per_address_max)
        .ok_or_else(UpgradeRefusal::address)?;
    let slot_limits = SlotLimits {
        per_user: limits.connections_per_user_max,
        in_all: limits.connections_max,
        ping_patience: PING_PATIENCE.min(live.server.ping_interval),
    };
    let slot = services
        .router
        .table()
        .reserve(&identity.user, slot_limits)?;
    Ok(AdmittedUpgrade {
        identity,
        accept_key,
        since,
        permits: ConnectionPermits { slot, of_address },
    })
}

/// The parameter `since` of a client that knows histories.
fn since(identity: &Identity, request: &Request) -> Result<Option<Box<Position>>, UpgradeRefusal> {
    if !identity.v1 {
        return Ok(None);
    }
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Ok(None);
    };
    let mut given = parameters.iter().filter(|(name, _)| name == "since");
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some((_, text)), None) => match Position::parse(text) {
            Some(since) => Ok(Some(Box::new(since))),
            None => Err(UpgradeRefusal::since()),
        },
        (Some(_), Some(_)) => Err(UpgradeRefusal::since()),
    }
}

fn check_revoked(services: &Services, identity: &Identity) -> Result<(), UpgradeRefusal> {
    let checked = services
        .router
        .check_revoked(&identity.user, mark(identity));
    checked.map_err(|denial| match denial {
        Denial::Token => AuthError::RevokedToken.into(),
        Denial::User => UpgradeRefusal::blocked(),
        Denial::Unknown => AuthError::RevocationsUnavailable.into(),
    })
}

/// The mark of the client's token, for revocations.
fn mark(identity: &Identity) -> TokenMark {
    identity.token.as_ref().map_or(TokenMark::NONE, token_mark)
}

fn check_origin(
    services: &Services,
    request: &Request,
    address: SocketAddr,
) -> Result<(), OriginRefused> {
    let live = services.live.load();
    let host = request
        .extensions()
        .get::<RequestTarget>()
        .map(RequestTarget::authority);
    let allowed = &live.server.allowed_origins;
    origin::check(request.headers(), host, allowed).inspect_err(|refused| {
        info!(
            client = %address,
            origin = ?refused.origin,
            host,
            "an upgrade by a page of another origin is refused (server.allowed_origins)"
        );
    })
}

/// Answers a refused upgrade. A client that asked for it is accepted and then closed with the code for the refusal.
fn refuse(services: &Arc<Services>, mut request: Request, refused: UpgradeRefusal) -> Response {
    if !upgrade_refusal::wants_close(&request) {
        return *refused.response;
    }
    let Ok(accept_key) = handshake::accept_key(&request) else {
        return *refused.response;
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let (services, frame) = (services.clone(), upgrade_refusal::close_frame(&refused));
    tokio::spawn(async move {
        if let Some((stream, _)) = stream_of(upgraded).await {
            close_with(stream, &frame, &services.live).await;
        }
    });
    switching(accept_key, Some(subprotocol::V1))
}

/// Whether the client asks which plugin versions see its messages, and the configuration permits it.
fn may_trace_plugins(services: &Services, query: Option<&str>) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    parameters.any(|parameter| parameter == "trace=plugins")
        && services.live.load().server.trace_plugins
}

/// Waits until the response is sent and the stream is ours, then serves the connection.
async fn begin(
    upgraded: OnUpgrade,
    services: Arc<Services>,
    connection: Arc<Connection>,
    expires_at: Option<SystemTime>,
    since: Option<Box<Position>>,
    permits: ConnectionPermits,
) {
    let Some((stream, read)) = stream_of(upgraded).await else {
        return;
    };
    // Copies the bytes after the request, so that HTTP's buffer can be freed: it is larger than everything else that an
    // idle connection holds.
    let frame_bytes_max = services.live.load().limits.frame_bytes_max;
    let socket = TcpSocket::new(stream.into_tcp(), &read, frame_bytes_max);
    drop(read);
    let client = connection.client();
    // At `debug` level. Disabled, it costs half a nanosecond per turn of the session; enabled, 70 ns.
    let span = debug_span!(
        target: "signalbox::session",
        "connection",
        id = client.connection,
        user = client.user,
        address = client.address
    );
    let ConnectionPermits { slot, of_address } = permits;
    let session = Session::new(socket, services, connection, expires_at, slot).recovering(since);
    write_batch(session.run()).instrument(span).await;
    drop(of_address);
}

/// The stream below HTTP, and the bytes that HTTP read past the request.
async fn stream_of(upgraded: OnUpgrade) -> Option<(FrontStream, Bytes)> {
    match upgraded
        .await
        .map(Upgraded::downcast::<TokioIo<FrontStream>>)
    {
        Ok(Ok(parts)) => Some((parts.io.into_inner(), parts.read_buf)),
        Ok(Err(_)) => {
            debug!("an upgraded connection is no stream of ours");
            None
        }
        Err(error) => {
            debug!(%error, "upgrade failed");
            None
        }
    }
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
    ClientInfo {
        connection,
        user: identity.user.clone(),
        claims: identity.claims_json().to_owned(),
        address: address.to_string(),
        connected_at_ms: unix_millis(SystemTime::now()),
    }
}
