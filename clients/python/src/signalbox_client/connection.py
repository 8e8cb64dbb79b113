"""A connection after its `welcome`, with its timers."""

from __future__ import annotations

from collections.abc import Callable

from .frames import Json, number_of
from .heartbeat import Heartbeat
from .link import Link, Sender
from .options import Options
from .outcomes import End
from .timers import Timer, Timers

#: The silence after which the client asks for a sign of life if `welcome` does not say, in seconds.
_HEARTBEAT_INTERVAL = 25.0


class Connection:
    """A link that is welcome."""

    def __init__(self, link: Link, welcome: dict[str, Json]) -> None:
        self.link = link
        self.welcome = welcome
        #: Why the client itself ended the connection.
        self.end: End | None = None
        limits = welcome.get("limits")
        self.frame_bytes_max = number_of(limits, "frameBytesMax") if isinstance(limits, dict) else None
        self._heartbeat: Heartbeat | None = None
        self._stable: Timer | None = None
        self._paused = False

    def supervise(
        self,
        timers: Timers,
        options: Options,
        sender: Sender,
        ask: Callable[[], None],
        stable: Callable[[], None],
    ) -> None:
        """Watch for signs of life, and call `stable` when the connection has lasted."""
        interval = options.heartbeat_interval
        if interval is None:
            interval = (number_of(self.welcome, "heartbeatIntervalMs") or 0) / 1000 or _HEARTBEAT_INTERVAL
        self._heartbeat = Heartbeat(timers, interval, options.heartbeat_timeout, ask, self._dead)
        self._stable = timers.call_later(options.stable_after, stable)
        self.link.listen(self._heartbeat.heard, sender)

    def pause(self) -> None:
        """The client does not read for a while, so silence means nothing."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._heartbeat is not None:
            self._heartbeat.heard()

    def drop(self, reason: str) -> None:
        """End the connection, and reconnect."""
        self.end = self.end or End(reason=reason)
        self.abort()

    def deny(self, reason: str) -> None:
        """End the connection for good: there is no token."""
        self.end = End(reason=reason, denied=True)
        self.abort()

    def abort(self) -> None:
        """End the connection without a close handshake."""
        self.stop()
        self.link.abort()

    def stop(self) -> None:
        """Cancel all timers."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._stable is not None:
            self._stable.cancel()

    def _dead(self) -> None:
        if self._paused and self._heartbeat is not None:
            self._heartbeat.restart()
            return
        self.drop("nothing arrived for too long")
