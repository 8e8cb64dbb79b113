//! One connection, from its upgrade to its end.
//!
//! [`Session::run`] is the one task of a connection: it reads frames, hands each to [`dispatch`], and writes what waits
//! in the outbox ([`wire`]). While a message waits for a plugin, writing goes on. [`socket`] is all that it wants of a WebSocket,
//! and [`TcpSocket`] one on a TCP connection.

pub mod backend;
mod dispatch;
mod live;
mod rate;
pub mod socket;
mod status;
mod tcp_socket;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::debug;

pub use live::{Live, LiveConfig};
pub use socket::{Incoming, Socket, SocketError};
pub use tcp_socket::TcpSocket;

use crate::{
    metrics::Metrics,
    pipeline,
    plugin::Registry,
    protocol::{
        CloseCode, Frame,
        ids::IdSource,
        outbound::{Welcome, WelcomeLimits},
    },
    router::{CloseRequest, Connection, Router, Slot},
    trace::Tracer,
};
use rate::TokenBucket;
use wire::Wire;

/// How long a closing client may take to read what is left and to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that are handled before what they caused is written, so that a client that sends without pause still reads.
const FRAMES_IN_A_ROW_MAX: usize = 32;

/// What all sessions of a node share.
pub struct Services {
    /// The way to other connections.
    pub router: Router,
    /// The plugins.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Names of messages and connections, and the node's own.
    pub ids: IdSource,
    /// Which messages are traced.
    pub tracer: Tracer,
    /// What may change while the server runs.
    pub live: Live,
    /// Set once the node is going down.
    pub draining: AtomicBool,
}

/// One client's session.
pub struct Session<S> {
    wire: Wire<S>,
    services: Arc<Services>,
    connection: Arc<Connection>,
    expires_at: Option<SystemTime>,
    last_heard: Instant,
    pinged_at: Instant,
    bucket: TokenBucket,
    /// How many changes of the configuration it has taken over; those before it with its first turn.
    changes_seen: u64,
    _slot: Slot,
}

/// How a connection ended.
#[derive(Debug)]
struct End {
    code: u16,
    reason: String,
    /// The close frame that the server still owes.
    owed: Option<CloseRequest>,
    unexpected: bool,
}

enum Event {
    Frame(Incoming),
    Close(CloseRequest),
    Lost(String),
    Timer,
}

