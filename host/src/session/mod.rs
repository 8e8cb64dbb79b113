//! One connection, from its upgrade to its end.
//!
//! [`Session::run`] is the one task of a connection: it reads frames, hands each to [`dispatch`], and writes what waits
//! in the outbox. While a message waits for a plugin, writing goes on. [`socket`] is all that it wants of a WebSocket.

pub mod backend;
mod dispatch;
mod rate;
pub mod socket;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::debug;

pub use socket::{Incoming, Outgoing, Socket, SocketError};

use crate::{
    config::{ApiConfig, Limits, ServerConfig},
    metrics::Metrics,
    pipeline,
    plugin::Registry,
    protocol::{
        CloseCode, Frame,
        ids::IdSource,
        outbound::{Welcome, WelcomeLimits},
    },
    router::{CloseRequest, Connection, Router, Slot},
};
use rate::TokenBucket;

/// How long a closing client may take to read what is left and to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that are handled before what they caused is written, so that a client that sends without pause still reads.
const FRAMES_IN_A_ROW_MAX: usize = 32;

/// Longest reason in a close frame, in bytes (RFC 6455 §5.5: 125 with the code).
const CLOSE_REASON_BYTES_MAX: usize = 123;

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
    /// What may change while the server runs.
    pub live: ArcSwap<LiveConfig>,
    /// Set once the node is going down.
    pub draining: AtomicBool,
}

/// The part of the configuration that is applied without a restart.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[api]`.
    pub api: ApiConfig,
}

