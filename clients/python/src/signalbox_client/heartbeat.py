"""Notices a connection that is dead."""

from __future__ import annotations

import time
from collections.abc import Callable

from .timers import Timer, Timers

#: A timer that is this late means that the process was paused, in seconds.
_PAUSE = 5.0
#: How long the client waits for a sign of life after a pause, in seconds.
_PAUSE_TIMEOUT = 5.0


class Heartbeat:
    """One timer for a connection: it asks for a sign of life after silence, and reports the connection as lost without one."""

    def __init__(
        self,
        timers: Timers,
        interval: float,
        timeout: float,
        ask: Callable[[], None],
        lost: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._timers = timers
        self._interval = interval
        self._timeout = timeout
        self._ask = ask
        self._lost = lost
        # The monotonic clock may stand still while a computer sleeps; the time of day does not.
        self._wall = wall
        self._heard = timers.time()
        self._asked = False
        self._timer: Timer | None = None
        self._due = 0.0
        self._wall_due = 0.0
        self._arm(interval)

    def heard(self) -> None:
        """Something arrived."""
        self._heard = self._timers.time()
        if self._asked:
            self.restart()

    def restart(self) -> None:
        """Start again: there was a sign of life, or the silence had another reason."""
        self.stop()
        self._heard = self._timers.time()
        self._arm(self._interval)

    def stop(self) -> None:
        """The connection has ended."""
        self._asked = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay: float) -> None:
        self._due = self._timers.time() + delay
        self._wall_due = self._wall() + delay
        self._timer = self._timers.call_later(delay, self._fire)

    def _fire(self) -> None:
        now = self._timers.time()
        late = max(now - self._due, self._wall() - self._wall_due)
        if late > _PAUSE:
            # Nothing that was due during the pause says anything about the connection.
            self._question(min(self._timeout, _PAUSE_TIMEOUT))
        elif self._asked:
            self.stop()
            self._lost()
        elif now - self._heard >= self._interval:
            self._question(self._timeout)
        else:
            self._arm(self._heard + self._interval - now)

    def _question(self, timeout: float) -> None:
        self._asked = True
        self._ask()
        self._arm(timeout)
