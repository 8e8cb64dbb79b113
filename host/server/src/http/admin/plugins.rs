//! `/admin/plugins`: lists the versions that run, reloads files and rolls back.

use std::sync::Arc;

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use signalbox_plugin_manager::PluginView;

use super::{
    Admin,
    caller::Caller,
    changes::{to_its_end, unknown},
    cluster,
    query::{ChangeScope, NoQuery, PluginName, StrictQuery},
};
use crate::http::{
    AppState,
    error::{ApiError, json},
};

#[derive(Serialize)]
struct Plugins {
    plugins: Vec<PluginView>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadQuery {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    scope: ChangeScope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollBackQuery {
    to: Option<String>,
}

/// `GET /admin/plugins`.
pub(super) async fn list(State(state): State<AppState>, _: StrictQuery<NoQuery>) -> Response {
    let plugins = state.services.manager.view();
    json(StatusCode::OK, &Plugins { plugins })
}

/// `GET /admin/plugins/{name}`.
pub(super) async fn find(
    State(state): State<AppState>,
    PluginName(plugin): PluginName,
    _: StrictQuery<NoQuery>,
) -> Result<Response, ApiError> {
    match state.services.manager.view_of(&plugin) {
        Some(view) => Ok(json(StatusCode::OK, &view)),
        None => Err(unknown(&plugin)),
    }
}

/// `POST /admin/plugins/{name}/reload`.
pub(super) async fn reload(
    Extension(admin): Extension<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    PluginName(plugin): PluginName,
    StrictQuery(ReloadQuery { force, scope }): StrictQuery<ReloadQuery>,
) -> Result<Response, ApiError> {
    if scope == ChangeScope::Cluster {
        return cluster::release(&admin, caller, plugin).await;
    }
    let services = admin.state.services.clone();
    let action = if force { "reload by force" } else { "reload" };
    let name = plugin.clone();
    let reload = async move {
        let bytes_max = services.live.load().limits.plugin_file_bytes_max;
        services.manager.reload(&name, bytes_max, force).await
    };
    to_its_end(caller, action, plugin, reload).await
}

/// `POST /admin/plugins/{name}/rollback`.
pub(super) async fn roll_back(
    Extension(admin): Extension<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    PluginName(plugin): PluginName,
    StrictQuery(RollBackQuery { to }): StrictQuery<RollBackQuery>,
) -> Result<Response, ApiError> {
    let services = admin.state.services.clone();
    let name = plugin.clone();
    let roll_back = async move { services.manager.roll_back(&name, to.as_deref()).await };
    to_its_end(caller, "roll back", plugin, roll_back).await
}
