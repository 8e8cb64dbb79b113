//! `GET /admin/config`: the configuration in force, without its secrets.

use axum::{extract::State, http::StatusCode, response::Response};
use serde_json::json;

use super::query::{NoQuery, StrictQuery};
use crate::http::{AppState, error};

pub(super) async fn show(State(state): State<AppState>, _: StrictQuery<NoQuery>) -> Response {
    let live = state.services.live.load();
    let answer = json!({
        "config": live.shown.json(),
        "needs_restart": live.needs_restart,
    });
    error::json(StatusCode::OK, &answer)
}
