//! Listens on the channels of this server, and proves that messages that are published there arrive.
//!
//! It uses a separate connection, to the Redis server that owns the channel. A subscription is never repaired: if the connection
//! is lost, the channel moves to another server, or probes do not come back, a new one is made, and nothing from the old
//! connection is accepted. So nothing is delivered twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use redis::{PushInfo, PushKind, RedisError, aio::MultiplexedConnection};
use signalbox_protocol::timestamp::unix_millis;
use signalbox_redis_client::{Commands, Endpoints, LoginChanges, Topology, Unavailable, is_master};
use signalbox_telemetry::metrics::{Metrics, events::SubscriptionLost};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    health::{Health, Publishing, Silence},
    inbox::Inbox,
    keys::KeyNames,
    post::Post,
};

/// How often a probe is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before the next attempt: doubled from the first to the second.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The longest time for connecting and subscribing together.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// State that the tasks of one subscription share.
struct Subscription {
    connection: MultiplexedConnection,
    topology: Topology,
    /// Cleared before anything else when the subscription is given up.
    open: Arc<AtomicBool>,
    lost: Arc<Notify>,
}

/// Ends a subscription without losing messages that are on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct SubscriptionDrain {
    /// Cancelled when this server should get no more messages.
    asked: CancellationToken,
    /// Cancelled when all messages for it have come in, and later publishers learn that nobody listens.
    done: CancellationToken,
}

impl SubscriptionDrain {
    /// Returns when every message that was published for this server has come in, and no more will.
    pub(super) async fn say(&self) {
        self.asked.cancel();
        self.done.cancelled().await;
    }
}

/// Rejects everything that the connection may still push.
impl Drop for Subscription {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Release);
    }
}

/// Listens until it is aborted.
pub(super) async fn listen(
    endpoints: &Endpoints,
    commands: &Commands,
    keys: &KeyNames,
    inbox: &Arc<Inbox>,
    health: &Health,
    metrics: &Metrics,
    farewell: &SubscriptionDrain,
) {
    let mut pause = RETRY_PAUSE.0;
    let mut last_said = String::new();
    let mut logins = endpoints.login_changes();
    loop {
        logins.begin();
        let subscribed = timeout(SUBSCRIBE_TIMEOUT, subscribe(endpoints, keys, inbox)).await;
        let reason = match subscribed {
            Ok(Ok(subscription)) => {
                pause = RETRY_PAUSE.0;
                info!(topology = ?subscription.topology, "subscribed to this server's channel");
                inbox.subscribed();
                let login = Login {
                    endpoints,
                    changes: &mut logins,
                };
                let reason = tokio::select! {
                    reason = serve(&subscription, commands, keys, health, login) => reason,
                    () = farewell.asked.cancelled() => {
                        subscription.end(keys).await;
                        farewell.done.cancel();
                        // Notices about routes and revocations still come in.
                        std::future::pending().await
                    }
                };
                SubscriptionLost {
                    metrics,
                    reason: &reason,
                }
                .emit();
                last_said.clone_from(&reason);
                reason
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "Redis does not answer in time".to_owned(),
        };
        health.deaf(format!("messages do not arrive: {reason}"));
        if last_said != reason {
            warn!(reason, "not subscribed; subscribing again");
            last_said = reason;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE.1);
    }
}

async fn subscribe(
    endpoints: &Endpoints,
    keys: &KeyNames,
    inbox: &Arc<Inbox>,
) -> Result<Subscription, RedisError> {
    let channel = keys.server_channel(keys.own_id());
    let (open, lost) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
    let push = {
        let (inbox, open, lost) = (inbox.clone(), open.clone(), lost.clone());
        move |push: PushInfo| match push.kind {
            PushKind::Message if open.load(Ordering::Acquire) => {
                inbox.receive(push.data, Publishing::Classic)
            }
            PushKind::SMessage if open.load(Ordering::Acquire) => {
                inbox.receive(push.data, Publishing::Sharded)
            }
            // The slot of the channel moved, or the server is no longer a master.
            PushKind::SUnsubscribe | PushKind::Unsubscribe | PushKind::Disconnection => {
                lost.notify_one()
            }
            _ => {}
        }
    };
    let subscriber = endpoints.subscriber(&channel, push).await?;
    let mut connection = subscriber.connection;
    let topology = subscriber.topology;
    if topology == Topology::Cluster {
        redis::cmd("SSUBSCRIBE")
            .arg(&channel)
            .exec_async(&mut connection)
            .await?;
    }
    // In a cluster too: workers and nodes with the other `compat` publish the other way.
    redis::cmd("SUBSCRIBE")
        .arg(&channel)
        .arg(keys.broadcast_channel())
        .arg(keys.routes_channel())
        .arg(keys.revoked_channel())
        .exec_async(&mut connection)
        .await?;
    Ok(Subscription {
        connection,
        topology,
        open,
        lost,
    })
}

/// Sends probes until the subscription is unusable, and returns the reason.
async fn serve(
    subscription: &Subscription,
    commands: &Commands,
    keys: &KeyNames,
    health: &Health,
    mut login: Login<'_>,
) -> String {
    let publishing = Post::publishing(subscription.topology, keys);
    // Messages of an earlier subscription prove nothing about this one.
    health.has_heard(publishing);
    let mut silence = Silence::begin();
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = subscription.lost.notified() => return "the connection is lost, or the channel moved".to_owned(),
            () = login.changes.changed() => {}
            _ = ticks.tick() => {}
        }
        login.keep(&subscription.connection).await;
        if silence.lasts_too_long(health.has_heard(publishing)) {
            return "nothing that was published came back for three seconds".to_owned();
        }
        let (probed, serves) =
            tokio::join!(probe(commands, keys, health), subscription.is_at_master());
        if probed.is_err() {
            // The link for commands is made at the same time as this one.
            ticks.reset_after(RETRY_PAUSE.0);
        }
        if !serves {
            return "its server is no longer a master".to_owned();
        }
    }
}

