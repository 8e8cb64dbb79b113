//! Joins a cluster: makes the parts of a broker, and connects them.

use std::sync::{Arc, Mutex};

use signalbox_config::{RedisCompat, RedisConfig};
use signalbox_redis_client::{Commands, EndpointError, Endpoints};
use signalbox_telemetry::{metrics::Metrics, trace::Tracer};

use super::{
    RedisBroker,
    control::Control,
    echo_filter::EchoFilter,
    fences::Fences,
    health::Health,
    held::HeldMessages,
    history::RedisHistories,
    holders::Holders,
    inbox::{Inbox, InboxParts},
    keys::KeyNames,
    lookup::Lookup,
    members::RedisMembers,
    once::OnceKeys,
    outgoing::Outgoing,
    posted::PostedFrames,
    revocations::ClusterRevocations,
    routes::RouteWriter,
    subscriber::SubscriptionDrain,
    tasks::{TaskParts, Tasks},
};
use crate::LocalNode;

impl RedisBroker {
    /// Joins as `server_id`, which no other boot of any node may ever have had. Connects in the background;
    /// [`Broker::probe`](crate::Broker::probe) returns whether it is connected.
    ///
    /// # Errors
    /// [`EndpointError`] if the configuration names no usable address.
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

    /// Like [`RedisBroker::join`], with `endpoints` that the caller shares to change the login to Redis later.
    pub fn join_through(
        endpoints: Endpoints,
        config: &RedisConfig,
        server_id: &str,
        node: Arc<dyn LocalNode>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Self {
        let commands = Commands::start(endpoints.clone(), &metrics);
        let keys = Arc::new(KeyNames::new(config, server_id));
        let health = Arc::new(Health::new());
        let own_broadcasts = Arc::<EchoFilter>::default();
        let routes = Arc::new(RouteWriter::new(
            commands.clone(),
            keys.clone(),
            node.clone(),
        ));
        // Servers of `websocket-app` deliver everything to clients, so next to them only messages are published.
        let traces = tracer.is_on() && keys.compat() == RedisCompat::None;
        let holders = Holders::new(commands.clone(), keys.clone(), metrics.clone());
        let holders = Arc::new(holders);
        let outgoing = Outgoing::new(commands.clone(), keys.clone(), metrics.clone());
        let outgoing = Arc::new(outgoing);
        let fences = Arc::new(Fences::new(commands.clone(), keys.clone()));
        let held = Arc::new(HeldMessages::new(
            holders.clone(),
            fences.clone(),
            keys.clone(),
            outgoing.clone(),
            node.clone(),
            metrics.clone(),
        ));
        let lookup = Arc::new(Lookup::new(
            holders.clone(),
            held.clone(),
            fences.clone(),
            keys.clone(),
            node.clone(),
        ));
        let control = Arc::new(Control::new(commands.clone(), keys.clone(), node.clone()));
        let posts = PostedFrames::new(
            commands.clone(),
            keys.clone(),
            holders.clone(),
            node.clone(),
        );
        let posts = Arc::new(posts);
        let histories = RedisHistories::new(commands.clone(), keys.clone(), outgoing.clone());
        let revocations = ClusterRevocations::new(commands.clone(), keys.clone(), node.clone());
        let revocations = Arc::new(revocations);
        let members = RedisMembers::new(
            commands.clone(),
            keys.clone(),
            holders.clone(),
            node.clone(),
            routes.clone(),
        );
        let once = OnceKeys::new(commands.clone(), keys.clone());
        let receivers = InboxParts {
            node: node.clone(),
            routes: routes.clone(),
            control: control.clone(),
            posts: posts.clone(),
            fences,
            held: held.clone(),
            lookup: lookup.clone(),
            revocations: revocations.clone(),
            health: health.clone(),
            own_broadcasts: own_broadcasts.clone(),
        };
        let inbox = Inbox::new(&keys, receivers, metrics.clone(), tracer);
        let farewell = SubscriptionDrain::default();
        let tasks = Tasks::start(TaskParts {
            endpoints,
            commands: commands.clone(),
            keys: keys.clone(),
            routes: routes.clone(),
            lookup: lookup.clone(),
            held: held.clone(),
            revocations: revocations.clone(),
            inbox: Arc::new(inbox),
            health: health.clone(),
            metrics: metrics.clone(),
            farewell: farewell.clone(),
        });
        Self {
            commands,
            keys,
            routes,
            holders,
            lookup,
            held,
            outgoing,
            histories: Arc::new(histories),
            revocations,
            members,
            once,
            node,
            control,
            posts,
            health,
            own_broadcasts,
            farewell,
            tasks: Mutex::new(tasks),
            metrics,
            traces,
        }
    }
}
