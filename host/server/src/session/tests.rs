//! Tests a session over sockets that behave as no client could.

use std::{
    io,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use signalbox_broker::{MemoryBroker, MemoryHub};
use signalbox_config::{Config, Limits, TokenTimes};
use signalbox_plugin_runtime::{Loader, MemoryStore};
use signalbox_protocol::ClientInfo;
use signalbox_router::{LocalTable, SlotLimits, SocketSink, write_batch};
use signalbox_webhooks::MemoryQueue;
use tokio::task::coop;

use super::*;

/// Longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// No limit on the number of connections.
const NO_LIMIT: SlotLimits = SlotLimits {
    per_user: 0,
    in_all: 0,
    ping_patience: PATIENCE,
};

/// The first byte and the body of a frame; all of them are shorter than 126 bytes.
type SentFrame = (u8, Vec<u8>);

/// The frames that were sent.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<SentFrame>>>);

impl Sent {
    fn frames(&self) -> MutexGuard<'_, Vec<SentFrame>> {
        self.0.lock().expect("no test panics with it")
    }

    /// The code of the close frame, if that is the last frame.
    fn close_code(&self) -> Option<u16> {
        match self.frames().last()? {
            (0x88, body) => Some(u16::from_be_bytes([body[0], body[1]])),
            _ => None,
        }
    }
}

impl SocketSink for Sent {
    fn try_write(&self, mut first: &[u8], second: &[u8]) -> io::Result<usize> {
        let taken = first.len();
        assert!(second.is_empty(), "no frame is large");
        while let [kind, len, after @ ..] = first {
            let (body, next) = after.split_at(usize::from(*len));
            self.frames().push((*kind, body.to_vec()));
            first = next;
        }
        Ok(taken)
    }
}

/// The result of a read.
type Read = Poll<Option<Result<Incoming, SocketError>>>;

/// A socket that reads from a script until the server has sent its close frame.
struct Scripted {
    sent: Sent,
    read: fn(&mut Context<'_>) -> Read,
    /// The answer to the server's close frame; `None` if the connection ends without one.
    farewell: Option<Incoming>,
}

impl Socket for Scripted {
    fn take_sink(&mut self) -> Option<Box<dyn SocketSink>> {
        Some(Box::new(self.sent.clone()))
    }

