//! Puts the parts together, runs them, and takes them down in order.

mod reload;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::{AuthSetupError, Authenticator},
    broker::{Broker, MemoryBroker, MemoryHub, RedisBroker},
    cloudwatch::Pusher,
    config::{AuthConfig, BrokerConfig, CloudWatchConfig, Config, Environment},
    fleet::{Fleet, Meeting},
    metrics::{Metrics, readings},
    plugin::{EngineError, Loader, MemoryStore, PluginStore, RedisStore, Registry, Trigger},
    protocol::{CloseCode, ids::IdSource},
    redis_client::{Commands, EndpointError, Endpoints},
    router::{Connection, LocalTable, Router},
    server::{self, AppState},
    session::{Live, LiveConfig, Services},
    supervise,
    trace::{self, Tracer},
};

/// The part of the drain time in which connections are told to go; the rest is for their answers.
const DRAIN_SPREAD: f64 = 0.7;

/// The part of the drain time that is kept for the last push to CloudWatch, and the most that it gets.
const LAST_PUSH_SHARE: f64 = 0.2;
const LAST_PUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// How often a drain looks at who is still there, and at whose turn it is.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// Where the configuration came from, to read it again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; none: only the environment.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Environment,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plugin engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// Redis is configured in a way that cannot work.
    #[error(transparent)]
    Redis(#[from] EndpointError),
    /// Spans cannot be exported.
    #[error(transparent)]
    Tracing(#[from] trace::SetupError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Serves on `listener` until `shutdown`, then drains.
///
/// # Errors
/// [`StartError`]; once it serves, nothing ends it but `shutdown`.
pub async fn run(
    config: Config,
    source: Source,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let redis = endpoints(&config)?;
    let services = services(&config, redis.as_ref())?;
    let authenticator = Authenticator::new(&config.auth, services.metrics.clone())?;
    let authenticator = Arc::new(authenticator);
    // Before the files are read: what changes from here on is noticed.
    let watch = reload::watch(&config, &source);
    let bytes_max = config.limits.plugin_file_bytes_max;
    let plugins = services
        .registry
        .apply(&config.plugins, bytes_max, Trigger::Start);
    tokio::select! {
        _ = plugins => {}
        // Large plugins compile for many seconds, and nobody is connected yet.
        () = shutdown.cancelled() => {
            info!("stopped before it served");
            return Ok(());
        }
    }
    let stop = CancellationToken::new();
    let state = AppState {
        services: services.clone(),
        authenticator: authenticator.clone(),
        fleet: Arc::new(fleet(&config, &services, redis.as_ref())),
    };
    let routes = server::routes(state, &config);
    let pusher = config
        .cloudwatch
        .clone()
        .map(|cloudwatch| push_to(cloudwatch, &config.server.node_id, &services));
    let metrics = &services.metrics;
    let registry = services.registry.clone();
    let supervision = supervise::spawn("probation", metrics, registry, |registry| {
        registry.supervise().boxed()
    });
    let targets = reload::Targets {
        services: services.clone(),
        authenticator,
        redis,
    };
    let (started, now) = (config.clone(), config.clone());
    let follower = (targets, started, now, source, watch);
    let reloads = supervise::spawn("reloads", metrics, follower, |state| {
        let (targets, started, config, source, watch) = state;
        reload::follow(targets, started, config, source, watch).boxed()
    });
    if let Ok(address) = listener.local_addr() {
        info!(%address, node = services.ids.node(), "listening on {address}");
        if matches!(config.auth, AuthConfig::None { .. }) {
            warn!("auth.mode is \"none\": clients are whoever they say they are");
        }
    }
    let acceptor = (listener, routes, services.clone(), stop.clone());
    let serving = supervise::spawn("acceptor", metrics, acceptor, |state| {
        let (listener, routes, services, stop) = state;
        server::serve(listener, routes, services, stop).boxed()
    });
    shutdown.cancelled().await;
    let end = Instant::now() + services.live.load().server.drain_timeout;
    let last_push = pusher
        .as_ref()
        .map_or(Duration::ZERO, |_| last_push_time(&services));
    drain(&services, end - last_push).await;
    if let Some(pusher) = pusher {
        // Before this node leaves the others, which would look like an outage.
        pusher.finish(end).await;
    }
    reloads.abort();
    supervision.abort();
    stop.cancel();
    // A request that does not end must not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    services.registry.kept().await;
    services.router.broker().leave().await;
    services.tracer.stop().await;
    info!("stopped");
    Ok(())
}

/// Where Redis is, if it is the broker: the same for all that connect there, so that a changed password reaches all.
fn endpoints(config: &Config) -> Result<Option<Endpoints>, StartError> {
    match &config.broker {
        BrokerConfig::Memory => Ok(None),
        BrokerConfig::Redis(redis) => Ok(Some(Endpoints::new(redis)?)),
    }
}

fn services(config: &Config, endpoints: Option<&Endpoints>) -> Result<Arc<Services>, StartError> {
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| StartError::Random)?;
    let ids = IdSource::new(&config.server.node_id, u64::from_le_bytes(nonce));
    let metrics = Arc::<Metrics>::default();
    let tracer = match &config.tracing {
        Some(tracing) => Tracer::start(tracing, ids.node(), metrics.clone())?,
        None => Tracer::default(),
    };
    let table = Arc::new(LocalTable::new(
        config.limits.outbox_bytes_max,
        metrics.clone(),
    ));
    let broker: Arc<dyn Broker> = match (&config.broker, endpoints) {
        (BrokerConfig::Redis(redis), Some(endpoints)) => Arc::new(RedisBroker::join_through(
            endpoints.clone(),
            redis,
            ids.node(),
            table.clone(),
            metrics.clone(),
            tracer.clone(),
        )),
        _ => {
            let hub = Arc::<MemoryHub>::default();
            Arc::new(MemoryBroker::join(hub, ids.node(), table.clone()))
        }
    };
    let store: Arc<dyn PluginStore> = match (&config.broker, endpoints) {
        (BrokerConfig::Redis(redis), Some(endpoints)) => {
            let commands = Commands::start(endpoints.clone(), &metrics);
            Arc::new(RedisStore::new(commands, &redis.key_prefix))
        }
        _ => Arc::<MemoryStore>::default(),
    };
    let loader = Loader::new(
        ids.node(),
        config.plugin_cache_dir.as_deref(),
        store,
        metrics.clone(),
    )?;
    let registry = Registry::new(loader, metrics.clone()).keeping(&config.plugin_versions);
    registry.set_probation(config.plugin_probation.clone());
    Ok(Arc::new(Services {
        router: Router::new(table, broker, metrics.clone()),
        registry: Arc::new(registry),
        metrics,
        ids,
        tracer,
        live: Live::new(LiveConfig::new(config, config)),
        unfinished: Arc::default(),
        draining: AtomicBool::new(false),
    }))
}

/// Finds out what the cluster runs, from now on.
fn fleet(config: &Config, services: &Arc<Services>, endpoints: Option<&Endpoints>) -> Fleet {
    let (node, registry) = (services.ids.node(), services.registry.clone());
    let of = services.clone();
    let bytes_max = Arc::new(move || of.live.load().limits.plugin_file_bytes_max);
    let (BrokerConfig::Redis(redis), Some(endpoints)) = (&config.broker, endpoints) else {
        return Fleet::alone(node, registry, bytes_max);
    };
    // A link of its own: components are large, and must not hold up what nodes say to each other.
    let commands = Commands::start(endpoints.clone(), &services.metrics);
    let of = services.clone();
    let meeting = Meeting {
        broker: services.router.broker().clone(),
        commands,
        prefix: &redis.key_prefix,
        admin_key: Arc::new(move || of.live.load().admin.key.clone()),
    };
    let metrics = &services.metrics;
    Fleet::join(node, registry, meeting, metrics, bytes_max)
}

/// Asks a connection to go.
fn tell(connection: Arc<Connection>) {
    let reason = "this node is going down";
    connection.outbox().close(CloseCode::DRAIN, reason);
}

/// Pushes what is counted to CloudWatch.
fn push_to(cloudwatch: CloudWatchConfig, node_id: &str, services: &Arc<Services>) -> Pusher {
    let of = services.clone();
    let read = Arc::new(move || {
        let services = of.clone();
        async move { readings::read(&services.metrics, &services.status().await) }.boxed()
    });
    // Without the mark of this start: a server that comes back goes on in the same graphs.
    Pusher::start(cloudwatch, node_id, services.metrics.clone(), read)
}

/// The part of the drain time that is kept for the last push.
fn last_push_time(services: &Services) -> Duration {
    let timeout = services.live.load().server.drain_timeout;
    timeout.mul_f64(LAST_PUSH_SHARE).min(LAST_PUSH_TIME_MAX)
}

/// Turns the node's readiness off, closes its connections one after another, and waits until they are gone, until
/// `deadline` at the latest.
async fn drain(services: &Services, deadline: Instant) {
    services.draining.store(true, Ordering::Release);
    let table = services.router.table();
    let timeout = deadline.saturating_duration_since(Instant::now());
    info!(connections = table.len(), ?timeout, "draining");
    let connections = table.connections();
    let count = connections.len();
    let mut waiting = connections.into_iter();
    let spread = timeout.mul_f64(DRAIN_SPREAD);
    let began = Instant::now();
    while !table.is_empty() && Instant::now() < deadline {
        // The first at once, each of the others in its turn.
        let share = began.elapsed().as_secs_f64() / spread.as_secs_f64();
        let due = ((share * count as f64) as usize).saturating_add(1);
        let told = count - waiting.len();
        waiting
            .by_ref()
            .take(due.saturating_sub(told))
            .for_each(tell);
        if waiting.len() == 0 {
            // Those whose upgrade was under way.
            table.connections().into_iter().for_each(tell);
        }
        tokio::time::sleep(DRAIN_TICK).await;
    }
    if !table.is_empty() {
        warn!(
            connections = table.len(),
            "the drain time is over; the rest is cut off"
        );
        table.cut_off();
    }
}
