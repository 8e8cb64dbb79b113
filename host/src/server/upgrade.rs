//! From an HTTP request to a session.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{ConnectInfo, RawQuery, State, ws::WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{AppState, json_error};
use crate::{
    auth::{AuthError, Identity, origin},
    metrics::Refusal,
    protocol::ClientInfo,
    router::{Connection, SlotRefused},
    session::Session,
};

/// What a socket reads at a time. Larger buffers stay with every idle connection.
const READ_BUFFER_BYTES: usize = 2048;
/// What is gathered before it is written out; a flush writes it in any case.
const WRITE_BUFFER_BYTES: usize = 4096;

pub(super) async fn upgrade(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let services = &state.services;
    let refused = |refusal: Refusal| services.metrics.upgrades_refused.of(refusal).increment();
    if services.draining.load(Ordering::Acquire) {
        refused(Refusal::Draining);
        return json_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "this node is going down; connect to another",
        );
    }
    let live = services.live.load();
    if let Err(error) = origin::check(&headers, &live.server.allowed_origins) {
        refused(Refusal::Origin);
        return answer(&error);
    }
    let identity = match state.authenticator.authenticate(&headers, query.as_deref()) {
        Ok(identity) => identity,
        Err(error) => {
            refused(Refusal::Auth);
            return answer(&error);
        }
    };
    let limits = &live.limits;
    let table = services.router.table();
    let slot = match table.reserve(
        &identity.user,
        limits.connections_per_user_max,
        limits.connections_max,
    ) {
        Ok(slot) => slot,
        Err(error) => {
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
            refused(refusal);
            return json_error(status, code, &error.to_string());
        }
    };
    let connection = Arc::new(Connection::new(
        client(services.ids.next(), &identity, address),
        identity.v1,
    ));
    let (services, expires_at) = (services.clone(), identity.expires_at);
    let mut response = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_frame_size(limits.frame_bytes_max)
        .max_message_size(limits.frame_bytes_max)
        .on_upgrade(move |socket| {
            Session::new(socket, services, connection, expires_at, slot).run()
        });
    if let Some(protocol) = identity.subprotocol {
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            header::HeaderValue::from_static(protocol),
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

fn answer(error: &AuthError) -> Response {
    (
        error.status(),
        [(header::CONTENT_TYPE, error.content_type())],
        error.body(),
    )
        .into_response()
}