    fn poll_room(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Read {
        match self.sent.close_code() {
            Some(_) => Poll::Ready(self.farewell.take().map(Ok)),
            None => (self.read)(cx),
        }
    }

    fn received(&self) -> u64 {
        0
    }

    fn is_midway(&self) -> bool {
        false
    }

    fn kept_bytes(&self) -> usize {
        0
    }

    fn skip_messages(&mut self) {}

    fn poll_discard(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn set_frame_bytes_max(&mut self, _: usize) {}
}

fn scripted(read: fn(&mut Context<'_>) -> Read) -> (Scripted, Sent) {
    let sent = Sent::default();
    let socket = Scripted {
        sent: sent.clone(),
        read,
        farewell: None,
    };
    (socket, sent)
}

/// A socket that always has another frame ready, until it is closed.
fn endless() -> (Scripted, Sent) {
    let (mut socket, sent) = scripted(|cx| {
        // Consumes the task's budget as a socket of the runtime does; otherwise the task would never yield.
        ready!(coop::poll_proceed(cx)).made_progress();
        Poll::Ready(Some(Ok(Incoming::Text(
            r#"{"type":"heartbeat","id":"1"}"#.into(),
        ))))
    });
    socket.farewell = Some(Incoming::Close {
        code: 1000,
        reason: String::new(),
    });
    (socket, sent)
}

fn services(limits: Limits) -> Arc<Services> {
    let metrics = Arc::<Metrics>::default();
    let table = Arc::new(LocalTable::new(limits.outbox_bytes_max, metrics.clone()));
    let broker = MemoryBroker::join(Arc::<MemoryHub>::default(), "n", table.clone());
    let store = Arc::<MemoryStore>::default();
    let loader = Loader::new("n", None, store, metrics.clone()).expect("an engine");
    let webhooks = Webhooks::start("n", Arc::<MemoryQueue>::default(), &metrics);
    let router = Arc::new(Router::new(
        table,
        Arc::new(broker),
        metrics.clone(),
        Duration::from_millis(500),
    ));
    let live = Arc::new(ConfigHandle::new(LiveConfig {
        limits,
        token_times: TokenTimes {
            grace: Duration::ZERO,
            ..Config::default().token_times
        },
        ..LiveConfig::new(&Config::default(), &Config::default())
    }));
    Arc::new(Services {
        room_reader: RoomReader::new(router.clone(), live.clone()),
        router,
        manager: Arc::new(PluginManager::new(loader, metrics.clone())),
        authenticator: Authenticator::new(&Config::default().auth, metrics.clone())
            .expect("no key is needed"),
        metrics,
        ids: IdSource::new("n", 1),
        tracer: Tracer::default(),
        webhooks,
        live,
        unfinished: Arc::default(),
        draining: AtomicBool::new(false),
    })
}

fn ann() -> ClientInfo {
    ClientInfo {
        connection: "c".to_owned(),
        user: "ann".to_owned(),
        claims: "{}".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        connected_at_ms: 0,
    }
}

/// Serves `socket` until it ends.
async fn serve(
    services: Arc<Services>,
    socket: impl Socket + Sync + 'static,
    expires_at: Option<SystemTime>,
) {
    let slot = services.router.table().reserve("ann", NO_LIMIT);
    let connection = Arc::new(Connection::new(ann(), false));
    let slot = slot.expect("there is no limit");
    let session = Session::new(socket, services, connection, expires_at, slot);
    // A separate task: if it never ends, the test still does.
    let session = tokio::spawn(session.run());
    let ended = timeout(PATIENCE, session).await;
    ended.expect("the session ends").expect("without a panic");
}

fn unlimited() -> Limits {
    Limits {
        messages_per_second: 0,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_expires_although_the_socket_is_never_empty() {
    let (socket, sent) = endless();
    // Long enough for the first answer on a busy machine.
    let soon = SystemTime::now() + Duration::from_secs(2);
    serve(services(unlimited()), socket, Some(soon)).await;
    assert_eq!(sent.close_code(), Some(4500));
    // The client was answered meanwhile.
    assert_eq!(sent.frames()[0].0, 0x81);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_closes_although_the_socket_is_never_empty() {
    let services = services(unlimited());
    let (socket, sent) = endless();
    let drain = async {
        let connections = loop {
            let connections = services.router.table().connections();
            if !connections.is_empty() {
                break connections;
            }
            tokio::task::yield_now().await;
        };
        connections[0].outbox().close(CloseCode::DRAIN, "");
    };
    tokio::join!(serve(services.clone(), socket, None), drain);
    assert_eq!(sent.close_code(), Some(4000));
}

/// An idle connection takes as much memory as the future of its session. This test fails if the future stores something
/// twice, as an async function does with its arguments.
#[tokio::test]
async fn the_future_of_a_session_stays_small() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stream = tokio::net::TcpStream::connect(address).await;
    let socket = TcpSocket::new(stream.expect("a connection"), &[], 1 << 16);
    let services = services(unlimited());
    let slot = services.router.table().reserve("ann", NO_LIMIT);
    let slot = slot.expect("there is no limit");
    let connection = Arc::new(Connection::new(ann(), false));
    let session = Session::new(socket, services, connection, None, slot);
    let bytes = size_of_val(&write_batch(session.run()));
    assert!(bytes <= 2560, "{bytes} bytes");
}

#[tokio::test]
async fn a_session_that_panics_leaves_no_ghost_and_is_counted() {
    let services = services(unlimited());
    let (socket, sent) = scripted(|_| panic!("a fault of the server"));
    serve(services.clone(), socket, None).await;
    assert_eq!(sent.close_code(), Some(4007));
    let table = services.router.table();
    assert!(table.is_empty() && table.connections().is_empty());
    let metrics = &services.metrics;
    assert_eq!(metrics.unexpected_disconnects.get(), 1);
    assert_eq!(metrics.closes.of(CloseCode::INTERNAL).get(), 1);
    assert_eq!(metrics.active_connections.get(), 0);
}

#[tokio::test]
async fn a_session_that_panics_with_rooms_and_waiting_messages_leaves_nothing() {
    let services = services(unlimited());
    let (socket, _) = scripted(|_| Poll::Pending);
    let slot = services.router.table().reserve("ann", NO_LIMIT);
    let connection = Arc::new(Connection::new(ann(), false));
    let slot = slot.expect("there is no limit");
    let mut session = Session::new(socket, services.clone(), connection.clone(), None, slot);
    session.arrive().await.expect("nobody refuses it");
    services.router.join(&connection, "room").await;
    let table = services.router.table();
    assert!(table.push_message(&connection, Frame::from("waits".to_owned())));
    session.fail("a fault").await;
    drop(session);
    assert!(!connection.is_member("room") && table.is_empty());
    assert!(!table.push_message(&connection, Frame::from("late".to_owned())));
    let dropped = &services.metrics.messages_dropped;
    assert_eq!(
        dropped.of(DropReason::ConnectionLost).get(),
        0,
        "it was written"
    );
    assert_eq!(dropped.of(DropReason::Closing).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_once_more_after_the_process_was_stopped() {
    let services = services(unlimited());
    let (socket, sent) = scripted(|_| Poll::Pending);
    let session = tokio::spawn(serve_without_patience(services.clone(), socket));
    while services.router.table().connections().is_empty() {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    // All at once: this is how a process that was stopped sees the time pass.
    tokio::time::advance(Duration::from_secs(1_000)).await;
    while sent.frames().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(sent.frames()[0].0, 0x89, "a ping, and no close");
    // From here on, time passes normally, and nothing is heard.
    session.await.expect("without a panic");
    assert_eq!(sent.close_code(), Some(4002));
    let live = services.live.load();
    let answer_time = live.server.idle_timeout - live.server.ping_interval;
    assert!(started.elapsed() >= Duration::from_secs(1_000) + answer_time);
}

async fn serve_without_patience(services: Arc<Services>, socket: Scripted) {
    let slot = services.router.table().reserve("ann", NO_LIMIT);
    let connection = Arc::new(Connection::new(ann(), false));
    let slot = slot.expect("there is no limit");
    Session::new(socket, services, connection, None, slot)
        .run()
        .await;
}
