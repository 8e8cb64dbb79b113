//! The one type of errors.

use std::fmt;

use serde::Deserialize;

/// Why a call, a join or a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// A code of the server, of a plugin, or one of [`codes`].
    pub code: String,
    /// A description for people.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// The plugin that refused or failed.
    pub plugin: Option<String>,
    /// The HTTP status of a refusal.
    pub status: Option<u16>,
    /// The close code that ended the connection for good.
    pub close_code: Option<u16>,
}

/// The codes of errors that come from the client and not from the server.
pub mod codes {
    /// There is no connection, and [`Offline::Fail`](crate::Offline::Fail) was chosen.
    pub const OFFLINE: &str = "offline";
    /// Too many messages wait for the connection.
    pub const QUEUE_FULL: &str = "queue_full";
    /// The connection was lost before the answer came. The message may have been delivered.
    pub const CONNECTION_LOST: &str = "connection_lost";
    /// No answer came in time.
    pub const TIMEOUT: &str = "timeout";
    /// The client is closed.
    pub const CLOSED: &str = "closed";
    /// The frame is larger than the server accepts.
    pub const TOO_LARGE: &str = "too_large";
    /// The server refused the token for good, or the token callback failed for good.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// The server does not speak the protocol `signalbox.v1`.
    pub const UNSUPPORTED_PROTOCOL: &str = "unsupported_protocol";
    /// The server refused the client for good; see `status` and `close_code`.
    pub const REFUSED: &str = "refused";
    /// A frame of the server was not one of the protocol, and was ignored.
    pub const INVALID_FRAME: &str = "invalid_frame";
    /// A proxy holds back the stream of server-sent events.
    pub const BUFFERED: &str = "buffered";
    /// The options of the client cannot be used.
    pub const INVALID_OPTIONS: &str = "invalid_options";
    /// A token callback failed and will be called again.
    pub const TOKEN_FAILED: &str = "token_failed";
}

impl Error {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        use codes::{BUFFERED, CONNECTION_LOST, OFFLINE, QUEUE_FULL, TIMEOUT, TOKEN_FAILED};
        let retryable = [
            BUFFERED,
            CONNECTION_LOST,
            OFFLINE,
            QUEUE_FULL,
            TIMEOUT,
            TOKEN_FAILED,
        ];
        Self {
            retryable: retryable.contains(&code),
            code: code.to_owned(),
            message: message.into(),
            plugin: None,
            status: None,
            close_code: None,
        }
    }

    pub(crate) fn closed() -> Self {
        Self::new(codes::CLOSED, "the client is closed")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// The payload of an `error` frame.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorPayload {
    pub(crate) id: Option<String>,
    code: String,
    #[serde(default)]
    message: String,
    plugin: Option<String>,
    #[serde(default)]
    retryable: bool,
}

impl From<ErrorPayload> for Error {
    fn from(payload: ErrorPayload) -> Self {
        Self {
            code: payload.code,
            message: payload.message,
            retryable: payload.retryable,
            plugin: payload.plugin,
            status: None,
            close_code: None,
        }
    }
}

/// Why a token callback has no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There may be one later: the client calls again, with backoff. The text is for people.
    Later(String),
    /// There will be none: the client closes, or gives up the room. The text is for people.
    Final(String),
}
