//! One connection, from its upgrade to its end.
//!
//! [`Session::run`] is the one task of a connection: it reads frames, passes each to [`dispatch`], and writes the
//! outbox ([`transport`]). Writing continues while a message waits for a plugin. [`socket`] is the interface to the connection with
//! the client: [`TcpSocket`] is a WebSocket, and [`EventStreamSocket`] a stream of server-sent events.

mod actions;
pub mod backend;
mod dispatch;
mod event_stream;
mod heartbeat;
mod live_config;
mod membership;
mod not_sent;
pub mod once;
mod outcome;
mod rate;
mod room_reader;
mod room_tokens;
mod rooms;
mod serve;
pub mod socket;
mod status;
mod tcp_socket;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod unfinished;
mod user_history;

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use actions::Actor;
pub use event_stream::EventStreamSocket;
use futures_util::FutureExt;
use heartbeat::Heartbeat;
pub use live_config::{ConfigHandle, LiveConfig};
pub(crate) use live_config::{presence_settings, user_retention};
use membership::MemberChange;
use rate::Allowance;
pub use room_reader::{ListedMembers, RoomReader};
use signalbox_auth::Authenticator;
use signalbox_broker::HistoryName;
use signalbox_pipeline as pipeline;
use signalbox_plugin_manager::PluginManager;
use signalbox_protocol::{
    ClientInfo, CloseCode, Frame, MemberInfo, Position, RoomPosition,
    outbound::{Welcome, WelcomeLimits},
};
use signalbox_router::{CloseRequest, Connection, ConnectionSlot, JoinedHistory, Router};
use signalbox_telemetry::{
    metrics::{DropReason, Metrics, events::SessionFailed},
    trace::Tracer,
};
use signalbox_webhooks::Webhooks;
pub use socket::{Incoming, Socket, SocketError};
pub use tcp_socket::TcpSocket;
pub(crate) use token::token_mark;
use token::{Replacement, TokenClock};
use tokio::time::{Instant, timeout};
use tracing::debug;
use transport::Transport;
pub use unfinished::UnfinishedBytes;
pub(crate) use unfinished::UnfinishedShare;

use crate::ids::IdSource;

/// How long a closing client may take to read the remaining frames and to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that all sessions of a node share.
pub struct Services {
    /// Delivers messages to other connections.
    pub router: Arc<Router>,
    /// Reads rooms for backends; plugins have the same.
    pub room_reader: RoomReader,
    /// The plugins.
    pub manager: Arc<PluginManager>,
    /// Authenticates clients.
    pub authenticator: Authenticator,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Creates IDs of messages and connections.
    pub ids: IdSource,
    /// Chooses the messages that are traced.
    pub tracer: Tracer,
    /// Reports events to backends.
    pub webhooks: Webhooks,
    /// The configuration that may change while the server runs.
    pub live: Arc<ConfigHandle>,
    /// The memory that unfinished messages take.
    pub unfinished: Arc<UnfinishedBytes>,
    /// Set when the node begins to shut down.
    pub draining: AtomicBool,
}

/// One client's session.
pub struct Session<S> {
    wire: Transport<S>,
    services: Arc<Services>,
    connection: Arc<Connection>,
    /// The client with its current claims, for plugins and rules. That of `connection` keeps the first ones.
    client: Arc<ClientInfo>,
    /// The place in the history of its user after which the client missed messages, until it has arrived.
    since: Option<Box<Position>>,
    token: TokenClock,
    stage: Stage,
    heartbeat: Heartbeat,
    /// The number of pings whose pongs are not charged.
    pongs_owed: u32,
    allowance: Allowance,
    /// When the message that is being received began.
    message_began: Option<Instant>,
    unfinished: UnfinishedShare,
    /// The bytes that the socket had received at the last check, and the time of that check.
    received: u64,
    read_at: Instant,
    /// When the timers are checked next.
    due: Instant,
    /// The number of configuration changes that it has applied.
    changes_seen: u64,
    _slot: ConnectionSlot,
}

/// The stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The plugins have not admitted it yet.
    Arriving,
    /// The plugins have admitted it.
    Arrived,
    /// It can no longer be reached, and the plugins are informed.
    Departed,
    /// Its end is counted.
    Ended,
}

/// How a connection ended.
#[derive(Debug)]
struct SessionEnd {
    code: u16,
    reason: String,
    /// The close frame that the server must still send.
    owed: Option<CloseRequest>,
    unexpected: bool,
}

