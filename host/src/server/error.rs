//! Errors of the HTTP APIs, as JSON.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    protocol::{ErrorCode, outbound::ErrorPayload},
    session::backend::NotSent,
};

/// `{"error":{"code","message","plugin"?,"retryable"}}` with a status.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: String,
    message: String,
    plugin: Option<String>,
    retryable: bool,
}

impl ApiError {
    /// The request is wrong, and will be so next time.
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            plugin: None,
            retryable: false,
        }
    }

    /// An error that a client of the wire would get too.
    pub(super) fn of(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = match code {
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::PluginFailed => StatusCode::BAD_GATEWAY,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            retryable: code.retryable(),
            ..Self::new(status, code.as_str(), message)
        }
    }
}

impl From<NotSent> for ApiError {
    fn from(error: NotSent) -> Self {
        match error {
            NotSent::Refused {
                code,
                message,
                plugin,
            } => Self {
                plugin,
                ..Self::of(code, message)
            },
            NotSent::Rejected { plugin, rejection } => Self {
                plugin: Some(plugin),
                ..Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    &rejection.code,
                    rejection.reason,
                )
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: ErrorPayload<'a>,
        }
        let error = ErrorPayload {
            id: None,
            code: &self.code,
            message: &self.message,
            plugin: self.plugin.as_deref(),
            retryable: self.retryable,
        };
        let mut response = json(self.status, &Body { error });
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Strings, numbers and lists of them under string keys always serialize.
    let body = serde_json::to_string(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
