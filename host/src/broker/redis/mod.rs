//! Many nodes as one through Redis.
//!
//! Who is where: a set of server IDs for each user and room, written by [`routes`] alone and read through [`lookup`],
//! which keeps what it read for a moment. A server ID counts only while its lease is alive ([`lease`]); one without is
//! dead for good, because every boot has another ID, and is taken out by whoever finds it.
//!
//! What is sent: a message is published once for each node that holds its receiver, on that node's own channel, as the
//! bytes that the clients get. [`subscriber`] listens there, and proves once a second that what is published comes
//! back; [`inbox`] hands it out. What a node wants of another one itself goes the same way ([`control`]). A node that gets nothing back for three seconds says so and subscribes anew.
//!
//! Guarantees: at most once between nodes, and in order for a sender and a receiver. A sender is told `offline` where no
//! living node holds the receiver, and gets an error within the command timeout where Redis did not take the message
//! or the receiver's node does not listen.

mod control;
mod health;
mod inbox;
mod keys;
mod lease;
mod lookup;
mod nodes;
mod own_broadcasts;
mod post;
mod routes;
mod subscriber;
mod traced;
mod writer;

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use redis::Cmd;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use self::{
    control::Control,
    health::Health,
    inbox::{Inbox, Receivers},
    keys::{Keys, Name, ServerId},
    lookup::Lookup,
    own_broadcasts::OwnBroadcasts,
    post::Post,
    routes::Routes,
};
use super::{Broker, BrokerError, LocalNode, NodeReport, Target, Told, UserRequest};
use crate::{
    config::{RedisCompat, RedisConfig},
    metrics::Metrics,
    protocol::Frame,
    redis_client::{Commands, EndpointError, Endpoints, Topology, Unavailable},
    supervise::supervised,
    trace::{Span, SpanKind, Trace, Tracer},
};

/// What may be under way to Redis at a time. Over it a sender waits, and is told `unavailable` after the command
/// timeout.
const UNDER_WAY_BYTES_MAX: usize = 16 << 20;

/// After a new link to Redis the other nodes write their routes anew. Until then it is not believed that a user is
/// nowhere.
const BELIEVED_AFTER: Duration = Duration::from_secs(3);

/// Time to take this node's routes away when it goes. What is left behind is found dead by its lease.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// One node's place in a cluster of nodes that meet at Redis.
pub struct RedisBroker {
    commands: Commands,
    keys: Arc<Keys>,
    routes: Arc<Routes>,
    lookup: Arc<Lookup>,
    control: Arc<Control>,
    health: Arc<Health>,
    own_broadcasts: Arc<OwnBroadcasts>,
    under_way: Semaphore,
    tasks: Mutex<Tasks>,
    metrics: Arc<Metrics>,
}

/// What runs beside the callers, until it is dropped.
#[derive(Default)]
struct Tasks {
    /// Keep routes, lease and what is known of others.
    keepers: JoinSet<()>,
    /// Takes what comes in.
    listener: JoinSet<()>,
}

/// What became of one message.
#[derive(Default)]
struct Sent {
    /// Servers that it was published to.
    reached: usize,
    /// Servers that are alive and do not listen.
    unheard: usize,
    failure: Option<Unavailable>,
}