impl<S: Socket> Session<S> {
    /// A session of `connection` over `socket`, which holds `slot` as long as it lasts.
    pub fn new(
        socket: S,
        services: Arc<Services>,
        connection: Arc<Connection>,
        expires_at: Option<SystemTime>,
        slot: Slot,
    ) -> Self {
        let now = Instant::now();
        let bucket = TokenBucket::new(now);
        Self {
            wire: Wire::new(socket, connection.clone()),
            services,
            connection,
            expires_at,
            last_heard: now,
            pinged_at: now,
            bucket,
            changes_seen: 0,
            _slot: slot,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self) {
        // What comes before and after is on the heap: the room for it would else stay with every connection at rest.
        let arrived = Box::pin(self.arrive()).await;
        // Not earlier: who reads `welcome` can be reached, from other nodes too.
        self.wire.open();
        let end = match arrived {
            Ok(()) => {
                let end = self.serve().await;
                Box::pin(self.depart(&end)).await;
                end
            }
            Err(end) => end,
        };
        Box::pin(self.finish(end)).await;
    }

    /// Asks the plugins whether the connection may come, and makes it reachable.
    async fn arrive(&mut self) -> Result<(), End> {
        let services = &*self.services;
        let client = self.connection.client();
        let plugins = services.registry.enter().await;
        let admitted = pipeline::connected(&plugins, client).await;
        services.metrics.connections.increment();
        debug!("connected");
        let actions = match admitted {
            Ok(actions) => actions,
            Err(refused) => {
                let end = closed_by_server(dispatch::refusal(&refused));
                let by = Some(refused.plugin());
                let actions =
                    pipeline::disconnected(&plugins, client, by, end.code, &end.reason).await;
                drop(plugins);
                dispatch::perform_after(services, client, actions).await;
                return Err(end);
            }
        };
        drop(plugins);
        if self.connection.v1() {
            // Before anybody can reach it: what others send comes after it.
            services
                .router
                .table()
                .push(&self.connection, self.welcome());
        }
        services.router.connect(&self.connection).await;
        dispatch::perform_for_connection(services, &self.connection, actions).await;
        Ok(())
    }

    /// Makes the connection unreachable, and tells the plugins.
    async fn depart(&self, end: &End) {
        let services = &*self.services;
        let client = self.connection.client();
        services.router.disconnect(&self.connection);
        let plugins = services.registry.enter().await;
        let actions = pipeline::disconnected(&plugins, client, None, end.code, &end.reason).await;
        drop(plugins);
        dispatch::perform_after(services, client, actions).await;
    }

    fn welcome(&self) -> Frame {
        let live = self.services.live.load();
        Welcome {
            connection_id: &self.connection.client().connection,
            user_id: self.connection.user(),
            node_id: self.services.ids.node(),
            heartbeat_interval_ms: live.server.ping_interval,
            limits: WelcomeLimits {
                frame_bytes_max: live.limits.frame_bytes_max,
                messages_per_second: live.limits.messages_per_second,
                messages_burst: live.limits.messages_burst,
                rooms_max: live.limits.rooms_per_connection_max,
            },
        }
        .encode()
    }

    async fn serve(&mut self) -> End {
        let mut timer = pin!(sleep_until(self.next_deadline()));
        let mut in_a_row = 0;
        loop {
            let read_first = in_a_row < FRAMES_IN_A_ROW_MAX;
            let event = poll_fn(|cx| self.poll_event(cx, timer.as_mut(), read_first)).await;
            match event {
                Event::Frame(frame) => {
                    in_a_row = if read_first { in_a_row + 1 } else { 0 };
                    if let Some(end) = self.handle(frame).await {
                        return end;
                    }
                }
                Event::Close(request) => return closed_by_server(request),
                Event::Lost(reason) => {
                    return End {
                        code: 1006,
                        reason,
                        owed: None,
                        unexpected: true,
                    };
                }
                Event::Timer => {
                    if let Some(request) = self.look_at_the_clock() {
                        return closed_by_server(request);
                    }
                    timer.as_mut().reset(self.next_deadline());
                }
            }
        }
    }

    /// Reads before it writes, so that all that one read of the socket brought is answered with one write. Where a client
    /// sends without pause, writing and the clock come first once in a while: they must not wait for the pause.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        read_first: bool,
    ) -> Poll<Event> {
        if self.take_over_changes() {
            return Poll::Ready(Event::Timer);
        }
        if read_first && let Poll::Ready(event) = self.poll_read(cx) {
            return Poll::Ready(event);
        }
        match self.wire.poll_write(cx) {
            Poll::Ready(Ok(request)) => return Poll::Ready(Event::Close(request)),
            Poll::Ready(Err(error)) => return Poll::Ready(Event::Lost(error.to_string())),
            Poll::Pending => {}
        }
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        if read_first {
            Poll::Pending
        } else {
            self.poll_read(cx)
        }
    }

    /// Whether the configuration changed since it was last asked: the deadlines may be others now.
    fn take_over_changes(&mut self) -> bool {
        let changes = self.services.live.changes();
        if changes == self.changes_seen {
            return false;
        }
        self.changes_seen = changes;
        let bytes = self.services.live.load().limits.frame_bytes_max;
        self.wire.set_frame_bytes_max(bytes);
        true
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let event = match ready!(self.wire.poll_read(cx)) {
            Some(Ok(frame)) => Event::Frame(frame),
            Some(Err(SocketError::TooBig)) => Event::Close(too_big()),
            Some(Err(error @ SocketError::NotUtf8)) => Event::Close(CloseRequest {
                code: CloseCode::NOT_UTF8,
                reason: error.to_string(),
            }),
            Some(Err(SocketError::Violation(reason))) => Event::Close(CloseRequest {
                code: CloseCode::PROTOCOL,
                reason,
            }),
            Some(Err(error @ SocketError::Broken(_))) => Event::Lost(error.to_string()),
            None => Event::Lost("the connection was lost".to_owned()),
        };
        Poll::Ready(event)
    }

