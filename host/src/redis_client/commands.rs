//! The node's link for commands. It breaks, is made anew, and meanwhile says so at once: a command never hangs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::endpoints::{Endpoints, Link, Topology};

/// Failed commands in a row after which the link counts as broken.
const FAILURES_MAX: u32 = 3;

/// Pause between two attempts to connect: doubled from the first to the second.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// A link to a cluster stays in use while it is replaced, but is not replaced more often than this.
const CLUSTER_REPLACE_PAUSE: Duration = Duration::from_secs(2);

/// Redis did not do what it was asked, or it cannot be told whether it did.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(Arc<str>);

impl Unavailable {
    /// For a `reason` of the caller's, in words for the log.
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self(reason.into())
    }
}

/// Sends commands. Clones share the link, and their commands travel in common pipelines.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    _supervisor: Arc<Supervisor>,
}

struct Shared {
    link: ArcSwapOption<Live>,
    /// The number of the link that is up; 0 while none is.
    up: watch::Sender<u64>,
    /// Why the last link broke, or none was to be had.
    reason: Mutex<Arc<str>>,
    broken: Notify,
    failures: AtomicU32,
    timeout: Duration,
}

struct Live {
    link: Link,
    topology: Topology,
    number: u64,
}

/// Ends the supervising task with the last of the clones.
struct Supervisor(AbortHandle);

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Commands {
    /// Starts connecting, and goes on until the last clone is dropped.
    pub fn start(endpoints: Endpoints) -> Self {
        let shared = Arc::new(Shared {
            link: ArcSwapOption::empty(),
            up: watch::Sender::new(0),
            reason: Mutex::new("not connected yet".into()),
            broken: Notify::new(),
            failures: AtomicU32::new(0),
            timeout: endpoints.command_timeout(),
        });
        let task = tokio::spawn(supervise(endpoints, shared.clone()));
        Self {
            shared,
            _supervisor: Arc::new(Supervisor(task.abort_handle())),
        }
    }

    /// The number of the link that is up, 0 while none is. Numbers only grow: another number is another connection,
    /// and what the server behind it knows may have changed.
    pub fn links(&self) -> watch::Receiver<u64> {
        self.shared.up.subscribe()
    }

    /// Whether a link is up, and if none is, why.
    ///
    /// # Errors
    /// [`Unavailable`] with the reason.
    pub fn status(&self) -> Result<Topology, Unavailable> {
        match &*self.shared.link.load() {
            Some(live) => Ok(live.topology),
            None => Err(self.shared.down()),
        }
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Unavailable`], at the latest after the command timeout.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let live = self.shared.live()?;
        let answer = match &live.link {
            Link::One(connection) => {
                let mut connection = connection.clone();
                timeout(self.shared.timeout, connection.req_packed_command(command)).await
            }
            Link::Cluster(connection) => {
                let mut connection = connection.clone();
                timeout(self.shared.timeout, connection.req_packed_command(command)).await
            }
        };
        self.shared.conclude(&live, answer.unwrap_or_else(|_| Err(late())))
    }

    /// Runs many commands, in one pipeline where one server has all keys. Answers stand in the order of the commands.
    ///
    /// # Errors
    /// [`Unavailable`] where any of them failed; others may have been carried out.
    pub async fn run_all(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Unavailable> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.shared.live()?;
        let answers = match &live.link {
            Link::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                let mut connection = connection.clone();
                timeout(self.shared.timeout, pipeline.query_async(&mut connection)).await
            }
            Link::Cluster(connection) => {
                // Keys of several slots cannot share a pipeline; commands that are under way together share packets.
                let each = commands.iter().map(|command| {
                    let mut connection = connection.clone();
                    async move { connection.req_packed_command(command).await }
                });
                timeout(self.shared.timeout, futures_util::future::try_join_all(each)).await
            }
        };
        match answers.unwrap_or_else(|_| Err(late())) {
            Ok(answers) => {
                self.shared.succeeded();
                Ok(answers)
            }
            Err(error) => Err(self.shared.failed(&live, &error)),
        }
    }
}

impl Shared {
    fn live(&self) -> Result<Arc<Live>, Unavailable> {
        self.link.load_full().ok_or_else(|| self.down())
    }

    fn down(&self) -> Unavailable {
        Unavailable(self.reason())
    }

    fn reason(&self) -> Arc<str> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_reason(&self, reason: Arc<str>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn conclude<T: FromRedisValue>(&self, live: &Live, answer: Result<Value, RedisError>) -> Result<T, Unavailable> {
        match answer.and_then(Value::extract_error) {
            Ok(value) => {
                self.succeeded();
                redis::from_redis_value(value).map_err(|error| Unavailable::new(format!("an unexpected answer: {error}")))
            }
            Err(error) => Err(self.failed(live, &error)),
        }
    }

    fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self, live: &Live, error: &RedisError) -> Unavailable {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        // Who has become a replica refuses writes for good; the master is elsewhere now.
        let moved = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        let lost = error.is_connection_dropped() && matches!(live.link, Link::One(_));
        let reason = describe(error);
        if moved || lost || failures >= FAILURES_MAX {
            self.break_link(live, &reason);
        }
        Unavailable::new(reason)
    }

    fn break_link(&self, live: &Live, reason: &Arc<str>) {
        let is_current = self.link.load().as_ref().is_some_and(|current| current.number == live.number);
        if is_current {
            self.set_reason(reason.clone());
            self.broken.notify_one();
        }
    }
}

fn late() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// The error without what the crate adds for its own logs.
fn describe(error: &RedisError) -> Arc<str> {
    if error.is_timeout() {
        "Redis does not answer in time".into()
    } else {
        format!("{error}").into()
    }
}

/// Makes a link, waits until it is broken, and makes another.
async fn supervise(endpoints: Endpoints, shared: Arc<Shared>) {
    let mut number = 0;
    loop {
        number += 1;
        let (link, topology) = connect(&endpoints, &shared).await;
        info!(?topology, "connected to Redis");
        shared.failures.store(0, Ordering::Relaxed);
        shared.link.store(Some(Arc::new(Live { link, topology, number })));
        shared.up.send_replace(number);
        let since = Instant::now();
        shared.broken.notified().await;
        if topology == Topology::Cluster {
            // Commands to the servers that are well go on meanwhile.
            tokio::time::sleep_until(since + CLUSTER_REPLACE_PAUSE).await;
        } else {
            shared.link.store(None);
            shared.up.send_replace(0);
        }
        warn!(reason = &*shared.reason(), "the link to Redis is broken; connecting anew");
    }
}

async fn connect(endpoints: &Endpoints, shared: &Shared) -> (Link, Topology) {
    let mut pause = RETRY_PAUSE.0;
    let mut last_said: Option<Arc<str>> = None;
    loop {
        match endpoints.link().await {
            Ok(link) => return link,
            Err(error) => {
                let reason: Arc<str> = describe(&error);
                if last_said.as_ref() != Some(&reason) {
                    warn!(%reason, "Redis cannot be reached; trying again until it can");
                }
                // While a link to a cluster is being replaced, the old one is in use and its state is what counts.
                shared.set_reason(reason.clone());
                last_said = Some(reason);
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE.1);
            }
        }
    }
}
