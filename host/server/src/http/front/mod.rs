//! The front of a listener: handles a connection for as long as it speaks HTTP.
//!
//! Clients are unauthenticated here, so everything that they can occupy is bounded: sockets ([`pending`]), headers,
//! requests, and the time of each phase ([`watch`]). [`request`] wraps the handler of every request, [`hand_over`] lets a
//! handler take over the connection, and [`closing`] ends one so that its last response arrives.

mod body;
mod client_address;
mod closing;
mod hand_over;
mod pending;
mod proxy_protocol;
mod request;
mod stream;
mod target;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
pub(super) use closing::close_with;
pub(super) use hand_over::StreamClaim;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use signalbox_telemetry::metrics::{HttpRefusalReason, events::HttpRefused};
pub(super) use stream::FrontStream;
pub(super) use target::RequestTarget;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    client_address::{canonical, is_trusted},
    closing::{ANSWERED, FinalResponse, rest},
    hand_over::{HandOver, HandOverSlot},
    pending::{Pending, Ticket, TicketOutcome},
    watch::{HttpPhase, Overdue},
};
use crate::session::Services;

/// The minimum that hyper needs for its buffers.
const BUFFER_BYTES_MIN: usize = 8 << 10;

const NO_ROOM: FinalResponse = FinalResponse {
    status: "503 Service Unavailable",
    code: "too_many_sockets",
    message: "this node has no room for another connection; try again in a moment",
    may_retry: true,
};
const TOO_SLOW: FinalResponse = FinalResponse {
    status: "408 Request Timeout",
    code: "too_slow",
    message: "the headers did not arrive in time",
    may_retry: false,
};
const NOT_HTTP_2: FinalResponse = FinalResponse {
    status: "505 HTTP Version Not Supported",
    code: "http_version",
    message: "this server speaks HTTP/1.1; let a proxy in front of it speak HTTP/2",
    may_retry: false,
};
const NO_PROXY_HEADER: FinalResponse = FinalResponse {
    status: "400 Bad Request",
    code: "proxy_header",
    message: "connections of this proxy must begin with a header of the PROXY protocol (server.proxy_protocol)",
    may_retry: false,
};

/// State shared by all connections of one listener.
pub(super) struct Front {
    services: Arc<Services>,
    routes: Router,
    /// Whether connections from trusted proxies may begin with a PROXY protocol header.
    is_public: bool,
    /// Whether a request must name a host that no attacker can own.
    checks_hosts: bool,
    pending: Arc<Pending>,
}

/// How a connection stopped speaking HTTP.
enum Ended {
    Served(hyper::Result<()>),
    Overdue(Overdue),
    /// The handler of a request takes it over.
    Claimed(HandOver),
}

