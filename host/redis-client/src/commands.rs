//! The node's link for commands. If it breaks, it is replaced, and commands fail at once in the meantime: a command
//! never hangs.

mod script;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use signalbox_telemetry::{
    metrics::Metrics,
    supervise::{self, OwnedTask},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

pub use self::script::Script;
use super::{
    endpoints::Endpoints,
    link::{Link, LinkError},
    login::LoginChanges,
    topology::Topology,
};

/// How often all servers of Redis are checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Failed checks in a row after which the link is given up: a single failure may come from a short load peak.
const LOOKS_FAILED_MAX: u32 = 2;

/// The pause between two attempts to connect: doubled from the first value up to the second.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// A link to a cluster stays in use while it is replaced, but is not replaced more often than this.
const CLUSTER_REPLACE_PAUSE: Duration = Duration::from_secs(2);

/// Redis did not carry out a command, or it is unknown whether it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(Arc<str>);

impl Unavailable {
    /// Creates the error for a `reason`, worded for the log.
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self(reason.into())
    }
}

/// Sends commands. Clones share the link, and their commands share pipelines.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<CommandsShared>,
    /// Ends with the last of the clones.
    _supervisor: Arc<OwnedTask>,
}

struct CommandsShared {
    live: ArcSwapOption<CurrentLink>,
    /// The number of the link that is up; 0 while none is.
    up: watch::Sender<u64>,
    /// The reason why a server of Redis cannot be reached; `None` if all can.
    fault: Mutex<Option<Unavailable>>,
    timeout: Duration,
}

/// A link that is in use.
struct CurrentLink {
    link: Link,
    number: u64,
    since: Instant,
    /// Notified when a command finds the link broken.
    broken: Notify,
}

impl Commands {
    /// Starts connecting, and keeps the link up until the last clone is dropped.
    pub fn start(endpoints: Endpoints, metrics: &Arc<Metrics>) -> Self {
        let shared = Arc::new(CommandsShared {
            live: ArcSwapOption::empty(),
            up: watch::Sender::new(0),
            fault: Mutex::new(Some(Unavailable::new("not connected to Redis yet"))),
            timeout: endpoints.command_timeout(),
        });
        let state = (endpoints, shared.clone(), 0);
        let task = supervise::spawn("link to Redis", metrics, state, |state| {
            let (endpoints, shared, number) = state;
            keep_linked(endpoints, shared, number).boxed()
        });
        Self {
            shared,
            _supervisor: Arc::new(task.into()),
        }
    }

    /// The number of the link that is up, 0 while none is. Numbers only grow: another number means another connection,
    /// and the state of the servers behind it may have changed.
    pub fn links(&self) -> watch::Receiver<u64> {
        self.shared.up.subscribe()
    }

    /// The topology behind the current link.
    ///
    /// # Errors
    /// Returns [`Unavailable`] with the reason if there is no link.
    pub fn topology(&self) -> Result<Topology, Unavailable> {
        self.shared.live().map(|live| live.link.topology())
    }

    /// Whether the link replaced another one less than `time` ago.
    pub fn is_replaced_since(&self, time: Duration) -> bool {
        let live = self.shared.live.load();
        live.as_ref()
            .is_some_and(|live| live.number > 1 && live.since.elapsed() < time)
    }

    /// Whether all of Redis answers, as of the last check.
    ///
    /// # Errors
    /// Returns [`Unavailable`] that names what does not answer.
    pub fn check(&self) -> Result<(), Unavailable> {
        self.shared.fault().map_or(Ok(()), Err)
    }

    /// Runs one command. In a cluster it may be carried out twice if a connection breaks, so it must be safe to repeat.
    ///
    /// # Errors
    /// Returns [`Unavailable`], at the latest after the command timeout; the command may have been carried out
    /// nevertheless.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let live = self.shared.live()?;
        let answer = timeout(self.shared.timeout, live.link.run(command)).await;
        read(live.conclude(answer.unwrap_or_else(|_| Err(late())))?)
    }

    /// Runs one command once or not at all.
    ///
    /// # Errors
    /// Returns [`Unavailable`], at the latest after the command timeout; the command may have been carried out
    /// nevertheless.
    pub async fn run_once<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let live = self.shared.live()?;
        let answer = timeout(self.shared.timeout, live.link.run_once(command)).await;
        read(live.conclude(answer.unwrap_or_else(|_| Err(late())))?)
    }

    /// Runs many commands, in one pipeline if one server has all keys. The answers are in the order of the commands.
    /// Each command may be carried out twice, as by [`Commands::run`].
    ///
    /// # Errors
    /// Returns [`Unavailable`] if any of them failed; others may have been carried out.
    pub async fn run_all(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, Unavailable> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let live = self.shared.live()?;
        let answers = timeout(self.shared.timeout, live.link.run_all(commands)).await;
        let answers = answers.unwrap_or_else(|_| Err(late()));
        let array = live.conclude(answers.map(Value::Array))?;
        read(array)
    }
}

