"""How an attempt or a connection ended, and what follows from it."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

_TOKEN_CODES = frozenset({4500, 4504})
_FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
_FINAL_STATUSES = frozenset({400, 403, 404, 405, 410, 426})
#: The longest `Retry-After` that the client follows, in seconds.
_RETRY_AFTER_MAX = 60.0
#: The server's codes for an upgrade out of which a proxy took the header fields of WebSockets.
_STRIPPED = frozenset({"not_an_upgrade", "websocket_version", "websocket_key"})


class Next(enum.Enum):
    """What the client does after the end of a connection."""

    RECONNECT = enum.auto()
    NEW_TOKEN = enum.auto()
    CLOSE = enum.auto()


@dataclass(frozen=True)
class End:
    """The end of an attempt or of a connection."""

    reason: str
    #: The close code of the server.
    code: int | None = None
    #: The HTTP status of a refused upgrade.
    status: int | None = None
    #: The least time until the next attempt, in seconds.
    retry_after: float = 0.0
    #: Whether the server does not speak the protocol.
    unsupported: bool = False
    #: Whether the application's callback said that there will be no token.
    denied: bool = False
    #: Whether the server itself ended it, rather than the network or a proxy.
    answered: bool = False
    #: Whether the status may be that of a proxy, so that it does not close the client yet.
    doubtful: bool = False
    #: Whether the wait is short: the next attempt uses server-sent events, after one with a WebSocket.
    paired: bool = False

    def next(self) -> Next:
        """What the client does now."""
        if self.doubtful:
            return Next.RECONNECT
        if self.unsupported or self.denied:
            return Next.CLOSE
        if self.code in _TOKEN_CODES or self.status == 401:
            return Next.NEW_TOKEN
        if self.code is not None and (self.code in _FINAL_CODES or 4501 <= self.code <= 4999):
            return Next.CLOSE
        if self.status in _FINAL_STATUSES:
            return Next.CLOSE
        return Next.RECONNECT


class Ended(Exception):
    """The attempt or the connection has ended."""

    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


def refused(status: int, retry_after_header: str | None, body: bytes) -> End:
    """The end of an attempt that was answered with this status."""
    code, message = _error_of(body)
    return End(
        reason=message or f"HTTP {status}",
        status=status,
        retry_after=retry_after(retry_after_header),
        answered=status == 401 or (code is not None and code not in _STRIPPED),
    )


def retry_after(header: str | None) -> float:
    """The seconds in a `Retry-After`, at most a minute; 0 if there are none."""
    if header is None or not header.strip().isdecimal():
        return 0.0
    return min(float(header), _RETRY_AFTER_MAX)


def _error_of(body: bytes) -> tuple[str | None, str | None]:
    """The code of the server, and a message for people."""
    try:
        error = json.loads(body)["error"]
        code, message = error["code"], error.get("message")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace").strip()
        return None, text if 0 < len(text) <= 200 and "<" not in text else None
    return code if isinstance(code, str) else None, message if isinstance(message, str) else None
