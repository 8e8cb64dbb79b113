//! The two tables that clients program against: error codes and close codes.

/// The `code` of an `error` frame that the server itself sends. A plugin's rejection has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame is not a JSON object, or a known field has a value of the wrong kind.
    InvalidFrame,
    /// `type` is absent or malformed.
    InvalidType,
    /// `type` is one that only the server sends.
    ReservedType,
    /// `type` is one that clients may not send.
    ForbiddenType,
    /// `id` is longer than 64 characters.
    InvalidId,
    /// The JSON is nested more than 100 levels deep.
    TooDeep,
    /// No receiver is named, and no plugin handles the type.
    NoReceiver,
    /// `receiverId` is too long, or is set together with `room`.
    InvalidReceiver,
    /// `room` is absent or too long.
    InvalidRoom,
    /// The payload of a built-in type is invalid, or the JSON contains text that languages read differently.
    InvalidPayload,
    /// The token that should replace the one of the connection, or let it join a room, is not accepted.
    InvalidToken,
    /// A message to a room of which the connection is not a member.
    NotInRoom,
    /// The rules of the room do not let the client join it, or send to it.
    ForbiddenRoom,
    /// The connection has reached its limit of rooms.
    TooManyRooms,
    /// The room has as many users as its rules allow.
    RoomFull,
    /// Too many messages a second.
    RateLimited,
    /// A plugin failed, or returned an invalid answer.
    PluginFailed,
    /// The broker does not respond, or a token cannot be checked now.
    Unavailable,
    /// A message with `once` and the same `id` is being handled.
    InProgress,
    /// Another message with `once` had the same `id`.
    OnceMismatch,
}

impl ErrorCode {
    /// Every code, for documentation and metrics.
    pub const ALL: [Self; 20] = [
        Self::InvalidFrame,
        Self::InvalidType,
        Self::ReservedType,
        Self::ForbiddenType,
        Self::InvalidId,
        Self::TooDeep,
        Self::NoReceiver,
        Self::InvalidReceiver,
        Self::InvalidRoom,
        Self::InvalidPayload,
        Self::InvalidToken,
        Self::NotInRoom,
        Self::ForbiddenRoom,
        Self::TooManyRooms,
        Self::RoomFull,
        Self::RateLimited,
        Self::PluginFailed,
        Self::Unavailable,
        Self::InProgress,
        Self::OnceMismatch,
    ];

    /// The code as text, as used in the frame.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidFrame => "invalid_frame",
            Self::InvalidType => "invalid_type",
            Self::ReservedType => "reserved_type",
            Self::ForbiddenType => "forbidden_type",
            Self::InvalidId => "invalid_id",
            Self::TooDeep => "too_deep",
            Self::NoReceiver => "no_receiver",
            Self::InvalidReceiver => "invalid_receiver",
            Self::InvalidRoom => "invalid_room",
            Self::InvalidPayload => "invalid_payload",
            Self::InvalidToken => "invalid_token",
            Self::NotInRoom => "not_in_room",
            Self::ForbiddenRoom => "forbidden_room",
            Self::TooManyRooms => "too_many_rooms",
            Self::RoomFull => "room_full",
            Self::RateLimited => "rate_limited",
            Self::PluginFailed => "plugin_failed",
            Self::Unavailable => "unavailable",
            Self::InProgress => "in_progress",
            Self::OnceMismatch => "once_mismatch",
        }
    }

    /// Whether the same frame, sent again a little later, may succeed.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RoomFull
                | Self::RateLimited
                | Self::PluginFailed
                | Self::Unavailable
                | Self::InProgress
        )
    }
}

/// How the server closes a connection.
///
/// 4000 to 4499 ask the client to reconnect, 4500 to 4999 tell it not to; the codes below are those of RFC 6455 §7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

/// A row of the table of close codes.
#[derive(Clone, Copy, Debug)]
pub struct CloseCodeRow {
    /// The code.
    pub code: CloseCode,
    /// A word for metrics and logs.
    pub name: &'static str,
    /// When the server sends it.
    pub when: &'static str,
    /// Whether it counts as an unexpected disconnect.
    pub unexpected: bool,
}

