"""Calls the callbacks of the application in order, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

from .errors import SignalboxError

_LOG = logging.getLogger("signalbox_client")

T = TypeVar("T")
#: A function or a coroutine function of the application.
Callback = Callable[[T], Awaitable[None] | None]


class Callbacks(Generic[T]):
    """The callbacks for one kind of event."""

    def __init__(self) -> None:
        self._list: list[Callback[T]] = []

    def add(self, callback: Callback[T]) -> Callable[[], None]:
        """Add a callback, and return the function that removes it."""
        self._list = [*self._list, callback]

        def remove() -> None:
            self._list = [other for other in self._list if other is not callback]

        return remove

    def __iter__(self) -> Iterator[Callback[T]]:
        return iter(self._list)

    def __len__(self) -> int:
        return len(self._list)


class Dispatcher:
    """The events that wait for their callbacks. It holds a task only while a coroutine function of the application runs."""

    def __init__(self, max_waiting: int, failed: Callable[[SignalboxError], None]) -> None:
        self._max_waiting = max_waiting
        self._failed = failed
        self._waiting: deque[tuple[Callback[Any], Any]] = deque()
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None

    def emit(self, callbacks: Callbacks[T], event: T) -> None:
        """Call each of `callbacks` with `event`, after those of earlier events."""
        for callback in callbacks:
            self._waiting.append((callback, event))
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def clear(self) -> None:
        """Forget all events that wait."""
        self._waiting.clear()
        self._release()

    @property
    def full(self) -> bool:
        """Whether as many events wait as may."""
        return len(self._waiting) >= self._max_waiting

    async def ready(self) -> None:
        """Return when fewer events wait."""
        if not self.full:
            return
        self._ready = asyncio.get_running_loop().create_future()
        await self._ready

    def _drain(self) -> None:
        while self._waiting:
            callback, event = self._waiting.popleft()
            try:
                result = callback(event)
            except Exception as error:
                self._report(callback, event, error)
                continue
            if result is not None:
                self._task = asyncio.ensure_future(self._finish(callback, event, result))
                self._release()
                return
        self._scheduled = False
        self._release()

    async def _finish(self, callback: Callback[Any], event: Any, result: Awaitable[None]) -> None:
        try:
            await result
        except Exception as error:
            self._report(callback, event, error)
        finally:
            self._task = None
            asyncio.get_running_loop().call_soon(self._drain)

    def _release(self) -> None:
        if self._ready is not None and not self._ready.done() and not self.full:
            self._ready.set_result(None)

    def _report(self, callback: Callback[Any], event: Any, cause: Exception) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        if isinstance(event, SignalboxError) and event.code == "callback_failed":
            # The callback for errors fails itself: a report would come back to it.
            _LOG.error("%s failed", name, exc_info=cause)
            return
        error = SignalboxError("callback_failed", f"{name}: {cause!r}")
        error.__cause__ = cause
        self._failed(error)
