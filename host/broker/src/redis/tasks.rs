//! The background tasks of a broker.

use std::sync::Arc;

use futures_util::FutureExt;
use signalbox_redis_client::{Commands, Endpoints};
use signalbox_telemetry::{metrics::Metrics, supervise::supervised};
use tokio::{sync::watch, task::JoinSet};

use super::{
    health::Health,
    held::HeldMessages,
    inbox::Inbox,
    keys::KeyNames,
    lease,
    lookup::{self, Lookup},
    revocations::{self, ClusterRevocations},
    routes::RouteWriter,
    subscriber::{self, SubscriptionDrain},
    writer,
};

/// The tasks. They end when this is dropped.
#[derive(Default)]
pub(super) struct Tasks {
    /// Keep the routes, the lease and the caches.
    keepers: JoinSet<()>,
    /// Takes what comes in.
    listener: JoinSet<()>,
}

/// The parts of the broker that the tasks work on.
pub(super) struct TaskParts {
    pub(super) endpoints: Endpoints,
    pub(super) commands: Commands,
    pub(super) keys: Arc<KeyNames>,
    pub(super) routes: Arc<RouteWriter>,
    pub(super) lookup: Arc<Lookup>,
    pub(super) held: Arc<HeldMessages>,
    pub(super) revocations: Arc<ClusterRevocations>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) farewell: SubscriptionDrain,
}

impl Tasks {
    /// Starts all of them.
    pub(super) fn start(parts: TaskParts) -> Self {
        let mut tasks = Self::default();
        tasks.start_keepers(&parts);
        tasks.start_listener(parts);
        tasks
    }

    /// Ends those that write to Redis.
    pub(super) async fn end_keepers(&mut self) {
        self.keepers.shutdown().await;
    }

    /// Ends the one that takes what comes in.
    pub(super) async fn end_listener(&mut self) {
        self.listener.shutdown().await;
    }

    fn start_keepers(&mut self, parts: &TaskParts) {
        let (leased, on_link) = watch::channel(0);
        let lease = (
            parts.commands.clone(),
            parts.keys.clone(),
            parts.routes.clone(),
            parts.health.clone(),
            leased,
        );
        self.keepers.spawn(supervised(
            "lease",
            parts.metrics.clone(),
            lease,
            |(commands, keys, routes, health, leased)| {
                lease::keep(commands, keys, routes, health, leased).boxed()
            },
        ));
        let writer = (parts.routes.clone(), parts.health.clone(), on_link);
        self.keepers.spawn(supervised(
            "writer of routes",
            parts.metrics.clone(),
            writer,
            |(routes, health, leased)| writer::write(routes, health, leased).boxed(),
        ));
        self.keepers.spawn(supervised(
            "sweep of routes",
            parts.metrics.clone(),
            (parts.lookup.clone(), parts.held.clone()),
            |(lookup, held)| lookup::sweep(lookup, held).boxed(),
        ));
        self.keepers.spawn(supervised(
            "revocations",
            parts.metrics.clone(),
            parts.revocations.clone(),
            |revocations| revocations::follow(revocations).boxed(),
        ));
    }

    fn start_listener(&mut self, parts: TaskParts) {
        let subscriber = (
            parts.endpoints,
            parts.commands,
            parts.keys,
            parts.inbox,
            parts.health,
            parts.metrics.clone(),
            parts.farewell,
        );
        self.listener.spawn(supervised(
            "subscriber",
            parts.metrics,
            subscriber,
            |(endpoints, commands, keys, inbox, health, metrics, farewell)| {
                subscriber::listen(endpoints, commands, keys, inbox, health, metrics, farewell)
                    .boxed()
            },
        ));
    }
}
