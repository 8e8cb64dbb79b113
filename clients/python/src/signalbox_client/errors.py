"""The errors of calls, joins and connections."""

from __future__ import annotations

_RETRYABLE = frozenset({"offline", "queue_full", "connection_lost", "timeout", "buffered"})


class SignalboxError(Exception):
    """A call, a join or a connection failed.

    `code` is one of the server (docs/protocol.md), of a plugin, or of this client: `offline`, `queue_full`,
    `connection_lost`, `timeout`, `closed`, `too_large`, `unauthorized`, `unsupported_protocol`, `refused`. Errors that
    only reach `Client.on_error` are also `invalid_frame`, `callback_failed`, `token_failed` and `buffered`: a proxy holds
    back the server-sent events.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool | None = None,
        plugin: str | None = None,
        status: int | None = None,
        close_code: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        #: Whether the same call may succeed later.
        self.retryable = code in _RETRYABLE if retryable is None else retryable
        #: The plugin that refused or failed.
        self.plugin = plugin
        #: The HTTP status of a refused upgrade, or of a call of the backend API.
        self.status = status
        #: The close code that ended the connection for good.
        self.close_code = close_code


class TokenDenied(Exception):
    """Raised by a token callback: there will be no token. The client is closed, or leaves the room, instead of asking again."""
