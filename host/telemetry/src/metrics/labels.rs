//! The values of labels: reasons and outcomes, with their names in the metrics.

/// Why an accepted message was not written to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The receiver's outbox was full, so its connection is closed.
    SlowConsumer,
    /// The receiver's connection was closing.
    Closing,
    /// No node holds the receiver.
    Offline,
    /// The receiver left while the message was in transit, and did not come back on any node in time.
    Moved,
    /// A transformation dropped it.
    Plugin,
    /// An action of a plugin had no effect, because the connection was gone.
    ConnectionGone,
    /// It was queued for a connection that was lost.
    ConnectionLost,
    /// It was queued for a connection that was closed, and the client did not take it in time.
    CloseTimeout,
    /// It was still queued for a connection when the drain time was over.
    CutOff,
}

impl DropReason {
    pub(super) const ALL: [Self; 9] = [
        Self::SlowConsumer,
        Self::Closing,
        Self::Offline,
        Self::Moved,
        Self::Plugin,
        Self::ConnectionGone,
        Self::ConnectionLost,
        Self::CloseTimeout,
        Self::CutOff,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow_consumer",
            Self::Closing => "closing",
            Self::Offline => "offline",
            Self::Moved => "moved",
            Self::Plugin => "plugin",
            Self::ConnectionGone => "connection_gone",
            Self::ConnectionLost => "connection_lost",
            Self::CloseTimeout => "close_timeout",
            Self::CutOff => "cut_off",
        }
    }
}

/// Why a span of a trace was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDropReason {
    /// Too many spans were queued.
    QueueFull,
    /// The collector did not accept it.
    Export,
}

impl SpanDropReason {
    pub(super) const ALL: [Self; 2] = [Self::QueueFull, Self::Export];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Export => "export",
        }
    }
}

/// Why an upgrade was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRefusalReason {
    /// 400, 401 or 503: the client could not be authenticated.
    Auth,
    /// 401: the client's token was revoked.
    Revoked,
    /// 403: the user is blocked.
    Blocked,
    /// 403: the page's origin may not connect.
    Origin,
    /// 400, 405 or 426: the request is not an upgrade to a WebSocket.
    Handshake,
    /// 400: the client names no valid place in the history of its user.
    Since,
    /// 429: the user has too many connections.
    UserLimit,
    /// 503: the node has too many connections.
    NodeLimit,
    /// 429: the address has too many connections.
    AddressLimit,
    /// 429: the node accepts no more connections this second.
    Rate,
    /// 503: the node is shutting down.
    Draining,
}

impl UpgradeRefusalReason {
    pub(super) const ALL: [Self; 11] = [
        Self::Auth,
        Self::Revoked,
        Self::Blocked,
        Self::Origin,
        Self::Handshake,
        Self::Since,
        Self::UserLimit,
        Self::NodeLimit,
        Self::AddressLimit,
        Self::Rate,
        Self::Draining,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Revoked => "revoked",
            Self::Blocked => "blocked",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::Since => "since",
            Self::UserLimit => "user_limit",
            Self::NodeLimit => "node_limit",
            Self::AddressLimit => "address_limit",
            Self::Rate => "rate",
            Self::Draining => "draining",
        }
    }
}

/// The reason why a connection or a request was refused before its request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRefusalReason {
    /// There are `limits.sockets_pending_max` sockets already: the one that was silent longest was closed, or the new
    /// one.
    Sockets,
    /// There is no file descriptor left.
    Descriptors,
    /// The headers took longer than `limits.http_header_time_max`.
    SlowHeader,
    /// The client read nothing of its response for `limits.http_write_timeout`.
    Unread,
    /// It is not HTTP/1.1, or its headers are too large.
    Malformed,
    /// It names no host, or one that this server does not serve.
    Host,
    /// A proxy sent no header of the PROXY protocol, or a malformed one.
    ProxyHeader,
}

impl HttpRefusalReason {
    pub(super) const ALL: [Self; 7] = [
        Self::Sockets,
        Self::Descriptors,
        Self::SlowHeader,
        Self::Unread,
        Self::Malformed,
        Self::Host,
        Self::ProxyHeader,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Descriptors => "descriptors",
            Self::SlowHeader => "slow_header",
            Self::Unread => "unread",
            Self::Malformed => "malformed",
            Self::Host => "host",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// The result of an operator's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminOutcome {
    /// It was answered.
    Ok,
    /// 4xx: the call was wrong, or was refused.
    Refused,
    /// 5xx: the node could not do it.
    Failed,
    /// 401: the key was missing or wrong.
    Unauthorized,
    /// 429: there were too many calls.
    RateLimited,
}

impl AdminOutcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Ok,
        Self::Refused,
        Self::Failed,
        Self::Unauthorized,
        Self::RateLimited,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// The outcome of a message with `once`, or of a call with `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceOutcome {
    /// It was handled, and its answer is kept.
    Kept,
    /// It was not handled, by an error after which the sender may repeat it.
    Released,
    /// It was handled, and its answer could not be kept.
    Unkept,
    /// It was a repetition, and got the answer that was kept.
    Repeated,
    /// It was refused: the first one is being handled.
    InProgress,
    /// It was refused: another message had the same ID.
    Mismatch,
    /// It was refused: too many answers are kept.
    Full,
    /// It was refused: it is unknown whether it is a repetition.
    Unavailable,
}

impl OnceOutcome {
    pub(super) const ALL: [Self; 8] = [
        Self::Kept,
        Self::Released,
        Self::Unkept,
        Self::Repeated,
        Self::InProgress,
        Self::Mismatch,
        Self::Full,
        Self::Unavailable,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Released => "released",
            Self::Unkept => "unkept",
            Self::Repeated => "repeated",
            Self::InProgress => "in_progress",
            Self::Mismatch => "mismatch",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The result of a request that posts a frame to a stream of server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostResult {
    /// 202: the connection has the frame.
    Taken,
    /// 400: its body broke off, or is malformed.
    Incomplete,
    /// 400: it is not UTF-8.
    NotUtf8,
    /// 401: the key is missing or wrong.
    Unauthorized,
    /// 429: there were too many wrong keys from the address.
    RateLimited,
    /// 403: the page's origin may not connect.
    Origin,
    /// 404: there is no such connection.
    UnknownConnection,
    /// 408: the frame took too long to arrive.
    SlowMessage,
    /// 413: the frame is too large.
    TooBig,
    /// 429: too many frames wait for the connection.
    InboxFull,
    /// 503: unfinished messages take all memory that they may take.
    NoMemory,
    /// 503: the connection's node did not answer.
    NoAnswer,
    /// It was taken, and its connection ended before it was handled.
    Lost,
}

impl PostResult {
    pub(super) const ALL: [Self; 13] = [
        Self::Taken,
        Self::Incomplete,
        Self::NotUtf8,
        Self::Unauthorized,
        Self::RateLimited,
        Self::Origin,
        Self::UnknownConnection,
        Self::SlowMessage,
        Self::TooBig,
        Self::InboxFull,
        Self::NoMemory,
        Self::NoAnswer,
        Self::Lost,
    ];

    /// The result as text, as in the metrics and in the error of a response.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Incomplete => "incomplete",
            Self::NotUtf8 => "not_utf8",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::Origin => "origin_not_allowed",
            Self::UnknownConnection => "unknown_connection",
            Self::SlowMessage => "slow_message",
            Self::TooBig => "too_big",
            Self::InboxFull => "inbox_full",
            Self::NoMemory => "no_memory",
            Self::NoAnswer => "no_answer",
            Self::Lost => "lost",
        }
    }
}
