//! Parses the query of a call strictly.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The query. Unknown parameters are errors, so that a caller who misspells one notices.
pub(super) struct StrictQuery<T>(pub(super) T);

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
