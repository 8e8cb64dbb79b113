//! Errors of the HTTP APIs, as JSON.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::Value;
use signalbox_protocol::{ErrorCode, outbound::ErrorPayload};

use crate::session::backend::NotSent;

/// `{"error":{"code","message","plugin"?,"retryable"},"report"?}` with a status.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: String,
    message: String,
    plugin: Option<String>,
    retryable: bool,
    retry_after: Option<Duration>,
    /// Boxed, because most errors have no report.
    report: Option<Box<Value>>,
}

impl ApiError {
    /// An error that the same request would cause again.
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            plugin: None,
            retryable: false,
            retry_after: None,
            report: None,
        }
    }

    /// The path, or a list in the body, contains an invalid user ID.
    pub(super) fn invalid_user() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_user",
            "a user ID is 1 to 255 bytes of UTF-8, percent-encoded in a path",
        )
    }

    /// The task that handled the request panicked.
    pub(super) fn panicked() -> Self {
        let message = "the node failed at this call; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Marks the error as retryable after `time`.
    pub(super) fn retry_after(self, time: Duration) -> Self {
        Self {
            retryable: true,
            retry_after: Some(time),
            ..self
        }
    }

    /// Adds a report next to the error, for programs.
    pub(super) fn with_report(self, report: &impl Serialize) -> Self {
        Self {
            // Cannot fail: everything serialized here has string keys.
            report: serde_json::to_value(report).ok().map(Box::new),
            ..self
        }
    }

    /// The code, for programs.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The message, for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The error as it is part of an answer.
    fn payload(&self) -> ErrorPayload<'_> {
        ErrorPayload {
            id: None,
            code: &self.code,
            message: &self.message,
            plugin: self.plugin.as_deref(),
            retryable: self.retryable,
        }
    }

    /// An error with one of the codes of the WebSocket protocol.
    pub(super) fn of(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = match code {
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::PluginFailed => StatusCode::BAD_GATEWAY,
            ErrorCode::RoomFull | ErrorCode::InProgress => StatusCode::CONFLICT,
            ErrorCode::OnceMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            retryable: code.retryable(),
            ..Self::new(status, code.as_str(), message)
        }
    }

    /// The body of the response, as JSON.
    pub(super) fn body(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a ApiError,
            #[serde(skip_serializing_if = "Option::is_none")]
            report: Option<&'a Value>,
        }
        let body = Body {
            error: self,
            report: self.report.as_deref(),
        };
        json_of(&body)
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
                ..Self::of(code, message.into_owned())
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

/// Without its report.
impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.payload().serialize(serializer)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_text(self.status, self.body());
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(time) = self.retry_after {
            // Whole seconds, at least 1.
            let seconds = time.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A response in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    json_text(status, json_of(body))
}

/// JSON text.
pub(super) fn json_of(value: &impl Serialize) -> String {
    // Strings, numbers and lists of them under string keys always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

/// A response whose body is JSON text already.
pub(super) fn json_text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