/// One client's session.
pub struct Session<S> {
    socket: S,
    services: Arc<Services>,
    connection: Arc<Connection>,
    expires_at: Option<SystemTime>,
    /// Frames taken out of the outbox and not yet given to the socket.
    writing: VecDeque<Frame>,
    unflushed: bool,
    last_heard: Instant,
    pinged_at: Instant,
    bucket: TokenBucket,
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
            socket,
            services,
            connection,
            expires_at,
            writing: VecDeque::new(),
            unflushed: false,
            last_heard: now,
            pinged_at: now,
            bucket,
            _slot: slot,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self) {
        let services = self.services.clone();
        let admitted =
            pipeline::connected(&services.registry.live(), self.connection.client()).await;
        services.metrics.connections.increment();
        let end = match admitted {
            Err(refused) => {
                let end = closed_by_server(dispatch::refusal(&refused));
                self.finish(end).await;
                return;
            }
            Ok(actions) => {
                if self.connection.v1() {
                    // Straight into what is written next: what others send meanwhile comes after it.
                    self.writing.push_back(self.welcome());
                }
                services.router.connect(&self.connection).await;
                dispatch::perform_for_connection(&services, &self.connection, actions).await;
                self.serve().await
            }
        };
        services.router.disconnect(&self.connection);
        let (client, plugins) = (self.connection.client().clone(), services.registry.live());
        let actions = pipeline::disconnected(&plugins, &client, end.code, &end.reason).await;
        dispatch::perform_after(&services, &client, actions).await;
        self.finish(end).await;
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

    /// Reads before it writes, so that all that one read of the socket brought is answered with one write.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        read_first: bool,
    ) -> Poll<Event> {
        if read_first && let Poll::Ready(event) = self.poll_read(cx) {
            return Poll::Ready(event);
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(Some(request))) => return Poll::Ready(Event::Close(request)),
            Poll::Ready(Err(error)) => return Poll::Ready(Event::Lost(error.to_string())),
            Poll::Ready(Ok(None)) | Poll::Pending => {}
        }
        if !read_first && let Poll::Ready(event) = self.poll_read(cx) {
            return Poll::Ready(event);
        }
        timer.poll(cx).map(|()| Event::Timer)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let event = match ready!(self.socket.poll_read(cx)) {
            Some(Ok(frame)) => Event::Frame(frame),
            Some(Err(SocketError::TooBig)) => Event::Close(CloseRequest {
                code: CloseCode::TOO_BIG,
                reason: "the frame is larger than limits.frame_bytes_max".to_owned(),
            }),
            Some(Err(error)) => Event::Lost(error.to_string()),
            None => Event::Lost("the connection was lost".to_owned()),
        };
        Poll::Ready(event)
    }

    /// Writes what waits. Ready with a close request once everything before it is written, or where the client is too
    /// slow to wait for.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<CloseRequest>, SocketError>> {
        loop {
            while !self.writing.is_empty() {
                if self.connection.outbox().slow_close().is_some() {
                    return Poll::Ready(Ok(self.connection.outbox().slow_close()));
                }
                match self.socket.poll_ready(cx) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return self.wait_for_close(cx),
                }
                if let Some(frame) = self.writing.pop_front() {
                    self.socket.start_send(Outgoing::Text(frame))?;
                    self.unflushed = true;
                }
            }
            match self
                .connection
                .outbox()
                .poll_take(&mut self.writing, cx.waker())
            {
                Poll::Ready(None) => {}
                Poll::Ready(Some(request)) => return Poll::Ready(Ok(Some(request))),
                Poll::Pending => break,
            }
        }
        if self.writing.capacity() > 0 {
            self.writing = VecDeque::new();
        }
        if self.unflushed && self.socket.poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// The socket takes nothing now; a full outbox must still be noticed.
    fn wait_for_close(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<CloseRequest>, SocketError>> {
        match self.connection.outbox().poll_slow_close(cx.waker()) {
            Poll::Ready(request) => Poll::Ready(Ok(Some(request))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Handles one frame. Some: the connection ends.
    async fn handle(&mut self, frame: Incoming) -> Option<End> {
        let now = Instant::now();
        self.last_heard = now;
        let (text, binary);
        let text: &str = match frame {
            Incoming::Text(frame) => {
                text = frame;
                &text
            }
            Incoming::Binary(frame) => {
                binary = frame;
                match std::str::from_utf8(&binary) {
                    Ok(text) => text,
                    Err(_) => {
                        dispatch::not_utf8(&self.services, &self.connection);
                        return None;
                    }
                }
            }
            Incoming::Control => return None,
            Incoming::Close { code, reason } => {
                let unexpected = !matches!(code, 1000 | 1001);
                return Some(End {
                    code,
                    reason,
                    owed: None,
                    unexpected,
                });
            }
        };
        let services = self.services.clone();
        let connection = self.connection.clone();
        let live = services.live.load_full();
        if text.len() > live.limits.frame_bytes_max {
            let reason = "the frame is larger than limits.frame_bytes_max".to_owned();
            return Some(closed_by_server(CloseRequest {
                code: CloseCode::TOO_BIG,
                reason,
            }));
        }
        services.metrics.messages.increment();
        if !self.bucket.take(now, &live.limits) {
            dispatch::rate_limited(&services, &connection, text);
            return None;
        }
        let handled = dispatch::frame(&services, &connection, text, now, &live.limits);
        self.while_writing(handled).await;
        None
    }

    /// Waits for `work`, and writes meanwhile.
    async fn while_writing(&mut self, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if work.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // An error or a close request is met again by the next event.
            let _ = self.poll_write(cx);
            Poll::Pending
        })
        .await;
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
            if self.socket.start_send(Outgoing::Ping).is_ok() {
                self.unflushed = true;
            }
        }
        None
    }

    /// Sends the close frame that is owed, waits for the client's, and counts the end.
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
        let Some(request) = end.owed else {
            let _ = timeout(CLOSE_TIMEOUT, poll_fn(|cx| self.socket.poll_close(cx))).await;
            return;
        };
        metrics.closes.of(request.code).increment();
        let mut reason = request.reason;
        reason.truncate(reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
        let farewell = async {
            poll_fn(|cx| self.socket.poll_ready(cx)).await?;
            self.socket.start_send(Outgoing::Close {
                code: request.code.number(),
                reason,
            })?;
            poll_fn(|cx| self.socket.poll_flush(cx)).await?;
            // Reading on lets the client take in what is under way before the connection goes.
            while let Some(Ok(frame)) = poll_fn(|cx| self.socket.poll_read(cx)).await {
                if matches!(frame, Incoming::Close { .. }) {
                    break;
                }
            }
            Ok::<(), SocketError>(())
        };
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
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
