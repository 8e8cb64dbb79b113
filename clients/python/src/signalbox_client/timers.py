"""Time, as far as a test replaces it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None:
        """Forget the callback."""


class Timers(Protocol):
    """A clock and its timers. The event loop is one."""

    def time(self) -> float:
        """Seconds since some moment; never runs backwards."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `delay` seconds."""


class Alarm:
    """A wait that begins when it is created, and can be ended early."""

    def __init__(self, timers: Timers, delay: float) -> None:
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer = timers.call_later(delay, self.end)

    def end(self) -> None:
        """End the wait now."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Return when the time has passed."""
        try:
            await self._ended
        finally:
            self._timer.cancel()


async def within(timers: Timers, delay: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or `TimeoutError` after `delay` seconds. In each case `work` has ended."""
    task = asyncio.ensure_future(work)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = timers.call_later(delay, expire)
    try:
        return await task
    except asyncio.CancelledError:
        if expired and task.cancelled():
            raise TimeoutError from None
        task.cancel()
        raise
    finally:
        timer.cancel()
