//! Processes every request before its handler, and every response after it.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts},
};
use hyper::body::{Body as _, Incoming};
use signalbox_telemetry::metrics::HttpRefusalReason;
use tracing::info;

use super::{
    Front,
    body::{RequestBody, ResponseBody},
    client_address,
    hand_over::{HandOverSlot, StreamClaim},
    target::RequestTarget,
    watch::HttpWatch,
};
use crate::http::json_error;

/// Answers one request on a connection from `peer`. If its handler claims the connection, never returns, and gives `slot` the
/// hand-over.
pub(super) async fn answer(
    front: Arc<Front>,
    watch: Arc<HttpWatch>,
    slot: Arc<HandOverSlot>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut parts, incoming) = request.into_parts();
    let has_body = !incoming.is_end_stream();
    let number = watch.asked(has_body);
    let waits_for_continue = waits_for_continue(&parts.headers);
    let (held, body) = if has_body {
        let (held, body) = RequestBody::new(incoming);
        (Some(held), body)
    } else {
        (None, Body::empty())
    };
    let claim = StreamClaim::default();
    parts.extensions.insert(claim.clone());
    let mut response = match front.prepare(&mut parts, peer) {
        Ok(()) => front.handle(Request::from_parts(parts, body)).await,
        Err(refused) => *refused,
    };
    if let Some(hand_over) = claim.hand_over(&response) {
        slot.put(hand_over);
        return pending().await;
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let is_settled = match held {
            Some(held) => held.settle(waits_for_continue).await,
            None => true,
        };
        let limits = &front.services.live.load().limits;
        if !is_settled || number >= limits.http.requests_per_connection_max {
            let close = HeaderValue::from_static("close");
            response.headers_mut().append(header::CONNECTION, close);
        }
        say_when_to_retry(&mut response);
    }
    Ok(response.map(|body| ResponseBody::new(body, watch)))
}

impl Front {
    /// Determines the host and the client of a request.
    fn prepare(&self, parts: &mut Parts, peer: SocketAddr) -> Result<(), Box<Response<Body>>> {
        let live = self.services.live.load();
        let server = &live.server;
        let client = client_address::client(peer, &parts.headers, &server.trusted_proxies);
        let target =
            RequestTarget::of(parts.version, &parts.uri, &parts.headers).map_err(|fault| {
                self.refused(HttpRefusalReason::Host, client);
                Box::new(json_error(StatusCode::BAD_REQUEST, "invalid_host", fault))
            })?;
        if let Some(target) = target {
            if self.checks_hosts && !target.is_own(&server.allowed_hosts) {
                self.refused(HttpRefusalReason::Host, client);
                return Err(Box::new(not_our_host(&target, client)));
            }
            parts.extensions.insert(target);
        }
        parts.extensions.insert(ConnectInfo(client));
        Ok(())
    }

    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let mut routes = self.routes.clone().into_service();
        match tower_service::Service::call(&mut routes, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn not_our_host(target: &RequestTarget, client: SocketAddr) -> Response<Body> {
    let host = target.authority();
    info!(
        host, %client,
        "a request for a host that is not this machine is refused; a page of another site may have sent it \
         (server.allowed_hosts)"
    );
    let message = format!(
        "with auth.mode = \"none\" this server answers only for localhost and IP addresses, and not for {host}; \
         add the name to server.allowed_hosts if it should"
    );
    json_error(StatusCode::FORBIDDEN, "host_not_allowed", &message)
}

fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expects = headers.get(header::EXPECT);
    expects.is_some_and(|expects| expects.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Adds `Retry-After` to temporary refusals.
fn say_when_to_retry(response: &mut Response<Body>) {
    let is_for_now = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if is_for_now {
        let entry = response.headers_mut().entry(header::RETRY_AFTER);
        entry.or_insert(HeaderValue::from_static("1"));
    }
}