impl CloseCode {
    /// The connection is over, by agreement.
    pub const NORMAL: Self = Self(1000);
    /// The client broke the WebSocket protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// A text frame that is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// A frame over the size limit.
    pub const TOO_BIG: Self = Self(1009);
    /// This node is shutting down; another one will serve the client.
    pub const DRAIN: Self = Self(4000);
    /// The client does not read fast enough.
    pub const SLOW_CONSUMER: Self = Self(4001);
    /// Nothing was heard from the client.
    pub const IDLE: Self = Self(4002);
    /// A plugin that must admit the connection failed.
    pub const PLUGIN_FAILED: Self = Self(4003);
    /// The client did not answer a ping, and its user needs the place.
    pub const REPLACED: Self = Self(4004);
    /// A message took too long to arrive.
    pub const SLOW_MESSAGE: Self = Self(4005);
    /// The node has no memory for another unfinished message.
    pub const NO_MEMORY: Self = Self(4006);
    /// The session failed, by a fault of the server.
    pub const INTERNAL: Self = Self(4007);
    /// The user or the address has too many connections, or the node accepts no more for now.
    pub const TOO_MANY: Self = Self(4008);
    /// The node is full, or cannot authenticate the client or read its missed messages now.
    pub const UNAVAILABLE: Self = Self(4009);
    /// The token has expired (`exp`), or was revoked.
    pub const TOKEN_EXPIRED: Self = Self(4500);
    /// A plugin or a backend closed the connection without naming a code.
    pub const KICKED: Self = Self(4501);
    /// A plugin does not admit the connection.
    pub const REFUSED: Self = Self(4502);
    /// The client floods the server.
    pub const FLOOD: Self = Self(4503);

    /// There is no accepted token, no user, or a malformed place.
    pub const UNAUTHORIZED: Self = Self(4504);
    /// A web page of this origin, or a user who is blocked, may not connect.
    pub const FORBIDDEN: Self = Self(4505);

    /// Every code that the server sends on its own.
    pub const TABLE: [CloseCodeRow; 20] = [
        row(
            Self::NORMAL,
            "normal",
            "the client closed, and the server answers in kind",
            false,
        ),
        row(
            Self::PROTOCOL,
            "protocol",
            "the client broke the WebSocket protocol",
            true,
        ),
        row(
            Self::NOT_UTF8,
            "not_utf8",
            "a text frame was not UTF-8",
            true,
        ),
        row(
            Self::TOO_BIG,
            "too_big",
            "a frame was over `limits.frame_bytes_max`",
            true,
        ),
        row(Self::DRAIN, "drain", "this node is shutting down", false),
        row(
            Self::SLOW_CONSUMER,
            "slow_consumer",
            "more than `limits.outbox_bytes_max` waited for the client",
            true,
        ),
        row(
            Self::IDLE,
            "idle",
            "nothing was heard for `server.idle_timeout`",
            true,
        ),
        row(
            Self::PLUGIN_FAILED,
            "plugin_failed",
            "a plugin that must admit the connection failed, or is not loaded",
            true,
        ),
        row(
            Self::REPLACED,
            "replaced",
            "the client did not answer a ping, and its user had no place left for a new connection",
            true,
        ),
        row(
            Self::SLOW_MESSAGE,
            "slow_message",
            "a message took longer than `limits.message_time_max` to arrive",
            true,
        ),
        row(
            Self::NO_MEMORY,
            "no_memory",
            "unfinished messages fill `limits.unfinished_bytes_max` of the node",
            true,
        ),
        row(
            Self::INTERNAL,
            "internal",
            "the session failed, by a fault of the server",
            true,
        ),
        row(
            Self::TOO_MANY,
            "too_many",
            "in place of 429: the user or the address has too many connections, or the node accepts no more this second",
            false,
        ),
        row(
            Self::UNAVAILABLE,
            "unavailable",
            "in place of 503: the node has no room for another connection, or cannot check tokens now; or the messages after the client's `since` cannot be read now",
            false,
        ),
        row(
            Self::TOKEN_EXPIRED,
            "token_expired",
            "`auth.grace` has passed since the token's `exp`, or the token was revoked",
            false,
        ),
        row(
            Self::KICKED,
            "kicked",
            "a plugin or a backend disconnected the client, or blocked the user",
            false,
        ),
        row(
            Self::REFUSED,
            "refused",
            "a plugin did not admit the connection",
            false,
        ),
        row(
            Self::FLOOD,
            "flood",
            "the client kept sending far more than its limits allow",
            true,
        ),
        row(
            Self::UNAUTHORIZED,
            "unauthorized",
            "in place of 400 or 401: no token that is accepted, no `userId`, or a malformed `since`",
            false,
        ),
        row(
            Self::FORBIDDEN,
            "forbidden",
            "in place of 403: `server.allowed_origins` does not let the page in, or the user is blocked",
            false,
        ),
    ];