/// Keeps the subscription logged in as the configured user.
struct Login<'l> {
    endpoints: &'l Endpoints,
    changes: &'l mut LoginChanges,
}

impl Login<'_> {
    /// Logs in again if the user or the password changed.
    async fn keep(&mut self, connection: &MultiplexedConnection) {
        if self.changes.is_due() {
            let result = self.endpoints.log_in(connection).await;
            self.changes.record_result("subscription", result);
        }
    }
}

impl Subscription {
    /// Unsubscribes from this server's own channel.
    async fn end(&self, keys: &KeyNames) {
        let channel = keys.server_channel(keys.own_id());
        let mut connection = self.connection.clone();
        for (command, applies) in [
            ("SUNSUBSCRIBE", self.topology == Topology::Cluster),
            ("UNSUBSCRIBE", true),
        ] {
            if applies
                && let Err(error) = redis::cmd(command)
                    .arg(&channel)
                    .exec_async(&mut connection)
                    .await
            {
                debug!(%error, "the subscription did not end in an orderly way");
            }
        }
    }

    /// Whether the connected Redis server still owns the channel. One that became a replica still delivers published messages,
    /// but publishers learn that nobody listens.
    async fn is_at_master(&self) -> bool {
        if self.topology == Topology::Single {
            return true;
        }
        let mut connection = self.connection.clone();
        let role = redis::cmd("ROLE").query_async(&mut connection).await;
        // If it does not answer, probes do not come back either.
        role.map_or(true, |role| is_master(&role))
    }
}

/// Sends a message to this node itself, along the path of all messages.
async fn probe(commands: &Commands, keys: &KeyNames, health: &Health) -> Result<(), Unavailable> {
    let sent = unix_millis(SystemTime::now());
    let post = Post::new(commands, keys, keys.own_id(), &Inbox::probe(sent))?;
    health.probed();
    commands.run_once(post.command()).await
}
