//! Why an upgrade is refused, and why an authenticator cannot be created.

use std::{path::PathBuf, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use signalbox_protocol::USER_ID_BYTES_MAX;

/// When a client may try again if its token cannot be checked now.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why an upgrade is refused. `Display` is the message for the client, and contains nothing that the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Mode `none`, and no `userId` in the query. The text is that of `websocket-app`.
    #[error("missing userId")]
    MissingUserId,
    /// Mode `none`, and an invalid `userId`.
    #[error("userId must be UTF-8 text of at most {USER_ID_BYTES_MAX} bytes, and not blank")]
    InvalidUserId,
    /// Mode `jwt`, and no token.
    #[error(
        "no token; send it as Authorization: Bearer, as Sec-WebSocket-Protocol: bearer, <token>, or as ?token="
    )]
    MissingToken,
    /// A token that is not accepted, with the reason.
    #[error("the token is not accepted: {0}")]
    InvalidToken(&'static str),
    /// A token that has expired.
    #[error("the token has expired; get a new one")]
    ExpiredToken,
    /// A token that was revoked.
    #[error("the token was revoked; get a new one")]
    RevokedToken,
    /// The revocations could not be read yet, so the token may be valid.
    #[error("the server cannot read now which tokens are revoked; try again later")]
    RevocationsUnavailable,
    /// The token keys could not be fetched from `auth.jwks_url`, so the token may be valid.
    #[error("the server cannot fetch the keys of tokens now; try again later")]
    KeysUnavailable,
}

impl AuthError {
    /// The HTTP status: 400, 401 or 503.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingUserId | Self::InvalidUserId => StatusCode::BAD_REQUEST,
            Self::MissingToken
            | Self::InvalidToken(_)
            | Self::ExpiredToken
            | Self::RevokedToken => StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable | Self::RevocationsUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingUserId => "missing_user_id",
            Self::InvalidUserId => "invalid_user_id",
            Self::MissingToken => "missing_token",
            Self::InvalidToken(_) => "invalid_token",
            Self::ExpiredToken => "token_expired",
            Self::RevokedToken => "token_revoked",
            Self::RevocationsUnavailable => "revocations_unavailable",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// The body of the response: `{"error":{"code","message"}}`, or the plain `missing userId` of `websocket-app`.
    pub fn body(&self) -> String {
        match self {
            Self::MissingUserId => self.to_string(),
            _ => serde_json::json!({"error": {"code": self.code(), "message": self.to_string()}})
                .to_string(),
        }
    }

    /// The content type of [`body`](Self::body).
    pub fn content_type(&self) -> &'static str {
        match self {
            Self::MissingUserId => "text/plain; charset=utf-8",
            _ => "application/json",
        }
    }

    /// The `WWW-Authenticate` header of a 401 (RFC 6750 §3: no error code if there was no token).
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::MissingToken => Some("Bearer"),
            Self::InvalidToken(_) | Self::ExpiredToken | Self::RevokedToken => {
                Some("Bearer error=\"invalid_token\"")
            }
            _ => None,
        }
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        let content_type = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type()),
        )];
        let mut response = (self.status(), content_type, self.body()).into_response();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from(RETRY_AFTER.as_secs());
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if let Some(challenge) = self.challenge() {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }
}

/// Why the token keys cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {reason}", .path.display())]
pub struct AuthSetupError {
    /// The configuration key.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The fault, and how to fix it.
    pub reason: String,
}
