//! Decides whether a request may become a connection, over a WebSocket or as a stream of server-sent events.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    extract::{Query, Request},
    http::HeaderValue,
};
use futures_util::FutureExt;
use signalbox_auth::{
    AuthError, Identity,
    origin::{self, OriginRefused},
};
use signalbox_broker::{Denial, TokenMark};
use signalbox_protocol::{ClientInfo, Position, timestamp::unix_millis};
use signalbox_router::{Connection, ConnectionSlot, SlotLimits, write_batch};
use tracing::{Instrument, Span, debug_span, info};

use super::{
    AppState, address_limiter::AddressPermit, front::RequestTarget, handshake,
    upgrade_refusal::UpgradeRefusal,
};
use crate::session::{Services, Session, Socket, token_mark};

/// How long a client may take to answer a ping before another connection of its user may take its place.
const PING_PATIENCE: Duration = Duration::from_secs(3);

/// The transport that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestedTransport {
    WebSocket,
    EventStream,
}

/// The parts of an admitted request.
pub(super) struct Admitted {
    pub(super) identity: Identity,
    /// `Sec-WebSocket-Accept` of the response; `None` if the client asks for server-sent events.
    pub(super) accept_key: Option<HeaderValue>,
    /// The place after which the client missed messages to its user.
    pub(super) since: Option<Box<Position>>,
    pub(super) permits: ConnectionPermits,
}

/// The permits that a connection holds for as long as it is open.
pub(super) struct ConnectionPermits {
    slot: ConnectionSlot,
    of_address: AddressPermit,
}

/// A connection that is about to be served.
pub(super) struct NewConnection {
    pub(super) connection: Arc<Connection>,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) since: Option<Box<Position>>,
    pub(super) permits: ConnectionPermits,
}

/// Decides whether the request may become a connection: cheap checks first, permits last. Only clients with a valid
/// token count towards the node's rate limit.
pub(super) async fn admit(
    state: &AppState,
    request: &mut Request,
    address: SocketAddr,
    transport: RequestedTransport,
) -> Result<Admitted, UpgradeRefusal> {
    let services = &state.services;
    if services.draining.load(Ordering::Acquire) {
        return Err(UpgradeRefusal::draining());
    }
    check_origin(services, request, address)?;
    let mut identity = services
        .authenticator
        .authenticate(request.headers(), request.uri().query())
        .await?;
    identity.v1 |= transport == RequestedTransport::EventStream;
    check_revoked(services, &identity)?;
    let since = since(&identity, request, transport)?;
    let live = services.live.load();
    let accept_key = match transport {
        RequestedTransport::WebSocket => handshake::accept_key(request).map(Some),
        RequestedTransport::EventStream => handshake::check_no_body(request).map(|()| None),
    };
    let accept_key = accept_key.map_err(|response| UpgradeRefusal::handshake(*response))?;
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
    Ok(Admitted {
        identity,
        accept_key,
        since,
        permits: ConnectionPermits { slot, of_address },
    })
}

/// The place after which a client that knows histories missed messages: `Last-Event-ID` of a stream of server-sent events,
/// or the parameter `since`.
fn since(
    identity: &Identity,
    request: &Request,
    transport: RequestedTransport,
) -> Result<Option<Box<Position>>, UpgradeRefusal> {
    if !identity.v1 {
        return Ok(None);
    }
    if transport == RequestedTransport::EventStream {
        let ids = request.headers().get_all("last-event-id").iter();
        let mut ids = ids.filter(|id| !id.is_empty());
        match (ids.next(), ids.next()) {
            (None, _) => {}
            (Some(id), None) => return place(id.to_str().unwrap_or_default()),
            (Some(_), Some(_)) => return Err(UpgradeRefusal::since()),
        }
    }
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
        return Ok(None);
    };
    let mut given = parameters.iter().filter(|(name, _)| name == "since");
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some((_, text)), None) => place(text),
        (Some(_), Some(_)) => Err(UpgradeRefusal::since()),
    }
}

fn place(text: &str) -> Result<Option<Box<Position>>, UpgradeRefusal> {
    let place = Position::parse(text).ok_or_else(UpgradeRefusal::since)?;
    Ok(Some(Box::new(place)))
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

/// Checks the origin of a request, and logs a refusal.
pub(super) fn check_origin(
    services: &Services,
    request: &Request,
    address: SocketAddr,
) -> Result<(), OriginRefused> {
    is_origin_allowed(services, request).inspect_err(|refused| {
        info!(
            client = %address,
            origin = ?refused.origin,
            host = refused.host,
            "an upgrade by a page of another origin is refused (server.allowed_origins)"
        );
    })
}

/// Checks the origin of a request.
pub(super) fn is_origin_allowed(
    services: &Services,
    request: &Request,
) -> Result<(), OriginRefused> {
    let live = services.live.load();
    let host = request
        .extensions()
        .get::<RequestTarget>()
        .map(RequestTarget::authority);
    origin::check(request.headers(), host, &live.server.allowed_origins)
}

impl NewConnection {
    /// The connection of an admitted request with `query` from `address`.
    pub(super) fn new(
        services: &Services,
        admitted: Admitted,
        address: SocketAddr,
        query: Option<&str>,
        transport: RequestedTransport,
    ) -> Self {
        let Admitted {
            identity,
            since,
            permits,
            ..
        } = admitted;
        let client = client(services.ids.next().to_string(), &identity, address);
        let traces_plugins = identity.v1 && may_trace_plugins(services, query);
        let connection = Connection::new(client, identity.v1)
            .tracing_plugins(traces_plugins)
            .over_event_stream(transport == RequestedTransport::EventStream)
            .with_token(mark(&identity));
        Self {
            connection: Arc::new(connection),
            expires_at: identity.expires_at(),
            since,
            permits,
        }
    }

    /// Serves the connection over `socket` until it ends. Not an async function, which would keep room for the session twice.
    pub(super) fn serve<S: Socket>(
        self,
        socket: S,
        services: Arc<Services>,
    ) -> impl Future<Output = ()> {
        let client = self.connection.client();
        let span = log_span(&client.connection, &client.user, &client.address);
        let ConnectionPermits { slot, of_address } = self.permits;
        let session = Session::new(socket, services, self.connection, self.expires_at, slot)
            .recovering(self.since);
        let served = write_batch(session.run()).instrument(span);
        served.map(move |()| drop(of_address))
    }
}

/// The span of a connection's lines in the log. At `debug` level: disabled, it costs half a nanosecond per turn of the
/// session; enabled, 70 ns.
fn log_span(id: &str, user: &str, address: &str) -> Span {
    debug_span!(target: "signalbox::session", "connection", id, user, address)
}

/// Makes the span of connections known to the log. If the first two connections did so at the same time, a filter such as
/// `[connection{user=ann}]=debug` could miss one of them.
pub(super) fn register_log_span() {
    let _ = log_span("", "", "");
}

/// Whether the client asks which plugin versions see its messages, and the configuration permits it.
fn may_trace_plugins(services: &Services, query: Option<&str>) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    parameters.any(|parameter| parameter == "trace=plugins")
        && services.live.load().server.trace_plugins
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