impl CommandsShared {
    fn live(&self) -> Result<Arc<CurrentLink>, Unavailable> {
        self.live.load_full().ok_or_else(|| {
            self.fault()
                .unwrap_or_else(|| Unavailable::new("not connected to Redis"))
        })
    }

    fn fault(&self) -> Option<Unavailable> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_fault(&self, fault: Option<Unavailable>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl CurrentLink {
    fn conclude(&self, answer: Result<Value, RedisError>) -> Result<Value, Unavailable> {
        answer.and_then(Value::extract_error).map_err(|error| {
            if self.is_lost(&error) {
                self.broken.notify_one();
            }
            describe(&error)
        })
    }

    /// Whether the error means that this link is no longer usable.
    fn is_lost(&self, error: &RedisError) -> bool {
        // A server that has become a replica refuses writes for good; the master is elsewhere now. A link to a cluster
        // repairs its connections itself.
        let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        matches!(self.link, Link::One { .. }) && (demoted || error.is_connection_dropped())
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, Unavailable> {
    redis::from_redis_value(value)
        .map_err(|error| Unavailable::new(format!("Redis returned an unexpected answer: {error}")))
}

fn late() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

fn describe(error: &RedisError) -> Unavailable {
    if error.is_timeout() {
        Unavailable::new("Redis does not answer in time")
    } else {
        Unavailable::new(format!("Redis: {error}"))
    }
}

/// Makes a link, waits until it is no longer usable, and makes another. `number` is that of the last link.
async fn keep_linked(endpoints: &Endpoints, shared: &CommandsShared, number: &mut u64) {
    let mut logins = endpoints.login_changes();
    loop {
        *number += 1;
        logins.begin();
        let mut live = Arc::new(CurrentLink {
            link: connect(endpoints, shared).await,
            number: *number,
            since: Instant::now(),
            broken: Notify::new(),
        });
        info!(topology = ?live.link.topology(), "connected to Redis");
        shared.live.store(Some(live.clone()));
        shared.up.send_replace(live.number);
        let reason = watch_over(&mut live, shared, endpoints, &mut logins).await;
        warn!(%reason, "the connection to Redis is unusable; connecting again");
        if live.link.topology() == Topology::Cluster {
            // Commands to the healthy servers continue in the meantime.
            sleep_until(live.since + CLUSTER_REPLACE_PAUSE).await;
        } else {
            shared.set_fault(Some(reason));
            shared.live.store(None);
            shared.up.send_replace(0);
        }
    }
}

/// Switches a link to the current login. A link to a cluster is replaced by one to the same servers, because it makes
/// connections by itself; commands that are under way end on the old one.
async fn log_in(
    live: &mut Arc<CurrentLink>,
    shared: &CommandsShared,
    endpoints: &Endpoints,
) -> Result<(), RedisError> {
    if let Link::One { connection, .. } = &live.link {
        return endpoints.log_in(connection).await;
    }
    *live = Arc::new(CurrentLink {
        link: endpoints.link().await?,
        number: live.number,
        since: live.since,
        broken: Notify::new(),
    });
    shared.live.store(Some(live.clone()));
    Ok(())
}

async fn connect(endpoints: &Endpoints, shared: &CommandsShared) -> Link {
    let mut pause = RETRY_PAUSE.0;
    let mut last_said = None;
    loop {
        match endpoints.link().await {
            Ok(link) => return link,
            Err(error) => {
                let reason = describe(&error);
                if last_said.as_ref() != Some(&reason) {
                    warn!(%reason, "Redis cannot be reached; trying again until it can");
                }
                shared.set_fault(Some(reason.clone()));
                last_said = Some(reason);
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE.1);
            }
        }
    }
}

/// Checks whether all of Redis answers, and keeps the link logged in, until the link is no longer usable. Returns the
/// reason.
async fn watch_over(
    live: &mut Arc<CurrentLink>,
    shared: &CommandsShared,
    endpoints: &Endpoints,
    logins: &mut LoginChanges,
) -> Unavailable {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = 0;
    loop {
        tokio::select! {
            () = live.broken.notified() => return Unavailable::new("the connection to Redis is lost"),
            () = logins.changed() => {}
            _ = ticks.tick() => {}
        }
        if logins.is_due() {
            let result = log_in(live, shared, endpoints).await;
            logins.record_result("commands", result.map_err(|error| describe(&error)));
        }
        let looked = timeout(shared.timeout, live.link.look()).await;
        let fault = match looked.unwrap_or_else(|_| Err(late().into())) {
            Ok(()) => None,
            Err(LinkError::Unwell(reason)) => Some(Unavailable::new(reason)),
            Err(LinkError::Outdated(reason)) => return Unavailable::new(reason),
            Err(LinkError::Error(error)) => {
                failed += 1;
                let reason = describe(&error);
                if failed >= LOOKS_FAILED_MAX || live.is_lost(&error) {
                    return reason;
                }
                shared.set_fault(Some(reason));
                continue;
            }
        };
        failed = 0;
        shared.set_fault(fault);
    }
}
