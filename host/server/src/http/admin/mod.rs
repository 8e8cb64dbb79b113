//! The API for operators: inspects and changes what runs on this node.
//!
//! Every call needs the current `admin.key`. Calls are counted, and changes are audited ([`caller`]). Responses and
//! errors are JSON; [`openapi`] describes all of them.

mod caller;
mod changes;
mod cluster;
mod connections;
mod nodes;
mod openapi;
mod plugins;
mod push;
mod query;
mod settings;

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, delete, get, post, put},
};
use signalbox_telemetry::metrics::AdminOutcome;
use tokio::sync::Semaphore;

use self::caller::Caller;
use super::{AppState, bearer, error::ApiError, throttle::Throttle};

/// Maximum number of components that may be uploading or under test at the same time: each is held in memory as a
/// whole.
const PUSHES_MAX: usize = 2;

/// State shared by all calls.
struct Admin {
    state: AppState,
    throttle: Arc<Throttle>,
    pushes: Arc<Semaphore>,
    started: SystemTime,
}

/// A call: its method, its path, and its handler.
type Call = (Method, &'static str, MethodRouter<AppState>);

/// All calls. The router is built from this list, and a test compares the OpenAPI description with it.
fn calls() -> Vec<Call> {
    vec![
        (Method::GET, "/admin/plugins", get(plugins::list)),
        (Method::GET, "/admin/plugins/{name}", get(plugins::find)),
        (Method::PUT, "/admin/plugins/{name}", put(push::push)),
        (
            Method::POST,
            "/admin/plugins/{name}/reload",
            post(plugins::reload),
        ),
        (
            Method::POST,
            "/admin/plugins/{name}/rollback",
            post(plugins::roll_back),
        ),
        (Method::GET, "/admin/connections", get(connections::list)),
        (
            Method::DELETE,
            "/admin/connections/{id}",
            delete(connections::disconnect),
        ),
        (Method::GET, "/admin/nodes", get(nodes::list)),
        (Method::GET, "/admin/config", get(settings::show)),
        (Method::GET, "/admin/openapi.json", get(openapi::describe)),
    ]
}

/// All routes at and below `/admin`, so that nothing there answers without the key.
pub(super) fn routes(state: AppState, throttle: Arc<Throttle>) -> Router<AppState> {
    let admin = Arc::new(Admin {
        state,
        throttle,
        pushes: Arc::new(Semaphore::new(PUSHES_MAX)),
        started: SystemTime::now(),
    });
    let router = calls()
        .into_iter()
        .fold(Router::new(), |router, (_, path, call)| {
            router.route(path, call)
        });
    router
        .route("/admin", any(unknown))
        .route("/admin/", any(unknown))
        .route("/admin/{*rest}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(admin.clone()))
        .route_layer(middleware::from_fn_with_state(admin, guard))
}

/// Admits callers with the key, and counts the results.
async fn guard(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let response = match admin.admit(address, &request) {
        Ok(caller) => {
            let mut request = request;
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let outcome = match response.status() {
        StatusCode::UNAUTHORIZED => AdminOutcome::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => AdminOutcome::RateLimited,
        status if status.is_server_error() => AdminOutcome::Failed,
        status if status.is_client_error() => AdminOutcome::Refused,
        _ => AdminOutcome::Ok,
    };
    let metrics = &admin.state.services.metrics;
    metrics.admin_requests.of(outcome).increment();
    response
}

impl Admin {
    fn admit(&self, address: SocketAddr, request: &Request) -> Result<Caller, ApiError> {
        let live = self.state.services.live.load();
        let keys = live.admin.key.as_slice();
        bearer::admit(request.headers(), keys, address.ip(), &self.throttle)?;
        let key = live.admin.key.as_deref().unwrap_or_default();
        Ok(Caller::new(address, key))
    }
}

async fn unknown() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "this API has no such call; /admin/openapi.json lists all calls",
    )
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this call uses another method",
    )
}