    /// The code of a disconnection that a plugin or a backend requests; `None` unless it is from 4000 to 4999.
    pub fn from_plugin(code: u16) -> Option<Self> {
        (4000..=4999).contains(&code).then_some(Self(code))
    }

    /// Whether a client's close frame with `code` ends a connection properly. 1005 stands for a frame without a code.
    pub const fn is_clean(code: u16) -> bool {
        matches!(code, 1000 | 1001 | 1005 | 3000..=4999)
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the client is asked to reconnect.
    pub const fn reconnect(self) -> bool {
        matches!(self.0, 4000..4500)
    }

    /// A word for metrics and logs; codes that plugins choose share one.
    pub fn name(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|row| row.code == self)
            .map_or("plugin", |row| row.name)
    }

    /// Whether a close with this code counts as an unexpected disconnect. A plugin's own code is a decision, not an
    /// accident.
    pub fn unexpected(self) -> bool {
        Self::TABLE
            .iter()
            .find(|row| row.code == self)
            .is_some_and(|row| row.unexpected)
    }
}

const fn row(
    code: CloseCode,
    name: &'static str,
    when: &'static str,
    unexpected: bool,
) -> CloseCodeRow {
    CloseCodeRow {
        code,
        name,
        when,
        unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_below_4500_reconnect_and_the_others_do_not() {
        assert!(
            CloseCode::DRAIN.reconnect()
                && CloseCode::SLOW_CONSUMER.reconnect()
                && CloseCode::IDLE.reconnect()
        );
        assert!(!CloseCode::TOKEN_EXPIRED.reconnect() && !CloseCode::KICKED.reconnect());
        assert!(!CloseCode::NORMAL.reconnect() && !CloseCode::NOT_UTF8.reconnect());
    }

    #[test]
    fn a_close_without_a_code_or_with_one_of_an_application_is_clean() {
        for code in [1000, 1001, 1005, 3000, 3999, 4000, 4321, 4999] {
            assert!(CloseCode::is_clean(code), "{code}");
        }
        for code in [1002, 1003, 1006, 1007, 1008, 1009, 1011, 2999, 5000] {
            assert!(!CloseCode::is_clean(code), "{code}");
        }
    }

    #[test]
    fn plugins_choose_among_4000_to_4999() {
        assert_eq!(CloseCode::from_plugin(3999), None);
        assert_eq!(CloseCode::from_plugin(5000), None);
        assert_eq!(
            CloseCode::from_plugin(4777).map(CloseCode::name),
            Some("plugin")
        );
        assert_eq!(CloseCode::from_plugin(4501), Some(CloseCode::KICKED));
    }

    #[test]
    fn every_code_stands_in_the_protocol_reference() {
        let reference = include_str!("../../../docs/protocol.md");
        for code in ErrorCode::ALL {
            assert!(
                reference.contains(&format!("`{}`", code.as_str())),
                "docs/protocol.md lacks {}",
                code.as_str()
            );
        }
        for row in CloseCode::TABLE {
            let (code, name) = (row.code.number(), row.name.replace('_', " "));
            let reconnect = match code {
                1000 => "–",
                _ if row.code.reconnect() => "yes",
                _ => "no",
            };
            let row = format!("| {code} | {name} | {} | {reconnect} |", row.when);
            assert!(reference.contains(&row), "docs/protocol.md lacks {row}");
        }
    }
}
