//! HTTP: the upgrade to a WebSocket, what probes and scrapers ask, and the APIs of backends and of operators.

mod accept;
mod admin;
mod api;
mod bearer;
mod demo;
mod error;
mod handshake;
mod upgrade;

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};

pub use accept::serve;

use crate::{
    auth::Authenticator,
    config::Config,
    fleet::Fleet,
    metrics::{
        prometheus::{self, Format},
        readings,
    },
    session::Services,
};

/// What every request may need.
#[derive(Clone)]
pub struct AppState {
    /// What sessions share.
    pub services: Arc<Services>,
    /// Who clients are.
    pub authenticator: Arc<Authenticator>,
    /// What the cluster runs.
    pub fleet: Arc<Fleet>,
}

/// The routes of one listener.
pub fn routes(state: AppState, config: &Config) -> Router {
    let mut routes = Router::new()
        .route("/ws", any(upgrade::upgrade))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .merge(api::routes(state.clone()))
        .merge(admin::routes(state.clone()))
        .merge(demo::routes(config));
    if config.metrics.prometheus {
        routes = routes.route("/metrics", get(metrics));
    }
    routes.with_state(state)
}

/// 200 where a load balancer may send clients here, else 503 and why not.
async fn ready(State(state): State<AppState>) -> Response {
    let services = &state.services;
    if services.draining.load(Ordering::Acquire) {
        return not_ready("this node is going down");
    }
    if let Err(error) = services.router.broker().probe().await {
        return not_ready(&error.to_string());
    }
    if let Err(reason) = state.fleet.check() {
        return not_ready(&reason);
    }
    let live = services.registry.live();
    let missing: Vec<&str> = live.missing().collect();
    if !missing.is_empty() {
        return not_ready(&format!(
            "no version is live of plugin {}",
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

/// The figures, in the format that the client asks for.
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
