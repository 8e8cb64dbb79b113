//! The options of a client and of joins.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::TokenError;

/// The future of a token callback.
pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

type ClientCallback = Arc<dyn Fn() -> TokenFuture + Send + Sync>;
type RoomCallback = Arc<dyn Fn(String) -> TokenFuture + Send + Sync>;

/// How a client proves its identity.
#[derive(Clone)]
pub(crate) enum Credentials {
    User(String),
    Token(String),
    Callback(ClientCallback),
}

/// What happens to a message while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offline {
    /// It waits in a queue.
    Queue,
    /// It fails with the code `offline`.
    Fail,
}

/// The options of a client. Make them with [`user`](Self::user), [`token`](Self::token) or
/// [`token_callback`](Self::token_callback), and change the fields that you need.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The URL of the server, such as `ws://127.0.0.1:8080/ws`.
    pub url: String,
    pub(crate) credentials: Credentials,
    /// The longest time for the TCP connection, the upgrade and `welcome` together; 10 s.
    pub connect_timeout: Duration,
    /// The longest wait before the first attempt after a loss. It doubles with each attempt; 500 ms.
    pub backoff_min: Duration,
    /// The bound of the waits before attempts; 20 s.
    pub backoff_max: Duration,
    /// How long a connection must last for the backoff to start again; 5 s.
    pub stable_after: Duration,
    /// How long a call waits for its answer; 10 s.
    pub answer_timeout: Duration,
    /// The silence after which the client asks for a sign of life. None: as the server says.
    pub heartbeat_interval: Option<Duration>,
    /// How long the client waits for a sign of life; 10 s.
    pub heartbeat_timeout: Duration,
    /// How long a token callback may take; 30 s.
    pub token_timeout: Duration,
    /// What happens to messages without a connection; they wait.
    pub offline: Offline,
    /// The number of messages that may wait for the connection; 100.
    pub queue_max: usize,
    /// The number of bytes of messages that may wait for the connection; 256 KiB.
    pub queue_bytes_max: usize,
    /// The number of events that may wait before the client stops reading from its connection; 1,000.
    pub events_max: usize,
    /// The largest frame in bytes that the client accepts from the server; 16 MiB.
    pub receive_bytes_max: usize,
    /// Whether the client uses server-sent events if WebSockets do not work; true.
    #[cfg(feature = "sse")]
    pub fallback: bool,
    /// The time after which a client that uses the fallback tries a WebSocket again when it reconnects; 10 minutes.
    #[cfg(feature = "sse")]
    pub web_socket_again_after: Duration,
}

impl Options {
    /// Connects as this user, for `auth.mode = "none"`.
    #[must_use]
    pub fn user(url: impl Into<String>, user: impl Into<String>) -> Self {
        Self::new(url.into(), Credentials::User(user.into()))
    }

    /// Connects with a token that never changes.
    #[must_use]
    pub fn token(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self::new(url.into(), Credentials::Token(token.into()))
    }

    /// Connects with the tokens that `callback` returns. The client calls it before its first attempt and when the token
    /// expires or is refused, never twice at the same time. It runs in the task of the client, and must not block.
    ///
    /// ```
    /// use signalbox_client::{Options, TokenError};
    ///
    /// let options = Options::token_callback("ws://127.0.0.1:8080/ws", async || {
    ///     std::env::var("CHAT_TOKEN").map_err(|error| TokenError::Final(error.to_string()))
    /// });
    /// ```
    #[must_use]
    pub fn token_callback<C, F>(url: impl Into<String>, callback: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        let callback = move || -> TokenFuture { Box::pin(callback()) };
        Self::new(url.into(), Credentials::Callback(Arc::new(callback)))
    }

    fn new(url: String, credentials: Credentials) -> Self {
        Self {
            url,
            credentials,
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(20),
            stable_after: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            heartbeat_interval: None,
            heartbeat_timeout: Duration::from_secs(10),
            token_timeout: Duration::from_secs(30),
            offline: Offline::Queue,
            queue_max: 100,
            queue_bytes_max: 256 << 10,
            events_max: 1_000,
            receive_bytes_max: 16 << 20,
            #[cfg(feature = "sse")]
            fallback: true,
            #[cfg(feature = "sse")]
            web_socket_again_after: Duration::from_secs(600),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the credentials.
        f.debug_struct("Options")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The way to the token of a room.
#[derive(Clone)]
pub(crate) enum RoomToken {
    Fixed(String),
    Callback(RoomCallback),
}

impl RoomToken {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(one), Self::Fixed(other)) => one == other,
            // Functions cannot be compared.
            (Self::Callback(_), Self::Callback(_)) => true,
            _ => false,
        }
    }
}

/// What the application wants in a room.
#[derive(Clone, Default)]
pub struct JoinOptions {
    pub(crate) last: Option<u32>,
    pub(crate) presence: bool,
    pub(crate) token: Option<RoomToken>,
}

impl JoinOptions {
    /// Asks for the last `count` messages of the history.
    #[must_use]
    pub fn last(mut self, count: u32) -> Self {
        self.last = (count > 0).then_some(count);
        self
    }

    /// Asks for the users in the room.
    #[must_use]
    pub fn presence(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Joins with a token for the room.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(RoomToken::Fixed(token.into()));
        self
    }

    /// Joins with the tokens that `callback` returns for the room with this name. The client calls it before the first join
    /// and when the token has expired, never twice at the same time.
    #[must_use]
    pub fn token_callback<C, F>(mut self, callback: C) -> Self
    where
        C: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        let callback = move |room: String| -> TokenFuture { Box::pin(callback(room)) };
        self.token = Some(RoomToken::Callback(Arc::new(callback)));
        self
    }

    pub(crate) fn same_token(&self, other: &Self) -> bool {
        match (&self.token, &other.token) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether a join with other options would be the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.last == other.last && self.presence == other.presence && self.same_token(other)
    }
}

impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinOptions")
            .field("last", &self.last)
            .field("presence", &self.presence)
            .finish_non_exhaustive()
    }
}