impl Front {
    pub(super) fn new(
        services: Arc<Services>,
        routes: Router,
        is_public: bool,
        checks_hosts: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            services,
            routes,
            is_public,
            checks_hosts,
            pending: Arc::default(),
        })
    }

    /// Admits a new connection: returns the task that serves it, if there is room.
    pub(super) fn admit(
        self: &Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        stop: &CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let max = self.services.live.load().limits.http.sockets_pending_max;
        let admitted = self.pending.admit(max);
        if !matches!(admitted, Some(TicketOutcome::Free(_))) {
            self.refused(HttpRefusalReason::Sockets, peer);
        }
        match admitted {
            Some(TicketOutcome::Free(ticket) | TicketOutcome::Instead(ticket)) => {
                Some(self.clone().connection(tcp, peer, ticket, stop.clone()))
            }
            None => {
                closing::refuse_at_once(&tcp, &NO_ROOM);
                None
            }
        }
    }

    /// Refuses a connection that took the last file descriptor.
    pub(super) async fn refuse(&self, tcp: TcpStream, peer: SocketAddr, wait: Duration) {
        self.refused(HttpRefusalReason::Descriptors, peer);
        closing::refuse(tcp, &NO_ROOM, wait).await;
    }

    fn refused(&self, refusal: HttpRefusalReason, peer: SocketAddr) {
        let metrics = &self.services.metrics;
        HttpRefused {
            metrics,
            refusal,
            peer,
        }
        .emit();
    }

    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        ticket: Ticket,
        stop: CancellationToken,
    ) {
        let peer = canonical(peer.ip(), peer.port());
        let write_timeout = self.services.live.load().limits.http.write_timeout;
        let mut stream = FrontStream::new(tcp, ticket, write_timeout);
        let client = if self.expects_proxy_header(peer) {
            match self.proxied(&mut stream, peer, &stop).await {
                Ok(client) => client,
                Err(None) => return,
                Err(Some(word)) => {
                    word.say(stream.tcp());
                    return rest(stream, &ANSWERED, &stop, &self.services.live).await;
                }
            }
        } else {
            peer
        };
        if let Some((ended, stream)) = self.http(stream, client, &stop).await {
            self.end(ended, stream, client, &stop).await;
        }
    }

    fn expects_proxy_header(&self, peer: SocketAddr) -> bool {
        let live = self.services.live.load();
        let server = &live.server;
        self.is_public && server.proxy_protocol && is_trusted(peer.ip(), &server.trusted_proxies)
    }

    /// Returns the client that the proxy `peer` speaks for, or `peer` itself if the connection is its own.
    async fn proxied(
        &self,
        stream: &mut FrontStream,
        peer: SocketAddr,
        stop: &CancellationToken,
    ) -> Result<SocketAddr, Option<&'static FinalResponse>> {
        let watch = stream.watch().clone();
        let read = tokio::select! {
            biased;
            read = proxy_protocol::read(stream) => read,
            overdue = watch.overdue(&self.services.live) => {
                if overdue == Overdue::Head {
                    self.refused(HttpRefusalReason::ProxyHeader, peer);
                }
                return Err(None);
            }
            () = stop.cancelled() => return Err(None),
        };
        match read {
            Ok(client) => {
                watch.restart();
                Ok(client.unwrap_or(peer))
            }
            // A probe that only connects.
            Err(proxy_protocol::ProxyHeaderError::Io(_)) => Err(None),
            Err(fault) => {
                debug!(%peer, %fault, "the header of the PROXY protocol is refused");
                self.refused(HttpRefusalReason::ProxyHeader, peer);
                Err(Some(&NO_PROXY_HEADER))
            }
        }
    }

    /// Serves HTTP until it ends. Returns `None` if the connection has become a WebSocket, or is over.
    async fn http(
        self: &Arc<Self>,
        stream: FrontStream,
        client: SocketAddr,
        stop: &CancellationToken,
    ) -> Option<(Ended, FrontStream)> {
        let header_bytes_max = self.services.live.load().limits.http.header_bytes_max;
        let (front, watch) = (self.clone(), stream.watch().clone());
        let slot = Arc::<HandOverSlot>::default();
        let to_slot = slot.clone();
        let service = service_fn(move |request| {
            request::answer(
                front.clone(),
                watch.clone(),
                to_slot.clone(),
                client,
                request,
            )
        });
        let watch = stream.watch().clone();
        let mut connection = http1::Builder::new()
            // The watch knows when a request begins; hyper does not.
            .header_read_timeout(None)
            .max_header_size(header_bytes_max)
            .max_buf_size(header_bytes_max.max(BUFFER_BYTES_MIN))
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let live = &self.services.live;
        let ended = tokio::select! {
            biased;
            served = &mut connection => Ended::Served(served),
            claimed = slot.take() => Ended::Claimed(claimed),
            overdue = watch.overdue(live) => Ended::Overdue(overdue),
            () = stop.cancelled() => {
                if !watch.has_asked() {
                    // The client may never send a request, so there is nothing to finish.
                    return None;
                }
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                tokio::select! {
                    biased;
                    served = &mut connection => Ended::Served(served),
                    claimed = slot.take() => Ended::Claimed(claimed),
                    overdue = watch.overdue(live) => Ended::Overdue(overdue),
                }
            }
        };
        let stream = connection.into_parts()?.io.into_inner();
        Some((ended, stream))
    }

    async fn end(
        &self,
        ended: Ended,
        stream: FrontStream,
        client: SocketAddr,
        stop: &CancellationToken,
    ) {
        match ended {
            Ended::Claimed(claimed) => {
                let time_max = self.services.live.load().limits.http.write_timeout;
                return claimed.finish(stream, time_max).await;
            }
            Ended::Served(Ok(())) | Ended::Overdue(Overdue::Silent | Overdue::Idle) => {}
            Ended::Served(Err(error)) if error.is_parse() => {
                debug!(%client, %error, "a request is not HTTP/1.1");
                self.refused(HttpRefusalReason::Malformed, client);
                if error.is_parse_version_h2() {
                    NOT_HTTP_2.say(stream.tcp());
                }
            }
            Ended::Served(Err(error)) => return debug!(%client, %error, "HTTP connection ended"),
            Ended::Overdue(Overdue::Head) => {
                self.refused(HttpRefusalReason::SlowHeader, client);
                TOO_SLOW.say(stream.tcp());
            }
            Ended::Overdue(Overdue::Unread) => {
                self.refused(HttpRefusalReason::Unread, client);
                // Makes the system discard its buffers, too.
                return drop(stream.tcp().set_zero_linger());
            }
            Ended::Overdue(Overdue::Evicted(phase)) => {
                if phase == HttpPhase::Head {
                    NO_ROOM.say(stream.tcp());
                }
                return;
            }
        }
        rest(stream, &ANSWERED, stop, &self.services.live).await;
    }
}
