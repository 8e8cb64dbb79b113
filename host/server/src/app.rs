//! Assembles the parts, runs them, and shuts them down in order.

mod broker_kind;
mod features;
mod metrics_push;
mod reload;
mod shutdown;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use futures_util::FutureExt;
use signalbox_auth::{AuthSetupError, Authenticator};
use signalbox_cluster_rollout::ClusterRollout;
use signalbox_config::{AuthConfig, Config, Environment};
use signalbox_plugin_manager::{PluginManager, Trigger};
use signalbox_plugin_runtime::{EngineError, Loader};
use signalbox_router::{LocalTable, Router};
use signalbox_telemetry::{
    metrics::Metrics,
    supervise,
    trace::{self, Tracer},
};
use signalbox_webhooks::Webhooks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{broker_kind::BrokerKind, shutdown::Running};
use crate::{
    http::{self, AppState, Listeners},
    ids::IdSource,
    session::{ConfigHandle, LiveConfig, RoomReader, Services, presence_settings, user_retention},
};

/// The source of the configuration, for reading it again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; `None` if there is only the environment.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Environment,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that sets it.
        key: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
    /// A listener has no address.
    #[error("the address of a listener is unknown: {0}")]
    Address(#[from] std::io::Error),
    /// The configuration asks for something that this build leaves out.
    #[error("{key} needs a build with the cargo feature `{feature}`, and this one is without it")]
    NotBuiltIn {
        /// The key of the configuration.
        key: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The plugin engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// Redis is configured in a way that cannot work.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] signalbox_redis_client::EndpointError),
    /// Spans cannot be exported.
    #[error(transparent)]
    Tracing(#[from] trace::SetupError),
    /// The system provides no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A node that serves.
pub(crate) struct RunningNode {
    services: Arc<Services>,
    tasks: Running,
}

impl RunningNode {
    /// Drains, and ends everything within `server.drain_timeout`.
    pub(crate) async fn shut_down(self) {
        shutdown::shut_down(&self.services, self.tasks).await;
    }
}

/// Loads the plugins and serves on `listeners`. If there is a `source`, the configuration is read again when it changes.
/// `log_lines_dropped` counts log lines that could not be written.
pub(crate) async fn start(
    config: Config,
    source: Option<Source>,
    listeners: Listeners,
    log_lines_dropped: Arc<AtomicU64>,
) -> Result<RunningNode, StartError> {
    features::check(&config)?;
    let kind = broker_kind::configured(&config.broker)?;
    let services = services(&config, &*kind, log_lines_dropped)?;
    // Before the files are read, so that later changes are noticed.
    let watch = reload::watch(&config, source.as_ref());
    let bytes_max = config.limits.plugin_file_bytes_max;
    services
        .manager
        .apply(&config.plugins, bytes_max, Trigger::Start)
        .await;
    let stop = CancellationToken::new();
    let cluster = Arc::new(cluster(&services, &*kind));
    let state = AppState::new(services.clone(), cluster);
    let routes = http::routes(state, &config);
    let pusher = metrics_push::start(&config, &services);
    let metrics = &services.metrics;
    let manager = services.manager.clone();
    let supervision = supervise::spawn("probation", metrics, manager, |manager| {
        manager.supervise().boxed()
    });
    log_addresses(&config, &services, &listeners);
    let targets = reload::ReloadTargets {
        services: services.clone(),
        kind,
    };
    let follower = (targets, config.clone(), config, source, watch);
    let reloads = supervise::spawn("reloads", metrics, follower, |state| {
        let (targets, started, config, source, watch) = state;
        reload::follow(targets, started, config, source.as_ref(), watch).boxed()
    });
    let acceptor = (listeners, routes, services.clone(), stop.clone());
    let serving = supervise::spawn("acceptor", metrics, acceptor, |state| {
        let (listeners, routes, services, stop) = state;
        http::serve(listeners, routes, services, stop).boxed()
    });
    let tasks = Running {
        pusher,
        serving,
        stop,
        changes: vec![reloads, supervision],
    };
    Ok(RunningNode { services, tasks })
}

fn log_addresses(config: &Config, services: &Services, listeners: &Listeners) {
    let internal = listeners.internal.as_ref();
    if let Some(Ok(address)) = internal.map(TcpListener::local_addr) {
        info!(%address, "serving /metrics, /api/ and /admin/ on {address}");
    }
    if let Ok(address) = listeners.public.local_addr() {
        info!(%address, node = services.ids.node(), "listening on {address}");
        if matches!(config.auth, AuthConfig::None { .. }) {
            warn!("auth.mode is \"none\": clients choose their own user ID");
        }
    }
}

fn services(
    config: &Config,
    kind: &dyn BrokerKind,
    log_lines_dropped: Arc<AtomicU64>,
) -> Result<Arc<Services>, StartError> {
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| StartError::Random)?;
    let ids = IdSource::new(&config.server.node_id, u64::from_le_bytes(nonce));
    let metrics = Arc::new(Metrics {
        log_lines_dropped,
        ..Metrics::default()
    });
    let authenticator = Authenticator::new(&config.auth, metrics.clone())?;
    let tracer = match &config.tracing {
        Some(tracing) => Tracer::start(tracing, ids.node(), metrics.clone())?,
        None => Tracer::default(),
    };
    let webhooks = Webhooks::start(ids.node(), kind.event_queue(&metrics), &metrics);
    let table = LocalTable::new(config.limits.outbox_bytes_max, metrics.clone());
    let table = Arc::new(table.observed_by(webhooks.rooms()));
    kind.set_limits(&config.limits);
    let broker = kind.broker(ids.node(), table.clone(), &metrics, &tracer);
    webhooks.watch(table.clone(), broker.clone());
    webhooks.set(&config.webhooks, config.presence.grace);
    let router = Router::new(table, broker, metrics.clone(), kind.message_time_max());
    router.set_presence(presence_settings(config));
    router.set_user_retention(user_retention(config));
    let router = Arc::new(router);
    let live = Arc::new(ConfigHandle::new(LiveConfig::new(config, config)));
    let room_reader = RoomReader::new(router.clone(), live.clone());
    let loader = Loader::new(
        ids.node(),
        config.plugin_cache_dir.as_deref(),
        kind.store(&metrics),
        metrics.clone(),
    )?
    .with_rooms(Arc::new(room_reader.clone()));
    let manager = PluginManager::new(loader, metrics.clone()).keeping(&config.plugin_versions);
    manager.set_probation(config.plugin_probation.clone());
    Ok(Arc::new(Services {
        router,
        room_reader,
        manager: Arc::new(manager),
        authenticator,
        metrics,
        ids,
        tracer,
        webhooks,
        live,
        unfinished: Arc::default(),
        draining: AtomicBool::new(false),
    }))
}

/// Starts to follow the cluster's decisions about plugins.
fn cluster(services: &Arc<Services>, kind: &dyn BrokerKind) -> ClusterRollout {
    let of = services.clone();
    let bytes_max = Arc::new(move || of.live.load().limits.plugin_file_bytes_max);
    kind.cluster(services, bytes_max)
}
