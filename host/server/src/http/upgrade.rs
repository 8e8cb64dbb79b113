//! Turns an HTTP request into a session over a WebSocket.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use signalbox_auth::subprotocol;
use signalbox_telemetry::metrics::events::UpgradeRefused;
use tracing::debug;

use super::{
    AppState,
    admission::{self, NewConnection, RequestedTransport},
    front::{FrontStream, close_with},
    handshake,
    upgrade_refusal::{self, UpgradeRefusal},
};
use crate::session::{Services, TcpSocket};

pub(super) async fn upgrade(
    State(state): State<AppState>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let (services, transport) = (&state.services, RequestedTransport::WebSocket);
    let mut admitted = match admission::admit(&state, &mut request, address, transport).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            let (metrics, refusal) = (&services.metrics, refused.refusal);
            UpgradeRefused { metrics, refusal }.emit();
            return refuse(services, request, refused);
        }
    };
    let (accept_key, subprotocol) = (admitted.accept_key.take(), admitted.identity.subprotocol);
    let query = request.uri().query();
    let connection = NewConnection::new(services, admitted, address, query, transport);
    // A separate task, so that the connection's permits are freed even if the client does not wait for the response.
    tokio::spawn(begin(
        hyper::upgrade::on(&mut request),
        services.clone(),
        connection,
    ));
    switching(accept_key, subprotocol)
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
    switching(Some(accept_key), Some(subprotocol::V1))
}

/// Waits until the response is sent and the stream is ours, then serves the connection.
async fn begin(upgraded: OnUpgrade, services: Arc<Services>, connection: NewConnection) {
    let Some((stream, read)) = stream_of(upgraded).await else {
        return;
    };
    // Copies the bytes after the request, so that HTTP's buffer can be freed: it is larger than everything else that an
    // idle connection holds.
    let frame_bytes_max = services.live.load().limits.frame_bytes_max;
    let socket = TcpSocket::new(stream.into_tcp(), &read, frame_bytes_max);
    drop(read);
    connection.serve(socket, services).await;
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

fn switching(accept_key: Option<HeaderValue>, subprotocol: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(accept_key) = accept_key {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    }
    if let Some(protocol) = subprotocol {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(protocol),
        );
    }
    response
}
