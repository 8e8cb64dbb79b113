//! HTTP: the upgrade to a WebSocket, server-sent events, probes, metrics, and the APIs for backends and operators.

mod accept;
mod address_limiter;
mod admin;
mod admission;
mod api;
mod bearer;
mod demo;
mod error;
mod front;
mod handshake;
mod openapi;
mod query;
mod sse;
mod throttle;
mod upgrade;
mod upgrade_refusal;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

pub use accept::{Listeners, serve};
use address_limiter::AddressLimiter;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use signalbox_cluster_rollout::ClusterRollout;
use signalbox_config::{AuthConfig, Config};
use signalbox_telemetry::metrics::{
    prometheus::{self, Format},
    readings,
};
use throttle::Throttle;
use tracing::warn;

use crate::session::Services;

/// State shared by all requests.
#[derive(Clone)]
pub struct AppState {
    /// The state that sessions share.
    pub services: Arc<Services>,
    /// Follows the cluster's decisions about plugins.
    pub cluster: Arc<ClusterRollout>,
    /// Limits the number of connections per address, and the rate of new connections.
    address_limiter: Arc<AddressLimiter>,
    /// Limits guesses of the keys with which clients post frames.
    post_throttle: Arc<Throttle>,
}

impl AppState {
    /// Creates the state, without any connections.
    pub fn new(services: Arc<Services>, cluster: Arc<ClusterRollout>) -> Self {
        Self {
            services,
            cluster,
            address_limiter: Arc::default(),
            post_throttle: Arc::new(Throttle::new(Instant::now())),
        }
    }
}

/// The routes of each listener.
#[derive(Debug)]
pub struct ListenerRoutes {
    public: Router,
    /// The routes of the listener at `server.internal_listen`, if there is one.
    internal: Option<Router>,
    /// Whether clients choose their own user ID (`auth.mode = "none"`).
    are_open: bool,
}

/// The routes of all listeners.
pub fn routes(state: AppState, config: &Config) -> ListenerRoutes {
    admission::register_log_span();
    let path = config.server.websocket_path.as_str();
    let mut public = probes()
        .route(path, any(upgrade::upgrade))
        .route(sse::PATH, any(sse::stream))
        .route(sse::POST_PATH, any(sse::post))
        .merge(demo::routes(config));
    if path != "/" {
        public = public.route(&format!("{path}/"), any(upgrade::upgrade));
    }
    let throttle = Arc::new(Throttle::new(Instant::now()));
    let mut internal =
        api::routes(state.clone(), throttle.clone()).merge(admin::routes(state.clone(), throttle));
    if config.metrics.prometheus {
        internal = internal.route("/metrics", get(metrics));
    }
    let (public, internal) = match config.server.internal_listen {
        Some(_) => (
            public,
            Some(probes().merge(internal).with_state(state.clone())),
        ),
        None => (public.merge(internal), None),
    };
    ListenerRoutes {
        public: public.with_state(state),
        internal,
        are_open: matches!(config.auth, AuthConfig::None { .. }),
    }
}

/// The routes for load balancers.
fn probes() -> Router<AppState> {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
}

/// Returns 200 if a load balancer may send clients here, otherwise 503 with a reason that strangers may read.
async fn ready(State(state): State<AppState>) -> Response {
    let services = &state.services;
    if services.draining.load(Ordering::Acquire) {
        return not_ready("this node is shutting down");
    }
    if let Err(error) = services.router.broker().probe().await {
        warn!(%error, "not ready: messages from other nodes do not arrive");
        return not_ready("messages from other nodes do not arrive; the log says why");
    }
    if !services.authenticator.is_ready() {
        return not_ready("no keys for tokens could be fetched yet; the log says why");
    }
    if let Err(reason) = state.cluster.check() {
        warn!(reason, "not ready: the plugins of the cluster are not live");
        return not_ready("the plugins of the cluster are not live; the log says why");
    }
    let live = services.manager.live();
    let missing: Vec<&str> = live.missing().collect();
    if !missing.is_empty() {
        return not_ready(&format!(
            "plugin {} has no live version",
            missing.join(", ")
        ));
    }
    "ready\n".into_response()
}

fn not_ready(reason: &str) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {reason}\n"),
    )
        .into_response()
}

/// The metrics, in the format that the client asks for.
async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let status = state.services.status().await;
    let families = readings::read(&state.services.metrics, &status);
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|types| types.to_str().ok()).collect();
    let format = Format::wanted(&accept);
    let content_type = [(header::CONTENT_TYPE, format.content_type())];
    (content_type, prometheus::render(families, format)).into_response()
}

fn json_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