impl RedisBroker {
    /// Joins as `server_id`, which no other boot of any node may ever have had. Works towards being connected from
    /// now on; [`Broker::probe`] says whether it is.
    ///
    /// # Errors
    /// [`EndpointError`] where the configuration names no usable address.
    pub fn join(
        config: &RedisConfig,
        server_id: &str,
        node: Arc<dyn LocalNode>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Result<Self, EndpointError> {
        let endpoints = Endpoints::new(config)?;
        Ok(Self::join_through(
            endpoints, config, server_id, node, metrics, tracer,
        ))
    }

    /// The same through `endpoints` that the caller shares, to change the login to Redis later.
    pub fn join_through(
        endpoints: Endpoints,
        config: &RedisConfig,
        server_id: &str,
        node: Arc<dyn LocalNode>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Self {
        let commands = Commands::start(endpoints.clone(), &metrics);
        let keys = Arc::new(Keys::new(config, server_id));
        let health = Arc::new(Health::new());
        let own_broadcasts = Arc::<OwnBroadcasts>::default();
        let routes = Arc::new(Routes::new(commands.clone(), keys.clone(), node.clone()));
        // Beside `websocket-app`, whose servers hand on whatever comes, nothing but messages is published.
        let traces = tracer.is_on() && keys.compat() == RedisCompat::None;
        let lookup = Lookup::new(commands.clone(), keys.clone(), metrics.clone(), traces);
        let lookup = Arc::new(lookup);
        let control = Arc::new(Control::new(commands.clone(), keys.clone(), node.clone()));
        let receivers = Receivers {
            node,
            routes: routes.clone(),
            control: control.clone(),
            health: health.clone(),
            own_broadcasts: own_broadcasts.clone(),
        };
        let inbox = Inbox::new(&keys, receivers, metrics.clone(), tracer);
        let mut tasks = Tasks::default();
        let (leased, on_link) = watch::channel(0);
        let lease = (
            commands.clone(),
            keys.clone(),
            routes.clone(),
            health.clone(),
            leased,
        );
        tasks.keepers.spawn(supervised(
            "lease",
            metrics.clone(),
            lease,
            |(commands, keys, routes, health, leased)| {
                lease::keep(commands, keys, routes, health, leased).boxed()
            },
        ));
        let writer = (routes.clone(), health.clone(), on_link);
        tasks.keepers.spawn(supervised(
            "writer of routes",
            metrics.clone(),
            writer,
            |(routes, health, leased)| writer::write(routes, health, leased).boxed(),
        ));
        tasks.keepers.spawn(supervised(
            "sweep of routes",
            metrics.clone(),
            lookup.clone(),
            |lookup| lookup::sweep(lookup).boxed(),
        ));
        let subscriber = (
            endpoints,
            commands.clone(),
            keys.clone(),
            Arc::new(inbox),
            health.clone(),
            metrics.clone(),
        );
        tasks.listener.spawn(supervised(
            "subscriber",
            metrics.clone(),
            subscriber,
            |(endpoints, commands, keys, inbox, health, metrics)| {
                subscriber::listen(endpoints, commands, keys, inbox, health, metrics).boxed()
            },
        ));
        Self {
            commands,
            keys,
            routes,
            lookup,
            control,
            health,
            own_broadcasts,
            under_way: Semaphore::new(UNDER_WAY_BYTES_MAX),
            tasks: Mutex::new(tasks),
            metrics,
        }
    }

    /// Publishes to every other server that holds `name`.
    async fn publish_to(
        &self,
        name: Name<'_>,
        frame: &Frame,
        trace: Trace<'_>,
    ) -> Result<usize, BrokerError> {
        // What is known may be a moment old: where it led to nobody who listens, Redis is asked once more.
        let mut sent = self.publish_by_lookup(name, frame, trace).await?;
        if sent.is_unheard() && self.commands.topology()? != Topology::Cluster {
            sent = self.publish_by_lookup(name, frame, trace).await?;
        }
        match sent.failure {
            Some(error) if sent.reached == 0 => Err(error.into()),
            None if sent.is_unheard() => Err(BrokerError::Unavailable(
                "the receiver's node does not listen now".to_owned(),
            )),
            None if sent.reached == 0 && self.commands.is_replaced_since(BELIEVED_AFTER) => {
                Err(BrokerError::Unavailable(
                    "Redis was away, and who is where is being written anew".to_owned(),
                ))
            }
            _ => Ok(sent.reached),
        }
    }

    async fn publish_by_lookup(
        &self,
        name: Name<'_>,
        frame: &Frame,
        trace: Trace<'_>,
    ) -> Result<Sent, Unavailable> {
        let servers = self.lookup.servers(name).await?;
        let is_other = |server: &&ServerId| *server != self.keys.own_id();
        let publish = async |server| (server, self.publish_on(server, frame, trace).await);
        let results = join_all(servers.iter().filter(is_other).map(publish)).await;
        let mut sent = Sent::default();
        for (server, result) in results {
            match result {
                Ok(true) => sent.reached += 1,
                Ok(false) => {
                    sent.unheard += 1;
                    self.metrics.redis.unheard.increment();
                    self.lookup.forget(name, server);
                }
                Err(error) => sent.failure = Some(error),
            }
        }
        Ok(sent)
    }

    /// Whether anybody listens, as far as that can be told.
    async fn publish_on(
        &self,
        server: &ServerId,
        frame: &Frame,
        trace: Trace<'_>,
    ) -> Result<bool, Unavailable> {
        let span = trace.map(|message| publish_span(message, Some(server)));
        let text = match &span {
            Some(span) if self.lookup.takes_traces(server) => Cow::Owned(traced::text(frame, span)),
            _ => Cow::Borrowed(frame.as_str()),
        };
        let post = Post::new(&self.commands, &self.keys, server, &text)?;
        let listeners = self.send(post.command(), text.len(), span.as_ref()).await?;
        Ok(post.is_heard(listeners))
    }

    /// Without a trace for the others: whoever else listens on the common channel would not know what to do with it.
    async fn broadcast(&self, frame: &Frame, trace: Trace<'_>) -> Result<usize, BrokerError> {
        let span = trace.map(|message| publish_span(message, None));
        self.own_broadcasts.note(frame.as_str());
        let mut command = redis::cmd("PUBLISH");
        command
            .arg(self.keys.broadcast_channel())
            .arg(frame.as_str());
        let listeners = self.send(&command, frame.len(), span.as_ref()).await?;
        // This node listens too.
        Ok(listeners.saturating_sub(1))
    }

    /// Publishes, once there is room for `bytes` more under way. `span` is of this alone.
    async fn send(
        &self,
        command: &Cmd,
        bytes: usize,
        span: Trace<'_>,
    ) -> Result<usize, Unavailable> {
        self.metrics.redis.publishes.increment();
        let wanted = u32::try_from(bytes.clamp(1, UNDER_WAY_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = timeout(
            self.keys.command_timeout(),
            self.under_way.acquire_many(wanted),
        )
        .await;
        let failed = |reason: &'static str| span.inspect(|span| span.fail(reason));
        let Ok(Ok(_room)) = room else {
            failed("too much is under way");
            self.metrics.redis.publish_failures.increment();
            return Err(Unavailable::new("too much is under way to Redis already"));
        };
        let sent = self.commands.run_once(command).await;
        if sent.is_err() {
            failed("unavailable");
            self.metrics.redis.publish_failures.increment();
        }
        sent
    }
}

/// The span of one publish, to one server or to all.
fn publish_span(message: &Span, server: Option<&ServerId>) -> Span {
    let span = message.child("publish", SpanKind::Producer);
    span.set("messaging.system", "redis");
    if let Some(server) = server {
        span.set("messaging.destination.name", server.to_string());
    }
    span
}

impl Broker for RedisBroker {
    fn publish<'a>(
        &'a self,
        target: Target<'a>,
        frame: &'a Frame,
        trace: Trace<'a>,
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        async move {
            match target {
                Target::User(user) => self.publish_to(Name::User(user), frame, trace).await,
                Target::Room(room) => self.publish_to(Name::Room(room), frame, trace).await,
                Target::Everyone => self.broadcast(frame, trace).await,
            }
        }
        .boxed()
    }

    fn ask_about<'a>(
        &'a self,
        user: &'a str,
        request: &'a UserRequest,
    ) -> BoxFuture<'a, Result<Vec<NodeReport>, BrokerError>> {
        async move {
            let holders = self.lookup.holders(user).await?;
            let others = holders
                .iter()
                .filter(|(server, _)| server != self.keys.own_id());
            let ask = async |(server, is_node): &(ServerId, bool)| NodeReport {
                node: server.to_string(),
                told: if *is_node {
                    self.control.ask(server, user, request).await
                } else {
                    Told::CannotBeAsked
                },
            };
            let mut reports = join_all(others.map(ask)).await;
            reports.retain(|report| !report.told.is_nobody());
            Ok(reports)
        }
        .boxed()
    }

    fn user_changed(&self, user: &str) {
        self.routes.changed(Name::User(user));
    }

    fn room_changed(&self, room: &str) {
        self.routes.changed(Name::Room(room));
    }

    fn user_settled<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()> {
        self.routes.settled(Name::User(user)).boxed()
    }

    fn room_settled<'a>(&'a self, room: &'a str) -> BoxFuture<'a, ()> {
        self.routes.settled(Name::Room(room)).boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<String>, BrokerError>> {
        async move { Ok(nodes::living(&self.commands, &self.keys).await?) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        let link = self.commands.check().map_err(BrokerError::from);
        let well = link.and_then(|()| self.health.check().map_err(BrokerError::Unavailable));
        std::future::ready(well).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async move {
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            self.health.left();
            // Nothing may write or renew any more. What still comes in is taken until nobody is to send here.
            tasks.keepers.shutdown().await;
            let withdraw = async {
                self.routes.withdraw().await;
                nodes::withdraw(&self.commands, &self.keys).await;
            };
            let _ = timeout(LEAVE_TIMEOUT, withdraw).await;
            tasks.listener.shutdown().await;
        }
        .boxed()
    }
}

impl Sent {
    fn is_unheard(&self) -> bool {
        self.reached == 0 && self.unheard > 0
    }
}

impl From<Unavailable> for BrokerError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}
