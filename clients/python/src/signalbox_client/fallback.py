"""Which transport each attempt uses: section 12 of clients/SPEC.md."""

from __future__ import annotations

from dataclasses import replace

from .link import Transport
from .options import Options
from .outcomes import End, Next
from .timers import Timers

#: So many attempts must fail before a client leaves a transport that worked.
_FAILURES_MAX = 3
#: These say that a server, or a proxy, has no server-sent events.
_ABSENT = frozenset({404, 405, 410})


class Fallback:
    """Attempts change between the transports until one of them reaches the server."""

    def __init__(self, options: Options, timers: Timers) -> None:
        self._enabled = options.fallback
        self._again = options.web_socket_again
        self._timers = timers
        #: The transport of the next attempt.
        self.transport: Transport = "websocket"
        # The transport of the last connection.
        self._worked: Transport | None = None
        # When the last attempt with a WebSocket began.
        self._tried = float("-inf")
        # The failed attempts in a row that the server itself did not answer.
        self._failures = 0
        # The transport of the last attempt, if a status ended it that may be that of a proxy.
        self._doubted: Transport | None = None

    def start(self) -> None:
        """A series of attempts begins."""
        self._failures = 0
        self._doubted = None
        is_late = self._timers.time() - self._tried >= self._again
        self.transport = "sse" if self._worked == "sse" and not is_late else "websocket"

    def begin(self) -> Transport:
        """An attempt begins. The transport that it uses."""
        if self.transport == "websocket":
            self._tried = self._timers.time()
        return self.transport

    def connected(self) -> None:
        """The attempt led to a connection."""
        self._worked = self.transport

    def failed(self, end: End) -> End:
        """The attempt has failed. Returns its end, with what follows from the choice of the transport."""
        if not self._enabled:
            return end
        used = self.transport
        is_absent = used == "sse" and end.status in _ABSENT
        is_answered = end.answered and not is_absent
        is_final = end.status is not None and end.next() is Next.CLOSE
        is_doubtful = is_final and not is_answered
        is_confirmed = self._doubted is not None and self._doubted != used
        self._doubted = used if is_doubtful else None
        self._failures = 0 if is_answered else self._failures + 1
        stays = is_answered or (self._worked == "websocket" and self._failures < _FAILURES_MAX)
        if not stays:
            self.transport = "sse" if used == "websocket" else "websocket"
        is_paired = used == "websocket" and self.transport == "sse"
        return replace(end, doubtful=is_doubtful and not is_confirmed, paired=is_paired)