    /// Handles one frame. Some: the connection ends.
    async fn handle(&mut self, frame: Incoming) -> Option<End> {
        let now = Instant::now();
        self.last_heard = now;
        let bytes: &[u8] = match &frame {
            Incoming::Text(text) => text.as_bytes(),
            Incoming::Binary(bytes) => bytes,
            Incoming::Control => return None,
            Incoming::Close { code, reason } => {
                return Some(End {
                    code: *code,
                    reason: reason.clone(),
                    owed: None,
                    unexpected: !matches!(code, 1000 | 1001),
                });
            }
        };
        let (services, connection) = (&*self.services, &self.connection);
        let live = services.live.load();
        // The socket itself has let it in where the limit was lowered meanwhile.
        if bytes.len() > live.limits.frame_bytes_max {
            return Some(closed_by_server(too_big()));
        }
        let text = match &frame {
            Incoming::Text(text) => Some(text.as_str()),
            _ => std::str::from_utf8(bytes).ok(),
        };
        if !self.bucket.take(now, &live.limits) {
            dispatch::rate_limited(services, connection, text);
            return None;
        }
        let Some(text) = text else {
            dispatch::not_utf8(services, connection);
            return None;
        };
        // Pinned where it is made: it is large, and would else be moved for every message.
        let mut handled = pin!(dispatch::frame(services, connection, text, now, &live));
        poll_fn(|cx| {
            if handled.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // Writing goes on meanwhile. An error or a close request is met again by the next event.
            let _ = self.wire.poll_write(cx);
            Poll::Pending
        })
        .await;
        None
    }

    fn next_deadline(&self) -> Instant {
        let live = self.services.live.load();
        let idle = self.last_heard + live.server.idle_timeout;
        let ping = self.last_heard.max(self.pinged_at) + live.server.ping_interval;
        let expiry = self
            .expires_at
            .map(|at| Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default());
        expiry.map_or(idle.min(ping), |expiry| idle.min(ping).min(expiry))
    }

    /// Pings a silent client; some: it was silent too long, or its token is over.
    fn look_at_the_clock(&mut self) -> Option<CloseRequest> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|at| at <= SystemTime::now()) {
            let reason = "the token has expired".to_owned();
            return Some(CloseRequest {
                code: CloseCode::TOKEN_EXPIRED,
                reason,
            });
        }
        let live = self.services.live.load();
        if now >= self.last_heard + live.server.idle_timeout {
            let reason = "nothing was heard from the client".to_owned();
            return Some(CloseRequest {
                code: CloseCode::IDLE,
                reason,
            });
        }
        if now >= self.last_heard.max(self.pinged_at) + live.server.ping_interval {
            self.pinged_at = now;
            self.wire.ping();
        }
        None
    }

    /// Says goodbye as far as the client lets it, in bounded time, and counts the end.
    async fn finish(mut self, end: End) {
        let metrics = &self.services.metrics;
        if end.unexpected {
            metrics.unexpected_disconnects.increment();
        }
        let client = self.connection.client();
        debug!(
            connection = client.connection,
            code = end.code,
            reason = end.reason,
            "connection ended"
        );
        // From here on nothing is taken for it.
        self.connection.outbox().close(CloseCode::NORMAL, "");
        if let Some(request) = &end.owed {
            self.services.metrics.closes.of(request.code).increment();
        }
        let farewell = self.wire.say_goodbye(end.owed);
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

fn too_big() -> CloseRequest {
    CloseRequest {
        code: CloseCode::TOO_BIG,
        reason: "the frame is larger than limits.frame_bytes_max".to_owned(),
    }
}

fn closed_by_server(request: CloseRequest) -> End {
    End {
        code: request.code.number(),
        reason: request.reason.clone(),
        unexpected: request.code.unexpected(),
        owed: Some(request),
    }
}
