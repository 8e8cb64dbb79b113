//! Parses the path and query of a call strictly.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::http::error::ApiError;

/// The query. Unknown parameters are errors, so that an operator who misspells `force` notices.
pub(super) struct StrictQuery<T>(pub(super) T);

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

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let reason = error.body_text();
            // axum begins all its messages with this.
            let reason = reason.trim_start_matches("Failed to deserialize query string: ");
            // serde's term for a value of an enum.
            let reason = reason.replace("unknown variant", "unknown value");
            let message = format!("the query is wrong: {reason}");
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", message)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PluginName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| {
            let message = "the path holds what is no percent-encoded UTF-8";
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", message)
        })
    }
}
