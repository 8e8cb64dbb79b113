//! Parses the path and query of a call strictly.

use axum::{
    extract::{FromRequestParts, Path},
    http::{StatusCode, request::Parts},
};
use serde::Deserialize;

use crate::http::error::ApiError;
pub(super) use crate::http::query::StrictQuery;

/// The query of a call that takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// The nodes that a change affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChangeScope {
    /// The node that receives the call.
    #[default]
    Node,
    /// All nodes.
    Cluster,
}

/// The variable part of the path.
pub(super) struct PluginName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PluginName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| {
            let message = "the path is not percent-encoded UTF-8";
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", message)
        })
    }
}