impl<S: Socket> Session<S> {
    /// A session of `connection`, whose token expires at `expires_at`, over `socket`. It holds `slot` until it ends.
    pub fn new(
        socket: S,
        services: Arc<Services>,
        connection: Arc<Connection>,
        expires_at: Option<SystemTime>,
        mut slot: ConnectionSlot,
    ) -> Self {
        let now = Instant::now();
        slot.give_to(connection.clone());
        Self {
            wire: Transport::new(socket, connection.clone()),
            unfinished: UnfinishedShare::new(services.unfinished.clone()),
            services,
            client: connection.client().clone(),
            since: None,
            token: TokenClock::new(expires_at, connection.v1()),
            connection,
            stage: Stage::Arriving,
            heartbeat: Heartbeat::new(now),
            pongs_owed: 0,
            allowance: Allowance::new(now),
            message_began: None,
            received: 0,
            read_at: now,
            due: now,
            changes_seen: 0,
            _slot: slot,
        }
    }

    /// Lets the client recover the messages to its user after `since`.
    #[must_use]
    pub fn recovering(mut self, since: Option<Box<Position>>) -> Self {
        self.since = since;
        self
    }

    /// Serves the connection until it ends. A panic ends only this connection.
    #[allow(
        clippy::manual_async_fn,
        reason = "an async function keeps room for the session twice"
    )]
    pub fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let lived = AssertUnwindSafe(self.live()).catch_unwind().await;
            if let Err(fault) = lived.map_err(|panic| fault(&*panic)) {
                Box::pin(self.fail(&fault)).await;
            }
        }
    }

    async fn live(&mut self) {
        // Start and end are boxed: otherwise every idle connection would keep the memory for them.
        let arrived = Box::pin(self.arrive()).await;
        // Not earlier: a client that reads `welcome` can already be reached, from other nodes too.
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

    /// Asks the plugins to admit the connection, and makes it reachable.
    async fn arrive(&mut self) -> Result<(), SessionEnd> {
        let services = &*self.services;
        let client = &self.client;
        let plugins = services.manager.enter().await;
        let admitted = pipeline::connected(&plugins, client).await;
        services.metrics.connections.increment();
        debug!("connected");
        let actions = match admitted {
            Ok(actions) => {
                self.stage = Stage::Arrived;
                actions
            }
            Err(refused) => {
                let end = closed_by_server(dispatch::refusal(&refused));
                let by = Some(refused.plugin());
                let actions =
                    pipeline::disconnected(&plugins, client, by, end.code, &end.reason).await;
                drop(plugins);
                Actor::gone(services, client).perform_all(actions).await;
                return Err(end);
            }
        };
        drop(plugins);
        let since = self.since.take().map(|since| *since);
        let history = user_history::connect(services, &self.connection, since).await;
        if self.connection.v1() {
            // First, although the connection can be reached already: nothing is written yet.
            let welcome = self.welcome(history.as_ref().map(|history| &history.at));
            let table = services.router.table();
            table.push_first(&self.connection, welcome);
        }
        if let Some(history) = history {
            self.replay(history).await;
        }
        let services = &*self.services;
        let client = &self.client;
        services.webhooks.connected(client);
        let actor = Actor::of(services, &self.connection, client);
        rooms::join_claimed(&actor, &self.connection, client).await;
        actor.perform_all(actions).await;
        Ok(())
    }

    /// Makes the connection unreachable, and informs the plugins.
    async fn depart(&mut self, end: &SessionEnd) {
        let left = membership::disconnect(&self.services, &self.connection);
        self.report_end(end, left).await;
    }

    /// Informs the plugins that the connection, which can no longer be reached, has left its rooms and ended.
    async fn report_end(&mut self, end: &SessionEnd, left: Vec<(Arc<str>, MemberChange)>) {
        self.stage = Stage::Departed;
        let services = &*self.services;
        let client = &self.client;
        services
            .webhooks
            .disconnected(client, end.code, &end.reason);
        let actor = Actor::gone(services, client);
        for (room, change) in left {
            actor.report(change, &room).await;
        }
        let plugins = services.manager.enter().await;
        let actions = pipeline::disconnected(&plugins, client, None, end.code, &end.reason).await;
        drop(plugins);
        actor.perform_all(actions).await;
    }

    /// Sends the client the messages to its user that it missed, and then live ones.
    async fn replay(&mut self, history: JoinedHistory) {
        let (services, connection) = (&*self.services, &self.connection);
        if !history.replay.is_empty() {
            self.wire.open();
        }
        let name = HistoryName::User(connection.user());
        let mut live = pin!(services.router.go_live(connection, name, history));
        let written = serve::write_until(live.as_mut(), &mut self.wire);
        if timeout(user_history::REPLAY_TIME_MAX, written)
            .await
            .is_err()
        {
            let reason = "the client reads too slowly";
            services
                .router
                .close(connection, CloseCode::SLOW_CONSUMER, reason);
        }
    }

    fn welcome(&self, user: Option<&RoomPosition>) -> Frame {
        let live = self.services.live.load();
        let send_key = self.wire.send_key();
        Welcome {
            connection_id: &self.connection.client().connection,
            user_id: self.connection.user(),
            node_id: self.services.ids.node(),
            heartbeat_interval_ms: live.server.ping_interval,
            token_expires_in_ms: self.token.left(SystemTime::now()),
            user,
            limits: WelcomeLimits {
                frame_bytes_max: live.limits.frame_bytes_max,
                messages_per_second: live.limits.messages_per_second,
                messages_burst: live.limits.messages_burst,
                rooms_max: live.limits.rooms_per_connection_max,
            },
            send_key: send_key.as_deref(),
        }
        .encode()
    }

    /// Makes a token that was accepted the one of the connection.
    fn replace_token(&mut self, token: Replacement) {
        let Replacement {
            claims,
            expires_at,
            mark,
        } = token;
        let info = MemberInfo::in_claims(&claims);
        self.client = Arc::new(ClientInfo {
            claims,
            ..ClientInfo::clone(&self.client)
        });
        self.token = TokenClock::replacing(expires_at, self.connection.v1());
        let router = &self.services.router;
        router.replace_token(&self.connection, mark, info);
    }

    /// Closes the connection properly if the client cooperates, in bounded time, and counts the end.
    async fn finish(&mut self, end: SessionEnd) {
        self.stage = Stage::Ended;
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
        // From here on, the outbox accepts nothing.
        self.connection.outbox().close(CloseCode::NORMAL, "");
        if let Some(request) = &end.owed {
            metrics.closes.of(request.code).increment();
        }
        let slow = end
            .owed
            .as_ref()
            .is_some_and(|request| request.code == CloseCode::SLOW_CONSUMER);
        let farewell = timeout(CLOSE_TIMEOUT, self.wire.say_goodbye(end.owed)).await;
        let lost = match farewell {
            _ if slow => DropReason::SlowConsumer,
            Ok(_) => DropReason::ConnectionLost,
            Err(_) => DropReason::CloseTimeout,
        };
        self.services.router.table().detach(&self.connection, lost);
    }

    /// Ends the connection after a panic, and cleans up everything that belongs to it.
    async fn fail(&mut self, fault: &str) {
        let (stage, services) = (self.stage, self.services.clone());
        let left = membership::disconnect(&services, &self.connection);
        let client = self.connection.client();
        SessionFailed {
            connection: &client.connection,
            user: &client.user,
            fault,
        }
        .emit();
        let end = || {
            closed_by_server(CloseRequest {
                code: CloseCode::INTERNAL,
                reason: "the server failed; connect again".to_owned(),
            })
        };
        if stage == Stage::Arrived {
            let end = end();
            let reported = AssertUnwindSafe(self.report_end(&end, left));
            if reported.catch_unwind().await.is_err() {
                debug!("plugins were not informed of the end of a connection that failed");
            }
        }
        if stage != Stage::Ended {
            self.wire.open();
            let finished = AssertUnwindSafe(self.finish(end())).catch_unwind().await;
            if finished.is_err() {
                debug!("a connection that failed was cut off");
            }
        }
        let lost = DropReason::ConnectionLost;
        services.router.table().detach(&self.connection, lost);
    }
}

/// Runs if a session is dropped before its end, for example when the process exits.
impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        let table = self.services.router.table();
        table.detach(&self.connection, DropReason::CutOff);
    }
}

/// The message of a panic.
fn fault(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
        .to_owned()
}

fn closed_by_server(request: CloseRequest) -> SessionEnd {
    SessionEnd {
        code: request.code.number(),
        reason: request.reason.clone(),
        unexpected: request.code.unexpected(),
        owed: Some(request),
    }
}
